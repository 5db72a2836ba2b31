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
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from antpitta.core.stages import Stage
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Classes, Dataset, Targets
from antpitta.sound.windows import WindowIndex

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
        before = np.repeat(np.cumsum(count) - count, count)
        i = np.repeat(self.offsets[windows.segment], count) + np.arange(len(window)) - before
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
    """The middles of the boxes that random crops lie around, recording by recording.

    They are those of the present boxes, or of the absent ones in a recording without present boxes.

    Parameters
    ----------
    offsets : (recordings + 1,), where the centers of each recording begin among all centers
    segment : (centers,)
    frame : (centers,), in frames of that segment
    present : (recordings,), whether the recording has present boxes
    """

    offsets: Ints
    segment: Ints
    frame: Ints
    present: Bools

    @classmethod
    def from_boxes(
        cls, boxes: Sequence[Sequence[Annotation]], owner: Ints, grids: Sequence[TimeGrid]
    ) -> Self:
        """Find the middles of the boxes.

        Parameters
        ----------
        boxes : (recordings,), the boxes of each recording
        owner : (segments,), rising: the recording that each segment belongs to
        grids : (segments,), the frames of each segment on the recording's clock
        """
        offsets, segments, frames = [0], [], []
        edges = np.searchsorted(owner, np.arange(len(boxes) + 1))
        for own_boxes, first, last in zip(boxes, edges, edges[1:], strict=False):
            starts = [grid.start for grid in grids[first:last]]
            for box in [box for box in own_boxes if box.present] or own_boxes:
                end = grids[last - 1].end
                middle = (min(box.start, end) + min(box.stop, end)) / 2
                segment = int(first) + bisect_right(starts, middle) - 1
                segments.append(segment)
                frames.append(int((middle - grids[segment].start) / grids[segment].hop))
            offsets.append(len(segments))
        return cls(
            np.array(offsets, dtype=np.int64),
            np.array(segments, dtype=np.int64),
            np.array(frames, dtype=np.int64),
            np.array([any(box.present for box in own_boxes) for own_boxes in boxes], dtype=bool),
        )

    def draw_crops(
        self, stage: Stage, train: Ints, frames: int, lengths: Ints, rng: np.random.Generator
    ) -> WindowIndex:
        """The crops of one epoch, in random order.

        There is one crop for each recording with present boxes, and ``stage.absent_crops`` for
        recordings with absent boxes only. A crop lies around a random box, is moved by one of
        ``stage.crop_shifts`` to a random side, and then back inside its segment, so that it seldom
        cuts the box.

        Parameters
        ----------
        train : indices of the recordings
        frames : length of a crop
        lengths : (segments,), frames
        """
        counts = np.diff(self.offsets)
        with_present = train[self.present[train]]
        without = train[(counts[train] > 0) & ~self.present[train]]
        absent = rng.permutation(without)[: stage.absent_crops]
        order = rng.permutation(np.concatenate([with_present, absent]))
        first, count = self.offsets[order], counts[order]
        center = first + rng.integers(0, count) if len(order) else first
        segment, middle = self.segment[center], self.frame[center]
        if stage.crop_shifts:
            side = 2 * rng.integers(0, 2, len(center)) - 1
            middle = middle + side * rng.choice(np.array(stage.crop_shifts), len(center))
        last = np.maximum(0, lengths[segment] - frames)
        return WindowIndex(segment, np.clip(middle - frames // 2, 0, last), frames)


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
