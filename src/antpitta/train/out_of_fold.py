"""Folds that keep together what belongs together.

A site is never split, nor a recording where no site is known; a recording's present and absent
boxes stay on one side with it. Groups are dealt so that every fold gets its share of each
species' presents and absents (iterative stratification, Sechidis et al. 2011).

Scores by models that never saw the recording: made, gathered, and read again for a lesson.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from lightning_fabric import Fabric
from numpy.typing import NDArray

from antpitta.core.config import WindowConfig
from antpitta.core.errors import UserError
from antpitta.core.types import Dataset, Scores
from antpitta.files.runs import RunFolder, read_scores
from antpitta.model.features import stitch_segments
from antpitta.model.fusion import fuse_conv_bn
from antpitta.model.network import SedNet
from antpitta.model.torch_inference import predict_sliding, windows_per_batch, frames_per_row
from antpitta.train.data import TrainingData
from antpitta.train.pseudo import OutOfFoldScores


def assign_folds(dataset: Dataset, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each recording: (recordings,).

    Where there are fewer sites than folds, recordings are dealt instead. Raises UserError
    where even those are too few.
    """
    groups = group_recordings(dataset, folds)
    names, of = np.unique(groups, return_inverse=True)
    if len(names) < folds:
        raise UserError(
            "E_TODO",
            f"{len(names)} recordings cannot be dealt to {folds} folds",
            f"give more recordings, or --set folds={max(2, len(names))}",
        )
    flags = np.zeros((len(names), 2 * len(dataset.classes)), dtype=np.int64)
    place = {recording.id: i for i, recording in enumerate(dataset.recordings)}
    for said in dataset.annotations:
        for column in dataset.classes.columns(said.label):
            flags[of[place[said.recording]], 2 * column + said.present] = 1
    dealt = np.zeros(len(names), dtype=np.int64)
    dealer = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(dealer.split(np.zeros(len(names)), flags)):
        dealt[held_out] = fold
    if len(np.unique(dealt)) < folds:  # too few labels to steer by: deal in turn
        dealt = np.random.default_rng(seed).permutation(np.arange(len(names)) % folds)
    return dealt[of]


def group_recordings(dataset: Dataset, folds: int) -> list[str]:
    """What a fold must not split, for each recording: its site, or itself."""
    sites = {recording.site for recording in dataset.recordings if recording.site}
    if len(sites) < folds:
        return [recording.id for recording in dataset.recordings]
    return [
        f"site {recording.site}" if recording.site else recording.id
        for recording in dataset.recordings
    ]


Ints = NDArray[np.int64]


def score_recordings(
    net: SedNet,
    training_data: TrainingData,
    windows: WindowConfig,
    recordings: Ints,
    source: str,
    fabric: Fabric,
) -> list[Scores]:
    """Framewise scores of these recordings of the data set, signed with ``source``."""
    images = training_data.segments_of(recordings)
    batch = windows_per_batch(windows.frames, fabric.device.type)
    parts = predict_sliding(
        fuse_conv_bn(net),
        training_data.features,
        images,
        windows.frames,
        windows.inference_overlap,
        batch,
        precision=fabric.autocast,
    )
    unit = frames_per_row(net.stride, windows.frames, windows.inference_overlap)
    found = []
    for i in recordings:
        mine = np.flatnonzero(training_data.recording_index[images] == i)
        grids = [training_data.grids[images[j]] for j in mine]
        value, grid = stitch_segments([parts[j] for j in mine], grids, unit)
        recording = training_data.dataset.recordings[i].id
        found.append(Scores(recording, grid, training_data.dataset.classes, value, source))
    return found


def gather_scores(fabric: Fabric, found: list[Scores]) -> list[Scores]:
    """What all processes found, in the first; nothing in the others."""
    if fabric.world_size == 1:
        return found
    parts: list[Any] | None = [None] * fabric.world_size if fabric.is_global_zero else None
    torch.distributed.gather_object(found, parts)
    return [] if parts is None else [one for part in parts for one in part]


def read_out_of_fold(dataset: Dataset, path: Path, folds: Ints) -> list[OutOfFoldScores]:
    """Scores, each with the recordings that the fold's model behind it trained on.

    The fold is read off the scores' own signature, never assumed. Raises UserError where
    another run's scores are of other recordings or species than those of ``dataset``.
    """
    ids = [recording.id for recording in dataset.recordings]
    found = read_scores(path)
    if missing := sorted(set(ids) - {scores.recording for scores in found}):
        raise UserError(
            "E_TODO",
            f"{path}: has no scores of {len(missing)} recordings of this run, such as {missing[0]}",
            "take members that were trained on the same data",
        )
    if found[0].classes != dataset.classes:
        raise UserError(
            "E_TODO", f"{path}: has other species", "take members trained on the same data"
        )
    trained = {
        fold: frozenset(one for one, its in zip(ids, folds, strict=True) if its != fold)
        for fold in np.unique(folds)
    }
    return [
        OutOfFoldScores(scores, trained[int(scores.source.rpartition("fold")[2])])
        for scores in found
    ]


def match_folds(dataset: Dataset, other: RunFolder) -> Ints:
    """The folds that another run dealt to these recordings."""
    dealt = other.folds()
    return np.array([dealt.get(one.id, -1) for one in dataset.recordings], dtype=np.int64)
