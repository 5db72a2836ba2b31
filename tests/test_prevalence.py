"""Rescaled odds: a factor found by hand, and what must not change."""

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.scores.prevalence import rescale_odds


def odds(p):
    return p / (1 - p)


def test_means_are_the_prevalences_and_every_odds_has_one_factor():
    scores = np.random.default_rng(0).uniform(0.01, 0.99, (200, 3))
    wanted = np.array([0.04, 0.5, 0.92])
    found = rescale_odds(scores, wanted)
    np.testing.assert_allclose(found.mean(axis=0), wanted, atol=1e-9)
    factor = odds(found) / odds(scores)
    np.testing.assert_allclose(factor, np.tile(factor[0], (200, 1)), rtol=1e-6)


def test_a_factor_worked_out_by_hand():
    # odds 1/3 and 3 become 1 and 9 by the factor 3: probabilities 1/2 and 9/10, mean 0.7
    found = rescale_odds(np.array([[0.25], [0.75]]), np.array([0.7]))
    np.testing.assert_allclose(found, [[0.5], [0.9]], atol=1e-9)


def test_order_stays_though_scores_are_extreme():
    scores = np.array([[1e-9], [1e-5], [0.5], [1 - 1e-9]])
    found = rescale_odds(scores, np.array([0.001]))
    assert (np.diff(found[:, 0]) > 0).all()
    assert found.mean() == pytest.approx(0.001)


def test_scores_of_exactly_0_and_1_still_move():
    found = rescale_odds(np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0.9]))
    assert found.mean() == pytest.approx(0.9)
    assert found[0] < found[2]


@pytest.mark.parametrize("constant", [0.0, 0.3, 1.0])
def test_constant_scores_become_the_prevalence(constant):
    found = rescale_odds(np.full((5, 1), constant), np.array([0.2]))
    np.testing.assert_allclose(found, 0.2, atol=1e-6)


def test_rows_may_be_judged_by_others():
    scores = np.array([[0.2], [0.5], [0.9]])
    highest = np.array([[0.5], [0.9]])
    found = rescale_odds(scores, np.array([0.3]), highest)
    assert found[[1, 2]].mean() == pytest.approx(0.3)
    factor = found / (1 - found) / (scores / (1 - scores))
    assert factor == pytest.approx(factor[0, 0])


def test_an_unknown_prevalence_leaves_its_species_alone():
    scores = np.array([[0.2, 0.3], [0.4, 0.5]])
    found = rescale_odds(scores, np.array([np.nan, 0.9]))
    np.testing.assert_array_equal(found[:, 0], scores[:, 0])
    assert found[:, 1].mean() == pytest.approx(0.9)
    np.testing.assert_array_equal(scores, [[0.2, 0.3], [0.4, 0.5]])  # the input is not touched


def test_never_and_always_are_taken_at_their_word():
    found = rescale_odds(np.array([[0.2, 0.2], [0.9, 0.9]]), np.array([0.0, 1.0]))
    np.testing.assert_array_equal(found, [[0, 1], [0, 1]])


def test_single_precision_and_no_rows_are_fine():
    found = rescale_odds(np.array([[0.1], [1.0]], dtype=np.float32), np.array([0.25]))
    assert found.mean() == pytest.approx(0.25)
    assert rescale_odds(np.empty((0, 2)), np.array([0.1, 0.2])).shape == (0, 2)


@pytest.mark.parametrize(
    ("scores", "prevalence", "error", "message"),
    [
        ([[0.5]], [0.1, 0.2], ValueError, "do not fit"),
        ([[1.5]], [0.1], ValueError, "no probability"),
        ([[np.nan]], [0.1], ValueError, "no probability"),
        ([[0.5, 0.5]], [0.1, 30], UserError, "class 1 is 30; give a share"),
    ],
)
def test_refuses(scores, prevalence, error, message):
    with pytest.raises(error, match=message):
        rescale_odds(np.array(scores), np.array(prevalence))
