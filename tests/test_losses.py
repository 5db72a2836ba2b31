"""The loss, against RECIPE's formulas worked out by hand; unknown cells have no say."""

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
Z = [[LN3, 0.0], [0.0, -LN3], [LN3, 0.0]]
#     +1    ?     +1   -1      -1   ?
VALUE = [[1, 0], [1, 0], [0, 0]]
WEIGHT = [[1, 0], [1, 1], [1, 0]]
POSITIVES = math.log(4 / 3) + LN2
NEGATIVES = math.log(4 / 3) + math.log(4)


def cells(value, weight):
    return CellTargets(torch.tensor(value, dtype=torch.float), torch.tensor(weight).float())


def found(loss, pseudo_labels=None, class_weight=None, z=Z, value=VALUE, weight=WEIGHT):
    return float(
        masked_loss(torch.tensor(z), cells(value, weight), pseudo_labels, loss, class_weight)
    )


@pytest.mark.parametrize(
    ("reduce", "wanted"),
    [
        ("sum", POSITIVES + NEGATIVES),
        ("positives", POSITIVES / 2 + NEGATIVES),
        ("cells", (POSITIVES + NEGATIVES) / 4),
    ],
)
def test_each_reduction_equals_its_formula(reduce, wanted):
    assert found(LossConfig(reduction=reduce)) == pytest.approx(wanted)


# Soft positives in the two cells nobody labelled: each has logit 0, so BCE+ = ln 2.
TAUGHT = cells([[0, 1], [0, 0], [0, 1]], [[0, 1], [0, 0], [0, 1]])


@pytest.mark.parametrize(
    ("reduce", "wanted"),
    [
        ("sum", POSITIVES + NEGATIVES + 0.5 * 2 * LN2),
        ("positives", POSITIVES / 2 + NEGATIVES + 0.5 * LN2),
        ("cells", (POSITIVES + NEGATIVES) / 4 + 0.5 * LN2),
    ],
)
def test_soft_positives_count_half(reduce, wanted):
    assert found(LossConfig(reduction=reduce), TAUGHT) == pytest.approx(wanted)


def test_the_soft_weight_is_a_setting():
    assert found(LossConfig(soft_weight=0.0), TAUGHT) == pytest.approx(found(LossConfig()))
    more = found(LossConfig(soft_weight=2.0), TAUGHT) - found(LossConfig())
    assert more == pytest.approx(2 * LN2)


def test_a_soft_value_below_1_is_partly_absent():
    pseudo_labels = cells([[0, 0.75], [0, 0], [0, 0]], [[0, 1], [0, 0], [0, 0]])
    z = [[LN3, LN3], [0.0, -LN3], [LN3, 0.0]]
    more = found(LossConfig(), pseudo_labels, z=z) - found(LossConfig(), z=z)
    assert more == pytest.approx(0.5 * (0.75 * math.log(4 / 3) + 0.25 * math.log(4)))


def test_unknown_taken_for_absent_fills_the_cells_that_nobody_knows():
    loss = LossConfig(unknown="absent", reduction="mean")
    assert found(loss) == pytest.approx((POSITIVES + NEGATIVES + 2 * LN2) / 6)
    half = cells([[0, 1], [0, 0], [0, 0]], [[0, 1], [0, 0], [0, 0]])  # one of the two is taught
    wanted = (POSITIVES + NEGATIVES + LN2) / 5 + 0.5 * LN2
    assert found(loss, half) == pytest.approx(wanted)


def test_a_cell_that_nobody_knows_gets_no_gradient():
    z = torch.randn(3, 2, requires_grad=True)
    for loss in (
        LossConfig(),
        LossConfig(reduction="sum"),
        LossConfig(reduction="mean", focal_gamma=2.0),
    ):
        z.grad = None
        masked_loss(z, cells(VALUE, WEIGHT), None, loss).backward()
        assert ((z.grad != 0) == torch.tensor(WEIGHT).bool()).all()


def test_gradients_of_the_sum_are_sigmoid_minus_truth():
    z = torch.tensor(Z, requires_grad=True)
    masked_loss(z, cells(VALUE, WEIGHT), None, LossConfig(reduction="sum")).backward()
    wanted = (1 / (1 + np.exp(-np.array(Z))) - np.array(VALUE)) * np.array(WEIGHT)
    np.testing.assert_allclose(z.grad.numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_factor_falls_on_positives_alone(gamma):
    focal = (1 / 4) ** gamma * math.log(4 / 3) + (1 / 2) ** gamma * LN2
    wanted = focal / 2 + NEGATIVES
    assert found(LossConfig(focal_gamma=gamma)) == pytest.approx(wanted)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("z", [-200.0, -30.0, 30.0, 200.0])
def test_the_surest_logits_give_a_finite_loss_and_gradient(gamma, z):
    logits = torch.full((2, 2), z, requires_grad=True)
    loss = masked_loss(
        logits, cells([[1, 0], [1, 0]], [[1, 1], [1, 0]]), None, LossConfig(focal_gamma=gamma)
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_unlabelled_cells_are_pulled_to_a_probability():
    loss = LossConfig(unlabelled_target=0.45, unlabelled_weight=0.1)
    assert found(loss) - found(LossConfig()) == pytest.approx(0.1 * LN2)  # both lie at 1/2
    nobody = [[0, 0], [0, 0], [0, 0]]
    z = torch.zeros(3, 2, requires_grad=True)
    masked_loss(z, cells(nobody, nobody), None, loss).backward()
    np.testing.assert_allclose(z.grad.numpy(), 0.1 * (0.5 - 0.45) / 6, rtol=1e-4)
    level = math.log(0.45 / 0.55)
    z = torch.full((3, 2), level, requires_grad=True)
    masked_loss(z, cells(nobody, nobody), None, loss).backward()
    np.testing.assert_allclose(z.grad.numpy(), 0, atol=1e-8)


def test_a_taught_cell_is_not_pulled():
    z = [[LN3, 5.0], [0.0, -LN3], [LN3, 5.0]]
    pulled = found(LossConfig(unlabelled_target=0.45), TAUGHT, z=z) - found(
        LossConfig(), TAUGHT, z=z
    )
    assert pulled == 0


def test_class_weights_weigh_both_sides_of_a_species():
    wanted = 3 * POSITIVES + 3 * math.log(4) + 1 * math.log(4 / 3)
    loss = LossConfig(reduction="sum")
    assert found(loss, class_weight=torch.tensor([3.0, 1.0])) == pytest.approx(wanted)


@pytest.mark.parametrize("reduce", ["sum", "positives", "cells"])
def test_a_batch_without_known_cells_gives_0_and_a_gradient_of_0(reduce):
    z = torch.randn(3, 2, requires_grad=True)
    nobody = cells([[0, 0]] * 3, [[0, 0]] * 3)
    loss = masked_loss(z, nobody, nobody, LossConfig(reduction=reduce, focal_gamma=1.0))
    loss.backward()
    assert float(loss.detach()) == 0
    assert (z.grad == 0).all()


def test_a_batch_of_absents_alone_is_their_sum():
    assert found(LossConfig(), value=[[0, 0]] * 3) == pytest.approx(
        math.log(4) + LN2 + math.log(4 / 3) + math.log(4)
    )


MIX = Mixup(torch.tensor([1, 2, 0]), torch.tensor([0.75, 0.5, 1.0]))


def test_input_mixup_mixes_presences_and_absences_alike():
    mixed = cells(VALUE, WEIGHT).mixed(MIX)
    np.testing.assert_allclose(mixed.positive, [[1, 0], [0.5, 0], [0, 0]])
    np.testing.assert_allclose(mixed.negative, [[0, 0.25], [0.5, 0.5], [1, 0]])
    assert mixed.value[1, 0] == 0.5
    assert mixed.weight[2, 1] == 0


def test_late_mixup_mixes_presences_and_leaves_absences():
    mixed = cells([[1, 0], [0, 1], [0, 0]], [[1, 1], [1, 1], [0, 0]]).mixed_late(MIX)
    np.testing.assert_allclose(mixed.positive, [[0.75, 0.25], [0, 0.5], [0, 0]])
    np.testing.assert_allclose(mixed.negative, [[0, 1], [1, 0], [0, 0]])


def test_the_mean_over_positives_divides_by_the_mixed_mask():
    mixed = cells([[1, 0], [0, 0]], [[1, 0], [0, 0]]).mixed_late(
        Mixup(torch.tensor([1, 0]), torch.tensor([0.75, 0.75]))
    )
    z = torch.tensor([[LN3, 0.0], [0.0, 0.0]])
    wanted = 0.75 * math.log(4 / 3) + 0.25 * LN2  # masks 0.75 and 0.25, which sum to 1
    assert float(masked_loss(z, mixed, None, LossConfig())) == pytest.approx(wanted)


@pytest.mark.parametrize("share", [1e-40, 1.3e-26, 5e-26, 1e-9])
@pytest.mark.parametrize("reduce", ["positives", "balanced", "mean"])
def test_a_call_that_mixup_leaves_nothing_of_gives_a_finite_gradient(reduce, share):
    # Seen in the competition's recipe at full size: a batch's one call, mixed to 1.3e-26 of it.
    z = torch.zeros(2, 2, requires_grad=True)
    labels = cells([[1, 0], [0, 0]], [[1, 0], [0, 0]])
    mix = Mixup(torch.tensor([1, 0]), torch.tensor([share, 1.0]))
    masked_loss(z, labels.mixed_late(mix), None, LossConfig(reduction=reduce)).backward()
    assert z.grad.isfinite().all()
    assert z.grad.abs().max() < 1e-6  # of nothing there is nothing to learn


def test_a_thousandth_of_a_call_is_a_whole_call_where_it_is_the_only_one():
    z = torch.zeros(2, 1, requires_grad=True)
    labels = cells([[1], [0]], [[1], [0]])
    mix = Mixup(torch.tensor([1, 0]), torch.tensor([1e-3, 1.0]))
    masked_loss(z, labels.mixed_late(mix), None, LossConfig(reduction="positives")).backward()
    assert z.grad[:, 0].tolist() == pytest.approx([-0.5, 0.0])
