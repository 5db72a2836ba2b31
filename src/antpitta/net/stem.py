"""The first layer of a network for grey pictures, as it is exported.

A picture is one channel of bytes; a backbone takes three of numbers, each the same picture with a
mean taken off and divided by a deviation. Here the deviations are part of the weights, and the
picture is folded, two by two cells becoming four channels: a convolution of stride 2 then takes a
third of the work. Where the channels' means differ, a fifth channel, the same everywhere, stands
for what the one that was taken off leaves; outside of the picture it is 0, so edges come out right.
It is kept small, because int8 rounds its weights and multiplies the mistake by it.

Whatever does not come out as before is left as it was: another stride, an odd number of bands.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from antpitta.net.sed import SedNet

EXTRA = 16.0  # bytes, of the fifth channel
ALIKE = 1e-4  # of the largest value in the feature maps


class GreyStem(nn.Module):
    """A convolution of stride 2, for what :meth:`fold` makes of pictures."""

    def __init__(self, first: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        same = (mean == mean[0]).all()
        self.level = float(255 * mean[0] if same else (255 * mean).mean().round())  # a byte
        weight = first.weight.detach().double()
        grey = (weight / std[:, None, None]).sum(1, keepdim=True) / 255
        left = (weight * ((self.level / 255 - mean) / std)[:, None, None]).sum(1, keepdim=True)
        size = first.kernel_size[0]
        # timm's layers that pad as TensorFlow does say nothing of it
        before = int(first.padding[0]) if any(first.padding) else max(0, (size - 2) // 2)
        lead = before % 2
        around = [lead, (size + lead) % 2] * 2
        grey = nn.functional.pixel_unshuffle(nn.functional.pad(grey, around), 2)
        left = nn.functional.pixel_unshuffle(nn.functional.pad(left, around), 2).sum(1, True)
        folded = grey if same else torch.cat([grey, left / EXTRA], dim=1)
        self.extra = not same
        ahead = (before + lead) // 2
        self.around = [ahead, folded.shape[2] - 1 - ahead] * 2
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


@torch.inference_mode()
def made_grey(net: SedNet, frames: int, bands: int) -> SedNet:
    """A copy of the net that takes pictures as they are; ``net`` itself where there is none.

    ``frames`` and ``bands`` are those of the pictures it will be given.
    """
    named = [(name, one) for name, one in net.body.named_modules() if isinstance(one, nn.Conv2d)]
    if not named or frames % 2 or bands % 2 or not _folds(named[0][1]):
        return net
    name, first = named[0]
    copy = deepcopy(net)
    stem = GreyStem(first, net.mean.view(3).double(), net.std.view(3).double())
    owner, _, last = name.rpartition(".")
    setattr(copy.body.get_submodule(owner), last, stem)
    copy.prepare = stem.fold  # type: ignore[method-assign]
    cells = torch.arange(frames * bands) * 7919 % 255 + 1  # neighbours differ, none is padding
    example = cells.view(1, frames, bands).to(torch.uint8)
    try:
        wanted, found = (one.features(one.prepare(example)) for one in (net, copy))
    except RuntimeError:  # the first layer that is told of is not the first that is run
        return net
    alike = wanted.shape == found.shape and torch.allclose(
        found, wanted, rtol=0, atol=ALIKE * float(wanted.abs().max())
    )
    return copy if alike else net


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
