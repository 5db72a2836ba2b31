"""Pictures of the training: the metrics of each stage, and the loss of each epoch.

Intervals are drawn as they are given; where they are NaN there is none.
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
    ImageFormat,
    new_figure,
    new_panels,
    remove_spines,
    save,
    shorten,
    styled,
    wrap_name,
)
from antpitta.report.results import StageResult
from antpitta.scores.bootstrap import Interval

METRICS = (("lwlrap", "LWLRAP"), ("macro_ap", "macro AP"), ("macro_auc", "macro AUC"))


def draw_stages(stages: Sequence[StageResult], form: ImageFormat = "svg") -> bytes:
    """Draw the three headline metrics of every stage with their intervals, one row a stage.

    Parameters
    ----------
    stages
        In the order of training.
    form
        ``"svg"`` or ``"png"``.

    Returns
    -------
    bytes
        The picture.

    Raises
    ------
    ValueError
        If there is no stage.
    """
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
            remove_spines(axes, "left")
        panels[0].set_yticks(range(len(stages)), [wrap_name(stage.name, 22) for stage in stages])
        if truths:
            _write_key(panels)
        return save(figure, form)


def _write_key(panels: Sequence[Axes]) -> None:
    texts = ((PRESENT, "● labelled cells, out of fold"), (ABSENT, "◆ complete ground truth"))
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
    finite = [edge for edge in edges if np.isfinite(edge)] or [0.0, 1.0]
    margin = max(0.16 * (max(finite) - min(finite)), 0.03)  # for the numbers above the dots
    axes.set_xlim(max(min(finite) - margin, -0.03), min(max(finite) + margin, 1.03))


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
    """Draw the loss of each epoch: one panel a stage, a thin line a fold, their mean in bold.

    Losses of different stages use different cells, so that each panel has its own scale.

    Parameters
    ----------
    log
        One row an epoch: ``stage``, ``fold``, ``epoch``, ``loss`` and, if there are several,
        ``cycle``.
    form
        ``"svg"`` or ``"png"``.

    Returns
    -------
    bytes
        The picture.

    Raises
    ------
    ValueError
        If the log is empty.
    """
    if log.empty:
        raise ValueError("the log has no epoch: there is nothing to draw")
    log = tidy_log(log)
    stages = list(dict.fromkeys(log["stage"]))
    with styled():
        figure, panels = new_panels(len(stages), 3, 1.9, 0.35)
        for axes, stage in zip(panels, stages, strict=True):
            _draw_losses(axes, log[log["stage"] == stage])
            axes.set_title(shorten(str(stage), 30), fontweight="bold")
        return _save_training(figure, form)


def tidy_log(log: pd.DataFrame) -> pd.DataFrame:
    """The log with one row an epoch, and the cycle in the stage's name if there are several.

    A resumed run may write an epoch again: the later row is kept.

    Parameters
    ----------
    log : one row an epoch, as the run wrote it

    Returns
    -------
    DataFrame
        The tidy log.
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
    single = "o" if len(epochs) == 1 else ""  # a line of one point would be invisible
    if folds > 1:
        axes.plot(epochs, table.to_numpy(float), color=PRESENT_PALE, linewidth=0.9, marker=single)
    mean = table.mean(axis=1)
    axes.plot(epochs, mean, color=PRESENT, linewidth=2, marker=single, markersize=4)
    axes.set_ylim(*_loss_limits(table.to_numpy(float)))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    last = mean.dropna()
    if not last.empty:
        text = f"{last.iloc[-1]:.3g}" + (f", mean of {folds} folds" if folds > 1 else "")
        axes.text(
            0.98, 0.95, f"final loss {text}", transform=axes.transAxes, ha="right", va="top",
            fontsize=8, color=PRESENT, bbox=PLATE,
        )  # fmt: skip


def _loss_limits(losses: np.ndarray) -> tuple[float, float]:
    """From zero to a little above the highest loss, where the text stands."""
    finite = losses[np.isfinite(losses)]
    top = float(finite.max()) if finite.size else 1.0
    return min(0.0, float(finite.min()) if finite.size else 0.0), max(top, 1e-6) * 1.18
