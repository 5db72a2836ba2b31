"""Images cut into windows, and windows gathered from the pictures of a whole data set.

All pictures of a data set lie end to end in one array (frames of all images, bands), so that
cutting a batch is one gather, in memory or on the GPU alike. Three numbers a window go to the
device, and the index of every frame is made there: made here, it would be half the pixels' bytes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class WindowIndex:
    """Windows of equal length over many images: all arrays are (windows,)."""

    image: Ints  # which image
    first: Ints  # the window's first frame in that image
    frames: int

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: Ints) -> "WindowIndex":
        """These windows only, in this order."""
        return WindowIndex(self.image[rows], self.first[rows], self.frames)


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array on the device; a GPU gets it from pinned memory, and nobody waits for the copy."""
    found = torch.from_numpy(array)
    if device.type == "cuda":
        return found.pin_memory().to(device, non_blocking=True)
    return found.to(device)


def window_starts(length: int, frames: int, overlap: int) -> list[int]:
    """Where the windows of an image of ``length`` frames begin; the last may reach beyond it.

    >>> starts_of(3751, 512, 49)
    [0, 463, 926, 1389, 1852, 2315, 2778, 3241]
    """
    step = frames - overlap
    count = max(1, -(-(length - overlap) // step))
    return [i * step for i in range(count)]


def index_windows(lengths: Ints, frames: int, overlap: int) -> WindowIndex:
    """All windows of images of these ``lengths`` (frames), image by image."""
    starts = [window_starts(int(length), frames, overlap) for length in lengths]
    image = np.repeat(np.arange(len(starts)), [len(s) for s in starts])
    return WindowIndex(
        image, np.array([s for some in starts for s in some], dtype=np.int64), frames
    )


@dataclass(frozen=True)
class FeatureStore:
    """The pictures of a data set, end to end."""

    pixels: Tensor  # (frames of all images, bands), uint8, on any device
    lengths: Ints  # (images,), frames

    @cached_property
    def offsets(self) -> Ints:
        """Where each image begins among all frames."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    def gather(self, cuts: WindowIndex) -> Tensor:
        """The windows' pixels: (windows, frames, bands), 0 where a window leaves its image."""
        device = self.pixels.device
        places = np.stack([self.offsets[cuts.image], cuts.first, self.lengths[cuts.image]])
        start, first, length = to_device(places, device)[:, :, None].unbind()
        rows = first + torch.arange(cuts.frames, device=device)
        inside = (rows >= 0) & (rows < length)
        index = start + torch.where(inside, rows, 0)
        pixels = self.pixels.index_select(0, index.flatten())
        return pixels.view(*rows.shape, self.pixels.shape[1]) * inside[:, :, None]
