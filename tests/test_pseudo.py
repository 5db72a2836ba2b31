"""Pseudo-labels: which models may make them, their values, and that boxes always win."""

import numpy as np
import pandas as pd
import pytest

from antpitta.core.config import BackboneConfig, HeadConfig, Recipe, WindowConfig
from antpitta.core.features import MelConfig
from antpitta.core.stages import PseudoLabelConfig, Stage
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Classes, Scores
from antpitta.scores.prevalence import estimate_prevalence
from antpitta.train.pseudo import OutOfFoldScores, make_pseudo_labels, window_scores

# 100 frames a second, 401 in a segment of 4 s: windows begin at 0, 200 (overlap 24: 0-224, 200-424)
FEATURES = MelConfig(
    sample_rate=8000, n_fft=256, hop_length=80, n_mels=16, fmin=50, fmax=4000, segment=4.0
)
RECIPE = Recipe(
    name="tiny",
    description="tests",
    features=FEATURES,
    windows=WindowConfig(frames=224, overlap=24, inference_overlap=112),
    backbone=BackboneConfig(name="test_resnet", pretrained=False),
    head=HeadConfig(),
    stages=(Stage(name="one"),),
)
SPECIES = Classes(("a", "b"))
ROWS = 13  # of 32 frames
HOP = 4.0 / 401


def make_box(recording, start, stop, label="a", present=True):
    return Annotation(recording, start, stop, label, present)


@pytest.fixture(scope="module")
def training_data(make_training_data):
    boxes = [make_box("r0", 1.0, 1.5), make_box("r1", 0.2, 0.6, present=False)]
    return make_training_data(RECIPE, [4.0, 4.0, 4.0], boxes, species=SPECIES.names)


def scores(recording, peaks=(), floor=0.2, source="run/masked/fold0", classes=SPECIES):
    """Scores of ``floor``, but for ``peaks`` of (row, column, value)."""
    value = np.full((ROWS, len(classes)), floor, dtype=np.float32)
    for row, column, peak in peaks:
        value[row, column] = peak
    return Scores(recording, TimeGrid(32 * HOP, ROWS), classes, value, source)


def member(peaks, floor=0.2, trained_on=frozenset(), source="run/masked/fold0"):
    return [
        OutOfFoldScores(
            scores(f"r{i}", peaks.get(i, ()), floor, source), frozenset(trained_on) - {f"r{i}"}
        )
        for i in range(3)
    ]


def test_a_model_that_trained_on_the_recording_is_refused(training_data):
    rows = member({})
    rows[1] = OutOfFoldScores(scores("r1"), frozenset({"r0", "r1"}))
    for members in ({"me": rows}, {"me": member({}), "other": rows}):
        with pytest.raises(ValueError, match=r"r1: run/masked/fold0 trained on it"):
            make_pseudo_labels(training_data, members, PseudoLabelConfig(teacher="masked"))


def test_a_model_that_trained_on_all_other_recordings_is_accepted(training_data):
    rows = member({0: [(0, 1, 0.9)]}, trained_on={"r0", "r1", "r2"})
    assert (
        len(
            make_pseudo_labels(
                training_data, {"me": rows}, PseudoLabelConfig(teacher="masked")
            ).table
        )
        == 1
    )


def test_scores_of_other_classes_are_refused(training_data):
    rows = member({})
    rows[2] = OutOfFoldScores(scores("r2", classes=Classes(("b", "a"))), frozenset())
    with pytest.raises(ValueError, match="other classes"):
        window_scores(training_data, {"me": rows})


def test_a_window_scores_as_high_as_its_highest_row(training_data):
    highest = window_scores(training_data, {"me": member({0: [(2, 0, 0.7), (10, 1, 0.8)]})})
    assert highest.shape == (1, 6, 2)
    expected = np.full((6, 2), 0.2)
    expected[0, 0] = 0.7  # row 2 is frames 64 to 96: the first window only
    expected[1, 1] = 0.8  # row 10 is frames 320 to 352: the second only
    np.testing.assert_allclose(highest[0], expected, rtol=1e-6)


def test_a_row_belongs_to_the_windows_that_hold_its_middle(training_data):
    # row 6 is frames 192 to 224: its middle, 208, lies in both windows; row 5's, 176, in one
    both = window_scores(training_data, {"me": member({1: [(6, 0, 0.9)]})})[0]
    np.testing.assert_allclose(both[2:4, 0], [0.9, 0.9])
    single = window_scores(training_data, {"me": member({1: [(5, 0, 0.9)]})})[0]
    np.testing.assert_allclose(single[2:4, 0], [0.9, 0.2])


def test_a_soft_positive_begins_at_the_threshold(training_data):
    rows = member({2: [(0, 0, 0.5), (0, 1, 0.4999)]})
    pseudo_labels = make_pseudo_labels(
        training_data, {"me": rows}, PseudoLabelConfig(teacher="masked")
    ).targets
    expected = np.zeros((6, 2))
    expected[4, 0] = 1
    np.testing.assert_array_equal(pseudo_labels.value, expected)
    np.testing.assert_array_equal(pseudo_labels.weight, expected)


def test_a_box_always_wins_over_a_pseudo_label(training_data):
    peaks = {i: [(r, c, 0.99) for r in range(ROWS) for c in range(2)] for i in range(3)}
    pseudo_labels = make_pseudo_labels(
        training_data, {"me": member(peaks)}, PseudoLabelConfig(teacher="masked")
    )
    # r0 "a" is present in its first window, r1 "a" absent in its first; all else is unlabelled
    expected = np.ones((6, 2))
    expected[0, 0] = expected[2, 0] = 0
    np.testing.assert_array_equal(pseudo_labels.targets.weight, expected)
    assert not (training_data.labels.weight * pseudo_labels.targets.weight).any()


def test_hard_negatives_are_not_in_the_targets(training_data):
    peaks = {0: [(0, 1, 0.01)], 2: [(0, 0, 0.009)]}
    pseudo_labels = make_pseudo_labels(
        training_data, {"me": member(peaks, floor=0.001)}, PseudoLabelConfig(teacher="masked")
    )
    expected = np.ones((6, 2), dtype=bool)
    expected[0] = False  # "a" is labelled, "b" reaches 0.01
    expected[2, 0] = False  # labelled absent by a box
    np.testing.assert_array_equal(pseudo_labels.hard_negatives, expected)
    assert not pseudo_labels.targets.weight.any()
    assert pseudo_labels.table.empty


def test_members_are_averaged(training_data):
    members = {
        "me": member({2: [(0, 0, 0.9), (0, 1, 0.6)]}, floor=0.05),
        "two": member({2: [(0, 0, 0.5), (0, 1, 0.6)]}, floor=0.05),
        "three": member({2: [(0, 0, 0.05), (0, 1, 0.6)]}, floor=0.05),
    }
    pseudo_labels = make_pseudo_labels(
        training_data, members, PseudoLabelConfig(teacher="masked")
    ).targets
    np.testing.assert_array_equal(pseudo_labels.weight[4], [0, 1])  # means 0.483 and 0.6


def test_members_can_vote(training_data):
    def votes(*values):
        return {f"m{k}": member({2: [(0, 0, value)]}) for k, value in enumerate(values)}

    def passed(pseudo, *values):
        return bool(make_pseudo_labels(training_data, votes(*values), pseudo).targets.weight[4, 0])

    three = PseudoLabelConfig(teacher="masked", aggregation="vote", min_votes=3, threshold=0.5)
    assert passed(three, 0.5, 0.5, 0.5, 0.0, 0.0)
    assert not passed(three, 0.99, 0.99, 0.49, 0.49, 0.49)
    assert passed(three, 0.6, 0.6)  # of fewer members, all
    assert not passed(three, 0.6, 0.4)


def test_soft_targets_are_the_mean_scores(training_data):
    rows = {"me": member({2: [(0, 0, 0.9)]}), "two": member({2: [(0, 0, 0.6)]})}
    pseudo_labels = make_pseudo_labels(
        training_data, rows, PseudoLabelConfig(teacher="masked", targets="soft")
    ).targets
    assert pseudo_labels.value[4, 0] == pytest.approx(0.75)
    assert pseudo_labels.weight[4, 0] == 1
    assert pseudo_labels.value.sum() == pytest.approx(0.75)


def test_rescaled_scores_have_the_estimated_prevalence(make_training_data):
    boxes = [make_box("r0", at, at + 0.3) for at in (0.2, 1.0, 3.0)]
    rows = {"me": member({1: [(0, 0, 0.6), (9, 0, 0.3)], 2: [(9, 0, 0.4)]}, floor=0.05)}
    pseudo = PseudoLabelConfig(teacher="masked", targets="soft", threshold=0.0, rescale=True)
    training_data = make_training_data(RECIPE, [4.0] * 3, boxes, species=SPECIES.names)
    highest = np.array([[0.05, 0.05], [0.6, 0.05], [0.4, 0.05]])
    share = estimate_prevalence(highest, ["r0", "r1", "r2"], boxes, SPECIES)[0]
    pseudo_labels = (
        make_pseudo_labels(training_data, rows, pseudo).targets.value[:, 0].reshape(3, 2)
    )
    assert 1 / 3 < share < 1
    assert (1 + pseudo_labels[1].max() + pseudo_labels[2].max()) / 3 == pytest.approx(
        share, abs=1e-5
    )
    odds = pseudo_labels[1] / (1 - pseudo_labels[1])  # both windows by one factor
    assert odds[0] / odds[1] == pytest.approx((0.6 / 0.4) / (0.3 / 0.7), rel=1e-3)


def test_the_table_has_place_time_score_and_source_of_every_pseudo_label(training_data):
    rows = {
        "me": member({1: [(0, 1, 0.9)], 2: [(12, 0, 0.8)]}, source="me/masked/fold1"),
        "two": member({1: [(0, 1, 0.7)], 2: [(12, 0, 0.8)]}, source="two/masked/fold0"),
    }
    table = make_pseudo_labels(training_data, rows, PseudoLabelConfig(teacher="masked")).table
    assert list(table.columns)[:5] == ["recording", "start_time", "end_time", "species", "score"]
    first, second = table.to_dict("records")
    assert (first["recording"], first["start_time"], first["species"]) == ("r1", 0.0, "b")
    assert first["end_time"] == pytest.approx(224 * HOP, abs=1e-3)
    assert first["score"] == pytest.approx(0.8)
    assert first["source"] == "me/masked/fold1 + two/masked/fold0"
    assert (second["recording"], second["end_time"]) == ("r2", 4.0)
    assert second["start_time"] == pytest.approx(200 * HOP, abs=1e-3)


def test_times_in_a_long_recording_are_on_its_own_clock(make_training_data):
    long = make_training_data(RECIPE, [10.0], [], species=SPECIES.names)
    rows = 32
    value = np.full((rows, 2), 0.1, dtype=np.float32)
    value[29, 0] = 0.9  # its middle is 29.5 * 32 frames: 9.42 s, in the third segment
    scores = Scores("r0", TimeGrid(32 * HOP, rows), SPECIES, value, "run/masked/fold0")
    pseudo_labels = make_pseudo_labels(
        long, {"me": [OutOfFoldScores(scores, frozenset())]}, PseudoLabelConfig(teacher="masked")
    )
    (label,) = pseudo_labels.table.to_dict("records")
    assert label["start_time"] == pytest.approx(8.0, abs=1e-3)
    assert 9.42 < label["end_time"] <= 10.0
    assert isinstance(pseudo_labels.table, pd.DataFrame)
