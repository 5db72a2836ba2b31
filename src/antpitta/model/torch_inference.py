"""Trained networks in PyTorch: on GPUs, where nothing was exported, and as the exact mode.

Apart from engines.py because PyTorch's backbones take seconds to load, which OpenVINO's users
need not wait for.

Running a network over pictures of any length, window by window.

Prediction uses framewise probabilities and windows that overlap; where several windows cover a
moment the highest wins, so that a call cut by one window's edge is taken from the other.

A GPU is given window after window and asked for all scores at the end: asked after each batch,
it would idle while the host lays the answer out. The scores are few beside the pictures.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.config import Recipe, WindowConfig
from antpitta.model.fusion import fuse_conv_bn
from antpitta.model.inference import padded_length
from antpitta.model.inputs import FeatureStore
from antpitta.model.network import MultiHeadNet, SedNet, share_backbone
from antpitta.sound.windows import WindowIndex, window_starts

if TYPE_CHECKING:  # backbones take seconds to load, and who asks OpenVINO needs none
    from antpitta.model.network import MultiHeadNet, SedNet


Floats = NDArray[np.float32]
Picture = NDArray[Any]


class TorchBackend:
    """The networks of one model; ``windows`` is how to cut images, None for as a whole.

    ``whole`` are the frames of the recipe's images; ``half`` computes in bfloat16 what bears it.
    """

    aside = False

    def __init__(
        self,
        nets: Sequence[SedNet],
        whole: int,
        windows: WindowConfig | None = None,
        *,
        half: bool = False,
    ) -> None:
        self.whole, self.windows, self.half = whole, windows, half
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        ready = [net.eval().to(self.device) for net in nets]
        one = share_backbone(ready)  # which then is run, and folded, once
        self.nets = (
            [fuse_conv_bn(ready[0]), *ready[1:]] if one else [fuse_conv_bn(net) for net in ready]
        )
        self._run: list[SedNet | MultiHeadNet] = (
            [MultiHeadNet(self.nets)] if one else list(self.nets)
        )
        self.unit = self.nets[0].stride
        if windows is not None:
            self.unit = unit_of(self.unit, windows.frames, windows.inference_overlap)

    def hear(self, seen: Picture) -> list[Floats]:
        """Framewise probabilities of an image (frames, bands): (rows, classes) of each network."""
        labels = [self._heard(net, seen) for net in self._run]
        return np.split(labels[0], len(self.nets), axis=1) if len(labels) == 1 else labels

    @contextmanager
    def listening(self) -> Iterator[None]:
        """No sum is split: its last digits, and so the tables, would depend on how many cores."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _heard(self, net: SedNet | MultiHeadNet, seen: Picture) -> Floats:
        pixels = torch.from_numpy(np.ascontiguousarray(seen)).to(self.device)
        pictures = FeatureStore(pixels, np.array([len(seen)], dtype=np.int64))
        frames, overlap = padded_length(len(seen), self.whole, net.stride), 0
        if self.windows is not None:
            frames, overlap = self.windows.frames, self.windows.inference_overlap
        only = np.array([0], dtype=np.int64)
        batch = scan_batch(frames, self.device.type)
        return scan(net, pictures, only, frames, overlap, batch, precision=self._precision)[0]

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext()


def build_nets(
    recipe: Recipe, states: Sequence[dict[str, Tensor]], classes: int, width: int
) -> list[SedNet]:
    """The trained networks of a recipe from their weights, ready to score.

    Raises RuntimeError for weights of another network.
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


SCAN_FRAMES = {"cpu": 1 << 14, "cuda": 1 << 18}  # at once: enough to keep it busy, not too many


def unit_of(stride: int, frames: int, overlap: int) -> int:
    """The frames of one row of the scores: the coarsest that every window's steps fall on.

    >>> unit_of(32, 512, 256)
    32
    """
    return gcd(stride, frames - overlap)


def scan_batch(frames: int, device: str = "cpu") -> int:
    """How many windows of so many frames go through the network at once, on a type of device."""
    return max(1, SCAN_FRAMES.get(device, SCAN_FRAMES["cpu"]) // frames)


@torch.inference_mode()
def scan(
    net: "SedNet | MultiHeadNet",
    pictures: FeatureStore,
    images: NDArray[np.int64],
    frames: int,
    overlap: int,
    batch: int,
    tick: Callable[[int], None] = lambda done: None,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[Floats]:
    """Framewise probabilities of these ``images``: (rows, classes) each, on seams.py's grid.

    ``batch`` windows at once, each run inside ``precision()``; ``tick`` is told how many images
    are done (on a GPU: queued) since the last call.
    """
    net.eval()
    unit = unit_of(net.stride, frames, overlap)
    starts = [window_starts(int(pictures.lengths[image]), frames, overlap) for image in images]
    labels, first = [], 0
    while first < len(images):
        last = first + 1
        held = len(starts[first])
        while last < len(images) and held + len(starts[last]) <= batch:
            held += len(starts[last])
            last += 1
        cuts = _windows(images[first:last], starts[first:last], frames)
        with precision():
            logits = net(pictures.gather(cuts).to(net.mean.device)).framewise
        labels.append(torch.sigmoid(logits.float()))  # (windows, steps, classes)
        tick(last - first)
        first = last
    chances = iter(torch.cat(labels).cpu().numpy()) if labels else iter(())
    return [
        _lay(chances, some, -(-int(pictures.lengths[image]) // unit), unit, net.stride)
        for image, some in zip(images, starts, strict=True)
    ]


def _windows(images: NDArray[np.int64], starts: list[list[int]], frames: int) -> WindowIndex:
    return WindowIndex(
        np.repeat(images.astype(np.int64), [len(s) for s in starts]),
        np.array([s for some in starts for s in some], dtype=np.int64),
        frames,
    )


def _lay(chances: Iterator[Floats], starts: list[int], rows: int, unit: int, stride: int) -> Floats:
    """The scores of one image's windows, the next of ``chances``: (rows, classes)."""
    whole: Floats | None = None
    for start in starts:
        chance = np.repeat(next(chances), stride // unit, axis=0)
        if whole is None:
            whole = np.zeros((rows, chance.shape[1]), dtype=np.float32)
        part = whole[start // unit : start // unit + len(chance)]
        np.maximum(part, chance[: len(part)], out=part)
    assert whole is not None  # an image has a window
    return whole
