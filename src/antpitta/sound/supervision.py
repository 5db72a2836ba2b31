"""What supervises what: for how many frames of each recording somebody judged each species.

Frames are counted through the same rasteriser that learning uses, so the figures are those of
the loss. It is drawn a piece at a time and only where a statement lies: an archive of hours holds
minutes that anybody judged.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import EVERY_CLASS, Annotation, Classes, Dataset
from antpitta.sound.targets import rasterise

_CELLS = 1 << 21  # frames x classes drawn at once: 16 MB
Counts = NDArray[np.int64]  # (recordings, classes)


@dataclass(frozen=True)
class Supervision:
    """Frames present, absent and unknown; in each cell the three add up to all frames."""

    classes: Classes
    recordings: tuple[str, ...]
    present: Counts
    absent: Counts
    unknown: Counts


def supervision(dataset: Dataset, hop: float) -> Supervision:
    """Count the frames of ``hop`` seconds; a frame that the recording ends in counts whole."""
    classes = dataset.classes
    spoken: dict[str, list[Annotation]] = defaultdict(list)
    for said in dataset.annotations:
        spoken[said.recording].append(said)
    shape = (len(dataset.recordings), len(classes))
    present, absent = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    frames = np.zeros((shape[0], 1), dtype=np.int64)
    for row, recording in enumerate(dataset.recordings):
        frames[row] = max(1, math.ceil(recording.duration / hop - 1e-6))
        grid = TimeGrid(hop, int(frames[row, 0]))
        for columns, there, known in _count(spoken[recording.id], grid, classes):
            present[row, columns] += there
            absent[row, columns] += known - there
    names = tuple(recording.id for recording in dataset.recordings)
    return Supervision(classes, names, present, absent, frames - present - absent)


def _count(
    said: Sequence[Annotation], grid: TimeGrid, classes: Classes
) -> Iterator[tuple[list[int], Counts, Counts]]:
    """Present and known frames, piece by piece, of the columns that anybody spoke of."""
    said = [one for one in said if classes.columns(one.label) and one.start < grid.end]
    if not said:
        return
    labels = {one.label for one in said}
    columns = [i for i, name in enumerate(classes.names) if labels & {name, EVERY_CLASS}]
    chosen = Classes(tuple(classes.names[i] for i in columns))
    for piece in _pieces(said, grid, max(1, _CELLS // len(columns))):
        near = [one for one in said if one.start < piece.end and one.stop > piece.start]
        drawn = rasterise(near, piece, chosen)
        known = drawn.weight > 0
        yield columns, (known & (drawn.value > 0.5)).sum(axis=0), known.sum(axis=0)


def _pieces(said: Sequence[Annotation], grid: TimeGrid, longest: int) -> Iterator[TimeGrid]:
    """The parts of the grid that statements lie in, whole frames, none longer than that."""
    end = 0  # the first frame that no piece holds yet
    for one in sorted(said, key=lambda one: one.start):
        # One frame of margin: a box without a frame's centre falls into the frame beside.
        first = max(end, math.floor(one.start / grid.hop) - 1)
        last = min(grid.frames, math.ceil(min(one.stop, grid.end) / grid.hop) + 1)
        for at in range(first, last, longest):
            yield TimeGrid(grid.hop, min(longest, last - at), grid.seconds(at))
        end = max(end, last)
