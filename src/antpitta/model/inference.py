"""What does the arithmetic of trained networks: PyTorch, or OpenVINO on a CPU.

An image goes through the network as a whole: the prediction asks for framewise probabilities only,
and windows that overlap by half do the same work twice. ``windows`` is the exact mode: the
recipe's overlapping windows in float32, as training scores what it holds out.

OpenVINO takes what was exported with the model (model/export.py), in float32, in bfloat16 or in
int8, one image a thread. A processor may list bfloat16 and still be slower with it than with
float32 (matrix units are switched off on many virtual machines), so the faster is found by trial.
"""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as ops

from antpitta.core.config import InferenceMode, Precision

Floats = NDArray[np.float32]
OPENVINO_NAMES = {"float32": "f32", "bfloat16": "bf16"}  # of the precision hint
FeatureArray = NDArray[Any]
STRIDE = ["antpitta", "stride"]  # where an exported network says how many frames a step has,
WHOLE = ["antpitta", "whole"]  # and how many a whole image has
PARTS = (1, 2, 4, 8, 16)  # of a whole image: the lengths that shorter ones are filled up to
ALIGNED = 32  # frames; the coarsest step of a usual backbone


@dataclass(frozen=True)
class InferenceConfig:
    """How to listen: in what pieces, by what arithmetic, on how many cores."""

    mode: InferenceMode = "full"
    precision: Precision = "auto"
    workers: int = 1


class InferenceBackend(Protocol):
    """The networks of one model, ready to hear images; may be shared by threads.

    ``aside`` says that it computes in threads of its own, as many as it was given.
    """

    aside: bool

    @property
    def unit(self) -> int:
        """The frames of one row of what is heard."""

    def hear(self, seen: FeatureArray) -> list[Floats]:
        """Framewise probabilities of an image (frames, bands): (rows, classes) of each network."""

    def listening(self) -> AbstractContextManager[None]:
        """To be inside of while threads hear: each of them then computes by itself."""


class OpenVinoBackend:
    """An exported network on a CPU, or the file of one.

    An image is filled up with silence to one of a few lengths, each compiled when it is first met,
    but that of whole images when listening begins: the first sound is read then.
    """

    aside = True

    def __init__(
        self,
        model: Path | openvino.Model,
        precision: str,
        nets: int,
        threads: int,
    ) -> None:
        # Its binding of numpy sets itself up when it is first used, and two threads that use it
        # first at once wait for each other forever.
        _ = openvino.Tensor(np.zeros((1, 1), dtype=np.uint8)).data
        self._core = openvino.Core()
        self._model = self._core.read_model(model) if isinstance(model, Path) else model
        self.unit = int(self._model.get_rt_info(STRIDE).astype(int))
        self.nets = nets
        self._whole = int(self._model.get_rt_info(WHOLE).astype(int))
        self._settings = {
            "INFERENCE_PRECISION_HINT": OPENVINO_NAMES[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "ENABLE_CPU_PINNING": False,
        }
        self._bands = self._model.input(0).partial_shape[2].get_length()
        self._compiled: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._own = threading.local()

    def hear(self, seen: FeatureArray) -> list[Floats]:
        """Framewise probabilities of an image (frames, bands): (rows, classes) of each network."""
        frames = padded_length(len(seen), self._whole, self.unit)
        ask = self._request(frames)
        image = ask.get_input_tensor(0).data
        image[0, : len(seen)] = seen
        image[0, len(seen) :] = 0
        ask.infer()
        chances = _sigmoid(ask.get_output_tensor(0).data[0, : -(-len(seen) // self.unit)])
        return np.split(chances, self.nets, axis=1)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Compiles for whole images, beside those who already read; each stream has one thread."""
        whole = padded_length(self._whole, self._whole, self.unit)
        compiling = threading.Thread(target=self._network, args=(whole,))
        compiling.start()
        try:
            yield
        finally:
            compiling.join()

    def _request(self, frames: int) -> Any:
        """A thread's own request for images of a length."""
        asks: dict[int, Any] = self._own.__dict__.setdefault("asks", {})
        if frames not in asks:
            asks[frames] = self._network(frames).create_infer_request()
        return asks[frames]

    def _network(self, frames: int) -> Any:
        """The network for images of a length; who comes second waits for the first."""
        with self._lock:
            if frames not in self._compiled:
                model = self._model.clone()
                model.reshape([1, frames, self._bands])
                self._compiled[frames] = self._core.compile_model(model, "CPU", self._settings)
            return self._compiled[frames]


def padded_length(frames: int, whole: int, stride: int) -> int:
    """The length that an image is filled up to, with silence, when it is heard as a whole.

    ``whole`` are the frames of the recipe's images; shorter ones go to one of a few lengths.
    Backbones that pad as TensorFlow does shift their steps by the length's remainder at each
    halving; windows of training have none, so these have none either.

    >>> filled(1876, 1876, 8), filled(1000, 1876, 8), filled(30, 1876, 8)
    (1888, 1888, 128)
    """
    step = math.lcm(stride, ALIGNED)
    lengths = [-(-whole // (part * step)) * step for part in PARTS]
    return min((one for one in lengths if one >= frames), default=-(-frames // step) * step)


def _sigmoid(logits: Floats) -> Floats:
    chances: Floats = 1 / (1 + np.exp(-logits.clip(-80, 80)))
    return chances


@cache
def fastest_float(tries: int = 5) -> Precision:
    """Float32 or bfloat16, whichever this CPU convolves faster with, by trial."""
    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "float32"
    taken = ops.parameter([1, 64, 64, 64], np.float32)
    weights = np.full((64, 64, 3, 3), 0.01, dtype=np.float32)
    found = taken
    for _ in range(4):
        found = ops.relu(ops.convolution(found, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
    trial = openvino.Model([found], [taken], "trial")
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    asks = [
        core.compile_model(
            trial, "CPU", {**settings, "INFERENCE_PRECISION_HINT": OPENVINO_NAMES[kind]}
        ).create_infer_request()
        for kind in ("float32", "bfloat16")
    ]
    wave = [np.ones((1, 64, 64, 64), dtype=np.float32)]
    seconds = np.array([[_timed(ask, wave) for ask in asks] for _ in range(tries)])
    plain, half = seconds.min(axis=0)
    return "bfloat16" if half < plain else "float32"


def _timed(ask: Any, given: Sequence[Floats]) -> float:
    began = time.perf_counter()
    ask.infer(given)
    return time.perf_counter() - began
