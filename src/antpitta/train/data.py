"""What models are trained on: the windows of a data set with their labels, and one model's task.

A recording is split into segments of up to a minute, and segments into overlapping windows.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.features import FeatureConfig
from antpitta.core.stages import Stage
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Dataset, Recording, Targets
from antpitta.model.features import FeatureArray
from antpitta.model.inputs import FeatureStore
from antpitta.model.network import SedNet
from antpitta.sound.targets import BoxFrames, CropCenters
from antpitta.sound.windows import WindowIndex, index_windows
from antpitta.train.step_store import BackboneFeatures

Ints = NDArray[np.int64]

HEAD_WINDOWS = 16  # windows in one block when a zero-shot blend is fitted


@dataclass(frozen=True)
class TrainingData:
    """The windows of a data set, with their features and labels.

    Parameters
    ----------
    dataset
        The data set.
    features
        The features of all segments.
    recording_index : (segments,)
        The recording that each segment belongs to.
    grids : (segments,)
        The frames of each segment, on its recording's clock.
    boxes : (recordings,)
        The boxes of each recording.
    windows
        The training windows of all segments.
    box_frames
        The boxes as frames of the segments.
    labels : (windows, classes)
        The targets of each window, from the boxes.
    """

    dataset: Dataset
    features: FeatureStore
    recording_index: Ints
    grids: tuple[TimeGrid, ...]
    boxes: tuple[tuple[Annotation, ...], ...]
    windows: WindowIndex
    box_frames: BoxFrames
    labels: Targets

    @cached_property
    def crop_centers(self) -> tuple[CropCenters, CropCenters]:
        """The middles of the present and of the absent boxes."""
        present, absent = (
            CropCenters.from_boxes(self.boxes, self.recording_index, self.grids, present=present)
            for present in (True, False)
        )
        return present, absent

    @cached_property
    def verdict_labels(self) -> tuple[Targets, Targets]:
        """The targets of each window from present boxes alone, and from absent ones alone."""
        present, absent = (
            self.box_frames.select(present=present).window_targets(self.windows)
            for present in (True, False)
        )
        return present, absent

    def windows_of(self, recordings: Ints) -> Ints:
        """The indices of the windows of these recordings."""
        return np.flatnonzero(np.isin(self.recording_index[self.windows.segment], recordings))

    def window_times(self, window: int) -> tuple[float, float]:
        """When a window begins and ends, in seconds of its recording; without padding."""
        grid = self.grids[self.windows.segment[window]]
        return _window_times(grid, int(self.windows.start[window]), self.windows.frames)

    def segments_of(self, recordings: Ints) -> Ints:
        """The indices of the segments of these recordings."""
        return np.flatnonzero(np.isin(self.recording_index, recordings))


@lru_cache(maxsize=4096)  # the windows of recordings of one length are alike
def _window_times(grid: TimeGrid, first: int, frames: int) -> tuple[float, float]:
    return grid.seconds(first), min(grid.seconds(first + frames), grid.end)


def build_training_data(
    dataset: Dataset,
    recipe: Recipe,
    features: Sequence[FeatureArray],
    device: torch.device,
) -> TrainingData:
    """Split recordings into segments and windows, and derive the windows' labels from the boxes.

    Parameters
    ----------
    dataset, recipe
        The recordings with their boxes, and the settings.
    features : one array (frames, features per frame) for each recording
    device
        Where the features are kept, if they fit.

    Returns
    -------
    training_data
        The windows of all recordings, in the order of the data set.

    Raises
    ------
    ValueError
        Where the features have another number of frames than the segments.
    """
    boxes_by_id = defaultdict(list)
    for annotation in dataset.annotations:
        boxes_by_id[annotation.recording].append(annotation)
    boxes = tuple(tuple(boxes_by_id[recording.id]) for recording in dataset.recordings)
    recording_index, grids = _split_segments(dataset.recordings, recipe.feature_config)
    lengths = np.array([grid.frames for grid in grids], dtype=np.int64)
    pixels = torch.from_numpy(np.concatenate(features))
    if len(pixels) != lengths.sum():
        raise ValueError(f"features have {len(pixels)} frames instead of {lengths.sum()}")
    windows = index_windows(lengths, recipe.windows.frames, recipe.windows.overlap)
    box_frames = BoxFrames.from_boxes([boxes[i] for i in recording_index], grids, dataset.classes)
    return TrainingData(
        dataset=dataset,
        features=FeatureStore(
            _move_if_it_fits(pixels, device),
            lengths,
            marks_padding=recipe.windows.padding == "mean",
        ),
        recording_index=np.array(recording_index, dtype=np.int64),
        grids=tuple(grids),
        boxes=boxes,
        windows=windows,
        box_frames=box_frames,
        labels=box_frames.window_targets(windows),
    )


def _split_segments(
    recordings: Sequence[Recording], config: FeatureConfig
) -> tuple[list[int], list[TimeGrid]]:
    """For each segment, the index of its recording and its grid."""
    recording_index, grids = [], []
    for i, recording in enumerate(recordings):
        for start, stop in config.segments(recording.duration):
            recording_index.append(i)
            grids.append(config.time_grid(start, stop))
    return recording_index, grids


def _move_if_it_fits(pixels: Tensor, device: torch.device) -> Tensor:
    """Move features to the GPU if they fit into half of its free memory."""
    if device.type != "cuda":
        return pixels
    free, _ = torch.cuda.mem_get_info(device)
    return pixels.to(device) if pixels.nbytes < free / 2 else pixels.pin_memory()


# ---- one model's task


@dataclass(frozen=True)
class TrainTask:
    """One model to train.

    Parameters
    ----------
    stage
        The settings of its stage.
    recordings : indices
        The recordings to train on.
    pseudo_labels : (windows, classes)
        Pseudo-labels of all training windows, if the stage has them.
    seed
        Different for each stage, cycle and fold.
    backbone_features
        Those of all training windows, where they are the same in all epochs.
    compiled
        The network is compiled, for the size of an epoch's first batch.
    """

    stage: Stage
    recordings: Ints
    pseudo_labels: Targets | None
    seed: tuple[int, ...]
    backbone_features: BackboneFeatures | None = None
    compiled: bool = False

    @property
    def no_boxes_error(self) -> UserError:
        """The error where no training recording has a box."""
        return UserError(
            "E_NO_BOXES",
            f"stage {self.stage.name}: none of its {len(self.recordings)} training recordings has "
            "a box",
            "add boxes in more recordings, or use fewer folds (--set folds=2)",
        )


@dataclass(frozen=True)
class EpochResult:
    """A row of ``log.csv``, without the stage, cycle and fold.

    Parameters
    ----------
    epoch
        Counted from 1.
    loss
        The mean over the batches.
    lr
        The learning rate at the end of the epoch.
    windows, seconds, steps
        The number of windows shown, the duration, and the steps of the optimizer.
    lwlrap
        Of the held-out recordings, where the best epoch is kept.
    """

    epoch: int
    loss: float
    lr: float
    windows: int
    seconds: float
    steps: int = 0
    lwlrap: float | None = None


def compute_class_weights(dataset: Dataset) -> Tensor:
    """Weight classes by max_count / count of their present boxes in the data set.

    A class without a present box has weight 1, like the most frequent class: nothing is known
    that would justify more.

    Parameters
    ----------
    dataset
        The boxes of all recordings, in all folds.

    Returns
    -------
    weights : (classes,)
    """
    classes = dataset.classes
    count = np.zeros(len(classes), dtype=np.float32)
    for box in dataset.annotations:
        if box.present:
            count[classes.columns(box.label)] += 1
    return torch.from_numpy(np.where(count > 0, count.max() / np.maximum(count, 1), np.float32(1)))


# ---- features of a backbone


def extract_features(
    net: SedNet, training_data: TrainingData, windows: WindowIndex, device: torch.device
) -> Tensor:
    """Run the backbone on some windows.

    Parameters
    ----------
    net
        The network.
    training_data
        The features from files.
    windows
        Any windows of its segments.
    device
        Where the network is.

    Returns
    -------
    features : (windows, inputs, steps)
    """
    pixels = training_data.features.gather(windows).to(device)
    inside = training_data.features.inside(windows)
    return net.extract_features(pixels, inside=None if inside is None else inside.to(device))


def _blocks(windows: Ints, size: int) -> Iterator[Ints]:
    return (windows[i : i + size] for i in range(0, len(windows), size))
