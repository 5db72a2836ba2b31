"""What a timed run came to: a row a stage and cycle, lines about all of it, and what limits it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from antpitta.core.config import Recipe
from antpitta.sound.windows import window_starts
from antpitta.train.stages import Run, cycles_of
from benchmarks.peaks import data_sheet_peak
from benchmarks.sections import Sections
from benchmarks.tables import machine

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
class Measures:
    """What was measured beside the run."""

    sections: dict[str, Sections]  # by stage
    asking: dict[str, float]  # by stage, the host's share of a step on a GPU
    flops: tuple[float, float]  # of a window, in training and in scoring
    peak: float
    half: bool


def tabulate(
    recipe: Recipe,
    epochs: pd.DataFrame,
    spent: dict[tuple[str, int, str], float],
    measures: Measures,
) -> pd.DataFrame:
    """COLUMNS, from what the run told of each epoch and of what it ``spent``."""
    rows = []
    for stage in recipe.stages:
        for cycle in range(1, cycles_of(stage) + 1):
            mine = epochs[(epochs["stage"] == stage.name) & (epochs["cycle"] == cycle)]
            training, steps, windows = (mine[key].sum() for key in ("seconds", "steps", "windows"))
            # In lanes epochs overlap: all of the time in which they ran counts.
            training = min(training, spent[stage.name, cycle, "train"])
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


def lines_of(
    run: Run, table: pd.DataFrame, measures: Measures, seconds: float, memory: float
) -> tuple[str, ...]:
    """What the table does not say: the whole, its shares, and what limits it."""
    scored, (train_flops, scan_flops) = _scored(run), measures.flops
    total = table["windows"].sum() * train_flops + len(table) * scored * scan_flops
    training, scoring = table["training"].sum(), table["scoring"].sum()
    kind = "bfloat16" if measures.half else "fp32"
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
    lines.append(f"limit: {limit_of(table, measures)}")
    return (*lines, machine())


def _scored(run: Run) -> int:
    windows = run.recipe.windows
    lengths = run.training_data.features.lengths
    return sum(
        len(window_starts(int(n), windows.frames, windows.inference_overlap)) for n in lengths
    )


def _best(table: pd.DataFrame) -> float:
    return float(table["tflops"].max() * 1e12)


def limit_of(table: pd.DataFrame, measures: Measures) -> str:
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
