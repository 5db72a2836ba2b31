"""Annotations in, frame targets out.

Crops around boxes: where they may lie and what the boxes say there, worked out once.

An epoch then draws all of its crops at once: one of each recording with presents, and of some
that have absents only.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.core.stages import Stage
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Classes, Targets


def frame_targets(annotations: Iterable[Annotation], grid: TimeGrid, classes: Classes) -> Targets:
    """Draw the listeners' statements on a grid; all else stays unknown.

    Where two statements meet, "present" wins: a listener who marked a call inside a
    stretch marked as silent heard the call. Labels that are not among ``classes`` are
    passed over, and so is what lies outside the grid.
    """
    shape = (grid.frames, len(classes))
    value = np.zeros(shape, dtype=np.float32)
    weight = np.zeros(shape, dtype=np.float32)
    for said in sorted(annotations, key=lambda said: said.present):  # later writes win
        rows = grid.frames_by_centre(said.start, said.stop)
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
        rows = grid.overlapping_frames(said.start, said.stop)
        if rows.start >= rows.stop:
            continue
        hit = (rows.start < first + frames) & (rows.stop > first)
        for column in classes.columns(said.label):
            value[hit, column] = said.present
            weight[hit, column] = 1.0
    return Targets(value, weight)


Ints = NDArray[np.int64]


@dataclass(frozen=True)
class CropCenters:
    """Of each recording and copy, the middles of its present boxes; of its absent ones, where it
    has no other.
    """

    edges: Ints  # (recordings + 1,), where each one's begin among all
    image: Ints  # (spots,)
    middle: Ints  # (spots,), a frame of that image
    present: NDArray[np.bool_]  # (recordings,), whether it has present boxes

    def draw(
        self, stage: Stage, train: Ints, frames: int, lengths: Ints, rng: np.random.Generator
    ) -> tuple[Ints, Ints]:
        """The images and first frames of an epoch's crops: each around a random box of its
        recording, moved to a random side, and back inside its image, so that the box is seldom cut.
        """
        counts = np.diff(self.edges)
        with_present = train[self.present[train]]
        without = train[(counts[train] > 0) & ~self.present[train]]
        drawn = rng.permutation(without)[: stage.absent_crops]
        order = rng.permutation(np.concatenate([with_present, drawn]))
        first, count = self.edges[order], counts[order]
        spot = first + rng.integers(0, count) if len(order) else first
        image, middle = self.image[spot], self.middle[spot]
        if stage.crop_shifts:
            side = 2 * rng.integers(0, 2, len(spot)) - 1
            middle = middle + side * rng.choice(np.array(stage.crop_shifts), len(spot))
        last = np.maximum(0, lengths[image] - frames)
        return image, np.clip(middle - frames // 2, 0, last)


@dataclass(frozen=True)
class BoxFrames:
    """The frames that boxes touch, image by image; an image's presents come last."""

    edges: Ints  # (images + 1,), where each one's begin among all
    start: Ints  # (spans,), a frame of that image
    stop: Ints
    column: Ints  # the class
    present: NDArray[np.bool_]

    def tell(self, image: Ints, first: Ints, frames: int, classes: int) -> Targets:
        """What is known of some windows, as sound/targets.py draws it: present wins."""
        count = np.diff(self.edges)[image]
        row = np.repeat(np.arange(len(image)), count)
        before = np.repeat(np.cumsum(count) - count, count)
        span = np.repeat(self.edges[image], count) + np.arange(len(row)) - before
        touched = (self.start[span] < first[row] + frames) & (self.stop[span] > first[row])
        row, span = row[touched], span[touched]
        value = np.zeros((len(image), classes), dtype=np.float32)
        weight = np.zeros_like(value)
        weight[row, self.column[span]] = 1.0
        value[row, self.column[span]] = self.present[span]  # later writes win
        return Targets(value, weight)


def find_crop_centers(
    boxes: Sequence[Sequence[Annotation]], owner: Ints, grids: Sequence[TimeGrid]
) -> CropCenters:
    """``boxes`` are by recording, the others by image; a recording's images lie side by side."""
    edges, image, middle = [0], [], []
    begins = np.searchsorted(owner, np.arange(len(boxes) + 1))
    for mine, begin, end in zip(boxes, begins, begins[1:], strict=False):
        starts = [grid.start for grid in grids[begin:end]]
        for box in [box for box in mine if box.present] or mine:
            last = grids[end - 1].end
            where = (min(box.start, last) + min(box.stop, last)) / 2
            at = int(begin) + bisect_right(starts, where) - 1
            image.append(at)
            middle.append(int((where - grids[at].start) / grids[at].hop))
        edges.append(len(image))
    present = np.array([any(box.present for box in mine) for mine in boxes], dtype=bool)
    places = [np.array(one, dtype=np.int64) for one in (edges, image, middle)]
    return CropCenters(places[0], places[1], places[2], present)


def find_box_frames(
    boxes: Sequence[Sequence[Annotation]], grids: Sequence[TimeGrid], classes: Classes
) -> BoxFrames:
    """``boxes`` and ``grids`` are by image."""
    edges, found = [0], []
    for mine, grid in zip(boxes, grids, strict=True):
        for said in sorted(mine, key=lambda said: said.present):
            rows = grid.overlapping_frames(said.start, said.stop)
            if rows.start < rows.stop:
                columns = classes.columns(said.label)
                found += [(rows.start, rows.stop, column, said.present) for column in columns]
        edges.append(len(found))
    start, stop, column, present = np.array(found, dtype=np.int64).reshape(-1, 4).T
    return BoxFrames(np.array(edges, dtype=np.int64), start, stop, column, present.astype(bool))
