"""Networks in files that somebody brings, ready to be asked: TFLite and ONNX.

TFLite files are run by LiteRT (the extra ``embedding``; OpenVINO cannot read those that hold an
FFT, as BirdNET does), ONNX files by OpenVINO, which is here anyway. Either runs one stretch at a
time: many files have a batch of one, and on a CPU a larger one gains nothing. What is asked for
may be any tensor inside the network. Arithmetic is float32, so that a cached vector equals one
drawn again.

A trained network that somebody brings, asked for its vectors of a recording.

What is asked for may be any tensor inside the network (networks.py), because many networks end in
their own species (which are worth having where they are ours too); where it is a map, the bands
apart that a network's last layers give up, its time becomes the frames'.

A network that was opened is for one thread; :class:`EmbeddingModel` keeps one for each that comes.
"""

import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig

Wave = NDArray[np.float32]
RunModel = Callable[
    [Wave], list[NDArray[np.float32]]
]  # (samples,) to the tensors asked for, any shape
_opening = threading.Lock()  # warnings are silenced for the whole process, so one at a time


def open_embedding_model(
    path: Path, samples: int, outputs: tuple[str | None, ...], threads: int
) -> RunModel:
    """A network that takes ``samples`` of sound, to be asked for its ``outputs`` by one thread.

    None is its first output. Raises UserError for a file that is no such network, one that
    takes another length of sound, or a tensor that it does not have.
    """
    kinds: dict[str, Callable[[Path, int, tuple[str | None, ...], int], RunModel]] = {
        ".tflite": _open_tflite,
        ".onnx": _open_onnx,
    }
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise UserError("E_TODO", f"{path}: is neither .tflite nor .onnx", "give one of these")
    with _opening:
        return kind(path, samples, outputs, threads)


def _open_tflite(
    path: Path, samples: int, outputs: tuple[str | None, ...], threads: int
) -> RunModel:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError(
            "E_TODO",
            f"{path}: a .tflite file needs the package ai-edge-litert",
            "pip install 'antpitta[embedding]'",
        ) from None

    def open_net(inner: bool) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that keeping all tensors is an experiment
            return Interpreter(
                str(path), num_threads=threads, experimental_preserve_all_tensors=inner
            )

    try:
        net = open_net(inner=False)
        ends = {None, *(end["name"] for end in net.get_output_details())}
        if set(outputs) - ends:
            net = open_net(inner=True)  # else tensors inside are lost; keeping them costs time
        _feed_tflite(net, path, samples)
    except (ValueError, RuntimeError) as error:
        raise _no_network(path, error) from None
    first = net.get_output_details()[0]["name"]
    told = [*net.get_tensor_details(), *net.get_output_details()]
    every = {one["name"]: one["index"] for one in told}
    places = [every[_choose(path, name, first, every)] for name in outputs]
    taken = net.get_input_details()[0]

    def ask(wave: Wave) -> list[NDArray[np.float32]]:
        net.set_tensor(taken["index"], wave.reshape(taken["shape"]))
        net.invoke()
        return [net.get_tensor(place) for place in places]

    return ask


def _feed_tflite(net: Any, path: Path, samples: int) -> None:
    (*others, taken) = net.get_input_details()
    signature = taken.get("shape_signature", taken["shape"])
    shape = [None if size < 0 else int(size) for size in signature]
    fitting = _fit(path, shape, samples, len(others) + 1, str(np.dtype(taken["dtype"])))
    if fitting != tuple(taken["shape"]):
        net.resize_tensor_input(taken["index"], fitting)
    net.allocate_tensors()


def _open_onnx(path: Path, samples: int, outputs: tuple[str | None, ...], threads: int) -> RunModel:
    core = openvino.Core()
    try:
        model = core.read_model(path)
        taken, ending = model.inputs[0], model.outputs[0]
    except (RuntimeError, IndexError) as error:
        raise _no_network(path, error) from None
    rank = taken.partial_shape.rank
    dims = [] if rank.is_dynamic else list(taken.partial_shape)
    shape = [None if size.is_dynamic else size.get_length() for size in dims]
    kind = taken.element_type.get_type_name().replace("f32", "float32")
    fitting = _fit(path, shape, samples, len(model.inputs), kind)
    first = next(iter(sorted(ending.names)), "")
    places = [_place_onnx(path, model, name, first) for name in outputs]
    try:
        model.reshape({taken: fitting})
        asked = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
            },
        ).create_infer_request()
    except RuntimeError as error:
        raise _no_network(path, error) from None

    def ask(wave: Wave) -> list[NDArray[np.float32]]:
        asked.infer([wave.reshape(fitting)])
        return [asked.get_output_tensor(place).data.copy() for place in places]

    return ask


def _place_onnx(path: Path, model: Any, output: str | None, first: str) -> int:
    if output is None:
        return 0
    every = (end for one in model.get_ops() for end in one.outputs())
    _choose(path, output, first, [name for end in every for name in end.get_names()])
    model.add_outputs(output)  # which a tensor inside the network is not yet
    return next(i for i, end in enumerate(model.outputs) if output in end.get_names())


def _fit(
    path: Path, shape: Sequence[int | None], samples: int, inputs: int, kind: str
) -> tuple[int, ...]:
    """The shape in which one stretch goes in; None is a size that the network leaves open."""
    told = " x ".join("any" if size is None else str(size) for size in shape) or "of any shape"
    places = [i for i, size in enumerate(shape) if size == samples]
    if not places and shape and shape[-1] is None:
        places = [len(shape) - 1]
    rest = [size for i, size in enumerate(shape) if i != (places or [-1])[-1]]
    if inputs != 1 or kind != "float32" or not places or any(n not in (1, None) for n in rest):
        more = "" if inputs == 1 else f" and {inputs - 1} more"
        raise UserError(
            "E_TODO",
            f"{path}: takes {told} {kind}{more}, not {samples} float32 samples of sound",
            "set embedding.sample_rate and embedding.seconds to what it takes",
        )
    return tuple(samples if i == places[-1] else 1 for i in range(len(shape)))


def _choose(path: Path, output: str | None, first: str, names: Iterable[str]) -> str:
    known = [name for name in names if name]
    if output is None or output in known:
        return output or first
    near = get_close_matches(output, known, n=4, cutoff=0.3)
    raise UserError(
        "E_TODO",
        f"{path}: has no tensor {output!r}",
        f"set embedding.output to one of its own, such as {', '.join(dict.fromkeys([*near, first]))}",
    )


def _no_network(path: Path, error: Exception) -> UserError:
    said = " ".join(str(error).split())[:200]
    return UserError(
        "E_TODO", f"{path}: is no network that can be run ({said})", "give another file"
    )


class NoEmbeddingError(UserError):
    """The network gave something that is no number."""


class EmbeddingModel:
    """Waves of an image to its vectors; may be called from several threads.

    Raises UserError for a file that is no such network, one that takes another length of
    sound, a tensor that it does not have, or one that is no vector.
    """

    def __init__(self, embedding: EmbeddingConfig, path: Path, threads: int = 1) -> None:
        self.embedding = embedding
        self.path = path
        self.threads = threads
        self.samples = round(embedding.seconds * embedding.sample_rate)
        self._own = threading.local()
        noise = np.random.default_rng(0).random(self.samples, dtype=np.float32)
        self.width = sum(cells.shape[1] for cells in self._hear(noise))

    def embed(self, wave: Wave, frames: int) -> NDArray[np.float16]:
        """The vectors (frames, width) of an image; only a short one is filled up with silence.

        Frames near an end whose stretch is moved back inside share one vector, if a vector has no
        time. What is no number, or none of half precision, comes as it is, infinite or NaN.
        """
        edges = np.arange(frames + 1) * (len(wave) / frames)
        wave = np.pad(wave, (0, max(0, self.samples - len(wave))))
        first = np.arange(0, frames, self.embedding.frames_per_window)
        middle = (edges[first] + edges[[*first[1:], frames]]) / 2
        start = np.rint(middle - self.samples / 2).astype(np.int64)
        start = start.clip(0, len(wave) - self.samples)
        distinct, which = np.unique(start, return_inverse=True)
        found = [self._hear(wave[at : at + self.samples]) for at in distinct]
        run = which.repeat(self.embedding.frames_per_window)[:frames]
        spans = np.stack([edges[:-1], edges[1:]], axis=1) - distinct[run, None]
        vectors = [
            np.concatenate([_mean(cells, span / self.samples) for cells in found[i]])
            for i, span in zip(run, spans, strict=True)
        ]
        with np.errstate(over="ignore"):
            half: NDArray[np.float16] = np.stack(vectors).astype(np.float16)
        return half

    def _hear(self, wave: Wave) -> list[NDArray[np.float32]]:
        """What the network gives of a stretch: each tensor as (cells, width)."""
        names, tensors = self.embedding.outputs, self._ask(wave)
        cells = [self._cells(*one) for one in zip(names, tensors, strict=False)]
        if (
            known := self.embedding.class_map
        ) is not None:  # their tensor is the last one asked for
            cells.append(self._logits(tensors[-1], known))
        return cells

    def _logits(
        self, tensor: NDArray[np.float32], known: tuple[tuple[int, ...], ...]
    ) -> NDArray[np.float32]:
        """The network's own logit of each species, the highest of its classes: (1, species)."""
        if tensor.size != self.embedding.n_model_classes:
            raise UserError(
                "E_TODO",
                f"{self.path}: its first output is of the shape {tensor.shape}, and the labels name {self.embedding.n_model_classes} classes",
                "give its own labels as embedding.labels, or null",
            )
        logits = tensor.reshape(-1)
        own = [max((logits[place] for place in places), default=0.0) for places in known]
        return np.array([own], dtype=np.float32)

    def _cells(self, name: str | None, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        axis, shape = self.embedding.time_axis, tensor.shape
        if sum(size != 1 for size in shape) == 1:  # a vector is one cell, whatever its axes
            return tensor.reshape(1, -1)
        said = f"{self.path}: its output {name or 'the first'} is of the shape"
        if axis is None:
            raise UserError(
                "E_TODO",
                f"{said} {shape}, no vector",
                "name another tensor as embedding.output, or the axis along which its time goes as embedding.time_axis",
            )
        if axis >= tensor.ndim or shape[0] != 1:
            raise UserError(
                "E_TODO",
                f"{said} {shape}, not one stretch with an axis {axis} for time",
                "set another embedding.time_axis or embedding.output",
            )
        cells: NDArray[np.float32] = np.moveaxis(tensor, axis, 0).reshape(shape[axis], -1)
        return cells

    def _ask(self, wave: Wave) -> list[NDArray[np.float32]]:
        ask: RunModel | None = getattr(self._own, "ask", None)
        if ask is None:
            own = () if self.embedding.class_map is None else (None,)
            outputs = (*self.embedding.outputs, *own)
            ask = self._own.ask = open_embedding_model(
                self.path, self.samples, outputs, self.threads
            )
        return ask(wave)


def _mean(cells: NDArray[np.float32], span: NDArray[np.float64]) -> NDArray[np.float32]:
    """The mean over a span (start, stop), in shares of the stretch that the cells part evenly."""
    share = np.diff((np.arange(len(cells) + 1) / len(cells)).clip(*span))
    if len(cells) == 1 or not share.any():  # a vector, or a recording of no length
        mean: NDArray[np.float32] = cells[0]
    else:
        mean = share @ cells / share.sum()
    return mean
