"""Whether PyTorch finds a GPU, asked without loading PyTorch where there can be none.

PyTorch takes over a second to load, as long as OpenVINO needs to hear twenty minutes of sound.

Which engine hears for a model: by what the machine has, what was exported, and what is asked.

Listening to one recording, image by image, whatever engine does the arithmetic.

One model or many that listen together: a bundle's folds, or an ensemble's members, blended.

A recording is heard in pieces, an image each, which threads may hear at the same time: so a
recorder's whole day keeps all cores busy as a thousand short files do.
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

from antpitta.core.config import EMBEDDING_BACKBONE, InferenceMode, Precision, Recipe, parse_recipe
from antpitta.core.errors import UserError, requires_train_extra
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Recording, Scores
from antpitta.files.bundle import Bundle
from antpitta.files.cache import cached_features
from antpitta.files.embedding_models import find_embedding_model
from antpitta.model.features import (
    FeatureArray,
    FeatureExtractor,
    ReadAudio,
    build_feature_extractor,
    stitch_segments,
)
from antpitta.model.inference import (
    InferenceBackend,
    InferenceConfig,
    OpenVinoBackend,
    fastest_precision,
)

if TYPE_CHECKING:
    from antpitta.scores.ensemble.blend import Blend


DRIVERS = ("libcuda.so.1", "nvcuda.dll")  # Nvidia's, by the system; its libraries need it
AMD = Path("/dev/kfd")  # there with AMD's driver; PyTorch brings its libraries itself


@cache
def has_gpu() -> bool:
    """Whether models are heard on a GPU here."""
    if not (AMD.exists() or any(_loads(name) for name in DRIVERS)):
        return False
    try:
        import torch
    except ModuleNotFoundError:  # without the extra `train`, OpenVINO computes on the CPU
        return False
    return torch.cuda.is_available()


def _loads(name: str) -> bool:
    try:
        CDLL(name)
    except OSError:
        return False
    return True


KINDS = {"float32": "float", "bfloat16": "float", "int8": "int8"}  # which exported network serves


def resolve_precision(precision: Precision, inference: InferenceMode, model: Bundle) -> Precision:
    """The precision that "auto" comes to on this machine, for this model."""
    if precision != "auto":
        return precision
    if inference == "sliding":
        return "float32"
    parts = model.parts() or [model]
    if has_gpu() or not any(part.networks for part in parts):
        return "float32"
    return fastest_precision()


def open_backend(
    model: Bundle, recipe: Recipe, hearing: InferenceConfig, width: int
) -> InferenceBackend:
    """The engine of one model; ``width`` is that of its pictures.

    Raises UserError where there is none for the precision asked for, and for the weights of
    another version's network.
    """
    windows = hearing.mode == "sliding" or recipe.backbone.name == EMBEDDING_BACKBONE
    if hearing.mode == "sliding" and hearing.precision not in ("auto", "float32"):
        raise UserError(
            "E_TODO",
            f"--precision {hearing.precision}: --inference sliding is the exact mode and computes in float32",
            "leave one of the two out",
        )
    gpu = has_gpu()
    precision = resolve_precision(hearing.precision, hearing.mode, model)
    exported = None if windows or gpu else model.networks.get(KINDS[precision])
    if exported is not None:
        kind = "float32" if precision == "int8" else precision
        return OpenVinoBackend(model.path / exported, kind, len(model.weights), hearing.workers)
    if precision == "int8" and not windows:
        raise UserError(
            "E_TODO", f"--precision int8: {model.path} {_why_not(model, gpu)}", "take auto"
        )
    with requires_train_extra(f"{model.path}: {_why_torch(model, hearing)}, which"):
        from antpitta.model.torch_inference import TorchBackend, build_nets

    try:
        nets = build_nets(recipe, model.states(), len(model.species), width)
    except RuntimeError:
        raise UserError(
            "E_TODO",
            f"{model.path}: its weights do not fit the network of its recipe as this version of antpitta builds it",
            "train the model again",
        ) from None
    whole = recipe.feature_config.n_frames(recipe.feature_config.segment)
    return TorchBackend(
        nets, whole, recipe.windows if windows else None, half=precision == "bfloat16"
    )


def _why_torch(model: Bundle, inference: InferenceConfig) -> str:
    if inference.mode == "sliding":
        return "--inference sliding uses PyTorch"
    if not model.networks:
        return "the model holds no networks for OpenVINO"
    return "this model runs in PyTorch"


def _why_not(model: Bundle, gpu: bool) -> str:
    if gpu:
        return "is heard by PyTorch on this machine's GPU, which has no int8"
    if not model.networks:
        return "was written without networks for OpenVINO; train it again"
    return "has no int8 network: it lost too much accuracy when it was tried (see MODEL_CARD.md)"


Floats = NDArray[np.float32]
SegmentBounds = tuple[float, float]  # seconds in the recording
Parts = list[list[Floats]]  # of each image, of each network: (rows, classes)


@dataclass(frozen=True)
class ModelPrediction:
    """What the folds of one model heard in a recording."""

    presence: Floats  # (classes,), the mean over folds of each fold's highest score
    value: Floats  # (rows, classes), the mean over folds, framewise
    grid: TimeGrid


@dataclass(frozen=True)
class ModelPredictor:
    """The folds of one model, ready to listen: image by image, so a day fits in memory."""

    pen: FeatureExtractor
    engine: InferenceBackend

    def gather(self, parts: Parts, cuts: Sequence[SegmentBounds]) -> ModelPrediction:
        """One recording of what was heard in its images."""
        own = list(zip(*parts, strict=True))  # of each net, its images
        presence = np.mean([np.max([p.max(axis=0) for p in one], axis=0) for one in own], axis=0)
        means: list[Floats] = [np.mean(of_image, axis=0) for of_image in parts]
        grids = [self.pen.config.time_grid(*cut) for cut in cuts]
        value, grid = stitch_segments(means, grids, self.engine.frames_per_row)
        return ModelPrediction(presence.astype(np.float32), value, grid)


def predict_segments(
    listeners: Sequence[ModelPredictor],
    recording: Recording,
    cuts: Sequence[SegmentBounds],
    read: ReadAudio,
) -> list[Parts]:
    """What each of the ``listeners`` hears in some images of a recording.

    They share a pen, so the sound is drawn once.
    """
    parts: list[Parts] = [[] for _ in listeners]
    for start, stop in cuts:
        seen = listeners[0].pen.extract_segment(recording, start, stop, read)
        for listener, found in zip(listeners, parts, strict=True):
            found.append(listener.engine.predict(seen))
    return parts


@dataclass(frozen=True)
class CachedFeatureExtractor(FeatureExtractor):
    """A pen whose drawings are kept on the disk, as training keeps them.

    For embeddings: they take a hundred times longer than what comes after them, and the next
    round's model asks for the same ones.
    """

    last: Any = field(default_factory=threading.local)  # each thread's recording at hand

    def extract_segment(self, recording: Recording, start: float, stop: float, read: ReadAudio) -> FeatureArray:
        """Cut from the whole recording's drawing, made where the cache has none."""
        images = self.config.segments(recording.duration)
        path: Path | None = getattr(self.last, "path", None)
        if path != recording.path:
            plain = FeatureExtractor(self.config, self.width, self.compute)
            [self.last.drawn] = cached_features(
                [recording], self.config.digest, lambda one: plain.extract_all(one, read)
            )
            self.last.path = recording.path
        frames = [self.config.n_frames(b - a) for a, b in images]
        first = sum(frames[: images.index((start, stop))])
        return np.array(self.last.drawn[first : first + self.config.n_frames(stop - start)])


@dataclass(frozen=True)
class Segment:
    """What one thread hears at once: some images of a recording, by the listeners of one pen."""

    listeners: tuple[int, ...]
    cuts: tuple[SegmentBounds, ...]


class Predictor:
    """All listeners of a bundle, ready; every score is signed with the bundle's name.

    Members that draw alike share a pen, and with it the work of drawing. Raises UserError
    where the model has no network for the ``hearing`` asked for.
    """

    def __init__(self, bundle: Bundle, hearing: InferenceConfig | None = None) -> None:
        self.hearing = hearing or InferenceConfig()
        self.bundle = bundle
        self.classes = bundle.classes
        self.blend = _blend_of(bundle)
        pens: dict[str, FeatureExtractor] = {}
        self.listeners = []
        for part in bundle.parts() or [bundle]:
            recipe = parse_recipe(part.recipe, str(part.path))
            key = recipe.feature_config.digest
            if key not in pens:
                network = find_embedding_model(recipe.embedding) if recipe.embedding else None
                pen = build_feature_extractor(recipe, network)
                pens[key] = (
                    CachedFeatureExtractor(pen.config, pen.width, pen.compute) if network else pen
                )
            engine = open_backend(part, recipe, self.hearing, pens[key].width)
            self.listeners.append(ModelPredictor(pens[key], engine))

    def pieces(self, recording: Recording) -> list[Segment]:
        """What there is to hear in a recording, in parts that may be heard at the same time."""
        found = []
        for pen in {id(one.pen): one.pen for one in self.listeners}.values():
            mine = tuple(i for i, one in enumerate(self.listeners) if one.pen is pen)
            cuts = pen.config.segments(recording.duration)
            if isinstance(
                pen, CachedFeatureExtractor
            ):  # it draws the whole recording for any image of it
                found.append(Segment(mine, tuple(cuts)))
            else:
                found += [Segment(mine, (cut,)) for cut in cuts]
        return found

    def hear(self, recording: Recording, piece: Segment, read: ReadAudio) -> list[Parts]:
        """What each listener of the piece hears in it."""
        together = [self.listeners[i] for i in piece.listeners]
        return predict_segments(together, recording, piece.cuts, read)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, each thread that hears computes by itself."""
        with ExitStack() as stack:
            for one in self.listeners:
                stack.enter_context(one.engine.session())
            yield

    def gather(
        self, recording: Recording, pieces: Sequence[Segment], found: Sequence[list[Parts]]
    ) -> tuple[Floats, Scores]:
        """The recording's presence (classes,), and its framewise scores.

        Members may differ in their grids; the finest is the ensemble's.
        """
        parts: list[Parts] = [[] for _ in self.listeners]
        cuts: list[list[SegmentBounds]] = [[] for _ in self.listeners]
        for piece, of_piece in zip(pieces, found, strict=True):
            for i, mine in zip(piece.listeners, of_piece, strict=True):
                parts[i] += mine
                cuts[i] += piece.cuts
        told = zip(self.listeners, parts, cuts, strict=True)
        heard = [one.gather(mine, of_mine) for one, mine, of_mine in told]
        grid = min((one.grid for one in heard), key=lambda grid: grid.hop)
        presence = self._blend([one.presence[None] for one in heard])[0]
        value = self._blend([_on_grid(one, grid) for one in heard])
        return presence, Scores(recording.id, grid, self.classes, value, self.bundle.name)

    def _blend(self, values: list[Floats]) -> Floats:
        if self.blend is None:
            return values[0]
        from antpitta.scores.ensemble.members import Member

        named = zip(self.bundle.members, values, strict=True)
        return self.blend.apply([Member(name, value) for name, value in named]).astype(np.float32)


def _blend_of(bundle: Bundle) -> "Blend | None":
    if not bundle.members:
        return None
    from antpitta.scores.ensemble.blend import Blend

    return Blend.from_json(bundle.blend)


def _on_grid(heard: ModelPrediction, grid: TimeGrid) -> Floats:
    """The member's rows at the middles of the ``grid``'s rows."""
    middle = (np.arange(grid.frames) + 0.5) * grid.hop
    row = np.clip((middle / heard.grid.hop).astype(np.int64), 0, len(heard.value) - 1)
    taken: Floats = heard.value[row]
    return taken
