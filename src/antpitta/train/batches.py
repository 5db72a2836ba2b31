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

    cuts: WindowIndex
    heard: Targets
    taught: Targets | None = None  # pseudo labels, with weight 0 where a listener spoke
    rows: Ints | None = None  # (windows,), which of the material's windows these are
    focus: Ints | None = None  # (rows, 3): window, first and last frame; targets are by row then


def epoch_batches(
    stage: Stage,
    material: TrainingData,
    train: Ints,
    taught: Targets | None,
    rng: np.random.Generator,
) -> list[Batch]:
    """One epoch over the recordings ``train``; ``taught`` covers all training windows."""
    if stage.sample == "crops":
        return _crop_batches(stage, material, train, rng)
    rows = material.windows_of(train)
    if stage.sample == "known":
        known = material.heard.weight[rows].any(axis=1)
        if taught is not None:
            known |= taught.weight[rows].any(axis=1)
        groups = _deal(rng.permutation(rows[known]), stage.batch_size)
    else:
        owner = material.owner[material.cuts.image[rows]]
        by_owner = np.argsort(owner, kind="stable")
        windows, sorted_owner = rows[by_owner], owner[by_owner]
        first, end = (np.searchsorted(sorted_owner, train, side) for side in ("left", "right"))
        place = rng.permutation(len(train))
        order = _deal(place, stage.batch_size)
        groups = [np.concatenate([windows[first[i] : end[i]] for i in some]) for some in order]
    make = box_batch if stage.loss.on == "boxes" else _windows
    return [make(material, group, taught) for group in groups if len(group)]


def _deal(order: Ints, size: int) -> list[Ints]:
    """In groups of ``size``; a last group of one joins the one before: batch norm needs two."""
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [np.concatenate(groups[-2:])]
    return groups


def _windows(material: TrainingData, rows: Ints, taught: Targets | None) -> Batch:
    pick: Callable[[Targets], Targets] = lambda t: Targets(t.value[rows], t.weight[rows])  # noqa: E731
    return Batch(
        material.cuts.take(rows),
        pick(material.heard),
        None if taught is None else pick(taught),
        rows,
    )


def box_batch(material: TrainingData, rows: Ints, taught: Targets | None) -> Batch:
    """Windows, and a target for every box that touches one, judged where the listener listened.

    A pseudo label does not say when: its row has the empty span 0, 0, and is judged by the
    highest logit of its window.
    """
    names = material.dataset.classes
    heard, focus = [], []
    for place, row in enumerate(rows):
        image, first = material.cuts.image[row], int(material.cuts.first[row])
        for box in material.boxes[material.owner[image]]:
            touched = material.grids[image].touched(box.start, box.stop)
            start, stop = max(touched.start - first, 0), touched.stop - first
            if start < min(stop, material.cuts.frames):
                focus.append((place, start, min(stop, material.cuts.frames)))
                value = np.zeros((2, len(names)), dtype=np.float32)  # value, weight
                value[:, names.columns(box.label)] = [[box.present], [1.0]]
                heard.append(value)
    boxes = np.array(heard, dtype=np.float32).reshape(-1, 2, len(names))
    some = np.zeros(0, dtype=np.int64)
    if taught is not None:
        some = np.flatnonzero(taught.weight[rows].any(axis=1))
    said = np.concatenate([boxes, np.zeros((len(some), 2, len(names)), dtype=np.float32)])
    spans = [*focus, *[(int(place), 0, 0) for place in some]]
    lesson = None
    if taught is not None:
        told = np.stack([taught.value[rows[some]], taught.weight[rows[some]]], axis=1)
        told = np.concatenate([np.zeros_like(boxes), told])
        lesson = Targets(told[:, 0], told[:, 1])
    where = np.array(spans, dtype=np.int64).reshape(-1, 3)
    return Batch(material.cuts.take(rows), Targets(said[:, 0], said[:, 1]), lesson, rows, where)


def _crop_batches(
    stage: Stage, material: TrainingData, train: Ints, rng: np.random.Generator
) -> list[Batch]:
    frames, lengths = material.cuts.frames, material.pictures.lengths
    image, first = material.spots.draw(stage, train, frames, lengths, rng)
    heard = material.spans.tell(image, first, frames, len(material.dataset.classes))
    batches = []
    for rows in _deal(np.arange(len(image)), stage.batch_size):
        cuts = WindowIndex(image[rows], first[rows], frames)
        batches.append(Batch(cuts, Targets(heard.value[rows], heard.weight[rows])))
    return batches
