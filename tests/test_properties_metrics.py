"""Metrics against slow references in words and scikit-learn, and what must never change them."""

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)

from antpitta.core.thresholds import MIN_CELLS
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Classes, Event, Scores
from antpitta.scores.cells import box_cells, cell_matrices, cells_from_matrices
from antpitta.scores.event_metrics import MICRO, event_f1, match_events
from antpitta.scores.events import find_events
from antpitta.scores.metrics import area_under_roc, average_precision, lwlrap, precision_recall
from antpitta.scores.thresholds import FoldScores, choose_thresholds

LEVELS = st.integers(0, 8).map(lambda level: level / 8)  # few values: many ties
MONOTONE = st.sampled_from(
    [lambda x: x / 3 + 0.1, np.exp, lambda x: x**3 - 5, lambda x: -1 / (x + 1)]
)


@st.composite
def matrices(draw):
    """Truth, known and scores of some clips; a class is present somewhere."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    size = shape[0] * shape[1]
    cells = st.sampled_from(["present", "absent", "unknown"])
    states = np.array(draw(st.lists(cells, min_size=size, max_size=size)), dtype=object)
    states[draw(st.integers(0, states.size - 1))] = "present"
    scores = draw(st.lists(LEVELS, min_size=states.size, max_size=states.size))
    states = states.reshape(shape)
    return states == "present", states != "unknown", np.array(scores).reshape(shape)


def slow_lwlrap(truth, known, scores):
    """For each present class: of the known classes that score as high, the share present."""
    earned = []
    for clip, column in zip(*np.nonzero(truth), strict=True):
        rivals = [c for c in range(truth.shape[1])
                  if known[clip, c] and scores[clip, c] >= scores[clip, column]]  # fmt: skip
        earned.append(sum(truth[clip, c] for c in rivals) / len(rivals))
    return sum(earned) / len(earned)


@given(matrices())
def test_lwlrap_is_the_mean_share_of_present_classes_at_or_above(drawn):
    truth, known, scores = drawn
    metric = lwlrap(truth, scores, known)
    assert metric.value == pytest.approx(slow_lwlrap(truth, known, scores))
    assert np.nansum(metric.per_class * metric.share) == pytest.approx(metric.value)
    assert 0 < metric.value <= 1


@given(matrices())
def test_lwlrap_of_whole_truth_is_that_of_scikit_learn(drawn):
    truth, _, scores = drawn
    clips = truth.any(axis=1)
    expected = label_ranking_average_precision_score(
        truth[clips], scores[clips], sample_weight=truth[clips].sum(axis=1)
    )
    assert lwlrap(truth, scores).value == pytest.approx(expected)


@given(matrices(), MONOTONE, st.randoms(use_true_random=False), LEVELS)
def test_lwlrap_depends_on_ranks_and_known_cells_only(drawn, monotone, random, other):
    truth, known, scores = drawn
    value = lwlrap(truth, scores, known).value
    assert lwlrap(truth, monotone(scores), known).value == pytest.approx(value)
    assert lwlrap(truth, np.where(known, scores, other * 9 - 3), known).value == value
    clips, columns = list(range(len(truth))), list(range(truth.shape[1]))
    random.shuffle(clips)
    random.shuffle(columns)
    again = [part[clips][:, columns] for part in (truth, scores, known)]
    assert lwlrap(*again).value == pytest.approx(value)


ROWS = st.lists(st.tuples(st.booleans(), LEVELS), min_size=1, max_size=12)


def split(rows):
    return np.array([present for present, _ in rows]), np.array([score for _, score in rows])


@given(ROWS)
def test_area_under_roc_is_the_share_of_pairs_in_order(rows):
    present, scores = split(rows)
    pairs = [(a > b) + (a == b) / 2 for a in scores[present] for b in scores[~present]]
    if not pairs:
        assert np.isnan(area_under_roc(present, scores))
        return
    assert area_under_roc(present, scores) == pytest.approx(np.mean(pairs))
    assert area_under_roc(present, scores) == pytest.approx(roc_auc_score(present, scores))
    assert area_under_roc(~present, -scores) == pytest.approx(np.mean(pairs))


@given(ROWS)
def test_average_precision_is_the_sum_of_steps_of_recall(rows):
    present, scores = split(rows)
    if present.all() or not present.any():
        assert np.isnan(average_precision(present, scores))
        assert precision_recall(present, scores) is None
        return
    total, recall = 0.0, 0.0
    for level in sorted(set(scores), reverse=True):
        accepted = scores >= level
        reached = present[accepted].sum() / present.sum()
        total += (reached - recall) * present[accepted].mean()
        recall = reached
    assert average_precision(present, scores) == pytest.approx(total)
    assert average_precision_score(present, scores) == pytest.approx(total)
    curve_recall, curve_precision = precision_recall(present, scores)
    assert np.all(np.diff(curve_recall) >= 0)
    for r, p in zip(curve_recall[1:], curve_precision[1:], strict=True):
        assert any(
            np.isclose(present[a].sum() / present.sum(), r) and np.isclose(present[a].mean(), p)
            for a in (scores >= level for level in set(scores))
        )


@given(ROWS, MONOTONE, st.randoms(use_true_random=False))
def test_metrics_of_a_species_depend_on_the_ranks_only(rows, monotone, random):
    present, scores = split(rows)
    shuffled = list(rows)
    random.shuffle(shuffled)
    for metric in (area_under_roc, average_precision):
        value = metric(present, scores)
        assert metric(present, monotone(scores)) == pytest.approx(value, nan_ok=True)
        assert metric(*split(shuffled)) == pytest.approx(value, nan_ok=True)


# ---- cells and thresholds


CLASSES = Classes(("a", "b"))
CELL = st.tuples(
    st.sampled_from(["r1", "r2", "r3"]), st.sampled_from(CLASSES.names), st.booleans(), LEVELS
)


def frame(cells):
    table = pd.DataFrame(cells, columns=["recording", "species", "present", "score"])
    return table.astype({"present": bool, "score": float})


@given(st.lists(CELL, max_size=10), st.randoms(use_true_random=False))
def test_cells_of_a_recording_merge_by_the_rule_in_any_order(cells, random):
    shuffled = list(cells)
    random.shuffle(shuffled)
    merged = cell_matrices(frame(shuffled), CLASSES)
    assert merged.recordings == sorted({recording for recording, *_ in cells})
    for row, recording in enumerate(merged.recordings):
        for column, name in enumerate(CLASSES.names):
            own = [(p, s) for r, n, p, s in cells if (r, n) == (recording, name)]
            present = any(p for p, _ in own)
            assert merged.known[row, column] == bool(own)
            assert merged.truth[row, column] == present
            assert merged.scores[row, column] == max((s for p, s in own if p == present), default=0)
    again = cell_matrices(cells_from_matrices(merged, merged.scores, CLASSES), CLASSES)
    for one, other in zip(merged[:3], again[:3], strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=40)
@given(st.lists(CELL, max_size=60), st.randoms(use_true_random=False))
def test_threshold_is_valid_and_does_not_depend_on_the_order_of_boxes(cells, random):
    def choose(rows):
        recordings, folds = np.array(["r1", "r2", "r3"], dtype=object), np.array([0, 0, 1])
        clips = FoldScores(recordings, folds, np.full((3, 2), 0.25))
        return choose_thresholds(frame(rows), CLASSES, clips, rng=np.random.default_rng(0))

    thresholds = choose(cells)
    for name, own in thresholds.items():
        present, scores = split([(p, s) for _, n, p, s in cells if n == name] or [(False, 0.0)])
        if own.supported:
            assert min(present.sum(), (~present).sum()) >= MIN_CELLS
            assert present[scores >= own.value].mean() == pytest.approx(own.precision.value)
        elif own.value is not None and not present.all():
            assert own.value > max(scores[~present].max(), 0.25)
    shuffled = list(cells)
    random.shuffle(shuffled)
    assert choose(shuffled) == thresholds


# ---- events


@st.composite
def spans(draw, most=4):
    starts = draw(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), max_size=most))
    return [(start / 2, (start + length) / 2) for start, length in starts]


def iou(one, other):
    both = min(one[1], other[1]) - max(one[0], other[0])
    return max(0.0, both) / (max(one[1], other[1]) - min(one[0], other[0]))


def most_pairs(events, calls, min_iou):
    """The most pairs of any matching, by trying them all."""
    for count in range(min(len(events), len(calls)), 0, -1):
        for some in combinations(events, count):
            for order in permutations(calls, count):
                if all(iou(a, b) >= min_iou - 1e-9 for a, b in zip(some, order, strict=True)):
                    return count
    return 0


@settings(max_examples=40)
@given(spans(), spans(), st.sampled_from([0.2, 0.5, 1.0]), st.randoms(use_true_random=False))
def test_most_events_are_matched_one_to_one_in_any_order(events, calls, min_iou, random):
    detected = [Event("r", *span, "a", 0.5, "m") for span in events]
    truth = [Annotation("r", *span, "a") for span in calls]
    matches = match_events(detected, truth, min_iou=min_iou)
    assert len(matches.hits) == most_pairs(events, calls, min_iou)
    assert len(matches.hits) + len(matches.misses) == len(calls)
    assert len(matches.hits) + len(matches.false_alarms) == len(events)
    for event, call in matches.hits:
        assert iou((event.start, event.stop), (call.start, call.stop)) >= min_iou - 1e-9
    random.shuffle(detected)
    random.shuffle(truth)
    absent = Annotation("r", 0.0, 50.0, "a", present=False)
    table = event_f1(detected, [*truth, absent], min_iou=min_iou).set_index("species")
    counts = [len(matches.hits), len(matches.false_alarms), len(matches.misses)]
    assert table.loc[MICRO, ["tp", "fp", "fn"]].tolist() == counts


@given(
    st.lists(LEVELS, min_size=1, max_size=30),
    st.sampled_from([0.125, 0.5, 1.0]),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_events_are_stretches_above_the_threshold_joined_and_then_filtered(
    values, threshold, gap, shortest
):
    hop = 0.25
    scores = Scores(
        "r", TimeGrid(hop, len(values), 3.0), Classes(("a",)), np.array(values)[:, None], "m"
    )
    events = find_events(
        scores, {"a": threshold}, bands={}, min_duration=shortest * hop, max_gap=gap * hop
    )
    above = [i for i, value in enumerate(values) if value >= threshold]
    stretches = []
    for frame_number in above:
        if stretches and frame_number - stretches[-1][1] - 1 <= gap:
            stretches[-1][1] = frame_number
        else:
            stretches.append([frame_number, frame_number])
    expected = [
        (3.0 + first * hop, 3.0 + (last + 1) * hop, max(values[first : last + 1]))
        for first, last in stretches
        if last + 1 - first >= shortest
    ]
    assert [(event.start, event.stop, event.score) for event in events] == expected


@given(st.lists(LEVELS, min_size=4, max_size=20), st.integers(0, 40), st.integers(1, 40))
def test_cell_of_a_box_has_the_highest_score_inside_it(values, start, length):
    grid = TimeGrid(0.5, len(values))
    scores = Scores("r", grid, Classes(("a", "b")), np.array([values, values[::-1]]).T, "m")
    box = Annotation("r", start / 4, (start + length) / 4, "b")
    cells = box_cells([scores], [box], scores.classes)
    inside = values[::-1][grid.frames_by_centre(box.start, min(box.stop, grid.end))]
    assert cells["score"].tolist() == ([max(inside)] if inside else [])
    assert box_cells([scores], [Annotation("other", 0.0, 1.0, "b")], scores.classes).empty
