"""What a machine can do, and where a training step spends its time.

A timed section waits for the device at both ends, which a run never does: sections are measured
beside the run, on a few steps of it, and tell shares; a run's own seconds come from the run.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.utils.flop_counter import FlopCounterMode

from antpitta.core.config import Stage
from antpitta.core.types import Targets
from antpitta.learn.batches import epoch_batches
from antpitta.learn.fit import Task, class_weights
from antpitta.learn.material import Material
from antpitta.learn.optimizer import set_up
from antpitta.learn.ready import lay_out, loss_of
from antpitta.net.sed import SedNet

# Dense bf16 matrix peaks in FLOP/s, by the makers' data sheets; the first name that fits counts.
CARDS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}
WARM, STEPS = 3, 10
PATIENCE = 5.0  # seconds for the steps of one stage, on a slow machine


@dataclass
class Sections:
    """Seconds by section, and how many steps they are of."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Time a section to its end on the device."""
        wait_for(self.device)
        began = time.perf_counter()
        yield
        wait_for(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def share(self, *names: str) -> float:
        """The part of all seconds that these sections take."""
        total = sum(self.seconds.values())
        return sum(self.seconds.get(name, 0.0) for name in names) / total if total else 0.0


class _Watched:
    """A model whose forward pass is a section of its own."""

    def __init__(self, model: Any, sections: Sections) -> None:
        self.model, self.sections = model, sections
        self.stride = model.stride

    def __call__(self, *given: Any) -> Any:
        with self.sections.of("forward"):
            return self.model(*given)


def wait_for(device: torch.device) -> None:
    """Until a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def data_sheet_peak(name: str) -> float | None:
    """The dense bf16 peak of a card in FLOP/s, where its name is known."""
    return next((peak for card, peak in CARDS.items() if card in name), None)


def measured_peak(device: torch.device, half: bool) -> float:
    """FLOP/s of a big matrix product: what this device does at best, of the arithmetic used."""
    size = 8192 if device.type == "cuda" else 1024
    kind = torch.bfloat16 if half else torch.float32
    one, two = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(WARM + STEPS):
        wait_for(device)
        began = time.perf_counter()
        one @ two
        wait_for(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def flops_of(net: SedNet, frames: int, bands: int) -> tuple[float, float]:
    """FLOPs of one window: in training (forward and backward), and in scoring."""
    windows = 2  # batch norm needs two
    pixels = torch.zeros(windows, frames, bands, dtype=torch.uint8, device=net.mean.device)
    counts = []
    for training in (True, False):
        net.train(training)
        counter = FlopCounterMode(display=False)
        with counter, torch.set_grad_enabled(training):
            found = net(pixels).clipwise.sum()
            if training:
                found.backward()
        counts.append(counter.get_total_flops() / windows)
    net.zero_grad()
    return counts[0], counts[1]


def time_stage(
    net: SedNet, stage: Stage, material: Material, train: np.ndarray, fabric: Fabric
) -> tuple[Sections, float]:
    """Where a few steps of a stage spend their time; and the host's share of a step on a GPU.

    The share is how long the host needs to ask for a step, by how long the step takes: near 1,
    the GPU waits for the host. On a CPU it is 1 and says nothing.
    """
    model, adam, _ = set_up(net, stage, fabric)
    net.train()
    sections = Sections(fabric.device)
    taught = None
    if stage.pseudo:
        nothing = np.zeros_like(material.heard.value)
        taught = Targets(nothing, nothing)
    weights = None
    if stage.loss.balance:
        weights = class_weights(material, Task(stage, train, taught, (0,))).to(fabric.device)
    rng = np.random.default_rng(0)
    with sections.of("deal"):
        batches = epoch_batches(stage, material, train, taught, rng)
    every = sections.seconds.pop("deal") / len(batches)
    batches = [one for one in batches if len(one.cuts) == len(batches[0].cuts)]

    def step(batch: Any, time_it: Callable[[str], Any], model: Any) -> None:
        with time_it("cut and mix"):
            ready = lay_out(batch, material, stage, rng, fabric.device)
        with time_it("loss"):
            loss = loss_of(model, ready, stage, weights)
        with time_it("backward"):
            fabric.backward(loss)
        with time_it("step"):
            adam.step()
            adam.zero_grad()

    begun = time.perf_counter()
    for i in range(WARM + STEPS):
        if i == min(WARM, 1):
            sections.seconds.clear()
            sections.steps = 0
        step(batches[i % len(batches)], sections.of, _Watched(model, sections))
        sections.steps += 1
        if i and time.perf_counter() - begun > PATIENCE:
            break
    sections.seconds["loss"] -= sections.seconds["forward"]  # it was inside
    sections.seconds["deal"] = every * sections.steps
    return sections, _asking(fabric, lambda batch: step(batch, _untimed, model), batches)


def _asking(fabric: Fabric, step: Callable[[Any], None], batches: list[Any]) -> float:
    if fabric.device.type != "cuda":
        return 1.0
    chosen = [batches[i % len(batches)] for i in range(STEPS)]
    wait_for(fabric.device)
    began = time.perf_counter()
    for batch in chosen:
        step(batch)
    asked = time.perf_counter() - began
    wait_for(fabric.device)
    return asked / (time.perf_counter() - began)


@contextmanager
def _untimed(name: str) -> Iterator[None]:
    yield


def peak_memory(device: torch.device) -> float:
    """Bytes: of the GPU's memory by this process, or of the machine's."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    import resource  # not on every system

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
