"""The baseline: an embedding model and one logistic regression per species, on the same boxes.

This is what a user could do instead. Each window around the middle of a validated box is embedded;
one balanced logistic regression per species is fitted to the standardised embeddings; the score of
a recording is the highest probability of its windows. Windows are as long as the input of the
embedding model and start one second apart. Out of fold, scaling and regression are fitted without
the recordings of the fold.

Where the embedding model itself classifies some of the species, there is a second, zero-shot
baseline: the model's own probabilities, and 0 for a species that it lacks.

Embeddings are cached like spectrograms. Training with ``backbone.name = "embedding"`` uses the same
embedding models on a regular grid; here windows lie where the boxes are.
"""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from antpitta.core.features import EmbeddingConfig
from antpitta.core.progress import Progress, ProgressCallback
from antpitta.core.types import Annotation, Dataset, Recording
from antpitta.files.audio import content_key, read
from antpitta.files.cache import cached_features
from antpitta.files.embedding_models import find_embedding_model
from antpitta.files.known_models import KNOWN
from antpitta.files.species_names import match_embedding_classes
from antpitta.model.embedding import EmbeddingModel
from antpitta.scores.cells import clip_score_table
from antpitta.scores.evaluate import Report, evaluate_cells
from antpitta.train.out_of_fold import assign_folds
from benchmarks.test_set import TestSet

Floats = NDArray[np.float32]
Starts = NDArray[np.floating]  # seconds

FOLDS = 3  # as in the quick recipe
STEP = 1.0  # seconds between the windows of a recording
NAN = float("nan")
NOT_FITTED = 0.5  # the score of a species that has only present, or only absent, boxes


@dataclass(frozen=True)
class EmbeddingWindows:
    """An embedding model as a function of windows of recordings."""

    seconds: float  # length of a window
    # recordings, the starts of windows in each, progress -> (windows, values) per recording
    embed: Callable[[Sequence[Recording], Sequence[Starts], ProgressCallback], list[Floats]]
    # as in EmbeddingConfig; where given, the last values are logits, one per species
    class_map: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True)
class BoxEmbeddings:
    """The embeddings of all validated boxes, one row per box and species."""

    recording: NDArray[np.int64]  # (rows,), index into the data set
    column: NDArray[np.int64]  # (rows,), index of the species
    present: NDArray[np.bool_]  # (rows,)
    value: Floats  # (rows, values)


def open_embedding_windows(name: str, dataset: Dataset) -> EmbeddingWindows:
    """Open an embedding model.

    Parameters
    ----------
    name : a known model such as ``birdnet``, or the path of a .tflite or .onnx file
    dataset : its species are matched with the model's own classes

    Returns
    -------
    EmbeddingWindows
        Windows of 3 s at 48 kHz. A known file gives its embedding, any other its first output.

    Raises
    ------
    UserError
        Where there is no such file, or it cannot be run.
    """
    file = Path(name).name
    known = KNOWN.get(name) or next((model for model in KNOWN.values() if model.file == file), None)
    embedding = EmbeddingConfig(model=name, output=known.vector if known else None)
    path = find_embedding_model(embedding)
    embedding = embedding.model_copy(update={"model_digest": content_key(path)})
    embedding = match_embedding_classes(embedding, dataset)
    model = EmbeddingModel(embedding, path)
    return EmbeddingWindows(embedding.seconds, partial(embed_windows, model), embedding.class_map)


def embed_windows(
    model: EmbeddingModel,
    recordings: Sequence[Recording],
    starts: Sequence[Starts],
    progress: ProgressCallback,
) -> list[Floats]:
    """Embed windows of recordings, several recordings at a time; results are cached.

    Parameters
    ----------
    model : the embedding model
    recordings : the recordings
    starts : the starts of the windows in each, in seconds
    progress : gets the number of recordings done and in all

    Returns
    -------
    list of array
        (windows, values) per recording.
    """
    embeddings = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for value in pool.map(partial(_embed_recording, model), recordings, starts):
            embeddings.append(value)
            progress(len(embeddings), len(recordings), NAN)
    return embeddings


def _embed_recording(model: EmbeddingModel, recording: Recording, starts: Starts) -> Floats:
    if not len(starts):
        return np.zeros((0, model.width), dtype=np.float32)
    key = hashlib.blake2b(starts.tobytes(), digest_size=8).hexdigest()
    sample_rate, seconds = model.embedding.sample_rate, model.embedding.seconds

    def compute(recording: Recording, notes: list[str]) -> NDArray[np.float16]:
        waves = (read(recording, start, start + seconds, sample_rate) for start in starts)
        return np.concatenate([model.embed(wave, 1) for wave in waves])

    digest = f"{model.embedding.digest}-{key}"
    (value,) = cached_features([recording], digest, compute, workers=1)
    return np.asarray(value, dtype=np.float32)


def evaluate_baseline(
    dataset: Dataset, test_set: TestSet, windows: EmbeddingWindows, seeds: int, progress: Progress
) -> list[dict[str, float]]:
    """Evaluate the regressions for each seed.

    Parameters
    ----------
    dataset : the training data
    test_set : recordings and their truth
    windows : the embedding model
    seeds : the number of training seeds; a seed assigns the folds and changes no test figure
    progress : gets the number of embedded recordings

    Returns
    -------
    list of dict
        One row per seed: the figures and seconds.
    """
    began = time.perf_counter()
    boxes = embed_boxes(dataset, windows, progress)
    models = fit_regressions(boxes, np.ones(len(boxes.column), dtype=bool), len(dataset.classes))
    seconds = time.perf_counter() - began
    scores = score_test_set(test_set, windows, partial(score_windows, models), progress)
    report = test_set.evaluate(scores, "baseline")
    folds = [assign_folds(dataset, FOLDS, seed) for seed in range(1, seeds + 1)]
    out_of_fold = [_out_of_fold(dataset, boxes, assigned) for assigned in folds]
    return [_row(seed, oof, report, seconds) for seed, oof in enumerate(out_of_fold, start=1)]


def evaluate_zero_shot(
    dataset: Dataset, test_set: TestSet, windows: EmbeddingWindows, seeds: int, progress: Progress
) -> list[dict[str, float]]:
    """Evaluate the embedding model's own probabilities, which no seed changes.

    Parameters
    ----------
    dataset : the training data
    test_set : recordings and their truth
    windows : the embedding model, with a class map
    seeds : the number of training seeds
    progress : gets the number of embedded recordings

    Returns
    -------
    list of dict
        One row per seed: the figures and seconds.
    """
    began = time.perf_counter()
    boxes = embed_boxes(dataset, windows, progress, zero_shot=True)
    seconds = time.perf_counter() - began
    scores = boxes.value[np.arange(len(boxes.column)), boxes.column]
    oof = _report(dataset, boxes, scores)
    report = test_set.evaluate(score_test_set(test_set, windows, None, progress), "zero-shot")
    return [_row(seed, oof, report, seconds) for seed in range(1, seeds + 1)]


def _row(seed: int, oof: Report, test: Report, seconds: float) -> dict[str, float]:
    return {
        "seed": seed,
        "oof_ap": oof.macro_ap.value,
        "oof_auc": oof.macro_auc.value,
        "lwlrap": test.lwlrap.value,
        "macro_ap": test.macro_ap.value,
        "event_f1": NAN,  # a baseline scores recordings, not calls
        "seconds": seconds,
    }


def embed_boxes(
    dataset: Dataset, windows: EmbeddingWindows, progress: Progress, *, zero_shot: bool = False
) -> BoxEmbeddings:
    """Embed a window around the middle of each box, moved to lie inside its recording.

    Parameters
    ----------
    dataset : recordings and boxes
    windows : the embedding model
    progress : gets the number of embedded recordings
    zero_shot : return the model's own probabilities instead of embeddings

    Returns
    -------
    BoxEmbeddings
        One row per box and species.
    """
    boxes: dict[str, list[Annotation]] = {recording.id: [] for recording in dataset.recordings}
    for annotation in dataset.annotations:
        boxes[annotation.recording].append(annotation)
    starts = []
    for recording in dataset.recordings:
        middles = np.array([(box.start + box.stop) / 2 for box in boxes[recording.id]])
        last = max(0.0, recording.duration - windows.seconds)
        starts.append(np.clip(middles - windows.seconds / 2, 0.0, last))
    embeddings = windows.embed(dataset.recordings, starts, progress.of("boxes embedded"))
    rows = [
        (i, column, box.present, _values(windows, value, zero_shot=zero_shot))
        for i, recording in enumerate(dataset.recordings)
        for box, value in zip(boxes[recording.id], embeddings[i], strict=True)
        for column in dataset.classes.columns(box.label)
    ]
    places, columns, present, values = (np.array(x) for x in zip(*rows, strict=True))
    return BoxEmbeddings(places, columns, present, values)


def fit_regressions(
    boxes: BoxEmbeddings, chosen: NDArray[np.bool_], classes: int
) -> list[Pipeline | None]:
    """Fit one logistic regression per species.

    Parameters
    ----------
    boxes : the embeddings of all boxes
    chosen : (rows,), the rows to fit to
    classes : the number of species

    Returns
    -------
    list
        A fitted pipeline per species, None where it lacks present or absent boxes.
    """
    models: list[Pipeline | None] = []
    for column in range(classes):
        rows = chosen & (boxes.column == column)
        present = boxes.present[rows]
        if not (present.any() and not present.all()):
            models.append(None)
            continue
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000)
        )
        models.append(model.fit(boxes.value[rows], present))
    return models


def score_windows(models: list[Pipeline | None], value: Floats) -> NDArray[np.floating]:
    """Score windows with the regressions of all species.

    Parameters
    ----------
    models : one per species
    value : (windows, values)

    Returns
    -------
    array
        Probabilities (windows, classes).
    """
    if not len(value):
        return np.zeros((0, len(models)))
    columns: list[Any] = [
        np.full(len(value), NOT_FITTED) if model is None else model.predict_proba(value)[:, 1]
        for model in models
    ]
    return np.stack(columns, axis=1)


def _out_of_fold(dataset: Dataset, boxes: BoxEmbeddings, folds: NDArray[np.int64]) -> Report:
    """Score each box by regressions that were not fitted to its recording."""
    scores = np.zeros(len(boxes.column))
    for fold in range(FOLDS):
        held_out = folds[boxes.recording] == fold
        models = fit_regressions(boxes, ~held_out, len(dataset.classes))
        probabilities = score_windows(models, boxes.value[held_out])
        scores[held_out] = probabilities[np.arange(held_out.sum()), boxes.column[held_out]]
    return _report(dataset, boxes, scores)


def _report(dataset: Dataset, boxes: BoxEmbeddings, scores: NDArray[np.floating]) -> Report:
    rng = np.random.default_rng(0)  # not used: there are no bootstrap draws
    ids = np.array([recording.id for recording in dataset.recordings], dtype=object)
    names = np.array(dataset.classes.names, dtype=object)
    cells = pd.DataFrame(
        {
            "recording": ids[boxes.recording],
            "species": names[boxes.column],
            "present": boxes.present,
            "score": scores,
        }
    )
    return evaluate_cells(cells, dataset.classes, "baseline", draws=0, rng=rng)


def score_test_set(
    test_set: TestSet,
    windows: EmbeddingWindows,
    score: Callable[[Floats], NDArray[np.floating]] | None,
    progress: Progress,
) -> pd.DataFrame:
    """Score each test recording by the highest score of its windows.

    Parameters
    ----------
    test_set : the recordings
    windows : the embedding model
    score : from (windows, values) to (windows, classes); None for the model's own probabilities
    progress : gets the number of embedded recordings

    Returns
    -------
    DataFrame
        ``recording_id``, then one column per species.
    """
    last = [max(0.0, recording.duration - windows.seconds) for recording in test_set.recordings]
    starts = [np.arange(int(seconds / STEP) + 1) * STEP for seconds in last]
    embeddings = windows.embed(test_set.recordings, starts, progress.of("test recordings embedded"))
    values = [_values(windows, value, zero_shot=score is None) for value in embeddings]
    rows = [(value if score is None else score(value)).max(axis=0) for value in values]
    ids = [recording.id for recording in test_set.recordings]
    return clip_score_table(ids, np.array(rows), test_set.classes.names)


def _values(windows: EmbeddingWindows, value: Floats, *, zero_shot: bool) -> Floats:
    """Split off the model's own logits: the embedding without them, or their probabilities."""
    class_map = windows.class_map or ()
    first_logit = value.shape[-1] - len(class_map)
    if not zero_shot:
        return value[..., :first_logit]
    probability: Floats = expit(value[..., first_logit:])
    return np.where([bool(classes) for classes in class_map], probability, np.float32(0))
