"""Within-class covariance normalisation: what tells animals of a species apart counts less.

A head's L2 holds all inputs to be alike. The boxes of one species show which are not: where they
differ among themselves they tell this animal, place or distance from that one, and a head that
leans on it knows a few animals instead of the species. With the covariance of the boxes around
their species' means as the metric of the L2, such directions cost more (Hatch, Kajarekar and
Stolcke, Within-class covariance normalization for SVM-based speaker recognition, 2006: there for
speakers, told apart across channels).

A few hundred boxes fill a few hundred directions of many thousand, so the covariance is mixed
with the identity, and kept as those directions.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """Weights learn in coordinates in which boxes of a species lie equally close everywhere."""

    basis: Tensor  # (inputs, directions), orthonormal
    factor: Tensor  # (directions,), by which a weight along one counts
    rest: float  # by which it counts along all others

    @classmethod
    def of_boxes(cls, rows: Tensor, present: Tensor, share: float) -> Self | None:
        """``rows`` (boxes, inputs), levelled; ``present`` (boxes, classes), bool. ``share`` of
        the metric is the boxes' covariance, of a mean variance of 1, the rest the identity.

        None where no species has two boxes that differ.
        """
        apart = []
        for own in present.T:
            if own.sum() > 1:
                apart.append(rows[own] - rows[own].mean(dim=0))
        spread = torch.cat(apart) if apart else rows[:0]
        total = spread.square().sum()
        if not total > 0:
            return None
        seen = int((spread != 0).any(dim=0).sum())  # inputs that no head sees are 0
        _, size, basis = torch.linalg.svd(spread, full_matrices=False)
        kept = size > size[0] * 1e-5
        variance = size[kept].square() * seen / total
        return cls(
            basis[kept].T.contiguous(),
            (share * variance + 1 - share).rsqrt(),
            (1 - share) ** -0.5,
        )

    def turn(self, weight: Tensor) -> Tensor:
        """Weights (classes, inputs, 1) as they learn, to those of the inputs."""
        return self._stretched(weight, self.factor, self.rest)

    def back(self, weight: Tensor) -> Tensor:
        """The inverse of :meth:`turn`."""
        return self._stretched(weight, 1 / self.factor, 1 / self.rest)

    def _stretched(self, weight: Tensor, factor: Tensor, rest: float) -> Tensor:
        flat = weight[:, :, 0]
        turned = rest * flat + ((flat @ self.basis) * (factor - rest)) @ self.basis.T
        return turned[:, :, None]
