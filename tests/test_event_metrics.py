"""Found against true events: pairs worked out by hand, and against trying every pairing."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from antpitta.core.types import Annotation, Classes, Event
from antpitta.scores.event_metrics import event_f1, match_events


def found(start, stop, label="coqui", recording="a", score=0.9):
    return Event(recording, start, stop, label, score, "run 1")


def called(start, stop, label="coqui", recording="a", present=True):
    return Annotation(recording, start, stop, label, present)


def test_a_table_worked_out_by_hand():
    events = [found(0, 1), found(5, 6), found(0, 1, "whistler"), found(3, 4, "owl")]
    truth = [called(0.1, 1), called(8, 9), called(0, 1, "whistler"), called(2, 3, "toad")]
    table = event_f1(events, truth, overlap=0.5).set_index("species")
    assert list(table.index) == ["coqui", "owl", "toad", "whistler", "macro", "micro"]
    assert table.loc["coqui"].tolist() == [1, 1, 1, 0.5, 0.5, 0.5]
    assert table.loc["whistler"].tolist() == [1, 0, 0, 1, 1, 1]
    assert table.loc["owl", "f1"] == 0  # only made up
    assert np.isnan(table.loc["owl", "recall"])
    assert table.loc["toad", "f1"] == 0  # only missed
    assert np.isnan(table.loc["toad", "precision"])
    assert table.loc["micro"].tolist() == [2, 2, 2, 0.5, 0.5, 0.5]
    assert table.loc["macro", "f1"] == pytest.approx((0.5 + 0 + 0 + 1) / 4)
    assert table.loc["macro", "precision"] == pytest.approx((0.5 + 0 + 1) / 3)


def test_misses_and_false_alarms_come_back_as_values():
    hit, alarm, call, miss = found(0, 1), found(5, 6), called(0.1, 1), called(8, 9)
    matches = match_events([alarm, hit], [miss, call], overlap=0.5)
    assert matches.hits == ((hit, call),)
    assert matches.misses == (miss,)
    assert matches.false_alarms == (alarm,)


@pytest.mark.parametrize(("stop", "hits"), [(2.0, 1), (2.01, 0)])
def test_the_union_decides_and_the_edge_counts(stop, hits):
    # one second in common; of two seconds it is half
    assert len(match_events([found(0, stop)], [called(0, 1)], overlap=0.5).hits) == hits


def test_one_long_event_does_not_match_every_call_in_it():
    calls = [called(t, t + 1) for t in range(0, 60, 4)]
    assert not match_events([found(0, 60)], calls, overlap=0.3).hits


def test_two_events_on_one_call_are_a_hit_and_a_false_alarm():
    matches = match_events([found(0, 1), found(0, 0.9)], [called(0, 1)], overlap=0.5)
    assert [event.stop for event, _ in matches.hits] == [1]  # the better one
    assert len(matches.false_alarms) == 1


def test_more_pairs_count_before_better_ones():
    # the first event is the best match of both calls; taken greedily it leaves one pair
    events = [found(0, 4), found(0, 2.4)]
    calls = [called(0, 4), called(0.4, 4.4)]
    pairs = match_events(events, calls, overlap=0.5).hits
    assert {(event.stop, said.start) for event, said in pairs} == {(2.4, 0), (4, 0.4)}


def test_recordings_and_species_do_not_mix():
    events = [found(0, 1, recording="b"), found(0, 1, "whistler")]
    assert not match_events(events, [called(0, 1)], overlap=0.1).hits


def test_what_was_marked_absent_is_no_miss():
    matches = match_events([], [called(0, 1, present=False)], overlap=0.5)
    assert not matches.misses


def test_only_recordings_of_whole_truth_are_judged():
    events = [found(0, 1, recording=r) for r in "abc"]
    matches = match_events(
        events, [called(0, 1), called(0, 1, recording="c")], overlap=0.5, recordings=["a", "b"]
    )
    assert [event.recording for event, _ in matches.hits] == ["a"]
    assert [event.recording for event in matches.false_alarms] == ["b"]
    assert not matches.misses


def test_classes_give_the_rows_and_silent_ones_say_nothing():
    table = event_f1(
        [found(0, 1)], [called(0, 1)], overlap=0.5, classes=Classes(("whistler", "coqui"))
    ).set_index("species")
    assert list(table.index) == ["whistler", "coqui", "macro", "micro"]
    assert table.loc["whistler", ["precision", "recall", "f1"]].isna().all()
    assert table.loc["macro", "f1"] == 1


def test_nothing_at_all_is_a_table_of_nothing():
    table = event_f1([], [], overlap=0.5)
    assert table["species"].tolist() == ["macro", "micro"]
    assert table["tp"].tolist() == [0, 0]
    assert pd.isna(table["f1"]).all()


@pytest.mark.parametrize("overlap", [0, 1.5])
def test_overlap_is_a_share(overlap):
    with pytest.raises(ValueError, match="overlap"):
        event_f1([], [], overlap=overlap)


def test_no_pairing_has_more_pairs_nor_as_many_with_more_overlap():
    def share(event, said):
        both = min(event.stop, said.stop) - max(event.start, said.start)
        union = event.stop - event.start + said.stop - said.start - both
        return both / union if both > 0 else 0.0

    rng = np.random.default_rng(6)
    for _ in range(60):
        events, calls = (
            [
                make(t, t + d)
                for t, d in zip(rng.uniform(0, 6, 5), rng.uniform(1, 4, 5), strict=True)
            ]
            for make in (found, called)
        )
        best = (0, 0.0)
        for order in permutations(calls):
            good = [s for e, c in zip(events, order, strict=True) if (s := share(e, c)) >= 0.3]
            best = max(best, (len(good), sum(good)))
        pairs = match_events(events, calls, overlap=0.3).hits
        assert len(pairs) == best[0]
        assert sum(share(*pair) for pair in pairs) == pytest.approx(best[1])
