"""What one model is trained on: the task, its class weights and its feature normalizer; shared by the training loop and the L-BFGS solver."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.errors import UserError
from antpitta.core.stages import Stage
from antpitta.core.types import Targets
from antpitta.model.network import SedNet
from antpitta.train.data import TrainingData

BLOCK = 16  # windows of a frozen body that are levelled, or lent to, at once


@dataclass(frozen=True)
class TrainTask:
    """One model to train: a stage, on some recordings, from a seed."""

    stage: Stage
    recordings: NDArray[np.int64]  # recordings
    pseudo_labels: Targets | None
    seed: tuple[int, ...]  # of this stage, cycle and fold
    backbone_features: Tensor | None = (
        None  # (windows, inputs, steps), where a frozen body's view is kept
    )
    compiled: bool = False  # the network is, for the size of an epoch's first batch


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did."""

    epoch: int  # from 1
    loss: float  # mean over the batches
    lr: float  # at the epoch's end
    windows: int
    seconds: float
    steps: int = 0


def fit_normalizer(
    net: SedNet, seen: Tensor, windows: NDArray[np.int64], device: torch.device
) -> None:
    """Level ``net`` by what its frozen body saw of these windows."""
    blocks = (torch.from_numpy(windows[i : i + BLOCK]) for i in range(0, len(windows), BLOCK))
    net.head.fit_normalizer(seen[rows.to(seen.device)].to(device) for rows in blocks)


def fit_zero_shot(
    net: SedNet, task: TrainTask, training_data: TrainingData, device: torch.device
) -> None:
    """Lay what an embedding's network says of its classes by itself beside the head, which has
    learnt, by what both make of the training recordings.
    """
    own = training_data.windows_of(task.recordings)
    own = own[training_data.original_windows[own]]
    cuts = (training_data.windows.take(own[i : i + BLOCK]) for i in range(0, len(own), BLOCK))
    net.head.fit_zero_shot(
        net.extract_features(training_data.features.gather(some).to(device)) for some in cuts
    )


def no_boxes_error(task: TrainTask) -> UserError:
    """What is raised where no training recording has a box."""
    return UserError(
        "E_TODO",
        f"stage {task.stage.name}: its {len(task.recordings)} training recordings have no box to learn from",
        "give boxes in more recordings, or fewer folds (--set folds=2)",
    )


def class_weights(training_data: TrainingData, task: TrainTask) -> Tensor:
    """A class weighs max_count / count, by its present boxes among the training recordings.

    A class without any weighs 1, as the commonest does: nothing is known that would call for more.
    """
    classes = training_data.dataset.classes
    count = np.zeros(len(classes), dtype=np.float32)
    for recording in task.recordings:
        for said in training_data.boxes[recording]:
            if said.present:
                count[classes.columns(said.label)] += 1
    return torch.from_numpy(np.where(count > 0, count.max() / np.maximum(count, 1), np.float32(1)))
