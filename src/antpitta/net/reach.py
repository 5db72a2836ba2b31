"""Which inputs a class's head sees: (classes, inputs, 1), 1 where it does, else 0."""

from collections.abc import Iterable

import torch
from torch import Tensor

from antpitta.core.config import Network


def without_own(inputs: int, classes: int) -> Tensor:
    """All but the last inputs, which are a network's own logits, one a class."""
    reach = torch.ones(classes, inputs, 1)
    reach[:, inputs - classes :] = 0
    return reach


def own_bands(network: Network, maps: Iterable[tuple[int, int]], bands: int) -> Tensor:
    """The inputs from heights that lie in the class's band.

    ``maps`` are the channels and heights of the feature maps of a picture of ``bands``.
    """
    if network.reach is None or network.reach == "boxes":
        raise ValueError("the boxes' bands were not filled in")
    edges = [(i / high, (i + 1) / high) for depth, high in maps for i in [*range(high)] * depth]
    low, high = bands * torch.tensor(edges).T
    first, end = torch.tensor(network.reach).T[:, :, None]
    near: Tensor = (low < end) & (high > first)
    return near[:, :, None].float()
