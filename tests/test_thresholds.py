"""Thresholds from labelled cells: by hand, and against trying every score."""

import numpy as np
import pandas as pd
import pytest

from antpitta.core.types import Classes
from antpitta.scores.thresholds import choose_thresholds, tabulate_thresholds

FROGS = Classes(("coqui", "whistler"))


def cells(species, present, scores):
    return pd.DataFrame(
        {
            "recording": [f"r{i}" for i in range(len(present))],
            "species": species,
            "present": np.array(present, dtype=bool),
            "score": np.array(scores, dtype=float),
        }
    )


#         from the highest: 5 present, 1 absent, 1 present, 4 absent
COQUI = cells(
    "coqui",
    [1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0],
    [0.9, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0],
)


def test_threshold_of_best_f1_lies_midway_to_the_next_score():
    # Accepting 5 of 6 present rows gives an F1 of 10/11, all of them 12/13.
    assert choose_thresholds(COQUI, FROGS, target="f1")["coqui"] == pytest.approx(0.35)


def test_threshold_of_a_precision_has_the_highest_recall():
    assert choose_thresholds(COQUI, FROGS, target=1.0)["coqui"] == pytest.approx(0.55)
    assert choose_thresholds(COQUI, FROGS, target=6 / 7)["coqui"] == pytest.approx(0.35)
    assert choose_thresholds(COQUI, FROGS, target=0.75)["coqui"] == pytest.approx(0.25)


def test_unreachable_precision_gives_the_best_precision_and_is_marked():
    upside_down = COQUI.assign(score=-COQUI["score"])
    table = tabulate_thresholds(upside_down, FROGS, target=0.9).set_index("species")
    assert table.loc["coqui", "origin"] == "unreached"
    assert table.loc["coqui", "precision"] == pytest.approx(6 / 11)  # all rows
    assert table.loc["coqui", "threshold"] == -0.9


def test_unreachable_precision_below_a_loud_absent_row_accepts_the_best_rows():
    loud = pd.concat([COQUI, cells("coqui", [0], [0.99])])  # 5 of the first 6 are present
    table = tabulate_thresholds(loud, FROGS, target=0.9).set_index("species")
    assert table.loc["coqui", "origin"] == "unreached"
    assert table.loc["coqui", "threshold"] == pytest.approx(0.55)
    assert table.loc["coqui", "precision"] == pytest.approx(5 / 6)


def test_species_with_few_cells_has_the_pooled_threshold():
    few = cells("whistler", [1, 0], [0.05, 0.99])
    table = tabulate_thresholds(pd.concat([COQUI, few]), FROGS, target=0.85).set_index("species")
    assert table.loc["coqui", "threshold"] == pytest.approx(0.35)  # 6 of 7
    assert table.loc["whistler", "threshold"] == pytest.approx(0.55)  # pooled: 5 of 6 at best
    assert table["origin"].tolist() == ["own", "pooled"]
    assert table.loc["whistler", ["present", "absent"]].tolist() == [1, 1]


def test_threshold_without_present_and_absent_cells_is_the_default():
    table = tabulate_thresholds(cells("coqui", [1, 1], [0.2, 0.9]), FROGS, target="f1")
    assert table["threshold"].tolist() == [0.5, 0.5]
    assert table["origin"].tolist() == ["default", "default"]
    assert table["recall"].tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert choose_thresholds(cells("coqui", [], []), FROGS, target="f1") == {
        "coqui": 0.5,
        "whistler": 0.5,
    }


def test_constant_scores_are_all_accepted():
    table = cells("coqui", [1, 0] * 6, [0.3] * 12)
    assert choose_thresholds(table, FROGS, target="f1")["coqui"] == 0.3


def test_threshold_between_neighbouring_floats_is_the_upper_one():
    low = 0.5
    high = np.nextafter(low, 1)
    table = cells("coqui", [1] * 5 + [0] * 5, [high] * 5 + [low] * 5)
    assert choose_thresholds(table, FROGS, target="f1")["coqui"] == high


def test_no_other_threshold_is_better():
    rng = np.random.default_rng(8)
    for _ in range(20):
        present = rng.random(60) < 0.3
        scores = np.round(present * 0.2 + rng.random(60), 1)
        table = cells("coqui", present, scores)

        def metrics(threshold, present=present, scores=scores):
            accepted = scores >= threshold
            hits = (accepted & present).sum()
            return (
                hits / max(1, accepted.sum()),
                hits / present.sum(),
                2 * hits / (accepted.sum() + present.sum()),
            )

        every = [metrics(score) for score in np.unique(scores)]
        row = tabulate_thresholds(table, FROGS, target="f1").iloc[0]
        assert row["f1"] == pytest.approx(max(f1 for _, _, f1 in every))
        assert metrics(row["threshold"]) == pytest.approx(tuple(row[["precision", "recall", "f1"]]))
        row = tabulate_thresholds(table, FROGS, target=0.4).iloc[0]
        if row["origin"] == "own":
            assert row["recall"] == pytest.approx(max(r for p, r, _ in every if p >= 0.4))
            assert row["precision"] >= 0.4


@pytest.mark.parametrize("target", ["f2", 0, 1.2, -1.0])
def test_target_other_than_f1_or_a_precision_is_refused(target):
    with pytest.raises(ValueError, match="target"):
        choose_thresholds(COQUI, FROGS, target=target)
