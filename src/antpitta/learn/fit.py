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
from torch import Tensor, nn

from antpitta.core.config import Stage
from antpitta.core.errors import UserMistake
from antpitta.core.types import Targets
from antpitta.learn.batches import Batch, epoch_batches
from antpitta.learn.keepers import Keeper, State
from antpitta.learn.material import Material
from antpitta.learn.ready import ALONE, Place, lay_out, loss_of
from antpitta.net.sed import SedNet

BLOCK = 16  # windows of a frozen body that are levelled at once


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
    stage, place = task.stage, Place(fabric.global_rank, fabric.world_size)
    model, adam, optimizer = set_up(net, stage, fabric)
    if task.seen is not None:
        settle(net, task.seen, material.windows_of(task.train), fabric.device)
    weights = class_weights(material, task).to(fabric.device) if stage.loss.balance else None
    kept = keeper.load()
    done = 0 if kept is None else kept[0]
    if kept is not None:
        restore(net, optimizer, kept[1])

    for epoch in range(done, stage.epochs):
        began = time.perf_counter()
        rng = np.random.default_rng([*task.seed, epoch])
        # Dropout and stochastic depth: other units in each process, which has other windows.
        torch.manual_seed(int(rng.integers(2**31)) + place.rank)
        batches = epoch_batches(stage, material, task.train, task.taught, rng)
        if not batches:
            raise nothing_to_learn(task)
        net.train()
        total = torch.zeros((), dtype=torch.float64, device=fabric.device)
        windows, steps, rate = 0, 0, stage.rate
        for i, batch in enumerate(batches):
            rate = rate_at(stage, epoch + i / len(batches))
            for group in adam.param_groups:
                group["lr"] = rate
            last = i + 1 == len(batches)
            first = i - i % stage.accumulate
            share = min(stage.accumulate, len(batches) - first)
            stepping = last or (i + 1) % stage.accumulate == 0
            odd = task.compiled and len(batch.cuts) != len(batches[0].cuts)
            with fabric.no_backward_sync(model, enabled=not stepping), running(eager=odd):
                loss = batch_loss(model, batch, material, stage, weights, rng, task.seen, place)
                fabric.backward(loss / share)
            if stepping:
                adam.step()
                adam.zero_grad()
                steps += 1
            total += loss.detach()
            windows += len(batch.cuts)
        mean = float(cast(Tensor, fabric.all_reduce(total, reduce_op="mean"))) / len(batches)
        if not np.isfinite(mean):
            raise FloatingPointError(f"stage {stage.name}: the loss became {mean}")
        seconds = time.perf_counter() - began
        # Reported first: killed in between, the epoch is run and reported again, never lost.
        report(Progress(epoch + 1, mean, rate, windows, seconds, steps))
        keeper.save(epoch + 1, capture(net, optimizer))


def settle(net: SedNet, seen: Tensor, windows: NDArray[np.int64], device: torch.device) -> None:
    """Level ``net`` by what its frozen body saw of these windows."""
    blocks = (torch.from_numpy(windows[i : i + BLOCK]) for i in range(0, len(windows), BLOCK))
    net.settle(seen[rows.to(seen.device)].to(device) for rows in blocks)


def nothing_to_learn(task: Task) -> UserMistake:
    """What is raised where no training recording has a box."""
    return UserMistake(
        f"stage {task.stage.name}: its {len(task.train)} training recordings have no box to "
        "learn from; give boxes in more recordings, or fewer folds (--set folds=2)"
    )


def running(*, eager: bool) -> AbstractContextManager[Any]:
    """A compiled network, run as it was written: compiling anew for a rest would take longer."""
    return torch.compiler.set_stance("force_eager") if eager else nullcontext()


def set_up(net: SedNet, stage: Stage, fabric: Fabric) -> tuple[Any, Any, torch.optim.Adam]:
    """The model and the optimizer as ``fabric`` wraps them, and the optimizer itself."""
    # Boxes are judged framewise, without the attention: DDP would wait for its gradient.
    net.attend.requires_grad_(stage.loss.on == "windows")
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        _share_statistics(net)
    learning = [one for one in net.parameters() if one.requires_grad]
    fused = fabric.device.type == "cuda" or None
    net.to(fabric.device)  # before the optimizer: a fused one must find its weights there
    optimizer = torch.optim.Adam(learning, lr=stage.rate, weight_decay=stage.decay, fused=fused)
    model, adam = fabric.setup(net, optimizer)
    return model, adam, optimizer


def _share_statistics(net: SedNet) -> None:
    import timm  # here: net/backbones.py must have been imported before it

    # timm's own, as torch's would lose the activation inside timm's batch norms
    convert: Callable[[nn.Module], Any] = vars(timm.layers)["convert_sync_batchnorm"]
    net.body = convert(net.body)
    if type(net.level) is nn.BatchNorm1d:
        net.level = convert(net.level)


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
    place: Place = ALONE,
) -> Tensor:
    """The loss of a batch, or of this process' part of it (``place``)."""
    net = cast(SedNet, model)
    device = next(net.parameters()).device
    return loss_of(net, lay_out(batch, material, stage, rng, device, bank, place), stage, weights)


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
