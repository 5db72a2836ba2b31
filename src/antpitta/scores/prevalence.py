"""How common each species is, and scores that agree with it.

**Rescaling.** A network that is trained on validated boxes knows nothing about how common a
species is: the boxes were made to be balanced. Where the share of recordings that hold a species is
known, all odds of the species are multiplied by one factor until its mean probability is that
share. The order within a species stays. The ranking of species within a recording, which LWLRAP
measures, improves.

**Estimation.** A model of balanced boxes scores rare species as if they were common: the highest
moment of a minute without the species has some score too, and the mean of many such scores is a
large prevalence. But the log-odds of the minutes without it lie close together, and those of the
minutes with it lie above them. So they are modelled as a mixture of two normal distributions,
fitted by expectation maximisation (Dempster, Laird and Rubin, 1977). The weight of the upper
component is the prevalence. Four rules keep the fit stable where a species is almost nowhere or
almost everywhere:

- Recordings with a present box belong to the upper component for certain.
- The boxes themselves give a prior for the prevalence: a strong one for a species whose boxes all
  lie in a few recordings, a weak one for a species whose boxes lie apart.
- Scores are not quite normal, so the likelihood of a recording is raised to the power ``WEIGHT`` (a
  power posterior: Miller and Dunson, Robust Bayesian inference via coarsening, 2019).
- The means and variances of a species shrink towards those of all species.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, gammaln, logit, softmax
from scipy.stats import norm

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation, Classes
from antpitta.scores.metrics import Flags, Floats, clipped_logit

SUPPORT = 10  # present boxes of the median species, from which prevalences are estimated
RESCALE_EDGE = 1e-12  # no factor changes the odds of a score of exactly 0 or 1
EDGE = 1e-4  # a prevalence beyond it shifts logits as if it were there
SLACK = 1e-6  # so that rounding never puts the solution outside the bracket
MIN_BOXES = 3  # of a class whose prevalence is estimated
HALF_WAY = 0.5  # from a species' own level to that of all, where boxes are few


def rescale_odds(scores: Floats, prevalence: Floats, reference: Floats | None = None) -> Floats:
    """Multiply the odds of each class by a factor, so that its mean equals the prevalence.

    Parameters
    ----------
    scores : (rows, classes), probabilities
    prevalence : (classes,); NaN leaves a class unchanged, and 0 and 1 make every score 0 and 1
    reference : (other rows, classes), the scores whose means shall equal the prevalence, by default
        ``scores``

    Returns
    -------
    rescaled : (rows, classes)

    Raises
    ------
    UserError
        E_PREVALENCE_VALUE for a prevalence outside 0 to 1.
    """
    value = np.array(scores, dtype=float)
    share = np.asarray(prevalence, dtype=float)
    if value.ndim != 2 or share.shape != value.shape[1:]:
        raise ValueError(f"scores {value.shape} do not fit prevalences {share.shape}")
    if not ((value >= 0) & (value <= 1)).all():
        raise ValueError("a score is not a probability")
    if (invalid := (share < 0) | (share > 1)).any():
        first = int(np.flatnonzero(invalid)[0])
        raise UserError(
            "E_PREVALENCE_VALUE",
            f"the prevalence of class {first} is {share[first]:g}",
            "use a share from 0 to 1",
        )
    target = value.copy() if reference is None else np.asarray(reference, dtype=float)
    for column in np.flatnonzero(~np.isnan(share)) if len(value) and len(target) else ():
        value[:, column] = _rescale(value[:, column], float(share[column]), target[:, column])
    return value


def _rescale(scores: Floats, share: float, reference: Floats) -> Floats:
    if share in (0.0, 1.0):
        return np.full(scores.shape, share)
    shift = _shift(clipped_logit(reference, RESCALE_EDGE), share)
    return np.asarray(expit(clipped_logit(scores, RESCALE_EDGE) + shift))


def _shift(logits: Floats, share: float) -> float:
    """What is added to all logits to make their mean probability ``share``."""
    # These shifts move the highest, and the lowest, score to the share: the solution lies between.
    low, high = logit(share) - logits.max() - SLACK, logit(share) - logits.min() + SLACK
    return float(brentq(lambda by: expit(logits + by).mean() - share, low, high, xtol=1e-12))


def prior_from_boxes(
    annotations: Iterable[Annotation], classes: Classes, recordings: int
) -> Floats:
    """How probable it is that 1, 2, ... of the recordings hold a class, from its present boxes.

    Where a species calls in few recordings, two of its boxes often lie in the same one; where it
    calls everywhere, hardly ever. The boxes are modelled as random picks among all the calls, and
    the number of calls in a recording as exponential. Then n boxes in d recordings tell how many
    recordings hold the species, as in the birthday problem (Bose-Einstein occupancy: Feller, An
    Introduction to Probability Theory, vol. 1, II.5). Before any box, each doubling of the
    prevalence is equally probable.

    Parameters
    ----------
    annotations : boxes
    classes : the classes, in the order of the columns
    recordings : how many there are

    Returns
    -------
    prior : (recordings, classes); each column sums to 1, or is NaN for a class with fewer than
        three present boxes, which carry no information
    """
    boxes: list[Counter[str]] = [Counter() for _ in classes.names]
    for box in annotations:
        if box.present:
            for column in classes.columns(box.label):
                boxes[column][box.recording] += 1
    prior = np.full((recordings, len(classes)), np.nan)
    for column, counter in enumerate(boxes):
        if counter.total() >= MIN_BOXES:
            prior[:, column] = _occupancy(counter.total(), len(counter), recordings)
    return prior


def _occupancy(boxes: int, occupied_count: int, recordings: int) -> Floats:
    """How probable 1, 2, ... recordings are if the boxes lie in ``occupied_count`` of them."""
    occupied = np.arange(occupied_count, recordings + 1)
    # C(k, d) C(n - 1, d - 1) / C(k + n - 1, n) for k occupied, times the prior 1 / k
    log = gammaln(occupied + 1) - gammaln(occupied - occupied_count + 1)
    log += gammaln(occupied) - gammaln(occupied + boxes) - np.log(occupied)
    return np.concatenate([np.zeros(occupied_count - 1), softmax(log)])


WEIGHT = 0.5  # power of the likelihood
SHRINKAGE = 10.0  # recordings that the variance of all species counts for
MIN_DISTANCE = 0.5  # log-odds between the two means
RAREST, COMMONEST = 0.01, 0.97  # beyond these shares, 160 recordings carry no information
MAX_STEPS = 300
CONVERGED = 1e-6  # change of the shares


def estimate_prevalence(
    scores: Floats, recordings: Sequence[str], annotations: Iterable[Annotation], classes: Classes
) -> Floats:
    """The share of recordings that hold each class, from scores and boxes.

    Parameters
    ----------
    scores : (recordings, classes), of models that did not train on the recordings
    recordings : (recordings,), their ids; boxes of other recordings are left out
    annotations : boxes
    classes : the classes, in the order of the columns

    Returns
    -------
    prevalence : (classes,), NaN for a class with fewer than three present boxes
    """
    present = np.zeros(scores.shape, dtype=bool)
    row = {name: i for i, name in enumerate(recordings)}
    boxes = [box for box in annotations if box.present and box.recording in row]
    for box in boxes:
        present[row[box.recording], classes.columns(box.label)] = True
    prior = prior_from_boxes(boxes, classes, len(recordings))
    return fit_prevalence(scores, present, prior)


def prevalence_or_mean(
    scores: Floats, recordings: Sequence[str], annotations: Iterable[Annotation], classes: Classes
) -> Floats:
    """:func:`estimate_prevalence`, or the mean score where the prevalence is not known.

    It is not known for a class with fewer than three present boxes, and for no class where
    :func:`supports_prevalence` says that boxes are too few: on real clips with five present boxes a
    species, estimates spread from 0.03 to 0.7 where the truth is 0.01 to 0.07.

    Parameters
    ----------
    scores : (recordings, classes), of models that did not train on the recordings
    recordings : (recordings,), their ids
    annotations : boxes
    classes : the classes, in the order of the columns

    Returns
    -------
    prevalence : (classes,)
    """
    annotations = tuple(annotations)
    if not supports_prevalence(annotations, classes):
        return scores.mean(axis=0) if len(scores) else np.full(len(classes), np.nan)
    return _estimate_or_mean(scores, recordings, annotations, classes)


def _estimate_or_mean(
    scores: Floats, recordings: Sequence[str], annotations: Iterable[Annotation], classes: Classes
) -> Floats:
    """The estimates, however few boxes there are, and the mean score where there is none."""
    shares = estimate_prevalence(scores, recordings, annotations, classes)
    mean = scores.mean(axis=0) if len(scores) else shares
    return np.where(np.isnan(shares), mean, shares)


def supports_prevalence(annotations: Iterable[Annotation], classes: Classes) -> bool:
    """Whether there are boxes enough to tell which species are common.

    Parameters
    ----------
    annotations : boxes
    classes : the classes

    Returns
    -------
    is_supported : half of the species that have present boxes have ten or more
    """
    boxes = Counter(
        column for box in annotations if box.present for column in classes.columns(box.label)
    )
    return bool(boxes) and float(np.median([*boxes.values()])) >= SUPPORT


def prior_shifts(
    scores: Floats, recordings: Sequence[str], annotations: Iterable[Annotation], classes: Classes
) -> Floats:
    """What is added to the logits of each class so that the species of a recording compare.

    With boxes enough, logits of a head that was trained on as many present as absent boxes are
    moved to the prior of the species, its estimated prevalence: their log-odds are added (Saerens,
    Latinne and Decaestecker, Adjusting the outputs of a classifier to new a priori probabilities,
    2002). With few boxes the prevalence is not known, and the level of a species' logits is half
    chance. They are moved half of the way to where all species would have the same mean
    probability.

    Parameters
    ----------
    scores : (recordings, classes), of models that did not train on the recordings
    recordings : (recordings,), their ids
    annotations : boxes
    classes : the classes, in the order of the columns

    Returns
    -------
    shifts : (classes,)
    """
    annotations = tuple(annotations)
    if supports_prevalence(annotations, classes):
        return _log_odds(scores, recordings, annotations, classes)
    shares = _estimate_or_mean(scores, recordings, annotations, classes).clip(EDGE, 1 - EDGE)
    return HALF_WAY * _mean_shifts(scores, float(shares.mean()))


def _log_odds(
    scores: Floats, recordings: Sequence[str], annotations: Iterable[Annotation], classes: Classes
) -> Floats:
    """The log-odds of the estimated prevalence of each class."""
    shares = _estimate_or_mean(scores, recordings, annotations, classes)
    return np.asarray(logit(shares.clip(EDGE, 1 - EDGE)))


def _mean_shifts(scores: Floats, share: float) -> Floats:
    """What is added to the logits of each class to make its mean probability ``share``."""
    return np.array([_shift(logits, share) for logits in clipped_logit(scores, RESCALE_EDGE).T])


def posterior_shifts(
    scores: Floats,
    recordings: Sequence[str],
    annotations: Iterable[Annotation],
    classes: Classes,
    *,
    supported: bool,
) -> Floats:
    """What is added to the logits of each class to make them probabilities of its presence.

    With boxes enough as in :func:`prior_shifts`. With few boxes the only evidence for how common
    species are is the share of recordings in which they have present boxes, and the mean
    probability of each species is the mean of these shares.

    Parameters
    ----------
    scores : (recordings, classes), of models that did not train on the recordings
    recordings : (recordings,), their ids
    annotations : boxes in these recordings
    classes : the classes, in the order of the columns
    supported : boxes are enough, see :func:`supports_prevalence`

    Returns
    -------
    shifts : (classes,)
    """
    annotations = tuple(annotations)
    if supported:
        return _log_odds(scores, recordings, annotations, classes)
    held = {
        (box.recording, column)
        for box in annotations
        if box.present
        for column in classes.columns(box.label)
    }
    n_classes = len({column for _, column in held})
    share = len(held) / max(1, n_classes * len(recordings))
    return _mean_shifts(scores, float(np.clip(share, EDGE, 1 - EDGE)))


def fit_prevalence(scores: Floats, present: Flags, prior: Floats) -> Floats:
    """The weights of the upper components of the mixture.

    Parameters
    ----------
    scores : (recordings, classes)
    present : (recordings, classes), where the class has a present box
    prior : (recordings, classes), how probable it is that 1, 2, ... recordings hold the class

    Returns
    -------
    prevalence : (classes,), NaN where the prior is
    """
    share = np.full(scores.shape[1], np.nan)
    known = ~np.isnan(prior).all(axis=0)
    if len(scores) and known.any():
        share[known] = _fit(scores[:, known], present[:, known], prior[:, known])
    return share


@dataclass(frozen=True)
class _Component:
    """One normal component of the mixtures; ``mean`` and ``spread`` are (classes,)."""

    mean: Floats
    spread: Floats

    def log_density(self, value: Floats) -> Floats:
        return np.asarray(norm.logpdf(value, self.mean, self.spread))

    def fitted(self, logits: Floats, weight: Floats, min_variance: float) -> Self:
        """The component of these recordings (recordings, classes), shrunk towards other classes.

        ``min_variance`` is the least variance between the means of classes.
        """
        count = weight.sum(axis=0)
        variance, between = self.spread**2, max(float(np.var(self.mean)), min_variance)
        numerator = (weight * logits).sum(axis=0) / variance + self.mean.mean() / between
        mean = numerator / (count / variance + 1 / between)
        squares = (weight * (logits - mean) ** 2).sum(axis=0) + SHRINKAGE * variance.mean()
        return replace(self, mean=mean, spread=np.sqrt(squares / (count + SHRINKAGE)))


def _fit(scores: Floats, present: Flags, prior: Floats) -> Floats:
    logits = clipped_logit(np.asarray(scores, dtype=float))
    shares = np.clip(np.arange(1, len(logits) + 1) / len(logits), RAREST, COMMONEST)
    with np.errstate(divide="ignore"):
        log_prior = np.log(prior)
    share: Floats = shares @ prior
    low, high = _initial_components(logits, present, share)
    for _ in range(MAX_STEPS):
        upper = np.where(present, 1, _upper_probability(logits, low, high, share))
        last, share = share, _posterior_share(upper.mean(axis=0), shares, log_prior, len(logits))
        low, high = low.fitted(logits, 1 - upper, 0.1), high.fitted(logits, upper, 1.0)
        high = replace(high, mean=np.maximum(high.mean, low.mean + MIN_DISTANCE))
        if np.abs(share - last).max() < CONVERGED:
            break
    return share


def _posterior_share(upper: Floats, shares: Floats, log_prior: Floats, recordings: int) -> Floats:
    """The expected share, given the mean probability (classes,) of the upper component."""
    log_likelihood = np.outer(np.log(shares), upper) + np.outer(np.log1p(-shares), 1 - upper)
    return np.asarray(shares @ softmax(WEIGHT * recordings * log_likelihood + log_prior, axis=0))


def _initial_components(
    logits: Floats, present: Flags, share: Floats
) -> tuple[_Component, _Component]:
    """The median of the lowest scores, and that of the recordings with a present box."""
    ones = np.ones(logits.shape[1])
    absent = np.maximum(1 - share, 0.15)
    low = np.array(
        [
            np.median(own[own <= np.quantile(own, part)])
            for own, part in zip(logits.T, absent, strict=True)
        ]
    )
    known = [
        np.median(own[there]) if there.any() else np.nan
        for own, there in zip(logits.T, present.T, strict=True)
    ]
    high = np.where(np.isnan(known), low + 4, known)
    return _Component(low, ones), _Component(np.maximum(high, low + MIN_DISTANCE), 1.8 * ones)


def _upper_probability(logits: Floats, low: _Component, high: _Component, share: Floats) -> Floats:
    """How probable it is that each recording holds each class.

    Below the lower mean it is no more probable than there: the upper component is the wider one,
    and would win again far below.
    """
    plain, limited = (
        logit(share) + high.log_density(value) - low.log_density(value)
        for value in (logits, np.maximum(logits, low.mean))
    )
    return np.asarray(expit(np.minimum(plain, limited)))
