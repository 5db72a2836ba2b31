"""Faster networks with the same output: a first layer for grey images, and fused batch norms.

A spectrogram has one channel; a pretrained backbone takes three, each the same image standardized
with its own mean and deviation. The first layer can take the one channel instead: the deviations
become part of its weights, and what is left of the means becomes a constant. Outside the image
that constant is 0, which keeps its edges exact; int8 can do without (:func:`with_grey_stem`).

There are two such layers. For an export, :class:`GreyStem` turns 2 x 2 pixels into four channels
before it convolves, which takes a third of the time. For training on a GPU, :class:`GreyConv`
multiplies patches of the image by the weights: the GPU's libraries have no fast convolution of so
few channels, and none at all whose backward pass always gives the same digits.

:func:`fuse_conv_bn` makes batch norms part of the convolutions before them. Each norm would read
and write its whole feature map once more.

Every changed copy is compared with the original on an example. Where the outputs differ, or the
layer is of another kind, the original network is returned.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_unshuffle
from torch.nn.utils.fusion import fuse_conv_bn_weights

from antpitta.model.network import SedNet

EXAMPLE_FRAMES = 64
TOLERANCE = 1e-4  # of the largest value in the feature maps
CONSTANT_VALUE = 16.0  # of an export's constant channel; int8 multiplies its rounding error by it
ALIGNMENT = 8  # numbers that a GPU's matrix units take at once


class _GreyWeights(nn.Module):
    """Weights (out, 3, size, size) for standardized channels, as weights for one grey channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, conv: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.equal_means = bool((mean == mean[0]).all())
        # subtracted from the pixels; a whole number where the means differ
        self.offset = float(255 * mean[0] if self.equal_means else (255 * mean).mean().round())
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("std", std[:, None, None], persistent=False)
        # timm's layers that pad as TensorFlow does have a padding of 0
        size = conv.kernel_size[0]
        self.padding = int(conv.padding[0]) if any(conv.padding) else max(0, (size - 2) // 2)

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of the grey channel and of the constant 1: (out, 1, size, size)."""
        mean, std = self.mean.to(weight), self.std.to(weight)
        grey = (weight / std).sum(1, keepdim=True) / 255
        constant = (weight * ((self.offset / 255 - mean) / std)).sum(1, keepdim=True)
        return grey, constant


class GreyStem(nn.Module):
    """The first convolution of an exported network, for what :meth:`prepare` makes of pixels.

    Parameters
    ----------
    conv : a convolution of three channels with stride 2
    mean, std : (3,), of the backbone's input
    """

    def __init__(self, conv: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        grey_weights = _GreyWeights(conv, mean, std)
        self.offset, self.has_constant = grey_weights.offset, not grey_weights.equal_means
        size, lead = conv.kernel_size[0], grey_weights.padding % 2
        margin = [lead, (size + lead) % 2] * 2
        grey, constant = (
            pixel_unshuffle(pad(weight, margin), 2)
            for weight in grey_weights(conv.weight.detach().double())
        )
        parts = [grey, constant.sum(1, True) / CONSTANT_VALUE] if self.has_constant else [grey]
        weight = torch.cat(parts, dim=1)
        before = (grey_weights.padding + lead) // 2
        self.padding = [before, weight.shape[2] - 1 - before] * 2
        self.conv = nn.Conv2d(weight.shape[1], conv.out_channels, weight.shape[2])
        self.conv.weight.data = weight.float()
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        self.conv.bias = nn.Parameter(bias.clone())

    def drop_constant_channel(self) -> None:
        """Move the constant into the bias, as if it were there outside the image, too."""
        if self.has_constant and self.conv.bias is not None:
            grey, constant = self.conv.weight.data[:, :-1], self.conv.weight.data[:, -1]
            self.conv.bias.data += CONSTANT_VALUE * constant.sum((1, 2))
            self.conv.weight.data, self.conv.in_channels = grey.contiguous(), grey.shape[1]
            self.has_constant = False

    def prepare(self, pixels: Tensor) -> Tensor:
        """Turn bytes (batch, frames, bands) into (batch, 4 or 5, frames / 2, bands / 2)."""
        unshuffled = pixel_unshuffle(pixels[:, None], 2)
        if self.has_constant:
            constant = torch.full_like(unshuffled[:, :1], int(self.offset + CONSTANT_VALUE))
            unshuffled = torch.cat([unshuffled, constant], dim=1)
        return unshuffled.float() - self.offset

    def forward(self, unshuffled: Tensor) -> Tensor:
        """Convolve what :meth:`prepare` returned."""
        maps: Tensor = self.conv(pad(unshuffled, self.padding))
        return maps


class GreyConv(nn.Conv2d):
    """The first convolution in training, for what :meth:`prepare` makes of pixels.

    Its weights are those of the three channels under their own name, so they are trained and
    saved as those of the original layer.

    Parameters
    ----------
    conv : a convolution of three channels with stride 2
    mean, std : (3,), of the backbone's input
    """

    def __init__(self, conv: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
        shape = conv.in_channels, conv.out_channels, conv.kernel_size[0]
        super().__init__(*shape, stride=2, bias=conv.bias is not None, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.grey_weights = _GreyWeights(conv, mean, std)

    def prepare(self, pixels: Tensor, inside: Tensor | None = None) -> Tensor:
        """Subtract the offset from bytes (batch, frames, bands); bfloat16 holds them exactly.

        Where ``inside`` (batch, frames) marks padding, a second channel marks it for the constant:
        (batch, 2, frames, bands).
        """
        grey = pixels.float() - self.grey_weights.offset
        if inside is None:
            return grey
        mask = inside[:, :, None].expand_as(grey).to(grey)
        return torch.stack([grey * mask, mask], dim=1)

    def forward(self, prepared: Tensor) -> Tensor:
        """Convolve what :meth:`prepare` returned."""
        mask = torch.ones_like(prepared[:1])
        if prepared.ndim == 4:
            prepared, mask = prepared.unbind(1)
        size, (frames, bands) = self.kernel_size[0], prepared.shape[1:]
        width = -(-size // ALIGNMENT) * ALIGNMENT
        grey, constant = self.grey_weights(self.weight)
        before = self.grey_weights.padding
        padding = [before, width - 2 - before, before, size - 2 - before]
        patches = pad(_to_autocast(prepared), padding).unfold(1, size, 2).unfold(2, width, 2)
        rows = patches.reshape(-1, size * width)
        products = rows @ pad(grey, [0, width - size]).flatten(1).T
        ones = pad(mask, [before, size - 2 - before] * 2)
        edges = conv2d(ones[:, None].to(constant), constant, self.bias, stride=2)
        edges = edges.permute(0, 2, 3, 1)
        maps = products.view(len(prepared), frames // 2, bands // 2, -1) + edges.to(products)
        return maps.permute(0, 3, 1, 2)


def _to_autocast(tensor: Tensor) -> Tensor:
    """Convert to the precision in which autocast multiplies."""
    device = tensor.device.type
    enabled = torch.is_autocast_enabled(device)
    return tensor.to(torch.get_autocast_dtype(device)) if enabled else tensor


@torch.inference_mode()
def with_grey_stem(net: SedNet, frames: int, bands: int, *, exact_edges: bool = True) -> SedNet:
    """Return a copy for export whose first layer takes grey images.

    Parameters
    ----------
    net : the network
    frames, bands : size of its input
    exact_edges : surround the image by each channel's mean, as the original does; False surrounds
        it by grey, which saves a channel

    Returns
    -------
    ``net`` itself where the first layer cannot be replaced.
    """
    copy = _replace_stem(net, frames, bands, GreyStem)
    for module in copy.modules() if not exact_edges else ():
        if isinstance(module, GreyStem):
            module.drop_constant_channel()
    return copy


@torch.no_grad()
def with_trainable_grey_stem(net: SedNet, frames: int, bands: int) -> SedNet:
    """Return a copy for training whose first layer takes grey images; weights keep their names.

    Parameters
    ----------
    net : the network
    frames, bands : size of its input

    Returns
    -------
    ``net`` itself where the first layer cannot be replaced.
    """
    return _replace_stem(net, frames, bands, GreyConv)


def _replace_stem(
    net: SedNet,
    frames: int,
    bands: int,
    build: Callable[[nn.Conv2d, Tensor, Tensor], GreyStem | GreyConv],
) -> SedNet:
    """Return a copy with another first layer if its outputs match, else ``net``."""
    modules = net.backbone.named_modules()
    convs = [(name, module) for name, module in modules if isinstance(module, nn.Conv2d)]
    odd = frames % 2 or bands % 2 or net.band_weights is not None
    if not convs or odd or not _is_replaceable(convs[0][1]):
        return net
    copy, (name, _) = deepcopy(net), convs[0]
    parent_name, _, attribute = name.rpartition(".")
    parent = copy.backbone.get_submodule(parent_name)
    mean, std = net.mean.view(3).double(), net.std.view(3).double()
    stem = build(getattr(parent, attribute), mean, std)
    setattr(parent, attribute, stem)
    copy.prepare = stem.prepare  # type: ignore[method-assign, assignment]
    try:
        same = outputs_match(net, copy, example_input(frames, bands))
    except RuntimeError:  # the first layer in the list is not the first that runs
        return net
    return copy if same else net


def _is_replaceable(conv: nn.Conv2d) -> bool:
    """Return whether it is a plain square convolution of three channels with stride 2."""
    return (
        conv.kernel_size[0] == conv.kernel_size[1]
        and conv.in_channels == 3
        and conv.groups == 1
        and conv.stride == (2, 2)
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.padding[0] == conv.padding[1]
    )


@torch.no_grad()
def fuse_conv_bn(net: SedNet) -> SedNet:
    """Return a copy for inference whose batch norms are fused into the convolutions before them.

    Which convolution stands before which norm is found by running an example, so this works for
    any backbone. The copy must not be trained: its norms would not follow.

    Parameters
    ----------
    net : a trained network; it is not changed

    Returns
    -------
    ``net`` itself where nothing can be fused.
    """
    if net.is_embedding:
        return net
    example = example_input(EXAMPLE_FRAMES, net.bands).to(net.mean.device)
    copy = deepcopy(net).eval()
    pairs = _conv_norm_pairs(copy, example)
    if not pairs:
        return net
    for conv, norm in pairs:
        _fuse(copy.backbone, conv, norm)
    return copy if outputs_match(net, copy, example) else net


def _conv_norm_pairs(net: SedNet, example: Tensor) -> list[tuple[str, str]]:
    """Return the names of convolutions and of the norms that alone take their outputs."""
    outputs: dict[int, tuple[str, Tensor]] = {}  # by identity; kept alive, so that ids stay unique
    consumers: dict[str, list[str]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            for tensor in inputs:
                if id(tensor) in outputs:
                    consumers[outputs[id(tensor)][0]].append(name)
            if isinstance(module, nn.Conv2d):
                outputs[id(output)] = (name, output)
                consumers.setdefault(name, [])

        return hook

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    modules = net.backbone.named_modules()
    leaves = [(n, m) for n, m in modules if isinstance(m, kinds) or not any(m.children())]
    with _forward_hooks(leaves, record):
        net.feature_maps(net.prepare(example))
    return [
        (conv, names[0])
        for conv, names in consumers.items()
        if len(names) == 1 and _is_fixed_norm(net.backbone.get_submodule(names[0]))
    ]


@contextmanager
def _forward_hooks(
    modules: list[tuple[str, nn.Module]], hook: Callable[[str], Callable[..., None]]
) -> Iterator[None]:
    handles = [module.register_forward_hook(hook(name)) for name, module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_fixed_norm(module: nn.Module) -> bool:
    """Return whether it is a batch norm with running statistics."""
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _fuse(backbone: nn.Module, conv_name: str, norm_name: str) -> None:
    """Fuse a norm into a convolution; timm's own norms leave their activation behind."""
    conv: Any = backbone.get_submodule(conv_name)
    norm: Any = backbone.get_submodule(norm_name)
    statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)
    parent, _, attribute = norm_name.rpartition(".")
    rest = nn.Sequential(norm.drop, norm.act) if hasattr(norm, "act") else nn.Identity()
    setattr(backbone.get_submodule(parent), attribute, rest)


def example_input(frames: int, bands: int) -> Tensor:
    """Make an input without padding in which neighbouring values differ.

    Parameters
    ----------
    frames, bands : size of the input

    Returns
    -------
    (1, frames, bands), uint8
    """
    pixels = torch.arange(frames * bands) * 7919 % 255 + 1
    return pixels.view(1, frames, bands).to(torch.uint8)


def outputs_match(net: SedNet, copy: SedNet, example: Tensor) -> bool:
    """Compare the feature maps of two networks, up to rounding.

    Both are evaluated in eval mode, and put back into their own mode.

    Parameters
    ----------
    net, copy : the networks
    example : (batch, frames, bands), uint8

    Returns
    -------
    True where the maps have one shape and differ by less than the tolerance.
    """
    modes = net.training, copy.training
    try:
        expected, maps = (n.eval().feature_maps(n.prepare(example)) for n in (net, copy))
    finally:
        net.train(modes[0])
        copy.train(modes[1])
    limit = TOLERANCE * float(expected.abs().max())
    if expected.shape != maps.shape or not isfinite(limit):
        return False
    return torch.allclose(maps, expected, rtol=0, atol=limit)
