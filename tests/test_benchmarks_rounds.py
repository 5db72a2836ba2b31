"""The benchmark of rounds: a reviewer who knows every call, and ways that begin alike."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import antpitta as ap
from antpitta.core.errors import UserError
from antpitta.core.types import Annotation, Recording
from benchmarks.rounds import (
    ABSENT,
    COLUMNS,
    PRESENT,
    STRENGTH,
    UNSURE,
    WAYS,
    Review,
    Windows,
    benchmark_rounds,
    judge_windows,
    summarise,
)


def test_reviewer_finds_a_call_in_windows_that_hold_a_second_or_half_of_it(tmp_path):
    recordings = [Recording(name, tmp_path / name, 100, 1000) for name in "ab"]
    start = np.array([0.0, 1.0, 2.0, 3.0, 6.0])
    place = np.array([0, 0, 0, 0, 1])
    windows = Windows(place, start, 3.0, np.zeros((5, 2), np.float32))
    calls = [
        Annotation("a", 4.5, 8.0, "long"),  # 1 s of it, or more, is enough
        Annotation("a", 0.0, 0.4, "short"),  # half of it is
        Annotation("a", 2.9, 3.3, "short"),  # a quarter is not, but it is there
        Annotation("b", 5.0, 6.1, "short"),
    ]
    verdicts = judge_windows(windows, recordings, calls, ("long", "short"))
    assert verdicts[:, 0].tolist() == [ABSENT, ABSENT, UNSURE, PRESENT, ABSENT]
    assert verdicts[:, 1].tolist() == [PRESENT, PRESENT, PRESENT, PRESENT, UNSURE]


@pytest.fixture
def review():
    rng = np.random.default_rng(0)
    truth = rng.choice([PRESENT, ABSENT, UNSURE], (60, 4), p=[0.3, 0.6, 0.1])
    vector = rng.normal(size=(60, 3)).astype(np.float32)
    windows = Windows(np.repeat(np.arange(6), 10), np.zeros(60), 3.0, vector)
    return Review(windows, truth, rng)


def test_review_begins_with_three_verdicts_of_each_species(review):
    assert review.judged.sum(axis=0).tolist() == [3] * 4
    assert review.calls().tolist() == [2] * 4
    assert not (review.judged & (review.truth == UNSURE)).any()


@pytest.mark.parametrize("way", list(WAYS))
def test_ways_choose_what_was_not_judged_and_each_once(review, way):
    scores = np.random.default_rng(1).random((60, 4))
    chosen = WAYS[way](review, scores, 10, np.random.default_rng(2))
    assert len(set(chosen)) == 10
    assert not any(review.judged[pair] for pair in chosen)
    if way not in ("top score", "random"):
        assert np.bincount([species for _, species in chosen]).tolist().count(2) >= 2


def test_top_score_takes_the_highest_of_all_or_of_each_species(review):
    scores = np.random.default_rng(1).random((60, 4))
    left = np.where(review.judged, -1, scores)
    chosen = WAYS["top score"](review, scores, 4, np.random.default_rng(2))
    assert [left[pair] for pair in chosen] == sorted(left.ravel())[:-5:-1]
    chosen = WAYS["top score of each species"](review, scores, 4, np.random.default_rng(2))
    assert chosen == [(left[:, k].argmax(), k) for k in range(4)]


def test_regressions_of_few_coordinates_are_those_of_all_values(review):
    rng = np.random.default_rng(3)
    vector = rng.normal(size=(60, 20)).astype(np.float32)
    review.windows = Windows(review.windows.recording, np.zeros(60), 3.0, vector)
    weights, intercepts = review.fit()
    for species in range(4):
        rows = np.flatnonzero(review.judged[:, species])
        plain = LogisticRegression(C=STRENGTH, class_weight="balanced", tol=1e-9, max_iter=9999)
        plain.fit(vector[rows], review.truth[rows, species])
        assert weights[:, species] == pytest.approx(plain.coef_[0], abs=1e-5)
        assert intercepts[species] == pytest.approx(plain.intercept_[0], abs=1e-4)


def test_differences_are_paired_by_seed():
    rows = [
        {"way": way, "seed": seed, **dict.fromkeys(COLUMNS, seed + gain)}
        for way, gain in (("teach", 0.25), ("random", 0.0))
        for seed in (1, 2, 3)
    ]
    result = summarise(pd.DataFrame(rows), "")
    assert result.differences.iloc[0, 1] == "0.250 (0.250 to 0.250)"
    assert result.table.iloc[0, 1] == "2.2 (-0.2 to 4.7)"  # 2.25 and 4.30 * 1 / sqrt(3)


def test_benchmark_on_a_small_network_has_a_row_for_each_way_and_seed(
    simulated, write_network, tmp_path
):
    write_network(tmp_path / "spectrum.onnx", bands=64)
    result = benchmark_rounds(
        *(ap.open_data(simulated), [simulated / "test"], simulated / "test_truth.csv"),
        simulated / "train_events.csv",
        changes=(
            *(f"embedding.model={tmp_path / 'spectrum.onnx'}", "embedding.sample_rate=16000"),
            *("embedding.seconds=1.0", "embedding.step=0.125"),
        ),
        seeds=2, rounds=1, batch=8, out=tmp_path,
    )  # fmt: skip
    table = pd.read_csv(tmp_path / "rounds.csv")
    assert sorted(zip(table["way"], table["seed"], strict=True)) == sorted(
        (way, seed) for way in WAYS for seed in (1, 2)
    )
    assert table["macro_ap"].between(0.1, 1).all()
    assert (table["calls"] <= 8).all()
    assert len(result.differences) == len(WAYS) - 1


def test_a_single_seed_has_no_interval_and_is_refused(simulated):
    paths = ([simulated / "test"], simulated / "test_truth.csv", simulated / "train_events.csv")
    with pytest.raises(UserError) as error:
        benchmark_rounds(ap.open_data(simulated), *paths, seeds=1)
    assert error.value.code == "E_BENCHMARK_EMPTY"
