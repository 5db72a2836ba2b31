"""A run's folder: what is in it, and under which names.

    config.json        recipe, versions, and what the run was given
    folds.csv          recording, site, fold
    log.csv            one row an epoch
    stages/<stage>/    fold<k>.safetensors, oof_scores.parquet, pseudo.csv; -c2 for cycle 2
    oof_scores.parquet, oof_cells.parquet, report.json, report.html
    model/             the bundle that predict takes

A file that is there is whole: everything is written beside its place and moved there.
"""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from safetensors import safe_open

from antpitta.core.errors import UserError
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Classes, Scores
from antpitta.files.tables import read_frame
from antpitta.files.texts import atomic_replace, read_text, write_json, write_text

if TYPE_CHECKING:  # the tables of a run are read without PyTorch, too
    from torch import Tensor

LOG_KEY = ["stage", "cycle", "fold", "epoch"]


def save_tensors(
    state: "dict[str, Tensor]", path: Path, note: dict[str, str] | None = None
) -> None:
    """Write named tensors as safetensors, atomically."""
    from safetensors.torch import save_file

    with atomic_replace(path) as part:
        save_file({k: v.detach().contiguous().cpu() for k, v in state.items()}, part, metadata=note)


def load_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Named tensors and the note that was saved with them."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


@dataclass(frozen=True)
class CheckpointFile:
    """The state after the last whole epoch of one model."""

    path: Path

    def load(self) -> "tuple[int, dict[str, Tensor]] | None":
        """Epochs done and the state, or None where nothing is kept."""
        if not self.path.is_file():
            return None
        state, note = load_tensors(self.path)
        return int(note["epoch"]), state

    def save(self, epoch: int, state: "dict[str, Tensor]") -> None:
        """Keep this one instead of what was kept before."""
        save_tensors(state, self.path, {"epoch": str(epoch)})


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, and its tables."""

    path: Path

    def stage(self, name: str, cycle: int = 1) -> Path:
        """The folder of a stage; a later cycle of it has its own."""
        return self.path / "stages" / (name if cycle == 1 else f"{name}-c{cycle}")

    @property
    def model(self) -> Path:
        """The bundle that prediction takes."""
        return self.path / "model"

    def begin(self, config: dict[str, Any], *, resume: bool) -> None:
        """Claim the folder; a run is gone on with only under the settings it began with.

        Raises UserError where a run is there already, or is another one.
        """
        file = self.path / "config.json"
        if file.is_file():
            if not resume:
                raise UserError(
                    "E_TODO",
                    f"{self.path}: holds a run already",
                    "add --resume to go on with it, or choose another folder with -o",
                )
            before = json.loads(file.read_text(encoding="utf-8"))
            for key in ("recipe", "data"):
                if before[key] != json.loads(json.dumps(config[key])):
                    raise UserError(
                        "E_TODO",
                        f"{self.path}: the run that is there has another {key}",
                        "resume with the same one, or choose another folder with -o",
                    )
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(config, file)

    def config(self) -> dict[str, Any]:
        """What the run began with. Raises UserError where this is no run."""
        file = self.path / "config.json"
        if not file.is_file():
            raise UserError(
                "E_TODO", f"{self.path}: is no run folder", "give the -o of antpitta train"
            )
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def write_report(self, kept: dict[str, Any], page: str) -> None:
        """report.json and report.html."""
        write_json(kept, self.path / "report.json")
        write_text(page, self.path / "report.html")

    def report(self) -> dict[str, Any]:
        """report.json. Raises UserError before the run's end."""
        self.config()
        file = self.path / "report.json"
        if not file.is_file():
            raise UserError(
                "E_TODO", f"{self.path}: has no report yet", "train it to its end with --resume"
            )
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Add epochs to log.csv; an epoch that was run again replaces itself."""
        file = self.path / "log.csv"
        kept: dict[tuple[str, ...], dict[str, Any]] = {}
        before = list(csv.DictReader(io.StringIO(read_text(file)))) if file.is_file() else []
        for row in [*before, *rows]:
            key = tuple(str(row[name]) for name in LOG_KEY)
            kept.pop(key, None)
            kept[key] = row
        text = io.StringIO()
        columns = dict.fromkeys(name for row in (*rows, *before) for name in row)
        table = csv.DictWriter(text, list(columns), lineterminator="\n")
        table.writeheader()
        table.writerows(kept.values())
        write_text(text.getvalue(), file)

    def cells(self) -> pd.DataFrame:
        """The judged cells of the last stage, out of fold. Raises UserError before its end."""
        file = self.path / "oof_cells.parquet"
        if not file.is_file():
            raise UserError(
                "E_TODO", f"{self.path}: no finished run", "train it to its end with --resume"
            )
        return pd.read_parquet(file)

    def folds(self) -> dict[str, int]:
        """The fold of each recording."""
        table = read_frame(self.path / "folds.csv")
        return dict(zip(table["recording"], table["fold"].astype(int), strict=True))

    def read_log(self) -> pd.DataFrame | None:
        """log.csv, or None before the first epoch."""
        file = self.path / "log.csv"
        return pd.read_csv(file) if file.is_file() else None


def write_scores(scores: Iterable[Scores], path: Path) -> None:
    """Framewise scores as Parquet: recording, start_time, end_time, source, then the species."""
    every = list(scores)
    rows = [one.grid.frames for one in every]
    start = np.concatenate(
        [one.grid.start + np.arange(one.grid.frames) * one.grid.hop for one in every]
    )
    table = pd.DataFrame(
        np.concatenate([one.value for one in every]), columns=list(every[0].classes.names)
    )
    table.insert(0, "recording", np.repeat([one.recording for one in every], rows).astype(object))
    table.insert(1, "start_time", start)
    table.insert(2, "end_time", start + np.repeat([one.grid.hop for one in every], rows))
    table.insert(3, "source", np.repeat([one.source for one in every], rows).astype(object))
    with atomic_replace(path) as part:
        table.to_parquet(part, index=False)


def read_scores(path: Path) -> list[Scores]:
    """The inverse of :func:`write_scores`. Raises UserError where the file is missing."""
    if not path.is_file():
        raise UserError(
            "E_TODO", f"{path}: no such file", "train the run to its end (--resume) first"
        )
    table = pd.read_parquet(path)
    classes = Classes(tuple(table.columns[4:]))
    codes, names = pd.factorize(table["recording"])
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
    values = table[list(classes.names)].to_numpy(dtype=np.float32)
    starts, ends = (table[key].to_numpy() for key in ("start_time", "end_time"))
    sources = table["source"].to_numpy()
    found = []
    for name, low, high in zip(names, edges, edges[1:], strict=False):
        rows = order[low:high]
        start = float(starts[rows[0]])
        hop = float(ends[rows[0]]) - start
        grid = TimeGrid(hop=hop, frames=len(rows), start=start)
        found.append(Scores(str(name), grid, classes, values[rows], str(sources[rows[0]])))
    return found
