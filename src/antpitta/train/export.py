"""The networks of a run for OpenVINO, and what each precision costs in accuracy.

The cost is measured on validated boxes, out of fold: each recording is scored by the one network
that never trained on it. It is compared with the run's own out-of-fold scores, which come from
overlapping windows in float32. Int8 goes into the model only where it costs little.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import openvino
from torch import Tensor

from antpitta.core.config import EMBEDDING_BACKBONE, Recipe
from antpitta.core.progress import ProgressCallback, no_progress
from antpitta.core.types import Dataset, Recording, Scores
from antpitta.files.cache import cached_features
from antpitta.files.spectrograms import read_training_input
from antpitta.model.export import to_int8, to_openvino
from antpitta.model.features import FeatureArray, build_feature_extractor, stitch_segments
from antpitta.model.inference import InferenceBackend, OpenVinoBackend
from antpitta.model.network import SedNet
from antpitta.model.torch_inference import build_nets
from antpitta.scores.cells import box_cells
from antpitta.scores.evaluate import evaluate_cells

T = TypeVar("T")

MAX_RECORDINGS = 200  # that accuracy is measured on
CALIBRATION_SEGMENTS = 48  # that int8 takes its ranges from
MAX_INT8_LOSS = 0.005  # of macro AP
REFERENCE = "sliding windows, float32"
FULL_INFERENCE = {
    "float32": "full inference, float32",
    "bfloat16": "full inference, bfloat16",
    "int8": "full inference, int8",
}


@dataclass(frozen=True)
class PrecisionResult:
    """The accuracy of one inference mode and precision.

    Parameters
    ----------
    name
        The mode and the precision.
    macro_ap
        Out of fold, on validated boxes.
    loss
        The macro AP of the reference minus this one.
    accepted
        Whether the model gets a network of this precision.
    """

    name: str
    macro_ap: float
    loss: float
    accepted: bool = True


@dataclass(frozen=True)
class ExportedNetworks:
    """Networks for OpenVINO, ``float`` and ``int8``, and what was measured of them."""

    networks: dict[str, openvino.Model]
    results: tuple[PrecisionResult, ...] = ()


@dataclass(frozen=True)
class _AccuracyTest:
    """The recordings that accuracy is measured on, with their features and folds."""

    dataset: Dataset
    recipe: Recipe
    recordings: list[Recording]
    segments: list[list[FeatureArray]]  # of each recording
    folds: dict[str, int]

    def macro_ap(self, scores: Iterable[Scores]) -> float:
        """On validated boxes."""
        classes = self.dataset.classes
        cells = box_cells(scores, self.dataset.annotations, classes)
        report = evaluate_cells(cells, classes, "", draws=0, rng=np.random.default_rng(0))
        return report.macro_ap.value

    def score(self, backend: InferenceBackend) -> list[Scores]:
        """Score each recording with the network that never trained on it."""
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            score = partial(self._score_recording, backend)
            return list(pool.map(score, self.recordings, self.segments))

    def _score_recording(
        self, backend: InferenceBackend, recording: Recording, segments: list[FeatureArray]
    ) -> Scores:
        config, fold = self.recipe.feature_config, self.folds[recording.id]
        parts = [backend.predict(segment)[fold] for segment in segments]
        grids = [config.time_grid(*times) for times in config.segments(recording.duration)]
        value, grid = stitch_segments(parts, grids, backend.frames_per_row)
        return Scores(recording.id, grid, self.dataset.classes, value, "")


def export_networks(
    dataset: Dataset,
    recipe: Recipe,
    states: Sequence[dict[str, Tensor]],
    folds: dict[str, int],
    reference: Sequence[Scores],
    progress: ProgressCallback = no_progress,
) -> ExportedNetworks:
    """Export the networks of all folds, and measure their accuracy.

    Parameters
    ----------
    dataset, recipe
        The data and the settings of the run.
    states
        The weights of each fold's network.
    folds
        The fold of each recording, by its id.
    reference
        The run's out-of-fold scores.
    progress
        Called after each measurement.

    Returns
    -------
    exported
        No networks for a head on embeddings, which takes no time worth exporting for, and none
        that must be applied to windows: those exported take whole segments.
    """
    if recipe.backbone.name == EMBEDDING_BACKBONE:
        return ExportedNetworks({})
    nets = build_nets(recipe, states, len(dataset.classes), recipe.features.n_mels)
    if nets[0].needs_windows:
        return ExportedNetworks({})
    test = _build_test(dataset, recipe, folds)
    candidates = _export_candidates(test, nets)
    ids = {recording.id for recording in test.recordings}
    base = test.macro_ap(scores for scores in reference if scores.recording in ids)
    results = [PrecisionResult(REFERENCE, base, 0.0)]
    for done, candidate in enumerate(candidates):
        progress(done, len(candidates), float("nan"))
        backend = OpenVinoBackend(
            candidate.network, candidate.arithmetic, len(states), os.cpu_count() or 1
        )
        macro_ap = test.macro_ap(test.score(backend))
        accepted = candidate.kind != "int8" or base - macro_ap < MAX_INT8_LOSS
        results.append(PrecisionResult(candidate.name, macro_ap, base - macro_ap, accepted))
    progress(len(candidates), len(candidates), float("nan"))
    networks = {candidate.kind: candidate.network for candidate in candidates}
    if not results[-1].accepted:
        del networks["int8"]
    return ExportedNetworks(networks, tuple(results))


@dataclass(frozen=True)
class _Candidate:
    """A network to measure, and the arithmetic it is run with."""

    name: str
    network: openvino.Model
    kind: str  # float or int8
    arithmetic: str  # of what the network leaves open


def _export_candidates(test: _AccuracyTest, nets: Sequence[SedNet]) -> list[_Candidate]:
    """The networks of all folds in float32, in bfloat16 where the CPU has it, and in int8."""
    config, width = test.recipe.feature_config, test.segments[0][0].shape[1]
    frames = config.n_frames(config.segment)
    network = to_openvino(nets, width, frames)
    approximate = to_openvino(nets, width, frames, exact_edges=False)
    all_segments = [segment for segments in test.segments for segment in segments]
    int8 = to_int8(approximate, _spread(all_segments, CALIBRATION_SEGMENTS))
    candidates = [_Candidate(FULL_INFERENCE["float32"], network, "float", "float32")]
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        candidates.append(_Candidate(FULL_INFERENCE["bfloat16"], network, "float", "bfloat16"))
    return [*candidates, _Candidate(FULL_INFERENCE["int8"], int8, "int8", "float32")]


def _build_test(dataset: Dataset, recipe: Recipe, folds: dict[str, int]) -> _AccuracyTest:
    labelled = {box.recording for box in dataset.annotations}
    candidates = [recording for recording in dataset.recordings if recording.id in labelled]
    recordings = _spread(candidates, MAX_RECORDINGS)
    extractor = build_feature_extractor(recipe)
    features = cached_features(
        recordings,
        recipe.feature_config.digest,
        lambda recording, notes: extractor.extract_all(
            recording, partial(read_training_input, notes=notes)
        ),
    )
    segments = [
        _split_segments(recipe, recording, array)
        for recording, array in zip(recordings, features, strict=True)
    ]
    return _AccuracyTest(dataset, recipe, recordings, segments, folds)


def _split_segments(
    recipe: Recipe, recording: Recording, features: FeatureArray
) -> list[FeatureArray]:
    """The features of each segment of a recording."""
    config = recipe.feature_config
    lengths = [config.n_frames(stop - start) for start, stop in config.segments(recording.duration)]
    return np.split(features, np.cumsum(lengths)[:-1])


def _spread(items: list[T], count: int) -> list[T]:
    """At most ``count`` items, evenly from the first to the last."""
    indices = np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)
    return [items[i] for i in indices]
