"""The features of a frozen backbone, computed once for all training windows.

A frozen backbone gives the same features of a window in every epoch, fold and stage.

* A head on boxes needs one row of numbers for each box, and the normalizer needs sums. Both are
  small, and computed while the features pass by.
* The features of every step are needed where a whole window is compared with a target (a
  pseudo-label), and to score recordings. They are kept for the recordings of the data set, in
  memory while they are few, else in a file that has no name and disappears with the process.
* Windows are as long as their sound, so a clip of five seconds costs five seconds.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from antpitta.core.progress import ProgressCallback, no_progress
from antpitta.core.stages import Stage
from antpitta.model.fusion import fuse_conv_bn
from antpitta.model.head import box_step_shares
from antpitta.model.inference import padded_length
from antpitta.model.network import SedNet
from antpitta.model.normalizer import StepSums
from antpitta.train.data import TrainingData, extract_features
from antpitta.train.step_store import BackboneFeatures, StepStore

Ints = NDArray[np.int64]

BACKBONE_FRAMES = 8192  # frames in one pass through a frozen backbone


class FeatureCache:
    """The features of one frozen backbone at a time."""

    def __init__(self) -> None:
        self.key = ""
        self.features: BackboneFeatures | None = None

    def get(
        self,
        net: SedNet,
        stage: Stage,
        training_data: TrainingData,
        folder: Path | None = None,
        progress: ProgressCallback = no_progress,
    ) -> BackboneFeatures | None:
        """Compute or return the features of all training windows.

        Parameters
        ----------
        net
            On the device where features are computed.
        stage
            Whether its features stay the same in all epochs.
        training_data
            The windows.
        folder
            Where a file of many features is kept.
        progress
            Called while features are computed.

        Returns
        -------
        features
            None where they differ between epochs (a trained backbone, masks, mixup, crops), or
            where features of mixed steps would be needed.
        """
        changing = stage.masks.probability or stage.mixup or stage.sample == "crops"
        on_boxes = stage.loss.on == "boxes"
        mixed = on_boxes and stage.manifold_mixup
        if not net.backbone_config.frozen or changing or mixed:
            return None
        key = _backbone_digest(net)
        if key != self.key:
            self.features = None  # the memory of the old ones is needed
            self.features = _compute_features(net, training_data, folder, progress)
            self.key = key
        return self.features


def _backbone_digest(net: SedNet) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for value in net.backbone.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def _compute_features(
    net: SedNet, training_data: TrainingData, folder: Path | None, progress: ProgressCallback
) -> BackboneFeatures:
    net = fuse_conv_bn(net.eval())
    windows, device = training_data.windows, next(net.parameters()).device
    box_spans, _ = training_data.box_frames.box_targets(windows)
    offsets = np.searchsorted(box_spans[:, 0], np.arange(len(windows) + 1))
    frames = _window_frames(training_data, net.stride)
    steps = -(-frames // net.stride)
    inputs = net.head.class_conv.in_channels
    store = StepStore(steps, inputs, device, folder)
    rows = torch.zeros((len(box_spans), inputs), device=device)
    sums = StepSums.zeros(len(windows), inputs, device)
    done = 0
    for block in _blocks_of_equal_length(frames):
        index = replace(windows.take(block), frames=int(frames[block[0]]))
        features = extract_features(net, training_data, index, device).half()
        for window, window_features in zip(block.tolist(), features, strict=True):
            store.write(window, window_features)
            own = slice(*offsets[window : window + 2])
            own_box_spans = torch.from_numpy(box_spans[own]).to(device)
            shares = box_step_shares(own_box_spans, window_features.shape[1], net.stride)
            rows[own] = shares @ window_features.T.float()
        sums.add(block, features)
        done += len(block)
        progress(done, len(windows), float("nan"))
    return BackboneFeatures(store, rows, offsets, sums)


def _window_frames(training_data: TrainingData, stride: int) -> Ints:
    """How many frames of each window go through the backbone: as many as prediction would take."""
    windows = training_data.windows
    left = training_data.features.lengths[windows.segment] - windows.start
    lengths, place = np.unique(np.minimum(left, windows.frames), return_inverse=True)
    padded = [padded_length(int(length), windows.frames, stride) for length in lengths]
    return np.minimum(np.array(padded, dtype=np.int64), windows.frames)[place]


def _blocks_of_equal_length(frames: Ints) -> Iterator[Ints]:
    """Groups of windows that go through the backbone together."""
    order = np.argsort(frames, kind="stable")
    for length, group in groupby(order.tolist(), key=lambda window: int(frames[window])):
        windows, size = np.array([*group], dtype=np.int64), max(1, BACKBONE_FRAMES // length)
        yield from (windows[i : i + size] for i in range(0, len(windows), size))
