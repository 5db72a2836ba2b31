"""From training data to what the network gets: the batches of an epoch, and their way to a device.

* Which windows an epoch shows, and in which order, depends only on the stage and a generator.
* On the device a batch is gathered, masked and mixed.
* Several processes make the same batches from the same seed, and each takes its part of the
  windows. The loss is divided by counts over the whole batch, whose targets every process knows,
  so only gradients are exchanged. Mixup stays within a part, because the feature maps of other
  parts are in other processes: which windows are mixed differs from training in one process, how
  much does not.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.stages import Stage
from antpitta.core.types import Targets
from antpitta.model.inputs import Mixup, draw_mixups, draw_spec_mask, join_mixups, to_device
from antpitta.model.losses import CellTargets, LossTargets, treat_unknown_as_absent
from antpitta.sound.targets import draw_crops
from antpitta.sound.windows import WindowIndex
from antpitta.train.data import TrainingData
from antpitta.train.step_store import BackboneFeatures

Ints = NDArray[np.int64]

MIN_WINDOWS = 2  # of a process: batch norm needs two


# ---- the batches of an epoch


@dataclass(frozen=True)
class Batch:
    """Windows with their targets.

    Parameters
    ----------
    windows
        The windows.
    labels : (windows, classes), or (boxes, classes) with ``box_spans``
        The targets from boxes.
    pseudo_labels : the shape of ``labels``
        Pseudo-labels, with weight 0 where a box is known.
    indices : (windows,)
        The indices of the windows among the training windows; None for crops.
    box_spans : (boxes, 3)
        The window, first frame and end frame of each row of the targets, where the loss is on
        boxes.
    examples : (windows,)
        The number of the example that each window belongs to; None where that is its segment.
    """

    windows: WindowIndex
    labels: Targets
    pseudo_labels: Targets | None = None
    indices: Ints | None = None
    box_spans: Ints | None = None
    examples: Ints | None = None


def epoch_batches(
    stage: Stage,
    training_data: TrainingData,
    recordings: Ints,
    pseudo_labels: Targets | None,
    rng: np.random.Generator,
) -> list[Batch]:
    """The batches of one epoch.

    Parameters
    ----------
    stage
        Settings: what is sampled, and the batch size.
    training_data
        The windows and their labels.
    recordings : indices
        The recordings to train on.
    pseudo_labels : (windows, classes)
        Pseudo-labels of all training windows.
    rng
        The order of the windows, and the places of crops.

    Returns
    -------
    batches
        In the order of the epoch; empty where nothing can be trained on.
    """
    if stage.sample == "crops":
        return _crop_batches(stage, training_data, recordings, rng)
    if stage.sample == "verdicts":
        return _verdict_batches(stage, training_data, recordings, pseudo_labels, rng)
    if stage.sample == "balanced":
        groups = _balanced_groups(stage, training_data, recordings, rng)
    elif stage.sample == "known":
        windows = training_data.windows_of(recordings)
        known = training_data.labels.weight[windows].any(axis=1)
        if pseudo_labels is not None:
            known |= pseudo_labels.weight[windows].any(axis=1)
        groups = _split_batches(rng.permutation(windows[known]), stage.batch_size)
    else:
        order = rng.permutation(len(recordings))
        batches = _split_batches(order, stage.batch_size)
        groups = _windows_by_recording(training_data, [recordings[batch] for batch in batches])
    make_batch = box_batch if stage.loss.on == "boxes" else _window_batch
    return [make_batch(training_data, group, pseudo_labels) for group in groups if len(group)]


def _balanced_groups(
    stage: Stage, training_data: TrainingData, recordings: Ints, rng: np.random.Generator
) -> list[Ints]:
    """Half of each batch are windows with a present label, half such with absent labels only.

    An epoch has every window with a present label once. The others are drawn without repetition
    until all were drawn, and then anew.
    """
    windows = training_data.windows_of(recordings)
    labels = training_data.labels
    is_present = (labels.value * labels.weight)[windows].any(axis=1)
    is_absent = labels.weight[windows].any(axis=1) & ~is_present
    order, others = rng.permutation(windows[is_present]), windows[is_absent]
    rounds = -(-len(order) // len(others)) if len(others) else 0
    drawn = [rng.permutation(others) for _ in range(rounds)]
    partners = np.concatenate([*drawn, others[:0]])
    groups, first = [], 0
    for group in _split_batches(order, max(1, stage.batch_size // 2)):
        groups.append(np.concatenate([group, partners[first : first + len(group)]]))
        first += len(group)
    return groups


def _verdict_batches(
    stage: Stage,
    training_data: TrainingData,
    recordings: Ints,
    pseudo_labels: Targets | None,
    rng: np.random.Generator,
) -> list[Batch]:
    """Batches of recordings with their present boxes, and of recordings with their absent ones.

    A recording that has both is two examples, and each of them has one kind of labels only.
    """
    with_present, with_absent = (own.having(recordings) for own in training_data.crop_centers)
    owner = np.concatenate([with_present, with_absent])
    present, absent = training_data.verdict_labels
    batches = []
    for group in _split_batches(rng.permutation(len(owner)), stage.batch_size):
        parts = _windows_by_recording(training_data, list(owner[group][:, None]))
        examples = np.repeat(group, [len(part) for part in parts])
        indices = np.concatenate(parts)
        batch = _window_batch(training_data, indices, pseudo_labels)
        is_present = (examples < len(with_present))[:, None]
        labels = Targets(
            np.where(is_present, present.value[indices], absent.value[indices]),
            np.where(is_present, present.weight[indices], absent.weight[indices]),
        )
        batches.append(replace(batch, labels=labels, examples=examples))
    return batches


def _windows_by_recording(training_data: TrainingData, groups: list[Ints]) -> list[Ints]:
    """The windows of each group of recordings."""
    owner = training_data.recording_index[training_data.windows.segment]
    order = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[order], np.arange(len(training_data.boxes) + 1))
    return [np.concatenate([order[edges[i] : edges[i + 1]] for i in group]) for group in groups]


def _split_batches(order: Ints, size: int) -> list[Ints]:
    """Groups of ``size``; a last group of one joins the one before, as batch norm needs two."""
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [np.concatenate(groups[-2:])]
    return groups


def _window_batch(training_data: TrainingData, indices: Ints, pseudo: Targets | None) -> Batch:
    return Batch(
        training_data.windows.take(indices),
        _take(training_data.labels, indices),
        None if pseudo is None else _take(pseudo, indices),
        indices,
    )


def box_batch(training_data: TrainingData, indices: Ints, pseudo_labels: Targets | None) -> Batch:
    """Windows with one row of targets for each box that overlaps one.

    A pseudo-label has no time of its own: its row has the empty span 0, 0, and its score is the
    highest logit of its window.

    Parameters
    ----------
    training_data
        The windows and their boxes.
    indices : (windows,)
        The windows of the batch.
    pseudo_labels : (windows, classes)
        Pseudo-labels of all training windows.

    Returns
    -------
    batch
        Its targets are (boxes, classes): the rows of the boxes, then those of the pseudo-labels.
    """
    windows = training_data.windows.take(indices)
    box_spans, labels = training_data.box_frames.box_targets(windows)
    if pseudo_labels is None:
        return Batch(windows, labels, None, indices, box_spans)
    labelled = np.flatnonzero(pseudo_labels.weight[indices].any(axis=1))
    empty = np.zeros((len(labelled), labels.value.shape[1]), dtype=np.float32)
    no_pseudo = np.zeros_like(labels.value)
    return Batch(
        windows,
        _concatenate(labels, Targets(empty, empty)),
        _concatenate(Targets(no_pseudo, no_pseudo), _take(pseudo_labels, indices[labelled])),
        indices,
        np.concatenate([box_spans, np.stack([labelled, 0 * labelled, 0 * labelled], axis=1)]),
    )


def _crop_batches(
    stage: Stage, training_data: TrainingData, recordings: Ints, rng: np.random.Generator
) -> list[Batch]:
    frames, lengths = training_data.windows.frames, training_data.features.lengths
    centers, box_frames = training_data.crop_centers, training_data.box_frames
    crops, is_present = draw_crops(stage, centers, recordings, frames, lengths, rng)
    labels = box_frames.window_targets(crops)
    blind = box_frames.select(present=False).window_targets(crops)  # to the present boxes
    labels = Targets(
        np.where(is_present[:, None], labels.value, blind.value),
        np.where(is_present[:, None], labels.weight, blind.weight),
    )
    return [
        Batch(crops.take(group), _take(labels, group), examples=group)
        for group in _split_batches(np.arange(len(crops)), stage.batch_size)
    ]


def _take(targets: Targets, rows: Ints) -> Targets:
    return Targets(targets.value[rows], targets.weight[rows])


def _concatenate(first: Targets, second: Targets) -> Targets:
    return Targets(
        np.concatenate([first.value, second.value]), np.concatenate([first.weight, second.weight])
    )


# ---- a batch on a device


@dataclass(frozen=True)
class ProcessRank:
    """Which of several processes this is."""

    rank: int = 0
    world_size: int = 1


SINGLE_PROCESS = ProcessRank()


@dataclass(frozen=True)
class DeviceBatch:
    """One process's part of a batch, on its device.

    Parameters
    ----------
    pixels : (windows, frames, bands)
        The features from files, masked; None where ``backbone_features`` are known.
    backbone_features : (windows, inputs, steps)
        The features of a frozen backbone; with ``box_rows`` those of the windows that the targets
        after the boxes' belong to.
    inside : (windows, frames)
        Which frames are no padding; None where padding is silence.
    box_rows : (boxes, inputs)
        The features of a frozen backbone over each box, where the loss is on boxes.
    mixup, manifold_mixup
        How the input and the feature maps are mixed.
    targets : (windows, classes), or (boxes, classes) with ``box_spans``
        The labels and pseudo-labels of this part.
    global_targets
        Those of the whole batch, where this is a part of one.
    box_spans : (boxes, 3)
        As in :class:`Batch`, with the windows of this part; None with ``box_rows``.
    loss_scale
        Multiplies the loss, so that the mean over all processes is the loss of the whole batch.
    """

    pixels: Tensor | None
    backbone_features: Tensor | None
    inside: Tensor | None
    mixup: Mixup | None
    manifold_mixup: Mixup | None
    targets: LossTargets
    global_targets: LossTargets | None
    box_spans: Tensor | None
    loss_scale: float
    box_rows: Tensor | None = None

    @property
    def n_windows(self) -> int:
        """The number of windows."""
        inputs = self.pixels if self.pixels is not None else self.backbone_features
        return 0 if inputs is None else len(inputs)

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> "DeviceBatch":
        """A copy with ``change`` applied to all tensors, always in the same order."""

        def apply(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        return replace(
            self,
            pixels=apply(self.pixels),
            backbone_features=apply(self.backbone_features),
            inside=apply(self.inside),
            mixup=self.mixup and Mixup(*map(change, self.mixup)),
            manifold_mixup=self.manifold_mixup and Mixup(*map(change, self.manifold_mixup)),
            targets=_map_targets(self.targets, change),
            global_targets=self.global_targets and _map_targets(self.global_targets, change),
            box_spans=apply(self.box_spans),
            box_rows=apply(self.box_rows),
        )


def _map_targets(targets: LossTargets, change: Callable[[Tensor], Tensor]) -> LossTargets:
    labels, pseudo_labels = targets
    changed = CellTargets(change(labels.value), change(labels.weight))
    return changed, pseudo_labels and CellTargets(
        change(pseudo_labels.value), change(pseudo_labels.weight)
    )


def split_windows(count: int, process: ProcessRank) -> list[slice]:
    """Split ``count`` windows among the processes.

    Parameters
    ----------
    count
        The number of windows of a batch.
    process
        Gives the number of processes; its rank does not matter.

    Returns
    -------
    slices
        One for each process, or a single one where there are too few windows to split.
    """
    if count < MIN_WINDOWS * process.world_size:
        return [slice(0, count)]
    edges = [count * i // process.world_size for i in range(process.world_size + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def prepare_batch(
    batch: Batch,
    training_data: TrainingData,
    stage: Stage,
    rng: np.random.Generator,
    device: torch.device,
    backbone_features: BackboneFeatures | None = None,
    process: ProcessRank = SINGLE_PROCESS,
) -> DeviceBatch:
    """Gather, mask and mix this process's part of a batch.

    Parameters
    ----------
    batch, training_data, stage
        The windows, their features and the settings of masks and mixup.
    rng
        All processes draw the same numbers from it.
    device
        Where the network is.
    backbone_features
        Those of all training windows, where they are the same in all epochs.
    process
        A batch with too few windows to be split is run by every process, and counts once.

    Returns
    -------
    device_batch
        The part of this process, with the targets of the whole batch where it was split.
    """
    parts = split_windows(len(batch.windows), process)
    own = process.rank if len(parts) > 1 else 0
    rows = parts[own]
    pixels = features = inside = box_rows = None
    box_spans, target_rows = _own_spans(batch, rows)
    if backbone_features is not None and batch.indices is not None:
        windows = batch.indices[rows]
        if box_spans is not None:
            box_rows = backbone_features.rows_of(windows).to(device)
            windows = windows[box_spans[len(box_rows) :, 0]]  # those of the pseudo-labels
            box_spans = None
        features = backbone_features.store.gather(windows).to(device)
    else:
        pixels, inside = _masked_pixels(batch, rows, training_data, stage, rng)
        pixels = pixels.to(device, non_blocking=True)
        inside = None if inside is None else inside.to(device, non_blocking=True)
    sizes = [part.stop - part.start for part in parts]
    mixups, manifold_mixups = (
        draw_mixups(sizes, alpha, rng, device) if alpha else []
        for alpha in (stage.mixup, stage.manifold_mixup)
    )
    targets = _mixed_targets(batch, stage, mixups, manifold_mixups, device)
    global_targets = None
    if len(parts) > 1:
        labels, pseudo = global_targets = targets
        own_rows = target_rows if isinstance(target_rows, slice) else to_device(target_rows, device)
        targets = labels.take(own_rows), pseudo and pseudo.take(own_rows)
    return DeviceBatch(
        pixels=pixels,
        backbone_features=features,
        inside=inside,
        mixup=mixups[own] if mixups and stage.mixup_inputs else None,
        manifold_mixup=manifold_mixups[own] if manifold_mixups else None,
        targets=targets,
        global_targets=global_targets,
        box_spans=None if box_spans is None else to_device(box_spans, device),
        loss_scale=float(len(parts)),
        box_rows=box_rows,
    )


def _masked_pixels(
    batch: Batch, rows: slice, training_data: TrainingData, stage: Stage, rng: np.random.Generator
) -> tuple[Tensor, Tensor | None]:
    """The masked features of some windows of a batch, and which of their frames are no padding."""
    features = training_data.features
    bands = features.pixels.shape[1]
    examples = np.zeros_like(batch.windows.segment) if batch.examples is None else batch.examples
    spec_mask = draw_spec_mask(batch.windows, examples, features.lengths, bands, stage.masks, rng)
    windows = batch.windows.take(np.arange(rows.start, rows.stop))
    pixels, inside = features.gather(windows), features.inside(windows)
    return pixels if spec_mask is None else spec_mask.take(rows).apply(pixels, windows), inside


def _mixed_targets(
    batch: Batch,
    stage: Stage,
    mixups: list[Mixup],
    manifold_mixups: list[Mixup],
    device: torch.device,
) -> LossTargets:
    """The targets of the whole batch, mixed as its windows are."""
    labels = _on_device(batch.labels, device)
    pseudo = None if batch.pseudo_labels is None else _on_device(batch.pseudo_labels, device)
    if stage.loss.unknown == "absent":  # before mixing, so that an unknown cell is wholly absent
        labels = treat_unknown_as_absent(labels, pseudo)
    if mixups:
        mixup = join_mixups(mixups)
        labels, pseudo = labels.apply_mixup(mixup), pseudo and pseudo.apply_mixup(mixup)
    if manifold_mixups:
        mixup = join_mixups(manifold_mixups)
        labels, pseudo = (
            labels.apply_manifold_mixup(mixup),
            pseudo and pseudo.apply_manifold_mixup(mixup),
        )
    return labels, pseudo


def _own_spans(batch: Batch, rows: slice) -> tuple[Ints | None, slice | Ints]:
    """The box spans in some windows, counted from the first of these; and their target rows."""
    if batch.box_spans is None:
        return None, rows
    window = batch.box_spans[:, 0]
    own = np.flatnonzero((window >= rows.start) & (window < rows.stop))
    return batch.box_spans[own] - np.array([rows.start, 0, 0]), own


def _on_device(targets: Targets, device: torch.device) -> CellTargets:
    return CellTargets(to_device(targets.value, device), to_device(targets.weight, device))
