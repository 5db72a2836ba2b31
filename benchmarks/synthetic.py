"""A training set of any size without a sound: real tables of boxes, pictures of noise.

Speed does not depend on what a picture shows, and the sound of thousands of recordings is not at
hand everywhere. The recordings are those that the tables name; too many are drawn from, too few
are filled up with such that have no box.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.types import Classes, Dataset, Recording
from antpitta.files.dataset import class_names
from antpitta.files.formats import read_table
from antpitta.model.inputs import FeatureStore
from antpitta.sound.targets import BoxFrames
from antpitta.train.data import TrainingData, build_training_data

SECONDS = 60.0  # of a recording
BLOCK = 1 << 22  # frames drawn at once: the generator needs several bytes for each it gives


@dataclass(frozen=True)
class Cells:
    """Windows x species: how many are said to be present, absent, and both."""

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
    """``count`` recordings of a minute with the tables' boxes; the longest box must fit in it."""
    if count < 2:
        raise UserError("E_TODO", f"--recordings {count}: folds need at least 2", "give more")
    tables = [read_table(path, True) for path in present]
    tables += [read_table(path, False) for path in absent]
    said = [one for table in tables for one in table.annotations]
    if not said:
        raise UserError("E_TODO", "no boxes: give tables with --present and --absent")
    names = sorted({one.recording for one in said})
    if count < len(names):
        drawn = np.random.default_rng(seed).choice(len(names), count, replace=False)
        names = [names[i] for i in sorted(drawn)]
    names += [f"without-box-{i}" for i in range(count - len(names))]
    labels = class_names({one.label.strip() for one in said})
    kept = set(names)
    boxes = tuple(
        replace(one, label=labels[one.label.strip()]) for one in said if one.recording in kept
    )
    recordings = tuple(
        Recording(name, Path(f"{name}.wav"), sample_rate, round(SECONDS * sample_rate))
        for name in names
    )
    return Dataset(recordings, boxes, Classes(tuple(labels.values())))


def synthetic_material(dataset: Dataset, recipe: Recipe, device: torch.device) -> TrainingData:
    """The data set with pictures of noise, drawn on the device itself."""
    drawing = recipe.feature_config
    frames = [
        sum(drawing.time_grid(*cut).frames for cut in drawing.segments(recording.duration))
        for recording in dataset.recordings
    ]
    # Windows and cells do not depend on the bands: one of them is enough to find them.
    narrow = [np.zeros((n, 1), dtype=np.uint8) for n in frames]
    training_data = build_training_data(dataset, recipe, narrow, torch.device("cpu"))
    generator = torch.Generator(device).manual_seed(recipe.seed)
    pixels = torch.empty(sum(frames), recipe.features.n_mels, dtype=torch.uint8, device=device)
    for part in torch.split(pixels, BLOCK):
        part.random_(0, 256, generator=generator)
    return replace(training_data, features=FeatureStore(pixels, training_data.features.lengths))


def count_cells(training_data: TrainingData) -> Cells:
    """Count what the boxes say, before present wins where they disagree."""
    present, absent = (_overlapped(training_data, kind) for kind in (True, False))
    return Cells(present.size, int(present.sum()), int(absent.sum()), int((present & absent).sum()))


def _overlapped(training_data: TrainingData, present: bool) -> np.ndarray:
    """(windows, classes): where a present box, or an absent one, overlaps the window."""
    boxes = [
        [box for box in training_data.boxes[owner] if box.present == present]
        for owner in training_data.recording_index
    ]
    box_frames = BoxFrames.from_boxes(boxes, training_data.grids, training_data.dataset.classes)
    return box_frames.window_targets(training_data.windows).weight > 0
