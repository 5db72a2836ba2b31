"""Computing the scores of trained networks in PyTorch: on GPUs, and as the exact mode.

:func:`predict_sliding` runs a network over segments of any length, window by window. Windows
overlap, and where several cover a frame the highest probability wins, so that a call that the edge
of one window cuts is taken from the other. With ``windows.padding = "mean"`` the scores of padding
count as those of the segment's last row.

A GPU gets all windows before the first score is read back. Reading after each batch would leave
it idle while the CPU sorts the scores, which are few beside the features.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import gcd
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.config import Recipe, WindowConfig
from antpitta.core.errors import UserError
from antpitta.model.fusion import fuse_conv_bn
from antpitta.model.head import Logits
from antpitta.model.inference import padded_length
from antpitta.model.inputs import FeatureStore
from antpitta.model.network import MultiHeadNet, SedNet, share_backbone
from antpitta.sound.windows import WindowIndex, window_starts

Floats = NDArray[np.float32]
FeatureArray = NDArray[Any]
FRAMES_PER_BATCH = {"cpu": 1 << 14, "cuda": 1 << 18}  # enough to keep the device busy


class TorchBackend:
    """The networks of one model in PyTorch, on a GPU if there is one.

    Parameters
    ----------
    nets : the networks, changed in place
    segment_frames : frames of the recipe's segments
    windows : how to cut segments into windows; None to score segments as a whole
    half : compute in bfloat16 where PyTorch allows it
    """

    uses_own_threads = False

    def __init__(
        self,
        nets: Sequence[SedNet],
        segment_frames: int,
        windows: WindowConfig | None = None,
        *,
        half: bool = False,
    ) -> None:
        self.segment_frames, self.windows, self.half = segment_frames, windows, half
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        nets = [net.eval().to(self.device) for net in nets]
        shared = share_backbone(nets)  # it is then run, and fused, once
        self.nets = [net if shared and i else fuse_conv_bn(net) for i, net in enumerate(nets)]
        self._run: list[SedNet | MultiHeadNet] = (
            [MultiHeadNet(self.nets)] if shared else [*self.nets]
        )
        self.frames_per_row = self.nets[0].stride
        if windows is not None:
            self.frames_per_row = frames_per_row(
                self.frames_per_row, windows.frames, windows.inference_overlap
            )

    def predict(self, features: FeatureArray) -> list[Floats]:
        """Score a segment (frames, width): probabilities (rows, classes) of each network."""
        scores = [self._predict(net, features) for net in self._run]
        if not all(np.isfinite(part).all() for part in scores):
            raise UserError(
                "E_MODEL_DAMAGED",
                "the model's scores are not all numbers, because its weights are too large",
                "copy the model again, or train it again",
            )
        return np.split(scores[0], len(self.nets), axis=1) if len(scores) == 1 else scores

    @contextmanager
    def session(self) -> Iterator[None]:
        """Use one thread per operation: the last digits of a split sum depend on the split."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def _predict(self, net: SedNet | MultiHeadNet, features: FeatureArray) -> Floats:
        pixels = torch.from_numpy(np.ascontiguousarray(features)).to(self.device)
        lengths = np.array([len(features)], dtype=np.int64)
        marks = self.windows is not None and self.windows.padding == "mean"
        store = FeatureStore(pixels, lengths, marks_padding=marks)
        frames, overlap = padded_length(len(features), self.segment_frames, net.stride), 0
        if self.windows is not None:
            frames, overlap = self.windows.frames, self.windows.inference_overlap
        segments = np.array([0], dtype=np.int64)
        batch = windows_per_batch(frames, self.device.type)
        scores = predict_sliding(
            net, store, segments, frames, overlap, batch, precision=self._precision
        )
        return scores[0]

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext()


def build_nets(
    recipe: Recipe, states: Sequence[dict[str, Tensor]], classes: int, width: int
) -> list[SedNet]:
    """Build the trained networks of a recipe from their weights.

    Parameters
    ----------
    recipe : with every "boxes" filled in
    states : the weights of each network
    classes : number of classes
    width : values per frame of the features

    Returns
    -------
    A network for each of ``states``, in eval mode.

    Raises
    ------
    RuntimeError
        For weights of another network.
    """
    nets = []
    for state in states:
        net = SedNet(
            recipe.backbone,
            recipe.head,
            classes,
            bands=width,
            has_zero_shot=recipe.has_zero_shot,
            load_weights=False,
        )
        net.load_state_dict(state)
        nets.append(net.eval())
    return nets


def frames_per_row(stride: int, frames: int, overlap: int) -> int:
    """Return the frames per row of the scores: the largest that all windows' steps fall on.

    Parameters
    ----------
    stride : frames per step of the network
    frames, overlap : of the windows

    Returns
    -------
    A divisor of the stride, in frames.

    Examples
    --------
    >>> frames_per_row(32, 512, 256)
    32
    """
    return gcd(stride, frames - overlap)


def windows_per_batch(frames: int, device: str = "cpu") -> int:
    """Choose how many windows go through the network at once.

    Parameters
    ----------
    frames : of a window
    device : type of the device, such as "cuda"

    Returns
    -------
    At least 1.
    """
    return max(1, FRAMES_PER_BATCH.get(device, FRAMES_PER_BATCH["cpu"]) // frames)


@torch.inference_mode()
def predict_sliding(
    net: SedNet | MultiHeadNet,
    features: FeatureStore,
    segments: NDArray[np.int64],
    frames: int,
    overlap: int,
    batch: int,
    update: Callable[[int], None] = lambda done: None,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[Floats]:
    """Score segments with overlapping windows.

    Parameters
    ----------
    net : one network, or several with a shared backbone
    features : the features of all segments
    segments : the indices of those to score
    frames, overlap : of the windows
    batch : windows per batch, at most; a segment with more is one batch
    update : called with the number of segments that are done (on a GPU: queued) since the last call
    precision : each batch runs inside this context

    Returns
    -------
    Framewise probabilities (rows, classes) of each segment; see :func:`frames_per_row`.
    """
    net.eval()
    row_frames = frames_per_row(net.stride, frames, overlap)
    starts = [window_starts(int(features.lengths[i]), frames, overlap) for i in segments]
    batches, first = [], 0
    while first < len(segments):
        last = first + 1
        windows = len(starts[first])
        while last < len(segments) and windows + len(starts[last]) <= batch:
            windows += len(starts[last])
            last += 1
        index = _window_index(segments[first:last], starts[first:last], frames)
        with precision():
            logits = _run(net, features, index).framewise
        batches.append(torch.sigmoid(logits.float()))  # (windows, steps, classes)
        update(last - first)
        first = last
    probabilities = iter(torch.cat(batches).cpu().numpy()) if batches else iter(())
    rows = [-(-int(features.lengths[i]) // row_frames) for i in segments]
    merge = partial(merge_windows, padding_counts=features.marks_padding)
    return [
        merge(probabilities, first_frames, count, row_frames, net.stride)
        for first_frames, count in zip(starts, rows, strict=True)
    ]


@torch.inference_mode()
def predict_windows(
    net: SedNet,
    features: FeatureStore,
    windows: WindowIndex,
    batch: int,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Floats:
    """Score training windows.

    Parameters
    ----------
    net : the network
    features : the features of all segments
    windows : the windows
    batch : windows per batch
    precision : each batch runs inside this context

    Returns
    -------
    Clipwise logits (windows, classes).
    """
    net.eval()
    blocks = []
    for first in range(0, len(windows), batch):
        index = windows.take(np.arange(first, min(first + batch, len(windows))))
        with precision():
            blocks.append(_run(net, features, index).clipwise.float())
    return torch.cat(blocks).cpu().numpy()


def _run(net: SedNet | MultiHeadNet, features: FeatureStore, windows: WindowIndex) -> Logits:
    """The logits of some windows."""
    device, inside = net.mean.device, features.inside(windows)
    pixels = features.gather(windows).to(device)
    logits: Logits = net(pixels) if inside is None else net(pixels, inside=inside.to(device))
    return logits


def _window_index(segments: NDArray[np.int64], starts: list[list[int]], frames: int) -> WindowIndex:
    return WindowIndex(
        np.repeat(segments.astype(np.int64), [len(s) for s in starts]),
        np.array([start for s in starts for start in s], dtype=np.int64),
        frames,
    )


def merge_windows(
    probabilities: Iterator[Floats],
    starts: list[int],
    rows: int,
    row_frames: int,
    stride: int,
    *,
    padding_counts: bool = False,
) -> Floats:
    """Take the next windows as the scores of one segment.

    Parameters
    ----------
    probabilities : (steps, classes) of each window; those of the segment are taken
    starts : first frames of the segment's windows
    rows : of the result
    row_frames, stride : frames per row and per step
    padding_counts : rows beyond the segment join its last row instead of being left out

    Returns
    -------
    (rows, classes): the highest probability of the windows that cover each row
    """
    scores: Floats | None = None
    for start in starts:
        window = np.repeat(next(probabilities), stride // row_frames, axis=0)
        if scores is None:
            scores = np.zeros((rows, window.shape[1]), dtype=np.float32)
        part = scores[start // row_frames : start // row_frames + len(window)]
        np.maximum(part, window[: len(part)], out=part)
        if padding_counts and len(window) > len(part):
            np.maximum(scores[-1], window[len(part) :].max(axis=0), out=scores[-1])
    assert scores is not None  # every segment has a window
    return scores
