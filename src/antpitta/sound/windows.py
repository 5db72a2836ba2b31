"""Windows of equal length over the segments of recordings, in numpy alone.

Prediction imports this file, so it must not load PyTorch. The features of windows are gathered as
tensors by :class:`antpitta.model.inputs.FeatureStore`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class WindowIndex:
    """Windows of equal length over many segments.

    Parameters
    ----------
    segment : (windows,), the segment each window lies in
    start : (windows,), the window's first frame in that segment
    frames : length of every window
    """

    segment: Ints
    start: Ints
    frames: int

    def __len__(self) -> int:
        return len(self.segment)

    def take(self, rows: Ints) -> "WindowIndex":
        """Some of the windows, in the order of ``rows``."""
        return WindowIndex(self.segment[rows], self.start[rows], self.frames)


def window_starts(length: int, frames: int, overlap: int) -> list[int]:
    """The first frames of the windows over one segment; the last window may reach beyond it.

    Parameters
    ----------
    length : frames of the segment
    frames : frames of a window
    overlap : frames that two neighbouring windows share

    Returns
    -------
    starts : rising

    Examples
    --------
    >>> window_starts(3751, 512, 49)
    [0, 463, 926, 1389, 1852, 2315, 2778, 3241]
    """
    step = frames - overlap
    count = max(1, -(-(length - overlap) // step))
    return [i * step for i in range(count)]


def index_windows(lengths: Ints, frames: int, overlap: int) -> WindowIndex:
    """All windows of all segments, segment by segment.

    Parameters
    ----------
    lengths : (segments,), frames
    frames, overlap : as in :func:`window_starts`

    Returns
    -------
    windows : of all segments
    """
    starts = [window_starts(int(length), frames, overlap) for length in lengths]
    segment = np.repeat(np.arange(len(starts)), [len(own) for own in starts])
    flat = [start for own in starts for start in own]
    return WindowIndex(segment, np.array(flat, dtype=np.int64), frames)


def join_ranges(first: Ints, count: Ints) -> Ints:
    """The indices of several ranges, one range after the other.

    Parameters
    ----------
    first, count : (ranges,), where each range begins, and its length

    Returns
    -------
    indices : (sum of count,)

    Examples
    --------
    >>> join_ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    before = np.repeat(np.cumsum(count) - count, count)
    return np.repeat(first, count) + np.arange(count.sum()) - before
