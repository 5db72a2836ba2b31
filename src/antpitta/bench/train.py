"""bench train: a whole recipe on a set of the competition's size, and what limits its speed.

- The run is an ordinary one, by learn/stages.py, with everything that a run writes. Only its
  pictures are noise (bench/synthetic.py), and weights are not fetched: neither changes the speed.
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
import torch

from antpitta.bench.speed import (
    Sections,
    data_sheet_peak,
    flops_of,
    measured_peak,
    peak_memory,
    time_stage,
)
from antpitta.bench.synthetic import Cells, count_cells, synthetic_dataset, synthetic_material
from antpitta.bench.tables import machine
from antpitta.core.config import Recipe
from antpitta.core.errors import UserMistake
from antpitta.core.voice import Voice
from antpitta.files.runs import RunFolder
from antpitta.learn.engine import Engine, Shell, build_fabric, warm_up
from antpitta.learn.folds import deal_folds
from antpitta.learn.stages import Run, build_net, cycles_of, run_stages
from antpitta.sound.windows import starts_of

OUTSIDE = ("deal", "cut and mix", "loss", "step")
COLUMNS = (
    "stage",
    "cycle",
    "seconds",
    "training",
    "scoring",
    "steps",
    "steps_per_second",
    "windows",
    "windows_per_second",
    "tflops",  # a second, while training
    "peak_share",
    "outside",  # share of a step that is not the network
)


@dataclass(frozen=True)
class TrainBench:
    """What a run took, a row a stage and cycle, and what to know about it."""

    table: pd.DataFrame  # COLUMNS
    cells: Cells
    seconds: float  # from the first stage's begin to the last one's scores
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Measures:
    sections: dict[str, Sections]  # by stage
    asking: dict[str, float]  # by stage, the host's share of a step on a GPU
    flops: tuple[float, float]  # of a window, in training and in scoring
    peak: float
    half: bool


def run_train_bench(
    present: Sequence[Path],
    absent: Sequence[Path],
    recipe: Recipe,
    folder: RunFolder,
    engine: Engine,
    count: int,
    voice: Voice,
) -> TrainBench:
    """Train ``recipe`` on ``count`` made-up recordings with these tables' boxes, and measure."""
    if engine.devices != 1:
        raise UserMistake("bench train measures one device; leave --devices out")
    if recipe.embedding is not None:
        raise UserMistake(f"recipe {recipe.name}: learns from vectors; take one of pictures")
    fabric = build_fabric(engine)
    warm_up(engine, fabric.device)
    dataset = synthetic_dataset(present, absent, count, recipe.front.sample_rate, recipe.seed)
    material = synthetic_material(dataset, recipe, fabric.device)
    cells = count_cells(material)
    size = material.pictures.pixels.nbytes / 1e9
    voice.say(
        f"{count:,} recordings of {len(material.cuts):,} windows, {size:.2f} GB of pictures on "
        f"{fabric.device}; {cells}"
    )
    epochs: list[dict[str, Any]] = []
    spent: dict[tuple[str, int, str], float] = {}

    def clock(stage: str, cycle: int, what: str, seconds: float) -> None:
        spent[stage, cycle, what] = seconds

    folds = deal_folds(dataset, recipe.folds, recipe.deal)
    shell = Shell() if engine.compile else None
    run = Run(
        *(recipe, material, folds, folder, fabric, voice),
        record=epochs.append,
        shell=shell,
        clock=clock,
    )
    began = time.perf_counter()
    run_stages(run)
    seconds = time.perf_counter() - began
    memory = peak_memory(fabric.device)
    measures = _measure(run)
    table = _table(recipe, pd.DataFrame(epochs), spent, measures)
    lines = _lines(run, table, measures, seconds, memory)
    return TrainBench(table, cells, seconds, lines)


def _measure(run: Run) -> _Measures:
    device, half = run.fabric.device, "bf16" in str(run.fabric.strategy.precision.precision)
    sections, asking = {}, {}
    train = np.flatnonzero(run.folds != 0)
    net = build_net(run, empty=True).to(device)
    flops = flops_of(net, run.recipe.windows.frames, run.recipe.front.bands)
    for stage in run.recipe.stages:
        if run.shell is not None:
            net = run.shell.take(net)
        timed = time_stage(net, stage, run.material, train, run.fabric)
        sections[stage.name], asking[stage.name] = timed
    return _Measures(sections, asking, flops, measured_peak(device, half), half)


def _table(
    recipe: Recipe,
    epochs: pd.DataFrame,
    spent: dict[tuple[str, int, str], float],
    measures: _Measures,
) -> pd.DataFrame:
    rows = []
    for stage in recipe.stages:
        for cycle in range(1, cycles_of(stage) + 1):
            mine = epochs[(epochs["stage"] == stage.name) & (epochs["cycle"] == cycle)]
            training, steps, windows = (mine[key].sum() for key in ("seconds", "steps", "windows"))
            rate = windows / training
            speed = rate * measures.flops[0]
            rows.append(
                (
                    stage.name,
                    cycle,
                    sum(spent[stage.name, cycle, what] for what in ("teach", "train", "score")),
                    training,
                    spent[stage.name, cycle, "score"],
                    steps,
                    steps / training,
                    windows,
                    rate,
                    speed / 1e12,
                    speed / measures.peak,
                    measures.sections[stage.name].share(*OUTSIDE),
                )
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _lines(
    run: Run, table: pd.DataFrame, measures: _Measures, seconds: float, memory: float
) -> tuple[str, ...]:
    scored, (train_flops, scan_flops) = _scored(run), measures.flops
    total = table["windows"].sum() * train_flops + len(table) * scored * scan_flops
    training, scoring = table["training"].sum(), table["scoring"].sum()
    kind = "bf16" if measures.half else "fp32"
    lines = [
        f"{seconds:.1f} s in all: {training:.1f} in training steps, {scoring:.1f} scoring, "
        f"{seconds - training - scoring:.1f} around them (building, saving, pseudo labels)",
        f"{train_flops / 1e9:.2f} GFLOP a window in training, {scan_flops / 1e9:.2f} in scoring; "
        f"{total / 1e15:.3f} PFLOP in all, {total / seconds / 1e12:.3f} TFLOP/s end to end",
        f"peak {measures.peak / 1e12:.3f} TFLOP/s {kind}, by a matrix product here; "
        f"end to end {total / seconds / measures.peak:.1%} of it; at it, all would take "
        f"{total / measures.peak:.1f} s",
    ]
    if run.fabric.device.type == "cuda":
        name = torch.cuda.get_device_name(run.fabric.device)
        sheet = data_sheet_peak(name)
        if sheet is not None and measures.half:
            lines.append(
                f"{name}: {sheet / 1e12:.0f} TFLOP/s by its data sheet; end to end "
                f"{total / seconds / sheet:.1%} of it, in training {_best(table) / sheet:.1%}"
            )
    for name, one in measures.sections.items():
        parts = ", ".join(
            f"{key} {one.share(key):.0%}" for key in (*OUTSIDE, "forward", "backward")
        )
        lines.append(f"a step of {name}: {parts}")
    lines.append(f"peak memory {memory / 1e9:.2f} GB")
    lines.append(f"limit: {_limit(table, measures)}")
    return (*lines, machine())


def _scored(run: Run) -> int:
    windows = run.recipe.windows
    lengths = run.material.pictures.lengths
    return sum(len(starts_of(int(n), windows.frames, windows.scan_overlap)) for n in lengths)


def _best(table: pd.DataFrame) -> float:
    return float(table["tflops"].max() * 1e12)


def _limit(table: pd.DataFrame, measures: _Measures) -> str:
    """What the stage that takes longest waits for."""
    row: dict[Any, Any] = table.sort_values("training").iloc[-1].to_dict()
    around = table["seconds"].sum() - table["training"].sum()
    if around > table["training"].sum():
        return "what lies around the training steps: scoring, building, saving, pseudo labels"
    asking, share = measures.asking[row["stage"]], float(row["peak_share"])
    if asking < 1.0 and asking > 0.9:
        return f"the host: it needs {asking:.0%} of a step of {row['stage']} to ask for it"
    if row["outside"] > 0.35:
        parts = measures.sections[row["stage"]]
        worst = max(OUTSIDE, key=parts.share)
        return f"what is not the network: most of it {worst} ({parts.share(worst):.0%} of a step)"
    if share > 0.5:
        return f"arithmetic: {share:.0%} of the matrix peak"
    return (
        "the network's own traffic to memory and its small layers: "
        f"{share:.0%} of the matrix peak, {1 - row['outside']:.0%} of a step inside the network"
    )


def without_weights(changes: Sequence[str]) -> tuple[str, ...]:
    """Settings for a bench: weights are not fetched unless a later setting asks for them."""
    return ("network.pretrained=false", *changes)
