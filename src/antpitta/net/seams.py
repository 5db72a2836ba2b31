"""The scores of a recording's images, joined on one grid of the recording's own clock."""

import numpy as np
from numpy.typing import NDArray

from antpitta.core.timegrid import TimeGrid

Floats = NDArray[np.float32]


def score_grid(image: TimeGrid, unit: int) -> TimeGrid:
    """The rows of the scores of one image: ``unit`` frames each, the last perhaps cut short."""
    rows = -(-image.frames // unit)
    return TimeGrid(hop=image.hop * unit, frames=rows, start=image.start)


def join(parts: list[Floats], grids: list[TimeGrid], unit: int) -> tuple[Floats, TimeGrid]:
    """The scores of a recording's images, laid on one grid.

    Every row goes where its middle lies, and the higher wins where two meet at a seam; rows at
    a seam are at most half a row away from where they were heard. An image's rows can be a
    little longer than the grid's and leave one of them out: it takes what was heard in its own
    middle, because a 0 there would cut an event in two.
    """
    hop = grids[0].hop * unit
    rows = max(-int(-(grids[-1].end - 1e-9) // hop), 1)
    whole = np.zeros((rows, parts[0].shape[1]), dtype=np.float32)
    empty = np.ones(rows, dtype=bool)
    starts = []
    for part, image in zip(parts, grids, strict=True):
        grid = score_grid(image, unit)
        start = grid.start + np.arange(len(part)) * grid.hop
        middle = (start + np.minimum(start + grid.hop, image.end)) / 2
        place = np.minimum((middle / hop + 1e-9).astype(np.int64), rows - 1)
        np.maximum.at(whole, place, part)
        empty[place] = False
        starts.append(start)
    middles = (np.flatnonzero(empty) + 0.5) * hop
    holder = np.searchsorted(np.concatenate(starts), middles, side="right") - 1
    whole[empty] = np.concatenate(parts)[holder]
    return whole, TimeGrid(hop=hop, frames=rows)
