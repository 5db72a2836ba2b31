"""The loss: binary cross-entropy over known cells.

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

- the pseudo-labels: ``soft_weight`` (sum p BCE+ + sum n BCE-) / sum (p + n) over their own cells,
  without the division for "sum";
- with ``unlabelled_target`` = t: ``unlabelled_weight`` times the mean of t BCE+ + (1 - t) BCE-
  over the unknown cells.

With ``focal_gamma`` = g, BCE+ becomes (1 - sigmoid(z))^g BCE+ [1]_. A class weight multiplies both
parts of its cells, but not the divisor.

References
----------
.. [1] Lin et al., Focal Loss for Dense Object Detection, 2017.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import softplus

from antpitta.core.stages import LossConfig
from antpitta.model.inputs import Mixup

MIN_DIVISOR = 1e-6  # cells; a sum below it counts as no cell at all


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
    class_scale = torch.ones_like(logits) if class_weight is None else class_weight
    log_sigmoid = -softplus(-logits)
    negative_loss = softplus(logits)  # BCE-
    positive_loss = -log_sigmoid  # BCE+
    if config.focal_gamma:
        # (1 - p) ** gamma as exp(gamma * log(1 - p)): the power has an infinite gradient at p = 1.
        positive_loss = -log_sigmoid * (-config.focal_gamma * negative_loss).exp()
    losses = positive_loss, negative_loss
    total = _label_loss(labels, global_labels, losses, class_scale, config)
    if pseudo_labels is not None and global_pseudo_labels is not None:
        total = total + config.soft_weight * _pseudo_label_loss(
            pseudo_labels, global_pseudo_labels, losses, config
        )
    if config.unlabelled_target is not None:
        target = config.unlabelled_target
        pull = (target * -log_sigmoid + (1 - target) * negative_loss) * (~known).to(logits.dtype)
        total = total + config.unlabelled_weight * pull.sum() / _divisor((~global_known).sum())
    return total


def _label_loss(
    labels: CellTargets,
    global_labels: CellTargets,
    losses: tuple[Tensor, Tensor],
    class_scale: Tensor,
    config: LossConfig,
) -> Tensor:
    positive = (labels.positive * losses[0] * class_scale).sum()
    negative = (labels.negative * losses[1] * class_scale).sum()
    if config.reduction in ("positives", "balanced"):
        positive = positive / _divisor(global_labels.positive.sum())
    if config.reduction == "balanced":
        negative = negative / _divisor(global_labels.negative.sum())
    total = positive + negative
    return total / _divisor(global_labels.weight.sum()) if config.reduction == "mean" else total


def _pseudo_label_loss(
    pseudo_labels: CellTargets,
    global_pseudo_labels: CellTargets,
    losses: tuple[Tensor, Tensor],
    config: LossConfig,
) -> Tensor:
    total = (pseudo_labels.positive * losses[0] + pseudo_labels.negative * losses[1]).sum()
    return (
        total if config.reduction == "sum" else total / _divisor(global_pseudo_labels.weight.sum())
    )


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
