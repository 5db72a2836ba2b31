"""A training set of any size without sound: real tables of boxes, spectrograms of noise.

Speed does not depend on what a spectrogram shows, and the sound of thousands of recordings is not
at hand everywhere. The recordings are those that the tables name. If there are too many, some are
drawn at random; if there are too few, recordings without boxes are added.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.identity import class_names
from antpitta.core.types import Classes, Dataset, Recording
from antpitta.files.formats import read_table
from antpitta.model.inputs import FeatureStore
from antpitta.sound.targets import BoxFrames
from antpitta.train.data import TrainingData, build_training_data

SECONDS = 60.0  # length of a recording
BLOCK = 1 << 22  # frames generated at once: the generator needs several bytes for each


@dataclass(frozen=True)
class CellCounts:
    """How many cells (window, species) have a present box, an absent box, and both."""

    all: int
    present: int
    absent: int
    both: int

    def __str__(self) -> str:
        return (
            f"{self.all:,} cells: {self.present:,} present, {self.absent:,} absent, "
            f"{self.both} of them both"
        )


def synthetic_dataset(
    present: Sequence[Path], absent: Sequence[Path], count: int, sample_rate: int, seed: int
) -> Dataset:
    """Build a data set of recordings of one minute with the boxes of real tables.

    Parameters
    ----------
    present : tables of present boxes
    absent : tables of absent boxes
    count : the number of recordings
    sample_rate : Hz
    seed : chooses recordings where the tables name more than ``count``

    Returns
    -------
    Dataset
        Recordings that have no file.

    Raises
    ------
    UserError
        E_BENCHMARK_EMPTY for fewer than two recordings or tables without boxes.
    """
    if count < 2:
        raise UserError(
            "E_BENCHMARK_EMPTY", f"--recordings {count}: folds need at least 2", "give more"
        )
    tables = [read_table(path, True) for path in present]
    tables += [read_table(path, False) for path in absent]
    annotations = [annotation for table in tables for annotation in table.annotations]
    if not annotations:
        raise UserError(
            "E_BENCHMARK_EMPTY", "there are no boxes", "give tables with --present and --absent"
        )
    names = sorted({annotation.recording for annotation in annotations})
    if count < len(names):
        chosen = np.random.default_rng(seed).choice(len(names), count, replace=False)
        names = [names[i] for i in sorted(chosen)]
    names += [f"without-box-{i}" for i in range(count - len(names))]
    labels = class_names({annotation.label.strip() for annotation in annotations})
    kept = set(names)
    boxes = tuple(
        replace(annotation, label=labels[annotation.label.strip()])
        for annotation in annotations
        if annotation.recording in kept
    )
    recordings = tuple(
        Recording(name, Path(f"{name}.wav"), sample_rate, round(SECONDS * sample_rate))
        for name in names
    )
    return Dataset(recordings, boxes, Classes(tuple(labels.values())))


def synthetic_training_data(dataset: Dataset, recipe: Recipe, device: torch.device) -> TrainingData:
    """Build training data with spectrograms of noise, generated on the device itself.

    Parameters
    ----------
    dataset : recordings and boxes
    recipe : its features and windows count, its seed starts the generator
    device : where the spectrograms lie

    Returns
    -------
    TrainingData
        Features of uniform noise in 0..255.
    """
    config = recipe.feature_config
    frames = [
        sum(config.time_grid(*segment).frames for segment in config.segments(recording.duration))
        for recording in dataset.recordings
    ]
    # Windows and cells do not depend on the number of bands: one band is enough to find them.
    narrow = [np.zeros((n, 1), dtype=np.uint8) for n in frames]
    training_data = build_training_data(dataset, recipe, narrow, torch.device("cpu"))
    generator = torch.Generator(device).manual_seed(recipe.seed)
    pixels = torch.empty(sum(frames), recipe.features.n_mels, dtype=torch.uint8, device=device)
    for part in torch.split(pixels, BLOCK):
        part.random_(0, 256, generator=generator)
    return replace(training_data, features=FeatureStore(pixels, training_data.features.lengths))


def count_cells(training_data: TrainingData) -> CellCounts:
    """Count labelled cells before present overrides absent.

    Parameters
    ----------
    training_data : windows and boxes

    Returns
    -------
    CellCounts
        Cells with present boxes, absent boxes, and both.
    """
    present, absent = (_labelled(training_data, value) for value in (True, False))
    both = int((present & absent).sum())
    return CellCounts(present.size, int(present.sum()), int(absent.sum()), both)


def _labelled(training_data: TrainingData, present: bool) -> np.ndarray:
    """Which cells have a present, or an absent, box: (windows, classes)."""
    boxes = [
        [box for box in training_data.boxes[index] if box.present == present]
        for index in training_data.recording_index
    ]
    box_frames = BoxFrames.from_boxes(boxes, training_data.grids, training_data.dataset.classes)
    return box_frames.window_targets(training_data.windows).weight > 0
