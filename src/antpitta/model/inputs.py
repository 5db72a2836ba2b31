"""The network's inputs: windows gathered from the features of a data set, masked, and mixed.

The features of all segments lie one after another in one tensor, so gathering a batch is one
indexing operation, in memory or on the GPU. Only three numbers per window are sent to the device,
and the index of every frame is computed there: computed on the host, the indices would be half as
many bytes as the features themselves.

Masks are drawn per example, which is one segment or several windows of one, so overlapping windows
show the same masked region. All randomness comes from a generator that the caller passes.
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
    marks_padding : frames of a window that are padding are marked for the network, as
        ``windows.padding = "mean"`` asks
    """

    pixels: Tensor
    lengths: Ints
    marks_padding: bool = False

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
        offset = to_device(self.offsets[windows.segment], self.pixels.device)[:, None]
        frames, inside = self._frames(windows)
        index = offset + torch.where(inside, frames, 0)
        pixels = self.pixels.index_select(0, index.flatten())
        return pixels.view(*frames.shape, self.pixels.shape[1]) * inside[:, :, None]

    def inside(self, windows: WindowIndex) -> Tensor | None:
        """Which frames of the windows lie in their segments, where padding is marked.

        Returns
        -------
        inside : (windows, frames), bool; None where padding is silence
        """
        return self._frames(windows)[1] if self.marks_padding else None

    def _frames(self, windows: WindowIndex) -> tuple[Tensor, Tensor]:
        """The frames of each window in its segment, and which of them exist."""
        device = self.pixels.device
        rows = to_device(np.stack([windows.start, self.lengths[windows.segment]]), device)
        start, length = rows[:, :, None].unbind()
        frames = start + torch.arange(windows.frames, device=device)
        return frames, (frames >= 0) & (frames < length)


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
    windows: WindowIndex,
    examples: Ints,
    lengths: Ints,
    bands: int,
    masks: MaskConfig,
    rng: np.random.Generator,
) -> SpecMask | None:
    """Draw both masks for each example, or none for it.

    A mask's width is drawn twice, as the competition's code does: first ``t`` below the maximum,
    then the start, then the end from the start up to ``t - 1`` further. So narrow masks are more
    frequent, and the widest is 2 below the maximum.

    Parameters
    ----------
    windows : the windows of the batch
    examples : (windows,), the number of the example that each window belongs to; an example is
        masked alike in all windows of a segment
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
    pairs = np.stack([examples, windows.segment])
    unique, place = np.unique(pairs, axis=1, return_inverse=True)
    masked = np.asarray(rng.random(unique.shape[1]) < masks.probability)
    left, right = _draw_span(lengths[unique[1]], masks.max_frames, masked, rng)
    bottom, top = _draw_span(np.full(len(masked), bands), masks.max_bands, masked, rng)
    return SpecMask(np.stack([left, right, bottom, top])[:, place.reshape(-1)])


def _draw_span(
    sizes: Ints, maximum: int, masked: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Start and end of one mask for each example; equal where there is none."""
    longest = np.minimum(rng.integers(0, max(maximum, 1), len(sizes)), sizes - 1) * masked
    start = rng.integers(0, sizes - longest)
    return start, start + rng.integers(0, np.maximum(longest, 1))


class Mixup(NamedTuple):  # a tuple, because Fabric cannot walk frozen dataclasses
    """Which example is mixed into which, and what share of the first is left (Zhang et al., 2018).

    Parameters
    ----------
    partner : (batch,), a permutation
    share : (), of the example itself, in 0..1: one for the whole batch
    """

    partner: Tensor
    share: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """``share * x + (1 - share) * x[partner]``, along the first axis."""
        share = self.share.to(x.dtype)
        return share * x + (1 - share) * x.index_select(0, self.partner)


def draw_mixups(
    sizes: list[int], alpha: float, rng: np.random.Generator, device: torch.device
) -> list[Mixup]:
    """Draw one share from Beta(alpha, alpha), and a random partner for each example of a batch.

    Parameters
    ----------
    sizes : examples of each part of the batch; partners are in the same part
    alpha : both parameters of the Beta distribution
    rng : source of all random choices
    device : where the tensors are put

    Returns
    -------
    mixups : one for each part, with equal shares
    """
    share = to_device(np.array(rng.beta(alpha, alpha), dtype=np.float32), device)
    return [Mixup(to_device(rng.permutation(size), device), share) for size in sizes]


def join_mixups(mixups: list[Mixup]) -> Mixup:
    """The mixups of the parts of a batch as one.

    Parameters
    ----------
    mixups : one for each part, in their order, as :func:`draw_mixups` draws them

    Returns
    -------
    mixup : of the whole batch
    """
    if len(mixups) == 1:
        return mixups[0]
    starts = np.cumsum([0, *(len(mixup.partner) for mixup in mixups)])
    partners = [mixup.partner + int(start) for mixup, start in zip(mixups, starts, strict=False)]
    return Mixup(torch.cat(partners), mixups[0].share)
