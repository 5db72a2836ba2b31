"""Rescaled odds, the prior from boxes, and the mixture that estimates prevalences."""

import numpy as np
import pytest
from scipy.special import expit, logit

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation, Classes
from antpitta.scores.prevalence import (
    estimate_prevalence,
    fit_prevalence,
    prevalence_or_mean,
    prior_from_boxes,
    prior_shifts,
    rescale_odds,
)

CLASSES = Classes(("a", "b"))

# ---- rescaling


def odds(p):
    return p / (1 - p)


def test_means_are_the_prevalences_and_all_odds_have_one_factor():
    scores = np.random.default_rng(0).uniform(0.01, 0.99, (200, 3))
    expected = np.array([0.04, 0.5, 0.92])
    rescaled = rescale_odds(scores, expected)
    np.testing.assert_allclose(rescaled.mean(axis=0), expected, atol=1e-9)
    factor = odds(rescaled) / odds(scores)
    np.testing.assert_allclose(factor, np.tile(factor[0], (200, 1)), rtol=1e-6)


def test_rescaled_scores_by_hand():
    # odds 1/3 and 3 become 1 and 9 by the factor 3: probabilities 1/2 and 9/10, mean 0.7
    rescaled = rescale_odds(np.array([[0.25], [0.75]]), np.array([0.7]))
    np.testing.assert_allclose(rescaled, [[0.5], [0.9]], atol=1e-9)


def test_order_of_extreme_scores_stays():
    scores = np.array([[1e-9], [1e-5], [0.5], [1 - 1e-9]])
    rescaled = rescale_odds(scores, np.array([0.001]))
    assert (np.diff(rescaled[:, 0]) > 0).all()
    assert rescaled.mean() == pytest.approx(0.001)


def test_scores_of_exactly_0_and_1_change():
    rescaled = rescale_odds(np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0.9]))
    assert rescaled.mean() == pytest.approx(0.9)
    assert rescaled[0] < rescaled[2]


@pytest.mark.parametrize("constant", [0.0, 0.3, 1.0])
def test_constant_scores_become_the_prevalence(constant):
    rescaled = rescale_odds(np.full((5, 1), constant), np.array([0.2]))
    np.testing.assert_allclose(rescaled, 0.2, atol=1e-6)


def test_means_of_a_reference_are_the_prevalences():
    scores = np.array([[0.2], [0.5], [0.9]])
    reference = np.array([[0.5], [0.9]])
    rescaled = rescale_odds(scores, np.array([0.3]), reference)
    assert rescaled[[1, 2]].mean() == pytest.approx(0.3)
    factor = rescaled / (1 - rescaled) / (scores / (1 - scores))
    assert factor == pytest.approx(factor[0, 0])


def test_nan_prevalence_leaves_its_class_unchanged():
    scores = np.array([[0.2, 0.3], [0.4, 0.5]])
    rescaled = rescale_odds(scores, np.array([np.nan, 0.9]))
    np.testing.assert_array_equal(rescaled[:, 0], scores[:, 0])
    assert rescaled[:, 1].mean() == pytest.approx(0.9)
    np.testing.assert_array_equal(scores, [[0.2, 0.3], [0.4, 0.5]])  # the input is unchanged


def test_prevalences_of_0_and_1_give_scores_of_0_and_1():
    rescaled = rescale_odds(np.array([[0.2, 0.2], [0.9, 0.9]]), np.array([0.0, 1.0]))
    np.testing.assert_array_equal(rescaled, [[0, 1], [0, 1]])


def test_float32_scores_and_no_rows_are_accepted():
    rescaled = rescale_odds(np.array([[0.1], [1.0]], dtype=np.float32), np.array([0.25]))
    assert rescaled.mean() == pytest.approx(0.25)
    assert rescale_odds(np.empty((0, 2)), np.array([0.1, 0.2])).shape == (0, 2)


@pytest.mark.parametrize(
    ("scores", "prevalence"), [([[0.5]], [0.1, 0.2]), ([[1.5]], [0.1]), ([[np.nan]], [0.1])]
)
def test_scores_that_are_no_probabilities_are_refused(scores, prevalence):
    with pytest.raises(ValueError):
        rescale_odds(np.array(scores), np.array(prevalence))


def test_prevalence_outside_0_to_1_is_refused():
    with pytest.raises(UserError, match="class 1 is 30") as error:
        rescale_odds(np.array([[0.5, 0.5]]), np.array([0.1, 30]))
    assert error.value.code == "E_PREVALENCE_VALUE"


# ---- the prior from boxes


def share_from_boxes(boxes, recordings):
    prior = prior_from_boxes(boxes, CLASSES, recordings)
    return prior.T @ np.arange(1, recordings + 1) / recordings


def test_boxes_in_few_recordings_give_a_rare_species():
    boxes = [Annotation("r", i, i + 1, "a") for i in range(3)]
    # Three boxes in one recording: certain if 1 of 2 recordings holds the species, 2 of 4 ways if
    # both do, and 1 was twice as probable before.
    assert prior_from_boxes(boxes, CLASSES, recordings=2)[:, 0] == pytest.approx([4 / 5, 1 / 5])
    rare = [Annotation(f"r{i % 2}", i, i + 1, "a") for i in range(6)]
    common = [Annotation(f"r{i}", 0, 1, "b") for i in range(6)]
    share = share_from_boxes([*rare, *common], 40)
    assert 2 / 40 < share[0] < 0.1
    assert 0.4 < share[1] < 0.95


def test_prior_is_right_on_average_where_its_assumptions_hold():
    rng = np.random.default_rng(0)
    truth, estimate = [], []
    for held in np.exp(rng.uniform(0, np.log(100), 1000)).astype(int):
        calls = rng.exponential(size=held)
        picks = rng.choice(held, 12, p=calls / calls.sum())
        boxes = [Annotation(f"r{r}", i, i + 1, "a") for i, r in enumerate(picks)]
        truth.append(held / 100)
        estimate.append(share_from_boxes(boxes, 100)[0])
    assert np.mean(estimate) == pytest.approx(np.mean(truth), rel=0.05)
    assert np.corrcoef(np.log(estimate), np.log(truth))[0, 1] > 0.85


def test_prior_reaches_all_recordings_and_two_boxes_give_none():
    many = [Annotation(f"r{i}", 0, 1, "a") for i in range(30)]
    few = [Annotation(f"r{i}", 0, 1, "b") for i in range(2)]
    prior = prior_from_boxes([*many, *few], CLASSES, recordings=30)
    assert prior[:, 0] == pytest.approx([*[0] * 29, 1])
    assert np.isnan(prior[:, 1]).all()


def test_absent_boxes_give_no_prior():
    absent = [Annotation(f"r{i}", 0, 1, "a", present=False) for i in range(9)]
    assert np.isnan(prior_from_boxes(absent, CLASSES, 20)).all()


# ---- the mixture


def random_scores(rng, truth, low=-1.0, high=4.0):
    """Scores of recordings with and without a class, like those of models out of fold."""
    size = truth.shape
    return expit(np.where(truth, rng.normal(high, 1.8, size), rng.normal(low, 1.0, size)))


def prior_around(share, recordings, spread=1.0):
    """How probable each number of recordings is, around ``share`` (classes,) of them."""
    logits = logit(np.clip(np.arange(1, recordings + 1) / recordings, 0.001, 0.999))
    weight = np.exp(-(((logits[:, None] - logit(np.asarray(share))) / spread) ** 2) / 2)
    return weight / weight.sum(axis=0)


def test_well_separated_scores_are_counted():
    truth = np.repeat([[True], [False]], [40, 120], axis=0)
    rng = np.random.default_rng(0)
    scores = random_scores(rng, truth, low=-4, high=6)
    no_boxes = np.zeros_like(truth)
    flat = np.full((160, 1), 1 / 160)
    # A recording counts half, and the expected share of 20 in 80 is (20 + 1) / (80 + 2).
    assert fit_prevalence(scores, no_boxes, flat)[0] == pytest.approx(21 / 82, abs=0.003)
    assert scores.mean() == pytest.approx(0.26, abs=0.02)
    strong = fit_prevalence(scores, no_boxes, prior_around([0.4], 160, 0.05))
    assert strong[0] == pytest.approx(0.4, abs=0.02)


def test_mixture_is_closer_to_the_truth_than_the_mean_score():
    rng = np.random.default_rng(1)
    share = np.exp(rng.uniform(np.log(0.03), np.log(0.9), 60))
    truth = rng.random((160, 60)) < share
    present = truth & (rng.random(truth.shape) < 0.1)
    scores = random_scores(rng, truth, low=rng.normal(-1, 0.7, 60))
    guess = np.clip(share * np.exp(rng.normal(0, 0.9, 60)), 0.02, 0.95)
    expected = logit(truth.mean(axis=0).clip(0.01, 0.99))

    def error(estimate):
        return float(np.sqrt(np.mean((logit(estimate.clip(0.01, 0.99)) - expected) ** 2)))

    estimate = fit_prevalence(scores, present, prior_around(guess, 160, 0.9))
    assert error(estimate) < 0.45
    assert error(scores.mean(axis=0)) > 1.2
    assert error(guess) > 0.8


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.0, 0.1), (1.0, 0.85, 1.0)])
def test_class_that_is_nowhere_or_everywhere_is_not_split(share, least, most):
    rng = np.random.default_rng(2)
    truth = np.tile(rng.random((160, 1)) < share, (1, 1))
    others = rng.random((160, 5)) < 0.3
    scores = random_scores(rng, np.concatenate([truth, others], axis=1))
    guess = np.array([0.05 if share == 0 else 0.8, *[0.3] * 5])
    prior = prior_around(guess, 160, 1.5)
    estimate = fit_prevalence(scores, np.zeros(scores.shape, dtype=bool), prior)
    assert least <= estimate[0] <= most


def test_recording_with_a_present_box_holds_the_class_whatever_its_score():
    rng = np.random.default_rng(3)
    truth = rng.random((100, 1)) < 0.2
    scores = random_scores(rng, truth, low=-4, high=5)
    present = np.zeros_like(truth)
    plain = fit_prevalence(scores, present, prior_around([0.2], 100))[0]
    present[np.flatnonzero(~truth[:, 0])[:2]] = True
    certain = fit_prevalence(scores, present, prior_around([0.2], 100))[0]
    assert plain + 0.015 < certain < plain + 0.05  # 2 of 108


def test_class_with_few_boxes_is_not_estimated():
    names = [f"r{i}" for i in range(30)]
    rng = np.random.default_rng(4)
    scores = random_scores(rng, rng.random((30, 2)) < 0.3)
    boxes = [Annotation(f"r{i}", 0, 1, "a") for i in range(5)]
    boxes += [Annotation("r0", 0, 1, "b"), Annotation("r1", 0, 1, "b")]
    boxes += [Annotation(f"r{i}", 0, 1, "b", present=False) for i in range(9)]
    boxes += [Annotation(f"elsewhere{i}", 0, 1, "b") for i in range(9)]
    estimate = estimate_prevalence(scores, names, boxes, CLASSES)
    assert 0 < estimate[0] < 1
    assert np.isnan(estimate[1])
    assert np.isnan(estimate_prevalence(scores[:0], [], boxes, CLASSES)).all()
    few = prevalence_or_mean(scores, names, boxes, CLASSES)
    np.testing.assert_allclose(few, scores.mean(axis=0))
    several = [*boxes, *(Annotation(f"r{i}", 2, 3, "a") for i in range(16))]
    filled = prevalence_or_mean(scores, names, several, CLASSES)
    assert filled[0] == estimate_prevalence(scores, names, several, CLASSES)[0]
    assert filled[1] == (pytest.approx(scores[:, 1].mean()))


def test_shifts_are_the_log_odds_of_the_prevalence_or_half_way_to_one_mean():
    names = [f"r{i}" for i in range(30)]
    rng = np.random.default_rng(4)
    scores = random_scores(rng, rng.random((30, 2)) < 0.3)
    few = [Annotation(f"r{i}", 0, 1, label) for i in range(5) for label in "ab"]
    shifted = expit(logit(scores) + 2 * prior_shifts(scores, names, few, CLASSES))
    np.testing.assert_allclose(shifted.mean(axis=0), shifted.mean(), rtol=1e-6)
    many = [Annotation(f"r{i}", 0, 1, label) for i in range(10) for label in "ab"]
    expected = logit(estimate_prevalence(scores, names, many, CLASSES))
    np.testing.assert_allclose(prior_shifts(scores, names, many, CLASSES), expected)


def test_constant_scores_have_a_finite_estimate():
    guess, no_boxes = np.array([0.3, 0.3, 0.3]), np.zeros((20, 3), dtype=bool)
    scores = np.zeros((20, 3))
    scores[:, 1], scores[:5, 2] = 0.5, 1
    estimate = fit_prevalence(scores, no_boxes, prior_around(guess, 20))
    assert ((estimate > 0) & (estimate < 1)).all()
    assert estimate[2] == pytest.approx(5 / 20, abs=0.1)
