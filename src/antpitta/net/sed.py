"""The network: a backbone, and a head that says what calls when.

The picture goes in with time first. Features are averaged over frequency; two 1x1 convolutions
over time without bias give class logits per step and attention per step. The clipwise logit is
the attention's mean of the class logits; the framewise logits are the class logits themselves.
Training uses the first, prediction the second (RECIPE: Network).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from antpitta.core.config import Network
from antpitta.net.backbones import build_backbone
from antpitta.sound.augment import Mix

HEIGHT = 2.0  # of the top band in the coordinate channel, in deviations of a picture's pixels


class Logits(NamedTuple):  # fabric walks a model's output, and cannot walk frozen dataclasses
    """What the head says of a batch of windows."""

    clipwise: Tensor  # (batch, classes)
    framewise: Tensor  # (batch, steps, classes); a step is ``stride`` frames


class SedNet(nn.Module):
    """uint8 pictures (batch, frames, bands) to :class:`Logits`."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, classes: int, *, empty: bool = False) -> None:
        super().__init__()
        backbone = build_backbone(network, empty=empty)
        self.body = backbone.body
        self.stride = backbone.stride
        self.origin = backbone.origin
        self.coordinate = network.coordinate
        self.classify = nn.Conv1d(backbone.channels, classes, 1, bias=False)
        self.attend = nn.Conv1d(backbone.channels, classes, 1, bias=False)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(backbone.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(shape), persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def prepare(self, pixels: Tensor) -> Tensor:
        """Bytes to the backbone's input: (batch, 3, frames, bands), standardised."""
        images = (pixels[:, None].float() / 255 - self.mean) / self.std
        if self.coordinate:
            height = torch.linspace(-HEIGHT, HEIGHT, pixels.shape[2], device=pixels.device)
            images = torch.cat([images[:, :2], height.expand_as(images[:, :1])], dim=1)
        return images.contiguous(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """Feature maps, before the ReLU and the mean over frequency."""
        found: Tensor = self.body(images)
        return found

    def head(self, features: Tensor) -> Logits:
        """Feature maps (batch, channels, steps, heights) to logits."""
        over_time = features.relu().mean(dim=3)  # (batch, channels, steps)
        classes, attention = self.classify(over_time), self.attend(over_time)
        clipwise = (classes * attention.softmax(dim=2)).sum(dim=2)
        return Logits(clipwise, classes.transpose(1, 2))

    def forward(self, pixels: Tensor, mix: Mix | None = None, late: Mix | None = None) -> Logits:
        """Training mixes the input by ``mix``, the feature maps before the ReLU by ``late``."""
        images = self.prepare(pixels)
        features = self.features(images if mix is None else mix(images))
        return self.head(features if late is None else late(features))
