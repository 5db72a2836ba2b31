"""Where windows begin, and which segments they lie in."""

import numpy as np
import pytest

from antpitta.sound.windows import index_windows, window_starts


def test_competition_windows_are_eight_for_training_and_fourteen_for_inference():
    train = window_starts(3751, 512, 49)
    assert [(start, start + 512) for start in train] == [
        (0, 512),
        (463, 975),
        (926, 1438),
        (1389, 1901),
        (1852, 2364),
        (2315, 2827),
        (2778, 3290),
        (3241, 3753),
    ]
    inference = window_starts(3751, 512, 256)
    assert len(inference) == 14
    assert (inference[0], inference[1], inference[-1]) == (0, 256, 3328)


@pytest.mark.parametrize(("frames", "overlap"), [(512, 49), (512, 256), (7, 0), (7, 6), (1, 0)])
def test_windows_cover_every_frame_and_none_is_superfluous(frames, overlap):
    for length in [1, 2, overlap, frames - 1, frames, frames + 1, 3 * frames, 1000]:
        starts = window_starts(length, frames, overlap)
        assert starts[0] == 0
        assert starts[-1] + frames >= length
        assert len(starts) == 1 or starts[-2] + frames < length
        assert all(np.diff(starts) == frames - overlap)


def test_index_windows_goes_segment_by_segment():
    windows = index_windows(np.array([10, 3, 25]), frames=10, overlap=2)
    assert windows.segment.tolist() == [0, 1, 2, 2, 2]
    assert windows.start.tolist() == [0, 0, 0, 8, 16]
    assert len(windows) == 5
    chosen = windows.take(np.array([4, 0]))
    assert (chosen.segment.tolist(), chosen.start.tolist(), chosen.frames) == ([2, 0], [16, 0], 10)
