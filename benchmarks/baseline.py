"""A yardstick: somebody's embeddings, and one logistic regression a species on the same boxes.

What a user would do instead: embed a window around the middle of every validated box, fit one
balanced logistic regression a species on standardised embeddings, and take the highest
probability of a recording's windows. Windows are as long as the embedding's own input and start
a second apart. Out of fold, scaling and regression are fitted without the fold's recordings.

Where the network has classes that are our species there is a second one, its own word, untaught:
a box by its own probability of the species, a recording by its highest, 0 for a species it lacks.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from antpitta.core.progress import Progress
from antpitta.core.types import Annotation, Dataset
from antpitta.scores.cells import clip_score_table
from antpitta.scores.evaluate import Report, evaluate_cells
from antpitta.train.out_of_fold import assign_folds
from benchmarks.test_set import TestSet
from benchmarks.vectors import Embed

Floats = NDArray[np.float32]

FOLDS = 3  # as in the quick recipe
STEP = 1.0  # seconds between the windows of a recording
NAN = float("nan")
UNTAUGHT = 0.5  # the score of a species that has only presents, or only absents


@dataclass(frozen=True)
class Boxes:
    """Every judged box, a row for each species that it speaks of."""

    recording: NDArray[np.int64]  # (rows,), place in the data set
    column: NDArray[np.int64]  # (rows,)
    present: NDArray[np.bool_]  # (rows,)
    value: Floats  # (rows, values)


def evaluate_baseline(
    dataset: Dataset, exam: TestSet, embed: Embed, seeds: int, progress: Progress
) -> list[dict[str, float]]:
    """The yardstick's figures for each seed. A seed deals the folds; the test knows no seed."""
    began = time.perf_counter()
    boxes = embed_boxes(dataset, embed, progress)
    models = fit_species(boxes, np.ones(len(boxes.column), dtype=bool), len(dataset.classes))
    seconds = time.perf_counter() - began
    found = score_recordings(exam, embed, partial(score_windows, models), progress)
    report = exam.judge(found, "yardstick")
    deals = [assign_folds(dataset, FOLDS, seed) for seed in range(1, seeds + 1)]
    ours = [_out_of_fold(dataset, boxes, folds) for folds in deals]
    return [_row(seed, oof, report, seconds) for seed, oof in enumerate(ours, start=1)]


def evaluate_zero_shot(
    dataset: Dataset, exam: TestSet, embed: Embed, seeds: int, progress: Progress
) -> list[dict[str, float]]:
    """The figures of the network's own word: no seed changes it, and no box taught it."""
    began = time.perf_counter()
    boxes = embed_boxes(dataset, embed, progress, own=True)
    seconds = time.perf_counter() - began
    own = boxes.value[np.arange(len(boxes.column)), boxes.column]
    oof = _report(dataset, boxes, own)
    report = exam.judge(score_recordings(exam, embed, None, progress), "untaught")
    return [_row(seed, oof, report, seconds) for seed in range(1, seeds + 1)]


def _row(seed: int, oof: Report, test: Report, seconds: float) -> dict[str, float]:
    return {
        "seed": seed,
        "oof_ap": oof.macro_ap.value,
        "oof_auc": oof.macro_auc.value,
        "lwlrap": test.lwlrap.value,
        "macro_ap": test.macro_ap.value,
        "event_f1": NAN,  # it finds recordings, not calls
        "seconds": seconds,
    }


def embed_boxes(dataset: Dataset, embed: Embed, progress: Progress, *, own: bool = False) -> Boxes:
    """A window around the middle of each box, moved inside its recording; ``own``: see _side."""
    said: dict[str, list[Annotation]] = {recording.id: [] for recording in dataset.recordings}
    for one in dataset.annotations:
        said[one.recording].append(one)
    starts = []
    for recording in dataset.recordings:
        middles = np.array([(one.start + one.stop) / 2 for one in said[recording.id]])
        last = max(0.0, recording.duration - embed.seconds)
        starts.append(np.clip(middles - embed.seconds / 2, 0.0, last))
    tick = progress.of("boxes embedded")
    found = embed.all(dataset.recordings, starts, tick)
    rows = [
        (i, column, one.present, _side(embed, value, own=own))
        for i, recording in enumerate(dataset.recordings)
        for one, value in zip(said[recording.id], found[i], strict=True)
        for column in dataset.classes.columns(one.label)
    ]
    places, columns, present, values = (np.array(x) for x in zip(*rows, strict=True))
    return Boxes(places, columns, present, values)


def fit_species(boxes: Boxes, chosen: NDArray[np.bool_], classes: int) -> list[Pipeline | None]:
    """A regression for each species, None where it has not both presents and absents."""
    models: list[Pipeline | None] = []
    for column in range(classes):
        mine = chosen & (boxes.column == column)
        present = boxes.present[mine]
        if not (present.any() and not present.all()):
            models.append(None)
            continue
        fitted = make_pipeline(
            StandardScaler(), LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000)
        )
        models.append(fitted.fit(boxes.value[mine], present))
    return models


def score_windows(models: list[Pipeline | None], value: Floats) -> NDArray[np.floating]:
    """Probabilities (windows, classes)."""
    if not len(value):
        return np.zeros((0, len(models)))
    columns: list[Any] = [
        np.full(len(value), UNTAUGHT) if model is None else model.predict_proba(value)[:, 1]
        for model in models
    ]
    return np.stack(columns, axis=1)


def _out_of_fold(dataset: Dataset, boxes: Boxes, folds: NDArray[np.int64]) -> Report:
    """Each box scored by regressions that did not see its recording."""
    score = np.zeros(len(boxes.column))
    for fold in range(FOLDS):
        held = folds[boxes.recording] == fold
        models = fit_species(boxes, ~held, len(dataset.classes))
        every = score_windows(models, boxes.value[held])
        score[held] = every[np.arange(held.sum()), boxes.column[held]]
    return _report(dataset, boxes, score)


def _report(dataset: Dataset, boxes: Boxes, score: NDArray[np.floating]) -> Report:
    rng = np.random.default_rng(0)  # never drawn from: no draws
    cells = _cells(dataset, boxes, score)
    return evaluate_cells(cells, dataset.classes, "yardstick", draws=0, rng=rng)


def score_recordings(
    exam: TestSet,
    embed: Embed,
    score: Callable[[Floats], NDArray[np.floating]] | None,
    progress: Progress,
) -> pd.DataFrame:
    """Each test recording by its highest window, as ``score`` says, or the network itself."""
    longest = [max(0.0, one.duration - embed.seconds) for one in exam.recordings]
    starts = [np.arange(int(last / STEP) + 1) * STEP for last in longest]
    found = embed.all(exam.recordings, starts, progress.of("test windows embedded"))
    sides = [_side(embed, value, own=score is None) for value in found]
    rows = [(side if score is None else score(side)).max(axis=0) for side in sides]
    ids = [recording.id for recording in exam.recordings]
    return clip_score_table(ids, np.array(rows), exam.classes.names)


def _side(embed: Embed, value: Floats, *, own: bool) -> Floats:
    """Of what an embedding gives, all but the network's own logits, or these, as probabilities."""
    known = embed.known or ()
    place = value.shape[-1] - len(known)
    if not own:
        return value[..., :place]
    probability: Floats = expit(value[..., place:])
    return np.where([bool(classes) for classes in known], probability, np.float32(0))


def _cells(dataset: Dataset, boxes: Boxes, score: NDArray[np.floating]) -> pd.DataFrame:
    ids = np.array([recording.id for recording in dataset.recordings], dtype=object)
    names = np.array(dataset.classes.names, dtype=object)
    return pd.DataFrame(
        {
            "recording": ids[boxes.recording],
            "species": names[boxes.column],
            "present": boxes.present,
            "score": score,
        }
    )
