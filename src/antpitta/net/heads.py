"""The folds of a frozen backbone: many heads on one body, which need be run only once."""

from typing import cast

import torch
from torch import Tensor, nn

from antpitta.net.sed import SedNet
from antpitta.net.steps import Logits


class Heads(nn.Module):
    """Networks of one and the same body, which is run once for all of them.

    Their logits come side by side: (windows, steps, networks x classes).
    """

    def __init__(self, nets: list[SedNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.stride, self.mean = nets[0].stride, nets[0].mean

    def forward(self, pixels: Tensor) -> Logits:
        first = cast(SedNet, self.nets[0])
        seen = first.see(pixels)
        heard = [cast(SedNet, net).head(seen) for net in self.nets]
        clipwise, framewise, sharp = zip(*heard, strict=True)
        return Logits(*(torch.cat(part, dim=-1) for part in (clipwise, framewise, sharp)))


def one_body(nets: list[SedNet]) -> bool:
    """Whether the nets differ in their heads only, as the folds of a frozen backbone do."""
    bodies = [net.body.state_dict() for net in nets]
    return nets[0].network.frozen and all(
        torch.equal(value, other[name]) for other in bodies[1:] for name, value in bodies[0].items()
    )
