"""Average precision per species, as bars with their intervals, and where chance lies."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from antpitta.report.canvas import (
    ABSENT,
    INK,
    MUTED,
    NONE,
    PRESENT,
    PRESENT_PALE,
    ROWS,
    RULE,
    Form,
    bare,
    new_figure,
    save,
    shorten,
    styled,
)
from antpitta.report.ranking import keep_most, rank_species, why_undefined
from antpitta.scores.evaluate import Report


def draw_species(report: Report, form: Form = "svg", most: int = ROWS) -> bytes:
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
