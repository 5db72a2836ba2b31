"""Reports of labelled cells: by hand, against scikit-learn, and against a plain bootstrap."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)

from antpitta.core.types import Classes
from antpitta.scores.bootstrap import (
    draw_weights,
    percentile_interval,
    rank_rows,
    weighted_metrics,
)
from antpitta.scores.cells import CellMatrices, cells_from_matrices
from antpitta.scores.evaluate import evaluate_cells, report_from_json, report_to_json
from antpitta.scores.metrics import lwlrap

FROGS = Classes(("coqui", "whistler", "bullfrog"))


def cells(*rows):
    table = pd.DataFrame(rows, columns=["recording", "species", "present", "score"])
    return table.astype({"present": bool, "score": float})


def rng(seed=0):
    return np.random.default_rng(seed)


def random_cells(recordings, classes, seed=3, share=0.2):
    """Complete ground truth, and scores that correlate with it."""
    draw = rng(seed)
    truth = draw.random((recordings, classes)) < share
    scores = 1 / (1 + np.exp(-(1.5 * truth + draw.normal(size=truth.shape))))
    names = [f"r{i:05d}" for i in range(recordings)]
    species = Classes(tuple(f"s{i}" for i in range(classes)))
    matrices = CellMatrices(truth, np.ones_like(truth), scores, names)
    return cells_from_matrices(matrices, scores, species), species


BOXES = cells(
    ("a", "coqui", True, 0.9),
    ("a", "coqui", False, 0.8),  # two boxes of one species: rows for AP, one cell for LWLRAP
    ("a", "whistler", False, 0.95),
    ("b", "coqui", True, 0.3),  # nothing else is known, so there is no ranking
    ("c", "coqui", False, 0.6),
    ("c", "whistler", True, 0.7),
    ("d", "whistler", False, 0.1),
)


def test_report_by_hand():
    report = evaluate_cells(BOXES, FROGS, "run 1", draws=0, rng=rng())
    # a: the absent whistler outranks the coqui, 1/2; c: whistler first, 1; b is not counted
    assert report.lwlrap.value == pytest.approx(3 / 4)
    assert (report.recordings, report.cells, report.ranked) == (4, 7, 2)
    table = report.per_species.set_index("species")
    # coqui from the top: present, absent, absent, present
    assert table.loc["coqui", "ap"] == pytest.approx((1 / 1 + 2 / 4) / 2)
    assert table.loc["coqui", "auc"] == pytest.approx(2 / 4)
    # whistler: absent, present, absent
    assert table.loc["whistler", "ap"] == pytest.approx(1 / 2)
    assert table.loc["whistler", "auc"] == pytest.approx(1 / 2)
    assert table.loc["coqui", ["present", "absent"]].tolist() == [2, 2]
    assert table["lwlrap"].tolist()[:2] == pytest.approx([1 / 2, 1])
    assert report.macro_ap.value == pytest.approx((0.75 + 0.5) / 2)
    assert report.macro_auc.value == pytest.approx(0.5)
    assert np.isnan(report.macro_ap.low)
    assert report.source == "run 1"


def test_species_without_labels_is_nan_and_has_no_curve():
    report = evaluate_cells(BOXES, FROGS, "run 1", draws=20, rng=rng())
    bullfrog = report.per_species.iloc[2]
    assert bullfrog[["ap", "ap_low", "auc", "auc_high", "lwlrap"]].isna().all()
    assert bullfrog["present"] == 0
    assert set(report.curves) == {"coqui", "whistler"}


def test_single_present_boxes_are_not_ranked():
    single = cells(*[(f"r{i}", "coqui", True, 0.1) for i in range(5)])
    report = evaluate_cells(single, FROGS, "run", draws=10, rng=rng())
    assert report.ranked == 0
    assert np.isnan([report.lwlrap.value, report.lwlrap.low, report.macro_ap.value]).all()


def test_single_class_has_no_ranking():
    table = cells(("a", "coqui", True, 0.9), ("b", "coqui", False, 0.1))
    report = evaluate_cells(table, Classes(("coqui",)), "run", draws=0, rng=rng())
    assert np.isnan(report.lwlrap.value)
    assert report.macro_auc.value == 1


def test_report_without_cells_is_nan():
    report = evaluate_cells(cells(), FROGS, "run", draws=5, rng=rng())
    assert (report.recordings, report.cells, report.ranked) == (0, 0, 0)
    assert np.isnan([report.lwlrap.value, report.macro_ap.high, report.macro_auc.value]).all()


def test_metrics_of_complete_ground_truth_equal_scikit_learn():
    table, species = random_cells(60, 3, share=0.5)  # some recordings hold all three
    report = evaluate_cells(table, species, "run", draws=0, rng=rng())
    truth = table["present"].to_numpy().reshape(60, 3)
    scores = table["score"].to_numpy().reshape(60, 3)
    assert truth.all(axis=1).any()
    ranked = truth.any(axis=1)
    expected = label_ranking_average_precision_score(
        truth[ranked], scores[ranked], sample_weight=truth[ranked].sum(axis=1)
    )
    assert report.lwlrap.value == pytest.approx(expected)
    assert report.ranked == ranked.sum()
    aps = [average_precision_score(truth[:, i], scores[:, i]) for i in range(3)]
    assert report.per_species["ap"].tolist() == pytest.approx(aps)
    assert report.macro_ap.value == pytest.approx(np.mean(aps))
    aucs = [roc_auc_score(truth[:, i], scores[:, i]) for i in range(3)]
    assert report.per_species["auc"].tolist() == pytest.approx(aucs)


def test_weighted_metrics_with_ties_equal_scikit_learn():
    draw = rng(5)
    recording = draw.integers(0, 40, 200)
    present, scores = draw.random(200) < 0.3, draw.integers(0, 12, 200) / 11
    weights = draw.multinomial(40, np.full(40, 1 / 40), size=25).astype(float)
    ap, auc = weighted_metrics(rank_rows(present, scores, recording), weights)
    for i, weight in enumerate(weights[:, recording]):
        assert ap[i] == pytest.approx(
            average_precision_score(present, scores, sample_weight=weight)
        )
        assert auc[i] == pytest.approx(roc_auc_score(present, scores, sample_weight=weight))


def test_draw_without_a_present_row_is_nan():
    ranking = rank_rows(np.array([True, False]), np.array([0.2, 0.1]), np.array([0, 1]))
    ap, auc = weighted_metrics(ranking, np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]]))
    np.testing.assert_array_equal(ap, [np.nan, 1, np.nan])
    np.testing.assert_array_equal(auc, [np.nan, 1, np.nan])


def test_intervals_equal_those_of_a_plain_bootstrap():
    table, species = random_cells(40, 4, share=0.4)  # no draw misses a species
    report = evaluate_cells(table, species, "run", draws=100, rng=rng(9))
    weights = next(draw_weights(40, 100, rng(9)))
    truth = table["present"].to_numpy().reshape(40, 4)
    scores = table["score"].to_numpy().reshape(40, 4)
    lwlraps, macro = [], []
    for weight in weights.astype(int):
        rows = np.repeat(np.arange(40), weight)  # resampled
        t, s = truth[rows], scores[rows]
        lwlraps.append(lwlrap(t, s).value)
        macro.append(np.mean([average_precision_score(t[:, i], s[:, i]) for i in range(4)]))
    low, high = np.percentile(lwlraps, [2.5, 97.5])
    assert (report.lwlrap.low, report.lwlrap.high) == pytest.approx((low, high))
    low, high = np.percentile(macro, [2.5, 97.5])
    assert (report.macro_ap.low, report.macro_ap.high) == pytest.approx((low, high))
    assert report.lwlrap.low < report.lwlrap.value < report.lwlrap.high


def test_boxes_of_one_recording_are_drawn_together():
    # 100 boxes in two recordings vary more than in a hundred recordings.
    rows = [("coqui", i % 2 == 0, float(i % 7)) for i in range(100)]
    few = cells(*[(f"r{i // 50}", *row) for i, row in enumerate(rows)])
    few.loc[:49, "score"] += 3.0 * few.loc[:49, "present"]
    many = few.assign(recording=[f"r{i}" for i in range(100)])
    wide, narrow = (
        evaluate_cells(t, FROGS, "", draws=500, rng=rng()).macro_auc for t in (few, many)
    )
    assert wide.value == pytest.approx(narrow.value)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_species_in_one_recording_has_no_interval():
    table = cells(
        ("a", "coqui", True, 0.9), ("a", "coqui", False, 0.1), ("b", "coqui", False, 0.95)
    )
    row = evaluate_cells(table, FROGS, "", draws=50, rng=rng()).per_species.iloc[0]
    assert row["ap"] == pytest.approx(1 / 2)
    assert np.isnan([row["ap_low"], row["auc_high"]]).all()


def test_blocks_of_draws_add_up(monkeypatch):
    table, species = random_cells(30, 2)
    monkeypatch.setattr("antpitta.scores.bootstrap.BLOCK", 30 * 7)
    assert [len(w) for w in draw_weights(30, 20, rng())] == [7, 7, 6]
    report = evaluate_cells(table, species, "run", draws=20, rng=rng())
    assert np.isfinite(report.macro_auc.low)
    assert all(w.sum(axis=1).tolist() == [30.0] * len(w) for w in draw_weights(30, 20, rng()))


def test_bootstrap_of_1000_recordings_takes_seconds():
    table, species = random_cells(1000, 24)
    began = time.process_time()
    evaluate_cells(table, species, "run", draws=1000, rng=rng())
    assert time.process_time() - began < 15


def test_report_survives_strict_json():
    report = evaluate_cells(BOXES, FROGS, "run 1", draws=30, rng=rng())
    content = json.loads(json.dumps(report_to_json(report), allow_nan=False))
    again = report_from_json(content)
    assert content["per_species"][2]["ap"] is None
    pd.testing.assert_frame_equal(again.per_species, report.per_species)
    assert again.macro_ap == report.macro_ap
    assert (again.source, again.recordings, again.cells, again.ranked) == ("run 1", 4, 7, 2)
    for name, (recall, precision) in report.curves.items():
        np.testing.assert_array_equal(again.curves[name][0], recall)
        np.testing.assert_array_equal(again.curves[name][1], precision)


def test_report_without_cells_survives_strict_json():
    report = evaluate_cells(cells(), FROGS, "run", draws=0, rng=rng())
    again = report_from_json(json.loads(json.dumps(report_to_json(report), allow_nan=False)))
    pd.testing.assert_frame_equal(again.per_species, report.per_species)
    assert np.isnan(again.lwlrap.value)


def test_interval_without_draws_is_nan():
    assert np.isnan(percentile_interval(0.5, np.array([np.nan])).low)
    assert percentile_interval(0.5, np.array([0.1, 0.3])).high == pytest.approx(0.295)
