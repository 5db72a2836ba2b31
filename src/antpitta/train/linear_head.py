"""A linear head on a frozen backbone, trained on boxes by calls of a solver.

* Each box is one row of numbers, the mean of the features over it. The logits are linear in the
  head, and the loss with its L2 penalty is convex, so there is one best head. L-BFGS finds it in
  seconds, and no learning rate, batch size or number of epochs has an influence.
* A few absent boxes do not show what else sounds like nothing of the species. The present boxes of
  other species are weak negatives of it, and so is the mean of each training window without a box
  of the species (:func:`add_weak_negatives`): most of them do not hold it. They are a prior and no
  labels, and enter no metric.
* The best moments of these windows have weak targets (:mod:`antpitta.train.weak_targets`). For
  these, the training recordings are split into folds, and each fold is scored by a head of the
  others. So the final head knows nothing of recordings that it does not train on.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from antpitta.core.errors import UserError
from antpitta.core.stages import Stage
from antpitta.model.losses import CellTargets, masked_loss
from antpitta.model.network import SedNet
from antpitta.train.data import (
    EpochResult,
    TrainingData,
    TrainTask,
    compute_class_weights,
)
from antpitta.train.out_of_fold import assign_folds
from antpitta.train.step_store import BackboneFeatures
from antpitta.train.weak_targets import WeakTargets, compute_weak_targets, find_peak_rows

MAX_STEPS = 200  # of the solver; most heads need a third
FOLDS = 4  # of the recordings that a head trains on, for weak targets
MAX_ROWS = 100_000  # of weak targets, 1 GB with 2,304 inputs; beyond it windows are sampled


@dataclass(frozen=True)
class BoxRows:
    """The boxes of some training windows, as rows.

    Parameters
    ----------
    rows : (boxes, inputs)
        The mean of the features over each box.
    labels : (boxes, classes)
        1 for the classes of a present box, 0 for those of an absent one; all others have weight 0.
    window : (boxes,)
        The window of each box.
    window_means : (windows, inputs)
        The mean of the features over each window.
    window_steps : (windows,)
        Its steps; 0 for a window of nothing but padding, which is no weak negative.
    """

    rows: Tensor
    labels: CellTargets
    window: Tensor
    window_means: Tensor
    window_steps: Tensor


def collect_box_rows(
    features: BackboneFeatures, training_data: TrainingData, recordings: np.ndarray
) -> BoxRows:
    """One row of features and of targets for every box in every training window.

    Parameters
    ----------
    features
        The features of all training windows.
    training_data
        The windows and their boxes.
    recordings : indices
        The recordings whose boxes are taken.

    Returns
    -------
    rows
        Their boxes and windows.
    """
    windows = training_data.windows_of(recordings)
    box_spans, targets = training_data.box_frames.box_targets(training_data.windows.take(windows))
    rows, sums = features.rows_of(windows), features.sums.take(windows)
    value, weight = (
        torch.from_numpy(part).to(rows.device) for part in (targets.value, targets.weight)
    )
    window = torch.from_numpy(box_spans[:, 0].astype(np.int64)).to(rows.device)
    means = (sums.total / sums.count.clamp_min(1)[:, None]).to(rows.device, rows.dtype)
    return BoxRows(rows, CellTargets(value, weight), window, means, sums.count.to(rows.device))


def add_weak_negatives(boxes: BoxRows, weight: float) -> tuple[Tensor, CellTargets]:
    """Balance the boxes of each species, and add weak negatives of it.

    Parameters
    ----------
    boxes
        Boxes and windows.
    weight
        Of other species' present boxes together, and of all windows without a box of the species
        together; the present and the absent boxes of a species weigh 1 each.

    Returns
    -------
    rows : (boxes + windows, inputs)
        The boxes, then the windows.
    targets : (boxes + windows, classes)
        For the plain sum of losses. The parts of each species are divided by the number of species.
    """
    labels, n_windows = boxes.labels, len(boxes.window_means)
    known = (labels.weight > 0).to(labels.value.dtype)
    known_in_window = known.new_zeros(n_windows, known.shape[1]).index_add(0, boxes.window, known)
    of_others = (labels.positive > 0).any(dim=1, keepdim=True) * (1 - known)

    def share(part: Tensor) -> Tensor:
        return part / part.sum(dim=0).clamp_min(1) / part.shape[1]

    negative = share(labels.negative) + weight * share(of_others)
    is_unknown = (known_in_window == 0) & (boxes.window_steps[:, None] > 0)
    of_windows = weight * share(is_unknown.to(known.dtype))
    positive = torch.cat([share(labels.positive), torch.zeros_like(of_windows)])
    targets = CellTargets.from_parts(positive, torch.cat([negative, of_windows]))
    return torch.cat([boxes.rows, boxes.window_means]), targets


def solve_linear_head(
    net: SedNet,
    task: TrainTask,
    training_data: TrainingData,
    fabric: Fabric,
    report: Callable[[EpochResult], None],
) -> None:
    """Replace the head by the one that minimizes the stage's loss over all training boxes.

    Parameters
    ----------
    net
        The network; it ends on the device of ``fabric``.
    task, training_data
        What to train it on.
    fabric
        The device.
    report
        Called once, at the end.

    Raises
    ------
    UserError
        ``E_SOLVER`` without features of a frozen backbone, ``E_NO_BOXES`` without boxes.
    """
    began, stage = time.perf_counter(), task.stage
    net.to(fabric.device)
    if task.backbone_features is None:
        raise UserError(
            "E_SOLVER",
            f'stage {stage.name}: optimizer = "lbfgs" needs a frozen backbone, no masks and no '
            "mixup",
            'set optimizer = "adam"',
        )
    windows = training_data.windows_of(task.recordings)
    task.backbone_features.fit_normalizer(net, windows)
    boxes = collect_box_rows(task.backbone_features, training_data, task.recordings)
    if not len(boxes.rows):
        raise task.no_boxes_error
    weights = None
    if stage.loss.class_weights:
        weights = compute_class_weights(training_data.dataset).to(fabric.device)
    weak = None
    if stage.loss.weak_negatives:
        weak = _find_weak_targets(net, task, training_data, weights)
    loss, steps = _minimize(net, stage, boxes, weak, weights)
    seconds = time.perf_counter() - began
    report(EpochResult(1, loss, 0.0, len(windows), seconds, steps))


def _find_weak_targets(
    net: SedNet, task: TrainTask, training_data: TrainingData, class_weights: Tensor | None
) -> WeakTargets | None:
    """Weak targets of the training windows; None where recordings or boxes are too few."""
    features, dataset = task.backbone_features, training_data.dataset
    assert features is not None
    if len(task.recordings) < FOLDS:
        return None
    part = replace(
        dataset,
        recordings=tuple(dataset.recordings[i] for i in task.recordings),
        annotations=tuple(box for i in task.recordings for box in training_data.boxes[i]),
    )
    folds = assign_folds(part, FOLDS, task.seed[0])
    windows = training_data.windows_of(task.recordings)
    most = max(1, MAX_ROWS // len(dataset.classes))
    if len(windows) > most:
        windows = np.sort(np.random.default_rng(task.seed).choice(windows, most, replace=False))
    owner = training_data.recording_index[training_data.windows.segment[windows]]
    shape = (len(dataset.classes), len(windows), features.box_rows.shape[1])
    rows = torch.zeros(shape, device=features.box_rows.device)
    logits = np.zeros(shape[1::-1])
    for fold in range(FOLDS):
        boxes = collect_box_rows(features, training_data, task.recordings[folds != fold])
        if not len(boxes.rows):
            return None
        _minimize(net, task.stage, boxes, None, class_weights)
        net.eval()
        for n in np.flatnonzero(np.isin(owner, task.recordings[folds == fold])):
            steps = features.store.gather(windows[n : n + 1])[0]
            rows[:, n], highest = find_peak_rows(net.head, steps)
            logits[n] = highest.cpu().numpy()
    targets = compute_weak_targets(logits, windows, training_data, task.stage.loss.weak_negatives)
    return WeakTargets(rows, targets.to(rows.device))


def _minimize(
    net: SedNet,
    stage: Stage,
    boxes: BoxRows,
    weak: WeakTargets | None,
    class_weights: Tensor | None,
) -> tuple[float, int]:
    """Run L-BFGS on the class weights; returns the loss and the number of steps."""
    head, config, rows, labels = net.head, stage.loss, boxes.rows, boxes.labels
    if config.weak_negatives:
        rows, labels = add_weak_negatives(boxes, config.weak_negatives)
        config = config.model_copy(update={"reduction": "sum"})
    weights = [weight for weight in head.class_conv.parameters() if weight.requires_grad]
    solver = torch.optim.LBFGS(weights, max_iter=MAX_STEPS, line_search_fn="strong_wolfe")

    def compute_loss() -> Tensor:
        solver.zero_grad()
        logits = head.classify_rows(rows)
        loss = masked_loss(logits, labels, None, config, class_weights)
        if weak is not None:
            logits = head.classify_rows_of_classes(weak.rows).T
            loss = loss + masked_loss(logits, weak.targets, None, config, class_weights)
        loss = loss + stage.weight_decay / 2 * head.class_conv.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(compute_loss)  # type: ignore[no-untyped-call]
    return float(compute_loss().detach()), int(solver.state[weights[0]]["n_iter"])
