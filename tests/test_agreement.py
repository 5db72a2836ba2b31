"""Agreement of reviewers: by hand, against scikit-learn, and its interval against simulation."""

from math import isnan

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from antpitta.review.agreement import ALL, agreement_table, cohens_kappa


def rows_of(first, second, species="wren"):
    pairs = zip(first, second, strict=True)
    return [
        {"root": i, "species": species, "reviewer": reviewer, "verdict": verdict}
        for i, pair in enumerate(pairs)
        for reviewer, verdict in enumerate(pair, start=1)
        if verdict
    ]


def test_agreement_of_ten_sounds_is_that_worked_out_by_hand():
    first = ["present"] * 5 + ["absent"] * 5
    second = ["present"] * 4 + ["absent"] * 4 + ["present"] * 2
    table = agreement_table(rows_of(first, second))
    own = table[table["species"] == "wren"].iloc[0]
    assert (own["first"], own["second"], own["both"], own["unsure"]) == (1, 2, 10, 0)
    assert own["agreement"] == pytest.approx(0.7)
    assert own["agreement_present"] == pytest.approx(8 / 11)
    assert own["agreement_absent"] == pytest.approx(6 / 9)
    assert own["kappa"] == pytest.approx(0.4)  # (0.7 - 0.5) / (1 - 0.5)
    assert own["kappa_low"] < 0.4 < own["kappa_high"] <= 1


def test_kappa_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.choice(["present", "absent"], (2, 40), p=[0.3, 0.7])
        table = agreement_table(rows_of(first, second))
        assert table["kappa"].iloc[0] == pytest.approx(cohen_kappa_score(first, second))


def test_unsure_verdicts_are_counted_and_have_no_part():
    table = agreement_table(rows_of(["present", "unsure", "absent"], ["present", "absent", ""]))
    own = table[table["species"] == ALL].iloc[0]
    assert (own["both"], own["unsure"], own["agreement"]) == (1, 1, 1.0)
    assert isnan(own["kappa"])
    assert isnan(own["agreement_absent"])


def test_all_species_are_summed_and_every_two_reviewers_have_a_row():
    rows = rows_of(["present", "absent"], ["present", "absent"], "wren")
    rows += rows_of(["present"], ["absent"], "robin")
    rows += [{"root": 0, "species": "wren", "reviewer": 3, "verdict": "present"}]
    table = agreement_table(rows).set_index(["first", "second", "species"])
    assert table.loc[(1, 2, ALL), "both"] == 3
    assert table.loc[(1, 2, ALL), "agreement"] == pytest.approx(2 / 3)
    assert table.loc[(1, 3, "wren"), "both"] == 1
    assert len(agreement_table([])) == 0


def test_interval_of_kappa_covers_the_true_one():
    chances = np.array([[0.35, 0.1], [0.15, 0.4]])
    true = cohens_kappa((chances * 10_000).astype(int))[0]
    rng = np.random.default_rng(1)
    draws = rng.multinomial(200, chances.ravel(), 1000).reshape(-1, 2, 2)
    covered = [low <= true <= high for _, low, high in map(cohens_kappa, draws)]
    assert 0.925 <= np.mean(covered) <= 0.975


def test_kappa_without_variance_has_no_interval():
    for table in ([[16, 1], [0, 0]], [[1, 0], [0, 1]]):  # one verdict of one of them; no difference
        kappa, low, high = cohens_kappa(np.array(table))
        assert kappa in (0.0, 1.0)
        assert isnan(low)
        assert isnan(high)
