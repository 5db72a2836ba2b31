"""Within-class covariance normalisation: what tells animals of a species apart counts less.

A head's L2 holds all inputs to be alike. The boxes of one species show which are not: where they
differ among themselves they tell this animal, place or distance from that one, and a head that
leans on it knows a few animals instead of the species. With the covariance of the boxes around
their species' means as the metric of the L2, such directions cost more (Hatch, Kajarekar and
Stolcke, Within-class covariance normalization for SVM-based speaker recognition, 2006: there for
speakers, told apart across channels).

A few hundred boxes fill a few hundred directions of many thousand, so the covariance is mixed
with the identity, and kept as those directions.

Boxes as rows of a frozen body's features, and the metric in which a head learns from them.

A head on a frozen body, taught by boxes alone: solved, not stepped towards.

Each box is then one row of numbers (the mean of the features over it), the logits are linear in
the head and the loss with its L2 is convex, so there is one best head. L-BFGS finds it in seconds,
and no rate, batch or number of epochs has a say in it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from antpitta.core.errors import UserError
from antpitta.model.head import box_step_shares
from antpitta.model.losses import CellTargets, masked_loss
from antpitta.model.network import SedNet
from antpitta.train.batches import box_batch
from antpitta.train.data import TrainingData
from antpitta.train.task import (
    EpochResult,
    TrainTask,
    class_weights,
    fit_normalizer,
    no_boxes_error,
)


@dataclass(frozen=True)
class WithinClassWhitening:
    """Weights learn in coordinates in which boxes of a species lie equally close everywhere."""

    basis: Tensor  # (inputs, directions), orthonormal
    factor: Tensor  # (directions,), by which a weight along one counts
    rest: float  # by which it counts along all others

    @classmethod
    def of_boxes(cls, rows: Tensor, present: Tensor, share: float) -> Self | None:
        """``rows`` (boxes, inputs), levelled; ``present`` (boxes, classes), bool. ``share`` of
        the metric is the boxes' covariance, of a mean variance of 1, the rest the identity.

        None where no species has two boxes that differ.
        """
        apart = []
        for own in present.T:
            if own.sum() > 1:
                apart.append(rows[own] - rows[own].mean(dim=0))
        spread = torch.cat(apart) if apart else rows[:0]
        total = spread.square().sum()
        if not total > 0:
            return None
        seen = int((spread != 0).any(dim=0).sum())  # inputs that no head sees are 0
        _, size, basis = torch.linalg.svd(spread, full_matrices=False)
        kept = size > size[0] * 1e-5
        variance = size[kept].square() * seen / total
        return cls(
            basis[kept].T.contiguous(),
            (share * variance + 1 - share).rsqrt(),
            (1 - share) ** -0.5,
        )

    def turn(self, weight: Tensor) -> Tensor:
        """Weights (classes, inputs, 1) as they learn, to those of the inputs."""
        return self._stretched(weight, self.factor, self.rest)

    def back(self, weight: Tensor) -> Tensor:
        """The inverse of :meth:`turn`."""
        return self._stretched(weight, 1 / self.factor, 1 / self.rest)

    def _stretched(self, weight: Tensor, factor: Tensor, rest: float) -> Tensor:
        flat = weight[:, :, 0]
        turned = rest * flat + ((flat @ self.basis) * (factor - rest)) @ self.basis.T
        return turned[:, :, None]


def box_rows(
    net: SedNet, seen: Tensor, training_data: TrainingData, recordings: np.ndarray
) -> tuple[Tensor, CellTargets]:
    """A row of features (inputs,) and of targets (classes,) for every box of these recordings."""
    device = net.head.class_conv.weight.device
    rows, value, weight = [], [], []
    for window in training_data.windows_of(recordings):
        batch = box_batch(training_data, np.array([window]), None)
        if batch.box_spans is None or not len(batch.box_spans):
            continue
        features = seen[int(window)].to(device).float()  # (inputs, steps)
        shares = box_step_shares(
            torch.from_numpy(batch.box_spans).to(device), features.shape[1], net.stride
        )
        rows.append(shares @ features.T)
        value.append(batch.labels.value)
        weight.append(batch.labels.weight)
    if not rows:
        return torch.zeros(0), CellTargets(torch.zeros(0), torch.zeros(0))
    told = (torch.from_numpy(np.concatenate(part)).to(device) for part in (value, weight))
    return torch.cat(rows), CellTargets(*told)


@contextmanager
def whitened(net: SedNet, rows: Tensor, labels: CellTargets) -> Iterator[None]:
    """Inside, the settled ``net`` learns in the metric of these boxes, if it is to have one."""
    present = (labels.value > 0.5) & (labels.weight > 0)
    share = net.head_config.within_class_whitening
    with torch.no_grad():
        metric = (
            WithinClassWhitening.of_boxes(net.head.normalize_rows(rows), present, share)
            if share and len(rows)
            else None
        )
        if metric is not None:
            net.head.class_conv.weight.copy_(metric.back(net.head.class_conv.weight))
    net.head.weight_transform = None if metric is None else metric.turn
    yield
    net.head.weight_transform = None
    with torch.no_grad():
        if metric is not None:
            net.head.class_conv.weight.copy_(metric.turn(net.head.class_conv.weight))


STEPS = 200  # at most; most heads need a third


def solve_linear_head(
    net: SedNet,
    task: TrainTask,
    training_data: TrainingData,
    fabric: Fabric,
    report: Callable[[EpochResult], None],
) -> None:
    """The head that minimises the stage's loss over all training boxes, into ``net``."""
    began, stage = time.perf_counter(), task.stage
    net.to(fabric.device)
    if task.backbone_features is None:
        raise UserError(
            "E_TODO",
            f'stage {stage.name}: solver "lbfgs" needs a frozen backbone without masks or mixup, whose features fit in memory',
            'set solver = "adam"',
        )
    own = training_data.windows_of(task.recordings)
    fit_normalizer(net, task.backbone_features, own, fabric.device)
    rows, labels = box_rows(net, task.backbone_features, training_data, task.recordings)
    if not len(rows):
        raise no_boxes_error(task)
    weights = (
        class_weights(training_data, task).to(fabric.device) if stage.loss.class_weights else None
    )
    head = [one for one in net.head.class_conv.parameters() if one.requires_grad]
    solver = torch.optim.LBFGS(head, max_iter=STEPS, line_search_fn="strong_wolfe")

    def value() -> Tensor:
        solver.zero_grad()
        logits = net.head.classify_rows(rows)
        loss = masked_loss(logits, labels, None, stage.loss, weights)
        loss = loss + stage.weight_decay / 2 * net.head.class_conv.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with whitened(net, rows, labels):
        solver.step(value)  # type: ignore[no-untyped-call]
        loss = float(value().detach())
    steps = int(solver.state[head[0]]["n_iter"])
    seconds = time.perf_counter() - began
    report(EpochResult(1, loss, 0.0, len(own), seconds, steps))
