"""The first layer of a network for grey pictures: as it is exported, and as a GPU trains it.

A picture is one channel of bytes; a backbone takes three of numbers, each the same picture with a
mean taken off and divided by a deviation. Here the deviations are part of the weights: one channel
is left, and a constant for what the mean that was taken off leaves of the others. Outside of the
picture that constant is 0, so edges come out right; int8 can do without (:func:`with_grey_stem`).

An export folds the picture, two by two cells becoming four channels: a convolution of stride 2
then takes a third of the work. A GPU multiplies patches of it with the weights: its libraries have
no fast convolution of so few channels, and backwards none at all that gives equal digits twice.

Whatever does not come out as before is left as it was: another stride, an odd number of bands.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_unshuffle
from torch.nn.utils.fusion import fuse_conv_bn_weights

from antpitta.model.network import SedNet

FRAMES = 64  # of the example
EXTRA = 16.0  # bytes, of an export's constant channel: int8 multiplies its mistake by it
WIDTH = 8  # numbers that a GPU's matrix units take at once


class _Grey(nn.Module):
    """What a convolution's weights (out, 3, size, size) become for bytes of which ``level`` was
    taken off.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, first: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.same = bool((mean == mean[0]).all())
        self.level = float(255 * mean[0] if self.same else (255 * mean).mean().round())  # a byte
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("std", std[:, None, None], persistent=False)
        # timm's layers that pad as TensorFlow does say nothing of it
        size = first.kernel_size[0]
        self.before = int(first.padding[0]) if any(first.padding) else max(0, (size - 2) // 2)

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the one channel, and of the constant 1: (out, 1, size, size) each."""
        mean, std = self.mean.to(weight), self.std.to(weight)
        grey = (weight / std).sum(1, keepdim=True) / 255
        left = (weight * ((self.level / 255 - mean) / std)).sum(1, keepdim=True)
        return grey, left


class GreyStem(nn.Module):
    """A convolution of stride 2, for what :meth:`fold` makes of pictures."""

    def __init__(self, first: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        grey = _Grey(first, mean, std)
        self.level, self.extra = grey.level, not grey.same
        size, lead = first.kernel_size[0], grey.before % 2
        rim = [lead, (size + lead) % 2] * 2
        own, left = (
            pixel_unshuffle(pad(one, rim), 2) for one in grey(first.weight.detach().double())
        )
        parts = [own, left.sum(1, True) / EXTRA] if self.extra else [own]
        folded = torch.cat(parts, dim=1)
        ahead = (grey.before + lead) // 2
        self.around = [ahead, folded.shape[2] - 1 - ahead] * 2
        self.conv = nn.Conv2d(folded.shape[1], first.out_channels, folded.shape[2])
        self.conv.weight.data = folded.float()
        bias = torch.zeros(first.out_channels) if first.bias is None else first.bias.detach()
        self.conv.bias = nn.Parameter(bias.clone())

    def forget_edges(self) -> None:
        """Take the constant to be there outside of the picture, too: a channel less."""
        if self.extra and self.conv.bias is not None:
            own, left = self.conv.weight.data[:, :-1], self.conv.weight.data[:, -1]
            self.conv.bias.data += EXTRA * left.sum((1, 2))
            self.conv.weight.data, self.conv.in_channels = own.contiguous(), own.shape[1]
            self.extra = False

    def fold(self, pixels: Tensor) -> Tensor:
        """Bytes (batch, frames, bands) to (batch, 4 or 5, frames / 2, bands / 2)."""
        folded = pixel_unshuffle(pixels[:, None], 2)
        if self.extra:
            more = torch.full_like(folded[:, :1], int(self.level + EXTRA))
            folded = torch.cat([folded, more], dim=1)
        return folded.float() - self.level

    def forward(self, folded: Tensor) -> Tensor:
        found: Tensor = self.conv(pad(folded, self.around))
        return found


class GreyConv(nn.Conv2d):
    """The first convolution itself, for what :meth:`fold` makes of pictures.

    Its weights are the ones of three channels, under their own name: they are learnt and kept as
    if nothing were done to them.
    """

    def __init__(self, first: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
        shape = first.in_channels, first.out_channels, first.kernel_size[0]
        super().__init__(*shape, stride=2, bias=first.bias is not None, device="meta")
        self.weight, self.bias = first.weight, first.bias
        self.grey = _Grey(first, mean, std)

    def fold(self, pixels: Tensor) -> Tensor:
        """Bytes (batch, frames, bands) less the level; bfloat16 holds them as they are."""
        return pixels.float() - self.grey.level

    def forward(self, image: Tensor) -> Tensor:
        size, (frames, bands) = self.kernel_size[0], image.shape[1:]
        wide = -(-size // WIDTH) * WIDTH
        grey, left = self.grey(self.weight)
        before = self.grey.before
        around = [before, wide - 2 - before, before, size - 2 - before]
        patches = pad(_low(image), around).unfold(1, size, 2).unfold(2, wide, 2)
        rows = patches.reshape(-1, size * wide)
        found = rows @ pad(grey, [0, wide - size]).flatten(1).T
        ones = pad(torch.ones_like(image[:1]), [before, size - 2 - before] * 2)
        edges = conv2d(ones[:, None].to(left), left, self.bias, stride=2).permute(0, 2, 3, 1)
        found = found.view(len(image), frames // 2, bands // 2, -1) + edges.to(found)
        return found.permute(0, 3, 1, 2)


def _low(image: Tensor) -> Tensor:
    """In the precision that is multiplied in."""
    kind = image.device.type
    return image.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else image


@torch.inference_mode()
def with_grey_stem(net: SedNet, frames: int, bands: int, *, edges: bool = True) -> SedNet:
    """A copy of the net that takes pictures as they are; ``net`` itself where there is none.

    ``frames`` and ``bands`` are those of the pictures it will be given. Without ``edges`` they are
    surrounded by grey instead of each channel's mean, which is grey but for a tint.
    """
    copy = _swapped(net, frames, bands, GreyStem)
    for one in copy.modules() if not edges else ():
        if isinstance(one, GreyStem):
            one.forget_edges()
    return copy


@torch.no_grad()
def with_trainable_grey_stem(net: SedNet, frames: int, bands: int) -> SedNet:
    """The same, which learns as ``net`` does, and with the same weights under the same names."""
    return _swapped(net, frames, bands, GreyConv)


def _swapped(
    net: SedNet,
    frames: int,
    bands: int,
    make: Callable[[nn.Conv2d, Tensor, Tensor], GreyStem | GreyConv],
) -> SedNet:
    """A copy with another first layer, if it says what ``net`` says; else ``net``."""
    named = [
        (name, one) for name, one in net.backbone.named_modules() if isinstance(one, nn.Conv2d)
    ]
    if not named or frames % 2 or bands % 2 or not _folds(named[0][1]):
        return net
    copy, (name, _) = deepcopy(net), named[0]
    owner, _, last = name.rpartition(".")
    home = copy.backbone.get_submodule(owner)
    stem = make(getattr(home, last), net.mean.view(3).double(), net.std.view(3).double())
    setattr(home, last, stem)
    copy.prepare = stem.fold  # type: ignore[method-assign]
    try:
        same = outputs_match(net, copy, example_input(frames, bands))
    except RuntimeError:  # the first layer that is told of is not the first that is run
        return net
    return copy if same else net


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


@torch.no_grad()
def fuse_conv_bn(net: SedNet) -> SedNet:
    """A copy of the net without the norms that can be folded away; ``net`` where there is none.

    The copy must not learn: its norms would not move.
    """
    if net.is_embedding:
        return net
    example = example_input(FRAMES, net.bands).to(net.mean.device)
    copy = deepcopy(net).eval()
    pairs = _pairs(copy, example)
    if not pairs:
        return net
    for conv, norm in pairs:
        _fold(copy.backbone, conv, norm)
    return copy if outputs_match(net, copy, example) else net


def _pairs(net: SedNet, example: Tensor) -> list[tuple[str, str]]:
    """Names of each convolution and the norm that takes what it made, and nobody else does."""
    made: dict[int, tuple[str, Tensor]] = {}  # by the identity of what was made, which is kept
    takers: dict[str, list[str]] = {}

    def seen(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...], found: Any) -> None:
            for one in given:
                if id(one) in made:
                    takers[made[id(one)][0]].append(name)
            if isinstance(module, nn.Conv2d):
                made[id(found)] = (name, found)
                takers.setdefault(name, [])

        return hook

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    parts = net.backbone.named_modules()
    leaves = [(n, m) for n, m in parts if isinstance(m, kinds) or not any(m.children())]
    with _hooked(leaves, seen):
        net.feature_maps(net.prepare(example))
    return [
        (conv, taken[0])
        for conv, taken in takers.items()
        if len(taken) == 1 and _norm(net.backbone.get_submodule(taken[0]))
    ]


@contextmanager
def _hooked(
    modules: list[tuple[str, nn.Module]], hook: Callable[[str], Callable[..., None]]
) -> Iterator[None]:
    handles = [module.register_forward_hook(hook(name)) for name, module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _norm(module: nn.Module) -> bool:
    """Whether it is a settled batch norm; timm's own have an activation inside."""
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _fold(body: nn.Module, conv: str, norm: str) -> None:
    layer: Any = body.get_submodule(conv)
    one: Any = body.get_submodule(norm)
    settled = one.running_mean, one.running_var, one.eps, one.weight, one.bias
    layer.weight, layer.bias = fuse_conv_bn_weights(layer.weight, layer.bias, *settled)
    owner, _, last = norm.rpartition(".")
    rest = nn.Sequential(one.drop, one.act) if hasattr(one, "act") else nn.Identity()
    setattr(body.get_submodule(owner), last, rest)


NEAR = 1e-4  # of the largest value in the feature maps


def example_input(frames: int, bands: int) -> Tensor:
    """A picture (1, frames, bands) whose neighbouring bytes differ and of which none is padding."""
    cells = torch.arange(frames * bands) * 7919 % 255 + 1
    return cells.view(1, frames, bands).to(torch.uint8)


def outputs_match(net: SedNet, copy: SedNet, example: Tensor) -> bool:
    """Whether both see the same in the example; each is left in the mode that it was in."""
    modes = net.training, copy.training
    try:
        wanted, found = (one.eval().feature_maps(one.prepare(example)) for one in (net, copy))
    finally:
        net.train(modes[0])
        copy.train(modes[1])
    return wanted.shape == found.shape and torch.allclose(
        found, wanted, rtol=0, atol=NEAR * float(wanted.abs().max())
    )
