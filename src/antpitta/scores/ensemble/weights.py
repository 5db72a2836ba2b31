"""The weights of an ensemble's members, fitted on labelled cells.

- ``auc``: the weight of a member for a species is what its AUC there has above chance (0.5), so a
  member without skill has no weight. A species whose cells are all present or all absent gets the
  member's mean over the other species.
- ``fit``: the logits of all members enter a logistic regression of present against absent, with
  coefficients that cannot be negative; their shares are the weights. Each species has an intercept,
  which is not used further: how many absent boxes it has is no property of its sound. One set
  of coefficients is fitted for all species, then one for each, shrunk towards the common set by
  a normal prior whose deviation is ``LOOSE`` times their mean. Few cells change little.

Both use logits that are brought to the mean and deviation of the first member's, over the labelled
cells that both members score.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from antpitta.scores.bootstrap import nan_mean
from antpitta.scores.ensemble.members import Member, normalize_weights, scored_classes
from antpitta.scores.metrics import Flags, Floats, area_under_roc, clipped_logit

LOOSE = 0.25
RIDGE = 1.0  # precision of the common prior: separable cells would have infinite coefficients


def align_logits(members: Sequence[Member], known: Flags) -> tuple[Floats, Floats]:
    """The linear maps that bring each member's logits to those of the first.

    Parameters
    ----------
    members : the members of one ensemble
    known : (rows, classes), the labelled cells

    Returns
    -------
    slopes, offsets : (members,); a member without a cell in common with the first one, or
        without variation, keeps its slope
    """
    first = clipped_logit(members[0].scores)
    slopes, offsets = np.ones(len(members)), np.zeros(len(members))
    for i, member in enumerate(members):
        own = clipped_logit(member.scores)
        shared = known & ~np.isnan(own) & ~np.isnan(first)
        if not shared.any():
            continue
        spread, target = own[shared].std(), first[shared].std()
        if spread > 0 and target > 0:
            slopes[i] = target / spread
        offsets[i] = first[shared].mean() - slopes[i] * own[shared].mean()
    return slopes, offsets


def auc_weights(members: Sequence[Member], truth: Flags, known: Flags) -> Floats:
    """Weights (members, classes) from the members' AUC.

    Parameters
    ----------
    members : the members of one ensemble
    truth, known : (rows, classes)

    Returns
    -------
    weights : (members, classes), summing to 1 in each class
    """
    gain = np.full((len(members), truth.shape[1]), np.nan)
    for i, member in enumerate(members):
        for column in np.flatnonzero(member.scored):
            rows = known[:, column]
            auc = area_under_roc(truth[rows, column], member.scores[rows, column])
            gain[i, column] = max(auc - 0.5, 0.0) if not np.isnan(auc) else np.nan
    mean = np.nan_to_num(nan_mean(gain))[:, np.newaxis]
    return normalize_weights(np.where(np.isnan(gain), mean, gain), scored_classes(members))


def fit_weights(
    members: Sequence[Member], logits: Sequence[Floats], truth: Flags, known: Flags
) -> Floats:
    """Weights (members, classes) from a logistic regression.

    Parameters
    ----------
    members : the members of one ensemble
    logits : one (rows, classes) for each member, aligned
    truth, known : (rows, classes); cells that are all present or all absent fit nothing, and
        leave equal weights or those of the common fit

    Returns
    -------
    weights : (members, classes), summing to 1 in each class
    """
    stack = np.stack(logits, axis=-1)  # (rows, classes, members)
    mean = nan_mean(stack)[..., np.newaxis]
    stack = np.where(np.isnan(stack), mean, stack)  # a member without scores follows the others
    rows, columns = np.nonzero(known & ~np.isnan(mean[..., 0]))
    present, features = truth[rows, columns], stack[rows, columns]

    common: Floats = np.ones(len(members))
    if present.any() and not present.all():
        common = _coefficients(features, present, columns, np.zeros(len(members)), RIDGE)
    weights = np.tile(common[:, np.newaxis], (1, truth.shape[1]))
    size = common.mean()
    for column in range(truth.shape[1]) if size > 0 else ():
        own = columns == column
        if present[own].any() and not present[own].all():
            group = np.zeros(int(own.sum()), dtype=int)
            precision = 1 / (LOOSE * size) ** 2
            weights[:, column] = _coefficients(
                features[own], present[own], group, common, precision
            )
    return normalize_weights(weights, scored_classes(members))


def _coefficients(
    features: Floats, present: Flags, group: Any, prior_mean: Floats, precision: float
) -> Floats:
    """The non-negative coefficients (members,) that maximise the penalised likelihood.

    ``features`` are (cells, members); each ``group`` of cells has an intercept of its own without
    penalty; the penalty is ``precision / 2`` times the squared distance from ``prior_mean``.
    """
    members = features.shape[1]
    groups, group = np.unique(group, return_inverse=True)
    start = np.concatenate([prior_mean, np.zeros(len(groups))])
    bounds = [(0.0, None)] * members + [(-30.0, 30.0)] * len(groups)  # 30: as good as certain
    loss = _loss(features, present.astype(float), group, prior_mean, precision)
    solution = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(solution.x[:members])


def _loss(
    features: Floats, present: Floats, group: Any, prior_mean: Floats, precision: float
) -> Callable[[Floats], tuple[float, Floats]]:
    """The penalised negative log-likelihood, and its gradient."""
    members = features.shape[1]

    def loss(point: Floats) -> tuple[float, Floats]:
        coefficients, intercepts = point[:members], point[members:]
        total = features @ coefficients + intercepts[group]
        distance = coefficients - prior_mean
        value = (np.logaddexp(0, total) - present * total).sum()
        value = value + precision / 2 * (distance @ distance)
        error = expit(total) - present
        by_group = np.bincount(group, weights=error, minlength=len(intercepts))
        return float(value), np.concatenate([features.T @ error + precision * distance, by_group])

    return loss
