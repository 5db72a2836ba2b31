"""Annotations in, frame targets out."""

from collections.abc import Iterable, Sequence

import numpy as np

from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Classes, Targets


def rasterise(annotations: Iterable[Annotation], grid: TimeGrid, classes: Classes) -> Targets:
    """Draw the listeners' statements on a grid; all else stays unknown.

    Where two statements meet, "present" wins: a listener who marked a call inside a
    stretch marked as silent heard the call. Labels that are not among ``classes`` are
    passed over, and so is what lies outside the grid.
    """
    shape = (grid.frames, len(classes))
    value = np.zeros(shape, dtype=np.float32)
    weight = np.zeros(shape, dtype=np.float32)
    for said in sorted(annotations, key=lambda said: said.present):  # later writes win
        rows = grid.rows(said.start, said.stop)
        for column in classes.columns(said.label):
            value[rows, column] = said.present
            weight[rows, column] = 1.0
    return Targets(value, weight)


def window_targets(
    annotations: Iterable[Annotation],
    grid: TimeGrid,
    starts: Sequence[int],
    frames: int,
    classes: Classes,
) -> Targets:
    """What listeners said of each window of one image: both arrays are (windows, classes).

    A cell is known where a box touches the window (frames of the box counted by
    :meth:`TimeGrid.touched`, both half-open); present wins where both do.
    """
    value = np.zeros((len(starts), len(classes)), dtype=np.float32)
    weight = np.zeros_like(value)
    first = np.asarray(starts)
    for said in sorted(annotations, key=lambda said: said.present):  # later writes win
        rows = grid.touched(said.start, said.stop)
        if rows.start >= rows.stop:
            continue
        hit = (rows.start < first + frames) & (rows.stop > first)
        for column in classes.columns(said.label):
            value[hit, column] = said.present
            weight[hit, column] = 1.0
    return Targets(value, weight)
