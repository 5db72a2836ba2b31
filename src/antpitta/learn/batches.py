"""Which windows an epoch shows, and in what order: a function of the stage and a generator."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.core.config import Stage
from antpitta.core.types import Annotation, Targets
from antpitta.learn.material import Material
from antpitta.sound.windows import Cuts

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Windows, and what is known of them; targets are (windows, classes)."""

    cuts: Cuts
    heard: Targets
    taught: Targets | None = None  # pseudo labels, with weight 0 where a listener spoke
    rows: Ints | None = None  # (windows,), which of the material's windows these are
    focus: Ints | None = None  # (rows, 3): window, first and last frame; targets are by row then


def epoch_batches(
    stage: Stage,
    material: Material,
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
        groups = _deal(rng.permutation(rows[known]), stage.batch)
    else:
        owner = material.owner[material.cuts.image[rows]]
        by_owner = np.argsort(owner, kind="stable")
        windows, sorted_owner = rows[by_owner], owner[by_owner]
        first, end = (np.searchsorted(sorted_owner, train, side) for side in ("left", "right"))
        place = rng.permutation(len(train))
        order = _deal(place, stage.batch)
        groups = [np.concatenate([windows[first[i] : end[i]] for i in some]) for some in order]
    make = box_batch if stage.loss.on == "boxes" else _windows
    return [make(material, group, taught) for group in groups if len(group)]


def _deal(order: Ints, size: int) -> list[Ints]:
    """In groups of ``size``; a last group of one joins the one before: batch norm needs two."""
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [np.concatenate(groups[-2:])]
    return groups


def _windows(material: Material, rows: Ints, taught: Targets | None) -> Batch:
    pick: Callable[[Targets], Targets] = lambda t: Targets(t.value[rows], t.weight[rows])  # noqa: E731
    return Batch(
        material.cuts.take(rows),
        pick(material.heard),
        None if taught is None else pick(taught),
        rows,
    )


def box_batch(material: Material, rows: Ints, taught: Targets | None) -> Batch:
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
    stage: Stage, material: Material, train: Ints, rng: np.random.Generator
) -> list[Batch]:
    """One crop of each recording with presents, and of some that have absents only."""
    with_present = [r for r in train if any(said.present for said in material.boxes[r])]
    present = set(with_present)
    without = [r for r in train if r not in present and material.boxes[r]]
    drawn = rng.permutation(without)[: stage.absent_crops].astype(np.int64)
    order = rng.permutation(np.array([*with_present, *drawn], dtype=np.int64))
    batches = []
    for group in _deal(order, stage.batch):
        crops = [_crop(stage, material, int(r), rng) for r in group]
        cuts = Cuts(
            np.array([image for image, _ in crops], dtype=np.int64),
            np.array([first for _, first in crops], dtype=np.int64),
            material.cuts.frames,
        )
        batches.append(Batch(cuts, _crop_targets(material, cuts)))
    return batches


def _crop(
    stage: Stage, material: Material, recording: int, rng: np.random.Generator
) -> tuple[int, int]:
    """The image and first frame of a crop around a random box, moved to a random side.

    It is moved back inside its image, so that the box is seldom cut.
    """
    boxes = material.boxes[recording]
    said = [box for box in boxes if box.present] or list(boxes)
    box: Annotation = said[int(rng.integers(len(said)))]
    images = np.flatnonzero(material.owner == recording)
    last = material.grids[images[-1]].end
    middle = (min(box.start, last) + min(box.stop, last)) / 2
    starts = [material.grids[i].start for i in images]
    image = int(images[bisect_right(starts, middle) - 1])
    grid = material.grids[image]
    shift = 0
    if stage.shifts:
        shift = stage.shifts[rng.integers(len(stage.shifts))] * (-1, 1)[rng.integers(2)]
    frames = material.cuts.frames
    first = int((middle - grid.start) / grid.hop) - frames // 2 + shift
    return image, min(max(first, 0), max(0, grid.frames - frames))


def _crop_targets(material: Material, cuts: Cuts) -> Targets:
    """As sound/targets.py draws them, but from spans worked out once: an epoch cuts anew."""
    value = np.zeros((len(cuts), len(material.dataset.classes)), dtype=np.float32)
    weight = np.zeros_like(value)
    for row, (image, first) in enumerate(zip(cuts.image, cuts.first.tolist(), strict=True)):
        for start, stop, column, present in material.spans[image]:  # later writes win
            if start < first + cuts.frames and stop > first:
                value[row, column] = present
                weight[row, column] = 1.0
    return Targets(value, weight)
