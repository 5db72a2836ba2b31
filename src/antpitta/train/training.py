"""How long each class's boxes are and which bands they lie in: what "boxes" stands for in a recipe.

A head that is taught by the mean over a box is asked, at every moment of a recording, for the mean
over as much sound as a box of that class holds (`head.smoothing_frames`). And it is shown no more than the
bands that its boxes lie in (`head.class_band_limits`): a dozen boxes cannot tell it that what calls
above or below them does not matter.

From a data set and a recipe to trained stages: the part of `train` before the report.

This process draws and deals; where several devices are asked for, others train, and find what was
drawn in the cache.
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

from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.core.types import Annotation, Dataset
from antpitta.files.audio import read
from antpitta.files.cache import cached_features, cached_files, load_features
from antpitta.files.embedding_models import find_embedding_model, resolve_embedding
from antpitta.files.runs import RunFolder
from antpitta.files.species_names import match_embedding_classes
from antpitta.files.tables import write_csv
from antpitta.model.features import build_feature_extractor
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
from antpitta.train.out_of_fold import assign_folds
from antpitta.train.overlays import OverlaidRecording, plan_overlays, read_with_overlays
from antpitta.train.stages import Run, RunCompute, RunMonitor, RunPlan, run_stages


def resolve_recipe(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with all that only the data and the disk tell written in: what a run is of."""
    recipe = resolve_embedding(recipe)
    if recipe.embedding is not None:
        known = match_embedding_classes(recipe.embedding, dataset)
        recipe = recipe.model_copy(update={"embedding": known})
    return fill_class_band_limits(fill_smoothing_frames(recipe, dataset), dataset)


def fill_smoothing_frames(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe, with each class's median box length (frames) written where "boxes" stood.

    Present boxes count where a class has any, else its absent ones; a class without boxes gets
    the median of all. Raises UserError where no box speaks of one class.
    """
    if recipe.head.smoothing_frames != "boxes":
        return recipe
    lengths = [
        float(np.median([box.stop - box.start for box in mine]))
        for mine in _boxes_by_class(dataset, "head.smoothing_frames")
    ]
    drawing = recipe.feature_config
    per_second = drawing.n_frames(drawing.segment) / drawing.segment
    spans = tuple(max(1, round(length * per_second)) for length in lengths)
    head = recipe.head.model_copy(update={"smoothing_frames": spans})
    return recipe.model_copy(update={"head": head})


def fill_class_band_limits(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe, with the bands that each class's boxes touch (from, to) where "boxes" stood.

    They go from the lowest to the highest band of any of the class's boxes, chosen as in
    :func:`fill_smoothing_frames`; a box without frequencies touches all. Raises UserError as it does.
    """
    if recipe.head.class_band_limits != "boxes":
        return recipe
    edges = band_edges(recipe.features)  # band i reaches from edge i to edge i + 2
    found = []
    for mine in _boxes_by_class(dataset, "head.class_band_limits"):
        low, high = min(box.low for box in mine), max(box.high for box in mine)
        touched = np.flatnonzero((edges[2:] > low) & (edges[:-2] < high))
        whole = not len(touched)  # boxes beyond the picture
        bands = (0, recipe.features.n_mels) if whole else (int(touched[0]), int(touched[-1]) + 1)
        found.append(bands)
    head = recipe.head.model_copy(update={"class_band_limits": tuple(found)})
    return recipe.model_copy(update={"head": head})


def _boxes_by_class(dataset: Dataset, what: str) -> list[list[Annotation]]:
    """Present boxes where a class has any, else its absent ones; else those of all."""
    own = [box for box in dataset.annotations if len(dataset.classes.columns(box.label)) == 1]
    if not own:
        raise UserError(
            "E_TODO", f'{what} "boxes": there are no boxes of single species', "leave it out"
        )
    found = []
    for column in range(len(dataset.classes)):
        mine = [box for box in own if dataset.classes.columns(box.label) == [column]]
        found.append([box for box in mine if box.present] or mine or own)
    return found


ONE = ComputeConfig()


def train_stages(
    dataset: Dataset,
    recipe: Recipe,
    folder: RunFolder,
    progress: Progress,
    compute: ComputeConfig = ONE,
) -> None:
    """Draw what is not cached, deal folds, train and score every stage that is not done yet."""
    fabric = build_fabric(compute)
    folds = assign_folds(dataset, recipe.folds, recipe.split_seed)
    sites = {recording.site for recording in dataset.recordings if recording.site}
    if 0 < len(sites) < recipe.folds:
        progress.message(
            f"{len(sites)} sites for {recipe.folds} folds: recordings are dealt, sites split"
        )
    _write_folds(dataset, folds, folder.path / "folds.csv")
    network = find_embedding_model(recipe.embedding) if recipe.embedding else None
    pen = build_feature_extractor(recipe, network)
    copies = plan_overlays(dataset, folds, recipe.overlay, recipe.split_seed)
    hear = read_with_overlays(read, copies, dataset, recipe.feature_config.sample_rate)
    plans = {copy.recording.id: copy.digest for copy in copies}
    all_of_them = [*dataset.recordings, *(copy.recording for copy in copies)]
    drawn = cached_features(
        all_of_them,
        recipe.feature_config.digest,
        lambda recording: pen.extract_all(recording, hear),
        key_suffix=lambda recording: plans.get(recording.id, ""),
        workers=(os.cpu_count() or 1) if network else 2,
        progress=progress.of("embeddings" if network else "spectrograms"),
    )
    given = cached_files(drawn) if compute.devices > 1 else drawn
    learnt = (dataset, recipe, folds, copies)
    run_on_devices(compute, fabric, progress, train_on_features, learnt, folder, given, compute)


def train_on_features(
    fabric: Fabric,
    progress: Progress,
    learnt: tuple[Dataset, Recipe, NDArray[np.int64], list[OverlaidRecording]],
    folder: RunFolder,
    drawn: list[Any],
    compute: ComputeConfig,
) -> None:
    """The part of training that every device has a process for; what is drawn is handed in."""
    dataset, recipe, folds, copies = learnt
    pictures = load_features(drawn) if compute.devices > 1 else drawn
    training_data = build_training_data(dataset, recipe, pictures, fabric.device, copies)
    members = tuple(
        RunFolder(Path(path))
        for stage in recipe.stages
        for path in (stage.pseudo.members if stage.pseudo else ())
    )
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
        run_stages(replace(run, monitor=RunMonitor(progress, partial(_record, board))))
        board.finalize("success")


def _write_folds(dataset: Dataset, folds: np.ndarray, path: Path) -> None:
    rows = [(r.id, r.site or "", int(k)) for r, k in zip(dataset.recordings, folds, strict=True)]
    write_csv(pd.DataFrame(rows, columns=["recording", "site", "fold"]), path)


def _record(board: TensorBoardLogger, row: dict[str, Any]) -> None:
    place = f"{row['stage']}-c{row['cycle']}/fold{row['fold']}"
    board.log_metrics({f"{place}/loss": row["loss"], f"{place}/lr": row["lr"]}, step=row["epoch"])
