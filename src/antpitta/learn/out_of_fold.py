"""Scores by models that never saw the recording: made, gathered, and read again for a lesson."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from antpitta.core.config import Windows
from antpitta.core.errors import UserMistake
from antpitta.core.types import Dataset, Scores
from antpitta.files.runs import RunFolder, read_scores
from antpitta.learn.material import Material
from antpitta.learn.pseudo import Heard
from antpitta.net.folding import folded
from antpitta.net.scan import scan, scan_batch, unit_of
from antpitta.net.seams import join
from antpitta.net.sed import SedNet

Ints = NDArray[np.int64]


def scan_recordings(
    net: SedNet, material: Material, windows: Windows, recordings: Ints, source: str, fabric: Fabric
) -> list[Scores]:
    """Framewise scores of these recordings of the data set, signed with ``source``."""
    images = material.images_of(recordings)
    batch = scan_batch(windows.frames, fabric.device.type)
    parts = scan(
        folded(net),
        material.pictures,
        images,
        windows.frames,
        windows.scan_overlap,
        batch,
        precision=fabric.autocast,
    )
    unit = unit_of(net.stride, windows.frames, windows.scan_overlap)
    found = []
    for i in recordings:
        mine = np.flatnonzero(material.owner[images] == i)
        grids = [material.grids[images[j]] for j in mine]
        value, grid = join([parts[j] for j in mine], grids, unit)
        recording = material.dataset.recordings[i].id
        found.append(Scores(recording, grid, material.dataset.classes, value, source))
    return found


def gather_scores(fabric: Fabric, found: list[Scores]) -> list[Scores]:
    """What all processes found, in the first; nothing in the others."""
    if fabric.world_size == 1:
        return found
    parts: list[Any] | None = [None] * fabric.world_size if fabric.is_global_zero else None
    torch.distributed.gather_object(found, parts)
    return [] if parts is None else [one for part in parts for one in part]


def heard_out_of_fold(dataset: Dataset, path: Path, folds: Ints) -> list[Heard]:
    """Scores, each with the recordings that the fold's model behind it trained on.

    The fold is read off the scores' own signature, never assumed. Raises UserMistake where
    another run's scores are of other recordings or species than those of ``dataset``.
    """
    ids = [recording.id for recording in dataset.recordings]
    found = read_scores(path)
    if missing := sorted(set(ids) - {scores.recording for scores in found}):
        raise UserMistake(
            f"{path}: has no scores of {len(missing)} recordings of this run, such as "
            f"{missing[0]}; take members that were trained on the same data"
        )
    if found[0].classes != dataset.classes:
        raise UserMistake(f"{path}: has other species; take members trained on the same data")
    trained = {
        fold: frozenset(one for one, its in zip(ids, folds, strict=True) if its != fold)
        for fold in np.unique(folds)
    }
    return [Heard(scores, trained[int(scores.source.rpartition("fold")[2])]) for scores in found]


def folds_of(dataset: Dataset, other: RunFolder) -> Ints:
    """The folds that another run dealt to these recordings."""
    dealt = other.folds()
    return np.array([dealt.get(one.id, -1) for one in dataset.recordings], dtype=np.int64)
