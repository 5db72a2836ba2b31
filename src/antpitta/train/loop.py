"""The training loop: the only one, read from top to bottom in the order in which things happen.

Every epoch draws its randomness from (seed, epoch) alone and ends with a checkpoint, so a run
that was killed anywhere goes on from its last whole epoch and ends with the same weights as one
that never stopped. The rate follows half cosines of ``stage.cosine`` epochs, by the position in
the epoch, so that no scheduler has a state to lose.

Nothing in an epoch asks the device for a number, so a GPU never waits for the host: the loss is
summed where it is and read at the epoch's end.

Several processes run this together (``fabric``): each takes its part of every batch, and their
mean gradient is that of the whole batch (train/device_batch.py). Batch norm on GPUs takes its statistics
over all parts; on CPUs, for which there is no such layer, over each process' own.

A network and its optimizer: set up on a device, and what of both is kept between epochs.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from math import cos, pi
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from antpitta.core.stages import Stage
from antpitta.model.network import SedNet
from antpitta.train.batches import Batch, epoch_batches
from antpitta.train.checkpoints import CheckpointStore, capture, resume
from antpitta.train.compute import PROCESS_LOCK
from antpitta.train.data import TrainingData
from antpitta.train.device_batch import ProcessRank, prepare_batch
from antpitta.train.linear_head import box_rows, whitened
from antpitta.train.step import TrainStep
from antpitta.train.task import (
    EpochResult,
    TrainTask,
    class_weights,
    fit_normalizer,
    no_boxes_error,
)


def fit(
    net: SedNet,
    task: TrainTask,
    training_data: TrainingData,
    fabric: Fabric,
    keeper: CheckpointStore,
    report: Callable[[EpochResult], None],
) -> None:
    """Train ``net`` in place; it ends on the CPU or GPU that ``fabric`` chose."""
    model, adam, optimizer = set_up(net, task.stage, fabric)
    balance = task.stage.loss.class_weights
    weights = class_weights(training_data, task).to(fabric.device) if balance else None
    run = TrainStep(net, model, task.stage, weights, fabric, compiled=task.compiled)
    with _measured(net, task, training_data, fabric.device):
        for epoch in range(resume(net, optimizer, keeper), task.stage.epochs):
            # Reported first: killed in between, the epoch is run and reported again, never lost.
            report(_epoch(epoch, run, adam, task, training_data))
            keeper.save(epoch + 1, capture(net, optimizer))


def _measured(
    net: SedNet, task: TrainTask, training_data: TrainingData, device: torch.device
) -> AbstractContextManager[None]:
    """A frozen body's features levelled, and, inside, the metric in which the head learns.

    Features that change from epoch to epoch (crops, masks, mixup) have neither.
    """
    if task.backbone_features is None:
        return nullcontext()
    fit_normalizer(net, task.backbone_features, training_data.windows_of(task.recordings), device)
    if not net.head_config.within_class_whitening:
        return nullcontext()
    return whitened(net, *box_rows(net, task.backbone_features, training_data, task.recordings))


def _epoch(
    epoch: int, run: TrainStep, adam: Any, task: TrainTask, training_data: TrainingData
) -> EpochResult:
    began, stage, fabric = time.perf_counter(), task.stage, run.fabric
    place = ProcessRank(fabric.global_rank, fabric.world_size)
    batches, rng = _deal(task, training_data, epoch, place)
    run.net.train()
    total = torch.zeros((), dtype=torch.float64, device=fabric.device)
    rate, steps = stage.lr, 0
    for i, batch in enumerate(batches):
        rate = lr_at(stage, epoch + i / len(batches))
        for group in adam.param_groups:
            group["lr"] = rate
        share, stepping = accumulation_share(i, len(batches), stage.grad_accum_steps)
        ready = prepare_batch(
            batch, training_data, stage, rng, fabric.device, task.backbone_features, place
        )
        total += run(ready, share, stepping=stepping)
        if stepping:
            adam.step()
            run.zero_grad(adam)
            steps += 1
    mean = _mean(total, len(batches), stage, fabric)
    windows, seconds = sum(len(one.windows) for one in batches), time.perf_counter() - began
    return EpochResult(epoch + 1, mean, rate, windows, seconds, steps)


def _deal(
    task: TrainTask, training_data: TrainingData, epoch: int, place: ProcessRank
) -> tuple[list[Batch], np.random.Generator]:
    """An epoch's batches, and the generator that draws on while they are run."""
    rng = np.random.default_rng([*task.seed, epoch])
    # Dropout and stochastic depth: other units in each process, which has other windows.
    with PROCESS_LOCK:  # another lane may be drawing its first weights
        torch.manual_seed(int(rng.integers(2**31)) + place.rank)
    batches = epoch_batches(task.stage, training_data, task.recordings, task.pseudo_labels, rng)
    if not batches:
        raise no_boxes_error(task)
    return batches, rng


def accumulation_share(i: int, batches: int, accumulate: int) -> tuple[int, bool]:
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


def lr_at(stage: Stage, position: float) -> float:
    """The learning rate at ``position`` epochs: cosines that fall for a period, then rise."""
    period = stage.cosine_t_max or stage.epochs
    return stage.lr * (1 + cos(pi * position / period)) / 2


def set_up(net: SedNet, stage: Stage, fabric: Fabric) -> tuple[Any, Any, torch.optim.Adam]:
    """The model and the optimizer as ``fabric`` wraps them, and the optimizer itself."""
    # Boxes are judged framewise, without the attention: DDP would wait for its gradient.
    net.head.attention_conv.requires_grad_(stage.loss.on == "windows")
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        _share_statistics(net)
    learning = [one for one in net.parameters() if one.requires_grad]
    fused = fabric.device.type == "cuda" or None
    net.to(fabric.device)  # before the optimizer: a fused one must find its weights there
    optimizer = torch.optim.Adam(
        learning, lr=stage.lr, weight_decay=stage.weight_decay, fused=fused
    )
    model, adam = fabric.setup(net, optimizer)
    return model, adam, optimizer


def _share_statistics(net: SedNet) -> None:
    import timm  # here: model/backbones.py must have been imported before it

    # timm's own, as torch's would lose the activation inside timm's batch norms
    convert: Callable[[nn.Module], Any] = vars(timm.layers)["convert_sync_batchnorm"]
    net.backbone = convert(net.backbone)
    if type(net.head.normalizer) is nn.BatchNorm1d:
        net.head.normalizer = convert(net.head.normalizer)
