"""How common a species is, from scores that nobody judged."""

import numpy as np
import pytest
from scipy.special import expit, logit

from antpitta.core.types import Annotation, Classes
from antpitta.scores.prevalence import (
    estimate_prevalence,
    prevalence_from_scores,
    prevalence_per_member,
)


def heard(rng, truth, low=-1.0, high=4.0):
    """Scores of recordings with and without a class, as models out of fold give them."""
    size = truth.shape
    return expit(np.where(truth, rng.normal(high, 1.8, size), rng.normal(low, 1.0, size)))


def belief(recordings, share, sure=1.0):
    """How likely each count of recordings is, around ``share`` (classes,) of them."""
    odds = logit(np.clip(np.arange(1, recordings + 1) / recordings, 0.001, 0.999))
    weight = np.exp(-(((odds[:, None] - logit(np.asarray(share))) / sure) ** 2) / 2)
    return weight / weight.sum(axis=0)


def test_what_lies_well_apart_is_counted():
    truth = np.repeat([[True], [False]], [40, 120], axis=0)
    rng = np.random.default_rng(0)
    scores = heard(rng, truth, low=-4, high=6)
    nobody = np.zeros_like(truth)
    flat = np.full((160, 1), 1 / 160)
    # a recording counts as half a one, and the expected share of 80 with 20 is (20 + 1) / (80 + 2)
    assert prevalence_from_scores(scores, nobody, flat)[0] == pytest.approx(21 / 82, abs=0.003)
    assert scores.mean() == pytest.approx(0.26, abs=0.02)
    sure = prevalence_from_scores(scores, nobody, belief(160, [0.4], 0.05))
    assert sure[0] == pytest.approx(0.4, abs=0.02)


def test_the_mixture_is_nearer_to_the_truth_than_the_mean_of_the_scores():
    rng = np.random.default_rng(1)
    share = np.exp(rng.uniform(np.log(0.03), np.log(0.9), 60))
    truth = rng.random((160, 60)) < share
    present = truth & (rng.random(truth.shape) < 0.1)
    scores = heard(rng, truth, low=rng.normal(-1, 0.7, 60))
    before = np.clip(share * np.exp(rng.normal(0, 0.9, 60)), 0.02, 0.95)
    real = logit(truth.mean(axis=0).clip(0.01, 0.99))

    def error(found):
        return float(np.sqrt(np.mean((logit(found.clip(0.01, 0.99)) - real) ** 2)))

    found = prevalence_from_scores(scores, present, belief(160, before, 0.9))
    assert error(found) < 0.45
    assert error(scores.mean(axis=0)) > 1.2
    assert error(before) > 0.8


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.0, 0.1), (1.0, 0.85, 1.0)])
def test_a_class_that_is_nowhere_or_everywhere_is_not_halved(share, least, most):
    rng = np.random.default_rng(2)
    truth = np.tile(rng.random((160, 1)) < share, (1, 1))
    others = rng.random((160, 5)) < 0.3
    scores = heard(rng, np.concatenate([truth, others], axis=1))
    before = np.array([0.05 if share == 0 else 0.8, *[0.3] * 5])
    unsure = belief(160, before, 1.5)
    found = prevalence_from_scores(scores, np.zeros(scores.shape, dtype=bool), unsure)
    assert least <= found[0] <= most


def test_a_recording_with_a_present_box_holds_the_class_whatever_its_score():
    rng = np.random.default_rng(3)
    truth = rng.random((100, 1)) < 0.2
    scores = heard(rng, truth, low=-4, high=5)
    present = np.zeros_like(truth)
    plain = prevalence_from_scores(scores, present, belief(100, [0.2]))[0]
    present[np.flatnonzero(~truth[:, 0])[:2]] = True
    certain = prevalence_from_scores(scores, present, belief(100, [0.2]))[0]
    assert plain + 0.015 < certain < plain + 0.05  # 2 of 108


def test_classes_of_few_boxes_are_not_estimated():
    classes = Classes(("a", "b"))
    names = [f"r{i}" for i in range(30)]
    rng = np.random.default_rng(4)
    scores = heard(rng, rng.random((30, 2)) < 0.3)
    boxes = [Annotation(f"r{i}", 0, 1, "a") for i in range(5)]
    boxes += [Annotation("r0", 0, 1, "b"), Annotation("r1", 0, 1, "b")]
    boxes += [Annotation(f"r{i}", 0, 1, "b", present=False) for i in range(9)]
    boxes += [Annotation(f"elsewhere{i}", 0, 1, "b") for i in range(9)]
    found = estimate_prevalence(scores, names, boxes, classes)
    assert 0 < found[0] < 1
    assert np.isnan(found[1])
    kept = prevalence_per_member(scores, names, boxes, classes)
    assert kept[0] == found[0]
    assert kept[1] == pytest.approx(scores[:, 1].mean())
    assert np.isnan(estimate_prevalence(scores[:0], [], boxes, classes)).all()


def test_scores_of_nothing_but_0_1_or_one_value_are_no_trouble():
    before, nobody = np.array([0.3, 0.3, 0.3]), np.zeros((20, 3), dtype=bool)
    scores = np.zeros((20, 3))
    scores[:, 1], scores[:5, 2] = 0.5, 1
    found = prevalence_from_scores(scores, nobody, belief(20, before))
    assert ((found > 0) & (found < 1)).all()
    assert found[2] == pytest.approx(5 / 20, abs=0.1)
