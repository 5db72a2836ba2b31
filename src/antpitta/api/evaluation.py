"""evaluate: a run out of fold, or any table of scores against whole truth."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from antpitta.api.training import Trained
from antpitta.core.errors import UserMistake
from antpitta.core.types import Classes
from antpitta.files.runs import RunFolder, read_scores
from antpitta.files.tables import read_frame
from antpitta.scores import evaluate as judging
from antpitta.scores.boxes import presence
from antpitta.scores.cells import left_out, whole_truth
from antpitta.scores.evaluate import DRAWS, Report, from_json

SCORES = "presence.csv"


@dataclass(frozen=True)
class Evaluation:
    """Reports, one a stage where a run was evaluated; and what was passed over."""

    reports: tuple[Report, ...]
    notes: tuple[str, ...] = ()

    @property
    def lwlrap(self) -> float:
        """Of the last report: the model's."""
        return self.reports[-1].lwlrap.value

    @property
    def macro_ap(self) -> float:
        """Of the last report: the model's."""
        return self.reports[-1].macro_ap.value

    @property
    def per_species(self) -> pd.DataFrame:
        """Of the last report: the model's."""
        return self.reports[-1].per_species


def evaluate(target: Trained | Path | str, truth: Path | str | None = None) -> Evaluation:
    """Without truth: the out-of-fold reports of a run. With truth: scores against whole truth.

    ``target`` is a run, its folder, or a table of scores (recording_id, then the species);
    ``truth`` is a table of the same layout with 1, 0, and nothing for unknown. A run's scores
    against truth are out of fold, each stage by itself.
    """
    path = target.path if isinstance(target, Trained) else Path(target)
    if path.is_dir() and (path / SCORES).is_file():
        path = path / SCORES
    if path.is_dir():
        folder = RunFolder(path)
        return _of_run(folder) if truth is None else _run_against(folder, Path(truth))
    if truth is None:
        raise UserMistake(f"{path}: a table of scores needs a truth; add --truth FILE")
    if not path.is_file():
        raise UserMistake(f"{path}: no such file or run; give a run folder or presence.csv")
    return _against(read_frame(path), read_frame(Path(truth)), path.name)


def _of_run(folder: RunFolder) -> Evaluation:
    kept = folder.report()
    reports = tuple(from_json(stage["report"]) for stage in kept["stages"])
    return Evaluation(reports, tuple(kept["left_out"]))


def _run_against(folder: RunFolder, truth: Path) -> Evaluation:
    folder.config()
    table = read_frame(truth)
    found = [
        _against(presence(read_scores(path)), table, path.parent.name)
        for path in sorted(folder.path.glob("stages/*/oof_scores.parquet"), key=_written)
    ]
    if not found:
        raise UserMistake(f"{folder.path}: no stage is scored yet; train it with --resume")
    return Evaluation(tuple(one.reports[0] for one in found), found[-1].notes)


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _against(scores: pd.DataFrame, truth: pd.DataFrame, source: str) -> Evaluation:
    cells = whole_truth(truth, scores)
    classes = Classes(tuple(name for name in truth.columns if name != "recording_id"))
    report = judging.evaluate(cells, classes, source, draws=DRAWS, rng=np.random.default_rng(0))
    rest = left_out(truth, scores)
    notes = []
    if rest.recordings:
        notes.append(f"{len(rest.recordings)} scored recordings are not in the truth")
    if rest.species:
        notes.append(f"{len(rest.species)} scored species are not in the truth")
    if rest.unknown:
        notes.append(f"{rest.unknown} cells of the truth are blank: unknown, not absent")
    return Evaluation((report,), tuple(notes))
