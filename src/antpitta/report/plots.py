"""Pictures of how well a model does: per species, as curves, per stage, and while it learned.

- A species is ranked by its average precision. One that has none keeps its row and says why:
  a row that vanished would look like a species that nobody asked for.
- Chance is the share of present among the judged cells: what a model that knows nothing earns.
- Panels of one kind share their axes, and are labelled on the spot instead of by a key.
- Intervals are drawn as handed in, and nowhere made up where they are NaN.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from antpitta.report.canvas import (
    ABSENT,
    INK,
    MUTED,
    NONE,
    PRESENT,
    PRESENT_PALE,
    ROWS,
    RULE,
    WIDTH,
    Form,
    bare,
    fold,
    new_figure,
    save,
    shorten,
    styled,
)
from antpitta.report.story import StageResult
from antpitta.scores.bootstrap import Interval
from antpitta.scores.curves import Curve
from antpitta.scores.evaluate import Report

METRICS = (("lwlrap", "LWLRAP"), ("macro_ap", "macro AP"), ("macro_auc", "macro AUC"))
CURVE_POINTS = 250  # a curve of more is thinned: the eye sees no difference, the file does


def rank_species(per_species: pd.DataFrame) -> pd.DataFrame:
    """Best average precision first, those without one last, with a column ``chance``."""
    table = per_species.copy()
    judged = table["present"] + table["absent"]
    table["chance"] = (table["present"] / judged.where(judged > 0)).astype(float)
    return table.sort_values(
        ["ap", "present", "species"], ascending=[False, False, True], na_position="last"
    ).reset_index(drop=True)


def why_undefined(present: int, absent: int) -> str:
    """Why a species has no average precision."""
    if present == 0 and absent == 0:
        return "nothing judged"
    if present == 0:
        return "nothing judged present"
    return "nothing judged absent" if absent == 0 else "not defined"


def draw_species(report: Report, form: Form = "svg", most: int = ROWS) -> bytes:
    """Average precision per species: bar, 95 % interval, and a mark where chance lies.

    Of more than ``most`` species those with the most present boxes, best first all the same.
    """
    table = _keep_most(rank_species(report.per_species), most)
    if table.empty:
        raise ValueError("the report names no species: there is nothing to draw")
    with styled():
        figure = new_figure(0.7 + 0.235 * len(table))
        axes = figure.add_subplot()
        _draw_bars(axes, table)
        _write_columns(axes, table)
        axes.set(xlim=(0, 1), ylim=(len(table) - 0.5, -0.7), xlabel="average precision")
        axes.grid(axis="x", color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        bare(axes, "left")
        return save(figure, form)


def _keep_most(table: pd.DataFrame, most: int) -> pd.DataFrame:
    kept = table.sort_values("present", ascending=False, kind="stable").head(most).index
    return table.loc[kept.sort_values()].reset_index(drop=True)


def _draw_bars(axes: Axes, table: pd.DataFrame) -> None:
    rows = np.arange(len(table))
    ap, low, high = (table[name].to_numpy(float) for name in ("ap", "ap_low", "ap_high"))
    axes.barh(rows, np.nan_to_num(ap), height=0.62, color=PRESENT_PALE)
    axes.hlines(rows, low, high, color=INK, linewidth=1.1)
    axes.plot(ap, rows, "o", color=PRESENT, markersize=3.6)
    chance = table["chance"].to_numpy(float)
    there = ~np.isnan(ap) & ~np.isnan(chance)
    axes.vlines(chance[there], rows[there] - 0.42, rows[there] + 0.42, color=ABSENT, linewidth=1.6)
    if there.any():
        first = int(np.flatnonzero(there)[0])
        axes.annotate(
            "chance",
            (chance[first], first - 0.42),
            xytext=(0, 2),
            textcoords="offset points",
            color=ABSENT,
            fontsize=7.5,
            ha="center" if 0.06 < chance[first] < 0.94 else "left",
        )


def _write_columns(axes: Axes, table: pd.DataFrame) -> None:
    """Names, counts and values as columns beside the bars."""
    sideways = axes.get_yaxis_transform()  # x in axes, y in rows
    for row, line in enumerate(table.to_dict("records")):
        ap, present, absent = (line[name] for name in ("ap", "present", "absent"))
        counts = f"{present:,.0f} / {absent:,.0f}"
        axes.annotate(
            counts,
            (0, row),
            xycoords=sideways,
            xytext=(-6, 0),
            textcoords="offset points",
            color=MUTED,
            fontsize=8,
            ha="right",
            va="center",
        )
        if np.isnan(ap):
            reason = why_undefined(present, absent)
            axes.text(0.008, row, reason, color=MUTED, fontsize=8, va="center", style="italic")
        value = NONE if np.isnan(ap) else f"{ap:.2f}"
        axes.text(1.1, row, value, transform=sideways, ha="right", va="center")
    axes.annotate(
        "present / absent",
        (0, 1),
        xycoords="axes fraction",
        xytext=(-6, 3),
        textcoords="offset points",
        color=MUTED,
        fontsize=7.5,
        ha="right",
    )
    axes.text(1.1, 1.0, "AP", transform=axes.transAxes, ha="right", color=MUTED, fontsize=7.5)
    axes.set_yticks(range(len(table)), [shorten(name) for name in table["species"]])
    axes.tick_params(axis="y", pad=72)


def draw_curves(report: Report, form: Form = "svg", most: int = 48) -> bytes:
    """Precision against recall, one panel a species, in the order of the bars.

    Species without a curve are passed over, and of more than ``most`` those with the fewest
    present cells: :func:`drawn_curves` names the ones that are left.
    """
    names = drawn_curves(report, most)
    if not names:
        raise ValueError("no species has a curve: there is nothing to draw")
    table = rank_species(report.per_species)
    lines = {line["species"]: line for line in table.to_dict("records")}
    across = min(4, len(names))
    down = -(-len(names) // across)
    with styled():
        figure = new_figure(0.5 + 1.55 * down, width=WIDTH * max(across, 2) / 4)
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for axes, name in zip(panels.flat, names, strict=False):
            _draw_curve(axes, name, report.curves[name], lines[name])
        for axes in panels.flat[len(names) :]:
            axes.set_visible(False)
        for axes in panels.flat[max(len(names) - across, 0) : len(names)]:
            axes.tick_params(labelbottom=True)
        figure.supxlabel("recall", fontsize=8.5, color=MUTED)
        figure.supylabel("precision", fontsize=8.5, color=MUTED)
        return save(figure, form)


def drawn_curves(report: Report, most: int = 48) -> list[str]:
    """The species that :func:`draw_curves` has a panel for, best first."""
    table = rank_species(report.per_species)
    table = table[table["species"].isin([n for n, curve in report.curves.items() if len(curve[0])])]
    return [str(name) for name in _keep_most(table, most)["species"]]


def _draw_curve(axes: Axes, name: str, curve: Curve, line: dict[Hashable, Any]) -> None:
    recall, precision = (np.asarray(part, dtype=float) for part in curve)
    if recall[0] < recall[-1]:  # a precision holds from its own recall down to the next
        recall, precision = recall[::-1], precision[::-1]
    if len(recall) > CURVE_POINTS:
        kept = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).round().astype(int))
        recall, precision = recall[kept], precision[kept]
    axes.axhline(line["chance"], color=ABSENT, linewidth=1, linestyle=(0, (4, 2)))
    axes.plot(recall, precision, drawstyle="steps-post", color=PRESENT, linewidth=1.5)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.set_title(fold(name, 23), fontsize=7.8, linespacing=1.05)
    value = f"AP {line['ap']:.2f}" if np.isfinite(line["ap"]) else "AP not defined"
    if line["ap"] > 0.6:  # a good curve leaves the lower left free, but for the dashed line
        axes.text(0.05, 0.06 if line["chance"] > 0.3 else 0.4, value, fontsize=8, bbox=_PLATE)
    else:
        axes.text(1.0, 1.0, value, fontsize=8, bbox=_PLATE, ha="right", va="top")


_PLATE: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0}


def draw_gain(stages: Sequence[StageResult], form: Form = "svg") -> bytes:
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


def tidy_log(log: pd.DataFrame) -> pd.DataFrame:
    """The log with one row an epoch, and the cycle in the stage's name where there are several.

    A resumed run may write an epoch again: the later row is the one that counts.
    """
    if "cycle" in log.columns and not log.empty:
        several = log.groupby("stage")["cycle"].transform("nunique") > 1
        cycle = ", cycle " + log["cycle"].astype(str)
        log = log.assign(stage=log["stage"].astype(str) + cycle.where(several, ""))
    return log.drop_duplicates(["stage", "fold", "epoch"], keep="last")


def draw_training(log: pd.DataFrame, form: Form = "svg") -> bytes:
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


def _save_training(figure: Figure, form: Form) -> bytes:
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
            fontsize=8, color=PRESENT, bbox=_PLATE,
        )  # fmt: skip


def _room(losses: np.ndarray) -> tuple[float, float]:
    """From zero, where a loss ends, to a little above the highest: room for the text."""
    known = losses[np.isfinite(losses)]
    top = float(known.max()) if known.size else 1.0
    return min(0.0, float(known.min()) if known.size else 0.0), max(top, 1e-6) * 1.18
