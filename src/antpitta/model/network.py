"""The network: a backbone, and a head that says what calls when.

The picture goes in with time first. Features are averaged over frequency; two 1x1 convolutions
over time without bias give class logits per step and attention per step. The clipwise logit is
the attention's mean of the class logits; the framewise logits are the class logits themselves.
Training uses the first, prediction the second (RECIPE: Network).

A few hundred boxes cannot teach a whole backbone. For them the backbone is left as it is
(``frozen``), its features are taken early, where they still know the time and the band
(``reduction``, ``heights = "each"``), and the steady background is taken off (``centre``). What
sounds outside a class's own band (``reach``) is no business of its head.

Where the frames are a network's vectors already (``backbone = "embedding"``), the body is nothing,
and as such frozen. Vectors come at any scale, so they are always levelled. Their windows may
be long beside the recordings, so padding, frames of nothing but 0, has no part in anything.
Where the network that made them knows our species by itself (``known``), its own logits of them
stand last in a vector. The head learns without them; when it listens, they are laid beside it
(model/head.py).
"""

from collections.abc import Callable, Iterator
from typing import Self, cast

import torch
from torch import Tensor, nn

from antpitta.core.config import EMBEDDING_BACKBONE, BackboneConfig, HeadConfig
from antpitta.model.backbones import build_backbone
from antpitta.model.head import (
    Logits,
    MaskedBatchNorm1d,
    ZeroShotBlend,
    class_band_mask,
    fit_masked_norm,
    norm_coefficients,
    smooth_logits,
    smoothing_steps,
    valid_mask,
    zero_shot_mask,
)
from antpitta.sound.augment import Mixup

UNHEARD = -20.0  # the framewise logit of padding


class SedNet(nn.Module):
    """Pictures (batch, frames, bands), uint8 or the vectors of an embedding, to :class:`Logits`."""

    mean: Tensor
    std: Tensor
    reach: Tensor | None  # (classes, inputs, 1): 1 where a class's head sees an input, else 0

    def __init__(
        self,
        backbone: BackboneConfig,
        head: HeadConfig,
        classes: int,
        *,
        bands: int = 128,
        known: bool = False,
        empty: bool = False,
    ) -> None:
        super().__init__()
        built = build_backbone(backbone, bands=bands, empty=empty)
        self.given = backbone.name == EMBEDDING_BACKBONE
        if self.given:
            backbone = backbone.model_copy(update={"frozen": True})
        self.backbone_config, self.head_config = backbone, head
        self.bands = bands
        self.body = built.body.requires_grad_(not backbone.frozen)
        self.stride = built.stride
        self.origin = built.origin
        self.settled = False
        # applied to the class weights while the head learns in other coordinates
        self.weight_transform: Callable[[Tensor], Tensor] | None = None
        self.steps = smoothing_steps(head, self.stride)
        inputs = built.channels * (built.heights if head.frequency_pooling == "none" else 1)
        levelled = head.background_subtraction > 0 or self.given
        norm = MaskedBatchNorm1d(inputs) if self.given else nn.BatchNorm1d(inputs, affine=False)
        self.level = norm if levelled else nn.Identity()
        self.classify = nn.Conv1d(inputs, classes, 1, bias=levelled)
        self.attend = nn.Conv1d(inputs, classes, 1, bias=False)
        if backbone.frozen:  # nothing to break the symmetry of; random weights would only be noise
            for layer in (self.classify, self.attend):
                nn.init.zeros_(layer.weight)
        self.word = ZeroShotBlend(classes, head.zero_shot_weight) if known else None
        reach = zero_shot_mask(inputs, classes) if known else None
        if head.class_band_limits is not None:
            reach = class_band_mask(head, built.maps, bands)
        self.register_buffer("reach", reach, persistent=False)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(built.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(built.std).view(shape), persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def prepare(self, pixels: Tensor) -> Tensor:
        """Bytes to the backbone's input: (batch, 3, frames, bands), standardised.

        Vectors stay as they are: (batch, frames, inputs).
        """
        if self.given:
            return pixels.float()
        images = (pixels[:, None].float() / 255 - self.mean) / self.std
        return images.contiguous(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """Feature maps, before the ReLU and the mean over frequency."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.backbone_config.frozen):
            found: Tensor = self.body(images)
        return found

    def head(self, seen: Tensor) -> Logits:
        """What :meth:`see` gives (batch, inputs, steps), to logits.

        Never in half precision: its three digits are too few to rank by.
        """
        with torch.autocast(seen.device.type, enabled=False):
            return self._head(seen.float())

    def _head(self, seen: Tensor) -> Logits:
        sharp = self._weighed(self.classify, seen)
        if self.word is not None and not self.training:
            sharp = self.word(sharp, self._own(seen))
        sound = valid_mask(seen) if self.given else None
        classes = self._averaged(sharp, sound)
        if sound is not None:
            classes = classes.masked_fill(~sound, UNHEARD)
        if not self.attend.weight.requires_grad:  # not learnt: the loss asks the framewise logits
            return Logits(classes.amax(dim=2), classes.transpose(1, 2), sharp.transpose(1, 2))
        attention = self._weighed(self.attend, seen)
        if sound is not None:
            attention = attention.masked_fill(~sound, -torch.inf)
        clipwise = (classes * attention.softmax(dim=2)).sum(dim=2)
        return Logits(clipwise, classes.transpose(1, 2), sharp.transpose(1, 2))

    @property
    def smooths(self) -> bool:
        """Whether logits are averaged over steps."""
        return any(count != 1 for count in self.steps)

    def _averaged(self, logits: Tensor, sound: Tensor | None) -> Tensor:
        """The mean over each class's steps: (batch, classes, steps)."""
        if not self.smooths:
            return logits
        return smooth_logits(logits, self.steps, sound)

    def _own(self, seen: Tensor) -> Tensor:
        """The network's own logits of the classes, levelled: (batch, classes, steps)."""
        assert isinstance(self.level, MaskedBatchNorm1d)
        count = self.classify.out_channels
        mean, factor = (told[-count:, None] for told in norm_coefficients(self.level))
        return (seen[:, -count:] - mean) * factor

    @torch.no_grad()
    def lend(self, seen: Iterator[Tensor]) -> None:
        """Stretch the network's own word of the classes to the head's spread over these features
        (batch, inputs, steps).

        To be done anew whenever the head has learnt; before the first time it has no word.
        """
        if self.word is None:
            return
        self.eval()
        pairs = []
        for part in seen:
            sound = valid_mask(part)
            logits = (self._weighed(self.classify, part), self._own(part))
            pairs.append(
                [self._averaged(one, sound).transpose(1, 2)[sound[:, 0]] for one in logits]
            )
        head, own = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        self.word.stretch(head, own)

    def _weighed(self, layer: nn.Conv1d, seen: Tensor) -> Tensor:
        """``layer`` of the levelled features; a settled level is folded into the weights."""
        weight = layer.weight
        if self.weight_transform is not None and layer is self.classify:
            weight = self.weight_transform(weight)
        if self.reach is not None:
            weight = weight * self.reach
        if not isinstance(self.level, nn.BatchNorm1d) or self.level.training:
            levelled = self.level(seen)
            if weight is not layer.weight:
                return nn.functional.conv1d(levelled, weight, layer.bias)
            found: Tensor = layer(levelled)  # so that hooks on it, such as counters, are called
            return found
        mean, factor = norm_coefficients(self.level)
        weight = weight * factor[:, None]
        moved = (weight[:, :, 0] * mean).sum(dim=1)
        bias = -moved if layer.bias is None else layer.bias - moved
        return torch.matmul(weight[:, :, 0], seen) + bias[:, None]

    def levelled(self, rows: Tensor) -> Tensor:
        """Rows (rows, inputs) of features by the settled level, if there is one; 0 where no head
        sees an input.
        """
        if isinstance(self.level, nn.BatchNorm1d):
            mean, factor = norm_coefficients(self.level)
            rows = (rows - mean) * factor
        return rows if self.reach is None else rows * self.reach.amax(dim=0)[:, 0]

    def of_rows(self, seen: Tensor) -> Tensor:
        """Class logits (rows, classes) of features that are means over boxes: (rows, inputs)."""
        return self._weighed(self.classify, seen[:, :, None])[:, :, 0]

    @torch.no_grad()
    def settle(self, seen: Iterator[Tensor]) -> None:
        """Level by these features of a frozen body (batch, inputs, steps) from now on."""
        if isinstance(self.level, nn.BatchNorm1d):
            fit_masked_norm(self.level, seen)
            self.settled = True

    def gather(self, features: Tensor) -> Tensor:
        """What the head sees of feature maps: (batch, inputs, steps)."""
        if self.given:
            return features.transpose(1, 2)
        if self.head_config.frequency_pooling == "mean":
            return features.relu().mean(dim=3)
        return features.transpose(2, 3).flatten(1, 2)

    def see(self, pixels: Tensor, mix: Mixup | None = None, late: Mixup | None = None) -> Tensor:
        """What the head sees of pictures: (batch, inputs, steps), centred if asked for.

        Frames of nothing but 0 are the padding of a short image, and no background.
        """
        images = self.prepare(pixels)
        features = self.features(images if mix is None else mix(images))
        seen = self.gather(features if late is None else late(features))
        if not self.head_config.background_subtraction:
            return seen
        frames = (pixels != 0).any(dim=2).float()[:, None]
        sound = nn.functional.max_pool1d(frames, self.stride, ceil_mode=True)[:, :, : seen.shape[2]]
        background = (seen * sound).sum(2, keepdim=True) / sound.sum(2, keepdim=True).clamp_min(1)
        return (seen - self.head_config.background_subtraction * background) * sound

    def train(self, mode: bool = True) -> Self:
        """Training mode; a frozen body keeps its own statistics."""
        super().train(mode)
        if self.backbone_config.frozen:
            self.body.eval()
        if self.settled:
            self.level.eval()
        return self

    def forward(
        self,
        pixels: Tensor | None,
        mix: Mixup | None = None,
        late: Mixup | None = None,
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


class MultiHeadNet(nn.Module):
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
        labels = [cast(SedNet, net).head(seen) for net in self.nets]
        clipwise, framewise, sharp = zip(*labels, strict=True)
        return Logits(*(torch.cat(part, dim=-1) for part in (clipwise, framewise, sharp)))


def share_backbone(nets: list[SedNet]) -> bool:
    """Whether the nets differ in their heads only, as the folds of a frozen backbone do."""
    bodies = [net.body.state_dict() for net in nets]
    return nets[0].backbone_config.frozen and all(
        torch.equal(value, other[name]) for other in bodies[1:] for name, value in bodies[0].items()
    )
