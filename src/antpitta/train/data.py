"""What a run learns from, ready to be cut into batches: pictures, windows, and what was heard.

What a frozen body sees of the training windows, kept, so that an epoch takes a moment.

A body that does not learn sees the same in every epoch, fold and stage. Whoever asks is known by
the body's own weights, so that another body never gets these features.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.config import Recipe
from antpitta.core.features import FeatureConfig
from antpitta.core.stages import Stage
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Dataset, Recording, Targets
from antpitta.model.features import FeatureArray
from antpitta.model.fusion import fuse_conv_bn
from antpitta.model.inputs import FeatureStore
from antpitta.model.network import SedNet
from antpitta.sound.targets import BoxFrames, CropCenters
from antpitta.sound.windows import WindowIndex, index_windows
from antpitta.train.overlays import OverlaidRecording

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingData:
    """A data set as a network sees it. An image is up to a minute of one recording."""

    dataset: Dataset
    features: FeatureStore
    recording_index: Ints  # (images,), the recording each is of; copies come after all recordings
    grids: tuple[TimeGrid, ...]  # of each image, on its recording's clock
    boxes: tuple[tuple[Annotation, ...], ...]  # of each recording and copy
    windows: WindowIndex  # the training windows of all images
    box_frames: BoxFrames  # of all segments
    labels: Targets  # (windows, classes)
    overlay_hosts: Ints  # of each recording and copy: the recording, itself or the host

    def windows_of(self, recordings: Ints) -> Ints:
        """The windows of these recordings."""
        return np.flatnonzero(np.isin(self.recording_index[self.windows.segment], recordings))

    @property
    def original_windows(self) -> NDArray[np.bool_]:
        """(windows,), which are of recordings and not of copies."""
        return self.recording_index[self.windows.segment] < len(self.dataset.recordings)

    def with_overlays(self, recordings: Ints) -> Ints:
        """These recordings, and all copies of them."""
        return np.flatnonzero(np.isin(self.overlay_hosts, recordings))

    def segments_of(self, recordings: Ints) -> Ints:
        """The images of these recordings."""
        return np.flatnonzero(np.isin(self.recording_index, recordings))

    @cached_property
    def crop_centers(self) -> CropCenters:
        """The middles of the boxes that crops lie around."""
        return CropCenters.from_boxes(self.boxes, self.recording_index, self.grids)


def build_training_data(
    dataset: Dataset,
    recipe: Recipe,
    drawn: Sequence[FeatureArray],
    device: torch.device,
    copies: Sequence[OverlaidRecording] = (),
) -> TrainingData:
    """Lay the pictures end to end, the copies' last, and draw what was heard on their windows."""
    said = defaultdict(list)
    for annotation in dataset.annotations:
        said[annotation.recording].append(annotation)
    boxes = tuple(tuple(said[recording.id]) for recording in dataset.recordings)
    boxes += tuple(copy.boxes for copy in copies)
    hosts = [*range(len(dataset.recordings)), *(copy.host for copy in copies)]
    owner, grids = _images([dataset.recordings[host] for host in hosts], recipe.feature_config)
    lengths = np.array([grid.frames for grid in grids], dtype=np.int64)
    pixels = torch.from_numpy(np.concatenate(drawn))
    if len(pixels) != lengths.sum():
        raise ValueError(f"{len(pixels)} frames were drawn, {lengths.sum()} were expected")
    frames = recipe.windows.frames
    cuts = index_windows(lengths, frames, recipe.windows.overlap)
    box_frames = BoxFrames.from_boxes([boxes[i] for i in owner], grids, dataset.classes)
    labels = box_frames.window_targets(cuts)
    pictures = FeatureStore(_move(pixels, device), lengths)
    places = np.array(owner, dtype=np.int64), np.array(hosts, dtype=np.int64)
    return TrainingData(
        dataset, pictures, places[0], tuple(grids), boxes, cuts, box_frames, labels, places[1]
    )


def _images(
    recordings: Sequence[Recording], drawing: FeatureConfig
) -> tuple[list[int], list[TimeGrid]]:
    """Of each image, the recording's place and the grid."""
    owner, grids = [], []
    for i, recording in enumerate(recordings):
        for start, stop in drawing.segments(recording.duration):
            owner.append(i)
            grids.append(drawing.time_grid(start, stop))
    return owner, grids


def _move(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To the GPU whole where it fits in half of what is free there; else it stays here."""
    if device.type != "cuda":
        return pixels
    free, _ = torch.cuda.mem_get_info(device)
    return pixels.to(device) if pixels.nbytes < free / 2 else pixels.pin_memory()


LIMIT = 4 << 30  # bytes; beyond it features are worked out anew each time
BATCH_FRAMES = 8192  # at once through the body


class FeatureCache:
    """The features of one body at a time: (windows, inputs, steps), float16."""

    def __init__(self) -> None:
        self.key = ""
        self.seen: Tensor | None = None

    def get(self, net: SedNet, stage: Stage, training_data: TrainingData) -> Tensor | None:
        """The features of all training windows; None where they differ from epoch to epoch."""
        changing = stage.masks.probability or stage.mixup or stage.sample == "crops"
        if not net.backbone_config.frozen or changing:
            return None
        key = _digest(net)
        if key != self.key:
            self.key, self.seen = key, _see(net, training_data)
        return self.seen


def _digest(net: SedNet) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for value in net.backbone.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def _see(net: SedNet, training_data: TrainingData) -> Tensor | None:
    net = fuse_conv_bn(net.eval())
    cuts, found = training_data.windows, []
    size = max(1, BATCH_FRAMES // cuts.frames)
    device = next(net.parameters()).device
    for first in range(0, len(cuts), size):
        rows = torch.arange(first, min(first + size, len(cuts))).numpy()
        seen = net.extract_features(
            training_data.features.gather(cuts.take(rows)).to(device)
        ).half()
        if seen[0].nbytes * len(cuts) > LIMIT:
            return None
        found.append(seen)
    return torch.cat(found).clone()
