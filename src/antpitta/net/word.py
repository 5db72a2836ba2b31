"""A network's own word of our species, beside what a head has learnt of them.

A dozen boxes are the calls of a few animals, and a head on them knows those animals. A network
that has a class of its own for the species has heard many others, and was taught none of ours.
The two err apart, so their logits are averaged, the network's stretched to the spread of the
head's. How well each tells the boxes apart has no say: boxes hold the head's own animals.
"""

import torch
from torch import Tensor, nn

LEAST = 1e-4  # of the spread of levelled logits: below it, the network has no such class


class Word(nn.Module):
    """``trust`` is the network's share in the mean; classes that it lacks keep the head's logit."""

    scale: Tensor  # (classes,), of its levelled logits; 0 where it has no such class
    middle: Tensor  # (classes,), what they are laid around: the mean of the head's

    def __init__(self, classes: int, trust: float) -> None:
        super().__init__()
        self.trust = trust
        for name in ("scale", "middle"):
            self.register_buffer(name, torch.zeros(classes))

    def forward(self, head: Tensor, own: Tensor) -> Tensor:
        """Both (batch, classes, steps)."""
        scale, middle = self.scale[:, None], self.middle[:, None]
        share = self.trust * (scale > 0)
        return (1 - share) * head + share * (own * scale + middle)

    def stretch(self, head: Tensor, own: Tensor) -> None:
        """Take the spread from these logits (steps, classes) of the same sound."""
        spread = own.std(dim=0, correction=0)
        scale = head.std(dim=0, correction=0) / spread.clamp_min(LEAST)
        self.scale.copy_(torch.where(spread > LEAST, scale, 0.0))
        self.middle.copy_(head.mean(dim=0) - own.mean(dim=0) * self.scale)
