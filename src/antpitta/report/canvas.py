"""How pictures and numbers look: colours, type, files, and numbers as text.

- Pictures are matplotlib figures made without pyplot: no window opens, no figure stays open, and
  the user's own matplotlib settings are restored.
- The colours are Okabe and Ito's, which colour-blind people can distinguish. "both" is darker than
  either, so that a grey print is still readable.
- The background is white, not transparent: the same bytes serve a dark page and a printer.
- SVG text is drawn as outlines, so that nothing moves where DejaVu is not installed. A table of
  the page has the same values as text.
- The same input gives the same bytes: no date, no random ids.
- Page, card and picture format numbers here: three decimals, the interval beside it, a dash for
  an undefined value. A value without an interval has none; it never gets one of width 0.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from textwrap import wrap
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ImageFormat = Literal["svg", "png"]

INK = "#22272e"
MUTED = "#59626d"
RULE = "#c6ccd4"
PRESENT = "#0072b2"
PRESENT_PALE = "#8fc1e0"
ABSENT = "#d55e00"
BOTH = "#33204d"
UNKNOWN = "#e6e9ee"
ROWS = 120  # species of one picture at most: more are not readable, and make the file huge
PIXELATED = b"image-rendering:crisp-edges;image-rendering:pixelated"
WIDTH = 7.6  # inches: the text column of the page, and of a printed sheet

NONE = "\N{EN DASH}"  # in place of a number that is undefined
# The background of a text that crosses lines.
PLATE: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0}

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "figure.constrained_layout.wspace": 0.05,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "axes.titlesize": 8.5,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "antpitta",
    "text.color": INK,
    "text.parse_math": False,  # a species named "$x$" is no formula
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.color": RULE,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}


@contextmanager
def styled() -> Iterator[None]:
    """Make and save figures inside this context in one style, whatever the user's matplotlibrc."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """A figure of that size in inches, whose parts make room for one another.

    Parameters
    ----------
    height, width : inches

    Returns
    -------
    Figure
        An empty figure.
    """
    return Figure(figsize=(width, height), layout="constrained")


def new_panels(
    count: int,
    across: int,
    height: float,
    margin: float,
    *,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, row by row.

    Parameters
    ----------
    count : of panels
    across : panels in a row, at most
    height : of a row, inches
    margin : height of what stands above and below all rows, inches
    sharex, sharey : as for :meth:`matplotlib.figure.Figure.subplots`

    Returns
    -------
    figure : as of :func:`new_figure`
    panels : (count,)
    """
    columns = min(across, count)
    rows = -(-count // columns)
    figure = new_figure(margin + height * rows, width=WIDTH * max(columns, 2) / across)
    grid = figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False)
    panels: list[Axes] = grid.flatten().tolist()
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels[:count]


def save(figure: Figure, form: ImageFormat) -> bytes:
    """The bytes of a picture, enlarged if a text would be cut off.

    Parameters
    ----------
    figure : a figure made inside :func:`styled`
    form : ``"svg"`` or ``"png"``

    Returns
    -------
    bytes
        The content of the file.
    """
    buffer = BytesIO()
    metadata = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    with warnings.catch_warnings():
        # A character that the font lacks, such as an emoji, is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(
            buffer, format=form, dpi=160, metadata=metadata, bbox_inches="tight", pad_inches=0.06
        )
    # A browser that shrinks a "pixelated" picture drops whole columns, and with them the only
    # recording in which a species is present.
    return buffer.getvalue().replace(PIXELATED, b"")


def shorten(name: str, most: int = 38) -> str:
    """A name of at most ``most`` characters: the middle goes, genus and epithet stay readable.

    Parameters
    ----------
    name : any text
    most : characters at most

    Returns
    -------
    str
        The name, without control characters.
    """
    name = _printable(name)
    if len(name) <= most:
        return name
    head = (most - 1) * 2 // 3
    return f"{name[:head].rstrip()}…{name[len(name) - (most - 1 - head) :].lstrip()}"


def wrap_name(name: str, width: int, lines: int = 2) -> str:
    """A name on at most ``lines`` lines of ``width`` characters.

    Parameters
    ----------
    name : any text
    width : characters of a line
    lines : lines at most

    Returns
    -------
    str
        The name with line breaks.
    """
    pieces = wrap(_printable(name), width) or [""]
    return "\n".join([*pieces[: lines - 1], shorten(" ".join(pieces[lines - 1 :]), width)]).strip()


def _printable(text: str) -> str:
    # No browser reads an SVG with a control character or half a surrogate pair.
    return "".join(
        c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def remove_spines(axes: Axes, *sides: Literal["left", "right", "bottom"]) -> None:
    """Remove the lines and tick marks of some sides; their labels stay.

    Parameters
    ----------
    axes : the axes to change
    *sides : which sides
    """
    for side in sides:
        axes.spines[side].set_visible(False)
    if "left" in sides:
        axes.tick_params(axis="y", length=0)
    if "bottom" in sides:
        axes.tick_params(axis="x", length=0)


@dataclass(frozen=True)
class FormattedNumber:
    """A number as text; ``interval`` is empty if there is none."""

    value: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.interval})" if self.interval else self.value


def format_number(value: float, digits: int = 3) -> str:
    """A number with fixed decimals; a dash if it is undefined.

    Parameters
    ----------
    value : any number
    digits : decimals

    Returns
    -------
    str
        The number as text.
    """
    return f"{value:.{digits}f}" if np.isfinite(value) else NONE


def format_count(count: float) -> str:
    """A whole number with thousands separators; a dash if it is undefined.

    Parameters
    ----------
    count : a whole number, or NaN

    Returns
    -------
    str
        The number as text.
    """
    return f"{count:,.0f}" if np.isfinite(count) else NONE


def count_nouns(count: int, singular: str, plural: str) -> str:
    """A count with its noun: ``1 recording``, ``4,000 recordings``.

    Parameters
    ----------
    count : how many
    singular, plural : the noun for one, and for several

    Returns
    -------
    str
        The count and the noun.
    """
    return f"{count:,} {singular if count == 1 else plural}"


def format_share(share: float) -> str:
    """A share as a percentage; it is never rounded to 0 or 100 %.

    Parameters
    ----------
    share : between 0 and 1, or NaN

    Returns
    -------
    str
        The percentage as text.
    """
    if not np.isfinite(share):
        return NONE
    percent = 100 * share
    if 0 < percent < 0.01:
        return "< 0.01 %"
    if 99.99 < percent < 100:
        return "> 99.99 %"
    return f"{percent:.2f} %"


def format_interval(value: float, low: float, high: float) -> FormattedNumber:
    """A number with its interval, if both are defined.

    Parameters
    ----------
    value, low, high : a number and the ends of its interval; NaN if undefined

    Returns
    -------
    FormattedNumber
        Number and interval as text.
    """
    if not np.isfinite(value):
        return FormattedNumber(NONE)
    ends = f"{low:.3f} to {high:.3f}" if np.isfinite(low) and np.isfinite(high) else ""
    return FormattedNumber(f"{value:.3f}", ends)
