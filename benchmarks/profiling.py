"""Where a training step spends its time, how much a network computes, and what a device can do.

A timed section waits for the device at both ends, which a run never does. Sections are therefore
measured beside the run, on a few steps of it, and give shares; the seconds of a run come from the
run itself.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.utils.flop_counter import FlopCounterMode

from antpitta.core.stages import Stage
from antpitta.core.types import Targets
from antpitta.model.network import SedNet
from antpitta.train.batches import Batch, epoch_batches, prepare_batch
from antpitta.train.data import TrainingData, compute_class_weights
from antpitta.train.loop import TrainStep, batch_loss, set_up

# Dense bfloat16 matrix peaks in FLOP/s by data sheet; the first name that fits counts.
GPUS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}
WARMUP, STEPS = 3, 10
MAX_SECONDS = 5.0  # for the steps of one stage, on a slow machine


@dataclass
class Sections:
    """Seconds by section, and the number of steps they were measured on."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time a section to its end on the device."""
        synchronize(self.device)
        began = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def share(self, *names: str) -> float:
        """The share of all seconds that these sections take."""
        total = sum(self.seconds.values())
        return sum(self.seconds.get(name, 0.0) for name in names) / total if total else 0.0


class _TimedModel:
    """A model whose forward pass is a section of its own."""

    def __init__(self, model: Any, sections: Sections) -> None:
        self.model, self.sections = model, sections
        self.stride = model.stride

    def __call__(self, *args: Any) -> Any:
        with self.sections.measure("forward"):
            return self.model(*args)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished all its work.

    Parameters
    ----------
    device : a CPU is never behind
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def data_sheet_peak(name: str) -> float | None:
    """Look up the dense bfloat16 peak of a GPU.

    Parameters
    ----------
    name : as CUDA reports it

    Returns
    -------
    float or None
        FLOP/s, None for an unknown GPU.
    """
    return next((peak for gpu, peak in GPUS.items() if gpu in name), None)


def measured_peak(device: torch.device, half: bool) -> float:
    """Measure a large matrix product: the best that the device does.

    Parameters
    ----------
    device : where to compute
    half : bfloat16 instead of float32

    Returns
    -------
    float
        FLOP/s.
    """
    size = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if half else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(WARMUP + STEPS):
        synchronize(device)
        began = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def window_flops(net: SedNet, frames: int, n_mels: int) -> tuple[float, float]:
    """Count the floating point operations for one window.

    Parameters
    ----------
    net : the network
    frames : length of the window
    n_mels : mel bands

    Returns
    -------
    tuple of float
        FLOP in training (forward and backward) and in scoring; a multiply-add is two.
    """
    windows = 2  # batch norm needs two
    pixels = torch.zeros(windows, frames, n_mels, dtype=torch.uint8, device=net.mean.device)
    counts = []
    for training in (True, False):
        net.train(training)
        counter = FlopCounterMode(display=False)
        with counter, torch.set_grad_enabled(training):
            total = net(pixels).clipwise.sum()
            if training:
                total.backward()
        counts.append(counter.get_total_flops() / windows)
    net.zero_grad()
    return counts[0], counts[1]


def peak_memory(device: torch.device) -> float:
    """Read the peak memory of this process.

    Parameters
    ----------
    device : on a GPU its memory counts, otherwise the main memory

    Returns
    -------
    float
        Bytes.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    import resource  # missing on Windows

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def profile_stage(
    net: SedNet, stage: Stage, training_data: TrainingData, train: np.ndarray, fabric: Fabric
) -> tuple[Sections, float]:
    """Time the sections of a few training steps of a stage.

    Parameters
    ----------
    net : the network
    stage : the stage
    training_data : features, windows and boxes
    train : (recordings,), indices of the training recordings
    fabric : device and precision

    Returns
    -------
    sections : Sections
        Seconds by section.
    host_share : float
        The time the host needs to launch a step, divided by the time of the step. Near 1 the GPU
        waits for the host. Always 1 on a CPU.
    """
    model, optimizer, _ = set_up(net, stage, fabric)
    net.train()
    sections = Sections(fabric.device)
    pseudo_labels, weights = _empty_labels_and_weights(stage, training_data, fabric.device)
    rng, timed_model = np.random.default_rng(0), _TimedModel(model, sections)
    with sections.measure("batches"):
        batches = epoch_batches(stage, training_data, train, pseudo_labels, rng)
    seconds_per_batch = sections.seconds.pop("batches") / len(batches)
    batches = [batch for batch in batches if len(batch.windows) == len(batches[0].windows)]

    def timed_step(batch: Batch) -> None:
        with sections.measure("windows and mixup"):
            ready = prepare_batch(batch, training_data, stage, rng, fabric.device)
        with sections.measure("loss"):
            loss = batch_loss(cast(SedNet, timed_model), ready, stage, weights)
        with sections.measure("backward"):
            fabric.backward(loss)
        with sections.measure("optimizer"):
            optimizer.step()
            optimizer.zero_grad()

    _repeat(sections, timed_step, batches)
    sections.seconds["loss"] -= sections.seconds["forward"]  # the forward pass lies inside
    sections.seconds["batches"] = seconds_per_batch * sections.steps
    train_step = TrainStep(net, model, stage, weights, fabric)

    def step(batch: Batch) -> None:
        ready = prepare_batch(batch, training_data, stage, rng, fabric.device)
        train_step(ready, stepping=True)
        optimizer.step()
        train_step.zero_grad(optimizer)

    return sections, _host_share(fabric, step, batches)


def _empty_labels_and_weights(
    stage: Stage, training_data: TrainingData, device: torch.device
) -> tuple[Targets | None, torch.Tensor | None]:
    """Pseudo-labels that are all unknown, and class weights; None where a stage has none."""
    pseudo_labels = None
    if stage.pseudo:
        zeros = np.zeros_like(training_data.labels.value)
        pseudo_labels = Targets(zeros, zeros)
    if not stage.loss.class_weights:
        return pseudo_labels, None
    return pseudo_labels, compute_class_weights(training_data.dataset).to(device)


def _repeat(sections: Sections, step: Callable[[Batch], None], batches: list[Batch]) -> None:
    """Run some steps; the first ones are not counted."""
    began = time.perf_counter()
    for i in range(WARMUP + STEPS):
        if i == min(WARMUP, 1):
            sections.seconds.clear()
            sections.steps = 0
        step(batches[i % len(batches)])
        sections.steps += 1
        if i and time.perf_counter() - began > MAX_SECONDS:
            break


def _host_share(fabric: Fabric, step: Callable[[Batch], None], batches: list[Batch]) -> float:
    if fabric.device.type != "cuda":
        return 1.0
    chosen = [batches[i % len(batches)] for i in range(STEPS)]
    step(chosen[0])  # CUDA graphs are captured here
    synchronize(fabric.device)
    began = time.perf_counter()
    for batch in chosen:
        step(batch)
    launched = time.perf_counter() - began
    synchronize(fabric.device)
    return launched / (time.perf_counter() - began)
