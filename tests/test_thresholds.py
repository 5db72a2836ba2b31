"""Thresholds from out-of-fold cells: by hand, and against trying them all."""

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


#         from the top: 5 present, 1 absent, 1 present, 4 absent
COQUI = cells(
    "coqui",
    [1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0],
    [0.9, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0],
)


def test_the_best_f1_lies_midway_to_the_next_score():
    # taking 5 of 6 present: F1 10/11; down to the sixth: 12/13
    assert choose_thresholds(COQUI, FROGS, aim="f1")["coqui"] == pytest.approx(0.35)


def test_a_precision_takes_as_many_as_it_can():
    assert choose_thresholds(COQUI, FROGS, aim=1.0)["coqui"] == pytest.approx(0.55)
    assert choose_thresholds(COQUI, FROGS, aim=6 / 7)["coqui"] == pytest.approx(0.35)
    assert choose_thresholds(COQUI, FROGS, aim=0.75)["coqui"] == pytest.approx(0.25)


def test_a_precision_out_of_reach_is_the_best_there_is_and_says_so():
    upside_down = COQUI.assign(score=-COQUI["score"])
    table = tabulate_thresholds(upside_down, FROGS, aim=0.9).set_index("species")
    assert table.loc["coqui", "origin"] == "unreached"
    assert table.loc["coqui", "precision"] == pytest.approx(6 / 11)  # all of them
    assert table.loc["coqui", "threshold"] == -0.9


def test_out_of_reach_under_a_loud_absence_it_is_not_all_or_nothing():
    loud = pd.concat([COQUI, cells("coqui", [0], [0.99])])  # 5 of the first 6 are present
    table = tabulate_thresholds(loud, FROGS, aim=0.9).set_index("species")
    assert table.loc["coqui", "origin"] == "unreached"
    assert table.loc["coqui", "threshold"] == pytest.approx(0.55)
    assert table.loc["coqui", "precision"] == pytest.approx(5 / 6)


def test_few_cells_take_the_pooled_threshold():
    few = cells("whistler", [1, 0], [0.05, 0.99])
    table = tabulate_thresholds(pd.concat([COQUI, few]), FROGS, aim=0.85).set_index("species")
    assert table.loc["coqui", "threshold"] == pytest.approx(0.35)  # 6 of 7
    assert table.loc["whistler", "threshold"] == pytest.approx(0.55)  # pooled: 5 of 6 at best
    assert table["origin"].tolist() == ["own", "pooled"]
    assert table.loc["whistler", ["present", "absent"]].tolist() == [1, 1]


def test_without_cells_of_both_kinds_it_is_one_half():
    table = tabulate_thresholds(cells("coqui", [1, 1], [0.2, 0.9]), FROGS, aim="f1")
    assert table["threshold"].tolist() == [0.5, 0.5]
    assert table["origin"].tolist() == ["default", "default"]
    assert table["recall"].tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert choose_thresholds(cells("coqui", [], []), FROGS, aim="f1") == {
        "coqui": 0.5,
        "whistler": 0.5,
    }


def test_constant_scores_are_all_taken():
    table = cells("coqui", [1, 0] * 6, [0.3] * 12)
    assert choose_thresholds(table, FROGS, aim="f1")["coqui"] == 0.3


def test_between_neighbouring_floats_the_upper_is_taken():
    low = 0.5
    high = np.nextafter(low, 1)
    table = cells("coqui", [1] * 5 + [0] * 5, [high] * 5 + [low] * 5)
    assert choose_thresholds(table, FROGS, aim="f1")["coqui"] == high


def test_no_threshold_has_a_better_f1_nor_at_the_precision_more_recall():
    rng = np.random.default_rng(8)
    for _ in range(20):
        present = rng.random(60) < 0.3
        scores = np.round(present * 0.2 + rng.random(60), 1)
        table = cells("coqui", present, scores)

        def figures(threshold, present=present, scores=scores):
            taken = scores >= threshold
            hits = (taken & present).sum()
            return (
                hits / max(1, taken.sum()),
                hits / present.sum(),
                2 * hits / (taken.sum() + present.sum()),
            )

        every = [figures(score) for score in np.unique(scores)]
        row = tabulate_thresholds(table, FROGS, aim="f1").iloc[0]
        assert row["f1"] == pytest.approx(max(f1 for _, _, f1 in every))
        assert figures(row["threshold"]) == pytest.approx(tuple(row[["precision", "recall", "f1"]]))
        row = tabulate_thresholds(table, FROGS, aim=0.4).iloc[0]
        if row["origin"] == "own":
            assert row["recall"] == pytest.approx(max(r for p, r, _ in every if p >= 0.4))
            assert row["precision"] >= 0.4


@pytest.mark.parametrize("aim", ["f2", 0, 1.2, -1.0])
def test_an_aim_is_f1_or_a_precision(aim):
    with pytest.raises(ValueError, match="aim"):
        choose_thresholds(COQUI, FROGS, aim=aim)
