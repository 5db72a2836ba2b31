"""The loss against its formulas, worked out by hand; unknown cells have no gradient."""

import math

import numpy as np
import pytest
import torch

from antpitta.core.stages import LossConfig
from antpitta.model.inputs import Mixup
from antpitta.model.losses import CellTargets, masked_loss

LN2 = math.log(2)
LN3 = math.log(3)

# Three windows, two species. sigmoid(ln 3) = 3/4: BCE+ = ln 4/3, BCE- = ln 4.
LOGITS = [[LN3, 0.0], [0.0, -LN3], [LN3, 0.0]]
#     +1    ?     +1   -1      -1   ?
VALUE = [[1, 0], [1, 0], [0, 0]]
WEIGHT = [[1, 0], [1, 1], [1, 0]]
POSITIVES = math.log(4 / 3) + LN2
NEGATIVES = math.log(4 / 3) + math.log(4)


def targets(value, weight):
    return CellTargets(torch.tensor(value, dtype=torch.float), torch.tensor(weight).float())


UNKNOWN = targets([[0, 0]] * 3, [[0, 0]] * 3)


def loss_of(config, pseudo_labels=None, class_weight=None, logits=LOGITS, value=VALUE):
    labels = targets(value, WEIGHT)
    return float(masked_loss(torch.tensor(logits), labels, pseudo_labels, config, class_weight))


def loss_and_gradient(logits, *args):
    logits = torch.tensor(logits, requires_grad=True)
    loss = masked_loss(logits, *args)
    loss.backward()
    return float(loss.detach()), logits.grad


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("sum", POSITIVES + NEGATIVES),
        ("positives", POSITIVES / 2 + NEGATIVES),
        ("balanced", POSITIVES / 2 + NEGATIVES / 2),
        ("mean", (POSITIVES + NEGATIVES) / 4),
    ],
)
def test_loss_each_reduction_equals_its_formula(reduction, expected):
    assert loss_of(LossConfig(reduction=reduction)) == pytest.approx(expected)


# Soft positives in the two cells without label: each has logit 0, so BCE+ = ln 2.
PSEUDO_LABELS = targets([[0, 1], [0, 0], [0, 1]], [[0, 1], [0, 0], [0, 1]])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("sum", POSITIVES + NEGATIVES + 0.5 * 2 * LN2),
        # two calls, and two soft ones that count half: three in all
        ("positives", (POSITIVES + 0.5 * 2 * LN2) / 3 + NEGATIVES),
        ("balanced", POSITIVES / 2 + NEGATIVES / 2 + 0.5 * LN2),
        ("mean", (POSITIVES + NEGATIVES) / 4 + 0.5 * LN2),
    ],
)
def test_loss_with_pseudo_labels_adds_half_of_theirs(reduction, expected):
    assert loss_of(LossConfig(reduction=reduction), PSEUDO_LABELS) == pytest.approx(expected)


def test_loss_soft_weight_scales_pseudo_labels():
    without = loss_of(LossConfig(reduction="balanced"))
    none, twice = (LossConfig(reduction="balanced", soft_weight=w) for w in (0.0, 2.0))
    assert loss_of(none, PSEUDO_LABELS) == pytest.approx(without)
    assert loss_of(twice, PSEUDO_LABELS) - without == pytest.approx(2 * LN2)


@pytest.mark.parametrize("reduction", ["sum", "positives", "balanced", "mean"])
def test_loss_positive_weight_scales_positives_and_soft_positives(reduction):
    plain, twice, none = (
        loss_of(LossConfig(reduction=reduction, positive_weight=weight), PSEUDO_LABELS)
        for weight in (1.0, 2.0, 0.0)
    )
    assert twice - none == pytest.approx(2 * (plain - none))


def test_loss_pseudo_label_below_1_is_partly_negative():
    pseudo_labels = targets([[0, 0.75], [0, 0], [0, 0]], [[0, 1], [0, 0], [0, 0]])
    logits = [[LN3, LN3], [0.0, -LN3], [LN3, 0.0]]
    config = LossConfig(reduction="balanced")
    added = loss_of(config, pseudo_labels, logits=logits) - loss_of(config, logits=logits)
    assert added == pytest.approx(0.5 * (0.75 * math.log(4 / 3) + 0.25 * math.log(4)))


def test_loss_unknown_as_absent_fills_cells_without_label_and_pseudo_label():
    config = LossConfig(unknown="absent", reduction="mean")
    assert loss_of(config) == pytest.approx((POSITIVES + NEGATIVES + 2 * LN2) / 6)
    pseudo_labels = targets([[0, 1], [0, 0], [0, 0]], [[0, 1], [0, 0], [0, 0]])
    expected = (POSITIVES + NEGATIVES + LN2) / 5 + 0.5 * LN2
    assert loss_of(config, pseudo_labels) == pytest.approx(expected)


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(),
        LossConfig(reduction="sum"),
        LossConfig(reduction="balanced"),
        LossConfig(reduction="mean", focal_gamma=2.0),
    ],
)
def test_loss_unknown_cells_have_no_gradient(config):
    logits = torch.randn(3, 2, generator=torch.manual_seed(0)).tolist()
    _, gradient = loss_and_gradient(logits, targets(VALUE, WEIGHT), None, config)
    assert ((gradient != 0) == torch.tensor(WEIGHT).bool()).all()


def test_loss_sum_has_gradient_sigmoid_minus_value():
    _, gradient = loss_and_gradient(
        LOGITS, targets(VALUE, WEIGHT), None, LossConfig(reduction="sum")
    )
    expected = (1 / (1 + np.exp(-np.array(LOGITS))) - np.array(VALUE)) * np.array(WEIGHT)
    np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_loss_focal_factor_applies_to_positives_only(gamma):
    focal = (1 / 4) ** gamma * math.log(4 / 3) + (1 / 2) ** gamma * LN2
    assert loss_of(LossConfig(focal_gamma=gamma)) == pytest.approx(focal / 2 + NEGATIVES)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("logit", [-200.0, -30.0, 30.0, 200.0])
def test_loss_extreme_logits_stay_finite(gamma, logit):
    labels = targets([[1, 0], [1, 0]], [[1, 1], [1, 0]])
    loss, gradient = loss_and_gradient(
        [[logit] * 2] * 2, labels, None, LossConfig(focal_gamma=gamma)
    )
    assert math.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_loss_unlabelled_target_pulls_unknown_cells_to_the_probability():
    config = LossConfig(unlabelled_target=0.45, unlabelled_weight=0.1)
    assert loss_of(config) - loss_of(LossConfig()) == pytest.approx(0.1 * LN2)  # both at 1/2
    _, gradient = loss_and_gradient([[0.0] * 2] * 3, UNKNOWN, None, config)
    np.testing.assert_allclose(gradient.numpy(), 0.1 * (0.5 - 0.45) / 6, rtol=1e-4)
    at_target = [[math.log(0.45 / 0.55)] * 2] * 3
    _, gradient = loss_and_gradient(at_target, UNKNOWN, None, config)
    np.testing.assert_allclose(gradient.numpy(), 0, atol=1e-8)


def test_loss_unlabelled_target_leaves_cells_with_pseudo_label():
    logits = [[LN3, 5.0], [0.0, -LN3], [LN3, 5.0]]
    losses = [
        loss_of(LossConfig(unlabelled_target=target), PSEUDO_LABELS, logits=logits)
        for target in (0.45, None)
    ]
    assert losses[0] == losses[1]


def test_loss_class_weights_scale_the_positives_of_a_class():
    expected = 3 * POSITIVES + NEGATIVES
    class_weight = torch.tensor([3.0, 1.0])
    loss = loss_of(LossConfig(reduction="sum"), class_weight=class_weight)
    assert loss == pytest.approx(expected)


@pytest.mark.parametrize("reduction", ["sum", "positives", "balanced", "mean"])
def test_loss_without_known_cells_is_0_with_gradient_0(reduction):
    logits = torch.randn(3, 2, generator=torch.manual_seed(0)).tolist()
    config = LossConfig(reduction=reduction, focal_gamma=1.0)
    loss, gradient = loss_and_gradient(logits, UNKNOWN, UNKNOWN, config)
    assert loss == 0
    assert (gradient == 0).all()


def test_loss_of_absents_only_is_their_sum():
    assert loss_of(LossConfig(), value=[[0, 0]] * 3) == pytest.approx(
        math.log(4) + LN2 + math.log(4 / 3) + math.log(4)
    )


@pytest.mark.parametrize("reduction", ["sum", "positives", "balanced", "mean"])
def test_loss_of_parts_with_global_targets_adds_up_to_that_of_the_batch(reduction):
    config = LossConfig(reduction=reduction, unknown="absent", unlabelled_target=0.2)
    labels, logits = targets(VALUE, WEIGHT), torch.tensor(LOGITS)
    whole = masked_loss(logits, labels, PSEUDO_LABELS, config)
    parts = sum(
        masked_loss(
            logits[rows],
            labels.take(rows),
            PSEUDO_LABELS.take(rows),
            config,
            global_targets=(labels, PSEUDO_LABELS),
        )
        for rows in (slice(0, 1), slice(1, 3))
    )
    torch.testing.assert_close(parts, whole)


MIXUP = Mixup(torch.tensor([1, 2, 0]), torch.tensor(0.75))


def test_apply_mixup_mixes_positives_and_negatives():
    mixed = targets(VALUE, WEIGHT).apply_mixup(MIXUP)
    np.testing.assert_allclose(mixed.positive, [[1, 0], [0.75, 0], [0.25, 0]])
    np.testing.assert_allclose(mixed.negative, [[0, 0.25], [0.25, 0.75], [0.75, 0]])
    assert mixed.value[1, 0] == 0.75
    assert mixed.weight[2, 1] == 0


def test_apply_manifold_mixup_mixes_positives_and_keeps_negatives():
    labels = targets([[1, 0], [0, 1], [0, 0]], [[1, 1], [1, 1], [0, 0]])
    mixed = labels.apply_manifold_mixup(MIXUP)
    np.testing.assert_allclose(mixed.positive, [[0.75, 0.25], [0, 0.75], [0.25, 0]])
    np.testing.assert_allclose(mixed.negative, [[0, 1], [1, 0], [0, 0]])


def test_loss_after_manifold_mixup_divides_by_the_mixed_positives():
    mixup = Mixup(torch.tensor([1, 0]), torch.tensor(0.75))
    mixed = targets([[1, 0], [0, 0]], [[1, 0], [0, 0]]).apply_manifold_mixup(mixup)
    logits = torch.tensor([[LN3, 0.0], [0.0, 0.0]])
    expected = 0.75 * math.log(4 / 3) + 0.25 * LN2  # positive parts 0.75 and 0.25: their sum is 1
    assert float(masked_loss(logits, mixed, None, LossConfig())) == pytest.approx(expected)


@pytest.mark.parametrize("share", [1e-40, 1.3e-26, 5e-26, 1e-9])
@pytest.mark.parametrize("reduction", ["positives", "balanced", "mean"])
def test_loss_vanishing_share_of_a_call_has_a_finite_gradient(reduction, share):
    # Happened with the recipe rfcx at full size, when every window was mixed by a share of its own.
    labels = targets([[1, 0], [0, 0]], [[share, 0], [0, 0]])
    _, gradient = loss_and_gradient([[0.0, 0.0]] * 2, labels, None, LossConfig(reduction=reduction))
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e-6


def test_loss_a_thousandth_of_the_only_call_counts_as_a_whole_call():
    labels = targets([[1], [0]], [[1e-3], [0]])
    _, gradient = loss_and_gradient([[0.0], [0.0]], labels, None, LossConfig(reduction="positives"))
    assert gradient[:, 0].tolist() == pytest.approx([-0.5, 0.0])
