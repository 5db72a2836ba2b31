"""What training does to a batch: masks on the picture, and mixing of two examples.

Masks are drawn per image, not per window, so that windows of one image that overlap show the
same hole. Randomness is handed in; a batch is a function of its inputs and the generator.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from antpitta.core.config import Masks
from antpitta.sound.windows import Cuts


def mask(
    pixels: Tensor, cuts: Cuts, lengths: np.ndarray, masks: Masks, rng: np.random.Generator
) -> Tensor:
    """Lay one time and one frequency mask over each image, and fill them with 0.

    ``pixels`` (windows, frames, bands) are those of ``cuts``; ``lengths`` are the images' frames.
    Either both masks fall on an image or none.
    """
    if masks.chance == 0 or not len(cuts):
        return pixels
    images, of = np.unique(cuts.image, return_inverse=True)
    struck = rng.random(len(images)) < masks.chance
    width = rng.integers(0, masks.frames + 1, len(images)) * struck
    height = rng.integers(0, masks.bands + 1, len(images)) * struck
    left = (rng.random(len(images)) * np.maximum(lengths[images] - width, 0)).astype(np.int64)
    bottom = (rng.random(len(images)) * (pixels.shape[2] - height)).astype(np.int64)
    rows = cuts.first[:, None] + np.arange(cuts.frames)
    bands = np.arange(pixels.shape[2])[None]
    in_time = (rows >= left[of, None]) & (rows < (left + width)[of, None])
    in_band = (bands >= bottom[of, None]) & (bands < (bottom + height)[of, None])
    keep_time, keep_band = (torch.from_numpy(~hit).to(pixels.device) for hit in (in_time, in_band))
    return pixels * keep_time[:, :, None] * keep_band[:, None, :]


@dataclass(frozen=True)
class Mix:
    """Which example is mixed into which, and how much of the first is left."""

    partner: Tensor  # (batch,), a permutation
    share: Tensor  # (batch,), of the example itself; in 0..1

    def __call__(self, x: Tensor) -> Tensor:
        """``share * x + (1 - share) * x[partner]``, along the first axis."""
        share = self.share.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        return share * x + (1 - share) * x[self.partner]


def draw_mix(batch: int, alpha: float, rng: np.random.Generator, device: torch.device) -> Mix:
    """Shares from Beta(alpha, alpha) and a random partner for each example."""
    share = torch.from_numpy(rng.beta(alpha, alpha, batch).astype(np.float32))
    partner = torch.from_numpy(rng.permutation(batch))
    return Mix(partner.to(device), share.to(device))
