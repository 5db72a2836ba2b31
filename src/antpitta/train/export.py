"""The networks of a run for OpenVINO, and what each way of computing costs in accuracy.

The cost is measured out of fold on validated boxes: of each recording only what the fold's
network that never saw it hears counts. It is held against the run's own out-of-fold scores, which
come from overlapping windows in float32. Int8 goes into the model only where it costs little.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.config import EMBEDDING_BACKBONE, Recipe
from antpitta.core.progress import ProgressCallback, no_progress
from antpitta.core.types import Dataset, Recording, Scores
from antpitta.files.audio import read
from antpitta.files.cache import cached_features
from antpitta.model.export import to_int8, to_openvino
from antpitta.model.features import FeatureArray, build_feature_extractor, stitch_segments
from antpitta.model.inference import InferenceBackend, OpenVinoBackend
from antpitta.model.torch_inference import build_nets
from antpitta.scores.cells import box_cells
from antpitta.scores.evaluate import evaluate_cells

MOST = 200  # recordings that accuracy is measured on
RANGES = 48  # images that int8 takes its ranges from
ALLOWED = 0.005  # macro AP that int8 may cost
EXACT = "overlapping windows, float32"
WAYS = {"float32": "whole images, float32", "bfloat16": "whole images, bfloat16"}
INT8 = "whole images, int8"


@dataclass(frozen=True)
class PrecisionResult:
    """One way of computing: its macro AP on boxes out of fold, and what that is less than exact."""

    name: str
    macro_ap: float
    loss: float
    accepted: bool = True


@dataclass(frozen=True)
class ExportedNetworks:
    """Networks for OpenVINO by their kinds, and what was measured of them."""

    networks: dict[str, openvino.Model]
    results: tuple[PrecisionResult, ...] = ()


@dataclass(frozen=True)
class _Exam:
    """The recordings that accuracy is measured on, drawn, and who may score them."""

    dataset: Dataset
    recipe: Recipe
    recordings: list[Recording]
    images: list[list[FeatureArray]]  # of each recording
    folds: dict[str, int]

    def macro_ap(self, scores: Iterable[Scores]) -> float:
        """On validated boxes."""
        classes = self.dataset.classes
        cells = box_cells(scores, self.dataset.annotations, classes)
        report = evaluate_cells(cells, classes, "", draws=0, rng=np.random.default_rng(0))
        return report.macro_ap.value

    def scores(self, compute: InferenceBackend) -> list[Scores]:
        """What the fold that never saw it hears of each recording."""
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            hear = partial(self._score, compute)
            return list(pool.map(hear, self.recordings, self.images))

    def _score(
        self, compute: InferenceBackend, recording: Recording, images: list[FeatureArray]
    ) -> Scores:
        drawing, fold = self.recipe.feature_config, self.folds[recording.id]
        parts = [compute.predict(image)[fold] for image in images]
        grids = [drawing.time_grid(*cut) for cut in drawing.segments(recording.duration)]
        value, grid = stitch_segments(parts, grids, compute.frames_per_row)
        return Scores(recording.id, grid, self.dataset.classes, value, "")


def export_networks(
    dataset: Dataset,
    recipe: Recipe,
    states: Sequence[dict[str, Tensor]],
    folds: dict[str, int],
    exact: Sequence[Scores],
    progress: ProgressCallback = no_progress,
) -> ExportedNetworks:
    """Export the networks of all folds (``states``), and measure them.

    ``folds`` are by recording: the one that never saw it. ``exact`` are the run's out-of-fold
    scores. A head on embeddings takes no time worth exporting for.
    """
    if recipe.backbone.name == EMBEDDING_BACKBONE:
        return ExportedNetworks({})
    frames = recipe.feature_config.n_frames(recipe.feature_config.segment)
    exam = _set_exam(dataset, recipe, folds)
    width = exam.images[0][0].shape[1]
    nets = build_nets(recipe, states, len(dataset.classes), width)
    plain = to_openvino(nets, width, frames)
    rough = to_openvino(nets, width, frames, exact_edges=False)
    small = to_int8(rough, _spread([one for some in exam.images for one in some], RANGES))
    capable = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    ways = [(WAYS[kind], plain, kind) for kind in WAYS if kind == "float32" or "BF16" in capable]
    ways.append((INT8, small, "float32"))
    labels = {recording.id for recording in exam.recordings}
    base = exam.macro_ap(one for one in exact if one.recording in labels)
    figures = [PrecisionResult(EXACT, base, 0.0)]
    for done, (name, model, kind) in enumerate(ways):
        progress(done, len(ways), float("nan"))
        found = exam.macro_ap(
            exam.scores(OpenVinoBackend(model, kind, len(nets), os.cpu_count() or 1))
        )
        kept = name != INT8 or base - found < ALLOWED
        figures.append(PrecisionResult(name, found, base - found, kept))
    progress(len(ways), len(ways), float("nan"))
    networks = {"float": plain, "int8": small} if figures[-1].accepted else {"float": plain}
    return ExportedNetworks(networks, tuple(figures))


def _set_exam(dataset: Dataset, recipe: Recipe, folds: dict[str, int]) -> _Exam:
    judged = {said.recording for said in dataset.annotations}
    chosen = _spread([one for one in dataset.recordings if one.id in judged], MOST)
    pen = build_feature_extractor(recipe)
    drawn = cached_features(
        chosen,
        recipe.feature_config.digest,
        lambda one: pen.extract_all(one, read),
    )
    images = [_cut(recipe, one, whole) for one, whole in zip(chosen, drawn, strict=True)]
    return _Exam(dataset, recipe, chosen, images, folds)


def _cut(recipe: Recipe, recording: Recording, whole: FeatureArray) -> list[FeatureArray]:
    """A recording's images, of its picture."""
    cuts = recipe.feature_config.segments(recording.duration)
    lengths = [recipe.feature_config.n_frames(stop - start) for start, stop in cuts]
    return np.split(whole, np.cumsum(lengths)[:-1])


def _spread(things: list[Any], count: int) -> list[Any]:
    """So many of them, evenly from the first to the last."""
    places: NDArray[np.int64] = np.linspace(0, len(things) - 1, min(count, len(things))).astype(int)
    return [things[i] for i in places]
