"""How a model came about: the figures of each stage, and the loss while it learned.

- Panels of one kind are labelled on the spot instead of by a key.
- Intervals are drawn as handed in, and nowhere made up where they are NaN.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from antpitta.report.canvas import (
    ABSENT,
    INK,
    MUTED,
    PLATE,
    PRESENT,
    PRESENT_PALE,
    RULE,
    WIDTH,
    ImageFormat,
    bare,
    fold,
    new_figure,
    save,
    shorten,
    styled,
)
from antpitta.report.results import StageResult
from antpitta.scores.bootstrap import Interval

METRICS = (("lwlrap", "LWLRAP"), ("macro_ap", "macro AP"), ("macro_auc", "macro AUC"))


def draw_gain(stages: Sequence[StageResult], form: ImageFormat = "svg") -> bytes:
    """The three figures of every stage, with intervals, one row a stage."""
    if not stages:
        raise ValueError("there is no stage to draw")
    truths = any(stage.truth is not None for stage in stages)
    step = 0.72 if truths else 0.5
    with styled():
        figure = new_figure(0.75 + step * len(stages))
        panels = figure.subplots(1, len(METRICS), sharey=True)
        for axes, (field, label) in zip(panels, METRICS, strict=True):
            _draw_metric(axes, stages, field)
            axes.set_title(label, color=INK, fontweight="bold", pad=8)
            axes.set_ylim(len(stages) - 0.45, -0.62)
            axes.grid(axis="x", color=RULE, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            bare(axes, "left")
        panels[0].set_yticks(range(len(stages)), [fold(stage.name, 22) for stage in stages])
        if truths:
            _write_key(panels)
        return save(figure, form)


def _write_key(panels: Sequence[Axes]) -> None:
    texts = ((PRESENT, "● judged cells, out of fold"), (ABSENT, "◆ whole truth"))
    for axes, (colour, text) in zip(panels, texts, strict=False):
        axes.annotate(text, (0, 0), xycoords="axes fraction", xytext=(0, -30),
                      textcoords="offset points", color=colour, fontsize=8)  # fmt: skip


def _draw_metric(axes: Axes, stages: Sequence[StageResult], field: str) -> None:
    edges: list[float] = []
    for row, stage in enumerate(stages):
        both = stage.truth is not None
        own = getattr(stage.report, field)
        edges += _draw_interval(axes, own, row - 0.14 * both, "o", PRESENT)
        if stage.truth is not None:
            edges += _draw_interval(axes, getattr(stage.truth, field), row + 0.26, "D", ABSENT)
    known = [edge for edge in edges if np.isfinite(edge)] or [0.0, 1.0]
    margin = max(0.16 * (max(known) - min(known)), 0.03)  # room for the figures above the dots
    axes.set_xlim(max(min(known) - margin, -0.03), min(max(known) + margin, 1.03))


def _draw_interval(
    axes: Axes, interval: Interval, row: float, marker: str, color: str
) -> list[float]:
    if not np.isfinite(interval.value):
        axes.annotate(
            "not defined",
            (0.03, row),
            xycoords=axes.get_yaxis_transform(),
            color=MUTED,
            style="italic",
            va="center",
            fontsize=8,
        )
        return []
    axes.hlines(row, interval.low, interval.high, color=color, linewidth=1.6)
    axes.plot(interval.value, row, marker, color=color, markersize=5 if marker == "o" else 4)
    axes.annotate(
        f"{interval.value:.3f}",
        (interval.value, row),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8,
    )
    return [interval.value, interval.low, interval.high]


def draw_training(log: pd.DataFrame, form: ImageFormat = "svg") -> bytes:
    """Loss per epoch: a panel a stage, a thin line a fold, their mean in bold.

    Losses of different stages sum over different cells, so that each panel has its own scale.
    """
    if log.empty:
        raise ValueError("the log holds no epoch: there is nothing to draw")
    log = tidy_log(log)
    stages = list(dict.fromkeys(log["stage"]))
    across = min(3, len(stages))
    down = -(-len(stages) // across)
    with styled():
        figure = new_figure(0.35 + 1.9 * down, width=WIDTH * max(across, 2) / 3)
        panels = figure.subplots(down, across, squeeze=False)
        for axes, stage in zip(panels.flat, stages, strict=False):
            _draw_losses(axes, log[log["stage"] == stage])
            axes.set_title(shorten(str(stage), 30), fontweight="bold")
        for axes in panels.flat[len(stages) :]:
            axes.set_visible(False)
        return _save_training(figure, form)


def tidy_log(log: pd.DataFrame) -> pd.DataFrame:
    """The log with one row an epoch, and the cycle in the stage's name where there are several.

    A resumed run may write an epoch again: the later row is the one that counts.
    """
    if "cycle" in log.columns and not log.empty:
        several = log.groupby("stage")["cycle"].transform("nunique") > 1
        cycle = ", cycle " + log["cycle"].astype(str)
        log = log.assign(stage=log["stage"].astype(str) + cycle.where(several, ""))
    return log.drop_duplicates(["stage", "fold", "epoch"], keep="last")


def _save_training(figure: Figure, form: ImageFormat) -> bytes:
    figure.supxlabel("epoch", fontsize=8.5, color=MUTED)
    figure.supylabel("training loss", fontsize=8.5, color=MUTED)
    return save(figure, form)


def _draw_losses(axes: Axes, log: pd.DataFrame) -> None:
    table = log.pivot(index="epoch", columns="fold", values="loss").sort_index()
    epochs, folds = table.index.to_numpy(float), table.shape[1]
    alone = "o" if len(epochs) == 1 else ""
    if folds > 1:
        axes.plot(epochs, table.to_numpy(float), color=PRESENT_PALE, linewidth=0.9, marker=alone)
    mean = table.mean(axis=1)
    axes.plot(epochs, mean, color=PRESENT, linewidth=2, marker=alone, markersize=4)
    axes.set_ylim(*_room(table.to_numpy(float)))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    last = mean.dropna()
    if not last.empty:
        says = f"{last.iloc[-1]:.3g}" + (f", mean of {folds} folds" if folds > 1 else "")
        axes.text(
            0.98, 0.95, f"ends at {says}", transform=axes.transAxes, ha="right", va="top",
            fontsize=8, color=PRESENT, bbox=PLATE,
        )  # fmt: skip


def _room(losses: np.ndarray) -> tuple[float, float]:
    """From zero, where a loss ends, to a little above the highest: room for the text."""
    known = losses[np.isfinite(losses)]
    top = float(known.max()) if known.size else 1.0
    return min(0.0, float(known.min()) if known.size else 0.0), max(top, 1e-6) * 1.18
