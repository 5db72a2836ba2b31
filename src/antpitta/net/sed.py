"""The network: a backbone, and a head that says what calls when.

The picture goes in with time first. Features are averaged over frequency; two 1x1 convolutions
over time without bias give class logits per step and attention per step. The clipwise logit is
the attention's mean of the class logits; the framewise logits are the class logits themselves.
Training uses the first, prediction the second (RECIPE: Network).

A few hundred boxes cannot teach a whole backbone. For them the backbone is left as it is
(``frozen``), its features are taken early, where they still know the time and the band
(``reduction``, ``heights = "each"``), and the steady background is taken off (``centre``).
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from antpitta.core.config import Network
from antpitta.net.backbones import build_backbone
from antpitta.sound.augment import Mix


class Logits(NamedTuple):  # fabric walks a model's output, and cannot walk frozen dataclasses
    """What the head says of a batch of windows."""

    clipwise: Tensor  # (batch, classes)
    framewise: Tensor  # (batch, steps, classes); a step is ``stride`` frames


class SedNet(nn.Module):
    """uint8 pictures (batch, frames, bands) to :class:`Logits`."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: Network, classes: int, *, bands: int = 128, empty: bool = False
    ) -> None:
        super().__init__()
        backbone = build_backbone(network, bands=bands, empty=empty)
        self.network = network
        self.body = backbone.body.requires_grad_(not network.frozen)
        self.stride = backbone.stride
        self.origin = backbone.origin
        inputs = backbone.channels * (backbone.heights if network.heights == "each" else 1)
        self.level = nn.BatchNorm1d(inputs, affine=False) if network.centre else nn.Identity()
        self.classify = nn.Conv1d(inputs, classes, 1, bias=network.centre)
        self.attend = nn.Conv1d(inputs, classes, 1, bias=False)
        if network.frozen:  # nothing to break the symmetry of; random weights would only be noise
            for head in (self.classify, self.attend):
                nn.init.zeros_(head.weight)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(backbone.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(shape), persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def prepare(self, pixels: Tensor) -> Tensor:
        """Bytes to the backbone's input: (batch, 3, frames, bands), standardised."""
        images = (pixels[:, None].float() / 255 - self.mean) / self.std
        return images.contiguous(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """Feature maps, before the ReLU and the mean over frequency."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.network.frozen):
            found: Tensor = self.body(images)
        return found

    def head(self, seen: Tensor) -> Logits:
        """What :meth:`see` gives (batch, inputs, steps), to logits."""
        levelled = self.level(seen)
        classes, attention = self.classify(levelled), self.attend(levelled)
        if self.network.smooth > 1:
            classes = _smooth(classes, self.network.smooth)
        clipwise = (classes * attention.softmax(dim=2)).sum(dim=2)
        return Logits(clipwise, classes.transpose(1, 2))

    def gather(self, features: Tensor) -> Tensor:
        """What the head sees of feature maps: (batch, inputs, steps)."""
        if self.network.heights == "mean":
            return features.relu().mean(dim=3)
        return features.transpose(2, 3).flatten(1, 2)

    def see(self, pixels: Tensor, mix: Mix | None = None, late: Mix | None = None) -> Tensor:
        """What the head sees of pictures: (batch, inputs, steps), centred if asked for.

        Frames of nothing but 0 are the padding of a short image, and no background.
        """
        images = self.prepare(pixels)
        features = self.features(images if mix is None else mix(images))
        seen = self.gather(features if late is None else late(features))
        if not self.network.centre:
            return seen
        frames = (pixels > 0).any(dim=2).float()[:, None]
        sound = nn.functional.max_pool1d(frames, self.stride, ceil_mode=True)[:, :, : seen.shape[2]]
        background = (seen * sound).sum(2, keepdim=True) / sound.sum(2, keepdim=True).clamp_min(1)
        return (seen - background) * sound

    def train(self, mode: bool = True) -> Self:
        """Training mode; a frozen body keeps its own statistics."""
        super().train(mode)
        if self.network.frozen:
            self.body.eval()
        return self

    def forward(
        self,
        pixels: Tensor | None,
        mix: Mix | None = None,
        late: Mix | None = None,
        seen: Tensor | None = None,
    ) -> Logits:
        """Training mixes the input by ``mix``, the feature maps before the ReLU by ``late``.

        ``seen``, which :meth:`see` gave before, stands for ``pixels`` and saves the body's work.
        """
        if pixels is not None:
            return self.head(self.see(pixels, mix, late))
        if seen is None:
            raise ValueError("neither pixels nor what was seen of them")
        return self.head(seen if late is None else late(seen))


def focused(framewise: Tensor, focus: Tensor, stride: int) -> Tensor:
    """One logit a row and class, of framewise ones (windows, steps, classes).

    ``focus`` (rows, 3) names a window and a span of its frames: the logit is the mean over the
    steps that the span covers, each by its share, and the highest of all where the span is empty.
    """
    edges = torch.arange(framewise.shape[1] + 1, device=framewise.device) * stride
    cover = torch.minimum(focus[:, 2:], edges[1:]) - torch.maximum(focus[:, 1:2], edges[:-1])
    cover = cover.clamp_min(0).to(framewise.dtype)
    total = cover.sum(dim=1, keepdim=True)
    steps = framewise[focus[:, 0]]  # (rows, steps, classes)
    mean = (steps * (cover / total.clamp_min(1))[:, :, None]).sum(dim=1)
    return torch.where(total > 0, mean, steps.amax(dim=1))


def _smooth(logits: Tensor, steps: int) -> Tensor:
    """The mean over ``steps`` around each, of those there are: (batch, classes, steps)."""
    before, after = (steps - 1) // 2, steps // 2
    padded = nn.functional.pad(logits, (before, after))
    ones = nn.functional.pad(torch.ones_like(logits[:1, :1]), (before, after))
    pool = nn.functional.avg_pool1d
    return pool(padded, steps, 1) / pool(ones, steps, 1)
