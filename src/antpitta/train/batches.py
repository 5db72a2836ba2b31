"""Which windows an epoch shows, and in what order: a function of the stage and a generator."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.core.stages import Stage
from antpitta.core.types import Targets
from antpitta.sound.windows import WindowIndex
from antpitta.train.data import TrainingData

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Windows, and what is known of them; targets are (windows, classes)."""

    windows: WindowIndex
    labels: Targets
    pseudo_labels: Targets | None = None  # pseudo labels, with weight 0 where a listener spoke
    indices: Ints | None = None  # (windows,), which of the material's windows these are
    box_spans: Ints | None = (
        None  # (rows, 3): window, first and last frame; targets are by row then
    )


def epoch_batches(
    stage: Stage,
    training_data: TrainingData,
    train: Ints,
    pseudo_labels: Targets | None,
    rng: np.random.Generator,
) -> list[Batch]:
    """One epoch over the recordings ``train``; ``pseudo_labels`` covers all training windows."""
    if stage.sample == "crops":
        return _crop_batches(stage, training_data, train, rng)
    rows = training_data.windows_of(train)
    if stage.sample == "known":
        known = training_data.labels.weight[rows].any(axis=1)
        if pseudo_labels is not None:
            known |= pseudo_labels.weight[rows].any(axis=1)
        groups = _deal(rng.permutation(rows[known]), stage.batch_size)
    else:
        owner = training_data.recording_index[training_data.windows.image[rows]]
        by_owner = np.argsort(owner, kind="stable")
        windows, sorted_owner = rows[by_owner], owner[by_owner]
        first, end = (np.searchsorted(sorted_owner, train, side) for side in ("left", "right"))
        place = rng.permutation(len(train))
        order = _deal(place, stage.batch_size)
        groups = [np.concatenate([windows[first[i] : end[i]] for i in some]) for some in order]
    make = box_batch if stage.loss.on == "boxes" else _windows
    return [make(training_data, group, pseudo_labels) for group in groups if len(group)]


def _deal(order: Ints, size: int) -> list[Ints]:
    """In groups of ``size``; a last group of one joins the one before: batch norm needs two."""
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [np.concatenate(groups[-2:])]
    return groups


def _windows(training_data: TrainingData, rows: Ints, pseudo_labels: Targets | None) -> Batch:
    pick: Callable[[Targets], Targets] = lambda t: Targets(t.value[rows], t.weight[rows])  # noqa: E731
    return Batch(
        training_data.windows.take(rows),
        pick(training_data.labels),
        None if pseudo_labels is None else pick(pseudo_labels),
        rows,
    )


def box_batch(training_data: TrainingData, rows: Ints, pseudo_labels: Targets | None) -> Batch:
    """Windows, and a target for every box that touches one, judged where the listener listened.

    A pseudo label does not say when: its row has the empty span 0, 0, and is judged by the
    highest logit of its window.
    """
    names = training_data.dataset.classes
    labels, focus = [], []
    for place, row in enumerate(rows):
        image, first = training_data.windows.image[row], int(training_data.windows.first[row])
        for box in training_data.boxes[training_data.recording_index[image]]:
            touched = training_data.grids[image].overlapping_frames(box.start, box.stop)
            start, stop = max(touched.start - first, 0), touched.stop - first
            if start < min(stop, training_data.windows.frames):
                focus.append((place, start, min(stop, training_data.windows.frames)))
                value = np.zeros((2, len(names)), dtype=np.float32)  # value, weight
                value[:, names.columns(box.label)] = [[box.present], [1.0]]
                labels.append(value)
    boxes = np.array(labels, dtype=np.float32).reshape(-1, 2, len(names))
    some = np.zeros(0, dtype=np.int64)
    if pseudo_labels is not None:
        some = np.flatnonzero(pseudo_labels.weight[rows].any(axis=1))
    said = np.concatenate([boxes, np.zeros((len(some), 2, len(names)), dtype=np.float32)])
    spans = [*focus, *[(int(place), 0, 0) for place in some]]
    lesson = None
    if pseudo_labels is not None:
        told = np.stack([pseudo_labels.value[rows[some]], pseudo_labels.weight[rows[some]]], axis=1)
        told = np.concatenate([np.zeros_like(boxes), told])
        lesson = Targets(told[:, 0], told[:, 1])
    where = np.array(spans, dtype=np.int64).reshape(-1, 3)
    return Batch(
        training_data.windows.take(rows), Targets(said[:, 0], said[:, 1]), lesson, rows, where
    )


def _crop_batches(
    stage: Stage, training_data: TrainingData, train: Ints, rng: np.random.Generator
) -> list[Batch]:
    frames, lengths = training_data.windows.frames, training_data.features.lengths
    image, first = training_data.crop_centers.draw(stage, train, frames, lengths, rng)
    labels = training_data.box_frames.tell(image, first, frames, len(training_data.dataset.classes))
    batches = []
    for rows in _deal(np.arange(len(image)), stage.batch_size):
        cuts = WindowIndex(image[rows], first[rows], frames)
        batches.append(Batch(cuts, Targets(labels.value[rows], labels.weight[rows])))
    return batches
