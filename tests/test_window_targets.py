"""Statements in, (window, species) cells out; nobody's word stays unknown."""

import numpy as np

from antpitta.core.features import MelConfig
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import EVERY_CLASS, Annotation, Classes
from antpitta.sound.targets import window_targets

FROGS = Classes(("coqui", "whistler"))
GRID = TimeGrid(hop=0.1, frames=100)
STARTS = [0, 30, 60, 90]  # windows of 40 frames: 0-40, 30-70, 60-100, 90-130


def said(start, stop, label="coqui", present=True):
    return Annotation("a", start, stop, label, present)


def draw(*boxes, starts=STARTS, frames=40, grid=GRID):
    return window_targets(boxes, grid, starts, frames, FROGS)


def test_a_box_speaks_of_every_window_it_touches_and_of_no_other():
    found = draw(said(3.5, 4.5))  # frames 35 to 45
    np.testing.assert_array_equal(found.value[:, 0], [1, 1, 0, 0])
    np.testing.assert_array_equal(found.weight[:, 0], [1, 1, 0, 0])
    assert not found.weight[:, 1].any()


def test_windows_and_boxes_are_half_open():
    np.testing.assert_array_equal(draw(said(4.0, 6.0)).weight[:, 0], [0, 1, 0, 0])
    np.testing.assert_array_equal(draw(said(3.9, 6.1)).weight[:, 0], [1, 1, 1, 0])


def test_absent_is_known_with_value_0():
    found = draw(said(3.5, 4.5, present=False))
    assert not found.value.any()
    np.testing.assert_array_equal(found.weight[:, 0], [1, 1, 0, 0])


def test_present_wins_in_one_window_in_any_order():
    boxes = [said(0.0, 1.0), said(3.1, 3.2, present=False)]  # windows 0; 0 and 1
    for order in (boxes, boxes[::-1]):
        found = draw(*order)
        np.testing.assert_array_equal(found.value[:, 0], [1, 0, 0, 0])
        np.testing.assert_array_equal(found.weight[:, 0], [1, 1, 0, 0])


def test_two_boxes_of_one_species_both_count():
    found = draw(said(0.0, 0.5), said(8.0, 8.5))
    np.testing.assert_array_equal(found.value[:, 0], [1, 0, 1, 0])


def test_a_statement_about_every_class_fills_every_column():
    found = draw(said(0.0, 10.0, EVERY_CLASS, present=False), said(1.0, 2.0, "whistler"))
    assert found.weight.all()
    np.testing.assert_array_equal(found.value.sum(axis=0), [0, 1])


def test_a_click_between_two_frames_is_kept():
    assert draw(said(2.51, 2.52)).weight.sum() == 1


def test_what_lies_outside_the_image_and_strangers_are_passed_over():
    later = TimeGrid(hop=0.1, frames=100, start=10.0)
    before, after = said(9.0, 10.0), said(20.0, 21.0)
    assert not draw(before, after, said(12.0, 13.0, "owl"), grid=later).weight.any()
    assert draw(said(9.0, 10.1), grid=later).weight.sum() == 1


def test_no_statement_leaves_every_cell_unknown():
    found = draw()
    assert found.value.shape == found.weight.shape == (4, 2)
    assert not found.weight.any()


def test_agrees_with_a_slow_twin_on_a_minute_of_random_boxes():
    rng = np.random.default_rng(11)
    grid = MelConfig().time_grid(0.0, 60.0)
    starts = [463 * i for i in range(8)]
    for _ in range(200):
        start = rng.uniform(0, 59)
        stop = min(60.0, start + rng.uniform(0.27, 7.9))
        found = window_targets([said(start, stop)], grid, starts, 512, FROGS)
        first, last = int(3751 * start / 60), int(3751 * stop / 60)
        frames = set(range(first, last))
        wanted = [bool(frames & set(range(s, s + 512))) for s in starts]
        np.testing.assert_array_equal(found.weight[:, 0].astype(bool), wanted)
