"""Weak targets for sound that nobody judged: the moments that resemble a species most.

A few absent boxes do not show what else sounds like nothing of a species, and the mean of a
recording is far from anything that is mistaken for it. The moment of each window where a head
scores the species highest is what decides about a recording. Whether the species calls there is
unknown, but a head that did not train on the recording has an opinion: the weak target is its
probability, given how common the species is. Where species are rare nearly all these moments are
near misses, so they are negatives; where species are common, many are calls. Weak targets are a
prior and no labels, and enter no metric.

References
----------
.. [1] Berthelot et al., MixMatch: A Holistic Approach to Semi-Supervised Learning, 2019: sharpened
   targets.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from antpitta.model.head import SedHead, valid_mask
from antpitta.model.losses import CellTargets
from antpitta.scores.prevalence import posterior_shifts, supports_prevalence
from antpitta.train.data import TrainingData

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SHARPNESS = 3.0  # factor of the log-odds, 1 / temperature
WEIGHT = 2.0  # of all windows together, beside 1 of their means as weak negatives


@dataclass(frozen=True)
class WeakTargets:
    """For each class and window, the moment where the class scores highest.

    Parameters
    ----------
    rows : (classes, windows, inputs)
        The mean of the features over the steps that the class's logits are averaged over.
    targets : (windows, classes)
        For the plain sum of losses.
    """

    rows: Tensor
    targets: CellTargets


@torch.no_grad()
def find_peak_rows(head: SedHead, features: Tensor) -> tuple[Tensor, Tensor]:
    """Find the step of a window where each class scores highest.

    Parameters
    ----------
    head
        A trained head.
    features : (inputs, steps)
        Of the window; steps of nothing but 0 are padding.

    Returns
    -------
    rows : (classes, inputs)
        The mean of the features over the steps around the highest one that
        :func:`~antpitta.model.head.smooth_logits` averages.
    logits : (classes,)
        There.
    """
    framewise = head(features[None], has_padding=True).framewise[0]  # (steps, classes)
    logits, peak = framewise.max(dim=0)
    sums = _sums_before(features)  # padding is 0
    counts = _sums_before(valid_mask(features[None])[0].to(features.dtype))
    length = torch.tensor(head.steps, device=features.device)
    first = (peak - (length - 1) // 2).clamp_min(0)
    end = (peak + length // 2 + 1).clamp_max(features.shape[1])
    rows = (sums[:, end] - sums[:, first]) / (counts[:, end] - counts[:, first]).clamp_min(1)
    return rows.T, logits


def _sums_before(values: Tensor) -> Tensor:
    """The sum of the columns before each column and before the end: (rows, columns + 1)."""
    return torch.nn.functional.pad(values.cumsum(dim=1), (1, 0))


def compute_weak_targets(
    logits: Floats, windows: Ints, training_data: TrainingData, weight: float
) -> CellTargets:
    """Turn the highest logits of windows into targets, where the windows have no box of the class.

    Parameters
    ----------
    logits : (windows, classes)
        Of heads that did not train on the windows' recordings.
    windows : (windows,)
        Their indices.
    training_data
        All windows and boxes.
    weight
        ``loss.weak_negatives``.

    Returns
    -------
    targets : (windows, classes)
        Their values are probabilities, sharpened by ``SHARPNESS``. The weights of each class add up
        to ``WEIGHT`` times ``weight``, divided by the number of classes.
    """
    dataset = training_data.dataset
    owner = training_data.recording_index[training_data.windows.segment[windows]]
    recordings, place = np.unique(owner, return_inverse=True)
    highest = np.full((len(recordings), logits.shape[1]), -np.inf)
    np.maximum.at(highest, place, logits)
    boxes = [box for i in recordings for box in training_data.boxes[i]]
    shift = posterior_shifts(
        expit(highest),
        [dataset.recordings[i].id for i in recordings],
        boxes,
        dataset.classes,
        supported=supports_prevalence(dataset.annotations, dataset.classes),
    )
    is_unknown = training_data.labels.weight[windows] == 0
    share = is_unknown / np.maximum(is_unknown.sum(axis=0), 1) / logits.shape[1]
    value, cell_weight = (
        torch.from_numpy(part.astype(np.float32))
        for part in (expit(SHARPNESS * (logits + shift)), WEIGHT * weight * share)
    )
    return CellTargets(value, cell_weight)
