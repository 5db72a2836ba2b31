"""evaluate: a run out of fold, or any table of scores against whole truth.

Event-level F1: the events of a prediction against every call that really was there.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation, Classes, Event
from antpitta.files.dataset import class_names
from antpitta.files.formats import read_table
from antpitta.files.runs import RunFolder, read_scores
from antpitta.files.tables import read_frame
from antpitta.scores import evaluate as judging
from antpitta.scores.cells import clip_scores, truth_cells, unmatched
from antpitta.scores.evaluate import DRAWS, Report, report_from_json
from antpitta.scores.event_metrics import event_f1

if TYPE_CHECKING:  # it needs PyTorch, and evaluation does not
    from antpitta.api.training import TrainResult

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


def evaluate(target: "TrainResult | Path | str", truth: Path | str | None = None) -> Evaluation:
    """Without truth: the out-of-fold reports of a run. With truth: scores against whole truth.

    ``target`` is a run, its folder, or a table of scores (recording_id, then the species);
    ``truth`` is a table of the same layout with 1, 0, and nothing for unknown. A run's scores
    against truth are out of fold, each stage by itself.
    """
    path = Path(target) if isinstance(target, (str, Path)) else target.path
    if path.is_dir() and (path / SCORES).is_file():
        path = path / SCORES
    if path.is_dir():
        folder = RunFolder(path)
        return _of_run(folder) if truth is None else _run_against(folder, Path(truth))
    if truth is None:
        raise UserError("E_TODO", f"{path}: a table of scores needs a truth", "add --truth FILE")
    if not path.is_file():
        raise UserError(
            "E_TODO", f"{path}: no such file or run", "give a run folder or presence.csv"
        )
    return _against(read_frame(path), read_frame(Path(truth)), path.name)


def _of_run(folder: RunFolder) -> Evaluation:
    kept = folder.report()
    reports = tuple(report_from_json(stage["report"]) for stage in kept["stages"])
    return Evaluation(reports, tuple(kept["left_out"]))


def _run_against(folder: RunFolder, truth: Path) -> Evaluation:
    folder.config()
    table = read_frame(truth)
    found = [
        _against(clip_scores(read_scores(path)), table, path.parent.name)
        for path in sorted(folder.path.glob("stages/*/oof_scores.parquet"), key=_written)
    ]
    if not found:
        raise UserError(
            "E_TODO", f"{folder.path}: no stage is scored yet", "train it with --resume"
        )
    return Evaluation(tuple(one.reports[0] for one in found), found[-1].notes)


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _against(scores: pd.DataFrame, truth: pd.DataFrame, source: str) -> Evaluation:
    cells = truth_cells(truth, scores)
    classes = Classes(tuple(name for name in truth.columns if name != "recording_id"))
    report = judging.evaluate_cells(
        cells, classes, source, draws=DRAWS, rng=np.random.default_rng(0)
    )
    rest = unmatched(truth, scores)
    notes = []
    if rest.recordings:
        notes.append(f"{len(rest.recordings)} scored recordings are not in the truth")
    if rest.species:
        notes.append(f"{len(rest.species)} scored species are not in the truth")
    if rest.unknown:
        notes.append(f"{rest.unknown} cells of the truth are blank: unknown, not absent")
    return Evaluation((report,), tuple(notes))


OVERLAP = 0.2  # intersection over union: a step of the scores is half a second, some calls shorter
NUMBERS = ["start_time", "end_time", "low_freq", "high_freq", "score"]


def evaluate_events(found: Path | str, truth: Path | str) -> pd.DataFrame:
    """Rows species, tp, fp, fn, precision, recall, f1, then macro and micro.

    ``found`` is a folder that predict wrote, or its events.csv; ``truth`` a table of every call,
    in any format of annotations. Only recordings that were predicted count.
    Raises UserError where the two have no recording in common.
    """
    path = Path(found)
    folder = path if path.is_dir() else path.parent
    table = read_frame(path / "events.csv" if path.is_dir() else path)
    heard = set(read_frame(folder / "presence.csv")["recording_id"])
    events = [_event(row) for row in table.to_dict("records")]
    said = read_table(Path(truth), True).annotations
    labels = class_names({one.label for one in said})
    calls = [
        Annotation(PurePath(one.recording).stem, one.start, one.stop, labels[one.label])
        for one in said
    ]
    if not heard & {one.recording for one in calls}:
        raise UserError(
            "E_TODO", f"{truth}: names none of the recordings in {folder}", "give their truth"
        )
    return event_f1(events, calls, overlap=OVERLAP, recordings=heard)


def _event(row: dict[Hashable, Any]) -> Event:
    start, stop, low, high, score = (float(row[name]) for name in NUMBERS)
    recording = PurePath(row["file"]).stem
    return Event(recording, start, stop, row["species"], score, row["model"], low, high)
