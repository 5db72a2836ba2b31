"""Paper and ink: the colours, the type and the way a picture becomes bytes.

- Pictures are matplotlib figures made without pyplot: no window opens, no figure outlives its
  call, and the user's own matplotlib settings are put back afterwards.
- The colours are Okabe and Ito's, which the colour-blind can tell apart, and "both" is darker
  than either so that a grey print still reads.
- The paper is white, not transparent: the same bytes serve a dark page and a printer.
- SVG text is drawn as outlines, so that nothing moves where DejaVu is not installed; what a
  picture says stands in a table of the page as well.
- The same input gives the same bytes: no date, no random ids.

Numbers as text.

One place decides how a figure is written, so that page, card and picture cannot disagree:
three decimals, the interval beside it, and a dash for what is not defined. A figure without an
interval says so by having none; it is never given one of width 0.
"""

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
ROWS = 120  # the most species of one picture: more cannot be taken in, and make it huge
PIXELATED = b"image-rendering:crisp-edges;image-rendering:pixelated"
WIDTH = 7.6  # inches: the text column of the page, and of a printed sheet

NONE = "\N{EN DASH}"  # stands where a number would, if it were defined
# Behind a text that stands on lines.
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
    "text.parse_math": False,  # a species named "$x$" is not a formula
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.color": RULE,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}


@contextmanager
def styled() -> Iterator[None]:
    """Figures made and saved inside look alike, whatever the user's own matplotlibrc."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """A sheet of that many inches, whose parts make room for one another."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, form: ImageFormat) -> bytes:
    """The picture's bytes, grown where a text would be cut."""
    buffer = BytesIO()
    nameless = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    figure.savefig(
        buffer, format=form, dpi=160, metadata=nameless, bbox_inches="tight", pad_inches=0.06
    )
    # A browser that shrinks a "pixelated" picture drops whole columns, and with them the one
    # recording where somebody heard something.
    return buffer.getvalue().replace(PIXELATED, b"")


def shorten(name: str, most: int = 38) -> str:
    """A name that fits, with its middle left out: genus and epithet both stay readable."""
    name = _printable(name)
    if len(name) <= most:
        return name
    head = (most - 1) * 2 // 3
    return f"{name[:head].rstrip()}…{name[len(name) - (most - 1 - head) :].lstrip()}"


def fold(name: str, width: int, lines: int = 2) -> str:
    """A name on at most that many lines."""
    pieces = wrap(_printable(name), width) or [""]
    return "\n".join([*pieces[: lines - 1], shorten(" ".join(pieces[lines - 1 :]), width)]).strip()


def _printable(text: str) -> str:
    # A control character or half a surrogate would make the SVG one that no browser reads.
    return "".join(
        c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def bare(axes: Axes, *sides: Literal["left", "right", "bottom"]) -> None:
    """Take away the lines and tick marks of those sides; their labels stay."""
    for side in sides:
        axes.spines[side].set_visible(False)
    if "left" in sides:
        axes.tick_params(axis="y", length=0)
    if "bottom" in sides:
        axes.tick_params(axis="x", length=0)


@dataclass(frozen=True)
class FormattedFigure:
    """One number as it is printed; ``interval`` is empty where there is none."""

    value: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.interval})" if self.interval else self.value


def format_number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else NONE


def format_count(count: float) -> str:
    return f"{count:,.0f}" if np.isfinite(count) else NONE


def count_nouns(count: int, one: str, many: str) -> str:
    """``1 recording``, ``4,000 recordings``."""
    return f"{count:,} {one if count == 1 else many}"


def format_share(share: float) -> str:
    """A share as a percentage; a share that is not 0 or 1 is never rounded to it."""
    if not np.isfinite(share):
        return NONE
    percent = 100 * share
    if 0 < percent < 0.01:
        return "< 0.01 %"
    if 99.99 < percent < 100:
        return "> 99.99 %"
    return f"{percent:.2f} %"


def format_interval(value: float, low: float, high: float) -> FormattedFigure:
    if not np.isfinite(value):
        return FormattedFigure(NONE)
    ends = f"{low:.3f} to {high:.3f}" if np.isfinite(low) and np.isfinite(high) else ""
    return FormattedFigure(f"{value:.3f}", ends)
