"""The loss: binary cross-entropy over known cells, or a ranking loss.

A cell is one window and class, or one box and class. A cell with weight 0 is unknown and has no
gradient, unless a setting says otherwise. Validated labels and pseudo-labels are two targets over
one batch, each with a value and a weight.

With z a logit, p and n the positive and negative part of a cell
(:attr:`CellTargets.positive`, :attr:`CellTargets.negative`), BCE+ = -log sigmoid(z) and
BCE- = -log(1 - sigmoid(z)), the reductions are:

- "sum": sum p BCE+ + sum n BCE-
- "positives": sum p BCE+ / sum p + sum n BCE-
- "balanced": sum p BCE+ / sum p + sum n BCE- / sum n
- "mean": (sum p BCE+ + sum n BCE-) / sum (p + n)

Added to it are

- the pseudo-labels: ``soft_weight`` times the same sums over their own cells. With "sum" they are
  not divided either, and with "positives" their positives count among the positives, with that
  weight. Otherwise they are divided by sum (p + n) over their cells;
- with ``unlabelled_target`` = t: ``unlabelled_weight`` times the mean of t BCE+ + (1 - t) BCE-
  over the unknown cells, or their sum with "sum".

With ``focal_gamma`` = g, BCE+ becomes (1 - sigmoid(z))^g BCE+ [1]_. Class weights multiply BCE+ of
labels, and ``positive_weight`` BCE+ of labels and pseudo-labels; divisors stay as they are.

With ``kind = "lsep"`` (log-sum-exp pairwise [2]_, equation 6) the loss of a window is
log(1 + sum exp(z_a - z_p)) over all pairs of an absent class a and a present class p, and 0 where
one of the two is missing; the loss is the mean over windows.

References
----------
.. [1] Lin et al., Focal Loss for Dense Object Detection, 2017.
.. [2] Li, Song and Luo, Improving Pairwise Ranking for Multi-label Image Classification, 2017.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import softplus

from antpitta.core.stages import LossConfig
from antpitta.model.inputs import Mixup

MIN_DIVISOR = 1e-6  # cells; a sum below it counts as no cell at all
NO_PAIR = -1e4  # added to logits that are in no pair; exp(NO_PAIR) is 0


@dataclass(frozen=True)
class CellTargets:
    """Targets of the cells of a batch.

    Parameters
    ----------
    value : (rows, classes), 0 absent to 1 present
    weight : (rows, classes), 0 unknown
    """

    value: Tensor
    weight: Tensor

    @property
    def positive(self) -> Tensor:
        """The positive part of each cell: value x weight."""
        return self.value * self.weight

    @property
    def negative(self) -> Tensor:
        """The negative part of each cell: (1 - value) x weight."""
        return (1 - self.value) * self.weight

    @classmethod
    def from_parts(cls, positive: Tensor, negative: Tensor) -> Self:
        """Build targets from the positive and negative part of each cell (rows, classes)."""
        weight = positive + negative
        return cls(torch.where(weight > 0, positive / weight.clamp_min(1e-12), 0.0), weight)

    def apply_mixup(self, mixup: Mixup) -> "CellTargets":
        """Mix positive and negative parts as the inputs are mixed."""
        return CellTargets.from_parts(mixup(self.positive), mixup(self.negative))

    def apply_manifold_mixup(self, mixup: Mixup) -> "CellTargets":
        """Mix positive parts as the feature maps are mixed; negative parts stay.

        A mixture has the calls of both examples, but a species that is absent from one need not be
        absent from the mixture.
        """
        return CellTargets.from_parts(mixup(self.positive), self.negative)

    def to(self, device: torch.device) -> "CellTargets":
        """Return the targets on a device."""
        return CellTargets(self.value.to(device), self.weight.to(device))

    def take(self, rows: slice | Tensor) -> "CellTargets":
        """Return the targets of some rows."""
        return CellTargets(self.value[rows], self.weight[rows])


LossTargets = tuple[CellTargets, CellTargets | None]  # labels, pseudo-labels


def treat_unknown_as_absent(labels: CellTargets, pseudo_labels: CellTargets | None) -> CellTargets:
    """Make cells without label and pseudo-label absent, with weight 1.

    Parameters
    ----------
    labels : validated labels
    pseudo_labels : pseudo-labels of the same cells

    Returns
    -------
    The labels, with the weight 1 in those cells.
    """
    known = labels.weight if pseudo_labels is None else labels.weight + pseudo_labels.weight
    return CellTargets(labels.value, torch.where(known > 0, labels.weight, 1.0))


def masked_loss(
    logits: Tensor,
    labels: CellTargets,
    pseudo_labels: CellTargets | None,
    config: LossConfig,
    class_weight: Tensor | None = None,
    global_targets: LossTargets | None = None,
) -> Tensor:
    """Compute the loss of a batch by the formulas in the module's docstring.

    Parameters
    ----------
    logits : (rows, classes), of windows or boxes
    labels : validated labels
    pseudo_labels : weight 0 wherever a label is known
    config : settings ``[stages.loss]`` of the recipe
    class_weight : (classes,)
    global_targets : where the rows are a part of a batch, the targets of the whole batch; divisors
        are counted there, so that the losses of all parts add up to that of the batch

    Returns
    -------
    A scalar; a batch without known cells gives 0, with a gradient of 0.
    """
    global_labels, global_pseudo_labels = global_targets or (labels, pseudo_labels)
    known = _known_cells(labels, pseudo_labels)
    global_known = _known_cells(global_labels, global_pseudo_labels)
    if config.unknown == "absent":
        labels = treat_unknown_as_absent(labels, pseudo_labels)
        global_labels = treat_unknown_as_absent(global_labels, global_pseudo_labels)
    if config.kind == "lsep":
        return pairwise_loss(logits, labels).sum() / len(global_labels.value)
    class_scale = torch.ones_like(logits) if class_weight is None else class_weight
    log_sigmoid = -softplus(-logits)
    negative_loss = softplus(logits)  # BCE-
    positive_loss = -log_sigmoid  # BCE+
    if config.focal_gamma:
        # (1 - p) ** gamma as exp(gamma * log(1 - p)): the power has an infinite gradient at p = 1.
        positive_loss = -log_sigmoid * (-config.focal_gamma * negative_loss).exp()
    losses = config.positive_weight * positive_loss, negative_loss
    divisors, pseudo_divisors = _find_divisors(global_labels, global_pseudo_labels, config)
    total = _cell_loss(labels, (losses[0] * class_scale, losses[1]), divisors)
    if pseudo_labels is not None:
        total = total + config.soft_weight * _cell_loss(pseudo_labels, losses, pseudo_divisors)
    if config.unlabelled_target is not None:
        target = config.unlabelled_target
        pull = (target * -log_sigmoid + (1 - target) * negative_loss) * (~known).to(logits.dtype)
        cells = 1.0 if config.reduction == "sum" else _divisor((~global_known).sum())
        total = total + config.unlabelled_weight * pull.sum() / cells
    return total


def pairwise_loss(logits: Tensor, labels: CellTargets) -> Tensor:
    """Compute the ranking loss of each window by the formula in the module's docstring.

    The sum over pairs is a product of two sums, so its logarithm is computed without overflow.

    Parameters
    ----------
    logits : (windows, classes)
    labels : a class is present where its positive part is above 0, and absent where its weight is

    Returns
    -------
    (windows,)
    """
    present, absent = labels.positive > 0, (labels.weight > 0) & (labels.positive <= 0)
    largest_absent = torch.where(absent, logits, logits + NO_PAIR).logsumexp(dim=1)
    least_present = torch.where(present, -logits, -logits + NO_PAIR).logsumexp(dim=1)
    return softplus(largest_absent + least_present)


@dataclass(frozen=True)
class _Divisors:
    """What the losses of positives and of negatives are divided by."""

    positive: Tensor | float = 1.0
    negative: Tensor | float = 1.0


def _find_divisors(
    labels: CellTargets, pseudo_labels: CellTargets | None, config: LossConfig
) -> tuple[_Divisors, _Divisors]:
    """The divisors of labels and of pseudo-labels, by the targets of the whole batch."""
    if config.reduction == "sum":
        return _Divisors(), _Divisors()
    positives = labels.positive.sum()
    if config.reduction == "positives":
        if pseudo_labels is not None:
            positives = positives + config.soft_weight * pseudo_labels.positive.sum()
        joint = _Divisors(_divisor(positives))
        return joint, joint
    cells = _divisor(labels.weight.sum())
    soft_cells = cells if pseudo_labels is None else _divisor(pseudo_labels.weight.sum())
    own = _Divisors(cells, cells)
    if config.reduction == "balanced":
        own = _Divisors(_divisor(positives), _divisor(labels.negative.sum()))
    return own, _Divisors(soft_cells, soft_cells)


def _cell_loss(targets: CellTargets, losses: tuple[Tensor, Tensor], divisors: _Divisors) -> Tensor:
    positive = (targets.positive * losses[0]).sum() / divisors.positive
    return positive + (targets.negative * losses[1]).sum() / divisors.negative


def _known_cells(labels: CellTargets, pseudo_labels: CellTargets | None) -> Tensor:
    known = labels.weight > 0
    return known if pseudo_labels is None else known | (pseudo_labels.weight > 0)


def _divisor(total: Tensor) -> Tensor:
    """Return ``total``, or 1 where it is practically 0.

    Where the divisor is 0 so is the sum above it, and any positive divisor gives 0. Mixup can
    leave 1e-26 of the only call of a batch: its loss is finite, but its gradient through 1 / total
    is not. Float32 features do not contain such a share, so it counts as 0.
    """
    return torch.where(total > MIN_DIVISOR, total, torch.ones_like(total))
