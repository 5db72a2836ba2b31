"""How common each species is, told by a model's scores of recordings that nobody listened to.

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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax
from scipy.stats import norm

from antpitta.core.types import Annotation, Classes
from antpitta.scores.metrics import Floats
from antpitta.scores.prevalence import counts_from_boxes

WEIGHT = 0.5  # of what a recording's scores tell of the prevalence
ALIKE = 10.0  # recordings that the variance of all species counts for
APART = 0.5  # log-odds, at least, between the two means
RARE, COMMON = 0.01, 0.97  # beyond, 160 recordings tell nothing
EDGE = 1e-6  # scores closer to 0 or 1 count as lying that far from them
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


def believed(
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
    odds = np.asarray(logit(np.clip(np.asarray(scores, dtype=float), EDGE, 1 - EDGE)))
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
