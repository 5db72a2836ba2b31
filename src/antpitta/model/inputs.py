"""The network's inputs: windows gathered from the features of a data set, masked, and mixed.

The features of all segments lie one after another in one tensor, so gathering a batch is one
indexing operation, in memory or on the GPU. Only three numbers per window are sent to the device,
and the index of every frame is computed there: computed on the host, the indices would be half as
many bytes as the features themselves.

Masks are drawn per segment, not per window, so overlapping windows of one segment show the same
masked region. All randomness comes from a generator that the caller passes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.stages import MaskConfig
from antpitta.sound.windows import WindowIndex

Ints = NDArray[np.int64]


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on the device; the copy to a GPU is asynchronous.

    Parameters
    ----------
    array : any shape and type
    device : where the tensors are put

    Returns
    -------
    tensor : of the same shape and type
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@dataclass(frozen=True)
class FeatureStore:
    """The features of all segments, one after another.

    Parameters
    ----------
    pixels : (frames of all segments, features per frame), on any device
    lengths : (segments,), frames
    """

    pixels: Tensor
    lengths: Ints

    @cached_property
    def offsets(self) -> Ints:
        """The first frame of each segment among all frames, (segments,)."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    def gather(self, windows: WindowIndex) -> Tensor:
        """The features of the windows, 0 outside their segments.

        Returns
        -------
        pixels : (windows, frames, features per frame)
        """
        device = self.pixels.device
        rows = np.stack(
            [self.offsets[windows.segment], windows.start, self.lengths[windows.segment]]
        )
        offset, start, length = to_device(rows, device)[:, :, None].unbind()
        frames = start + torch.arange(windows.frames, device=device)
        inside = (frames >= 0) & (frames < length)
        index = offset + torch.where(inside, frames, 0)
        pixels = self.pixels.index_select(0, index.flatten())
        return pixels.view(*frames.shape, self.pixels.shape[1]) * inside[:, :, None]


@dataclass(frozen=True)
class SpecMask:
    """One time mask and one frequency mask for each window (SpecAugment, Park et al., 2019).

    Parameters
    ----------
    edges : (4, windows): first frame and end, in frames of the segment; first mel band and end
    """

    edges: Ints

    def take(self, rows: slice) -> "SpecMask":
        """The masks of some of the windows."""
        return SpecMask(self.edges[:, rows])

    def apply(self, pixels: Tensor, windows: WindowIndex) -> Tensor:
        """Set the masked frames and bands of these windows to 0.

        Parameters
        ----------
        pixels : (windows, frames, bands)
        """
        device = pixels.device
        rows = to_device(np.concatenate([self.edges, windows.start[None]]), device)
        left, right, bottom, top, start = rows[:, :, None].unbind()
        frames = start + torch.arange(windows.frames, device=device)
        bands = torch.arange(pixels.shape[2], device=device)
        keep_frame = (frames < left) | (frames >= right)
        keep_band = (bands < bottom) | (bands >= top)
        return pixels * keep_frame[:, :, None] * keep_band[:, None, :]


def draw_spec_mask(
    windows: WindowIndex, lengths: Ints, bands: int, masks: MaskConfig, rng: np.random.Generator
) -> SpecMask | None:
    """Draw both masks for each segment that has windows, or none for it.

    Parameters
    ----------
    windows : the windows of the batch
    lengths : (segments,), frames
    bands : mel bands
    masks : how probable masks are, and how large
    rng : source of all random choices

    Returns
    -------
    mask : None where the probability of a mask is 0
    """
    if masks.probability == 0 or not len(windows):
        return None
    segments, place = np.unique(windows.segment, return_inverse=True)
    masked = rng.random(len(segments)) < masks.probability
    width = rng.integers(0, masks.max_frames + 1, len(segments)) * masked
    height = rng.integers(0, masks.max_bands + 1, len(segments)) * masked
    left = (rng.random(len(segments)) * np.maximum(lengths[segments] - width, 0)).astype(np.int64)
    bottom = (rng.random(len(segments)) * (bands - height)).astype(np.int64)
    return SpecMask(np.stack([left, left + width, bottom, bottom + height])[:, place])


class Mixup(NamedTuple):  # a tuple, because Fabric cannot walk frozen dataclasses
    """Which example is mixed into which, and what share of the first is left (Zhang et al., 2018).

    Parameters
    ----------
    partner : (batch,), a permutation
    share : (batch,), of the example itself, in 0..1
    """

    partner: Tensor
    share: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """``share * x + (1 - share) * x[partner]``, along the first axis."""
        share = self.share.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        return share * x + (1 - share) * x.index_select(0, self.partner)


def draw_mixup(batch: int, alpha: float, rng: np.random.Generator, device: torch.device) -> Mixup:
    """Draw shares from Beta(alpha, alpha) and a random partner for each of ``batch`` examples.

    Parameters
    ----------
    batch : number of examples
    alpha : both parameters of the Beta distribution
    rng : source of all random choices
    device : where the tensors are put

    Returns
    -------
    mixup : of the whole batch
    """
    share = rng.beta(alpha, alpha, batch).astype(np.float32)
    return Mixup(to_device(rng.permutation(batch), device), to_device(share, device))


def join_mixups(mixups: list[Mixup]) -> Mixup:
    """The mixups of the parts of a batch as one; each partner is in the same part.

    Parameters
    ----------
    mixups : one for each part, in their order

    Returns
    -------
    mixup : of the whole batch
    """
    if len(mixups) == 1:
        return mixups[0]
    starts = np.cumsum([0, *(len(mixup.share) for mixup in mixups)])
    partners = [mixup.partner + int(start) for mixup, start in zip(mixups, starts, strict=False)]
    return Mixup(torch.cat(partners), torch.cat([mixup.share for mixup in mixups]))
