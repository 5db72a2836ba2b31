"""Numbers as text.

One place decides how a figure is written, so that page, card and picture cannot disagree:
three decimals, the interval beside it, and a dash for what is not defined. A figure without an
interval says so by having none; it is never given one of width 0.
"""

from dataclasses import dataclass

import numpy as np

from antpitta.report.canvas import NONE


@dataclass(frozen=True)
class Figure:
    """One number as it is printed; ``interval`` is empty where there is none."""

    value: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.interval})" if self.interval else self.value


def write_number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else NONE


def write_count(count: float) -> str:
    return f"{count:,.0f}" if np.isfinite(count) else NONE


def count_nouns(count: int, one: str, many: str) -> str:
    """``1 recording``, ``4,000 recordings``."""
    return f"{count:,} {one if count == 1 else many}"


def write_share(share: float) -> str:
    """A share as a percentage; a share that is not 0 or 1 is never rounded to it."""
    if not np.isfinite(share):
        return NONE
    percent = 100 * share
    if 0 < percent < 0.01:
        return "< 0.01 %"
    if 99.99 < percent < 100:
        return "> 99.99 %"
    return f"{percent:.2f} %"


def write_interval(value: float, low: float, high: float) -> Figure:
    if not np.isfinite(value):
        return Figure(NONE)
    ends = f"{low:.3f} to {high:.3f}" if np.isfinite(low) and np.isfinite(high) else ""
    return Figure(f"{value:.3f}", ends)
