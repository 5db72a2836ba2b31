"""The training loop: the only one, read from top to bottom in the order in which things happen.

From a row of a table to the loss, a box passes these files:

 1. files/formats/csv_tables.py  a row of a table becomes an Annotation (other formats beside it)
 2. core/types.py                Annotation, and Targets with weight 0 for "unknown"
 3. sound/targets.py             boxes become frames of segments, frames the targets of windows
 4. core/timegrid.py             seconds become frames
 5. train/data.py                TrainingData: all windows, their features and targets
 6. train/batches.py             Batch: some windows; DeviceBatch: the same on a device, mixed
 7. train/loop.py                the batch goes through the network; the loss steps the optimizer
 8. model/network.py             features of the windows, by the backbone
 9. model/head.py                logits of the windows, or of the boxes' frames
10. model/losses.py              logits and targets become the loss

* Every epoch draws its random numbers from (seed, epoch) alone and ends with a checkpoint. A run
  that was killed resumes after its last whole epoch, and ends with the same weights as one that
  never stopped. The learning rate follows half cosines and depends on the position in the epoch
  only, so no scheduler has a state to lose.
* Accumulated gradients are summed, and the optimizer steps after the first batch of an epoch and
  then after every ``grad_accum_steps`` batches, as the competition's code does: its first step
  follows a single batch, and the gradients left at the end of an epoch are dropped.
* Nothing in an epoch waits for the device: the loss is summed there and read at the epoch's end.
* Several processes run this together (``fabric``). Each takes its part of every batch, and their
  mean gradient is that of the whole batch. On GPUs, batch norm uses statistics over all parts; on
  CPUs, for which there is no such layer, over each process's own.
* On a GPU, forward and backward of a batch are captured once as a CUDA graph and replayed. A
  small network needs hundreds of short kernels for a batch, and the host takes longer to launch
  them than the GPU to run them. A replay runs the same kernels, so scores do not change.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import cos, pi
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from antpitta.core.stages import Stage
from antpitta.model.head import Logits, box_logits
from antpitta.model.losses import masked_loss
from antpitta.model.network import SedNet
from antpitta.train.batches import Batch, DeviceBatch, ProcessRank, epoch_batches, prepare_batch
from antpitta.train.checkpoints import BestWeights, CheckpointStore, capture, resume
from antpitta.train.compute import PROCESS_LOCK
from antpitta.train.data import (
    EpochResult,
    TrainingData,
    TrainTask,
    compute_class_weights,
)

WARM_UP_RUNS = 3  # before a capture: cuDNN and the compiler choose their kernels in them


def fit(
    net: SedNet,
    task: TrainTask,
    training_data: TrainingData,
    fabric: Fabric,
    store: CheckpointStore,
    report: Callable[[EpochResult], None],
    validate: Callable[[SedNet], float] | None = None,
) -> None:
    """Train a network in place.

    Parameters
    ----------
    net
        The network; it ends on the device of ``fabric``.
    task, training_data
        What to train it on.
    fabric
        The devices and the precision.
    store
        Where checkpoints are kept; training starts from the last one.
    report
        Called after each epoch.
    validate
        Measures the network after each epoch; it then ends with the weights of the epoch with the
        highest value. Without it, it ends with those of the last epoch.

    Raises
    ------
    UserError
        ``E_NO_BOXES`` where no training recording has a box.
    FloatingPointError
        Where the loss is not finite.
    """
    model, fabric_optimizer, optimizer = set_up(net, task.stage, fabric)
    weights = None
    if task.stage.loss.class_weights:
        weights = compute_class_weights(training_data.dataset).to(fabric.device)
    step = TrainStep(net, model, task.stage, weights, fabric, compiled=task.compiled)
    best = BestWeights()
    if task.backbone_features is not None:  # they stay the same in all epochs
        windows = training_data.windows_of(task.recordings)
        task.backbone_features.fit_normalizer(net, windows)
    for epoch in range(resume(net, optimizer, store, best), task.stage.epochs):
        result = _run_epoch(epoch, step, fabric_optimizer, task, training_data)
        if validate is not None:
            value = validate(net)
            best.offer(net, value)
            result = replace(result, lwlrap=value)
        # Reported before it is saved: after a kill in between, the epoch is run and reported
        # again, and never missing in the log.
        report(result)
        store.save(epoch + 1, capture(net, optimizer, best))
    best.load_into(net)


def set_up(net: SedNet, stage: Stage, fabric: Fabric) -> tuple[Any, Any, torch.optim.Adam]:
    """Move a network to its device and make its optimizer.

    Parameters
    ----------
    net
        The network, changed in place.
    stage
        The learning rate, the weight decay, and whether the loss is on windows or boxes.
    fabric
        The devices and the precision.

    Returns
    -------
    model, fabric_optimizer, optimizer
        The network and the optimizer as ``fabric`` wraps them, and the optimizer itself.
    """
    # The logits of boxes do not use the attention, and DDP would wait for its gradient.
    net.head.attention_conv.requires_grad_(stage.loss.on == "windows")
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        _synchronize_batch_norm(net)
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    fused = fabric.device.type == "cuda" or None
    net.to(fabric.device)  # before the optimizer: a fused one must find its weights there
    optimizer = torch.optim.Adam(weights, lr=stage.lr, weight_decay=stage.weight_decay, fused=fused)
    model, fabric_optimizer = fabric.setup(net, optimizer)
    return model, fabric_optimizer, optimizer


def _synchronize_batch_norm(net: SedNet) -> None:
    import timm  # here: model/backbones.py must have been imported before it

    # timm's own, as torch's would lose the activation inside timm's batch norms
    convert: Callable[[nn.Module], Any] = vars(timm.layers)["convert_sync_batchnorm"]
    net.backbone = convert(net.backbone)
    if type(net.head.normalizer) is nn.BatchNorm1d:
        net.head.normalizer = convert(net.head.normalizer)


# ---- one epoch


def _run_epoch(
    epoch: int, step: "TrainStep", optimizer: Any, task: TrainTask, training_data: TrainingData
) -> EpochResult:
    began, stage, fabric = time.perf_counter(), task.stage, step.fabric
    process = ProcessRank(fabric.global_rank, fabric.world_size)
    batches, rng = _start_epoch(epoch, task, training_data, process)
    step.net.train()
    total = torch.zeros((), dtype=torch.float64, device=fabric.device)
    lr, steps = stage.lr, 0
    for i, batch in enumerate(batches):
        lr = lr_at(stage, epoch + i / len(batches))
        for group in optimizer.param_groups:
            group["lr"] = lr
        is_stepping = i % stage.grad_accum_steps == 0
        device_batch = prepare_batch(
            batch, training_data, stage, rng, fabric.device, task.backbone_features, process
        )
        total += step(device_batch, stepping=is_stepping)
        if is_stepping:
            optimizer.step()
            step.zero_grad(optimizer)
            steps += 1
    step.zero_grad(optimizer)  # gradients after the last step of the epoch are dropped
    mean = _mean_loss(total, len(batches), epoch, fabric)
    windows, seconds = sum(len(batch.windows) for batch in batches), time.perf_counter() - began
    return EpochResult(epoch + 1, mean, lr, windows, seconds, steps)


def _start_epoch(
    epoch: int, task: TrainTask, training_data: TrainingData, process: ProcessRank
) -> tuple[list[Batch], np.random.Generator]:
    """The batches of an epoch, and the generator for masks and mixup."""
    rng = np.random.default_rng([*task.seed, epoch])
    # Dropout and stochastic depth: other units in each process, which has other windows.
    with PROCESS_LOCK:  # a parallel fold may be drawing its initial weights
        torch.manual_seed(int(rng.integers(2**31)) + process.rank)
    batches = epoch_batches(task.stage, training_data, task.recordings, task.pseudo_labels, rng)
    if not batches:
        raise task.no_boxes_error
    return batches, rng


def lr_at(stage: Stage, position: float) -> float:
    """The learning rate at a position in training: half cosines, down and up again.

    As ``torch.optim.lr_scheduler.CosineAnnealingLR`` with ``T_max = cosine_t_max`` epochs.

    Parameters
    ----------
    stage
        The settings ``lr``, ``cosine_t_max`` and ``epochs``.
    position : epochs
        The time since the start of the stage; fractions are positions inside an epoch.

    Returns
    -------
    lr
        Between 0 and ``stage.lr``.
    """
    period = stage.cosine_t_max or stage.epochs
    return stage.lr * (1 + cos(pi * position / period)) / 2


def _mean_loss(total: Tensor, batches: int, epoch: int, fabric: Fabric) -> float:
    """The mean over all batches and processes."""
    mean = float(cast(Tensor, fabric.all_reduce(total, reduce_op="mean"))) / batches
    if not np.isfinite(mean):
        raise FloatingPointError(f"the loss became {mean} in epoch {epoch + 1}")
    return mean


# ---- one batch


def batch_loss(
    model: SedNet, batch: DeviceBatch, stage: Stage, class_weights: Tensor | None
) -> Tensor:
    """Run a batch through the network and compare the logits with its targets.

    Parameters
    ----------
    model
        The network.
    batch
        The batch, on the network's device.
    stage
        The settings of the loss.
    class_weights : (classes,)
        Weights of the classes.

    Returns
    -------
    loss : ()
        With its gradient. It is multiplied by ``batch.loss_scale``.
    """
    outputs = cast(
        Logits,
        model(
            batch.pixels,
            batch.mixup,
            batch.manifold_mixup,
            batch.backbone_features,
            batch.inside,
            batch.box_rows,
        ),
    )
    logits = outputs.clipwise
    if batch.box_spans is not None:
        logits = box_logits(outputs, batch.box_spans, model.stride)
    labels, pseudo_labels = batch.targets
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = masked_loss(
        logits, labels, pseudo_labels, stage.loss, class_weights, batch.global_targets
    )
    return loss if batch.loss_scale == 1 else loss * batch.loss_scale


@dataclass
class TrainStep:
    """Forward and backward of the batches of one model; on a GPU a replayed CUDA graph.

    A graph has one shape and no synchronization with the host. So batches of another size (an
    epoch's last), and batches with a loss on boxes, are run directly. A graph keeps the memory of
    a batch for itself, so none is captured where there is no room for two.

    Parameters
    ----------
    net, model
        The network, and the same as ``fabric`` wraps it.
    stage
        The settings of the loss.
    class_weights : (classes,)
        Weights of the classes.
    fabric
        The devices and the precision.
    compiled
        The network is compiled, for the size of the first batch.
    n_windows
        The size of the first batch.
    captured
        The graph, once it exists.
    """

    net: SedNet
    model: Any
    stage: Stage
    class_weights: Tensor | None
    fabric: Fabric
    compiled: bool = False
    n_windows: int | None = None
    captured: "CapturedGraph | None" = field(default=None, repr=False)

    def __call__(self, batch: DeviceBatch, *, stepping: bool) -> Tensor:
        """Add the gradient of a batch to those of the weights.

        Parameters
        ----------
        batch
            The batch, on the network's device.
        stepping
            A step of the optimizer follows.

        Returns
        -------
        loss
            The loss of the batch, without its gradient.
        """
        is_first, self.n_windows = self.n_windows is None, self.n_windows or batch.n_windows
        has_size = batch.n_windows == self.n_windows
        if not is_first and has_size and self.captured is None and self._can_capture(batch):
            with PROCESS_LOCK:
                self.captured = CapturedGraph(self, batch)
        if has_size and self.captured is not None:
            return self.captured(batch)
        eager = self.compiled and not has_size
        with self.fabric.no_backward_sync(self.model, enabled=not stepping), _compiling(not eager):
            return self.forward_backward(batch)

    def forward_backward(self, batch: DeviceBatch) -> Tensor:
        """The same, without a CUDA graph."""
        loss = batch_loss(self.model, batch, self.stage, self.class_weights)
        with PROCESS_LOCK:  # Fabric marks the backward pass of its whole process
            self.fabric.backward(loss)
        return loss.detach()

    def zero_grad(self, optimizer: Any) -> None:
        """Reset all gradients; a graph needs their memory to stay where it is."""
        optimizer.zero_grad(set_to_none=self.captured is None)

    def _can_capture(self, batch: DeviceBatch) -> bool:
        device = self.fabric.device
        is_single_gpu = device.type == "cuda" and self.fabric.world_size == 1
        is_static = (
            batch.pixels is not None and batch.box_spans is None and not self.net.head.smooths
        )
        return is_single_gpu and is_static and _has_room_for_two(device)


def _has_room_for_two(device: torch.device) -> bool:
    """Whether twice the memory that was needed so far fits on the GPU."""
    total = torch.cuda.get_device_properties(device).total_memory
    return 2 * torch.cuda.max_memory_allocated(device) <= total


class CapturedGraph:
    """One CUDA graph, and the tensors that it reads and writes.

    Parameters
    ----------
    step
        Whose forward and backward pass is captured; its weights, buffers and random numbers stay
        as they were.
    batch
        A batch of the size that the graph is for.
    """

    def __init__(self, step: TrainStep, batch: DeviceBatch) -> None:
        self.inputs: list[Tensor] = []
        self.batch = batch.map_tensors(self._keep)
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        buffers = [(buffer, buffer.clone()) for buffer in step.net.buffers()]
        weights = list(step.net.parameters())
        gradients = [None if w.grad is None else w.grad.clone() for w in weights]
        rng_state = torch.cuda.get_rng_state(step.fabric.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                step.forward_backward(self.batch)
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self.loss = step.forward_backward(self.batch)
        # Undo what those runs changed: statistics, gradients, random numbers drawn.
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
            for weight, gradient in zip(weights, gradients, strict=True):
                if weight.grad is not None:
                    weight.grad.copy_(torch.zeros_like(weight) if gradient is None else gradient)
        torch.cuda.set_rng_state(rng_state, step.fabric.device)

    def _keep(self, tensor: Tensor) -> Tensor:
        self.inputs.append(tensor.clone())
        return self.inputs[-1]

    def __call__(self, batch: DeviceBatch) -> Tensor:
        """Copy a batch into the graph's inputs, and replay it; returns the loss."""
        inputs = iter(self.inputs)
        batch.map_tensors(lambda tensor: next(inputs).copy_(tensor))
        self.graph.replay()
        return self.loss


@contextmanager
def _compiling(enabled: bool) -> Iterator[None]:
    """Run a compiled network as it was written: compiling for an odd batch would take longer."""
    if enabled:
        yield
        return
    with PROCESS_LOCK, torch.compiler.set_stance("force_eager"):
        yield
