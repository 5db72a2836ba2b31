"""What supervises what: for how many frames of each recording somebody judged each species.

Frames are counted through the same rasteriser that learning uses, so the figures are those of
the loss. They are drawn a recording and a few classes at a time, up to the last statement only: an
archive of hours holds minutes that anybody judged.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import EVERY_CLASS, Annotation, Classes, Dataset
from antpitta.sound.targets import frame_targets

_CELLS = 1 << 21  # frames x classes drawn at once: 16 MB and as much again to count
Counts = NDArray[np.int64]  # (recordings, classes)


@dataclass(frozen=True)
class Supervision:
    """Frames present, absent and unknown; in each cell the three add up to all frames."""

    classes: Classes
    recordings: tuple[str, ...]
    present: Counts
    absent: Counts
    unknown: Counts


def count_supervision_frames(dataset: Dataset, hop: float) -> Supervision:
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
    """Present and known frames of the columns that anybody spoke of, a few columns at once."""
    said = [one for one in said if one.start < grid.end]
    labels = {one.label for one in said}
    spoken = [i for i, name in enumerate(classes.names) if labels & {name, EVERY_CLASS}]
    if not spoken:
        return
    # The grid begins where the recording does: edges then fall as they do in learning, which
    # they would not, to the last bit, on the clock of a later piece.
    last = math.ceil(min(max(one.stop for one in said), grid.end) / grid.hop) + 1
    part = TimeGrid(grid.hop, min(grid.frames, last))
    few = max(1, _CELLS // part.frames)
    for columns in (spoken[at : at + few] for at in range(0, len(spoken), few)):
        drawn = frame_targets(said, part, Classes(tuple(classes.names[i] for i in columns)))
        known = drawn.weight > 0
        yield columns, (known & (drawn.value > 0.5)).sum(axis=0), known.sum(axis=0)
