"""Events from framewise scores, worked out frame by frame."""

from math import inf

import numpy as np
import pytest

from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Classes, Event, Scores
from antpitta.scores.events import find_events, training_bands

FROGS = Classes(("coqui", "whistler"))
HALF = {"coqui": 0.5, "whistler": 0.5}
PLAIN = {"bands": {}, "min_duration": 0.0, "max_gap": 0.0}


def scores_of(coqui, whistler=None, hop=0.5, start=0.0):
    coqui = np.array(coqui, dtype=float)
    whistler = np.zeros_like(coqui) if whistler is None else np.array(whistler, dtype=float)
    value = np.stack([coqui, whistler], axis=1)
    return Scores("a", TimeGrid(hop, len(value), start), FROGS, value, "run 1")


def times(events):
    return [(event.start, event.stop) for event in events]


def test_event_is_a_run_of_frames_at_or_above_the_threshold():
    events = find_events(
        scores_of([0, 0.5, 0.9, 0.4, 0]), HALF, **PLAIN | {"bands": {"coqui": (900.0, 2500.0)}}
    )
    assert events == [Event("a", 0.5, 1.5, "coqui", 0.9, "run 1", 900.0, 2500.0)]


def test_species_without_a_band_has_all_frequencies():
    (event,) = find_events(scores_of([1]), HALF, **PLAIN)
    assert (event.low, event.high) == (0.0, inf)


def test_runs_at_both_ends_of_the_recording_are_kept():
    assert times(find_events(scores_of([1, 0, 0, 1]), HALF, **PLAIN)) == [(0, 0.5), (1.5, 2)]


def test_events_lie_on_the_clock_of_the_recording():
    assert times(find_events(scores_of([0, 1], start=60.0), HALF, **PLAIN)) == [(60.5, 61)]


@pytest.mark.parametrize(
    ("gap", "expected"),
    [(0.9, [(0, 0.5), (1.5, 2)]), (1.0, [(0, 2)]), (1.1, [(0, 2)])],
)
def test_gap_up_to_the_longest_is_part_of_the_event(gap, expected):
    assert times(find_events(scores_of([1, 0, 0, 1]), HALF, **PLAIN | {"max_gap": gap})) == expected


def test_gap_of_whole_frames_does_not_depend_on_rounding():
    scores = scores_of([1, 0, 0, 0, 1], hop=0.1)  # 3 * 0.1 is 0.30000000000000004
    assert len(find_events(scores, HALF, **PLAIN | {"max_gap": 0.3})) == 1
    assert (
        len(find_events(scores_of([1, 1, 1], hop=0.1), HALF, **PLAIN | {"min_duration": 0.3})) == 1
    )


def test_short_notes_are_joined_before_short_events_are_dropped():
    trill = scores_of([1, 0, 1, 0, 1, 0, 0, 0, 1])
    events = find_events(trill, HALF, **PLAIN | {"max_gap": 0.5, "min_duration": 1.0})
    assert times(events) == [(0, 2.5)]


def test_each_species_has_its_own_threshold_and_events_are_sorted_by_onset():
    scores = scores_of([0, 0.4, 0.4], [0.8, 0.8, 0.1])
    events = find_events(scores, {"coqui": 0.3, "whistler": 0.5}, **PLAIN)
    assert [(event.label, event.start) for event in events] == [("whistler", 0), ("coqui", 0.5)]


def test_species_without_a_threshold_has_no_events():
    events = find_events(scores_of([1], [1]), {"whistler": 0.5}, **PLAIN)
    assert [event.label for event in events] == ["whistler"]


def test_top_keeps_the_best_events_of_each_species_in_the_order_of_time():
    coqui, whistler = [0.6, 0, 0.9, 0, 0.7, 0, 0.9], [0, 0.8, 0, 0.6, 0, 0, 0]
    scores = scores_of(coqui, whistler)
    events = find_events(scores, HALF, **PLAIN, top=2)
    assert [(event.label, event.start, round(event.score, 3)) for event in events] == [
        *[("whistler", 0.5, 0.8), ("coqui", 1.0, 0.9), ("whistler", 1.5, 0.6)],
        ("coqui", 3.0, 0.9),
    ]
    assert len(find_events(scores, HALF, **PLAIN, top=1)) == 2
    assert len(find_events(scores, HALF, **PLAIN)) == 6


def test_low_scores_and_no_frames_have_no_events():
    assert find_events(scores_of([0.1, 0.2]), HALF, **PLAIN) == []
    assert find_events(scores_of([]), HALF, **PLAIN) == []


def test_nan_score_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        find_events(scores_of([np.nan]), HALF, **PLAIN)


def test_band_spans_the_present_boxes_that_have_one():
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
