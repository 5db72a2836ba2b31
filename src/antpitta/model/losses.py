"""The loss: sums over the cells where somebody listened, and nothing elsewhere.

A cell that nobody listened to has weight 0 and gives no gradient, unless a setting says
otherwise. Listeners and teachers (pseudo labels) are two targets over one batch; both are
carried as value and weight. Last-layer mixup mixes what is present, by value and weight, and
leaves absences with the example they belong to: a mixture holds both examples' calls, but what
is silent in one need not be silent in the mixture (RECIPE: Pseudo labels, then stage 3).

The formulas, with z a logit, p and n the positive and negative parts of a cell,
BCE+ = -log sigmoid(z) and BCE- = -log(1 - sigmoid(z)):

- "sum": sum p BCE+ + sum n BCE-
- "positives": sum p BCE+ / sum p + sum n BCE-
- "balanced": sum p BCE+ / sum p + sum n BCE- / sum n
- "mean": (sum p BCE+ + sum n BCE-) / sum (p + n)

plus ``soft`` times the same over the taught cells, divided by their weight in all but the first.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import softplus

from antpitta.core.stages import LossConfig
from antpitta.model.inputs import Mixup


@dataclass(frozen=True)
class CellTargets:
    """Targets of a batch of windows; both tensors are (windows, classes)."""

    value: Tensor
    weight: Tensor

    @property
    def positive(self) -> Tensor:
        """How much of each cell is present."""
        return self.value * self.weight

    @property
    def negative(self) -> Tensor:
        """How much of each cell is absent."""
        return (1 - self.value) * self.weight

    @classmethod
    def of(cls, positive: Tensor, negative: Tensor) -> Self:
        """The inverse of the two properties."""
        weight = positive + negative
        return cls(torch.where(weight > 0, positive / weight.clamp_min(1e-12), 0.0), weight)

    def mixed(self, mix: Mixup) -> "CellTargets":
        """After the input is mixed: values and weights are mixed alike."""
        return CellTargets.of(mix(self.positive), mix(self.negative))

    def take(self, rows: slice | Tensor) -> "CellTargets":
        """Those of some rows only."""
        return CellTargets(self.value[rows], self.weight[rows])

    def mixed_late(self, mix: Mixup) -> "CellTargets":
        """After feature maps are mixed: presences are mixed, absences stay."""
        return CellTargets.of(mix(self.positive), self.negative)


NOTHING = 1e-6  # of a cell
LossTargets = tuple[CellTargets, CellTargets | None]  # what listeners said, and what teachers did


def treat_unknown_as_absent(labels: CellTargets, pseudo_labels: CellTargets | None) -> CellTargets:
    """What ``labels`` becomes where every cell that nobody spoke of counts as a whole absence."""
    known = labels.weight if pseudo_labels is None else labels.weight + pseudo_labels.weight
    return CellTargets(labels.value, torch.where(known > 0, labels.weight, 1.0))


def masked_loss(
    logits: Tensor,
    labels: CellTargets,
    pseudo_labels: CellTargets | None,
    loss: LossConfig,
    class_weight: Tensor | None = None,
    whole: LossTargets | None = None,
) -> Tensor:
    """One number for a batch of clipwise ``logits`` (windows, classes), by the formulas above.

    ``labels`` is what listeners said, ``pseudo_labels`` what teachers did, zero-weight where a listener
    spoke; ``class_weight`` is (classes,). A batch without known cells gives 0, with a gradient of
    0.

    Where the rows are a part of a batch, ``whole`` is the targets of all of it: what is divided
    by is counted there, so that the losses of all parts add up to that of the batch.
    """
    all_heard, all_taught = whole or (labels, pseudo_labels)
    known, all_known = _known(labels, pseudo_labels), _known(all_heard, all_taught)
    if loss.unknown == "absent":
        labels = treat_unknown_as_absent(labels, pseudo_labels)
        all_heard = treat_unknown_as_absent(all_heard, all_taught)
    scale = torch.ones_like(logits) if class_weight is None else class_weight
    gain = -softplus(-logits)  # log sigmoid
    alarm = softplus(logits)  # -log(1 - sigmoid)
    # (1 - p) ** focal by way of the logarithm: the power's own gradient at p = 1 is infinite.
    miss = -gain * (-loss.focal_gamma * alarm).exp() if loss.focal_gamma else -gain
    total = _of_heard(labels, all_heard, miss, alarm, scale, loss)
    if pseudo_labels is not None and all_taught is not None:
        total = total + loss.soft_weight * _of_taught(pseudo_labels, all_taught, miss, alarm, loss)
    if loss.unlabelled_target is not None:
        pulled = (loss.unlabelled_target * -gain + (1 - loss.unlabelled_target) * alarm) * (
            ~known
        ).to(logits.dtype)
        total = total + loss.unlabelled_weight * pulled.sum() / _at_least_some((~all_known).sum())
    return total


def _of_heard(
    labels: CellTargets,
    whole: CellTargets,
    miss: Tensor,
    alarm: Tensor,
    scale: Tensor,
    loss: LossConfig,
) -> Tensor:
    present = (labels.positive * miss * scale).sum()
    absent = (labels.negative * alarm * scale).sum()
    if loss.reduction in ("positives", "balanced"):
        present = present / _at_least_some(whole.positive.sum())
    if loss.reduction == "balanced":
        absent = absent / _at_least_some(whole.negative.sum())
    total = present + absent
    return total / _at_least_some(whole.weight.sum()) if loss.reduction == "mean" else total


def _of_taught(
    pseudo_labels: CellTargets, whole: CellTargets, miss: Tensor, alarm: Tensor, loss: LossConfig
) -> Tensor:
    soft = (pseudo_labels.positive * miss + pseudo_labels.negative * alarm).sum()
    return soft if loss.reduction == "sum" else soft / _at_least_some(whole.weight.sum())


def _known(labels: CellTargets, pseudo_labels: CellTargets | None) -> Tensor:
    known = labels.weight > 0
    return known if pseudo_labels is None else known | (pseudo_labels.weight > 0)


def _at_least_some(total: Tensor) -> Tensor:
    # A mean over nothing is 0/0; the sum above it is 0, so any positive divisor gives 0. Mixup
    # can leave 1e-26 of a batch's only call: its loss is finite, its gradient, by way of 1/total,
    # is not. Float32 features do not hold such a share at all, so it is nothing either.
    return torch.where(total > NOTHING, total, torch.ones_like(total))
