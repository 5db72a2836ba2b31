"""How much each member of an ensemble counts, learned from judged cells.

- By AUC: a member's weight for a species is what its AUC there has above chance (0.5), so that
  a member that knows nothing about a species has no say in it. Where the cells of a species
  are of one kind, the member's mean over the other species stands in.
- By fit: the logits of all members enter a logistic regression of present against absent,
  with coefficients that cannot be negative; their shares are the weights. Each species has an
  intercept, which is used up here: how many absent boxes it has is no property of the sound.
  First one set of coefficients for all species, then for each its own, drawn towards the
  common set as by a prior of ``LOOSE`` times their mean size: few cells, few liberties.

Both work on logits that are brought to the first member's mean and deviation, over the judged
cells that both members score.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from antpitta.scores.bootstrap import mean_known
from antpitta.scores.ensemble.members import Member, as_logits, known_classes, weight_shares
from antpitta.scores.metrics import Flags, Floats, area_under_roc

LOOSE = 0.25
RIDGE = 1.0  # a normal prior on the common coefficients: separable cells would have no end


def align_logits(members: Sequence[Member], known: Flags) -> tuple[Floats, Floats]:
    """Slope and offset (members,) that bring each one's logits to the first one's.

    A member that shares no cell with the first, or does not vary, keeps its slope.
    """
    first = as_logits(members[0].scores)
    slopes, offsets = np.ones(len(members)), np.zeros(len(members))
    for i, member in enumerate(members):
        own = as_logits(member.scores)
        shared = known & ~np.isnan(own) & ~np.isnan(first)
        if not shared.any():
            continue
        spread, wanted = own[shared].std(), first[shared].std()
        if spread > 0 and wanted > 0:
            slopes[i] = wanted / spread
        offsets[i] = first[shared].mean() - slopes[i] * own[shared].mean()
    return slopes, offsets


def auc_weights(members: Sequence[Member], truth: Flags, known: Flags) -> Floats:
    """Weights (members, classes), each class's summing to 1 over those who know it."""
    gain = np.full((len(members), truth.shape[1]), np.nan)
    for i, member in enumerate(members):
        for column in np.flatnonzero(member.knows):
            mine = known[:, column]
            auc = area_under_roc(truth[mine, column], member.scores[mine, column])
            gain[i, column] = max(auc - 0.5, 0.0) if not np.isnan(auc) else np.nan
    usual = np.nan_to_num(mean_known(gain))[:, np.newaxis]
    return weight_shares(np.where(np.isnan(gain), usual, gain), known_classes(members))


def fit_weights(
    members: Sequence[Member], logits: Sequence[Floats], truth: Flags, known: Flags
) -> Floats:
    """Weights (members, classes) from aligned ``logits``, one (rows, classes) a member.

    Cells of one kind only fit nothing: members weigh the same, or as the common fit has it.
    """
    knows = known_classes(members)
    stack = np.stack(logits, axis=-1)  # (rows, classes, members)
    middle = mean_known(stack)[..., np.newaxis]
    stack = np.where(np.isnan(stack), middle, stack)  # who does not know goes with the others
    rows, columns = np.nonzero(known & ~np.isnan(middle[..., 0]))
    said, heard = truth[rows, columns], stack[rows, columns]

    common: Floats = np.ones(len(members))
    if said.any() and not said.all():
        common = _coefficients(heard, said, columns, np.zeros(len(members)), RIDGE)
    weights = np.tile(common[:, np.newaxis], (1, truth.shape[1]))
    size = common.mean()
    for column in range(truth.shape[1]) if size > 0 else ():
        mine = columns == column
        if said[mine].any() and not said[mine].all():
            one = np.zeros(int(mine.sum()), dtype=int)
            pull = 1 / (LOOSE * size) ** 2
            weights[:, column] = _coefficients(heard[mine], said[mine], one, common, pull)
    return weight_shares(weights, knows)


def _coefficients(heard: Floats, said: Flags, group: Any, centre: Floats, pull: float) -> Floats:
    """The non-negative coefficients (members,) that maximise the penalised likelihood.

    ``heard`` is (cells, members); each ``group`` of cells has an intercept of its own, free of
    penalty; the penalty is ``pull / 2`` times the squared distance from ``centre``.
    """
    members = heard.shape[1]
    groups, group = np.unique(group, return_inverse=True)
    start = np.concatenate([centre, np.zeros(len(groups))])
    bounds = [(0.0, None)] * members + [(-30.0, 30.0)] * len(groups)  # 30: as good as certain
    loss = _loss(heard, said.astype(float), group, centre, pull)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x[:members])


def _loss(
    heard: Floats, said: Floats, group: Any, centre: Floats, pull: float
) -> Callable[[Floats], tuple[float, Floats]]:
    """Negative log-likelihood with its penalty, and its gradient."""
    members = heard.shape[1]

    def loss(point: Floats) -> tuple[float, Floats]:
        coefficients, intercepts = point[:members], point[members:]
        total = heard @ coefficients + intercepts[group]
        away = coefficients - centre
        value = (np.logaddexp(0, total) - said * total).sum() + pull / 2 * (away @ away)
        error = expit(total) - said
        by_group = np.bincount(group, weights=error, minlength=len(intercepts))
        return float(value), np.concatenate([heard.T @ error + pull * away, by_group])

    return loss
