"""The folder of a run: its files and their names.

    config.json        recipe, data set and package versions
    folds.csv          recording, site, fold
    log.csv            one row per epoch
    stages/<stage>/    fold<k>.safetensors, pseudo.csv; -c2 for cycle 2
                       oof_scores.parquet, and oof_windows.parquet: clipwise logits of windows
    oof_scores.parquet, oof_cells.parquet, report.json, report.html
    model/             the bundle that predict takes

Every file is written under a temporary name and then renamed, so a file that exists is complete.
"""

import csv
import io
import json
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from antpitta.core.config import removed_settings
from antpitta.core.errors import UserError
from antpitta.core.identity import species_columns, species_of_columns
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Classes, Scores, WindowScores
from antpitta.files.manifest import check_own_files, check_unchanged, replace_files
from antpitta.files.own_files import (
    check_tensors,
    explain_damage,
    load_tensors,
    read_model,
    read_parquet,
    save_tensors,
    write_parquet,
)
from antpitta.files.tables import read_frame, write_csv
from antpitta.files.texts import read_json, read_text, write_json, write_text

if TYPE_CHECKING:  # a run's tables can be read without PyTorch
    from torch import Tensor

FINAL_FILES = (  # written at the end of a run
    *("report.json", "report.html", "prevalence.csv"),
    *("oof_scores.parquet", "oof_cells.parquet"),
)
SCORE_COLUMNS = ("recording", "start_time", "end_time", "source")  # before those of the species
FOLDS = "folds.csv"
ROUND = "round.json"  # of a run that a round made: its number, and the run before
LOG_KEY = ["stage", "cycle", "fold", "epoch"]
CELL_COLUMNS = ("recording", "species", "present", "score", "start", "stop", "low", "high")
NO_CONFIG = (
    "restore it from a copy, or train into another folder; weights in stages/ stay as they are"
)
NO_LOG = "delete this file: it only lists the losses of earlier epochs"


class RunConfig(BaseModel):
    """The content of config.json; other versions may write more."""

    model_config = ConfigDict(extra="allow")

    recipe: dict[str, Any]
    data: str | dict[str, Any]
    versions: dict[str, str] = {}


class StageReport(BaseModel):
    """The entry of a stage in report.json."""

    name: str
    description: str
    report: dict[str, Any]


class RunReportFile(BaseModel):
    """The content of report.json."""

    model: str = Field(pattern=r"^[^/\\]+$")  # the folder of the stage that ships
    stages: list[StageReport] = Field(min_length=1)
    left_out: list[str]
    rounds: list[str] = []  # whether the last model of rounds is better, in sentences


@dataclass(frozen=True)
class CheckpointFile:
    """The file with one model's state after its last complete epoch."""

    path: Path

    def load(self) -> "tuple[int, dict[str, Tensor]] | None":
        """The number of epochs done and the state; None without a file."""
        if not os.path.lexists(self.path):
            return None
        state, metadata = load_tensors(self.path)
        with self.explain_damage():
            return int(metadata["epoch"]), state

    def save(self, epoch: int, state: "dict[str, Tensor]") -> None:
        """Replace the file with this state."""
        save_tensors(state, self.path, {"epoch": str(epoch)})

    def explain_damage(self) -> AbstractContextManager[None]:
        """A context in which every failure is that of a damaged checkpoint."""
        return explain_damage(self.path)


@dataclass(frozen=True)
class RunFolder:
    """The paths and tables of a run."""

    path: Path

    def stage(self, name: str, cycle: int = 1) -> Path:
        """The folder of a stage, or of one of its later cycles."""
        return self.path / "stages" / (name if cycle == 1 else f"{name}-c{cycle}")

    @property
    def model(self) -> Path:
        """The folder of the bundle that predict takes."""
        return self.path / "model"

    @property
    def shipped_stage(self) -> Path:
        """The folder of the stage whose models ship; UserError (E_RUN_UNFINISHED) before."""
        return self.path / "stages" / str(self.report()["model"])

    def round_number(self) -> int:
        """The number of the round that made the run; 0 for a run of ``train``."""
        return int(self._round().get("number", 0))

    def earlier_round(self) -> Path | None:
        """The folder of the run that a round began with; None for a run of ``train``."""
        text = self._round().get("run")
        if text is None:
            return None
        beside = self.path.parent / Path(str(text)).name  # where all of them were moved
        return beside if not Path(str(text)).exists() and beside.exists() else Path(str(text))

    def _round(self) -> dict[str, Any]:
        """The content of round.json; nothing where there is none."""
        file = self.path / ROUND
        if not file.is_file():
            return {}
        check_unchanged(self.path, "run", ROUND)
        return read_json(file)

    def begin(self, config: dict[str, Any], *, resume: bool) -> None:
        """Start a run in this folder, or continue the one there.

        Parameters
        ----------
        config : recipe, data set and versions; recipe and data must be those the run began with
        resume : whether a run may be there already

        Raises
        ------
        UserError
            E_RUN_EXISTS without ``resume``, E_RUN_DIFFERS for another recipe or data set,
            E_REMOVED_SETTING for a recipe of an earlier version, E_OUTPUT_EDITED if a result was
            edited, E_OUT_NOT_EMPTY.
        """
        file = self.path / "config.json"
        if not os.path.lexists(file):
            self._check_free()
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(config, file)
            return
        if not resume:
            raise UserError(
                "E_RUN_EXISTS",
                f"{self.path}: this folder has a run already",
                "add --resume to continue it, or choose another folder with -o",
            )
        earlier = self.config()
        if removed := removed_settings(earlier["recipe"]):
            raise UserError(
                "E_REMOVED_SETTING",
                f"{file}: the run was begun with settings that were removed since: {removed}",
                "train into another folder with -o",
            )
        for key in ("recipe", "data"):
            if earlier[key] != json.loads(json.dumps(config[key])):
                raise UserError(
                    "E_RUN_DIFFERS",
                    f"{self.path}: the run in this folder has another {key}"
                    f"{_other_version(earlier, config)}",
                    f"resume it with the same {key}, or choose another folder with -o",
                )
        check_own_files(self.path, "run", FINAL_FILES)
        self._check_stages()

    def _check_stages(self) -> None:
        """Refuse damaged files of the stages at once, not when they are needed."""
        for path in sorted((self.path / "stages").glob("*/*")):
            if path.suffix in (".safetensors", ".checkpoint"):
                check_tensors(path)
            elif path.name == "oof_scores.parquet":
                read_scores(path)

    def _check_free(self) -> None:
        """Refuse to begin among files that have the names of a run, a model or an output."""
        names = ("model", "stages", "folds.csv", "log.csv", "bundle.json", "presence.csv")
        for name in (*FINAL_FILES, *names):
            if (self.path / name).exists():
                raise UserError(
                    "E_OUT_NOT_EMPTY",
                    f"{self.path / name}: this file is not of a run that could be resumed",
                    "choose another folder with -o",
                )

    def config(self) -> dict[str, Any]:
        """The content of config.json; UserError (E_NO_RUN) where this is no run."""
        file = self.path / "config.json"
        if not os.path.lexists(file):
            raise UserError(
                "E_NO_RUN",
                f"{self.path}: there is no run in this folder",
                "give the folder that `antpitta train` wrote with -o",
            )
        return read_model(file, RunConfig, NO_CONFIG).model_dump()

    def write_report(self, report: dict[str, Any], page: str) -> None:
        """Write report.json and report.html.

        Parameters
        ----------
        report : for report.json
        page : the HTML of report.html
        """
        with replace_files(self.path, "run") as new:
            write_json(report, new / "report.json")
            write_text(page, new / "report.html")

    def report(self) -> dict[str, Any]:
        """The content of report.json; UserError (E_NO_RUN, E_RUN_UNFINISHED) without one."""
        self.config()
        return read_model(self._final_file("report.json"), RunReportFile).model_dump()

    def _final_file(self, name: str) -> Path:
        """A file that the end of the run wrote, unchanged since."""
        file = self.path / name
        if not os.path.lexists(file):
            raise _unfinished_run(self.path)
        check_unchanged(self.path, "run", name)
        return file

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Add epochs to log.csv; an epoch that is there already is replaced.

        Parameters
        ----------
        rows : one dict per epoch, with the keys of ``LOG_KEY``
        """
        file = self.path / "log.csv"
        by_epoch: dict[tuple[str, ...], dict[str, Any]] = {}
        with explain_damage(file, NO_LOG):
            earlier = list(csv.DictReader(io.StringIO(read_text(file)))) if file.exists() else []
            for row in [*earlier, *rows]:
                key = tuple(str(row[name]) for name in LOG_KEY)
                by_epoch.pop(key, None)
                by_epoch[key] = row
            text = io.StringIO()
            columns = dict.fromkeys(name for row in (*rows, *earlier) for name in row)
            table = csv.DictWriter(text, list(columns), lineterminator="\n")
            table.writeheader()
            table.writerows(by_epoch.values())
        write_text(text.getvalue(), file)

    def cells(self) -> pd.DataFrame:
        """The out-of-fold scores of the shipped stage's judged cells.

        UserError (E_RUN_UNFINISHED) before the run's end.
        """
        return read_parquet(self._final_file("oof_cells.parquet"), CELL_COLUMNS)

    def scores(self) -> list[Scores]:
        """The out-of-fold scores of the shipped stage; UserError (E_RUN_UNFINISHED) without."""
        return read_scores(self._final_file("oof_scores.parquet"))

    def write_folds(self, table: pd.DataFrame) -> None:
        """Write folds.csv.

        Parameters
        ----------
        table : columns recording, site, fold
        """
        with replace_files(self.path, "run") as new:
            write_csv(table, new / FOLDS)

    def write_pseudo_labels(self, table: pd.DataFrame, stage: str, cycle: int) -> None:
        """Write pseudo.csv of a stage; UserError (E_OUTPUT_EDITED) where a user edited it.

        Parameters
        ----------
        table : the pseudo-labels
        stage : its name
        cycle : of the stage, from 1
        """
        with replace_files(self.path, "run") as new:
            write_csv(table, new / self.stage(stage, cycle).relative_to(self.path) / "pseudo.csv")

    def folds(self) -> dict[str, int]:
        """The fold of each recording, from folds.csv."""
        file = self.path / FOLDS
        check_unchanged(self.path, "run", FOLDS)
        with explain_damage(file):
            table = read_frame(file)
            return dict(zip(table["recording"], table["fold"].astype(int), strict=True))

    def read_log(self) -> pd.DataFrame | None:
        """The content of log.csv; None before the first epoch."""
        file = self.path / "log.csv"
        if not file.exists():
            return None
        with explain_damage(file, NO_LOG):
            types = {"stage": str, "cycle": int, "fold": int, "epoch": int, "loss": float}
            return pd.read_csv(file).astype(types)


def _other_version(earlier: dict[str, Any], config: dict[str, Any]) -> str:
    """A remark for a message where another version of antpitta began the run."""
    version = earlier.get("versions", {}).get("antpitta")
    other = version is not None and version != config.get("versions", {}).get("antpitta")
    return f" (it was begun by antpitta {version})" if other else ""


def write_scores(scores: Iterable[Scores], path: Path) -> None:
    """Write framewise scores as Parquet: recording, start_time, end_time, source, the species.

    A species that is called like one of these columns has ``(species)`` behind its name.

    Parameters
    ----------
    scores : of recordings with equal classes; at least one
    path : of the file
    """
    scores = list(scores)
    grids = [part.grid for part in scores]
    frames = [grid.frames for grid in grids]
    start = np.concatenate([grid.start + np.arange(grid.frames) * grid.hop for grid in grids])
    columns = species_columns(scores[0].classes.names, SCORE_COLUMNS)
    table = pd.DataFrame(np.concatenate([part.value for part in scores]), columns=columns)
    recordings = np.repeat([part.recording for part in scores], frames)
    table.insert(0, "recording", recordings.astype(object))
    table.insert(1, "start_time", start)
    table.insert(2, "end_time", start + np.repeat([grid.hop for grid in grids], frames))
    sources = np.repeat([part.source for part in scores], frames)
    table.insert(3, "source", sources.astype(object))
    write_parquet(table, path)


def read_scores(path: Path) -> list[Scores]:
    """The inverse of :func:`write_scores`.

    Parameters
    ----------
    path : of the file

    Returns
    -------
    The scores of each recording, in the order of the file.

    Raises
    ------
    UserError
        E_RUN_UNFINISHED without the file, E_FILE_DAMAGED.
    """
    if not os.path.lexists(path):
        raise _unfinished_run(path)
    table = read_parquet(path, SCORE_COLUMNS)
    with explain_damage(path):
        return _scores_of_table(table)


def _scores_of_table(table: pd.DataFrame) -> list[Scores]:
    columns = [name for name in table.columns if name not in SCORE_COLUMNS]
    classes = Classes(tuple(species_of_columns(columns, SCORE_COLUMNS)))
    codes, names = pd.factorize(table["recording"])
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
    values = table[columns].to_numpy(dtype=np.float32)
    starts, ends = (table[key].to_numpy() for key in ("start_time", "end_time"))
    sources = table["source"].to_numpy()
    scores = []
    for name, first, last in zip(names, edges, edges[1:], strict=False):
        rows = order[first:last]
        start = float(starts[rows[0]])
        hop = float(ends[rows[0]]) - start
        grid = TimeGrid(hop=hop, frames=len(rows), start=start)
        scores.append(Scores(str(name), grid, classes, values[rows], str(sources[rows[0]])))
    return scores


def write_windows(scores: Iterable[WindowScores], path: Path) -> None:
    """Write clipwise logits as Parquet: recording, start_time, end_time, source, the species.

    Parameters
    ----------
    scores : of recordings with equal classes; at least one
    path : of the file
    """
    scores = list(scores)
    counts = [len(part.start) for part in scores]
    table = pd.DataFrame(
        {
            "recording": np.repeat([part.recording for part in scores], counts).astype(object),
            "start_time": np.concatenate([part.start for part in scores]),
            "end_time": np.concatenate([part.stop for part in scores]),
            "source": np.repeat([part.source for part in scores], counts).astype(object),
        }
    )
    columns = species_columns(scores[0].classes.names, SCORE_COLUMNS)
    logits = pd.DataFrame(np.concatenate([part.logit for part in scores]), columns=columns)
    write_parquet(pd.concat([table, logits], axis=1), path)


def read_windows(path: Path) -> list[WindowScores]:
    """Read a file of :func:`write_windows`.

    Parameters
    ----------
    path : of the file

    Returns
    -------
    scores : of each recording

    Raises
    ------
    UserError
        E_RUN_UNFINISHED without the file, E_FILE_DAMAGED.
    """
    if not os.path.lexists(path):
        raise _unfinished_run(path)
    table = read_parquet(path, SCORE_COLUMNS)
    with explain_damage(path):
        columns = [name for name in table.columns if name not in SCORE_COLUMNS]
        classes = Classes(tuple(species_of_columns(columns, SCORE_COLUMNS)))
        return [
            WindowScores(
                str(recording),
                rows["start_time"].to_numpy(),
                rows["end_time"].to_numpy(),
                classes,
                rows[columns].to_numpy(dtype=np.float32),
                str(rows["source"].iloc[0]),
            )
            for recording, rows in table.groupby("recording", sort=False)
        ]


def _unfinished_run(path: Path) -> UserError:
    return UserError(
        "E_RUN_UNFINISHED",
        f"{path}: the run is not finished",
        "train it to its end with --resume",
    )
