"""Detections against true events: pairs by hand, and against trying every pairing."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from antpitta.core.types import Annotation, Event
from antpitta.scores.event_metrics import event_f1, match_events


def detection(start, stop, label="coqui", recording="a", score=0.9):
    return Event(recording, start, stop, label, score, "run 1")


def call(start, stop, label="coqui", recording="a", present=True):
    return Annotation(recording, start, stop, label, present)


def test_table_by_hand():
    events = [detection(0, 1), detection(5, 6), detection(0, 1, "whistler"), detection(3, 4, "owl")]
    truth = [call(0.1, 1), call(8, 9), call(0, 1, "whistler"), call(2, 3, "toad")]
    table = event_f1(events, truth, min_iou=0.5).set_index("species")
    assert list(table.index) == ["coqui", "owl", "toad", "whistler", "macro", "micro"]
    assert table.loc["coqui"].tolist() == [1, 1, 1, 0.5, 0.5, 0.5]
    assert table.loc["whistler"].tolist() == [1, 0, 0, 1, 1, 1]
    assert table.loc["owl", "f1"] == 0  # false alarms only
    assert np.isnan(table.loc["owl", "recall"])
    assert table.loc["toad", "f1"] == 0  # misses only
    assert np.isnan(table.loc["toad", "precision"])
    assert table.loc["micro"].tolist() == [2, 2, 2, 0.5, 0.5, 0.5]
    assert table.loc["macro", "f1"] == pytest.approx((0.5 + 0 + 0 + 1) / 4)
    assert table.loc["macro", "precision"] == pytest.approx((0.5 + 0 + 1) / 3)


def test_misses_and_false_alarms_are_returned():
    hit, alarm = detection(0, 1), detection(5, 6)
    matched, missed = call(0.1, 1), call(8, 9)
    matches = match_events([alarm, hit], [missed, matched], min_iou=0.5)
    assert matches.hits == ((hit, matched),)
    assert matches.misses == (missed,)
    assert matches.false_alarms == (alarm,)


@pytest.mark.parametrize(("stop", "hits"), [(2.0, 1), (2.01, 0)])
def test_iou_at_the_limit_is_a_match(stop, hits):
    # One second in common, and a union of two seconds.
    assert len(match_events([detection(0, stop)], [call(0, 1)], min_iou=0.5).hits) == hits


def test_one_long_detection_does_not_match_every_call_in_it():
    calls = [call(t, t + 1) for t in range(0, 60, 4)]
    assert not match_events([detection(0, 60)], calls, min_iou=0.3).hits


def test_two_detections_of_one_call_are_a_hit_and_a_false_alarm():
    matches = match_events([detection(0, 1), detection(0, 0.9)], [call(0, 1)], min_iou=0.5)
    assert [event.stop for event, _ in matches.hits] == [1]  # the better one
    assert len(matches.false_alarms) == 1


def test_more_pairs_count_before_more_overlap():
    # The first detection is the best match of both calls; taken greedily it leaves one pair.
    events = [detection(0, 4), detection(0, 2.4)]
    calls = [call(0, 4), call(0.4, 4.4)]
    pairs = match_events(events, calls, min_iou=0.5).hits
    assert {(event.stop, matched.start) for event, matched in pairs} == {(2.4, 0), (4, 0.4)}


def test_recordings_and_species_do_not_mix():
    events = [detection(0, 1, recording="b"), detection(0, 1, "whistler")]
    assert not match_events(events, [call(0, 1)], min_iou=0.1).hits


def test_absent_box_is_no_miss():
    matches = match_events([], [call(0, 1, present=False)], min_iou=0.5)
    assert not matches.misses


def test_only_recordings_with_ground_truth_count():
    events = [detection(0, 1, recording=r) for r in "abc"]
    matches = match_events(
        events, [call(0, 1), call(0, 1, recording="c")], min_iou=0.5, recordings=["a", "b"]
    )
    assert [event.recording for event, _ in matches.hits] == ["a"]
    assert [event.recording for event in matches.false_alarms] == ["b"]
    assert not matches.misses


def test_table_without_events_is_empty():
    table = event_f1([], [], min_iou=0.5)
    assert table["species"].tolist() == ["macro", "micro"]
    assert table["tp"].tolist() == [0, 0]
    assert pd.isna(table["f1"]).all()


@pytest.mark.parametrize("min_iou", [0, 1.5])
def test_min_iou_outside_0_to_1_is_refused(min_iou):
    with pytest.raises(ValueError, match="min_iou"):
        event_f1([], [], min_iou=min_iou)


def test_no_pairing_has_more_pairs_nor_as_many_with_more_overlap():
    def iou(event, call):
        both = min(event.stop, call.stop) - max(event.start, call.start)
        union = event.stop - event.start + call.stop - call.start - both
        return both / union if both > 0 else 0.0

    rng = np.random.default_rng(6)
    for _ in range(60):
        events, calls = (
            [
                make(t, t + d)
                for t, d in zip(rng.uniform(0, 6, 5), rng.uniform(1, 4, 5), strict=True)
            ]
            for make in (detection, call)
        )
        best = (0, 0.0)
        for order in permutations(calls):
            good = [s for e, c in zip(events, order, strict=True) if (s := iou(e, c)) >= 0.3]
            best = max(best, (len(good), sum(good)))
        pairs = match_events(events, calls, min_iou=0.3).hits
        assert len(pairs) == best[0]
        assert sum(iou(*pair) for pair in pairs) == pytest.approx(best[1])
