"""Pictures of species: average precision as bars, and precision against recall.

- Species are ranked by average precision. A species without one keeps its row, which gives the
  reason: a missing row would look like a species that is not in the data.
- Chance is the share of present cells among the labelled ones: the average precision of random
  scores.
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
    ImageFormat,
    new_figure,
    new_panels,
    remove_spines,
    save,
    shorten,
    styled,
    wrap_name,
)
from antpitta.scores.evaluate import Report
from antpitta.scores.metrics import Curve


def rank_species(per_species: pd.DataFrame) -> pd.DataFrame:
    """Sort species by average precision, and add the chance level.

    Parameters
    ----------
    per_species
        Rows ``species``, ``present``, ``absent``, ``ap`` ... of a report.

    Returns
    -------
    DataFrame
        The best species first, those without average precision last; a new column ``chance``.
    """
    table = per_species.copy()
    labelled = table["present"] + table["absent"]
    table["chance"] = (table["present"] / labelled.where(labelled > 0)).astype(float)
    return table.sort_values(
        ["ap", "present", "species"], ascending=[False, False, True], na_position="last"
    ).reset_index(drop=True)


def keep_most(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Keep the species with the most present boxes, in the given order.

    Parameters
    ----------
    table : one row a species, with ``present``
    most : species at most

    Returns
    -------
    DataFrame
        The kept rows.
    """
    kept = table.sort_values("present", ascending=False, kind="stable").head(most).index
    return table.loc[kept.sort_values()].reset_index(drop=True)


def why_undefined(present: int, absent: int) -> str:
    """Why a species has no average precision.

    Parameters
    ----------
    present, absent : the number of boxes

    Returns
    -------
    str
        The reason in a few words.
    """
    if present == 0 and absent == 0:
        return "no labels"
    if present == 0:
        return "no present labels"
    return "no absent labels" if absent == 0 else "not defined"


def draw_species(report: Report, form: ImageFormat = "svg", most: int = ROWS) -> bytes:
    """Draw the average precision of each species, its 95 % interval and the chance level.

    Parameters
    ----------
    report
        The metrics.
    form
        ``"svg"`` or ``"png"``.
    most
        Species that are drawn: of more species, those with the most present boxes.

    Returns
    -------
    bytes
        The picture, the best species at the top.

    Raises
    ------
    ValueError
        If the report has no species.
    """
    table = keep_most(rank_species(report.per_species), most)
    if table.empty:
        raise ValueError("the report has no species: there is nothing to draw")
    with styled():
        figure = new_figure(0.7 + 0.235 * len(table))
        axes = figure.add_subplot()
        _draw_bars(axes, table)
        _write_columns(axes, table)
        axes.set(xlim=(0, 1), ylim=(len(table) - 0.5, -0.7), xlabel="average precision")
        axes.grid(axis="x", color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        remove_spines(axes, "left")
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
    """Write names, counts and values as columns beside the bars."""
    sideways = axes.get_yaxis_transform()  # x in axes, y in rows
    for row, values in enumerate(table.to_dict("records")):
        ap, present, absent = (values[name] for name in ("ap", "present", "absent"))
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


ACROSS = 4  # panels in a row
CURVE_POINTS = 250  # of a curve at most: more make the file larger, and no visible difference


def draw_curves(report: Report, form: ImageFormat = "svg", most: int = 48) -> bytes:
    """Draw precision against recall, one panel a species, in the order of the bars.

    Parameters
    ----------
    report
        The metrics.
    form
        ``"svg"`` or ``"png"``.
    most
        Panels that are drawn: of more species, those with the most present cells.
        :func:`drawn_curves` names them.

    Returns
    -------
    bytes
        The picture.

    Raises
    ------
    ValueError
        If no species has a curve.
    """
    names = drawn_curves(report, most)
    if not names:
        raise ValueError("no species has a curve: there is nothing to draw")
    table = rank_species(report.per_species)
    rows = {row["species"]: row for row in table.to_dict("records")}
    with styled():
        figure, panels = new_panels(len(names), ACROSS, 1.55, 0.5, sharex=True, sharey=True)
        for axes, name in zip(panels, names, strict=True):
            _draw_curve(axes, name, report.curves[name], rows[name])
        for axes in panels[-ACROSS:]:
            axes.tick_params(labelbottom=True)
        figure.supxlabel("recall", fontsize=8.5, color=MUTED)
        figure.supylabel("precision", fontsize=8.5, color=MUTED)
        return save(figure, form)


def drawn_curves(report: Report, most: int = 48) -> list[str]:
    """The species for which :func:`draw_curves` has a panel, best first.

    Parameters
    ----------
    report : the metrics
    most : panels at most

    Returns
    -------
    list of str
        The names of the species.
    """
    table = rank_species(report.per_species)
    with_curve = [name for name, curve in report.curves.items() if len(curve[0])]
    table = table[table["species"].isin(with_curve)]
    return [str(name) for name in keep_most(table, most)["species"]]


def _draw_curve(axes: Axes, name: str, curve: Curve, row: dict[Hashable, Any]) -> None:
    recall, precision = (np.asarray(part, dtype=float) for part in curve)
    if recall[0] < recall[-1]:  # a precision is valid from its own recall down to the next
        recall, precision = recall[::-1], precision[::-1]
    if len(recall) > CURVE_POINTS:
        kept = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).round().astype(int))
        recall, precision = recall[kept], precision[kept]
    axes.axhline(row["chance"], color=ABSENT, linewidth=1, linestyle=(0, (4, 2)))
    axes.plot(recall, precision, drawstyle="steps-post", color=PRESENT, linewidth=1.5)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.set_title(wrap_name(name, 23), fontsize=7.8, linespacing=1.05)
    value = f"AP {row['ap']:.2f}" if np.isfinite(row["ap"]) else "AP not defined"
    if row["ap"] > 0.6:  # a good curve leaves the lower left free, except for the dashed line
        axes.text(0.05, 0.06 if row["chance"] > 0.3 else 0.4, value, fontsize=8, bbox=PLATE)
    else:
        axes.text(1.0, 1.0, value, fontsize=8, bbox=PLATE, ha="right", va="top")
