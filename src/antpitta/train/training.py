"""From a data set and a recipe to trained stages: the part of `train` before the report.

* Values that depend on the data are filled into the recipe first, so that a run's configuration
  is complete. "duration" stands for one, ``head.background_subtraction``: the mean over a short
  clip is mostly its call. "boxes" stands for two of them. ``head.smoothing_frames``: a head that
  is trained on the mean over a box is asked, at every moment of a recording, for the mean over a
  box of that class's usual length. ``head.class_band_limits``: a head sees only the bands that its
  class's boxes lie in, as a dozen boxes cannot show that what calls above or below them does not
  matter.
* This process computes features and assigns folds. Where several devices are asked for, other
  processes train, and find the features in the cache.
"""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from numpy.typing import NDArray

from antpitta.core.config import MAX_SMOOTHING, Recipe
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.core.types import Annotation, Dataset
from antpitta.files.cache import cached_features, cached_files, load_features
from antpitta.files.embedding_models import find_embedding_model, resolve_embedding
from antpitta.files.runs import RunFolder
from antpitta.files.species_names import match_embedding_classes
from antpitta.files.spectrograms import read_training_input
from antpitta.model.backbones import check_weights
from antpitta.model.features import FeatureArray, build_feature_extractor, check_input
from antpitta.sound.mel import band_edges
from antpitta.train.compute import (
    ComputeConfig,
    ParallelFolds,
    build_fabric,
    compiled_models,
    keep_freed_memory,
    run_on_devices,
)
from antpitta.train.data import build_training_data
from antpitta.train.member_tables import MemberTable, read_member_table
from antpitta.train.out_of_fold import assign_folds
from antpitta.train.stages import Run, RunCompute, RunMonitor, RunPlan, run_stages

DEFAULT_COMPUTE = ComputeConfig()
FULL_SUBTRACTION = 0.5  # of the background, where recordings last FULL_DURATION or more
FULL_DURATION = 60.0  # seconds
MIN_SUBTRACTION = 0.001  # above 0, so that the head has a normalizer


# ---- the recipe


def resolve_recipe(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Fill in all values that depend on the data set or on files.

    Parameters
    ----------
    recipe
        The recipe as the user wrote it.
    dataset
        The recordings, boxes and classes.

    Returns
    -------
    recipe
        A copy without open values.

    Raises
    ------
    UserError
        ``E_NO_BOXES`` where "boxes" stands for values and there are none, ``E_SETTING_VALUE``
        for values of another number of species, and as
        :func:`~antpitta.model.features.check_input` and
        :func:`~antpitta.files.embedding_models.resolve_embedding` do.
    """
    check_input(recipe, spectrograms=_has_spectrograms(dataset))
    recipe = resolve_embedding(recipe)
    if recipe.embedding is not None:
        embedding = match_embedding_classes(recipe.embedding, dataset)
        recipe = recipe.model_copy(update={"embedding": embedding})
    recipe = fill_background_subtraction(recipe, dataset)
    recipe = fill_class_band_limits(fill_smoothing_frames(recipe, dataset), dataset)
    for key in ("smoothing_frames", "class_band_limits"):
        value = getattr(recipe.head, key)
        if isinstance(value, tuple) and len(value) != len(dataset.classes):
            raise UserError(
                "E_SETTING_VALUE",
                f"head.{key} has {len(value)} values, and there are {len(dataset.classes)} species",
                "give one for each species",
            )
    return recipe


def fill_background_subtraction(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Replace ``background_subtraction = "duration"`` by a share that fits the recordings.

    The mean over a minute is its background, and the mean over a clip of some seconds is mostly the
    call in it.

    Parameters
    ----------
    recipe
        The recipe; with another value it is returned unchanged.
    dataset
        The recordings.

    Returns
    -------
    recipe
        With the share 0.5 where the median recording lasts a minute, and in proportion to its
        duration below that.
    """
    if recipe.head.background_subtraction != "duration":
        return recipe
    median = float(np.median([recording.duration for recording in dataset.recordings]))
    share = max(MIN_SUBTRACTION, round(FULL_SUBTRACTION * min(1, median / FULL_DURATION), 3))
    head = recipe.head.model_copy(update={"background_subtraction": share})
    return recipe.model_copy(update={"head": head})


def fill_smoothing_frames(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Replace ``smoothing_frames = "boxes"`` by each class's median box length, in frames.

    Present boxes count where a class has any, else its absent ones, else those of all classes.

    Parameters
    ----------
    recipe
        The recipe; with another value it is returned unchanged.
    dataset
        The boxes and the classes.

    Returns
    -------
    recipe
        With one number of frames for each class.

    Raises
    ------
    UserError
        ``E_NO_BOXES`` where no box is about a single class.
    """
    if recipe.head.smoothing_frames != "boxes":
        return recipe
    lengths = [
        float(np.median([box.stop - box.start for box in boxes]))
        for boxes in _boxes_by_class(dataset, "head.smoothing_frames")
    ]
    config = recipe.feature_config
    frames_per_second = config.n_frames(config.segment) / config.segment
    frames = tuple(
        min(max(1, round(length * frames_per_second)), MAX_SMOOTHING) for length in lengths
    )
    head = recipe.head.model_copy(update={"smoothing_frames": frames})
    return recipe.model_copy(update={"head": head})


def fill_class_band_limits(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Replace ``class_band_limits = "boxes"`` by the mel bands (first, end) of each class's boxes.

    The bands go from the lowest to the highest one that any of the boxes overlaps. Boxes are chosen
    as in :func:`fill_smoothing_frames`; a box without frequencies overlaps all bands.

    Parameters
    ----------
    recipe
        The recipe; with another value it is returned unchanged.
    dataset
        The boxes and the classes.

    Returns
    -------
    recipe
        With one pair of bands for each class.

    Raises
    ------
    UserError
        ``E_NO_BOXES`` where no box is about a single class.
    """
    if recipe.head.class_band_limits != "boxes":
        return recipe
    edges = band_edges(recipe.features)  # band i reaches from edge i to edge i + 2
    limits = []
    for boxes in _boxes_by_class(dataset, "head.class_band_limits"):
        low, high = min(box.low for box in boxes), max(box.high for box in boxes)
        bands = np.flatnonzero((edges[2:] > low) & (edges[:-2] < high))
        is_outside = not len(bands)  # boxes above or below all bands
        all_bands = (0, recipe.features.n_mels)
        limits.append(all_bands if is_outside else (int(bands[0]), int(bands[-1]) + 1))
    head = recipe.head.model_copy(update={"class_band_limits": tuple(limits)})
    return recipe.model_copy(update={"head": head})


def _boxes_by_class(dataset: Dataset, setting: str) -> list[list[Annotation]]:
    """For each class its present boxes, or its absent ones, or those of all classes."""
    columns = [dataset.classes.columns(box.label) for box in dataset.annotations]
    single = [
        (box, own[0])
        for box, own in zip(dataset.annotations, columns, strict=True)
        if len(own) == 1
    ]
    if not single:
        raise UserError(
            "E_NO_BOXES",
            f'{setting} = "boxes" needs boxes of single species, and there are none',
            f"add boxes, or leave {setting} out",
        )
    boxes_by_class = []
    for column in range(len(dataset.classes)):
        boxes = [box for box, own in single if own == column]
        present = [box for box in boxes if box.present]
        boxes_by_class.append(present or boxes or [box for box, _ in single])
    return boxes_by_class


# ---- training


def check_pretrained_weights(recipe: Recipe, folder: RunFolder) -> None:
    """Look for the pretrained weights that a run will start from.

    Parameters
    ----------
    recipe
        The recipe of the run.
    folder
        The run's folder; models that it holds need no pretrained weights any more.

    Raises
    ------
    UserError
        As :func:`antpitta.model.backbones.build_backbone` does.
    """
    weights = [
        folder.stage(stage.name) / f"fold{fold}.safetensors"
        for stage in recipe.stages
        if stage.init_from is None
        for fold in range(recipe.folds)
    ]
    if not all(file.is_file() for file in weights):
        check_weights(recipe.backbone, recipe.features.n_mels)


def read_members(dataset: Dataset, recipe: Recipe) -> tuple[RunFolder | MemberTable, ...]:
    """Find the runs and read the tables whose scores join in the pseudo-labels.

    Parameters
    ----------
    dataset
        The recordings and classes.
    recipe
        The settings; ``pseudo.members`` of its stages are paths.

    Returns
    -------
    members
        Scores of runs are read when they are needed.

    Raises
    ------
    UserError
        ``E_NO_RUN`` for a folder without a run, and as
        :func:`antpitta.train.member_tables.read_member_table` does.
    """
    members: dict[str, RunFolder | MemberTable] = {}
    for pseudo in (stage.pseudo for stage in recipe.stages if stage.pseudo):
        for text in pseudo.members:
            path = Path(text)
            if path.is_dir():
                members[text] = RunFolder(path)
                RunFolder(path).config()
            else:
                members[text] = read_member_table(path, dataset, unproven=pseudo.unproven_members)
    return tuple(members.values())


def train_stages(
    dataset: Dataset,
    recipe: Recipe,
    folder: RunFolder,
    progress: Progress,
    compute: ComputeConfig = DEFAULT_COMPUTE,
) -> None:
    """Compute features, assign folds, and train and score every stage that is not finished yet.

    Parameters
    ----------
    dataset
        The recordings, boxes and classes.
    recipe
        The settings, resolved by :func:`resolve_recipe`.
    folder
        Where the run is kept.
    progress
        Messages and progress for the user.
    compute
        The devices and the precision.

    Raises
    ------
    UserError
        As :func:`build_fabric`, :func:`assign_folds` and :func:`run_stages` do.
    """
    fabric = build_fabric(compute)
    folds = assign_folds(dataset, recipe.folds, recipe.split_seed)
    sites = {recording.site for recording in dataset.recordings if recording.site}
    if 0 < len(sites) < recipe.folds:
        progress.message(
            f"{len(sites)} sites are too few for {recipe.folds} folds: a site's recordings can be "
            "in several folds"
        )
    _write_folds(dataset, folds, folder)
    features = _compute_features(dataset, recipe, progress)
    sendable = cached_files(features) if compute.devices > 1 else features
    run_on_devices(
        compute,
        fabric,
        progress,
        train_on_features,
        *(dataset, recipe, folds, sendable, folder, compute),
    )


def _has_spectrograms(dataset: Dataset) -> bool:
    return any(recording.spectrogram is not None for recording in dataset.recordings)


def _compute_features(dataset: Dataset, recipe: Recipe, progress: Progress) -> list[FeatureArray]:
    """The features of all recordings, from the cache where it has them."""
    model = find_embedding_model(recipe.embedding) if recipe.embedding else None
    extractor = build_feature_extractor(recipe, model)
    return cached_features(
        list(dataset.recordings),
        recipe.feature_config.digest,
        lambda recording, notes: extractor.extract_all(
            recording, partial(read_training_input, notes=notes)
        ),
        workers=(os.cpu_count() or 1) if model else 2,
        progress=progress.of("embeddings" if model else "spectrograms"),
    )


def train_on_features(
    fabric: Fabric,
    progress: Progress,
    dataset: Dataset,
    recipe: Recipe,
    folds: NDArray[np.int64],
    features: list[Any],
    folder: RunFolder,
    compute: ComputeConfig,
) -> None:
    """Train and score all stages: the part of training that every device has a process for.

    Parameters
    ----------
    fabric, compute
        The device of this process, and the configuration.
    progress
        Messages and progress for the user.
    dataset, recipe
        The data and the settings.
    folds : (recordings,)
        The fold of each recording of the data set.
    features : one array, or the path of its file with several devices, for each recording
        Those of the data set.
    folder
        Where the run is kept.

    Raises
    ------
    UserError
        As :func:`run_stages` does.
    """
    arrays = load_features(features) if compute.devices > 1 else features
    training_data = build_training_data(dataset, recipe, arrays, fabric.device)
    members = read_members(dataset, recipe)
    parallel_folds = ParallelFolds(compute.parallel_folds, fabric.device)
    run = Run(
        RunPlan(recipe, training_data, folds, members),
        folder,
        RunCompute(fabric, parallel_folds, compiled_models(compute)),
        RunMonitor(progress),
    )
    with keep_freed_memory():
        if not run.is_main_process:
            run_stages(run)
            return
        board = TensorBoardLogger(root_dir=folder.path, name="tensorboard", version="")
        run_stages(replace(run, monitor=RunMonitor(progress, partial(_log_to_board, board))))
        board.finalize("success")


def _write_folds(dataset: Dataset, folds: NDArray[np.int64], folder: RunFolder) -> None:
    rows = [(r.id, r.site or "", int(k)) for r, k in zip(dataset.recordings, folds, strict=True)]
    folder.write_folds(pd.DataFrame(rows, columns=["recording", "site", "fold"]))


def _log_to_board(board: TensorBoardLogger, row: dict[str, Any]) -> None:
    name = f"{row['stage']}-c{row['cycle']}/fold{row['fold']}"
    board.log_metrics({f"{name}/loss": row["loss"], f"{name}/lr": row["lr"]}, step=row["epoch"])
