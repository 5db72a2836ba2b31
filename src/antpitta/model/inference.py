"""Computing the scores of trained networks: the interface, and OpenVINO on a CPU.

By default a segment goes through the network as a whole ("full"): prediction uses framewise
probabilities only, and overlapping windows would do the same work twice. "sliding" is the exact
mode: the recipe's overlapping windows in float32, as training scores held-out recordings. It runs
in PyTorch (model/torch_inference.py), which is not imported here, because the base install has
OpenVINO only.

OpenVINO runs the networks that were exported with the model (model/export.py), in float32,
bfloat16 or int8, one segment per thread. The precision is float32 unless the caller names another
one. It is never chosen by a trial of speed, which would give one command two results.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openvino
from numpy.typing import NDArray

from antpitta.core.config import InferenceMode, Precision
from antpitta.core.errors import UserError

Floats = NDArray[np.float32]
FeatureArray = NDArray[Any]
PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's names
# entries of an exported network
STRIDE_INFO = ["antpitta", "stride"]  # frames per step
SEGMENT_INFO = ["antpitta", "segment"]  # frames of a whole segment
DIVISORS = (1, 2, 4, 8, 16)  # of a whole segment: shorter ones are padded to one of these lengths
ALIGNMENT = 32  # frames: the stride of a usual backbone
MAX_STRIDE = 4096  # frames
HALF_EXPONENT = 0x7C00  # of a number in half precision that is infinite or none


@dataclass(frozen=True)
class InferenceConfig:
    """How to run a model: whole segments or sliding windows, precision, CPU cores."""

    mode: InferenceMode = "full"
    precision: Precision = "float32"
    workers: int = 1


@dataclass(frozen=True)
class ExportedShape:
    """What the networks of a model must fit: frames of a whole segment, bands and classes."""

    frames: int
    bands: int
    classes: int


class InferenceBackend(Protocol):
    """The networks of one model, ready to score segments; threads may share one."""

    uses_own_threads: bool  # it computes in threads of its own, as many as it was given

    @property
    def frames_per_row(self) -> int:
        """Frames per row of the scores."""

    def predict(self, features: FeatureArray) -> list[Floats]:
        """Score a segment.

        Parameters
        ----------
        features : (frames, width)

        Returns
        -------
        Framewise probabilities (rows, classes) of each network.
        """

    def session(self) -> AbstractContextManager[None]:
        """Context in which several threads call :meth:`predict`; each computes by itself."""


class OpenVinoBackend:
    """Exported networks on a CPU.

    A segment is padded with silence to one of a few lengths, each of which is compiled when it is
    first used. The length of whole segments is compiled at the start of a session, while the first
    sound is read.

    Parameters
    ----------
    model : the exported networks, or their file
    precision : "float32" or "bfloat16"
    networks : how many networks the model holds
    threads : CPU threads
    expected : what a file must fit

    Raises
    ------
    UserError
        E_MODEL_DAMAGED for a file that holds no such networks. Later it is raised where a network
        cannot be computed or gives values that are not numbers.
    """

    uses_own_threads = True

    def __init__(
        self,
        model: Path | openvino.Model,
        precision: str,
        networks: int,
        threads: int,
        expected: ExportedShape | None = None,
    ) -> None:
        # OpenVINO's binding of numpy initializes itself when it is first used. Two threads that
        # use it first at the same time would wait for each other forever.
        _ = openvino.Tensor(np.zeros((1, 1), dtype=np.uint8)).data
        self._core = openvino.Core()
        self._file = model if isinstance(model, Path) else Path("the exported network")
        self._model = _read_network(self._core, model) if isinstance(model, Path) else model
        if expected is not None:
            _check_network(self._model, self._file, networks, expected)
        self.frames_per_row, self._segment_frames = _read_info(self._model, self._file)
        self.networks = networks
        self._settings = {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "ENABLE_CPU_PINNING": False,
        }
        self._bands = self._model.input(0).partial_shape[2].get_length()
        self._compiled: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._per_thread = threading.local()

    def predict(self, features: FeatureArray) -> list[Floats]:
        """Score a segment (frames, bands): probabilities (rows, classes) of each network."""
        request = self._request(
            padded_length(len(features), self._segment_frames, self.frames_per_row)
        )
        padded = request.get_input_tensor(0).data
        padded[0, : len(features)] = features
        padded[0, len(features) :] = 0
        try:
            request.infer()
        except RuntimeError as error:
            raise _broken_network(self._file, error) from None
        rows = -(-len(features) // self.frames_per_row)
        logits = request.get_output_tensor(0).data[0, :rows]
        if len(logits) != rows or logits.shape[1] % self.networks or not np.isfinite(logits).all():
            raise _broken_network(self._file, f"logits {logits.shape} that are not all numbers")
        return np.split(_sigmoid(logits), self.networks, axis=1)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Compile for whole segments in the background; each stream has one thread."""
        frames = padded_length(self._segment_frames, self._segment_frames, self.frames_per_row)
        compiling = threading.Thread(target=self._compile_ahead, args=(frames,))
        compiling.start()
        try:
            yield
        finally:
            compiling.join()

    def _request(self, frames: int) -> Any:
        """Return this thread's own request for segments of a length."""
        requests: dict[int, Any] = self._per_thread.__dict__.setdefault("requests", {})
        if frames not in requests:
            requests[frames] = self._compile(frames).create_infer_request()
        return requests[frames]

    def _compile_ahead(self, frames: int) -> None:
        """Compile for a length; an error is raised again where the length is needed."""
        with suppress(UserError):
            self._compile(frames)

    def _compile(self, frames: int) -> Any:
        """Return the network compiled for a length; a second thread waits for the first."""
        with self._lock:
            if frames not in self._compiled:
                model = self._model.clone()
                try:
                    model.reshape([1, frames, self._bands])
                    self._compiled[frames] = self._core.compile_model(model, "CPU", self._settings)
                except RuntimeError as error:
                    raise _broken_network(self._file, error) from None
            return self._compiled[frames]


def _read_network(core: openvino.Core, file: Path) -> openvino.Model:
    """Read the two files of a network."""
    try:
        return core.read_model(file, file.with_suffix(".bin"))
    except (OSError, RuntimeError) as error:
        raise _broken_network(file, error) from None


def _read_info(model: openvino.Model, file: Path) -> tuple[int, int]:
    """Frames per step, and frames of a whole segment, that the export wrote into a network."""
    try:
        values = [model.get_rt_info(entry).astype(int) for entry in (STRIDE_INFO, SEGMENT_INFO)]
        stride, frames = (int(value) for value in values)
    except (RuntimeError, TypeError, ValueError) as error:
        raise _broken_network(file, error) from None
    if not 1 <= stride <= MAX_STRIDE or frames < 1:
        raise _broken_network(file, f"a stride of {stride} and segments of {frames} frames")
    return stride, frames


def _check_network(
    model: openvino.Model, file: Path, networks: int, expected: ExportedShape
) -> None:
    """Check the input, the output, the segment and the constants of a network from a file."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise _broken_network(file, f"{len(model.inputs)} inputs, {len(model.outputs)} outputs")
    frames = _read_info(model, file)[1]
    if frames != expected.frames:
        raise _broken_network(file, f"segments of {frames} frames, not {expected.frames}")
    source, result = model.input(0), model.output(0)
    width = networks * expected.classes
    for shape, size, name in (
        (source.partial_shape, expected.bands, "bands"),
        (result.partial_shape, width, "networks x classes"),
    ):
        last = shape[2] if shape.rank.is_static and shape.rank.get_length() == 3 else None
        if last is None or last.is_dynamic or last.get_length() != size:
            raise _broken_network(file, f"{shape}, not {size} {name}")
    types = (source.element_type.get_type_name(), result.element_type.get_type_name())
    if types != ("u8", "f32"):
        raise _broken_network(file, f"from {types[0]} to {types[1]}")
    if any(_has_no_number(op) for op in model.get_ops() if op.get_type_name() == "Constant"):
        raise _broken_network(file, "weights that are not all numbers")


def _has_no_number(constant: Any) -> bool:
    """Whether a constant holds an infinite value or none."""
    kind = constant.get_element_type().get_type_name()
    if kind == "f16":  # twenty times as fast as isfinite
        half = np.ascontiguousarray(constant.data).view(np.uint16)
        return bool(((half & HALF_EXPONENT) == HALF_EXPONENT).any())
    return kind in ("f32", "f64") and not np.isfinite(constant.data).all()


def _broken_network(file: Path, reason: object) -> UserError:
    return UserError(
        "E_MODEL_DAMAGED",
        f"{file}: the network cannot be used ({' '.join(str(reason).split())[:200]})",
        "copy the model again, or train it again",
    )


def padded_length(frames: int, segment_frames: int, stride: int) -> int:
    """Return the length to which a segment is padded with silence, in frames.

    Backbones that pad as TensorFlow does shift their steps by the remainder of the length at each
    halving. Training windows have no remainder, so padded segments have none either.

    Parameters
    ----------
    frames : of the segment
    segment_frames : frames of the recipe's segments; shorter ones go to one of a few lengths
    stride : frames per step

    Returns
    -------
    A multiple of the stride, in frames.

    Examples
    --------
    >>> padded_length(1876, 1876, 8), padded_length(1000, 1876, 8), padded_length(30, 1876, 8)
    (1888, 1888, 128)
    """
    step = math.lcm(stride, ALIGNMENT)
    lengths = [-(-segment_frames // (divisor * step)) * step for divisor in DIVISORS]
    fitting = [length for length in lengths if length >= frames]
    return min(fitting, default=-(-frames // step) * step)


def _sigmoid(logits: Floats) -> Floats:
    probabilities: Floats = 1 / (1 + np.exp(-logits.clip(-80, 80)))
    return probabilities
