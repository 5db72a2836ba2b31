"""What training does to a batch: masks on the picture, and mixing of two examples.

Masks are drawn per image, not per window, so that windows of one image that overlap show the
same hole. Randomness is handed in; a batch is a function of its inputs and the generator.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.stages import MaskConfig
from antpitta.sound.windows import WindowIndex, to_device

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SpecMask:
    """What masks hide of each window: a span of its image's frames, and a span of bands."""

    edges: Ints  # (4, windows): first frame, end, first band, end

    def take(self, rows: slice) -> "SpecMask":
        """Those of some windows only."""
        return SpecMask(self.edges[:, rows])

    def lay(self, pixels: Tensor, cuts: WindowIndex) -> Tensor:
        """Fill the holes of these windows with 0; ``pixels`` are (windows, frames, bands)."""
        device = pixels.device
        places = to_device(np.concatenate([self.edges, cuts.first[None]]), device)
        left, right, bottom, top, first = places[:, :, None].unbind()
        rows = first + torch.arange(cuts.frames, device=device)
        bands = torch.arange(pixels.shape[2], device=device)
        keep_time = (rows < left) | (rows >= right)
        keep_band = (bands < bottom) | (bands >= top)
        return pixels * keep_time[:, :, None] * keep_band[:, None, :]


def draw_spec_mask(
    cuts: WindowIndex, lengths: Ints, bands: int, masks: MaskConfig, rng: np.random.Generator
) -> SpecMask | None:
    """One time and one frequency mask for each image of ``cuts``, or none; ``lengths`` in frames.

    Either both masks fall on an image or neither. None where masks never fall.
    """
    if masks.probability == 0 or not len(cuts):
        return None
    images, of = np.unique(cuts.image, return_inverse=True)
    struck = rng.random(len(images)) < masks.probability
    width = rng.integers(0, masks.max_frames + 1, len(images)) * struck
    height = rng.integers(0, masks.max_bands + 1, len(images)) * struck
    left = (rng.random(len(images)) * np.maximum(lengths[images] - width, 0)).astype(np.int64)
    bottom = (rng.random(len(images)) * (bands - height)).astype(np.int64)
    return SpecMask(np.stack([left, left + width, bottom, bottom + height])[:, of])


def mask(
    pixels: Tensor, cuts: WindowIndex, lengths: Ints, masks: MaskConfig, rng: np.random.Generator
) -> Tensor:
    """Draw the holes of the windows ``cuts``, and lay them over their ``pixels``."""
    holes = draw_spec_mask(cuts, lengths, pixels.shape[2], masks, rng)
    return pixels if holes is None else holes.lay(pixels, cuts)


class Mixup(NamedTuple):  # fabric walks a model's input, and cannot walk frozen dataclasses
    """Which example is mixed into which, and how much of the first is left."""

    partner: Tensor  # (batch,), a permutation
    share: Tensor  # (batch,), of the example itself; in 0..1

    def __call__(self, x: Tensor) -> Tensor:
        """``share * x + (1 - share) * x[partner]``, along the first axis."""
        share = self.share.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        return share * x + (1 - share) * x.index_select(0, self.partner)


def draw_mixup(batch: int, alpha: float, rng: np.random.Generator, device: torch.device) -> Mixup:
    """Shares from Beta(alpha, alpha) and a random partner for each example."""
    share = rng.beta(alpha, alpha, batch).astype(np.float32)
    return Mixup(to_device(rng.permutation(batch), device), to_device(share, device))


def join_mixups(mixes: list[Mixup]) -> Mixup:
    """The mixes of a batch's parts as one of the whole: each partner is in one's own part."""
    if len(mixes) == 1:
        return mixes[0]
    starts = np.cumsum([0, *(len(one.share) for one in mixes)])
    partners = [one.partner + int(start) for one, start in zip(mixes, starts, strict=False)]
    return Mixup(torch.cat(partners), torch.cat([one.share for one in mixes]))
