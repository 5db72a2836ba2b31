"""Running a network over pictures of any length, window by window.

Prediction uses framewise probabilities and windows that overlap; where several windows cover a
moment the highest wins, so that a call cut by one window's edge is taken from the other.

A GPU is given window after window and asked for all scores at the end: asked after each batch,
it would idle while the host lays the answer out. The scores are few beside the pictures.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from antpitta.sound.windows import Cuts, Pictures, starts_of

if TYPE_CHECKING:  # backbones take seconds to load, and who asks OpenVINO needs none
    from antpitta.net.heads import Heads
    from antpitta.net.sed import SedNet

Floats = NDArray[np.float32]
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
    net: "SedNet | Heads",
    pictures: Pictures,
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
    starts = [starts_of(int(pictures.lengths[image]), frames, overlap) for image in images]
    heard, first = [], 0
    while first < len(images):
        last = first + 1
        held = len(starts[first])
        while last < len(images) and held + len(starts[last]) <= batch:
            held += len(starts[last])
            last += 1
        cuts = _windows(images[first:last], starts[first:last], frames)
        with precision():
            logits = net(pictures.gather(cuts).to(net.mean.device)).framewise
        heard.append(torch.sigmoid(logits.float()))  # (windows, steps, classes)
        tick(last - first)
        first = last
    chances = iter(torch.cat(heard).cpu().numpy()) if heard else iter(())
    return [
        _lay(chances, some, -(-int(pictures.lengths[image]) // unit), unit, net.stride)
        for image, some in zip(images, starts, strict=True)
    ]


def _windows(images: NDArray[np.int64], starts: list[list[int]], frames: int) -> Cuts:
    return Cuts(
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
