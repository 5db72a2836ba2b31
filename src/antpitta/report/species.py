"""Species in the order of every picture and table, and why one has no figure.

- A species is ranked by its average precision. One that has none keeps its row and says why:
  a row that vanished would look like a species that nobody asked for.
- Chance is the share of present among the judged cells: what a model that knows nothing earns.

Average precision per species, as bars with their intervals, and where chance lies.

Precision against recall, a panel a species; all share their axes.
"""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from antpitta.report.canvas import (
    ABSENT,
    INK,
    MUTED,
    NONE,
    PLATE,
    PRESENT,
    PRESENT_PALE,
    ROWS,
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
from antpitta.scores.evaluate import Report
from antpitta.scores.metrics import Curve


def rank_species(per_species: pd.DataFrame) -> pd.DataFrame:
    """Best average precision first, those without one last, with a column ``chance``."""
    table = per_species.copy()
    judged = table["present"] + table["absent"]
    table["chance"] = (table["present"] / judged.where(judged > 0)).astype(float)
    return table.sort_values(
        ["ap", "present", "species"], ascending=[False, False, True], na_position="last"
    ).reset_index(drop=True)


def keep_most(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """The species with the most present boxes, in the order that they came in."""
    kept = table.sort_values("present", ascending=False, kind="stable").head(most).index
    return table.loc[kept.sort_values()].reset_index(drop=True)


def why_undefined(present: int, absent: int) -> str:
    """Why a species has no average precision."""
    if present == 0 and absent == 0:
        return "nothing judged"
    if present == 0:
        return "nothing judged present"
    return "nothing judged absent" if absent == 0 else "not defined"


def draw_species(report: Report, form: ImageFormat = "svg", most: int = ROWS) -> bytes:
    """Average precision per species: bar, 95 % interval, and a mark where chance lies.

    Of more than ``most`` species those with the most present boxes, best first all the same.
    """
    table = keep_most(rank_species(report.per_species), most)
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


CURVE_POINTS = 250  # a curve of more is thinned: the eye sees no difference, the file does


def draw_curves(report: Report, form: ImageFormat = "svg", most: int = 48) -> bytes:
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
    return [str(name) for name in keep_most(table, most)["species"]]


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
        axes.text(0.05, 0.06 if line["chance"] > 0.3 else 0.4, value, fontsize=8, bbox=PLATE)
    else:
        axes.text(1.0, 1.0, value, fontsize=8, bbox=PLATE, ha="right", va="top")
