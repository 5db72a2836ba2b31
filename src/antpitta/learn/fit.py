"""The training loop: the only one, read from top to bottom in the order in which things happen.

Every epoch draws its randomness from (seed, epoch) alone and ends with a checkpoint, so a run
that was killed anywhere goes on from its last whole epoch and ends with the same weights as one
that never stopped. The rate follows half cosines of ``stage.cosine`` epochs, by the position in
the epoch, so that no scheduler has a state to lose.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from typing import Protocol, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.config import Stage
from antpitta.core.types import Targets
from antpitta.learn.batches import Batch, epoch_batches
from antpitta.learn.material import Material
from antpitta.net.losses import CellTargets, masked_loss, take_unknown_for_absent
from antpitta.net.sed import Logits, SedNet, focused
from antpitta.sound.augment import draw_mix, mask

State = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """One model to train: a stage, on some recordings, from a seed."""

    stage: Stage
    train: NDArray[np.int64]  # recordings
    taught: Targets | None
    seed: tuple[int, ...]  # of this stage, cycle and fold
    seen: Tensor | None = None  # (windows, inputs, steps), where a frozen body's view is kept


@dataclass(frozen=True)
class Progress:
    """What one epoch did."""

    epoch: int  # from 1
    loss: float  # mean over the batches
    rate: float  # at the epoch's end
    windows: int
    seconds: float


class Keeper(Protocol):
    """Where checkpoints go; learn/ does not know that it is a disk."""

    def load(self) -> tuple[int, State] | None:
        """Epochs done and the state, or None where nothing is kept."""

    def save(self, epoch: int, state: State) -> None:
        """Keep this one instead of what was kept before."""


def fit(
    net: SedNet,
    task: Task,
    material: Material,
    fabric: Fabric,
    keeper: Keeper,
    report: Callable[[Progress], None],
) -> None:
    """Train ``net`` in place; it ends on the CPU or GPU that ``fabric`` chose."""
    stage = task.stage
    learning = [one for one in net.parameters() if one.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=stage.rate, weight_decay=stage.decay)
    model, adam = fabric.setup(net, optimizer)
    weights = class_weights(material, task).to(fabric.device) if stage.loss.balance else None
    kept = keeper.load()
    done = 0 if kept is None else kept[0]
    if kept is not None:
        restore(net, optimizer, kept[1])

    for epoch in range(done, stage.epochs):
        began = time.perf_counter()
        rng = np.random.default_rng([*task.seed, epoch])
        torch.manual_seed(int(rng.integers(2**31)))  # dropout and stochastic depth
        batches = epoch_batches(stage, material, task.train, task.taught, rng)
        net.train()
        total, windows, rate = 0.0, 0, stage.rate
        for i, batch in enumerate(batches):
            rate = rate_at(stage, epoch + i / len(batches))
            for group in adam.param_groups:
                group["lr"] = rate
            last = i + 1 == len(batches)
            first = i - i % stage.accumulate
            share = min(stage.accumulate, len(batches) - first)
            stepping = last or (i + 1) % stage.accumulate == 0
            with fabric.no_backward_sync(model, enabled=not stepping):
                loss = batch_loss(model, batch, material, stage, weights, rng, task.seen)
                fabric.backward(loss / share)
            if stepping:
                adam.step()
                adam.zero_grad()
            total += float(loss.detach())
            windows += len(batch.cuts)
        if not np.isfinite(total):
            raise FloatingPointError(f"stage {stage.name}: the loss became {total}")
        seconds = time.perf_counter() - began
        # Reported first: killed in between, the epoch is run and reported again, never lost.
        report(Progress(epoch + 1, total / max(1, len(batches)), rate, windows, seconds))
        keeper.save(epoch + 1, capture(net, optimizer))


def rate_at(stage: Stage, position: float) -> float:
    """The learning rate at ``position`` epochs: cosines that fall for a period, then rise."""
    period = stage.cosine or stage.epochs
    return stage.rate * (1 + cos(pi * position / period)) / 2


def batch_loss(
    model: Callable[..., object],
    batch: Batch,
    material: Material,
    stage: Stage,
    weights: Tensor | None,
    rng: np.random.Generator,
    bank: Tensor | None = None,
) -> Tensor:
    """Cut, mask, mix, run, and compare with what is known."""
    device = next(iter(model.parameters())).device  # type: ignore[attr-defined]
    pixels = seen = None
    if bank is not None and batch.rows is not None:
        seen = bank[torch.from_numpy(batch.rows).to(bank.device)].to(device).float()
    else:
        pixels = material.pictures.gather(batch.cuts)
        pixels = mask(pixels, batch.cuts, material.pictures.lengths, stage.masks, rng)
        pixels = pixels.to(device, non_blocking=True)
    heard = _on_device(batch.heard, device)
    taught = None if batch.taught is None else _on_device(batch.taught, device)
    size = len(batch.cuts)
    mix = draw_mix(size, stage.mixup, rng, device) if stage.mixup else None
    late = draw_mix(size, stage.last_mixup, rng, device) if stage.last_mixup else None
    if stage.loss.unknown == "absent":  # before mixing: an unknown is a whole absence then
        heard = take_unknown_for_absent(heard, taught)
    if mix is not None:
        heard, taught = heard.mixed(mix), taught and taught.mixed(mix)
    if late is not None:
        heard, taught = heard.mixed_late(late), taught and taught.mixed_late(late)
    found = cast(Logits, model(pixels, mix, late, seen))
    logits = found.clipwise
    if batch.focus is not None:
        focus = torch.from_numpy(batch.focus).to(device)
        logits = focused(found.framewise, focus, model.stride)  # type: ignore[attr-defined]
    return masked_loss(logits.float(), heard, taught, stage.loss, weights)


def _on_device(targets: Targets, device: torch.device) -> CellTargets:
    value, weight = (torch.from_numpy(x).to(device) for x in (targets.value, targets.weight))
    return CellTargets(value, weight)


def class_weights(material: Material, task: Task) -> Tensor:
    """A class weighs max_count / count, by its present boxes among the training recordings."""
    classes = material.dataset.classes
    count = np.zeros(len(classes), dtype=np.float32)
    for recording in task.train:
        for said in material.boxes[recording]:
            if said.present:
                count[classes.columns(said.label)] += 1
    return torch.from_numpy(count.max() / np.maximum(count, 1))


def capture(net: SedNet, optimizer: torch.optim.Adam) -> State:
    """All that the next epoch needs, as named tensors."""
    still = ("body.",) if net.network.frozen else ()
    state = {
        f"net.{name}": value
        for name, value in net.state_dict().items()
        if not name.startswith(still)
    }
    for i, slots in optimizer.state_dict()["state"].items():
        state |= {f"adam.{i}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    return state


def restore(net: SedNet, optimizer: torch.optim.Adam, state: State) -> None:
    """The inverse of :func:`capture`."""
    learnt = {k[4:]: v for k, v in state.items() if k.startswith("net.")}
    net.load_state_dict(learnt, strict=not net.network.frozen)
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith("adam."):
            _, i, slot = key.split(".")
            slots.setdefault(int(i), {})[slot] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
