"""Draws of candidates: known inclusion probabilities, and what a teaching draw prefers."""

import numpy as np
import pytest

from antpitta.search.designs import (
    TeachingPool,
    cut_strata,
    draw_audit,
    draw_teach,
    share_evenly,
)


@pytest.fixture
def score():
    """Many low scores and few high ones, as a model gives them."""
    return np.random.default_rng(1).beta(0.3, 3, 4000)


def test_audit_draws_equal_numbers_from_strata_that_reach_down_to_the_lowest_scores(score):
    draw = draw_audit(score, 50, np.random.default_rng(0))
    assert np.bincount(draw.stratum).tolist() == [10] * 5
    assert len(np.unique(draw.item)) == 50
    stratum = np.searchsorted(draw.edges, score, side="right")
    assert np.array_equal(stratum[draw.item], draw.stratum)
    assert np.allclose(draw.inclusion, 10 / np.bincount(stratum)[draw.stratum])
    assert (stratum == 0)[score.argmin()]
    assert (draw.stratum == 0).sum() == 10


def test_audit_inclusion_is_how_often_a_candidate_is_drawn(score):
    drawn, stated = np.zeros(200), np.zeros(200)
    for seed in range(2000):
        draw = draw_audit(score[:200], 40, np.random.default_rng(seed))
        drawn[draw.item] += 1 / 2000
        stated[draw.item] = draw.inclusion
    assert np.abs(drawn - stated).max() < 5 * np.sqrt(0.25 / 2000)


def test_audit_estimates_of_calls_are_unbiased(score):
    rng = np.random.default_rng(2)
    present = rng.random(len(score)) < score
    estimates = []
    for seed in range(300):
        draw = draw_audit(score, 60, np.random.default_rng(seed))
        estimates.append((present[draw.item] / draw.inclusion).sum())
    error = np.std(estimates) / np.sqrt(300)
    assert abs(np.mean(estimates) - present.sum()) < 3 * error


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 11])
def test_small_audit_has_a_draw_in_each_stratum_and_speaks_for_all_candidates(score, count):
    draw = draw_audit(score, count, np.random.default_rng(0))
    sizes = np.bincount(np.searchsorted(draw.edges, score, side="right"))
    drawn = np.bincount(draw.stratum, minlength=len(sizes))
    assert (drawn >= min(count, 2)).all()
    assert np.sum(1 / draw.inclusion) == pytest.approx(len(score))


def test_audit_order_tells_nothing_about_the_score(score):
    orders = [draw_audit(score, 60, np.random.default_rng(seed)).stratum for seed in range(200)]
    assert np.mean(orders, axis=0) == pytest.approx(np.full(60, 2.0), abs=0.5)


@pytest.mark.parametrize("count", [7, 8, 100])
def test_audit_of_few_candidates_takes_all(count):
    draw = draw_audit(np.linspace(0, 1, 7), count, np.random.default_rng(0))
    assert sorted(draw.item) == list(range(7))
    assert draw.inclusion.tolist() == [1.0] * 7


def test_audit_of_equal_scores_has_one_stratum_and_of_none_is_empty():
    draw = draw_audit(np.full(10, 0.4), 4, np.random.default_rng(0))
    assert draw.stratum.tolist() == [0] * 4
    assert draw.inclusion.tolist() == [0.4] * 4
    assert len(draw_audit(np.zeros(0), 4, np.random.default_rng(0)).item) == 0


def test_strata_have_equal_sums_of_roots_and_none_is_empty(score):
    edges = cut_strata(score, 4)
    counts, bounds = np.histogram(score, 200)
    sums = [
        np.sqrt(counts[(bounds[:-1] >= low) & (bounds[:-1] < high)]).sum()
        for low, high in zip([-1, *edges], [*edges, 2], strict=True)
    ]
    assert np.ptp(sums) < 2 * np.sqrt(counts.max())
    gap = np.array([0.0] * 50 + [0.99] * 5 + [1.0] * 5)
    cut = cut_strata(gap, 5)
    assert np.bincount(np.searchsorted(cut, gap, side="right")).min() > 0


def test_shares_are_even_where_sizes_allow():
    assert share_evenly(np.array([2, 100, 50]), 30).tolist() == [2, 14, 14]
    assert share_evenly(np.array([2, 3]), 5).tolist() == [2, 3]
    assert share_evenly(np.array([10, 10, 10]), 11).sum() == 11


def pool_of(score, species, **more):
    score, species = np.asarray(score, dtype=float), np.asarray(species)
    more.setdefault("site", np.arange(len(score)))
    more.setdefault("calls", np.zeros(species.max() + 1, dtype=int))
    return TeachingPool(species, score, **more)


def test_teaching_takes_the_best_candidates_of_the_species_with_the_fewest_calls():
    score = np.tile(np.linspace(0.05, 0.95, 10), 3)
    pool = pool_of(score, np.repeat([0, 1, 2], 10), calls=np.array([50, 50, 0]))
    drawn = draw_teach(pool, 8, np.random.default_rng(0))
    assert drawn[0] == 29
    assert set(drawn[pool.species[drawn] == 2]) == {27, 28, 29}


def test_teaching_takes_the_uncertain_candidates_of_known_species():
    score = np.linspace(0, 1, 101)
    pool = pool_of(score, np.zeros(101, dtype=int), calls=np.array([9]))
    drawn = draw_teach(pool, 20, np.random.default_rng(0))
    assert sum(abs(score[drawn] - 0.5) < 0.1) >= 9


def test_teaching_prefers_disagreement_of_members():
    disagreement = np.zeros(100)
    disagreement[40:50] = 0.3
    pool = pool_of(np.full(100, 0.3), np.zeros(100, int), disagreement=disagreement)
    drawn = draw_teach(pool, 10, np.random.default_rng(0))
    assert sum((drawn >= 40) & (drawn < 50)) >= 5


@pytest.mark.parametrize(
    ("disagreement", "doubtful"),
    [((0.4, 0.3, 0.2, 0.1, np.nan, 0.1), 4), ((0.1, 0.2, 0.3, 0.4, np.nan, 0.4), 3)],
)
def test_unknown_disagreement_is_neither_small_nor_large(disagreement, doubtful):
    score = np.array([0.9, 0.9, 0.9, 0.3, 0.3, 0.3])
    pool = pool_of(score, np.zeros(6, int), disagreement=np.array(disagreement))
    drawn = draw_teach(pool, 6, np.random.default_rng(0))
    assert drawn[1] == doubtful
    assert sorted(drawn) == list(range(6))


def test_teaching_avoids_what_is_like_what_was_judged_or_just_drawn():
    rng = np.random.default_rng(0)
    centres = np.eye(4)
    vector = np.repeat(centres, 25, axis=0) + rng.normal(0, 0.01, (100, 4))
    pool = pool_of(
        *(np.full(100, 0.5), np.zeros(100, int)),
        vector=vector, judged=centres[:1], judged_species=np.zeros(1, int),
    )  # fmt: skip
    kinds = draw_teach(pool, 4, rng) // 25  # the second and the fourth are the doubtful ones
    assert kinds[1] not in {0, kinds[0]}
    assert kinds[3] not in {0, *kinds[:3]} or len({0, *kinds[:3]}) == 4


def test_teaching_is_spread_over_sites():
    pool = pool_of(np.full(90, 0.5), np.zeros(90, int), site=np.repeat([0, 1, 2], [80, 5, 5]))
    drawn = draw_teach(pool, 9, np.random.default_rng(0))
    assert np.bincount(pool.site[drawn]).tolist() == [3, 3, 3]


def test_teaching_draws_each_candidate_once_and_at_most_all():
    pool = pool_of(np.linspace(0, 1, 12), np.repeat([0, 1], 6))
    assert sorted(draw_teach(pool, 40, np.random.default_rng(0))) == list(range(12))
