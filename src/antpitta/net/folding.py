"""A network that only listens, its batch norms made part of the convolutions before them.

A norm that has settled multiplies and adds, and a convolution can do so itself; each norm left
alone reads and writes its whole feature map once more. Which convolution stands before which norm
is seen by running an example, so it holds for any backbone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from antpitta.net.alike import alike, example_of
from antpitta.net.sed import SedNet

FRAMES = 64  # of the example


@torch.no_grad()
def folded(net: SedNet) -> SedNet:
    """A copy of the net without the norms that can be folded away; ``net`` where there is none.

    The copy must not learn: its norms would not move.
    """
    if net.given:
        return net
    example = example_of(FRAMES, net.bands).to(net.mean.device)
    copy = deepcopy(net).eval()
    pairs = _pairs(copy, example)
    if not pairs:
        return net
    for conv, norm in pairs:
        _fold(copy.body, conv, norm)
    return copy if alike(net, copy, example) else net


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
    parts = net.body.named_modules()
    leaves = [(n, m) for n, m in parts if isinstance(m, kinds) or not any(m.children())]
    with _hooked(leaves, seen):
        net.features(net.prepare(example))
    return [
        (conv, taken[0])
        for conv, taken in takers.items()
        if len(taken) == 1 and _norm(net.body.get_submodule(taken[0]))
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
