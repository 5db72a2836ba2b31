"""The learning curve: average precision over rounds of review, the mean and each species.

Every point is on the same verdicts, those of the last round, so that a rising line is a better
model and not an easier question. Below each round stands the number of boxes that its model was
trained on.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from antpitta.report.canvas import (
    ABSENT,
    MUTED,
    PRESENT,
    PRESENT_PALE,
    RULE,
    FormattedNumber,
    ImageFormat,
    format_count,
    format_interval,
    new_panels,
    save,
    styled,
    wrap_name,
)
from antpitta.report.results import LearningCurve
from antpitta.scores.learning_curve import MEAN

PANELS = 47  # species in a picture, besides their mean
ACROSS = 4
ALL = "all species, mean"


@dataclass(frozen=True)
class RoundRow:
    """One round in the table of the page."""

    number: int
    run: str
    verdicts: str  # all, audit
    trained: str  # present and absent boxes
    judged: str  # present and absent verdicts
    ap: FormattedNumber


def draw_learning_curve(table: pd.DataFrame, form: ImageFormat = "svg") -> bytes:
    """Draw the average precision of each species over rounds, and their mean first.

    Parameters
    ----------
    table
        The curve on all verdicts, as :func:`antpitta.scores.learning_curve.learning_curve` makes
        it.
    form
        ``"svg"`` or ``"png"``.

    Returns
    -------
    bytes
        The picture.

    Raises
    ------
    ValueError
        If the table is empty.
    """
    if table.empty:
        raise ValueError("there is no round to draw")
    names = [MEAN, *drawn_species(table)]
    with styled():
        figure, panels = new_panels(len(names), ACROSS, 1.75, 0.5, sharey=True)
        for axes, name in zip(panels, names, strict=True):
            _draw_species(axes, table[table["species"] == name], name)
        figure.supxlabel("round, and the number of present boxes in its training", fontsize=8.5,
                         color=MUTED)  # fmt: skip
        figure.supylabel("average precision", fontsize=8.5, color=MUTED)
        return save(figure, form)


def drawn_species(table: pd.DataFrame) -> list[str]:
    """The species that have a panel: those with a curve, the ones with most verdicts first.

    Parameters
    ----------
    table : the curve on all verdicts

    Returns
    -------
    list of str
        The names.
    """
    last = table[(table["round"] == table["round"].max()) & (table["species"] != MEAN)]
    last = last[np.isfinite(last["ap"].to_numpy(float))]
    count = last["present"] + last["absent"]
    order = last.assign(count=count).sort_values(["count", "species"], ascending=[False, True])
    return [str(name) for name in order["species"].head(PANELS)]


def _draw_species(axes: Axes, rows: pd.DataFrame, name: str) -> None:
    rounds = rows["round"].to_numpy(float)
    ap, low, high = (rows[column].to_numpy(float) for column in ("ap", "ap_low", "ap_high"))
    axes.fill_between(rounds, low, high, color=PRESENT_PALE, alpha=0.45, linewidth=0)
    axes.plot(rounds, ap, "o-", color=PRESENT, linewidth=1.6, markersize=3.8)
    last = rows.iloc[-1]
    if name != MEAN:
        chance = float(last["present"] / max(last["present"] + last["absent"], 1))
        axes.axhline(chance, color=ABSENT, linewidth=1, linestyle=(0, (4, 2)))
    labels = [
        f"{number:.0f}\n{trained:,}"
        for number, trained in zip(rounds, rows["trained_present"], strict=True)
    ]
    axes.set(xlim=(rounds.min() - 0.4, rounds.max() + 0.4), ylim=(0, 1.04), yticks=(0, 0.5, 1))
    every = -(-len(rounds) // 6)
    axes.set_xticks(rounds[::every], labels[::every], fontsize=7)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    title = ALL if name == MEAN else wrap_name(name, 23)
    axes.set_title(title, fontsize=7.8, fontweight="bold" if name == MEAN else "normal")


def list_rounds(curve: LearningCurve) -> list[RoundRow]:
    """One row a round and kind of verdicts.

    Parameters
    ----------
    curve : of a run

    Returns
    -------
    list of RoundRow
        The rounds on all verdicts, then those on audits.
    """
    rows = curve.table[curve.table["species"] == MEAN]
    return [
        RoundRow(
            int(row["round"]),
            str(row["run"]),
            str(row["verdicts"]),
            _pair(row["trained_present"], row["trained_absent"]),
            _pair(row["present"], row["absent"]),
            format_interval(row["ap"], row["ap_low"], row["ap_high"]),
        )
        for row in rows.to_dict("records")
    ]


def _pair(present: float, absent: float) -> str:
    return f"{format_count(present)} / {format_count(absent)}"
