"""Rescaling: a species' scores should add up to how often it is there.

A network trained on validated boxes knows nothing about how common a species is: the boxes
were made to be balanced. Where the share of recordings that hold it is known (from a survey, a
leaderboard, a few hundred listened minutes), all odds of the species are multiplied by one
factor until its mean probability is that share. Order within a species stays; the ranking
between the species of a recording, which LWLRAP asks about, gains.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from antpitta.core.errors import UserMistake
from antpitta.scores.metrics import Floats

EDGE = 1e-12  # a score of exactly 0 or 1 has odds that no factor moves
SLACK = 1e-6  # so that rounding never puts the answer outside the bracket


def rescale_odds(scores: Floats, prevalence: Floats) -> Floats:
    """Scores (rows, classes) whose column means equal ``prevalence`` (classes,).

    A NaN prevalence leaves its species alone; 0 and 1 make every score 0 and 1, which is where
    the factor leads. Scores closer to 0 or 1 than ``EDGE`` count as lying that far from them.
    Raises ValueError for scores that are no probabilities, UserMistake for a prevalence that
    is none.
    """
    value = np.array(scores, dtype=float)
    share = np.asarray(prevalence, dtype=float)
    if value.ndim != 2 or share.shape != value.shape[1:]:
        raise ValueError(f"scores {value.shape} do not fit prevalences {share.shape}")
    if not ((value >= 0) & (value <= 1)).all():
        raise ValueError("a score is no probability")
    if (odd := (share < 0) | (share > 1)).any():
        first = int(np.flatnonzero(odd)[0])
        raise UserMistake(
            f"the prevalence of class {first} is {share[first]:g}; give a share from 0 to 1"
        )
    for column in np.flatnonzero(~np.isnan(share)) if len(value) else ():
        value[:, column] = _rescale(value[:, column], float(share[column]))
    return value


def _rescale(scores: Floats, share: float) -> Floats:
    if share in (0.0, 1.0):
        return np.full(scores.shape, share)
    logits = logit(np.clip(scores, EDGE, 1 - EDGE))
    # these shifts bring the highest, and the lowest, score to the share: the answer lies between
    low, high = logit(share) - logits.max() - SLACK, logit(share) - logits.min() + SLACK
    shift = brentq(lambda shift: expit(logits + shift).mean() - share, low, high, xtol=1e-12)
    return np.asarray(expit(logits + shift))
