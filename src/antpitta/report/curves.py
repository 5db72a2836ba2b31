"""Precision against recall, a panel a species; all share their axes."""

from collections.abc import Hashable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from antpitta.report.canvas import (
    ABSENT,
    MUTED,
    PLATE,
    PRESENT,
    WIDTH,
    Form,
    fold,
    new_figure,
    save,
    styled,
)
from antpitta.report.ranking import keep_most, rank_species
from antpitta.scores.curves import Curve
from antpitta.scores.evaluate import Report

CURVE_POINTS = 250  # a curve of more is thinned: the eye sees no difference, the file does


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
