"""Exporting trained networks to OpenVINO, in float and in int8.

All folds of a model become one exported network whose framewise logits lie side by side, so a
frozen backbone is run once for all of them. Weights are saved in half precision, which halves the
file; what that and int8 cost in accuracy is measured on the training recordings
(train/export.py).

For int8 the ranges of all activations are measured on features that the model was trained on. The
last multiplication, which gives the class logits, stays in float: scores are ranked, and 256
steps are too few for that.
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


class _FramewiseNet(nn.Module):
    """Pixels (1, frames, bands) to framewise logits (1, steps, nets x classes)."""

    def __init__(self, nets: Sequence[SedNet]) -> None:
        super().__init__()
        shared = share_backbone(list(nets))
        parts: list[SedNet | MultiHeadNet] = [MultiHeadNet(list(nets))] if shared else [*nets]
        self.parts = nn.ModuleList(parts)

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([cast(SedNet, net)(pixels).framewise for net in self.parts], dim=-1)


def to_openvino(
    nets: Sequence[SedNet], bands: int, frames: int, *, exact_edges: bool = True
) -> openvino.Model:
    """Export the folds of a model as one network.

    Parameters
    ----------
    nets : trained networks
    bands : mel bands
    frames : of a whole segment
    exact_edges : see :func:`~antpitta.model.fusion.with_grey_stem`. Set it to False for int8:
        what it changes is a tenth of what int8 changes, and the first layer takes half the time.

    Returns
    -------
    A network from bytes (1, frames, bands) to framewise logits (1, steps, nets x classes).
    """
    length = padded_length(frames, frames, nets[0].stride)
    grey_nets = [
        with_grey_stem(net.cpu().eval(), length, bands, exact_edges=exact_edges) for net in nets
    ]
    framewise = _FramewiseNet(grey_nets).eval()
    example = torch.zeros(1, length, bands, dtype=torch.uint8)
    example[:, ::3] = 128  # frames of nothing but 0 would be padding
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # about values that become constants, which is intended
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            framewise, example, check_trace=False
        )
        # not openvino.convert_model, which does the same and then sends usage statistics
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced)  # must live until everything is converted
        model = frontend.convert(frontend.load(decoder))
    source = model.inputs[0].get_node()
    source.set_element_type(openvino.Type.u8)
    source.set_partial_shape(openvino.PartialShape([1, -1, bands]))
    model.validate_nodes_and_infer_types()
    _merge_padding(model)
    return _with_info(model, nets[0].stride, frames)


def to_int8(model: openvino.Model, features: Sequence[FeatureArray]) -> openvino.Model:
    """Quantize the convolutions of an exported network to int8.

    Parameters
    ----------
    model : from :func:`to_openvino`, best with ``exact_edges=False``; it is not changed
    features : segments (frames, bands) that the ranges of activations are measured on

    Returns
    -------
    The quantized network, with the same input and output.
    """
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars would mix with ours
        nncf = _import_nncf()
        stride, frames = (
            int(model.get_rt_info(entry).astype(int)) for entry in (STRIDE_INFO, SEGMENT_INFO)
        )
        length = padded_length(frames, frames, stride)
        inputs = [_pad(segment, length) for segment in features]
        fixed = model.clone()
        fixed.reshape(list(inputs[0].shape))
        quantized = nncf.quantize(
            fixed,
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            ignored_scope=nncf.IgnoredScope(types=["MatMul"], validate=False),
        )
    quantized.reshape([1, -1, inputs[0].shape[2]])
    return _with_info(quantized, stride, frames)


def _merge_padding(model: openvino.Model) -> None:
    """Make zero padding before a convolution part of the convolution.

    OpenVINO does so itself, but not where networks share their padded input; those convolutions
    would then be computed in float.
    """
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)
    for op in model.get_ordered_ops():
        pad = op.input_value(0).get_node() if op.get_type_name() == "Convolution" else None
        if pad is None or pad.get_type_name() != "Pad":
            continue
        begin, end, value = (pad.input_value(i).get_node() for i in (1, 2, 3))
        if any(node.get_type_name() != "Constant" for node in (begin, end, value)):
            continue
        sizes = np.concatenate([begin.data, end.data])
        attributes = op.get_attributes()
        constant = pad.get_attributes()["pad_mode"] == "constant"
        if not constant or attributes["auto_pad"] != "explicit" or value.data.any():
            continue
        if sizes.min() < 0 or sizes.reshape(2, -1)[:, :2].any():  # it crops, or pads channels
            continue
        convolution = ops.convolution(
            pad.input_value(0),
            op.input_value(1),
            attributes["strides"],
            list(attributes["pads_begin"] + begin.data[2:]),
            list(attributes["pads_end"] + end.data[2:]),
            attributes["dilations"],
        )
        convolution.set_friendly_name(op.get_friendly_name())
        op.output(0).replace(convolution.output(0))


def _import_nncf() -> Any:
    """Import the quantizer without its usage statistics."""
    with patch.dict(os.environ, {"NNCF_CI": "1"}):
        return import_module("nncf")  # takes seconds, and only training needs it


def _with_info(model: openvino.Model, stride: int, frames: int) -> openvino.Model:
    """Write what :class:`~antpitta.model.inference.OpenVinoBackend` needs into the model."""
    model.set_rt_info(stride, STRIDE_INFO)
    model.set_rt_info(frames, SEGMENT_INFO)
    return model


def _pad(segment: FeatureArray, frames: int) -> NDArray[np.uint8]:
    """Pad a segment with silence, or cut it: (1, frames, bands)."""
    padded = np.zeros((1, frames, segment.shape[1]), dtype=np.uint8)
    padded[0, : min(frames, len(segment))] = segment[:frames]
    return padded
