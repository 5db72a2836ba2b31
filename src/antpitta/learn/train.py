"""From a data set and a recipe to trained stages: the part of `train` before the report."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from antpitta.core.config import Recipe
from antpitta.core.types import Dataset
from antpitta.files.audio import read
from antpitta.files.cache import cached_pictures
from antpitta.files.runs import RunFolder
from antpitta.files.tables import write_csv
from antpitta.learn.folds import deal_folds
from antpitta.learn.material import draw_recording, gather_material
from antpitta.learn.stages import Run, Voice, run_stages
from antpitta.sound.logmel import LogMel


def train_stages(
    dataset: Dataset,
    recipe: Recipe,
    folder: RunFolder,
    voice: Voice,
    *,
    device: str = "auto",
    precision: str = "32-true",
) -> Run:
    """Draw what is not cached, deal folds, train and score every stage that is not done yet."""
    fabric = Fabric(accelerator=device, devices=1, precision=precision)  # type: ignore[arg-type]
    folds = deal_folds(dataset, recipe.folds, recipe.seed)
    sites = {recording.site for recording in dataset.recordings if recording.site}
    if 0 < len(sites) < recipe.folds:
        voice.say(f"{len(sites)} sites for {recipe.folds} folds: recordings are dealt, sites split")
    _write_folds(dataset, folds, folder.path / "folds.csv")
    mel = LogMel(recipe.front)
    hear = partial(read, sample_rate=recipe.front.sample_rate)
    drawn = cached_pictures(
        list(dataset.recordings),
        recipe.front.digest,
        lambda recording: draw_recording(recording, recipe, mel, hear),
        tick=_count(len(dataset.recordings), voice),
    )
    material = gather_material(dataset, recipe, list(drawn), fabric.device)
    members = tuple(
        RunFolder(Path(path))
        for stage in recipe.stages
        for path in (stage.pseudo.members if stage.pseudo else ())
    )
    board = TensorBoardLogger(root_dir=folder.path, name="tensorboard", version="")
    run = Run(recipe, material, folds, folder, fabric, voice, members, partial(_record, board))
    run_stages(run)
    board.finalize("success")
    return run


def _write_folds(dataset: Dataset, folds: np.ndarray, path: Path) -> None:
    rows = [(r.id, r.site or "", int(k)) for r, k in zip(dataset.recordings, folds, strict=True)]
    write_csv(pd.DataFrame(rows, columns=["recording", "site", "fold"]), path)


def _count(total: int, voice: Voice) -> Callable[[int], None]:
    done = 0

    def tick(more: int) -> None:
        nonlocal done
        done += more
        voice.tick("spectrograms", done, total, float("nan"))

    return tick


def _record(board: TensorBoardLogger, row: dict[str, Any]) -> None:
    place = f"{row['stage']}-c{row['cycle']}/fold{row['fold']}"
    board.log_metrics(
        {f"{place}/loss": row["loss"], f"{place}/rate": row["rate"]}, step=row["epoch"]
    )
