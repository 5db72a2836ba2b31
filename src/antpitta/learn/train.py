"""From a data set and a recipe to trained stages: the part of `train` before the report.

This process draws and deals; where several devices are asked for, others train, and find what was
drawn in the cache.
"""

import os
from collections.abc import Callable
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
from antpitta.core.types import Dataset
from antpitta.core.voice import Voice
from antpitta.files.audio import read
from antpitta.files.cache import cached_pictures, fetch_pictures, shelved
from antpitta.files.embedding import find_network
from antpitta.files.runs import RunFolder
from antpitta.files.tables import write_csv
from antpitta.learn.copies import Copy, hearing_copies, plan_copies
from antpitta.learn.engine import Engine, build_fabric, shells_of, work_on
from antpitta.learn.folds import deal_folds
from antpitta.learn.lanes import Lanes
from antpitta.learn.material import gather_material
from antpitta.learn.memory import memory_kept
from antpitta.learn.run import Run
from antpitta.learn.stages import run_stages
from antpitta.net.drawing import make_pen

ONE = Engine()


def train_stages(
    dataset: Dataset,
    recipe: Recipe,
    folder: RunFolder,
    voice: Voice,
    engine: Engine = ONE,
) -> None:
    """Draw what is not cached, deal folds, train and score every stage that is not done yet."""
    fabric = build_fabric(engine)
    folds = deal_folds(dataset, recipe.folds, recipe.deal)
    sites = {recording.site for recording in dataset.recordings if recording.site}
    if 0 < len(sites) < recipe.folds:
        voice.say(f"{len(sites)} sites for {recipe.folds} folds: recordings are dealt, sites split")
    _write_folds(dataset, folds, folder.path / "folds.csv")
    network = find_network(recipe.embedding) if recipe.embedding else None
    pen = make_pen(recipe, network)
    copies = plan_copies(dataset, folds, recipe.paste, recipe.deal)
    hear = hearing_copies(read, copies, dataset, recipe.drawing.sample_rate)
    plans = {copy.recording.id: copy.digest for copy in copies}
    all_of_them = [*dataset.recordings, *(copy.recording for copy in copies)]
    drawn = cached_pictures(
        all_of_them,
        recipe.drawing.digest,
        lambda recording: pen.whole(recording, hear),
        plan=lambda recording: plans.get(recording.id, ""),
        workers=(os.cpu_count() or 1) if network else 2,
        tick=_count(len(all_of_them), voice, "embeddings" if network else "spectrograms"),
    )
    given = shelved(drawn) if engine.devices > 1 else drawn
    learnt = (dataset, recipe, folds, copies)
    work_on(engine, fabric, voice, train_drawn, learnt, folder, given, engine)


def train_drawn(
    fabric: Fabric,
    voice: Voice,
    learnt: tuple[Dataset, Recipe, NDArray[np.int64], list[Copy]],
    folder: RunFolder,
    drawn: list[Any],
    engine: Engine,
) -> None:
    """The part of training that every device has a process for; what is drawn is handed in."""
    dataset, recipe, folds, copies = learnt
    pictures = fetch_pictures(drawn) if engine.devices > 1 else drawn
    material = gather_material(dataset, recipe, pictures, fabric.device, copies)
    members = tuple(
        RunFolder(Path(path))
        for stage in recipe.stages
        for path in (stage.pseudo.members if stage.pseudo else ())
    )
    run = Run(
        *(recipe, material, folds, folder, fabric, voice, members),
        shells=shells_of(engine),
        lanes=Lanes(engine.lanes, fabric.device),
    )
    with memory_kept():
        if not run.first:
            run_stages(run)
            return
        board = TensorBoardLogger(root_dir=folder.path, name="tensorboard", version="")
        run_stages(replace(run, record=partial(_record, board)))
        board.finalize("success")


def _write_folds(dataset: Dataset, folds: np.ndarray, path: Path) -> None:
    rows = [(r.id, r.site or "", int(k)) for r, k in zip(dataset.recordings, folds, strict=True)]
    write_csv(pd.DataFrame(rows, columns=["recording", "site", "fold"]), path)


def _count(total: int, voice: Voice, what: str) -> Callable[[int], None]:
    done = 0

    def tick(more: int) -> None:
        nonlocal done
        done += more
        voice.tick(what, done, total, float("nan"))

    return tick


def _record(board: TensorBoardLogger, row: dict[str, Any]) -> None:
    place = f"{row['stage']}-c{row['cycle']}/fold{row['fold']}"
    board.log_metrics(
        {f"{place}/loss": row["loss"], f"{place}/rate": row["rate"]}, step=row["epoch"]
    )
