"""The network: a backbone (model/backbones.py) and a head (model/head.py).

A spectrogram goes in with time first. The backbone's feature maps are averaged over frequency, or
their heights become inputs of their own; the head turns them into logits. Training uses the
clipwise logits, prediction the framewise ones.

A few hundred boxes are too few to train a whole backbone. For them the backbone is frozen, its
features are taken from early layers that still resolve time and frequency (``reduction``,
``frequency_pooling = "none"``), and the steady background is subtracted
(``background_subtraction``).

With ``backbone.name = "embedding"`` the input consists of an embedding model's vectors. The
backbone is then an identity, and frozen.
"""

from typing import Self, cast

import torch
from torch import Tensor, nn

from antpitta.core.config import EMBEDDING_BACKBONE, BackboneConfig, HeadConfig
from antpitta.model.backbones import build_backbone
from antpitta.model.head import Logits, SedHead, class_band_mask
from antpitta.model.inputs import Mixup


def interpolation_weights(bands: int, image_bands: int) -> Tensor:
    """The matrix that interpolates spectrogram bands linearly, as OpenCV resizes images.

    Parameters
    ----------
    bands : of the spectrogram
    image_bands : of the image

    Returns
    -------
    (bands, image_bands): each column adds up to 1.
    """
    rows = torch.eye(bands)[None]
    return nn.functional.interpolate(rows, size=image_bands, mode="linear", align_corners=False)[0]


class SedNet(nn.Module):
    """A sound event detector: a backbone and a :class:`~antpitta.model.head.SedHead`.

    Parameters
    ----------
    backbone_config : settings ``[backbone]`` of the recipe
    head_config : settings ``[head]`` of the recipe, with every "boxes" and "duration" filled in
    classes : number of classes
    bands : values per frame: mel bands, or the size of an embedding
    has_zero_shot : the last ``classes`` values of a frame are the embedding model's own logits
    load_weights : load pretrained weights as ``backbone_config`` asks; False leaves them random

    Attributes
    ----------
    stride : frames per step of the logits
    origin : where the backbone's weights come from
    needs_windows : it must be applied to windows as in training, not to whole segments
    """

    band_weights: Tensor | None  # (bands, bands of the image)
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone_config: BackboneConfig,
        head_config: HeadConfig,
        classes: int,
        *,
        bands: int = 128,
        has_zero_shot: bool = False,
        load_weights: bool = True,
    ) -> None:
        super().__init__()
        image_bands = backbone_config.image_bands or bands
        backbone = build_backbone(backbone_config, bands=image_bands, load_weights=load_weights)
        self.is_embedding = backbone_config.name == EMBEDDING_BACKBONE
        if self.is_embedding:
            backbone_config = backbone_config.model_copy(update={"frozen": True})
        self.backbone_config, self.head_config = backbone_config, head_config
        self.bands = bands
        self.backbone = backbone.module
        if backbone_config.frozen:
            self.backbone.requires_grad_(False)
        self.stride = backbone.stride
        self.origin = backbone.origin
        band_mask = None
        if head_config.class_band_limits is not None:
            band_mask = class_band_mask(head_config, backbone.maps, bands)
        self.head = SedHead(
            head_config,
            backbone.channels * (backbone.height if head_config.frequency_pooling == "none" else 1),
            classes,
            backbone.stride,
            is_embedding=self.is_embedding,
            has_zero_shot=has_zero_shot,
            band_mask=band_mask,
        )
        if backbone_config.frozen:  # a convex problem: random initial weights would only be noise
            for layer in (self.head.class_conv, self.head.attention_conv):
                nn.init.zeros_(layer.weight)
        shape = (1, 3, 1, 1)
        self.needs_windows = backbone.needs_windows or head_config.scores == "clipwise"
        weights = None if image_bands == bands else interpolation_weights(bands, image_bands)
        self.register_buffer("band_weights", weights, persistent=False)
        self.register_buffer("mean", torch.tensor(backbone.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(shape), persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def prepare(self, pixels: Tensor, inside: Tensor | None = None) -> Tensor:
        """Turn features from files into the backbone's input.

        Parameters
        ----------
        pixels : (batch, frames, bands), uint8, or an embedding model's vectors
        inside : (batch, frames), bool: frames that are no padding; the others become 0, which is
            the mean of all pixels

        Returns
        -------
        (batch, 3, frames, bands of the image), standardized; vectors keep their shape.
        """
        if self.is_embedding:
            return pixels.float()
        grey = pixels[:, None].float() / 255
        if self.band_weights is not None:
            grey = grey @ self.band_weights
        images = (grey - self.mean) / self.std
        if inside is not None:
            images = images * inside[:, None, :, None]
        return images.contiguous(memory_format=torch.channels_last)

    def feature_maps(self, images: Tensor) -> Tensor:
        """Run the backbone: (batch, channels, steps, height), before ReLU and pooling."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.backbone_config.frozen):
            maps: Tensor = self.backbone(images)
        return maps

    def pool_frequency(self, maps: Tensor) -> Tensor:
        """Turn feature maps (batch, channels, steps, height) into (batch, inputs, steps)."""
        if self.is_embedding:
            return maps.transpose(1, 2)
        if self.head_config.layers == "dense":
            return maps.mean(dim=3)
        if self.head_config.frequency_pooling == "mean":
            return maps.relu().mean(dim=3)
        return maps.transpose(2, 3).flatten(1, 2)

    def extract_features(
        self,
        pixels: Tensor,
        mixup: Mixup | None = None,
        manifold_mixup: Mixup | None = None,
        inside: Tensor | None = None,
    ) -> Tensor:
        """Compute the features that the head takes.

        Parameters
        ----------
        pixels : (batch, frames, bands); frames of nothing but 0 are padding, not background
        mixup : mixes the input
        manifold_mixup : mixes the feature maps, before ReLU and pooling
        inside : (batch, frames), bool: frames that are no padding; None to take padding as it is

        Returns
        -------
        (batch, inputs, steps)
        """
        images = self.prepare(pixels) if inside is None else self.prepare(pixels, inside)
        maps = self.feature_maps(images if mixup is None else mixup(images))
        features = self.pool_frequency(maps if manifold_mixup is None else manifold_mixup(maps))
        share = float(self.head_config.background_subtraction)
        if not share:
            return features
        frames = (pixels != 0).any(dim=2).float()[:, None]
        valid = nn.functional.max_pool1d(frames, self.stride, ceil_mode=True)
        valid = valid[:, :, : features.shape[2]]
        count = valid.sum(2, keepdim=True).clamp_min(1)
        background = (features * valid).sum(2, keepdim=True) / count
        return (features - share * background) * valid

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; a frozen backbone stays in evaluation."""
        super().train(mode)
        if self.backbone_config.frozen:
            self.backbone.eval()
        return self

    def forward(
        self,
        pixels: Tensor | None,
        mixup: Mixup | None = None,
        manifold_mixup: Mixup | None = None,
        features: Tensor | None = None,
        inside: Tensor | None = None,
        box_rows: Tensor | None = None,
    ) -> Logits:
        """Compute the logits of a batch of windows.

        Parameters
        ----------
        pixels : (batch, frames, bands); None to use ``features``
        mixup : mixes the input
        manifold_mixup : mixes the feature maps, or ``features``
        features : (batch, inputs, steps), computed before by :meth:`extract_features`; steps of
            nothing but 0 are padding
        inside : (batch, frames), bool: frames of ``pixels`` that are no padding
        box_rows : (boxes, inputs), features of boxes: their logits come before the clipwise ones
        """
        logits: Logits
        if pixels is not None:
            logits = self.head(self.extract_features(pixels, mixup, manifold_mixup, inside))
        elif features is not None:
            features = features if manifold_mixup is None else manifold_mixup(features)
            logits = self.head(features, box_rows, has_padding=True)
        else:
            raise ValueError("neither pixels nor features are given")
        return logits


class MultiHeadNet(nn.Module):
    """Networks with one shared backbone, which is run once for all of them.

    Parameters
    ----------
    nets : networks for which :func:`share_backbone` holds
    """

    def __init__(self, nets: list[SedNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.stride, self.mean = nets[0].stride, nets[0].mean

    def forward(self, pixels: Tensor, inside: Tensor | None = None) -> Logits:
        """Compute the logits of all networks, side by side: (batch, steps, networks x classes)."""
        nets = [cast(SedNet, net) for net in self.nets]
        features = nets[0].extract_features(pixels, inside=inside)
        logits = [net.head(features) for net in nets]
        return Logits(*(torch.cat(field, dim=-1) for field in zip(*logits, strict=True)))


def share_backbone(nets: list[SedNet]) -> bool:
    """Check whether networks differ in their heads only, as folds of a frozen backbone do.

    Parameters
    ----------
    nets : at least one network

    Returns
    -------
    True where all backbones are frozen and have equal weights.
    """
    states = [net.backbone.state_dict() for net in nets]
    return nets[0].backbone_config.frozen and all(
        torch.equal(value, state[name]) for state in states[1:] for name, value in states[0].items()
    )
