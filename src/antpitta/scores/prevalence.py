"""Rescaling: a species' scores should add up to how often it is there.

A network trained on validated boxes knows nothing about how common a species is: the boxes
were made to be balanced. Where the share of recordings that hold it is known (from a survey, a
leaderboard, a few hundred listened minutes), all odds of the species are multiplied by one
factor until its mean probability is that share. Order within a species stays; the ranking
between the species of a recording, which LWLRAP asks about, gains.

How common each species is, told by a model's scores of recordings that nobody listened to.

A model of balanced boxes takes rare species to be common: the highest moment of a minute without
the species has some score too, and the mean of many such scores is a large prevalence. But the
log-odds of the minutes without it lie close together, and those of the minutes with it above
them. So they are taken for a mixture of two normal distributions, fitted by expectation
maximisation (Dempster, Laird and Rubin, 1977), and the weight of the upper one is the prevalence.

What keeps the fit on firm ground where a species is nearly nowhere, or nearly everywhere:
- recordings with a present box are in the upper part, for certain;
- what the boxes tell of the prevalence is as they tell it: much of a species all of whose boxes
  fell into a few recordings, little of one whose boxes lie apart;
- scores are not quite normal, so a recording says only ``WEIGHT`` of what it would if they were
  (a power posterior: Miller and Dunson, Robust Bayesian inference via coarsening, 2019);
- the means and variances of a species lean towards those of all species.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, gammaln, logit, softmax
from scipy.stats import norm

from antpitta.core.errors import UserError
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
    Raises ValueError for scores that are no probabilities, UserError for a prevalence that
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
        raise UserError(
            "E_TODO",
            f"the prevalence of class {first} is {share[first]:g}",
            "give a share from 0 to 1",
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


WEIGHT = 0.5  # of what a recording's scores tell of the prevalence
ALIKE = 10.0  # recordings that the variance of all species counts for
APART = 0.5  # log-odds, at least, between the two means
RARE, COMMON = 0.01, 0.97  # beyond, 160 recordings tell nothing
EDGE_MIXTURE = 1e-6  # scores closer to 0 or 1 count as lying that far from them
STEPS = 300
NEAR = 1e-6  # of the shares; then nothing changes any more


@dataclass(frozen=True)
class _Part:
    """One half of the mixture: (classes,) each."""

    mean: Floats
    spread: Floats

    def density(self, value: Floats) -> Floats:
        """The logarithm of it."""
        return np.asarray(norm.logpdf(value, self.mean, self.spread))

    def fitted(self, odds: Floats, weight: Floats, least: float) -> Self:
        """The part of these recordings (recordings, classes), leaning towards the other classes.

        ``least`` is how much the means of classes vary, at the least.
        """
        count = weight.sum(axis=0)
        variance, among = self.spread**2, max(float(np.var(self.mean)), least)
        told = (weight * odds).sum(axis=0) / variance + self.mean.mean() / among
        mean = told / (count / variance + 1 / among)
        squares = (weight * (odds - mean) ** 2).sum(axis=0) + ALIKE * variance.mean()
        return replace(self, mean=mean, spread=np.sqrt(squares / (count + ALIKE)))


def estimate_prevalence(
    scores: Floats, recordings: Sequence[str], annotations: Iterable[Annotation], classes: Classes
) -> Floats:
    """The share of these ``recordings`` that hold each class, from their scores and their boxes.

    ``scores`` (recordings, classes) are of models that did not train on them. NaN for a class of
    fewer than three present boxes.
    """
    present = np.zeros(scores.shape, dtype=bool)
    row = {name: i for i, name in enumerate(recordings)}
    own = [said for said in annotations if said.present and said.recording in row]
    for said in own:
        present[row[said.recording], classes.columns(said.label)] = True
    return prevalence_from_scores(scores, present, counts_from_boxes(own, classes, len(recordings)))


def prevalence_per_member(
    scores: Floats, recordings: Sequence[str], annotations: Iterable[Annotation], classes: Classes
) -> Floats:
    """:func:`estimate_prevalence`; the mean of the scores where that knows nothing."""
    shares = estimate_prevalence(scores, recordings, annotations, classes)
    return np.where(np.isnan(shares), scores.mean(axis=0), shares)


def prevalence_from_scores(scores: Floats, present: NDArray[np.bool_], counts: Floats) -> Floats:
    """The weights of the upper parts, (classes,).

    ``present`` (recordings, classes) says where a listener found the class, and ``counts`` (the
    same shape) how likely it is, without the scores, that 1, 2, ... of the recordings hold it;
    where that is NaN, so is the answer.
    """
    share = np.full(scores.shape[1], np.nan)
    told = ~np.isnan(counts).all(axis=0)
    if len(scores) and told.any():
        share[told] = _weights(scores[:, told], present[:, told], counts[:, told])
    return share


def _weights(scores: Floats, present: NDArray[np.bool_], counts: Floats) -> Floats:
    odds = np.asarray(
        logit(np.clip(np.asarray(scores, dtype=float), EDGE_MIXTURE, 1 - EDGE_MIXTURE))
    )
    shares = np.clip(np.arange(1, len(odds) + 1) / len(odds), RARE, COMMON)
    with np.errstate(divide="ignore"):
        before = np.log(counts)
    share: Floats = shares @ counts
    low, high = _first(odds, present, share)
    for _ in range(STEPS):
        held = np.where(present, 1, _held(odds, low, high, share))
        last, share = share, _share(held.mean(axis=0), shares, before, len(odds))
        low, high = low.fitted(odds, 1 - held, 0.1), high.fitted(odds, held, 1.0)
        high = replace(high, mean=np.maximum(high.mean, low.mean + APART))
        if np.abs(share - last).max() < NEAR:
            break
    return share


def _share(held: Floats, shares: Floats, before: Floats, recordings: int) -> Floats:
    """The expected share, where that of the scores is ``held`` (classes,)."""
    told = np.outer(np.log(shares), held) + np.outer(np.log1p(-shares), 1 - held)
    return np.asarray(shares @ softmax(WEIGHT * recordings * told + before, axis=0))


def _first(odds: Floats, present: NDArray[np.bool_], share: Floats) -> tuple[_Part, _Part]:
    """Where the fit begins: the middle of the lowest scores, and of the known recordings."""
    ones = np.ones(odds.shape[1])
    pairs = list(zip(odds.T, present.T, np.maximum(1 - share, 0.15), strict=True))
    low = np.array([np.median(one[one <= np.quantile(one, part)]) for one, _, part in pairs])
    known = [np.median(one[own]) if own.any() else np.nan for one, own, _ in pairs]
    high = np.where(np.isnan(known), low + 4, known)
    return _Part(low, ones), _Part(np.maximum(high, low + APART), 1.8 * ones)


def _held(odds: Floats, low: _Part, high: _Part, share: Floats) -> Floats:
    """How likely each recording holds each class; below the lower mean it is no likelier than
    there: the upper part is the wider one, and would win again far below.
    """
    near, far = (
        logit(share) + high.density(value) - low.density(value)
        for value in (odds, np.maximum(odds, low.mean))
    )
    return np.asarray(expit(np.minimum(near, far)))
