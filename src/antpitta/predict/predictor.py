"""A trained model, or an ensemble of models, ready to compute scores of recordings.

- A recording is computed segment by segment, and threads may compute segments at the same time. A
  recording of a whole day then keeps all cores busy, as a thousand short files do.
- The models of an ensemble that share their feature settings share one feature extractor, so the
  features of a segment are computed once.
- OpenVINO computes on CPUs with the exported networks. PyTorch computes on GPUs, for
  ``--inference sliding``, and for models without exported networks. It takes over a second to
  load, so it is imported only where it is used.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ctypes import CDLL
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from antpitta.core.config import EMBEDDING_BACKBONE, Recipe, parse_recipe
from antpitta.core.errors import UserError, requires_train_extra
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Classes, Recording, Scores
from antpitta.files.bundle import Bundle
from antpitta.files.cache import cached_features
from antpitta.files.embedding_models import find_embedding_model
from antpitta.model.features import (
    FeatureArray,
    FeatureExtractor,
    ReadAudio,
    append_background,
    build_feature_extractor,
    stitch_segments,
)
from antpitta.model.inference import (
    ExportedShape,
    InferenceBackend,
    InferenceConfig,
    OpenVinoBackend,
)
from antpitta.predict.detection import DetectionConfig, configure_detection
from antpitta.predict.reading import TolerantReader

if TYPE_CHECKING:
    from antpitta.model.network import SedNet
    from antpitta.scores.ensemble.blend import Blend

Floats = NDArray[np.float32]
Bounds = tuple[float, float]  # start and stop of a segment, in seconds of the recording
FoldScores = list[list[Floats]]  # [segment][fold]: (rows, classes)

SHORT_STEPS = 2  # of a network: with one, the mean over time is the sound itself
NVIDIA_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")  # of the driver, on Linux and on Windows
AMD_DEVICE = Path("/dev/kfd")  # exists with AMD's driver; PyTorch brings the libraries itself
EXPORTED_KIND = {"float32": "float", "bfloat16": "float", "int8": "int8"}  # keys of Bundle.networks


@cache
def has_gpu() -> bool:
    """Whether PyTorch is installed and finds a GPU; it is imported only if there is a driver."""
    if not (AMD_DEVICE.exists() or any(_is_loadable(name) for name in NVIDIA_LIBRARIES)):
        return False
    try:
        import torch
    except ModuleNotFoundError:  # without the extra `train`, OpenVINO computes on the CPU
        return False
    return torch.cuda.is_available()


def _is_loadable(library: str) -> bool:
    try:
        CDLL(library)
    except OSError:
        return False
    return True


def open_backend(
    model: Bundle, recipe: Recipe, inference: InferenceConfig, width: int
) -> InferenceBackend:
    """Load the networks of one model into the backend that fits the machine and the options.

    Parameters
    ----------
    model : no ensemble
    recipe : of the model
    inference : mode, precision and number of threads
    width : features per frame

    Returns
    -------
    OpenVINO for exported networks on a CPU, else PyTorch.

    Raises
    ------
    UserError
        ``E_PRECISION_UNAVAILABLE`` if the model or the mode does not support the precision,
        ``E_NEEDS_TRAIN_EXTRA`` if PyTorch is needed and missing, ``E_MODEL_INCOMPATIBLE`` if the
        weights do not fit the network that this version builds.
    """
    sliding = inference.mode == "sliding"
    if sliding and inference.precision != "float32":
        raise UserError(
            "E_PRECISION_UNAVAILABLE",
            f"--precision {inference.precision}: --inference sliding computes in float32 only",
            "leave one of the two options out",
        )
    windowed = sliding or recipe.backbone.name == EMBEDDING_BACKBONE
    gpu = has_gpu()
    precision = inference.precision
    exported = None if windowed or gpu else model.networks.get(EXPORTED_KIND[precision])
    if exported is not None:
        kind = "float32" if precision == "int8" else precision
        frames = recipe.feature_config.n_frames(recipe.feature_config.segment)
        shape = ExportedShape(frames, width, len(model.species))
        networks = len(model.weights)
        return OpenVinoBackend(model.path / exported, kind, networks, inference.workers, shape)
    if precision == "int8" and not windowed:
        raise UserError(
            "E_PRECISION_UNAVAILABLE",
            f"--precision int8: {model.path} {_why_no_int8(model, gpu)}",
            "leave --precision int8 out",
        )
    task = "--inference sliding" if sliding else f"{model.path}: without exported networks it"
    with requires_train_extra(task):
        from antpitta.model.torch_inference import TorchBackend
    frames = recipe.feature_config.n_frames(recipe.feature_config.segment)
    nets = _build_networks(model, recipe, width)
    half = precision == "bfloat16"
    windowed = windowed or nets[0].needs_windows
    return TorchBackend(nets, frames, recipe.windows if windowed else None, half=half)


def _why_no_int8(model: Bundle, gpu: bool) -> str:
    if gpu:
        return "runs on the GPU of this machine, which has no int8"
    if not model.networks:
        return "holds no networks for OpenVINO"
    return "holds no int8 network, because int8 lost too much accuracy (see MODEL_CARD.md)"


def _build_networks(model: Bundle, recipe: Recipe, width: int) -> "list[SedNet]":
    from antpitta.model.torch_inference import build_nets

    try:
        return build_nets(recipe, model.states(), len(model.species), width)
    except RuntimeError:
        raise UserError(
            "E_MODEL_INCOMPATIBLE",
            f"{model.path}: the weights do not fit the network that this version builds",
            "train the model again, or install the version of antpitta that trained it",
        ) from None


@dataclass(frozen=True)
class ModelPredictor:
    """The networks of all folds of one model, with their feature extractor.

    Parameters
    ----------
    extractor : computes features of a segment
    backend : computes scores of the features
    classes : columns of the scores
    name : the source that the scores carry
    background_frames : the length to which short sounds are continued by their background; 0 for
        networks that subtract none
    """

    extractor: FeatureExtractor
    backend: InferenceBackend
    classes: Classes
    name: str
    background_frames: int = 0

    def predict(self, features: FeatureArray) -> list[Floats]:
        """Scores of a segment: (rows, classes) of each fold.

        A network that subtracts the mean over time as background would subtract a short sound from
        itself, and score nothing but silence. Its features are followed by an estimate of the
        background around it, up to ``background_frames``.
        """
        rows = -(-len(features) // self.backend.frames_per_row)
        long = len(features) > SHORT_STEPS * self.backend.frames_per_row
        if long or len(features) >= self.background_frames:
            return self.backend.predict(features)
        padded = append_background(features, self.background_frames)
        return [scores[:rows] for scores in self.backend.predict(padded)]

    def merge(
        self, recording: str, segments: FoldScores, bounds: Sequence[Bounds]
    ) -> tuple[Floats, Scores]:
        """Presence (classes,) and framewise scores of a recording from those of its segments.

        Presence is the mean over folds of the highest score of each fold.
        """
        folds = list(zip(*segments, strict=True))
        highest = [np.max([part.max(axis=0) for part in fold], axis=0) for fold in folds]
        means: list[Floats] = [np.mean(segment, axis=0) for segment in segments]
        grids = [self.extractor.config.time_grid(*bound) for bound in bounds]
        value, grid = stitch_segments(means, grids, self.backend.frames_per_row)
        presence = np.mean(highest, axis=0).astype(np.float32)
        return presence, Scores(recording, grid, self.classes, value, self.name)


def predict_segments(
    models: Sequence[ModelPredictor],
    recording: Recording,
    bounds: Sequence[Bounds],
    read: ReadAudio,
) -> list[FoldScores]:
    """Scores of some segments by models that share their feature extractor.

    Parameters
    ----------
    models : at least one
    recording : which one
    bounds : start and stop of each segment, in seconds
    read : returns a stretch of the sound

    Returns
    -------
    For each model, for each segment, for each fold: (rows, classes).
    """
    scores: list[FoldScores] = [[] for _ in models]
    for start, stop in bounds:
        features = models[0].extractor.extract_segment(recording, start, stop, read)
        for model, segments in zip(models, scores, strict=True):
            segments.append(model.predict(features))
    return scores


@dataclass(frozen=True)
class CachedFeatureExtractor(FeatureExtractor):
    """A feature extractor that keeps features on disk, in the cache that training uses.

    It serves embedding models, which take a hundred times longer than the head after them. The
    next round of training asks for the same embeddings.
    """

    current: Any = field(default_factory=threading.local)  # each thread's last recording

    def extract_segment(
        self, recording: Recording, start: float, stop: float, read: ReadAudio
    ) -> FeatureArray:
        """Features of one segment, cut from those of the whole recording."""
        segments = self.config.segments(recording.duration)
        if getattr(self.current, "path", None) != recording.path:
            self._load(recording, read)
        if isinstance(read, TolerantReader):
            read.notes.extend(note for note in self.current.notes if note not in read.notes)
        frames = [self.config.n_frames(high - low) for low, high in segments]
        first = sum(frames[: segments.index((start, stop))])
        return np.array(self.current.features[first : first + self.config.n_frames(stop - start)])

    def _load(self, recording: Recording, read: ReadAudio) -> None:
        """Take the features of a recording from the cache, with what is wrong with its sound."""
        plain = FeatureExtractor(self.config, self.width, self.compute)

        def compute(missing: Recording, notes: list[str]) -> FeatureArray:
            features = plain.extract_all(missing, read)
            notes += read.notes if isinstance(read, TolerantReader) else []
            return features

        notes: list[str] = []
        [features] = cached_features([recording], self.config.digest, compute, notes=notes)
        self.current.path, self.current.features = recording.path, features
        self.current.notes = notes


@dataclass(frozen=True)
class Segment:
    """What a thread computes at once: stretches of a recording, by models with equal features.

    Parameters
    ----------
    models : indices into ``Predictor.models``
    bounds : start and stop of each stretch, in seconds; more than one only where the features of
        the whole recording are cached
    """

    models: tuple[int, ...]
    bounds: tuple[Bounds, ...]


class Predictor:
    """All models of a bundle, loaded; scores carry the bundle's name as their source.

    Parameters
    ----------
    bundle : a model or an ensemble
    inference : mode, precision and number of threads
    detection : what counts as found, by default what the bundle says

    Raises
    ------
    UserError
        As :func:`open_backend`, and ``E_EMBEDDING_...`` if an embedding model cannot be loaded.
    """

    def __init__(
        self,
        bundle: Bundle,
        inference: InferenceConfig | None = None,
        detection: DetectionConfig | None = None,
    ) -> None:
        self.inference = inference or InferenceConfig()
        self.bundle = bundle
        self.detection = detection or configure_detection(bundle)
        self.classes = bundle.classes
        self.blend = _read_blend(bundle)
        extractors: dict[str, FeatureExtractor] = {}
        self.models: list[ModelPredictor] = []
        for part in bundle.parts() or [bundle]:
            recipe = parse_recipe(part.recipe, str(part.path))
            key = recipe.feature_config.digest
            if key not in extractors:
                extractors[key] = _build_extractor(recipe)
            backend = open_backend(part, recipe, self.inference, extractors[key].width)
            subtracts = recipe.head.background_subtraction != 0 and not recipe.embedding
            frames = recipe.windows.frames if subtracts else 0
            self.models.append(
                ModelPredictor(extractors[key], backend, part.classes, part.name, frames)
            )

    def segments(self, recording: Recording) -> list[Segment]:
        """The segments of a recording, which threads may compute at the same time."""
        segments = []
        for extractor in {id(model.extractor): model.extractor for model in self.models}.values():
            models = tuple(i for i, m in enumerate(self.models) if m.extractor is extractor)
            bounds = extractor.config.segments(recording.duration)
            if isinstance(extractor, CachedFeatureExtractor):  # it needs the whole recording
                segments.append(Segment(models, tuple(bounds)))
            else:
                segments += [Segment(models, (bound,)) for bound in bounds]
        return segments

    def predict(self, recording: Recording, segment: Segment, read: ReadAudio) -> list[FoldScores]:
        """Scores of one segment by each of its models."""
        models = [self.models[i] for i in segment.models]
        return predict_segments(models, recording, segment.bounds, read)

    @contextmanager
    def session(self) -> Iterator[None]:
        """While it is open, several threads may call :meth:`predict`."""
        with ExitStack() as stack:
            for model in self.models:
                stack.enter_context(model.backend.session())
            yield

    def merge(
        self, recording: Recording, segments: Sequence[Segment], scores: Sequence[list[FoldScores]]
    ) -> tuple[Floats, Scores]:
        """Put the scores of all segments of a recording together.

        Parameters
        ----------
        recording : which one
        segments : all of :meth:`segments`
        scores : what :meth:`predict` returned for each of them

        Returns
        -------
        presence : (classes,)
        scores : framewise; on the finest grid of all models of an ensemble
        """
        merged = [
            model.merge(recording.id, fold_scores, bounds)
            for model, fold_scores, bounds in self.by_model(segments, scores)
        ]
        grid = min((scores.grid for _, scores in merged), key=lambda grid: grid.hop)
        presence = self._blend([presence[None] for presence, _ in merged])[0]
        value = self._blend([_on_grid(scores, grid) for _, scores in merged])
        return presence, Scores(recording.id, grid, self.classes, value, self.bundle.name)

    def by_model(
        self, segments: Sequence[Segment], scores: Sequence[list[FoldScores]]
    ) -> Iterator[tuple[ModelPredictor, FoldScores, list[Bounds]]]:
        """Each model with its scores of all segments of a recording, and their bounds.

        Parameters
        ----------
        segments, scores : as for :meth:`merge`
        """
        parts: list[FoldScores] = [[] for _ in self.models]
        bounds: list[list[Bounds]] = [[] for _ in self.models]
        for segment, fold_scores in zip(segments, scores, strict=True):
            for i, own in zip(segment.models, fold_scores, strict=True):
                parts[i] += own
                bounds[i] += segment.bounds
        yield from zip(self.models, parts, bounds, strict=True)

    def _blend(self, values: list[Floats]) -> Floats:
        """Blend the arrays (rows, classes) of all models; the only one of a single model."""
        if self.blend is None:
            return values[0]
        from antpitta.scores.ensemble.members import Member

        named = zip(self.bundle.members, values, strict=True)
        members = [Member(name, value) for name, value in named]
        return self.blend.apply(members).astype(np.float32)


def _build_extractor(recipe: Recipe) -> FeatureExtractor:
    if not recipe.embedding:
        return build_feature_extractor(recipe, None)
    plain = build_feature_extractor(recipe, find_embedding_model(recipe.embedding))
    return CachedFeatureExtractor(plain.config, plain.width, plain.compute)


def _read_blend(bundle: Bundle) -> "Blend | None":
    if not bundle.members:
        return None
    from antpitta.scores.ensemble.blend import Blend

    return Blend.from_json(bundle.blend)


def _on_grid(scores: Scores, grid: TimeGrid) -> Floats:
    """Scores (rows, classes) at the centres of the rows of a grid."""
    center = (np.arange(grid.frames) + 0.5) * grid.hop
    row = np.clip((center / scores.grid.hop).astype(np.int64), 0, len(scores.value) - 1)
    value: Floats = scores.value[row]
    return value
