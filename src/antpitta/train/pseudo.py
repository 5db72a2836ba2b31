"""Pseudo-labels: scores of out-of-fold models become targets of unlabelled windows.

Pseudo-labels are worth something only where the model did not train on the recording. This is
checked, not trusted: every row of scores says which recordings its model was trained on, and a
model that trained on the recording is refused. A box always wins over a pseudo-label.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from antpitta.core.errors import UserError
from antpitta.core.stages import PseudoLabelConfig
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Classes, Scores, Targets, WindowScores
from antpitta.scores.prevalence import estimate_prevalence, rescale_odds
from antpitta.train.data import TrainingData

Floats = NDArray[np.floating]
TOLERANCE = 1e-3  # seconds by which the windows of two runs may differ
Members = dict[str, "list[OutOfFoldScores]"]  # the runs whose scores are used, by name


@dataclass(frozen=True)
class TableScores:
    """One recording's rows of a table of scores (train/member_tables.py)."""

    recording: str
    start: NDArray[np.float64]  # (rows,), seconds
    stop: NDArray[np.float64]  # (rows,), seconds; infinite for a whole recording
    classes: Classes
    value: NDArray[np.float64]  # (rows, classes), probabilities
    source: str  # the table, and the model's fold


@dataclass(frozen=True)
class OutOfFoldScores:
    """One recording's scores, and the recordings that their model was trained on.

    They are framewise, the clipwise ones of the training windows, or those of a table.
    """

    scores: Scores | WindowScores | TableScores
    trained_on: frozenset[str]


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo-labels of all training windows.

    Parameters
    ----------
    targets : (windows, classes)
        Weight 0 where there is no pseudo-label.
    hard_negatives : (windows, classes)
        Cells with very low scores. They are counted, and never in the loss.
    table
        One row for each pseudo-label: recording, start_time, end_time, species, score, source.
    """

    targets: Targets
    hard_negatives: NDArray[np.bool_]
    table: pd.DataFrame


def make_pseudo_labels(
    training_data: TrainingData, members: Members, pseudo: PseudoLabelConfig
) -> PseudoLabels:
    """Turn out-of-fold scores into targets of the unlabelled cells.

    Parameters
    ----------
    training_data
        The windows, and which of their cells are labelled.
    members
        Scores of all recordings, by one run or several.
    pseudo
        The settings.

    Returns
    -------
    pseudo_labels
        Those of labelled cells have weight 0.

    Raises
    ------
    ValueError
        Where a model trained on a recording that it scores, or has other classes.
    """
    scores = window_scores(training_data, members)
    mean = scores.mean(axis=0)
    if pseudo.rescale:
        mean = _rescale(training_data, mean)
    unlabelled = training_data.labels.weight == 0
    if pseudo.aggregation == "vote":
        needed = min(pseudo.min_votes, len(scores))
        positive = (scores >= pseudo.threshold).sum(axis=0) >= needed
        hard_negatives = (scores < pseudo.negative_threshold).sum(axis=0) >= needed
    else:
        positive = mean >= pseudo.threshold
        hard_negatives = mean < pseudo.negative_threshold
    positive &= unlabelled
    hard_negatives &= unlabelled
    value = mean if pseudo.targets == "soft" else np.ones_like(mean)
    targets = Targets(np.where(positive, value, 0).astype(np.float32), positive.astype(np.float32))
    table = _pseudo_table(training_data, members, mean, positive)
    return PseudoLabels(targets, hard_negatives, table)


def window_scores(training_data: TrainingData, members: Members) -> Floats:
    """The score of each training window: the highest framewise one, or the clipwise one.

    The score by a table is the highest of its rows whose middle lies in the window; where there is
    none, that of the row with the largest overlap, or of the nearest one.

    Parameters
    ----------
    training_data
        The windows.
    members
        Scores of all recordings, by one run or several.

    Returns
    -------
    scores : (members, windows, classes)

    Raises
    ------
    ValueError
        Where a model trained on a recording that it scores, or has other classes.
    UserError
        ``E_OTHER_DATA`` for clipwise scores of other windows.
    """
    windows, classes = training_data.windows, training_data.dataset.classes
    recordings = training_data.dataset.recordings
    is_framewise = all(isinstance(m[0].scores, Scores) for m in members.values())
    dtype = np.float32 if is_framewise else np.float64
    scores = np.zeros((len(members), len(windows), len(classes)), dtype=dtype)
    owner = training_data.recording_index[windows.segment]
    order = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[order], np.arange(len(recordings) + 1))
    for m, rows in enumerate(members.values()):
        by_recording = {row.scores.recording: row for row in rows}
        for i, recording in enumerate(recordings):
            row = by_recording[recording.id]
            if recording.id in row.trained_on:
                raise ValueError(
                    f"{recording.id}: {row.scores.source} trained on it and cannot label it"
                )
            if row.scores.classes != classes:
                raise ValueError(f"{row.scores.source} has other classes than this run")
            own = order[edges[i] : edges[i + 1]]
            times = [training_data.window_times(int(window)) for window in own]
            scores[m, own] = _scores_at(row.scores, times)
    return scores


def _scores_at(
    scores: Scores | WindowScores | TableScores, times: list[tuple[float, float]]
) -> Floats:
    """The scores of a recording's training windows: (windows, classes)."""
    if isinstance(scores, TableScores):
        return np.array([_table_score(scores, start, stop) for start, stop in times])
    if isinstance(scores, Scores):
        frames = [_frames_by_centre(scores.grid, start, stop) for start, stop in times]
        return np.array([scores.value[rows].max(axis=0, initial=0.0) for rows in frames])
    own = np.stack([scores.start, scores.stop], axis=1)
    if own.shape != (len(times), 2) or np.abs(own - np.array(times)).max(initial=0) > TOLERANCE:
        raise UserError(
            "E_OTHER_DATA",
            f"{scores.source} scored other windows of {scores.recording} than those of this run",
            "use members with the same features.segment, windows.frames and windows.overlap, or "
            'set pseudo.scores = "framewise"',
        )
    # In float64: next to a threshold, float32 would decide by its rounding.
    return np.asarray(expit(scores.logit.astype(np.float64)))


def _table_score(scores: TableScores, start: float, stop: float) -> Floats:
    """The scores (classes,) that a table has for a window."""
    middle = (scores.start + scores.stop) / 2
    inside = (middle >= start) & (middle < stop)
    if inside.any():
        return np.asarray(scores.value[inside].max(axis=0))
    overlap = np.minimum(scores.stop, stop) - np.maximum(scores.start, start)
    return np.asarray(scores.value[overlap.argmax()])


@lru_cache(maxsize=4096)
def _frames_by_centre(grid: TimeGrid, start: float, stop: float) -> slice:
    return grid.frames_by_centre(start, stop)


def _rescale(training_data: TrainingData, scores: Floats) -> Floats:
    """Multiply the odds of windows (windows, classes) so that recordings contain a class as often
    as its estimated prevalence. A recording's score is that of its highest window, and 1 where it
    has a present box.
    """
    dataset, labels = training_data.dataset, training_data.labels
    highest = np.zeros((len(dataset.recordings), len(dataset.classes)))
    labelled = highest.copy()
    owner = training_data.recording_index[training_data.windows.segment]
    np.maximum.at(highest, owner, scores)
    present = (labels.weight > 0) & (labels.value == 1)
    np.maximum.at(labelled, owner, np.where(present, 1, scores))
    names = [recording.id for recording in dataset.recordings]
    prevalence = estimate_prevalence(highest, names, dataset.annotations, dataset.classes)
    return rescale_odds(scores, prevalence, labelled).astype(np.float32)


def _pseudo_table(
    training_data: TrainingData, members: Members, mean: Floats, positive: NDArray[np.bool_]
) -> pd.DataFrame:
    """One row for each pseudo-label, with the models that it comes from."""
    dataset, windows = training_data.dataset, training_data.windows
    by_member = [{row.scores.recording: row.scores.source for row in m} for m in members.values()]
    sources = {
        recording.id: " + ".join(by_recording[recording.id] for by_recording in by_member)
        for recording in dataset.recordings
    }
    window, column = np.nonzero(positive)
    unique, row = np.unique(window, return_inverse=True)
    owners = training_data.recording_index[windows.segment[unique]]
    times = [training_data.window_times(window) for window in unique.tolist()]
    table = pd.DataFrame(
        {
            "recording": [dataset.recordings[owner].id for owner in owners],
            "start_time": [round(start, 3) for start, _ in times],
            "end_time": [round(stop, 3) for _, stop in times],
        }
    )
    table = table.iloc[row].reset_index(drop=True)
    table["species"] = [dataset.classes.names[i] for i in column]
    table["score"] = mean[positive].astype(np.float64)
    table["source"] = table["recording"].map(sources)
    return table
