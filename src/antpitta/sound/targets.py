"""From annotation boxes to training targets: the one place where a box becomes frames.

Every target is derived from :class:`BoxFrames`, which turns the boxes of a segment into frame
ranges by one edge rule, :meth:`antpitta.core.timegrid.TimeGrid.overlapping_frames`. The competition
counts frames in the same way. Derived from it are the targets of fixed windows and of random crops
(one cell per window and class), the targets of single boxes (one row per box and window), and the
number of frames that each recording has labelled, so the counts in a report are those of the loss.

Where boxes of one class overlap, "present" wins: an annotator who marked a call inside a stretch
marked as absent did find the call. Everything that no box covers is unknown (weight 0).
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from antpitta.core.stages import Stage
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Classes, Dataset, Targets
from antpitta.sound.windows import WindowIndex, join_ranges

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class BoxFrames:
    """The frame ranges of boxes, segment by segment; in each segment present boxes come last.

    A box about several classes has one range for each of them. Boxes outside their segment have
    none, nor have labels that are not among the classes.

    Parameters
    ----------
    offsets : (segments + 1,), where the ranges of each segment begin among all ranges
    start, stop : (ranges,), half-open, in frames of the segment
    column : (ranges,), the class
    present : (ranges,)
    box : (ranges,), the place of the box among the boxes of its segment
    n_classes : number of classes
    """

    offsets: Ints
    start: Ints
    stop: Ints
    column: Ints
    present: Bools
    box: Ints
    n_classes: int

    @classmethod
    def from_boxes(
        cls, boxes: Sequence[Sequence[Annotation]], grids: Sequence[TimeGrid], classes: Classes
    ) -> Self:
        """Turn the boxes of each segment into frame ranges.

        Parameters
        ----------
        boxes : (segments,), the boxes of the recording that each segment belongs to
        grids : (segments,), the frames of each segment on the recording's clock
        classes : the classes, in the order of the columns
        """
        offsets, ranges = [0], []
        for segment_boxes, grid in zip(boxes, grids, strict=True):
            for i, box in sorted(enumerate(segment_boxes), key=lambda item: item[1].present):
                frames = grid.overlapping_frames(box.start, box.stop)
                if frames.start < frames.stop:
                    ranges += [
                        (frames.start, frames.stop, column, box.present, i)
                        for column in classes.columns(box.label)
                    ]
            offsets.append(len(ranges))
        start, stop, column, present, place = np.array(ranges, dtype=np.int64).reshape(-1, 5).T
        return cls(
            np.array(offsets, dtype=np.int64),
            start,
            stop,
            column,
            present.astype(bool),
            place,
            len(classes),
        )

    def window_targets(self, windows: WindowIndex) -> Targets:
        """What is known of each window: (windows, classes).

        A cell is known where a box overlaps the window by a frame or more.
        """
        window, overlapping = self._overlaps(windows)
        return self._targets(len(windows), window, overlapping)

    def box_targets(self, windows: WindowIndex) -> tuple[Ints, Targets]:
        """One row for each window and each box that overlaps it, by window, then by box.

        Returns
        -------
        frames : (rows, 3): the window, the first frame of the box in it, and the frame after its
            last one
        targets : (rows, classes)
        """
        window, overlapping = self._overlaps(windows)
        key = window * (self.box.max(initial=0) + 1) + self.box[overlapping]
        _, first, row = np.unique(key, return_index=True, return_inverse=True)
        edges = np.stack([self.start[overlapping], self.stop[overlapping]])
        inside = np.clip(edges - windows.start[window], 0, windows.frames)
        frames = np.concatenate([window[None], inside])[:, first].T
        return frames, self._targets(len(first), row, overlapping)

    def select(self, *, present: bool) -> Self:
        """The ranges of the present boxes alone, or of the absent ones."""
        chosen = self.present == present
        segment = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        count = np.bincount(segment[chosen], minlength=len(self.offsets) - 1)
        return replace(
            self,
            offsets=np.concatenate([[0], np.cumsum(count)]),
            start=self.start[chosen],
            stop=self.stop[chosen],
            column=self.column[chosen],
            present=self.present[chosen],
            box=self.box[chosen],
        )

    def count_frames(self) -> tuple[Ints, Ints]:
        """Frames of each segment and class that are present, and that are known.

        Returns
        -------
        present, known : (segments, classes); a frame that several boxes cover counts once
        """
        return self._covered(self.present), self._covered(np.ones_like(self.present))

    def _overlaps(self, windows: WindowIndex) -> tuple[Ints, Ints]:
        """All pairs (window, range) that overlap, by window, then in the order of the ranges."""
        count = np.diff(self.offsets)[windows.segment]
        window = np.repeat(np.arange(len(windows)), count)
        i = join_ranges(self.offsets[windows.segment], count)
        start = windows.start[window]
        overlap = (self.start[i] < start + windows.frames) & (self.stop[i] > start)
        return window[overlap], i[overlap]

    def _targets(self, rows: int, row: Ints, ranges: Ints) -> Targets:
        """Targets (rows, classes) where each of the ``ranges`` belongs to a row."""
        value = np.zeros((rows, self.n_classes), dtype=np.float32)
        weight = np.zeros_like(value)
        weight[row, self.column[ranges]] = 1.0
        value[row, self.column[ranges]] = self.present[ranges]  # present boxes are written last
        return Targets(value, weight)

    def _covered(self, chosen: Bools) -> Ints:
        """The size of the union of the chosen ranges: (segments, classes)."""
        counts = np.zeros((len(self.offsets) - 1) * self.n_classes, dtype=np.int64)
        segment = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        cells, cell = np.unique(
            (segment * self.n_classes + self.column)[chosen], return_inverse=True
        )
        # All cells lie one after another on one axis, so that one running maximum serves all.
        shift = cell * (self.stop.max(initial=0) + 1)
        order = np.argsort(self.start[chosen] + shift, kind="stable")
        start, stop = (self.start[chosen] + shift)[order], (self.stop[chosen] + shift)[order]
        reached = np.concatenate([[0], np.maximum.accumulate(stop)[:-1]])[: len(stop)]
        np.add.at(counts, cells[cell[order]], np.maximum(stop - np.maximum(start, reached), 0))
        return counts.reshape(-1, self.n_classes)


@dataclass(frozen=True)
class CropCenters:
    """The middles of the present or of the absent boxes, recording by recording.

    Parameters
    ----------
    offsets : (recordings + 1,), where the centers of each recording begin among all centers
    segment : (centers,)
    frame : (centers,), in frames of that segment
    """

    offsets: Ints
    segment: Ints
    frame: Ints

    @classmethod
    def from_boxes(
        cls,
        boxes: Sequence[Sequence[Annotation]],
        owner: Ints,
        grids: Sequence[TimeGrid],
        *,
        present: bool,
    ) -> Self:
        """Find the middles of the boxes.

        Parameters
        ----------
        boxes : (recordings,), the boxes of each recording
        owner : (segments,), rising: the recording that each segment belongs to
        grids : (segments,), the frames of each segment on the recording's clock
        present : which boxes to take: the present ones, or the absent ones
        """
        offsets, segments, frames = [0], [], []
        edges = np.searchsorted(owner, np.arange(len(boxes) + 1))
        for own_boxes, first, last in zip(boxes, edges, edges[1:], strict=False):
            starts = [grid.start for grid in grids[first:last]]
            for box in own_boxes:
                if box.present != present:
                    continue
                end = grids[last - 1].end
                middle = (min(box.start, end) + min(box.stop, end)) / 2
                segment = int(first) + bisect_right(starts, middle) - 1
                covered = grids[segment].overlapping_frames(box.start, box.stop)
                segments.append(segment)
                frames.append((covered.start + covered.stop) // 2)
            offsets.append(len(segments))
        return cls(*(np.array(part, dtype=np.int64) for part in (offsets, segments, frames)))

    def having(self, recordings: Ints) -> Ints:
        """Those of the recordings that have a box."""
        return recordings[np.diff(self.offsets)[recordings] > 0]

    def draw(self, recordings: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """A random box of each of these recordings: its segment and its middle, in frames."""
        first = self.offsets[recordings]
        center = first + rng.integers(0, self.offsets[recordings + 1] - first)
        return self.segment[center], self.frame[center]


def draw_crops(
    stage: Stage,
    centers: tuple[CropCenters, CropCenters],
    train: Ints,
    frames: int,
    lengths: Ints,
    rng: np.random.Generator,
) -> tuple[WindowIndex, Bools]:
    """The crops of one epoch, in random order.

    There is one crop for each recording with present boxes, around a random one of them, and
    ``stage.absent_crops`` around absent boxes, in recordings drawn anew; such a recording can have
    present boxes too. With ``stage.crop_anchor = "start"``, the middle of the box lies a random one
    of ``stage.crop_shifts`` after the start of the crop, if it lies that far from the start of the
    segment; else the crop begins with the segment. With ``"centre"`` the crop lies around the
    middle, moved by one of the shifts to a random side. A crop that would end after its segment is
    moved back.

    Parameters
    ----------
    stage : the settings
    centers : of the present and of the absent boxes
    train : indices of the recordings
    frames : length of a crop
    lengths : (segments,), frames
    rng : source of all random choices

    Returns
    -------
    crops : the crops
    is_present : (crops,), whether the crop lies around a present box
    """
    present, absent = centers
    recordings = present.having(train), rng.permutation(absent.having(train))[: stage.absent_crops]
    drawn = [own.draw(rows, rng) for own, rows in zip(centers, recordings, strict=True)]
    segment, middle = np.concatenate([np.stack(part) for part in drawn], axis=1)
    is_present = np.arange(len(segment)) < len(recordings[0])
    shifts = np.sort(np.array(stage.crop_shifts or (0,)))
    last = lengths[segment] - frames
    if stage.crop_anchor == "start":
        usable = np.searchsorted(shifts, middle)  # the shifts below the middle
        shift = shifts[rng.integers(0, np.maximum(usable, 1))]
        start = np.where(usable > 0, middle - shift, 0)
        last = last - 1  # as in the competition's code, which keeps the last frame out
    else:
        side = 2 * rng.integers(0, 2, len(middle)) - 1
        start = middle + side * rng.choice(shifts, len(middle)) - frames // 2
    start = np.clip(start, 0, np.maximum(0, last))
    order = rng.permutation(len(segment))
    return WindowIndex(segment[order], start[order], frames), is_present[order]


@dataclass(frozen=True)
class Supervision:
    """How many frames of each recording are present, absent and unknown for each class.

    The three counts are (recordings, classes) and add up to the frames of the recording.
    """

    classes: Classes
    recordings: tuple[str, ...]
    present: Ints
    absent: Ints
    unknown: Ints


def count_supervision_frames(dataset: Dataset, hop: float) -> Supervision:
    """Count the labelled frames of a data set.

    Parameters
    ----------
    dataset : recordings, their boxes and the classes
    hop : seconds per frame; a frame in which the recording ends counts whole

    Returns
    -------
    supervision : the counts of each recording and class
    """
    boxes: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in dataset.annotations:
        boxes[annotation.recording].append(annotation)
    grids = [
        TimeGrid(hop, max(1, math.ceil(recording.duration / hop - 1e-6)))
        for recording in dataset.recordings
    ]
    ids = tuple(recording.id for recording in dataset.recordings)
    box_frames = BoxFrames.from_boxes([boxes[name] for name in ids], grids, dataset.classes)
    present, known = box_frames.count_frames()
    frames = np.array([grid.frames for grid in grids], dtype=np.int64)[:, None]
    return Supervision(dataset.classes, ids, present, known - present, frames - known)
