"""bench train: a whole recipe on a set of the competition's size, and what limits its speed.

- The run is an ordinary one, by train/stages.py, with everything that a run writes. Only its
  pictures are noise (benchmarks/synthetic.py), and weights are not fetched: neither changes the speed.
- Seconds and rates are the run's own. Sections are measured afterwards, on a few steps.
- FLOPs are those of the network, forward and backward, counted by torch; a multiply-add is two.
- The peak that shares are of is measured by a big matrix product in the same minute: makers'
  figures are for clocks that no card keeps. Where the card is known, theirs is given too.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.files.runs import RunFolder
from antpitta.model.network import SedNet
from antpitta.train.compute import (
    ComputeConfig,
    ParallelFolds,
    build_fabric,
    compiled_models,
    warm_up,
)
from antpitta.train.out_of_fold import assign_folds
from antpitta.train.stages import Run, build_net, run_stages
from benchmarks.peaks import flops_of, measured_peak, peak_memory
from benchmarks.sections import time_stage
from benchmarks.synthetic import Cells, count_cells, synthetic_dataset, synthetic_material
from benchmarks.train_table import Measures, lines_of, tabulate


@dataclass(frozen=True)
class TrainBench:
    """What a run took, a row a stage and cycle, and what to know about it."""

    table: pd.DataFrame  # COLUMNS
    cells: Cells
    seconds: float  # from the first stage's begin to the last one's scores
    lines: tuple[str, ...]


def run_train_bench(
    present: Sequence[Path],
    absent: Sequence[Path],
    recipe: Recipe,
    folder: RunFolder,
    engine: ComputeConfig,
    count: int,
    progress: Progress,
) -> TrainBench:
    """Train ``recipe`` on ``count`` made-up recordings with these tables' boxes, and measure."""
    _check(engine, recipe)
    fabric = build_fabric(engine)
    warm_up(engine, fabric.device)
    dataset = synthetic_dataset(present, absent, count, recipe.features.sample_rate, recipe.seed)
    training_data = synthetic_material(dataset, recipe, fabric.device)
    cells = count_cells(training_data)
    size = training_data.features.pixels.nbytes / 1e9
    progress.message(
        f"{count:,} recordings of {len(training_data.windows):,} windows, {size:.2f} GB of pictures on "
        f"{fabric.device}; {cells}"
    )
    epochs: list[dict[str, Any]] = []
    spent: dict[tuple[str, int, str], float] = {}

    def clock(stage: str, cycle: int, what: str, seconds: float) -> None:
        spent[stage, cycle, what] = seconds

    run = Run(
        *(
            recipe,
            training_data,
            assign_folds(dataset, recipe.folds, recipe.split_seed),
            folder,
            fabric,
            progress,
        ),
        record=epochs.append,
        shells=compiled_models(engine),
        parallel_folds=ParallelFolds(engine.parallel_folds, fabric.device),
        clock=clock,
    )
    began = time.perf_counter()
    run_stages(run)
    seconds = time.perf_counter() - began
    memory = peak_memory(fabric.device)
    measures = _measure(run)
    table = tabulate(recipe, pd.DataFrame(epochs), spent, measures)
    return TrainBench(table, cells, seconds, lines_of(run, table, measures, seconds, memory))


def _check(engine: ComputeConfig, recipe: Recipe) -> None:
    if engine.devices != 1:
        raise UserError("E_TODO", "bench train measures one device", "leave --devices out")
    if recipe.embedding is not None:
        raise UserError(
            "E_TODO", f"recipe {recipe.name}: learns from vectors", "take one of pictures"
        )


def _measure(run: Run) -> Measures:
    device, half = run.fabric.device, "bf16" in str(run.fabric.strategy.precision.precision)
    sections, asking = {}, {}
    train = np.flatnonzero(run.folds != 0)
    front, classes = run.recipe.features, len(run.training_data.dataset.classes)
    plain = SedNet(
        run.recipe.backbone, run.recipe.head, classes, bands=front.n_mels, load_weights=False
    ).to(device)
    flops = flops_of(plain, run.recipe.windows.frames, front.n_mels)
    net = build_net(run, empty=True).to(device)
    for stage in run.recipe.stages:
        if run.shells:
            net = run.shells[0].load(net)
        timed = time_stage(net, stage, run.training_data, train, run.fabric)
        sections[stage.name], asking[stage.name] = timed
    return Measures(sections, asking, flops, measured_peak(device, half), half)


def without_weights(changes: Sequence[str]) -> tuple[str, ...]:
    """Settings for a bench: weights are not fetched unless a later setting asks for them."""
    return ("backbone.pretrained=false", *changes)
