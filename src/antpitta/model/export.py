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
from collections.abc import Sequence
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

from antpitta.model.fusion import with_grey_stem
from antpitta.model.inference import SEGMENT_INFO, STRIDE_INFO, padded_length
from antpitta.model.network import MultiHeadNet, SedNet, share_backbone

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
        stride, whole = (
            int(model.get_rt_info(way).astype(int)) for way in (STRIDE_INFO, SEGMENT_INFO)
        )
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
    model.set_rt_info(stride, STRIDE_INFO)
    model.set_rt_info(whole, SEGMENT_INFO)
    return model


def _filled(picture: FeatureArray, frames: int) -> NDArray[np.uint8]:
    whole = np.zeros((1, frames, picture.shape[1]), dtype=np.uint8)
    whole[0, : min(frames, len(picture))] = picture[:frames]
    return whole
