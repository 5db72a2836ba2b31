"""What a run learns from, ready to be cut into batches: pictures, windows, and what was heard."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from antpitta.core.config import Recipe
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Dataset, Recording, Targets
from antpitta.sound.logmel import LogMel, picture
from antpitta.sound.targets import window_targets
from antpitta.sound.windows import Cuts, Pictures, cut

Ints = NDArray[np.int64]
Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Material:
    """A data set as a network sees it. An image is up to a minute of one recording."""

    dataset: Dataset
    pictures: Pictures
    owner: Ints  # (images,), the recording each is of
    grids: tuple[TimeGrid, ...]  # of each image, on its recording's clock
    boxes: tuple[tuple[Annotation, ...], ...]  # of each recording
    cuts: Cuts  # the training windows of all images
    heard: Targets  # (windows, classes)

    def windows_of(self, recordings: Ints) -> Ints:
        """The windows of these recordings."""
        return np.flatnonzero(np.isin(self.owner[self.cuts.image], recordings))

    def images_of(self, recordings: Ints) -> Ints:
        """The images of these recordings."""
        return np.flatnonzero(np.isin(self.owner, recordings))


def draw_recording(
    recording: Recording,
    recipe: Recipe,
    mel: LogMel,
    read: Callable[[Recording, float, float], Wave],
) -> NDArray[np.uint8]:
    """The picture of a recording: its images end to end, (frames, bands).

    Sound that ends before its header says it does is filled up with silence.
    """
    front = recipe.front
    parts = []
    for start, stop in front.images_of(recording.duration):
        need = round((stop - start) * front.sample_rate)
        wave = read(recording, start, stop)[:need]
        parts.append(picture(np.pad(wave, (0, need - len(wave))), mel))
    return np.concatenate(parts)


def gather_material(
    dataset: Dataset, recipe: Recipe, drawn: list[NDArray[np.uint8]], device: torch.device
) -> Material:
    """Lay the pictures end to end and draw what was heard on their windows."""
    front, windows = recipe.front, recipe.windows
    said = defaultdict(list)
    for annotation in dataset.annotations:
        said[annotation.recording].append(annotation)
    boxes = tuple(tuple(said[recording.id]) for recording in dataset.recordings)
    owner, grids = [], []
    for i, recording in enumerate(dataset.recordings):
        for start, stop in front.images_of(recording.duration):
            owner.append(i)
            grids.append(front.grid_of(start, stop))
    lengths = np.array([grid.frames for grid in grids], dtype=np.int64)
    pixels = torch.from_numpy(np.concatenate(drawn))
    if len(pixels) != lengths.sum():
        raise ValueError(f"{len(pixels)} frames were drawn, {lengths.sum()} were expected")
    cuts = cut(lengths, windows.frames, windows.overlap)
    first_row = np.searchsorted(cuts.image, np.arange(len(grids) + 1))
    told = [
        window_targets(
            boxes[owner[i]],
            grid,
            [int(s) for s in cuts.first[first_row[i] : first_row[i + 1]]],
            windows.frames,
            dataset.classes,
        )
        for i, grid in enumerate(grids)
    ]
    heard = Targets(
        np.concatenate([t.value for t in told]), np.concatenate([t.weight for t in told])
    )
    pictures = Pictures(_move(pixels, device), lengths)
    return Material(
        dataset, pictures, np.array(owner, dtype=np.int64), tuple(grids), boxes, cuts, heard
    )


def _move(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To the GPU whole where it fits in half of what is free there; else it stays here."""
    if device.type != "cuda":
        return pixels
    free, _ = torch.cuda.mem_get_info(device)
    return pixels.to(device) if pixels.nbytes < free / 2 else pixels.pin_memory()
