"""The normalizer of a head: batch norm whose statistics are computed once, from sums over steps."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """Batch norm over the steps that are not padding; padding stays 0.

    Parameters
    ----------
    inputs : channels of the features
    """

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, affine=False)

    def forward(self, features: Tensor) -> Tensor:
        """Normalize (batch, inputs, steps)."""
        steps = features.transpose(1, 2)
        valid = (steps != 0).any(dim=2)
        normalized = torch.zeros_like(steps)
        rows = steps[valid]
        if self.training and len(rows) < 2:  # one step has no deviation
            rows = nn.functional.batch_norm(rows, self.running_mean, self.running_var, eps=self.eps)
        else:
            rows = super().forward(rows)
        normalized[valid] = rows.to(normalized.dtype)
        return normalized.transpose(1, 2)


@dataclass(frozen=True)
class StepSums:
    """Sums over the steps of each of many windows; padding, which is 0, does not count.

    Parameters
    ----------
    count : (windows,), steps
    total, square : (windows, inputs), of the features and of their squares
    """

    count: Tensor
    total: Tensor
    square: Tensor

    @classmethod
    def zeros(cls, windows: int, inputs: int, device: torch.device) -> Self:
        """Make the sums of windows that are added later.

        Parameters
        ----------
        windows, inputs : their numbers
        device : where the sums are kept
        """
        shape = (windows, inputs)
        return cls(
            torch.zeros(windows, dtype=torch.int64, device=device),
            torch.zeros(shape, device=device),
            torch.zeros(shape, device=device),
        )

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Sum the steps of windows.

        Parameters
        ----------
        features : (windows, inputs, steps)
        """
        sums = cls.zeros(len(features), features.shape[1], features.device)
        sums.add(np.arange(len(features)), features)
        return sums

    def add(self, windows: NDArray[np.int64], features: Tensor) -> None:
        """Set the sums of some windows.

        Parameters
        ----------
        windows : (batch,), indices
        features : (batch, inputs, steps)
        """
        rows = torch.from_numpy(windows).to(self.count.device)
        values = features.float()
        self.count[rows] = (features != 0).any(dim=1).sum(dim=1)
        self.total[rows] = values.sum(dim=2)
        self.square[rows] = values.square().sum(dim=2)

    def take(self, windows: NDArray[np.int64]) -> "StepSums":
        """The sums of some windows."""
        rows = torch.from_numpy(windows).to(self.count.device)
        return StepSums(self.count[rows], self.total[rows], self.square[rows])


def fit_masked_norm(norm: nn.BatchNorm1d, sums: StepSums) -> None:
    """Set the running statistics of ``norm`` to those of many steps, and switch it to eval.

    Parameters
    ----------
    norm : changed in place
    sums : of all windows
    """
    count = max(1, int(sums.count.sum()))
    mean = sums.total.double().sum(dim=0) / count
    var = sums.square.double().sum(dim=0) / count - mean.square()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var.clamp_min(0))
    norm.eval()


def norm_coefficients(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Express a norm with fixed statistics as (x - mean) * factor.

    Parameters
    ----------
    norm : without affine weights

    Returns
    -------
    mean, factor : (inputs,) each
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, (norm.running_var + norm.eps).rsqrt()
