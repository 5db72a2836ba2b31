"""Events from framewise scores, worked out frame by frame."""

from math import inf

import numpy as np
import pytest

from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Classes, Event, Scores
from antpitta.scores.events import find_events, smooth_frames, training_bands

FROGS = Classes(("coqui", "whistler"))
PLAIN = {"bands": {}, "least": 0.0, "gap": 0.0, "smooth": 0}


def heard(coqui, whistler=None, hop=0.5, start=0.0):
    coqui = np.array(coqui, dtype=float)
    whistler = np.zeros_like(coqui) if whistler is None else np.array(whistler, dtype=float)
    value = np.stack([coqui, whistler], axis=1)
    return Scores("a", TimeGrid(hop, len(value), start), FROGS, value, "run 1")


def spans(events):
    return [(event.start, event.stop) for event in events]


def test_an_event_is_a_run_at_or_above_the_threshold():
    events = find_events(
        heard([0, 0.5, 0.9, 0.4, 0]), 0.5, **PLAIN | {"bands": {"coqui": (900.0, 2500.0)}}
    )
    assert events == [Event("a", 0.5, 1.5, "coqui", 0.9, "run 1", 900.0, 2500.0)]


def test_a_species_without_a_band_has_all_frequencies():
    (event,) = find_events(heard([1]), 0.5, **PLAIN)
    assert (event.low, event.high) == (0.0, inf)


def test_runs_at_both_ends_of_the_recording_are_kept():
    assert spans(find_events(heard([1, 0, 0, 1]), 0.5, **PLAIN)) == [(0, 0.5), (1.5, 2)]


def test_events_lie_on_the_recordings_own_clock():
    assert spans(find_events(heard([0, 1], start=60.0), 0.5, **PLAIN)) == [(60.5, 61)]


@pytest.mark.parametrize(
    ("gap", "found"),
    [(0.9, [(0, 0.5), (1.5, 2)]), (1.0, [(0, 2)]), (1.1, [(0, 2)])],
)
def test_a_pause_up_to_the_gap_is_part_of_the_event(gap, found):
    assert spans(find_events(heard([1, 0, 0, 1]), 0.5, **PLAIN | {"gap": gap})) == found


def test_a_gap_that_is_a_sum_of_frames_does_not_hang_on_rounding():
    scores = heard([1, 0, 0, 0, 1], hop=0.1)  # 3 * 0.1 is 0.30000000000000004
    assert len(find_events(scores, 0.5, **PLAIN | {"gap": 0.3})) == 1
    assert len(find_events(heard([1, 1, 1], hop=0.1), 0.5, **PLAIN | {"least": 0.3})) == 1


def test_short_notes_are_joined_before_the_short_are_dropped():
    trill = heard([1, 0, 1, 0, 1, 0, 0, 0, 1])
    found = find_events(trill, 0.5, **PLAIN | {"gap": 0.5, "least": 1.0})
    assert spans(found) == [(0, 2.5)]


def test_smoothing_drops_a_spike_and_keeps_the_edges_of_a_call():
    scores = heard([0, 1, 0, 0, 0, 1, 1, 1, 0])
    assert spans(find_events(scores, 0.5, **PLAIN | {"smooth": 3})) == [(2.5, 4)]


def test_an_even_window_is_the_next_odd_one():
    value = np.random.default_rng(0).random((40, 2))
    np.testing.assert_array_equal(smooth_frames(value, 4), smooth_frames(value, 5))
    np.testing.assert_allclose(smooth_frames(value, 3)[5, 0], np.median(value[4:7, 0]))
    np.testing.assert_array_equal(smooth_frames(value, 1), value)


def test_the_score_is_the_highest_smoothed_frame():
    (event,) = find_events(heard([0.2, 0.6, 0.9, 0.7, 0.1]), 0.5, **PLAIN | {"smooth": 3})
    assert event.score == 0.7


def test_hysteresis_goes_on_where_the_score_stays_near():
    scores = heard([0.3, 0.5, 0.3, 0.2, 0.3])
    found = find_events(scores, 0.5, **PLAIN, release=0.6)
    assert spans(found) == [(0, 1.5)]  # and the last frame alone is no event
    assert found[0].score == 0.5


def test_each_species_has_its_own_threshold_and_order_is_by_start():
    scores = heard([0, 0.4, 0.4], [0.8, 0.8, 0.1])
    found = find_events(scores, {"coqui": 0.3, "whistler": 0.5}, **PLAIN)
    assert [(event.label, event.start) for event in found] == [("whistler", 0), ("coqui", 0.5)]


def test_a_species_without_a_threshold_is_an_error():
    with pytest.raises(ValueError, match="no threshold for whistler"):
        find_events(heard([1]), {"coqui": 0.5}, **PLAIN)


def test_silence_and_emptiness_have_no_events():
    assert find_events(heard([0.1, 0.2]), 0.5, **PLAIN) == []
    assert find_events(heard([]), 0.5, **PLAIN | {"smooth": 5}) == []


def test_refuses_scores_that_are_none_and_a_release_that_is_none():
    with pytest.raises(ValueError, match="NaN"):
        find_events(heard([np.nan]), 0.5, **PLAIN)
    with pytest.raises(ValueError, match="release"):
        find_events(heard([1]), 0.5, **PLAIN, release=0)


def test_the_band_spans_the_present_boxes_that_have_one():
    def box(label, low, high, present=True):
        return Annotation("a", 0, 1, label, present, low, high)

    boxes = [
        box("coqui", 900, 1500),
        box("coqui", 1100, 2600),
        box("coqui", 0, inf),
        box("coqui", 10, 9000, present=False),
        box("whistler", 3000, 4000, present=False),
        box("owl", 100, 200),
    ]
    bands = training_bands(boxes, Classes(("coqui", "whistler", "silent")))
    assert bands == {"coqui": (900, 2600), "whistler": (3000, 4000)}
