"""Within-class covariance: what tells animals of a species apart counts less."""

import pytest
import torch

from antpitta.train.linear_head import WithinClassWhitening

PRESENT = torch.tensor([[True, False]] * 5 + [[False, True]] * 4 + [[False, False]] * 3)


@pytest.fixture
def rows():
    return torch.randn(12, 20, generator=torch.Generator().manual_seed(0))


def test_weights_are_turned_by_the_root_of_the_mixed_covariance(rows):
    metric = WithinClassWhitening.from_boxes(rows, PRESENT, 0.4)
    apart = torch.cat([rows[own] - rows[own].mean(dim=0) for own in PRESENT.T])
    covariance = apart.T @ apart
    mixed = 0.4 * covariance / covariance.diagonal().mean() + 0.6 * torch.eye(20)
    size, basis = torch.linalg.eigh(mixed)
    weight = torch.randn(2, 20, 1, generator=torch.Generator().manual_seed(1))
    expected = weight[:, :, 0] @ (basis * size.rsqrt()) @ basis.T
    torch.testing.assert_close(metric.apply(weight)[:, :, 0], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(metric.invert(metric.apply(weight)), weight, atol=1e-5, rtol=1e-4)


def test_what_differs_among_boxes_of_a_species_counts_less_than_what_does_not(rows):
    rows[:, 3] = 0
    rows[:9, 3] = torch.tensor([5.0] * 5 + [-5.0] * 4)  # tells the species apart, and nothing else
    rows[:, 4] *= 9
    turned = WithinClassWhitening.from_boxes(rows, PRESENT, 0.4).apply(torch.eye(20)[:, :, None])[
        :, :, 0
    ]
    assert turned[4, 4] < turned[3, 3] / 2


def test_inputs_that_no_head_sees_change_nothing(rows):
    wide = torch.cat([rows, torch.zeros(12, 30)], dim=1)
    one, other = (
        WithinClassWhitening.from_boxes(rows, PRESENT, 0.4),
        WithinClassWhitening.from_boxes(wide, PRESENT, 0.4),
    )
    torch.testing.assert_close(one.factor, other.factor)
    assert not other.basis[20:].any()


def test_boxes_that_do_not_differ_have_no_metric(rows):
    assert WithinClassWhitening.from_boxes(rows[:0], PRESENT[:0], 0.4) is None
    assert WithinClassWhitening.from_boxes(rows, PRESENT & False, 0.4) is None
    assert WithinClassWhitening.from_boxes(torch.ones(12, 20), PRESENT, 0.4) is None
