"""The folder of a run: its files and their names.

    config.json        recipe, data set and package versions
    folds.csv          recording, site, fold
    log.csv            one row per epoch
    stages/<stage>/    fold<k>.safetensors, oof_scores.parquet, pseudo.csv; -c2 for cycle 2
    oof_scores.parquet, oof_cells.parquet, report.json, report.html
    model/             the bundle that predict takes

Every file is written under a temporary name and then renamed, so a file that exists is complete.
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
from antpitta.core.identity import species_columns, species_of_columns
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Classes, Scores
from antpitta.files.manifest import check_own_files, replace_files
from antpitta.files.tables import read_frame
from antpitta.files.texts import atomic_replace, read_text, write_json, write_text

if TYPE_CHECKING:  # a run's tables can be read without PyTorch
    from torch import Tensor

FINAL_FILES = (  # written at the end of a run
    *("report.json", "report.html", "prevalence.csv"),
    *("oof_scores.parquet", "oof_cells.parquet"),
)
SCORE_COLUMNS = ("recording", "start_time", "end_time", "source")  # before those of the species
LOG_KEY = ["stage", "cycle", "fold", "epoch"]


def save_tensors(
    state: "dict[str, Tensor]", path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write named tensors as safetensors.

    Parameters
    ----------
    state : tensors by name
    path : of the file
    metadata : kept in the file's header
    """
    from safetensors.torch import save

    tensors = {name: state[name].detach().contiguous().cpu() for name in sorted(state)}
    with atomic_replace(path) as unfinished:
        unfinished.write_bytes(_sorted_header(save(tensors, metadata=metadata)))


def _sorted_header(content: bytes) -> bytes:
    """The same safetensors file with the entries of its header in the order of their names.

    The package writes the metadata in random order, which would give equal weights other bytes.
    """
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":"))
    text = header.encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def load_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Read a file of :func:`save_tensors`.

    Parameters
    ----------
    path : of the file

    Returns
    -------
    The tensors by name, and the metadata.
    """
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


@dataclass(frozen=True)
class CheckpointFile:
    """The file with one model's state after its last complete epoch."""

    path: Path

    def load(self) -> "tuple[int, dict[str, Tensor]] | None":
        """The number of epochs done and the state; None without a file."""
        if not self.path.is_file():
            return None
        state, metadata = load_tensors(self.path)
        return int(metadata["epoch"]), state

    def save(self, epoch: int, state: "dict[str, Tensor]") -> None:
        """Replace the file with this state."""
        save_tensors(state, self.path, {"epoch": str(epoch)})


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
            E_OUTPUT_EDITED if a result was edited, E_OUT_NOT_EMPTY.
        """
        file = self.path / "config.json"
        if not file.is_file():
            self._check_free()
        else:
            if not resume:
                raise UserError(
                    "E_RUN_EXISTS",
                    f"{self.path}: this folder has a run already",
                    "add --resume to continue it, or choose another folder with -o",
                )
            earlier = json.loads(file.read_text(encoding="utf-8"))
            for key in ("recipe", "data"):
                if earlier[key] != json.loads(json.dumps(config[key])):
                    raise UserError(
                        "E_RUN_DIFFERS",
                        f"{self.path}: the run in this folder has another {key}",
                        f"resume it with the same {key}, or choose another folder with -o",
                    )
            check_own_files(self.path, "run", FINAL_FILES)
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(config, file)

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
        if not file.is_file():
            raise UserError(
                "E_NO_RUN",
                f"{self.path}: there is no run in this folder",
                "give the folder that `antpitta train` wrote with -o",
            )
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return config

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
        file = self.path / "report.json"
        if not file.is_file():
            raise _unfinished_run(self.path)
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return report

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Add epochs to log.csv; an epoch that is there already is replaced.

        Parameters
        ----------
        rows : one dict per epoch, with the keys of ``LOG_KEY``
        """
        file = self.path / "log.csv"
        by_epoch: dict[tuple[str, ...], dict[str, Any]] = {}
        earlier = list(csv.DictReader(io.StringIO(read_text(file)))) if file.is_file() else []
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
        """The out-of-fold scores of the last stage's judged cells.

        UserError (E_RUN_UNFINISHED) before the run's end.
        """
        file = self.path / "oof_cells.parquet"
        if not file.is_file():
            raise _unfinished_run(self.path)
        return pd.read_parquet(file)

    def folds(self) -> dict[str, int]:
        """The fold of each recording, from folds.csv."""
        table = read_frame(self.path / "folds.csv")
        return dict(zip(table["recording"], table["fold"].astype(int), strict=True))

    def read_log(self) -> pd.DataFrame | None:
        """The content of log.csv; None before the first epoch."""
        file = self.path / "log.csv"
        return pd.read_csv(file) if file.is_file() else None


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
    with atomic_replace(path) as unfinished:
        table.to_parquet(unfinished, index=False)


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
        E_RUN_UNFINISHED without the file.
    """
    if not path.is_file():
        raise _unfinished_run(path)
    table = pd.read_parquet(path)
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


def _unfinished_run(path: Path) -> UserError:
    return UserError(
        "E_RUN_UNFINISHED",
        f"{path}: the run is not finished",
        "train it to its end with --resume",
    )
