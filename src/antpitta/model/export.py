"""Trained networks made ready for OpenVINO: as they are, and in int8.

All folds of a model become one network, whose framewise logits come side by side, so that a
frozen body is run once for all of them. The weights are
kept in half precision, which halves the file; what that and int8 cost is measured on the training
recordings (train/export.py).

For int8 the ranges of all activations are taken from pictures that the model was trained on. The
last product, the classes of each step, stays in float: probabilities are ranked, and 256 steps
are too few for that.

A network that only listens, its batch norms made part of the convolutions before them.

A norm that has settled multiplies and adds, and a convolution can do so itself; each norm left
alone reads and writes its whole feature map once more. Which convolution stands before which norm
is seen by running an example, so it holds for any backbone.

Whether a copy of a network that was changed still says what the network says.
"""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from openvino import opset13 as ops
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from openvino.passes import ConstantFolding, Manager
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from antpitta.model.head import MultiHeadNet, share_backbone
from antpitta.model.inference import STRIDE, WHOLE, padded_length
from antpitta.model.network import SedNet
from antpitta.model.stem import with_grey_stem

FeatureArray = NDArray[Any]


class _Framewise(nn.Module):
    """Pictures (1, frames, bands) to framewise logits (1, steps, nets x classes)."""

    def __init__(self, nets: Sequence[SedNet]) -> None:
        super().__init__()
        several: list[SedNet | MultiHeadNet] = (
            [MultiHeadNet(list(nets))] if share_backbone(list(nets)) else [*nets]
        )
        self.several = nn.ModuleList(several)

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([cast(SedNet, net)(pixels).framewise for net in self.several], dim=-1)


def to_openvino(
    nets: Sequence[SedNet], bands: int, frames: int, *, edges: bool = True
) -> openvino.Model:
    """One network for the folds of a model; ``frames`` are those of a whole image.

    For int8 it is made without ``edges`` (model/stem.py): what that changes is a tenth of what int8
    does, and the first layer takes half the time.
    """
    length = padded_length(frames, frames, nets[0].stride)
    grey = [with_grey_stem(net.cpu().eval(), length, bands, edges=edges) for net in nets]
    framewise = _Framewise(grey).eval()
    example = torch.zeros(1, length, bands, dtype=torch.uint8)
    example[:, ::3] = 128  # not silence: frames of nothing but 0 are padding
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of tracing, which is what is asked for
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            framewise, example, check_trace=False
        )
        # not openvino.convert_model, which does this and then tells its makers of it
        reader = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced)  # to be kept until all is read
        model = reader.convert(reader.load(decoder))
    taken = model.inputs[0].get_node()
    taken.set_element_type(openvino.Type.u8)
    taken.set_partial_shape(openvino.PartialShape([1, -1, bands]))
    model.validate_nodes_and_infer_types()
    _take_pads_in(model)
    return _marked(model, nets[0].stride, frames)


def to_int8(model: openvino.Model, pictures: Sequence[FeatureArray]) -> openvino.Model:
    """A copy whose convolutions compute in int8, with ranges as in these ``pictures``.

    Best of a ``model`` without edges.
    """
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its bars would run into ours
        nncf = _silent_nncf()
        stride, whole = (int(model.get_rt_info(way).astype(int)) for way in (STRIDE, WHOLE))
        given = [_filled(one, padded_length(whole, whole, stride)) for one in pictures]
        fixed = model.clone()
        fixed.reshape(list(given[0].shape))
        small = nncf.quantize(
            fixed,
            nncf.Dataset(given),
            subset_size=len(given),
            ignored_scope=nncf.IgnoredScope(types=["MatMul"], validate=False),
        )
    small.reshape([1, -1, given[0].shape[2]])
    return _marked(small, stride, whole)


def _take_pads_in(model: openvino.Model) -> None:
    """Silence around a convolution's input becomes a setting of it.

    OpenVINO does so itself, but not where networks share their padded input; those convolutions
    would then compute in float.
    """
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    for op in model.get_ordered_ops():
        pad = op.input_value(0).get_node() if op.get_type_name() == "Convolution" else None
        if pad is None or pad.get_type_name() != "Pad":
            continue
        begin, end, filler = (pad.input_value(i).get_node() for i in (1, 2, 3))
        if any(one.get_type_name() != "Constant" for one in (begin, end, filler)):
            continue
        around = np.concatenate([begin.data, end.data])
        own = op.get_attributes()
        plain = pad.get_attributes()["pad_mode"] == "constant" and own["auto_pad"] == "explicit"
        if not plain or filler.data.any() or around.min() < 0 or around.reshape(2, -1)[:, :2].any():
            continue
        new = ops.convolution(
            pad.input_value(0),
            op.input_value(1),
            own["strides"],
            list(own["pads_begin"] + begin.data[2:]),
            list(own["pads_end"] + end.data[2:]),
            own["dilations"],
        )
        new.set_friendly_name(op.get_friendly_name())
        op.output(0).replace(new.output(0))


def _silent_nncf() -> Any:
    """The compressor, without its habit of telling its makers what it is used for."""
    with patch.dict(os.environ, {"NNCF_CI": "1"}):
        return import_module("nncf")  # takes seconds, and only training needs it


def _marked(model: openvino.Model, stride: int, whole: int) -> openvino.Model:
    model.set_rt_info(stride, STRIDE)
    model.set_rt_info(whole, WHOLE)
    return model


def _filled(picture: FeatureArray, frames: int) -> NDArray[np.uint8]:
    whole = np.zeros((1, frames, picture.shape[1]), dtype=np.uint8)
    whole[0, : min(frames, len(picture))] = picture[:frames]
    return whole


FRAMES = 64  # of the example


@torch.no_grad()
def fuse_conv_bn(net: SedNet) -> SedNet:
    """A copy of the net without the norms that can be folded away; ``net`` where there is none.

    The copy must not learn: its norms would not move.
    """
    if net.given:
        return net
    example = example_input(FRAMES, net.bands).to(net.mean.device)
    copy = deepcopy(net).eval()
    pairs = _pairs(copy, example)
    if not pairs:
        return net
    for conv, norm in pairs:
        _fold(copy.body, conv, norm)
    return copy if outputs_match(net, copy, example) else net


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


NEAR = 1e-4  # of the largest value in the feature maps


def example_input(frames: int, bands: int) -> Tensor:
    """A picture (1, frames, bands) whose neighbouring bytes differ and of which none is padding."""
    cells = torch.arange(frames * bands) * 7919 % 255 + 1
    return cells.view(1, frames, bands).to(torch.uint8)


def outputs_match(net: SedNet, copy: SedNet, example: Tensor) -> bool:
    """Whether both see the same in the example; each is left in the mode that it was in."""
    modes = net.training, copy.training
    try:
        wanted, found = (one.eval().features(one.prepare(example)) for one in (net, copy))
    finally:
        net.train(modes[0])
        copy.train(modes[1])
    return wanted.shape == found.shape and torch.allclose(
        found, wanted, rtol=0, atol=NEAR * float(wanted.abs().max())
    )
