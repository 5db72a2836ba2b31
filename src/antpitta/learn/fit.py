"""The training loop: the only one, read from top to bottom in the order in which things happen.

Every epoch draws its randomness from (seed, epoch) alone and ends with a checkpoint, so a run
that was killed anywhere goes on from its last whole epoch and ends with the same weights as one
that never stopped. The rate follows half cosines of ``stage.cosine`` epochs, by the position in
the epoch, so that no scheduler has a state to lose.

Nothing in an epoch asks the device for a number, so a GPU never waits for the host: the loss is
summed where it is and read at the epoch's end.

Several processes run this together (``fabric``): each takes its part of every batch, and their
mean gradient is that of the whole batch (learn/ready.py). Batch norm on GPUs takes its statistics
over all parts; on CPUs, for which there is no such layer, over each process' own.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import cos, pi
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.errors import UserMistake
from antpitta.core.stages import Stage
from antpitta.core.types import Targets
from antpitta.learn.batches import Batch, epoch_batches
from antpitta.learn.graph import Pass
from antpitta.learn.keepers import Keeper
from antpitta.learn.lanes import SINGLE_FILE
from antpitta.learn.material import Material
from antpitta.learn.metric import box_rows, learning
from antpitta.learn.optimizer import capture, resume, set_up
from antpitta.learn.ready import Place, lay_out
from antpitta.net.sed import SedNet

BLOCK = 16  # windows of a frozen body that are levelled, or lent to, at once


@dataclass(frozen=True)
class Task:
    """One model to train: a stage, on some recordings, from a seed."""

    stage: Stage
    train: NDArray[np.int64]  # recordings
    taught: Targets | None
    seed: tuple[int, ...]  # of this stage, cycle and fold
    seen: Tensor | None = None  # (windows, inputs, steps), where a frozen body's view is kept
    compiled: bool = False  # the network is, for the size of an epoch's first batch


@dataclass(frozen=True)
class Progress:
    """What one epoch did."""

    epoch: int  # from 1
    loss: float  # mean over the batches
    rate: float  # at the epoch's end
    windows: int
    seconds: float
    steps: int = 0


def fit(
    net: SedNet,
    task: Task,
    material: Material,
    fabric: Fabric,
    keeper: Keeper,
    report: Callable[[Progress], None],
) -> None:
    """Train ``net`` in place; it ends on the CPU or GPU that ``fabric`` chose."""
    model, adam, optimizer = set_up(net, task.stage, fabric)
    balance = task.stage.loss.balance
    weights = class_weights(material, task).to(fabric.device) if balance else None
    run = Pass(net, model, task.stage, weights, fabric, compiled=task.compiled)
    with _measured(net, task, material, fabric.device):
        for epoch in range(resume(net, optimizer, keeper), task.stage.epochs):
            # Reported first: killed in between, the epoch is run and reported again, never lost.
            report(_epoch(epoch, run, adam, task, material))
            keeper.save(epoch + 1, capture(net, optimizer))


def _measured(
    net: SedNet, task: Task, material: Material, device: torch.device
) -> AbstractContextManager[None]:
    """A frozen body's features levelled, and, inside, the metric in which the head learns.

    Features that change from epoch to epoch (crops, masks, mixup) have neither.
    """
    if task.seen is None:
        return nullcontext()
    settle(net, task.seen, material.windows_of(task.train), device)
    if not net.network.wccn:
        return nullcontext()
    return learning(net, *box_rows(net, task.seen, material, task.train))


def _epoch(epoch: int, run: Pass, adam: Any, task: Task, material: Material) -> Progress:
    began, stage, fabric = time.perf_counter(), task.stage, run.fabric
    place = Place(fabric.global_rank, fabric.world_size)
    batches, rng = _deal(task, material, epoch, place)
    run.net.train()
    total = torch.zeros((), dtype=torch.float64, device=fabric.device)
    rate, steps = stage.rate, 0
    for i, batch in enumerate(batches):
        rate = rate_at(stage, epoch + i / len(batches))
        for group in adam.param_groups:
            group["lr"] = rate
        share, stepping = share_of(i, len(batches), stage.accumulate)
        ready = lay_out(batch, material, stage, rng, fabric.device, task.seen, place)
        total += run(ready, share, stepping=stepping)
        if stepping:
            adam.step()
            run.clear(adam)
            steps += 1
    mean = _mean(total, len(batches), stage, fabric)
    windows, seconds = sum(len(one.cuts) for one in batches), time.perf_counter() - began
    return Progress(epoch + 1, mean, rate, windows, seconds, steps)


def _deal(
    task: Task, material: Material, epoch: int, place: Place
) -> tuple[list[Batch], np.random.Generator]:
    """An epoch's batches, and the generator that draws on while they are run."""
    rng = np.random.default_rng([*task.seed, epoch])
    # Dropout and stochastic depth: other units in each process, which has other windows.
    with SINGLE_FILE:  # another lane may be drawing its first weights
        torch.manual_seed(int(rng.integers(2**31)) + place.rank)
    batches = epoch_batches(task.stage, material, task.train, task.taught, rng)
    if not batches:
        raise nothing_to_learn(task)
    return batches, rng


def share_of(i: int, batches: int, accumulate: int) -> tuple[int, bool]:
    """How many batches share the step of the ``i``-th one, and whether it is their last."""
    first = i - i % accumulate
    share = min(accumulate, batches - first)
    return share, i + 1 == first + share


def _mean(total: Tensor, batches: int, stage: Stage, fabric: Fabric) -> float:
    """The mean loss of a batch, over all processes."""
    mean = float(cast(Tensor, fabric.all_reduce(total, reduce_op="mean"))) / batches
    if not np.isfinite(mean):
        raise FloatingPointError(f"stage {stage.name}: the loss became {mean}")
    return mean


def settle(net: SedNet, seen: Tensor, windows: NDArray[np.int64], device: torch.device) -> None:
    """Level ``net`` by what its frozen body saw of these windows."""
    blocks = (torch.from_numpy(windows[i : i + BLOCK]) for i in range(0, len(windows), BLOCK))
    net.settle(seen[rows.to(seen.device)].to(device) for rows in blocks)


def lend(net: SedNet, task: Task, material: Material, device: torch.device) -> None:
    """Lay what an embedding's network says of its classes by itself beside the head, which has
    learnt, by what both make of the training recordings.
    """
    own = material.windows_of(task.train)
    own = own[material.heard_windows[own]]
    cuts = (material.cuts.take(own[i : i + BLOCK]) for i in range(0, len(own), BLOCK))
    net.lend(net.see(material.pictures.gather(some).to(device)) for some in cuts)


def nothing_to_learn(task: Task) -> UserMistake:
    """What is raised where no training recording has a box."""
    return UserMistake(
        f"stage {task.stage.name}: its {len(task.train)} training recordings have no box to "
        "learn from; give boxes in more recordings, or fewer folds (--set folds=2)"
    )


def rate_at(stage: Stage, position: float) -> float:
    """The learning rate at ``position`` epochs: cosines that fall for a period, then rise."""
    period = stage.cosine or stage.epochs
    return stage.rate * (1 + cos(pi * position / period)) / 2


def class_weights(material: Material, task: Task) -> Tensor:
    """A class weighs max_count / count, by its present boxes among the training recordings.

    A class without any weighs 1, as the commonest does: nothing is known that would call for more.
    """
    classes = material.dataset.classes
    count = np.zeros(len(classes), dtype=np.float32)
    for recording in task.train:
        for said in material.boxes[recording]:
            if said.present:
                count[classes.columns(said.label)] += 1
    return torch.from_numpy(np.where(count > 0, count.max() / np.maximum(count, 1), np.float32(1)))
