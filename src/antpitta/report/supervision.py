"""The picture of the labels: which recordings are labelled for which species, and how much of them.

- Species are sorted by their number of present recordings. Recordings are sorted so that those
  labelled for the same species are neighbours: the order in time has no meaning for labels, and
  an unsorted archive of thousands would look like dust.
- A picture is a few hundred columns wide at most. A column that stands for several recordings
  shows their most frequent label, and "unknown" only if all of them are unknown: one box among
  four thousand recordings must stay visible. The table has the exact counts.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from antpitta.report.canvas import (
    ABSENT,
    BOTH,
    INK,
    MUTED,
    NONE,
    PRESENT,
    ROWS,
    RULE,
    UNKNOWN,
    ImageFormat,
    new_figure,
    remove_spines,
    save,
    shorten,
    styled,
)
from antpitta.sound.targets import Supervision

STATES = ("unknown", "absent", "present", "both")  # a cell's number is its place here
COLOURS = (UNKNOWN, ABSENT, PRESENT, BOTH)
COLUMNS = 300  # of the picture at most
ROW_PIXELS = 12  # a browser smooths the edges between cells, so that rows are this high


def label_states(supervision: Supervision) -> np.ndarray:
    """The state of each cell (recordings, species), as an index into ``STATES``.

    Parameters
    ----------
    supervision : labelled frames of each recording and species

    Returns
    -------
    ndarray
        (recordings, species)
    """
    present, absent = np.asarray(supervision.present), np.asarray(supervision.absent)
    return ((absent > 0) + 2 * (present > 0)).astype(np.int8)


def count_supervision(supervision: Supervision) -> pd.DataFrame:
    """Count the labels of each species.

    Parameters
    ----------
    supervision
        Labelled frames of each recording and species.

    Returns
    -------
    DataFrame
        One row a species, the one present in the most recordings first: ``species``, the number
        of recordings in each of ``STATES``, and ``present_share``, ``absent_share`` and
        ``unknown_share`` of all frames (NaN without any frame).
    """
    cells = label_states(supervision)
    table = pd.DataFrame({"species": list(supervision.classes.names)})
    for number, state in enumerate(STATES):
        table[state] = (cells == number).sum(axis=0)
    frames = {
        name: np.asarray(getattr(supervision, name)).sum(axis=0, dtype=float)
        for name in ("present", "absent", "unknown")
    }
    total = sum(frames.values())
    for name, count in frames.items():
        share = np.full(len(table), np.nan)
        table[f"{name}_share"] = np.divide(count, total, out=share, where=total > 0)
    order = np.lexsort((-table["absent"], -(table["present"] + table["both"])))
    return table.iloc[order].reset_index(drop=True)


def draw_supervision(
    supervision: Supervision, form: ImageFormat = "svg", most: int = ROWS
) -> bytes:
    """Draw the labels: species x recordings on the left, the shares of frames on the right.

    Parameters
    ----------
    supervision
        Labelled frames of each recording and species.
    form
        ``"svg"`` or ``"png"``.
    most
        Species that are drawn: of more species, those present in the most recordings.

    Returns
    -------
    bytes
        The picture.

    Raises
    ------
    ValueError
        If there is no species or no recording.
    """
    table = count_supervision(supervision).head(most)
    if table.empty or not len(supervision.recordings):
        raise ValueError("no species or no recordings: there is nothing to draw")
    names = list(supervision.classes.names)
    rows = [names.index(name) for name in table["species"]]
    cells = label_states(supervision)[:, rows]  # (recordings, species), as drawn
    with styled():
        figure = new_figure(0.95 + 0.225 * len(rows))
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3.0, 1.25))
        _draw_cells(left, cells)
        _draw_shares(right, table)
        left.set_yticks(range(len(rows)), [shorten(name, 34) for name in table["species"]])
        left.set_ylim(len(rows) - 0.5, -0.5)
        return save(figure, form)


def sort_recordings(cells: np.ndarray) -> np.ndarray:
    """The order in which recordings labelled for the same species are neighbours.

    First come recordings with a present species, by the first of them; then those with absent
    species only, likewise; last those without labels.

    Parameters
    ----------
    cells
        (recordings, species), indices into ``STATES``.

    Returns
    -------
    ndarray
        (recordings,), the indices of the sorted recordings.
    """
    species = cells.shape[1]
    present, labelled = cells >= 2, cells > 0
    first_present = np.where(present.any(axis=1), present.argmax(axis=1), species)
    first_labelled = np.where(labelled.any(axis=1), labelled.argmax(axis=1), species)
    return np.lexsort((-labelled.sum(axis=1), first_labelled, first_present))


def merge_columns(cells: np.ndarray, most: int = COLUMNS) -> tuple[np.ndarray, int]:
    """Merge neighbouring recordings into at most ``most`` columns.

    The most frequent label wins; of equally frequent ones "both" before "present" before "absent".

    Parameters
    ----------
    cells
        (recordings, species), indices into ``STATES``.
    most
        Columns at most.

    Returns
    -------
    columns : (columns, species)
        Indices into ``STATES``.
    size : int
        Recordings of a column.
    """
    size = max(1, -(-len(cells) // most))
    merged = []
    for start in range(0, len(cells), size):
        block = cells[start : start + size]
        votes = np.stack([(block == state).sum(axis=0) for state in (3, 2, 1)])
        merged.append(np.where(votes.any(axis=0), 3 - votes.argmax(axis=0), 0))
    return np.array(merged, dtype=np.int8), size


def _draw_cells(axes: Axes, cells: np.ndarray) -> None:
    columns, size = merge_columns(cells[sort_recordings(cells)])
    palette = np.array([to_rgb(colour) for colour in COLOURS])
    count, species = cells.shape
    pixels = np.repeat(columns.T, ROW_PIXELS, axis=0)
    pixels = np.repeat(pixels, -(-2 * COLUMNS // len(columns)), axis=1)
    axes.imshow(
        palette[pixels],
        aspect="auto",
        interpolation="none",
        extent=(0, count, species - 0.5, -0.5),
    )
    for row in range(1, species):
        axes.axhline(row - 0.5, color="white", linewidth=1.4)
    remove_spines(axes, "left", "bottom")
    axes.set_xlabel("recordings, sorted" + ("" if size == 1 else f" (one column: {size})"))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    shown = [(COLOURS[i], STATES[i]) for i in (2, 1, 3, 0)]
    for left, (colour, state) in zip((0.0, 0.23, 0.43, 0.57), shown, strict=True):
        axes.annotate(
            f"■ {state}",
            (left, 1),
            xycoords="axes fraction",
            xytext=(0, 5),
            textcoords="offset points",
            color="#8a93a0" if state == "unknown" else colour,
            fontsize=8,
        )


def _draw_shares(axes: Axes, table: pd.DataFrame) -> None:
    rows = np.arange(len(table))
    present = 100 * table["present_share"].to_numpy(float)
    absent = 100 * table["absent_share"].to_numpy(float)
    axes.barh(rows - 0.19, np.nan_to_num(present), height=0.34, color=PRESENT)
    axes.barh(rows + 0.19, np.nan_to_num(absent), height=0.34, color=ABSENT)
    widest = float(np.nanmax([*present, *absent, 0.0])) or 1.0
    axes.set_xlim(0, widest * 1.04)
    for row, share in enumerate(100 * table["unknown_share"].to_numpy(float)):
        text = NONE if np.isnan(share) else f"{share:.2f} %" if share > 99 else f"{share:.1f} %"
        axes.text(1.36, row, text, transform=axes.get_yaxis_transform(), ha="right", va="center",
                  fontsize=8, color=INK)  # fmt: skip
    axes.annotate("unknown", (1.36, 1), xycoords="axes fraction", xytext=(0, 5),
                  textcoords="offset points", ha="right", fontsize=8, color=MUTED)  # fmt: skip
    axes.set_xlabel("labelled, % of frames")
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    remove_spines(axes, "left")
