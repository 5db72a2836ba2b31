"""Embedding models that the user brings: TFLite and ONNX files, from sound to vectors.

TFLite files run in LiteRT (the extra ``embedding``; OpenVINO cannot read those with an FFT, such
as BirdNET), ONNX files in OpenVINO. Either runs one input window at a time: many files have a
fixed batch size of 1, and on a CPU a larger one is no faster. Arithmetic is float32, so that a
cached vector equals one that is computed again. Of an ONNX file only the part in front of the
selected tensors is kept: of Perch 2.0, nine tenths of the file are its classifier.

Any tensor inside the model can be its embedding, because many models end in their own species.
Where the tensor is a feature map with a time axis, each frame takes the mean over its own time.

An opened session runs one window at a time. :class:`EmbeddingModel` keeps the idle ones, because
to open one takes as long as to embed ten seconds of sound, and a recording may have a new thread.
"""

import os
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

Wave = NDArray[np.float32]  # (samples,)
Floats = NDArray[np.float32]
RunModel = Callable[[Wave], list[Floats]]  # one input window to the selected tensors
QUIETEST = 1e-6  # peak of a window, -120 dB; below it, it is silence and not scaled
_open_lock = threading.Lock()  # warnings are silenced for the whole process, so one at a time


def open_embedding_model(
    path: Path, samples: int, outputs: tuple[str | None, ...], threads: int
) -> Callable[[], RunModel]:
    """Open a model file.

    Parameters
    ----------
    path : a .tflite or .onnx file
    samples : length of the input window
    outputs : names of the tensors to return; None is the model's first output
    threads : CPU threads of a session

    Returns
    -------
    A function that opens a session, which may raise the errors below, too. A session is a function
    from one input window (samples,) to the tensors, in the order of ``outputs``.

    Raises
    ------
    UserError
        E_EMBEDDING_FILE for a file that is no such model, E_EMBEDDING_RUNTIME without LiteRT,
        E_EMBEDDING_INPUT for a model with another input, E_EMBEDDING_OUTPUT for a tensor that the
        model does not have.
    """
    openers = {".tflite": _open_tflite, ".onnx": _open_onnx}
    opener = openers.get(path.suffix.lower())
    if opener is None:
        raise UserError(
            "E_EMBEDDING_FILE",
            f"embedding.model: {path} is neither a .tflite nor an .onnx file",
            "convert the model to one of the two formats",
        )
    return opener(path, samples, outputs, threads)


def _open_tflite(
    path: Path, samples: int, outputs: tuple[str | None, ...], threads: int
) -> Callable[[], RunModel]:
    def open_session() -> RunModel:
        with _open_lock:
            return _tflite_session(path, samples, outputs, threads)

    return open_session


def _tflite_session(
    path: Path, samples: int, outputs: tuple[str | None, ...], threads: int
) -> RunModel:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError(
            "E_EMBEDDING_RUNTIME",
            f"embedding.model: {path} needs the package ai-edge-litert",
            "run pip install 'antpitta[embedding]'",
        ) from None

    def load(*, keep_all: bool) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that keeping all tensors is experimental
            return Interpreter(
                str(path), num_threads=threads, experimental_preserve_all_tensors=keep_all
            )

    try:
        model = load(keep_all=False)
        ends = {None, *(tensor["name"] for tensor in model.get_output_details())}
        if set(outputs) - ends:
            model = load(keep_all=True)  # else inner tensors are lost; keeping them costs time
        _resize_tflite(model, path, samples)
    except (ValueError, RuntimeError) as error:
        raise _unreadable(path, error) from None
    first = model.get_output_details()[0]["name"]
    tensors = [*model.get_tensor_details(), *model.get_output_details()]
    index_of = {tensor["name"]: tensor["index"] for tensor in tensors}
    indices = [index_of[_check_tensor_name(path, name, first, index_of)] for name in outputs]
    source = model.get_input_details()[0]

    def run(wave: Wave) -> list[Floats]:
        model.set_tensor(source["index"], wave.reshape(source["shape"]))
        model.invoke()
        return [model.get_tensor(index) for index in indices]

    return run


def _resize_tflite(model: Any, path: Path, samples: int) -> None:
    """Fill in the sizes that the model leaves open."""
    (*others, source) = model.get_input_details()
    signature = source.get("shape_signature", source["shape"])
    shape = [None if size < 0 else int(size) for size in signature]
    fixed = _input_shape(path, shape, samples, len(others) + 1, str(np.dtype(source["dtype"])))
    if fixed != tuple(source["shape"]):
        model.resize_tensor_input(source["index"], fixed)
    model.allocate_tensors()


def _open_onnx(
    path: Path, samples: int, outputs: tuple[str | None, ...], threads: int
) -> Callable[[], RunModel]:
    core = openvino.Core()
    try:
        model = core.read_model(path)
        source, first_output = model.inputs[0], model.outputs[0]
    except (RuntimeError, IndexError) as error:
        raise _unreadable(path, error) from None
    rank = source.partial_shape.rank
    sizes = [] if rank.is_dynamic else list(source.partial_shape)
    shape = [None if size.is_dynamic else size.get_length() for size in sizes]
    dtype = source.element_type.get_type_name().replace("f32", "float32")
    fixed = _input_shape(path, shape, samples, len(model.inputs), dtype)
    first = next(iter(sorted(first_output.names)), "")
    tensors = [_onnx_tensor(path, model, name, first) for name in outputs]
    sessions = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": sessions or 1,  # sessions that compute at the same time
        "INFERENCE_NUM_THREADS": threads * (sessions or 1),
    }
    try:
        model.reshape({source: fixed})
        used = openvino.Model(tensors, model.get_parameters(), "embedding")
        compiled = core.compile_model(used, "CPU", settings)
    except RuntimeError as error:
        raise _unreadable(path, error) from None

    def open_session() -> RunModel:
        request = compiled.create_infer_request()

        def run(wave: Wave) -> list[Floats]:
            request.infer([wave.reshape(fixed)])
            return [request.get_output_tensor(i).data.copy() for i in range(len(tensors))]

        return run

    return open_session


def _onnx_tensor(path: Path, model: Any, name: str | None, first: str) -> Any:
    """Return a tensor of the graph by its name."""
    if name is None:
        return model.outputs[0].get_node().input_value(0)
    tensors = {
        tensor_name: tensor
        for op in model.get_ops()
        if op.get_type_name() != "Result"
        for tensor in op.outputs()
        for tensor_name in tensor.get_names()
    }
    return tensors[_check_tensor_name(path, name, first, tensors)]


def _input_shape(
    path: Path, shape: Sequence[int | None], samples: int, inputs: int, dtype: str
) -> tuple[int, ...]:
    """Return the input's shape for one window; None is a size that the model leaves open."""
    axes = [axis for axis, size in enumerate(shape) if size == samples]
    if not axes and shape and shape[-1] is None:
        axes = [len(shape) - 1]
    others = [size for axis, size in enumerate(shape) if axis != (axes or [-1])[-1]]
    if inputs != 1 or dtype != "float32" or not axes or any(n not in (1, None) for n in others):
        sizes = " x ".join("any" if size is None else str(size) for size in shape) or "any shape"
        more = "" if inputs == 1 else f" and {inputs - 1} other inputs"
        raise UserError(
            "E_EMBEDDING_INPUT",
            f"embedding.model: {path} takes {sizes} {dtype}{more}, not {samples} float32 samples",
            "set embedding.sample_rate and embedding.seconds to the model's input",
        )
    return tuple(samples if axis == axes[-1] else 1 for axis in range(len(shape)))


def _check_tensor_name(path: Path, name: str | None, first: str, names: Iterable[str]) -> str:
    """Return ``name`` if the model has such a tensor, and ``first`` for None."""
    known = [tensor for tensor in names if tensor]
    if name is None or name in known:
        return name or first
    similar = dict.fromkeys([*get_close_matches(name, known, n=4, cutoff=0.3), first])
    raise UserError(
        "E_EMBEDDING_OUTPUT",
        f"embedding.output: {path} has no tensor {name!r}",
        f"set embedding.output to one of its tensors, such as {', '.join(similar)}",
    )


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        "E_EMBEDDING_FILE",
        f"embedding.model: {path} is not a model that can be run ({reason})",
        "give another file",
    )


class NoEmbeddingError(UserError):
    """The embedding model returned a value that is not finite."""


class EmbeddingModel:
    """A trained model that turns sound into vectors; threads may share one.

    Parameters
    ----------
    embedding : settings ``[embedding]`` of the recipe
    path : the model file
    threads : CPU threads of each session, of which there is one per calling thread

    Attributes
    ----------
    width : values per vector

    Raises
    ------
    UserError
        E_EMBEDDING_OUTPUT for a tensor that is no vector, E_EMBEDDING_CLASSES for labels that do
        not fit the model, and as :func:`open_embedding_model`.
    """

    def __init__(self, embedding: EmbeddingConfig, path: Path, threads: int = 1) -> None:
        self.embedding = embedding
        self.path = path
        self.samples = round(embedding.seconds * embedding.sample_rate)
        logits = () if embedding.class_map is None else (embedding.class_output,)
        outputs = (*embedding.outputs, *logits)
        self._open_session = open_embedding_model(path, self.samples, outputs, threads)
        self._idle: list[RunModel] = []  # sessions; a list is safe to share among threads
        noise = np.random.default_rng(0).random(self.samples, dtype=np.float32)
        self.width = sum(values.shape[1] for values in self._embed_window(noise))

    def embed(self, wave: Wave, frames: int) -> NDArray[np.float16]:
        """Compute the vectors of a segment.

        A frame's input window is centred on the frame and moved inside the segment at its ends, so
        frames near an end can share a window. A segment shorter than a window is padded with
        silence. Values beyond half precision become infinite.

        Parameters
        ----------
        wave : (samples,), at ``embedding.sample_rate``
        frames : number of vectors

        Returns
        -------
        (frames, width)
        """
        edges = np.arange(frames + 1) * (len(wave) / frames)  # of the frames, in samples
        wave = np.pad(wave, (0, max(0, self.samples - len(wave))))
        first = np.arange(0, frames, self.embedding.frames_per_window)
        middle = (edges[first] + edges[[*first[1:], frames]]) / 2
        start = np.rint(middle - self.samples / 2).astype(np.int64)
        start = start.clip(0, len(wave) - self.samples)
        starts, index = np.unique(start, return_inverse=True)
        windows = [self._embed_window(wave[i : i + self.samples]) for i in starts]
        window_of = index.repeat(self.embedding.frames_per_window)[:frames]
        frame_spans = np.stack([edges[:-1], edges[1:]], axis=1) - starts[window_of, None]
        vectors = [
            np.concatenate([_mean_over(values, span / self.samples) for values in windows[i]])
            for i, span in zip(window_of, frame_spans, strict=True)
        ]
        with np.errstate(over="ignore"):
            half: NDArray[np.float16] = np.stack(vectors).astype(np.float16)
        return half

    def _embed_window(self, wave: Wave) -> list[Floats]:
        """Run the model on one window: (time steps, width) of each tensor, its own logits last."""
        names, tensors = self.embedding.outputs, self._run(wave)
        values = [self._by_time(*pair) for pair in zip(names, tensors, strict=False)]
        if self.embedding.class_map is not None:  # the classes are then the last tensor
            values.append(self._class_logits(tensors[-1], self.embedding.class_map))
        return values

    def _class_logits(self, tensor: Floats, class_map: tuple[tuple[int, ...], ...]) -> Floats:
        """Return the model's own logit of each species, its highest class: (1, species)."""
        if tensor.size != self.embedding.n_model_classes:
            raise UserError(
                "E_EMBEDDING_CLASSES",
                f"embedding.labels: {self.path} has classes of shape {tensor.shape}, but"
                f" its labels name {self.embedding.n_model_classes} classes",
                "give the model's own labels, or set embedding.labels to null",
            )
        logits = tensor.reshape(-1)
        species = [max((logits[i] for i in indices), default=0.0) for indices in class_map]
        return np.array([species], dtype=np.float32)

    def _by_time(self, name: str | None, tensor: Floats) -> Floats:
        """Return a tensor as (time steps, width); a vector has one time step."""
        axis, shape = self.embedding.time_axis, tensor.shape
        if sum(size != 1 for size in shape) == 1:
            return tensor.reshape(1, -1)
        what = f"embedding.output: {name or 'the first output'} of {self.path} has shape {shape}"
        if axis is None:
            raise UserError(
                "E_EMBEDDING_OUTPUT",
                f"{what}, which is no vector",
                "set embedding.output to another tensor, or embedding.time_axis to its time axis",
            )
        if axis >= tensor.ndim or shape[0] != 1:
            raise UserError(
                "E_EMBEDDING_OUTPUT",
                f"{what}, which is not one window with time along axis {axis}",
                "set another embedding.time_axis or embedding.output",
            )
        by_time: Floats = np.moveaxis(tensor, axis, 0).reshape(shape[axis], -1)
        return by_time

    def _run(self, wave: Wave) -> list[Floats]:
        """Run an idle session, or a new one."""
        try:
            run = self._idle.pop()
        except IndexError:
            run = self._open_session()
        try:
            return run(_scale(wave, self.embedding.peak))
        finally:
            self._idle.append(run)


def _scale(wave: Wave, peak: float | None) -> Wave:
    """Remove the mean of a window and scale it to a peak; None leaves it as it is."""
    if peak is None:
        return wave
    centred = wave - wave.mean(dtype=np.float64).astype(np.float32)
    loudest = np.abs(centred).max()
    scaled: Wave = centred * np.float32(peak / loudest) if loudest > QUIETEST else centred
    return scaled


def _mean_over(values: Floats, span: NDArray[np.float64]) -> Floats:
    """Average time steps (steps, width) over a span (start, stop), in shares of the window."""
    share = np.diff((np.arange(len(values) + 1) / len(values)).clip(*span))
    if len(values) == 1 or not share.any():  # a vector, or a recording of no length
        mean: Floats = values[0]
    else:
        mean = share @ values / share.sum()
    return mean
