"""A batch on its way to the network: cut, masked and mixed on the network's own device.

Several processes deal the same batches from the same seed, and each takes its part of the
windows. What a loss is divided by is counted over the whole batch, whose targets every process
knows; so nothing but gradients needs to be sent around. Mixing stays within a part, because a
partner's feature maps live in another process: who is mixed with whom differs from one process,
how much and how often does not.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from torch import Tensor

from antpitta.core.stages import Stage
from antpitta.core.types import Targets
from antpitta.model.head import Logits, box_logits
from antpitta.model.inputs import Mixup, draw_mixup, draw_spec_mask, join_mixups, to_device
from antpitta.model.losses import CellTargets, LossTargets, masked_loss, treat_unknown_as_absent
from antpitta.model.network import SedNet
from antpitta.train.batches import Batch
from antpitta.train.data import TrainingData

LEAST = 2  # windows of a part: batch norm needs two


@dataclass(frozen=True)
class ProcessRank:
    """Which of several processes this is."""

    rank: int = 0
    world_size: int = 1


ALONE = ProcessRank()


@dataclass(frozen=True)
class DeviceBatch:
    """What one process runs of a batch; pixels or what a frozen body saw of them."""

    pixels: Tensor | None  # (windows, frames, bands)
    backbone_features: Tensor | None  # (windows, inputs, steps)
    mixup: Mixup | None
    manifold_mixup: Mixup | None
    targets: LossTargets  # by window, or by row of ``focus``
    global_targets: LossTargets | None  # of the whole batch, where this is a part of it
    box_spans: Tensor | None  # (rows, 3), as in Batch
    loss_scale: (
        float  # of the loss: the mean over all processes is then the loss of the whole batch
    )

    @property
    def n_windows(self) -> int:
        """How many there are."""
        shown = self.pixels if self.pixels is not None else self.backbone_features
        return 0 if shown is None else len(shown)

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> "DeviceBatch":
        """The same, with ``change`` of each tensor in it, always in the same order."""

        def of(one: Tensor | None) -> Tensor | None:
            return None if one is None else change(one)

        return replace(
            self,
            pixels=of(self.pixels),
            backbone_features=of(self.backbone_features),
            mixup=self.mixup and Mixup(*map(change, self.mixup)),
            manifold_mixup=self.manifold_mixup and Mixup(*map(change, self.manifold_mixup)),
            targets=_each(self.targets, change),
            global_targets=self.global_targets and _each(self.global_targets, change),
            box_spans=of(self.box_spans),
        )


def _each(told: LossTargets, change: Callable[[Tensor], Tensor]) -> LossTargets:
    labels, pseudo_labels = told
    first = CellTargets(change(labels.value), change(labels.weight))
    return first, pseudo_labels and CellTargets(
        change(pseudo_labels.value), change(pseudo_labels.weight)
    )


def part_of(size: int, place: ProcessRank) -> list[slice]:
    """The windows of each process; one slice where a batch is too small to be shared out."""
    if size < LEAST * place.world_size:
        return [slice(0, size)]
    edges = [size * i // place.world_size for i in range(place.world_size + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def prepare_batch(
    batch: Batch,
    training_data: TrainingData,
    stage: Stage,
    rng: np.random.Generator,
    device: torch.device,
    bank: Tensor | None = None,
    place: ProcessRank = ALONE,
) -> DeviceBatch:
    """Cut, mask and mix this process' part of a batch; all processes draw alike from ``rng``.

    A batch too small to be shared out is run by every process, and counts once.
    """
    parts = part_of(len(batch.windows), place)
    own = place.rank if len(parts) > 1 else 0
    rows = parts[own]
    pixels = seen = None
    if bank is not None and batch.indices is not None:
        seen = bank[to_device(batch.indices[rows], bank.device)].to(device).float()
    else:
        pixels = _cut(batch, rows, training_data, stage, rng).to(device, non_blocking=True)
    mixes = _draw(parts, stage.mixup, rng, device)
    lates = _draw(parts, stage.manifold_mixup, rng, device)
    labels, pseudo_labels = told = _tell(batch, stage, mixes, lates, device)
    focus, mine = _focus(batch, rows, device)
    whole = None
    if len(parts) > 1:
        whole, told = told, (labels.take(mine), pseudo_labels and pseudo_labels.take(mine))
    mix, late = mixes[own] if mixes else None, lates[own] if lates else None
    return DeviceBatch(pixels, seen, mix, late, told, whole, focus, loss_scale=float(len(parts)))


def batch_loss(model: SedNet, ready: DeviceBatch, stage: Stage, weights: Tensor | None) -> Tensor:
    """Run a batch, and compare what comes out with what is known."""
    found = cast(
        Logits, model(ready.pixels, ready.mixup, ready.manifold_mixup, ready.backbone_features)
    )
    logits = found.clipwise
    if ready.box_spans is not None:
        logits = box_logits(found, ready.box_spans, model.stride)
    loss = masked_loss(logits.float(), *ready.targets, stage.loss, weights, ready.global_targets)
    return loss if ready.loss_scale == 1 else loss * ready.loss_scale


def _cut(
    batch: Batch, rows: slice, training_data: TrainingData, stage: Stage, rng: np.random.Generator
) -> Tensor:
    pictures = training_data.features
    bands = pictures.pixels.shape[1]
    holes = draw_spec_mask(batch.windows, pictures.lengths, bands, stage.masks, rng)
    cuts = batch.windows.take(np.arange(rows.start, rows.stop))
    pixels = pictures.gather(cuts)
    return pixels if holes is None else holes.take(rows).apply(pixels, cuts)


def _draw(
    parts: list[slice], alpha: float, rng: np.random.Generator, device: torch.device
) -> list[Mixup]:
    if not alpha:
        return []
    return [draw_mixup(part.stop - part.start, alpha, rng, device) for part in parts]


def _tell(
    batch: Batch, stage: Stage, mixes: list[Mixup], lates: list[Mixup], device: torch.device
) -> LossTargets:
    """What is known of the whole batch, mixed as its windows are."""
    labels = _on_device(batch.labels, device)
    pseudo_labels = None if batch.pseudo_labels is None else _on_device(batch.pseudo_labels, device)
    if stage.loss.unknown == "absent":  # before mixing: an unknown is a whole absence then
        labels = treat_unknown_as_absent(labels, pseudo_labels)
    if mixes:
        mix = join_mixups(mixes)
        labels, pseudo_labels = labels.mixed(mix), pseudo_labels and pseudo_labels.mixed(mix)
    if lates:
        late = join_mixups(lates)
        labels, pseudo_labels = (
            labels.mixed_late(late),
            pseudo_labels and pseudo_labels.mixed_late(late),
        )
    return labels, pseudo_labels


def _focus(batch: Batch, rows: slice, device: torch.device) -> tuple[Tensor | None, slice | Tensor]:
    """The foci in some windows, counted from the first of these; and the targets' rows of them."""
    if batch.box_spans is None:
        return None, rows
    place = batch.box_spans[:, 0]
    mine = np.flatnonzero((place >= rows.start) & (place < rows.stop))
    focus = batch.box_spans[mine] - np.array([rows.start, 0, 0])
    return to_device(focus, device), to_device(mine, device)


def _on_device(targets: Targets, device: torch.device) -> CellTargets:
    return CellTargets(to_device(targets.value, device), to_device(targets.weight, device))
