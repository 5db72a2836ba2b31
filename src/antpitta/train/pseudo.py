"""Pseudo labels: what models that never trained on a recording say of its unlabelled windows.

The rule that makes them worth anything is checked here and not trusted: every row of scores says
which folds' recordings the model that made it was trained on, and a row from a model that
trained on the recording is refused. A listener's word always wins.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.stages import PseudoLabelConfig
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Scores, Targets
from antpitta.scores.prevalence import estimate_prevalence, rescale_odds
from antpitta.train.data import TrainingData

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class OutOfFoldScores:
    """One recording's scores, and the recordings that the model behind them trained on."""

    scores: Scores
    trained_on: frozenset[str]


@dataclass(frozen=True)
class PseudoLabels:
    """Targets for every training window, and where each label came from."""

    targets: Targets  # (windows, classes), weight 0 where nobody teaches
    hard_negatives: NDArray[
        np.bool_
    ]  # (windows, classes), hard negatives: kept apart, never in the loss
    table: pd.DataFrame  # recording, start_time, end_time, species, score, source


def window_scores(training_data: TrainingData, members: dict[str, list[OutOfFoldScores]]) -> Floats:
    """The highest framewise score in each training window: (members, windows, classes).

    Raises ValueError where a model trained on the recording it scores.
    """
    cuts, classes = training_data.windows, training_data.dataset.classes
    found = np.zeros((len(members), len(cuts), len(classes)), dtype=np.float32)
    owner = training_data.recording_index[cuts.segment]
    by_owner = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[by_owner], np.arange(len(training_data.dataset.recordings) + 1))
    for m, rows in enumerate(members.values()):
        by_recording = {row.scores.recording: row for row in rows}
        for i, recording in enumerate(training_data.dataset.recordings):
            row = by_recording[recording.id]
            if recording.id in row.trained_on:
                raise ValueError(
                    f"{recording.id}: {row.scores.source} trained on it and cannot label it"
                )
            if row.scores.classes != classes:
                raise ValueError(f"{row.scores.source} has other classes than this run")
            for window in by_owner[edges[i] : edges[i + 1]]:
                grid = training_data.grids[cuts.segment[window]]
                span = _span(grid, int(cuts.start[window]), cuts.frames)
                inside = _rows(row.scores.grid, *span)
                found[m, window] = row.scores.value[inside].max(axis=0, initial=0.0)
    return found


@lru_cache(maxsize=4096)  # the windows of recordings of one length are alike
def _span(grid: TimeGrid, first: int, frames: int) -> tuple[float, float]:
    """When a window of an image begins and ends, in seconds."""
    return grid.seconds(first), min(grid.seconds(first + frames), grid.end)


@lru_cache(maxsize=4096)
def _rows(grid: TimeGrid, start: float, stop: float) -> slice:
    return grid.frames_by_centre(start, stop)


def make_pseudo_labels(
    training_data: TrainingData,
    members: dict[str, list[OutOfFoldScores]],
    pseudo: PseudoLabelConfig,
) -> PseudoLabels:
    """Turn out-of-fold scores of one or more members into targets for the unlabelled cells."""
    scores = window_scores(training_data, members)
    mean = scores.mean(axis=0)
    if pseudo.rescale:
        mean = _rescaled(training_data, mean)
    unlabelled = (training_data.labels.weight == 0) & training_data.original_windows[:, None]
    if pseudo.aggregation == "vote":
        needed = min(pseudo.min_votes, len(scores))
        soft = (scores >= pseudo.threshold).sum(axis=0) >= needed
    else:
        soft = mean >= pseudo.threshold
    soft &= unlabelled
    hard = (mean < pseudo.negative_threshold) & unlabelled
    value = mean if pseudo.targets == "soft" else np.ones_like(mean)
    pseudo_labels = Targets(np.where(soft, value, 0).astype(np.float32), soft.astype(np.float32))
    return PseudoLabels(pseudo_labels, hard, _provenance(training_data, members, mean, soft))


def _rescaled(training_data: TrainingData, scores: Floats) -> Floats:
    """Odds of windows (windows, classes) multiplied so that recordings hold a class as often as
    boxes and scores tell: a recording by its highest window, for certain where it has a present
    box, copies never.
    """
    data, labels, own = training_data.dataset, training_data.labels, training_data.original_windows
    highest = np.zeros((len(data.recordings), len(data.classes)))
    certain = highest.copy()
    owner = training_data.recording_index[training_data.windows.segment[own]]
    np.maximum.at(highest, owner, scores[own])
    np.maximum.at(
        certain, owner, np.where((labels.weight > 0) & (labels.value == 1), 1, scores)[own]
    )
    names = [recording.id for recording in data.recordings]
    shares = estimate_prevalence(highest, names, data.annotations, data.classes)
    return rescale_odds(scores, shares, certain).astype(np.float32)


def _provenance(
    training_data: TrainingData,
    members: dict[str, list[OutOfFoldScores]],
    mean: Floats,
    soft: NDArray[np.bool_],
) -> pd.DataFrame:
    said = [{row.scores.recording: row.scores.source for row in rows} for rows in members.values()]
    sources = {
        recording.id: " + ".join(by_recording[recording.id] for by_recording in said)
        for recording in training_data.dataset.recordings
    }
    cuts, names = training_data.windows, training_data.dataset.classes.names
    window, column = np.nonzero(soft)
    told, which = np.unique(window, return_inverse=True)
    owners = training_data.recording_index[cuts.segment[told]]
    recordings = [training_data.dataset.recordings[owner].id for owner in owners]
    grids = [training_data.grids[image] for image in cuts.segment[told]]
    firsts = cuts.start[told].tolist()
    spans = [_span(grid, at, cuts.frames) for grid, at in zip(grids, firsts, strict=True)]
    table = pd.DataFrame(
        {
            "recording": recordings,
            "start_time": [round(start, 3) for start, _ in spans],
            "end_time": [round(stop, 3) for _, stop in spans],
        }
    )
    table = table.iloc[which].reset_index(drop=True)
    table["species"] = [names[i] for i in column]
    table["score"] = mean[soft].astype(np.float64)
    table["source"] = table["recording"].map(sources)
    return table
