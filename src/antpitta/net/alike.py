"""Whether a copy of a network that was changed still says what the network says."""

import torch
from torch import Tensor

from antpitta.net.sed import SedNet

NEAR = 1e-4  # of the largest value in the feature maps


def example_of(frames: int, bands: int) -> Tensor:
    """A picture (1, frames, bands) whose neighbouring bytes differ and of which none is padding."""
    cells = torch.arange(frames * bands) * 7919 % 255 + 1
    return cells.view(1, frames, bands).to(torch.uint8)


def alike(net: SedNet, copy: SedNet, example: Tensor) -> bool:
    """Whether both see the same in the example; each is left in the mode that it was in."""
    modes = net.training, copy.training
    try:
        wanted, found = (one.eval().features(one.prepare(example)) for one in (net, copy))
    finally:
        net.train(modes[0])
        copy.train(modes[1])
    return wanted.shape == found.shape and torch.allclose(
        found, wanted, rtol=0, atol=NEAR * float(wanted.abs().max())
    )
