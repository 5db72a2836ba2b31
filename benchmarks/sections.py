"""Where a training step spends its time.

A timed section waits for the device at both ends, which a run never does: sections are measured
beside the run, on a few steps of it, and tell shares; a run's own seconds come from the run.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric

from antpitta.core.stages import Stage
from antpitta.core.types import Targets
from antpitta.model.network import SedNet
from antpitta.train.batches import Batch, epoch_batches
from antpitta.train.data import TrainingData
from antpitta.train.device_batch import batch_loss, prepare_batch
from antpitta.train.loop import set_up
from antpitta.train.step import TrainStep
from antpitta.train.task import TrainTask, class_weights
from benchmarks.peaks import STEPS, WARM, wait_for

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


def time_stage(
    net: SedNet, stage: Stage, training_data: TrainingData, train: np.ndarray, fabric: Fabric
) -> tuple[Sections, float]:
    """Where a few steps of a stage spend their time; and the host's share of a step on a GPU.

    The share is how long the host needs to ask for a step, by how long the step takes: near 1,
    the GPU waits for the host. On a CPU it is 1 and says nothing.
    """
    model, adam, _ = set_up(net, stage, fabric)
    net.train()
    sections = Sections(fabric.device)
    pseudo_labels = None
    if stage.pseudo:
        nothing = np.zeros_like(training_data.labels.value)
        pseudo_labels = Targets(nothing, nothing)
    weights = None
    if stage.loss.class_weights:
        weights = class_weights(training_data, TrainTask(stage, train, pseudo_labels, (0,))).to(
            fabric.device
        )
    rng, watched = np.random.default_rng(0), _Watched(model, sections)
    with sections.of("deal"):
        batches = epoch_batches(stage, training_data, train, pseudo_labels, rng)
    every = sections.seconds.pop("deal") / len(batches)
    batches = [one for one in batches if len(one.windows) == len(batches[0].windows)]

    def step(batch: Batch) -> None:
        of = sections.of
        with of("cut and mix"):
            ready = prepare_batch(batch, training_data, stage, rng, fabric.device)
        with of("loss"):
            loss = batch_loss(cast(SedNet, watched), ready, stage, weights)
        with of("backward"):
            fabric.backward(loss)
        with of("step"):
            adam.step()
            adam.zero_grad()

    _repeat(sections, step, batches)
    sections.seconds["loss"] -= sections.seconds["forward"]  # it was inside
    sections.seconds["deal"] = every * sections.steps
    run = TrainStep(net, model, stage, weights, fabric)

    def ask(batch: Batch) -> None:
        run(prepare_batch(batch, training_data, stage, rng, fabric.device), 1.0, stepping=True)
        adam.step()
        run.zero_grad(adam)

    return sections, _asking(fabric, ask, batches)


def _repeat(sections: Sections, step: Callable[[Batch], None], batches: list[Batch]) -> None:
    """Some steps, of which the first are not counted."""
    begun = time.perf_counter()
    for i in range(WARM + STEPS):
        if i == min(WARM, 1):
            sections.seconds.clear()
            sections.steps = 0
        step(batches[i % len(batches)])
        sections.steps += 1
        if i and time.perf_counter() - begun > PATIENCE:
            break


def _asking(fabric: Fabric, step: Callable[[Batch], None], batches: list[Batch]) -> float:
    if fabric.device.type != "cuda":
        return 1.0
    chosen = [batches[i % len(batches)] for i in range(STEPS)]
    step(chosen[0])  # where it is recorded
    wait_for(fabric.device)
    began = time.perf_counter()
    for batch in chosen:
        step(batch)
    asked = time.perf_counter() - began
    wait_for(fabric.device)
    return asked / (time.perf_counter() - began)
