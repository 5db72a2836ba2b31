"""Levelling: every input of a head brought to mean 0 and variance 1 before it is weighed.

Features that never change need no statistics of every batch: they are settled once, by all of a
fold's training windows. Padding, steps of nothing but 0, has no part in it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Level(nn.BatchNorm1d):
    """Batch norm (batch, inputs, steps) over the steps of sound: padding moves nothing, stays 0."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, affine=False)

    def forward(self, seen: Tensor) -> Tensor:
        """The steps of nothing but 0 are padding."""
        steps = seen.transpose(1, 2)
        sound = (steps != 0).any(dim=2)
        levelled = torch.zeros_like(steps)
        rows = steps[sound]
        if self.training and len(rows) < 2:  # one step has no deviation
            rows = nn.functional.batch_norm(rows, self.running_mean, self.running_var, eps=self.eps)
        else:
            rows = super().forward(rows)
        levelled[sound] = rows.to(levelled.dtype)
        return levelled.transpose(1, 2)


def settle(level: nn.BatchNorm1d, seen: Iterator[Tensor]) -> None:
    """Give ``level`` the statistics of these features (batch, inputs, steps), for good."""
    count = 0
    total = square = torch.zeros((), dtype=torch.float64)
    for part in seen:
        steps = part.transpose(1, 2).float()
        steps = steps[(steps != 0).any(dim=2)]
        count += len(steps)
        total = total.to(steps.device) + steps.double().sum(0)
        square = square.to(steps.device) + steps.double().square().sum(0)
    mean = total / max(1, count)
    var = square / max(1, count) - mean.square()
    assert level.running_mean is not None
    assert level.running_var is not None
    level.running_mean.copy_(mean)
    level.running_var.copy_(var.clamp_min(0))
    level.eval()


def settled(level: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """What is taken off each input, and what the rest is multiplied by: (inputs,) each."""
    assert level.running_mean is not None
    assert level.running_var is not None
    return level.running_mean, (level.running_var + level.eps).rsqrt()
