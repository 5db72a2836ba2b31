"""Seconds, frames, windows and targets against slow references that follow the rules in words.

Times and hops of the references are multiples of 1/256 s, which floating point holds exactly.
"""

from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import EVERY_CLASS, Annotation, Classes
from antpitta.sound.targets import BoxFrames
from antpitta.sound.windows import WindowIndex, index_windows, window_starts

HOPS = st.one_of(
    st.sampled_from([0.02, 0.016, 512 / 32_000, 60 / 3751, 0.375, 0.1]),
    st.floats(1e-3, 2.0, allow_subnormal=False),
)
EXACT = 256  # ticks a second
TICKS = st.integers(0, 12 * EXACT)


@st.composite
def exact_grids(draw, starts=TICKS):
    hop = draw(st.integers(1, EXACT)) / EXACT
    return TimeGrid(hop, draw(st.integers(1, 60)), draw(starts) / EXACT)


@st.composite
def intervals(draw):
    first, last = sorted(draw(st.lists(TICKS, min_size=2, max_size=2, unique=True)))
    return first / EXACT, last / EXACT


@given(HOPS, st.integers(1, 20_000), st.floats(0, 1e5), st.data())
def test_edges_of_frames_are_those_frames_again(hop, frames, start, data):
    grid = TimeGrid(hop, frames, start)
    first = data.draw(st.integers(0, frames - 1))
    last = data.draw(st.integers(first + 1, frames))
    edges = grid.seconds(first), grid.seconds(last)
    assert grid.frames_by_centre(*edges) == slice(first, last)
    assert grid.overlapping_frames(*edges) == slice(first, last)
    assert grid.seconds(frames) == grid.end


@given(exact_grids(), intervals())
def test_frames_by_centre_are_those_whose_centre_lies_inside(grid, interval):
    start, stop = interval
    centres = [grid.start + (i + 0.5) * grid.hop for i in range(grid.frames)]
    inside = [i for i, centre in enumerate(centres) if start <= centre < stop]
    found = grid.frames_by_centre(start, stop)
    if inside:
        assert list(range(grid.frames))[found] == inside
    else:  # the frame it falls in, where that is one of the grid
        middle = (start + stop) / 2
        held = [i for i in range(grid.frames) if grid.seconds(i) <= middle < grid.seconds(i + 1)]
        assert set(range(grid.frames)[found]) <= set(held)
        if stop - start < grid.hop and held:
            assert list(range(grid.frames))[found] == held


@given(exact_grids(), intervals())
def test_overlapping_frames_go_from_the_frame_of_the_start_to_that_of_the_stop(grid, interval):
    assert list(range(grid.frames))[grid.overlapping_frames(*interval)] == frames_of(
        grid, *interval
    )


@given(exact_grids(), st.lists(TICKS, min_size=4, max_size=4, unique=True))
def test_later_intervals_have_later_frames(grid, ticks):
    a, b, c, d = (tick / EXACT for tick in sorted(ticks))
    for frames in (grid.frames_by_centre, grid.overlapping_frames):
        early, late = frames(a, c), frames(b, d)
        assert 0 <= early.start <= early.stop <= grid.frames
        assert early.start <= late.start
        assert early.stop <= late.stop


def frames_of(grid, start, stop):
    """From the frame that holds the start up to the one that holds the stop, one at least.

    The frames of other segments, before and after those of the grid, are none of its own.
    """
    hop, origin = Fraction(grid.hop), Fraction(grid.start)
    first = (Fraction(start) - origin) // hop
    last = (min(Fraction(stop), origin + grid.frames * hop) - origin) // hop
    return [i for i in range(grid.frames) if first <= i < max(last, first + 1)]


@given(st.integers(1, 300), st.integers(1, 80), st.data())
def test_windows_cover_every_frame_and_share_the_overlap(length, frames, data):
    overlap = data.draw(st.integers(0, frames - 1))
    starts = window_starts(length, frames, overlap)
    covered = {frame for start in starts for frame in range(start, start + frames)}
    assert covered >= set(range(length))
    assert starts[0] == 0
    assert all(b - a == frames - overlap for a, b in pairwise(starts))
    without_last = {frame for start in starts[:-1] for frame in range(start, start + frames)}
    assert len(starts) == 1 or not set(range(length)) <= without_last


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5), st.integers(2, 40))
def test_index_has_the_windows_of_every_segment_in_order(lengths, frames):
    index = index_windows(np.array(lengths), frames, frames // 2)
    expected = [
        (segment, start)
        for segment, length in enumerate(lengths)
        for start in window_starts(length, frames, frames // 2)
    ]
    assert list(zip(index.segment.tolist(), index.start.tolist(), strict=True)) == expected


CLASSES = Classes(("a", "b", "c"))


@st.composite
def boxes(draw):
    start, stop = draw(intervals())
    present = draw(st.booleans())
    labels = [*CLASSES.names, "other"] + ([] if present else [EVERY_CLASS])
    return Annotation("r", start, stop, draw(st.sampled_from(labels)), present)


@st.composite
def segments(draw):
    """Boxes, grids and windows of some segments."""
    count = draw(st.integers(1, 3))
    grids = [draw(exact_grids()) for _ in range(count)]
    own = [draw(st.lists(boxes(), max_size=4)) for _ in range(count)]
    frames = draw(st.integers(1, 20))
    segment = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=4))
    start = [draw(st.integers(0, grids[i].frames - 1)) for i in segment]
    return own, grids, WindowIndex(np.array(segment), np.array(start), frames)


def columns_of(box):
    return [i for i, name in enumerate(CLASSES.names) if box.label in (name, EVERY_CLASS)]


@given(segments())
def test_targets_of_windows_are_known_where_a_box_overlaps_and_present_wins(drawn):
    own, grids, windows = drawn
    targets = BoxFrames.from_boxes(own, grids, CLASSES).window_targets(windows)
    for row, (segment, start) in enumerate(zip(windows.segment, windows.start, strict=True)):
        window = set(range(start, start + windows.frames))
        for column in range(len(CLASSES)):
            verdicts = [
                box.present
                for box in own[segment]
                if column in columns_of(box)
                and window & set(frames_of(grids[segment], box.start, box.stop))
            ]
            assert targets.weight[row, column] == bool(verdicts)
            assert targets.value[row, column] == any(verdicts)


@given(segments())
def test_targets_of_boxes_have_a_row_for_each_window_and_box_that_overlap(drawn):
    own, grids, windows = drawn
    frames, targets = BoxFrames.from_boxes(own, grids, CLASSES).box_targets(windows)
    expected = []
    for row, (segment, start) in enumerate(zip(windows.segment, windows.start, strict=True)):
        for box in own[segment]:
            inside = [
                frame - start
                for frame in frames_of(grids[segment], box.start, box.stop)
                if 0 <= frame - start < windows.frames
            ]
            if inside and (columns := columns_of(box)):
                value = [float(box.present and i in columns) for i in range(len(CLASSES))]
                weight = [float(i in columns) for i in range(len(CLASSES))]
                expected.append(([row, inside[0], inside[-1] + 1], value, weight))
    assert len(frames) == len(expected)
    assume(expected)
    for got, wanted in zip((frames, targets.value, targets.weight), zip(*expected, strict=True),
                           strict=True):  # fmt: skip
        assert got.tolist() == list(map(list, wanted))


@given(segments())
def test_frames_that_boxes_cover_count_once(drawn):
    own, grids, _ = drawn
    present, known = BoxFrames.from_boxes(own, grids, CLASSES).count_frames()
    for segment, grid in enumerate(grids):
        for column in range(len(CLASSES)):
            held = [
                (box.present, set(frames_of(grid, box.start, box.stop)))
                for box in own[segment]
                if column in columns_of(box)
            ]
            assert known[segment, column] == len(set().union(*(f for _, f in held)))
            assert present[segment, column] == len(set().union(*(f for yes, f in held if yes)))
