"""Rescaling: a species' scores should add up to how often it is there.

A network trained on validated boxes knows nothing about how common a species is: the boxes
were made to be balanced. Where the share of recordings that hold it is known (from a survey, a
leaderboard, a few hundred listened minutes), all odds of the species are multiplied by one
factor until its mean probability is that share. Order within a species stays; the ranking
between the species of a recording, which LWLRAP asks about, gains.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, gammaln, logit, softmax

from antpitta.core.errors import UserMistake
from antpitta.core.types import Annotation, Classes
from antpitta.scores.metrics import Floats

EDGE = 1e-12  # a score of exactly 0 or 1 has odds that no factor moves
LEAST_BOXES = 3  # of a class whose prevalence is estimated
SLACK = 1e-6  # so that rounding never puts the answer outside the bracket


def rescale_odds(scores: Floats, prevalence: Floats, judged: Floats | None = None) -> Floats:
    """Scores (rows, classes) whose column means equal ``prevalence`` (classes,).

    With ``judged`` (other rows, classes) the means of those are meant, and ``scores`` have their
    odds multiplied by the same factors.

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
    meant = value.copy() if judged is None else np.asarray(judged, dtype=float)
    for column in np.flatnonzero(~np.isnan(share)) if len(value) and len(meant) else ():
        value[:, column] = _rescale(value[:, column], float(share[column]), meant[:, column])
    return value


def counts_from_boxes(
    annotations: Iterable[Annotation], classes: Classes, recordings: int
) -> Floats:
    """How likely it is that 1, 2, ... of the ``recordings`` hold a class, from present boxes alone.

    Where a species calls in few recordings, two of its boxes often fall into the same one; where
    it calls everywhere, hardly ever. The boxes are taken for random picks among all the calls, and
    the calls of a recording that holds the species for exponentially many or few. Then n boxes
    falling into d recordings tell how many hold it as in the birthday problem (Bose-Einstein
    occupancy: Feller, An Introduction to Probability Theory, vol. 1, II.5). Before any box each
    doubling of how common a species is was as likely as another.

    (recordings, classes): each column sums to 1, or is NaN for a class of fewer than three boxes,
    which say nothing.
    """
    boxes: list[Counter[str]] = [Counter() for _ in classes.names]
    for said in annotations:
        if said.present:
            for column in classes.columns(said.label):
                boxes[column][said.recording] += 1
    chances = np.full((recordings, len(classes)), np.nan)
    for column, found in enumerate(boxes):
        if found.total() >= LEAST_BOXES:
            chances[:, column] = _counts(found.total(), len(found), recordings)
    return chances


def _counts(boxes: int, distinct: int, recordings: int) -> Floats:
    """How likely 1, 2, ... recordings hold a class, given where its boxes fell."""
    held = np.arange(distinct, recordings + 1)
    # C(held, d) C(n - 1, d - 1) / C(held + n - 1, n), and 1 / held before any box
    chance = gammaln(held + 1) - gammaln(held - distinct + 1)
    chance += gammaln(held) - gammaln(held + boxes) - np.log(held)
    return np.concatenate([np.zeros(distinct - 1), softmax(chance)])


def _rescale(scores: Floats, share: float, meant: Floats) -> Floats:
    if share in (0.0, 1.0):
        return np.full(scores.shape, share)
    return np.asarray(expit(_logits(scores) + _shift(_logits(meant), share)))


def _logits(scores: Floats) -> Floats:
    return np.asarray(logit(np.clip(scores, EDGE, 1 - EDGE)))


def _shift(logits: Floats, share: float) -> float:
    # these shifts bring the highest, and the lowest, score to the share: the answer lies between
    low, high = logit(share) - logits.max() - SLACK, logit(share) - logits.min() + SLACK
    return float(brentq(lambda by: expit(logits + by).mean() - share, low, high, xtol=1e-12))
