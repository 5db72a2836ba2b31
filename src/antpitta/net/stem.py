"""The first layer of a network for grey pictures: as it is exported, and as a GPU trains it.

A picture is one channel of bytes; a backbone takes three of numbers, each the same picture with a
mean taken off and divided by a deviation. Here the deviations are part of the weights, and the
picture is folded, two by two cells becoming four channels: a convolution of stride 2 then takes a
third of the work. Where the channels' means differ, a fifth channel, the same everywhere, stands
for what the one that was taken off leaves; outside of the picture it is 0, so edges come out right.
In an export it is kept small, because int8 rounds its weights and multiplies the mistake by it.

Whatever does not come out as before is left as it was: another stride, an odd number of bands.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from antpitta.net.sed import SedNet

EXTRA = 16.0  # bytes, of the fifth channel of an export
WIDTH = 8  # channels that a GPU's matrix units take at once
ALIKE = 1e-4  # of the largest value in the feature maps


class _Folding(nn.Module):
    """How a convolution of stride 2 is laid on pictures that were folded two by two."""

    mean: Tensor
    std: Tensor

    def __init__(self, first: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.same = bool((mean == mean[0]).all())
        self.level = float(255 * mean[0] if self.same else (255 * mean).mean().round())  # a byte
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("std", std[:, None, None], persistent=False)
        size = first.kernel_size[0]
        # timm's layers that pad as TensorFlow does say nothing of it
        before = int(first.padding[0]) if any(first.padding) else max(0, (size - 2) // 2)
        lead = before % 2
        self.rim = [lead, (size + lead) % 2] * 2  # zeros around the weights
        ahead = (before + lead) // 2
        self.around = [ahead, sum((size, *self.rim[:2])) // 2 - 1 - ahead] * 2  # the picture

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the folded picture (out, 4, size, size), and of a channel of ones."""
        mean, std = self.mean.to(weight), self.std.to(weight)
        grey = (weight / std).sum(1, keepdim=True) / 255
        left = (weight * ((self.level / 255 - mean) / std)).sum(1, keepdim=True)
        grey, left = (
            nn.functional.pixel_unshuffle(nn.functional.pad(one, self.rim), 2)
            for one in (grey, left)
        )
        return grey, left.sum(1, keepdim=True)


class GreyStem(nn.Module):
    """A convolution of stride 2, for what :meth:`fold` makes of pictures."""

    def __init__(self, first: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        folding = _Folding(first, mean, std)
        self.level, self.extra, self.around = folding.level, not folding.same, folding.around
        grey, left = folding(first.weight.detach().double())
        folded = torch.cat([grey, left / EXTRA], dim=1) if self.extra else grey
        self.conv = nn.Conv2d(folded.shape[1], first.out_channels, folded.shape[2])
        self.conv.weight.data = folded.float()
        bias = torch.zeros(first.out_channels) if first.bias is None else first.bias.detach()
        self.conv.bias = nn.Parameter(bias.clone())

    def fold(self, pixels: Tensor) -> Tensor:
        """Bytes (batch, frames, bands) to (batch, 4 or 5, frames / 2, bands / 2)."""
        folded = nn.functional.pixel_unshuffle(pixels[:, None], 2)
        if self.extra:
            more = torch.full_like(folded[:, :1], int(self.level + EXTRA))
            folded = torch.cat([folded, more], dim=1)
        return folded.float() - self.level

    def forward(self, folded: Tensor) -> Tensor:
        found: Tensor = self.conv(nn.functional.pad(folded, self.around))
        return found


class GreyConv(nn.Conv2d):
    """The first convolution itself, for what :meth:`fold` makes of pictures.

    Its weights are the ones of three channels, under their own name: they are learnt and kept as
    if it were not folded.
    """

    def __init__(self, first: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
        shape = first.in_channels, first.out_channels, first.kernel_size[0]
        super().__init__(*shape, stride=2, bias=first.bias is not None, device="meta")
        self.weight, self.bias = first.weight, first.bias
        self.folding = _Folding(first, mean, std)

    def fold(self, pixels: Tensor) -> Tensor:
        """Bytes (batch, frames, bands) to (batch, WIDTH, frames / 2, bands / 2)."""
        folded = nn.functional.pixel_unshuffle(pixels[:, None], 2).float() - self.folding.level
        ones = torch.ones_like(folded[:, :1])
        rest = torch.zeros_like(folded[:, :1]).expand(-1, WIDTH - 5, -1, -1)
        return torch.cat([folded, ones, rest], 1).contiguous(memory_format=torch.channels_last)

    def forward(self, folded: Tensor) -> Tensor:
        grey, left = self.folding(self.weight)
        rest = torch.zeros_like(left).expand(-1, WIDTH - 5, -1, -1)
        weight = torch.cat([grey, left, rest], dim=1)
        weight = weight.contiguous(memory_format=torch.channels_last)
        padded = nn.functional.pad(folded, self.folding.around)
        return nn.functional.conv2d(padded, weight, self.bias)


@torch.inference_mode()
def made_grey(net: SedNet, frames: int, bands: int) -> SedNet:
    """A copy of the net that takes pictures as they are; ``net`` itself where there is none.

    ``frames`` and ``bands`` are those of the pictures it will be given.
    """
    copy = deepcopy(net)
    return copy if _swapped(copy, net, frames, bands, GreyStem) else net


@torch.no_grad()
def learning_grey(net: SedNet, frames: int, bands: int) -> SedNet:
    """The same, which learns as ``net`` does, and with the same weights under the same names."""
    copy = deepcopy(net)
    return copy if _swapped(copy, net, frames, bands, GreyConv) else net


def _swapped(
    copy: SedNet,
    net: SedNet,
    frames: int,
    bands: int,
    make: Callable[[nn.Conv2d, Tensor, Tensor], GreyStem | GreyConv],
) -> bool:
    """Change the first layer of ``copy``; whether it says what ``net`` says."""
    named = [(name, one) for name, one in net.body.named_modules() if isinstance(one, nn.Conv2d)]
    if not named or frames % 2 or bands % 2 or not _folds(named[0][1]):
        return False
    name, _ = named[0]
    owner, _, last = name.rpartition(".")
    home = copy.body.get_submodule(owner)
    stem = make(getattr(home, last), net.mean.view(3).double(), net.std.view(3).double())
    setattr(home, last, stem)
    copy.prepare = stem.fold  # type: ignore[method-assign]
    cells = torch.arange(frames * bands) * 7919 % 255 + 1  # neighbours differ, none is padding
    example = cells.view(1, frames, bands).to(torch.uint8)
    modes = net.training, copy.training
    try:
        wanted, found = (one.eval().features(one.prepare(example)) for one in (net, copy))
    except RuntimeError:  # the first layer that is told of is not the first that is run
        return False
    finally:
        net.train(modes[0])
        copy.train(modes[1])
    return wanted.shape == found.shape and torch.allclose(
        found, wanted, rtol=0, atol=ALIKE * float(wanted.abs().max())
    )


def _folds(first: nn.Conv2d) -> bool:
    square = first.kernel_size[0] == first.kernel_size[1]
    return (
        square
        and first.in_channels == 3
        and first.groups == 1
        and first.stride == (2, 2)
        and first.dilation == (1, 1)
        and first.padding_mode == "zeros"
        and not isinstance(first.padding, str)
        and first.padding[0] == first.padding[1]
    )
