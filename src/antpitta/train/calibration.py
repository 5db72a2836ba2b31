"""Scores of species that can be compared: each head's logits are shifted by one number a species.

A head that is trained on balanced boxes knows nothing about how common a species is, and where a
species has few boxes its logits are high or low by chance. Out-of-fold scores of all recordings,
which nobody judged as a whole, show both (:func:`antpitta.scores.prevalence.prior_shifts`). The
shift changes no order within a species.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit

from antpitta.core.types import Dataset, Scores
from antpitta.files.own_files import load_tensors, save_tensors
from antpitta.model.network import SedNet
from antpitta.scores.metrics import clipped_logit
from antpitta.scores.prevalence import RESCALE_EDGE, prior_shifts

SHIFT = "head.prior_shift"


def reset_prior_shift(net: SedNet) -> None:
    """Take back what :func:`calibrate` did to a network.

    Parameters
    ----------
    net
        Changed in place.
    """
    if net.head.prior_shift is not None:
        net.head.prior_shift.zero_()


def calibrate(scores: list[Scores], dataset: Dataset, weights: list[Path]) -> list[Scores]:
    """Shift the scores of a stage, and write the same shift into the weights of its models.

    Parameters
    ----------
    scores
        Of all recordings, out of fold and without shift.
    dataset
        The boxes and the classes.
    weights
        The files of the models of all folds.

    Returns
    -------
    scores
        Shifted.
    """
    clipwise = np.array([score.value.max(axis=0) for score in scores], dtype=float)
    names = [score.recording for score in scores]
    shift = prior_shifts(clipwise, names, dataset.annotations, dataset.classes)
    for path in weights:
        state, metadata = load_tensors(path)
        state[SHIFT] = torch.from_numpy(shift).to(state[SHIFT].dtype)
        save_tensors(state, path, metadata)
    return [
        replace(
            score,
            value=expit(clipped_logit(score.value.astype(float), RESCALE_EDGE) + shift).astype(
                score.value.dtype
            ),
        )
        for score in scores
    ]
