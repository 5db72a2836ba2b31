"""Folds, and scores of recordings by models that never trained on them.

Folds keep together what belongs together. A site is never split; where sites are unknown, a
recording is not. A recording's present and absent boxes are always in its fold. Groups are
distributed so that every fold gets its share of each species' present and absent boxes (iterative
stratification: Sechidis, Tsoumakas and Vlahavas, On the stratification of multi-label data, 2011).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from lightning_fabric import Fabric
from numpy.typing import NDArray

from antpitta.core.config import WindowConfig
from antpitta.core.errors import UserError
from antpitta.core.types import Dataset, Scores, WindowScores
from antpitta.files.runs import RunFolder, read_scores, read_windows
from antpitta.model.features import stitch_segments
from antpitta.model.fusion import fuse_conv_bn
from antpitta.model.network import SedNet
from antpitta.model.torch_inference import (
    frames_per_row,
    merge_windows,
    predict_sliding,
    predict_windows,
    windows_per_batch,
)
from antpitta.scores.metrics import lwlrap
from antpitta.train.data import TrainingData
from antpitta.train.member_tables import MemberTable
from antpitta.train.pseudo import OutOfFoldScores
from antpitta.train.step_store import BackboneFeatures

Ints = NDArray[np.int64]
ReadScores = Callable[[Path], Sequence[Scores | WindowScores]]
SCORE_FILES: dict[str, tuple[str, ReadScores]] = {  # of a stage, by pseudo.scores
    "framewise": ("oof_scores.parquet", read_scores),
    "clipwise": ("oof_windows.parquet", read_windows),
}
T = TypeVar("T")


# ---- folds


def assign_folds(dataset: Dataset, folds: int, seed: int) -> Ints:
    """Assign each recording to a fold.

    Parameters
    ----------
    dataset
        The recordings, their sites and boxes.
    folds
        The number of folds. With fewer sites than folds, recordings are distributed instead.
    seed
        Equal seeds give equal folds.

    Returns
    -------
    folds : (recordings,)

    Raises
    ------
    UserError
        ``E_FEW_RECORDINGS`` with fewer recordings than folds.
    """
    names, group = np.unique(group_recordings(dataset, folds), return_inverse=True)
    if len(names) < folds:
        raise UserError(
            "E_FEW_RECORDINGS",
            f"{len(names)} recordings are too few for {folds} folds",
            f"add recordings, or use --set folds={max(2, len(names))}",
        )
    labels = np.zeros((len(names), 2 * len(dataset.classes)), dtype=np.int64)
    index = {recording.id: i for i, recording in enumerate(dataset.recordings)}
    for box in dataset.annotations:
        for column in dataset.classes.columns(box.label):
            labels[group[index[box.recording]], 2 * column + box.present] = 1
    assigned = np.zeros(len(names), dtype=np.int64)
    splitter = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(names)), labels)):
        assigned[held_out] = fold
    if len(np.unique(assigned)) < folds:  # too few labels to stratify by
        assigned = np.random.default_rng(seed).permutation(np.arange(len(names)) % folds)
    return assigned[group]


def group_recordings(dataset: Dataset, folds: int) -> list[str]:
    """The group of each recording, which no fold may split.

    Parameters
    ----------
    dataset
        The recordings and their sites.
    folds
        The number of folds.

    Returns
    -------
    groups : (recordings,)
        The site, or the recording's own id: where its site is unknown, and for all recordings where
        there are fewer sites than folds.
    """
    sites = {recording.site for recording in dataset.recordings if recording.site}
    if len(sites) < folds:
        return [recording.id for recording in dataset.recordings]
    return [
        f"site {recording.site}" if recording.site else recording.id
        for recording in dataset.recordings
    ]


def match_folds(dataset: Dataset, run: RunFolder) -> Ints:
    """The fold of each recording in another run.

    Parameters
    ----------
    dataset
        The recordings of this run.
    run
        The folder of the other run.

    Returns
    -------
    folds : (recordings,)
        The fold, or -1 for a recording that the other run does not have.
    """
    folds = run.folds()
    return np.array([folds.get(r.id, -1) for r in dataset.recordings], dtype=np.int64)


# ---- scores


def score_recordings(
    net: SedNet,
    training_data: TrainingData,
    windows: WindowConfig,
    recordings: Ints,
    source: str,
    fabric: Fabric,
    backbone_features: BackboneFeatures | None = None,
) -> list[Scores]:
    """Score recordings of the data set, frame by frame.

    Parameters
    ----------
    net
        The network, on the device of ``fabric``.
    training_data
        The features of the recordings.
    windows
        The length of the windows and their overlap.
    recordings : indices
        The recordings to score.
    source
        The model's name in the scores.
    fabric
        The device and the precision.
    backbone_features
        Those of all training windows: used where recordings are scored by the same windows.

    Returns
    -------
    scores
        One for each recording, in the order of ``recordings``.
    """
    segments = training_data.segments_of(recordings)
    batch = windows_per_batch(windows.frames, fabric.device.type)
    row_frames = frames_per_row(net.stride, windows.frames, windows.inference_overlap)
    if backbone_features is not None and windows.inference_overlap == windows.overlap:
        parts = _score_features(net, training_data, segments, backbone_features, batch, row_frames)
    else:
        parts = predict_sliding(
            fuse_conv_bn(net),
            training_data.features,
            segments,
            windows.frames,
            windows.inference_overlap,
            batch,
            precision=fabric.autocast,
        )
    dataset, scores = training_data.dataset, []
    owner = training_data.recording_index[segments]
    for i, own in zip(recordings, _rows_of(recordings, owner), strict=True):
        grids = [training_data.grids[segments[j]] for j in own]
        value, grid = stitch_segments([parts[j] for j in own], grids, row_frames)
        scores.append(Scores(dataset.recordings[i].id, grid, dataset.classes, value, source))
    return scores


@torch.inference_mode()
def _score_features(
    net: SedNet,
    training_data: TrainingData,
    segments: Ints,
    features: BackboneFeatures,
    batch: int,
    row_frames: int,
) -> list[NDArray[np.float32]]:
    """Framewise probabilities (rows, classes) of each segment, from features of its windows."""
    net.eval()
    index = training_data.windows
    windows = np.flatnonzero(np.isin(index.segment, segments))  # segment by segment, as both rise
    probabilities = (
        window
        for i in range(0, len(windows), batch)
        for window in net(None, features=features.store.gather(windows[i : i + batch]))
        .framewise.sigmoid()
        .cpu()
        .numpy()
    )
    lengths = training_data.features.lengths
    edges = [np.searchsorted(index.segment, segments, side) for side in ("left", "right")]
    return [
        merge_windows(
            probabilities,
            index.start[first:end].tolist(),
            -(-int(lengths[segment]) // row_frames),
            row_frames,
            net.stride,
        )
        for segment, first, end in zip(segments, edges[0], edges[1], strict=True)
    ]


def _rows_of(recordings: Ints, owner: Ints) -> list[Ints]:
    """The rows of each recording, where ``owner`` (rows,) gives their recordings and rises."""
    edges = [np.searchsorted(owner, recordings, side) for side in ("left", "right")]
    return [np.arange(first, end) for first, end in zip(*edges, strict=True)]


def held_out_lwlrap(
    net: SedNet,
    training_data: TrainingData,
    windows: WindowConfig,
    recordings: Ints,
    fabric: Fabric,
) -> float:
    """LWLRAP of recordings with present boxes, where all species without one are rivals.

    Parameters
    ----------
    net
        The network, on the device of ``fabric``.
    training_data
        The features and the boxes.
    windows
        The length of the windows and their overlap.
    recordings : indices
        The recordings; those without a present box do not count.
    fabric
        The device and the precision.

    Returns
    -------
    lwlrap
        NaN without any present box.
    """
    recordings = training_data.crop_centers[0].having(recordings)
    if not len(recordings):
        return float("nan")
    classes = training_data.dataset.classes
    truth = np.zeros((len(recordings), len(classes)), dtype=bool)
    for row, recording in enumerate(recordings):
        for box in training_data.boxes[recording]:
            truth[row, classes.columns(box.label)] |= box.present
    scores = score_recordings(net, training_data, windows, recordings, "", fabric)
    return lwlrap(truth, np.array([score.value.max(axis=0) for score in scores])).value


def score_windows(
    net: SedNet, training_data: TrainingData, recordings: Ints, source: str, fabric: Fabric
) -> list[WindowScores]:
    """Score the training windows of recordings of the data set, window by window.

    Parameters
    ----------
    net
        The network, on the device of ``fabric``.
    training_data
        The windows and their features.
    recordings : indices
        The recordings to score.
    source
        The model's name in the scores.
    fabric
        The device and the precision.

    Returns
    -------
    scores
        One for each recording, in the order of ``recordings``.
    """
    windows, scores = training_data.windows, []
    indices = training_data.windows_of(recordings)
    batch = windows_per_batch(windows.frames, fabric.device.type)
    logits = predict_windows(
        fuse_conv_bn(net),
        training_data.features,
        windows.take(indices),
        batch,
        precision=fabric.autocast,
    )
    owner = training_data.recording_index[windows.segment[indices]]
    dataset = training_data.dataset
    for i, own in zip(recordings, _rows_of(recordings, owner), strict=True):
        times = [training_data.window_times(indices[row]) for row in own]
        start, stop = np.array(times).reshape(-1, 2).T
        id = dataset.recordings[i].id
        scores.append(WindowScores(id, start, stop, dataset.classes, logits[own], source))
    return scores


def gather_scores(fabric: Fabric, scores: list[T]) -> list[T]:
    """Collect the scores of all processes in the main process.

    Parameters
    ----------
    fabric
        The processes.
    scores
        Those of this process.

    Returns
    -------
    scores
        In the main process those of all processes, by rank; in the others none.
    """
    if fabric.world_size == 1:
        return scores
    parts: list[Any] | None = [None] * fabric.world_size if fabric.is_global_zero else None
    torch.distributed.gather_object(scores, parts)
    return [] if parts is None else [score for part in parts for score in part]


def read_out_of_fold(
    dataset: Dataset,
    path: Path,
    folds: Ints,
    read: ReadScores = read_scores,
) -> list[OutOfFoldScores]:
    """Read scores, each with the recordings that its model was trained on.

    The fold of each model is taken from the scores' own source, never assumed.

    Parameters
    ----------
    dataset
        The recordings and classes of this run.
    path
        The ``oof_scores.parquet`` or ``oof_windows.parquet`` of this run or of another one.
    folds : (recordings,)
        The folds of the run that made the scores.
    read
        Reads the file.

    Returns
    -------
    scores
        Those of each recording in the file, in its order.

    Raises
    ------
    UserError
        ``E_OTHER_DATA`` where the scores are of other recordings or species, ``E_RUN_UNFINISHED``
        without the file.
    """
    ids = [recording.id for recording in dataset.recordings]
    scores = read(path)
    if missing := sorted(set(ids) - {score.recording for score in scores}):
        raise UserError(
            "E_OTHER_DATA",
            f"{path} has no scores of {len(missing)} recordings of this run, such as {missing[0]}",
            "use members that were trained on the same data",
        )
    if scores[0].classes != dataset.classes:
        raise UserError(
            "E_OTHER_DATA",
            f"{path} has other species than this run",
            "use members that were trained on the same data",
        )
    trained_on = {
        fold: frozenset(id for id, own in zip(ids, folds, strict=True) if own != fold)
        for fold in np.unique(folds)
    }
    return [
        OutOfFoldScores(score, trained_on[int(score.source.rpartition("fold")[2])])
        for score in scores
    ]


def read_member(
    dataset: Dataset, member: RunFolder | MemberTable, scores: str
) -> list[OutOfFoldScores]:
    """The scores of another run, or of a table.

    Parameters
    ----------
    dataset
        The recordings and classes of this run.
    member
        The other run, or the table.
    scores
        ``"framewise"`` or ``"clipwise"``, for a run.

    Returns
    -------
    scores
        As from :func:`read_out_of_fold`.

    Raises
    ------
    UserError
        As :func:`read_out_of_fold` does.
    """
    if isinstance(member, MemberTable):
        return list(member.scores)
    name, read = SCORE_FILES[scores]
    path = (member.shipped_stage if scores == "clipwise" else member.path) / name
    return read_out_of_fold(dataset, path, match_folds(dataset, member), read)
