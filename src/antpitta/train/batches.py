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
        owner = training_data.recording_index[training_data.windows.segment[rows]]
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
    """Windows with one target for each box that overlaps one.

    A pseudo-label has no time of its own: its row has the empty range 0, 0, and its score is the
    highest logit of its window.
    """
    cuts = training_data.windows.take(rows)
    frames, labels = training_data.box_frames.box_targets(cuts)
    if pseudo_labels is None:
        return Batch(cuts, labels, None, rows, frames)
    labelled = np.flatnonzero(pseudo_labels.weight[rows].any(axis=1))
    empty = np.zeros((len(labelled), labels.value.shape[1]), dtype=np.float32)
    pseudo = Targets(pseudo_labels.value[rows[labelled]], pseudo_labels.weight[rows[labelled]])
    no_pseudo = np.zeros_like(labels.value)
    return Batch(
        cuts,
        _concatenate(labels, Targets(empty, empty)),
        _concatenate(Targets(no_pseudo, no_pseudo), pseudo),
        rows,
        np.concatenate([frames, np.stack([labelled, 0 * labelled, 0 * labelled], axis=1)]),
    )


def _concatenate(first: Targets, second: Targets) -> Targets:
    return Targets(
        np.concatenate([first.value, second.value]), np.concatenate([first.weight, second.weight])
    )


def _crop_batches(
    stage: Stage, training_data: TrainingData, train: Ints, rng: np.random.Generator
) -> list[Batch]:
    frames, lengths = training_data.windows.frames, training_data.features.lengths
    crops = training_data.crop_centers.draw_crops(stage, train, frames, lengths, rng)
    labels = training_data.box_frames.window_targets(crops)
    return [
        Batch(crops.take(rows), Targets(labels.value[rows], labels.weight[rows]))
        for rows in _deal(np.arange(len(crops)), stage.batch_size)
    ]
