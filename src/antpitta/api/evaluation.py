"""evaluate, evaluate_events: metrics of a run out of fold, of scores against ground truth."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd

from antpitta.api.training import TrainResult
from antpitta.core.errors import UserError
from antpitta.core.identity import class_names
from antpitta.core.types import Annotation, Classes, Event
from antpitta.files.formats import read_table
from antpitta.files.runs import RunFolder, read_scores
from antpitta.files.tables import read_frame
from antpitta.scores.cells import clip_scores, count_unmatched, truth_cells
from antpitta.scores.evaluate import DRAWS, Report, evaluate_cells, report_from_json
from antpitta.scores.event_metrics import event_f1

SCORES = "presence.csv"  # of a folder that predict wrote
EVENTS = "events.csv"
MIN_IOU = 0.2  # intersection over union; scores have half-second frames, and some calls are shorter
NUMBERS = ("start_time", "end_time", "low_freq", "high_freq", "score")


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Attributes
    ----------
    reports : metrics with intervals; of a run, one report a stage, the last of which is the model
    notes : what was left out
    """

    reports: tuple[Report, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def lwlrap(self) -> float:
        """LWLRAP of the model (the last report)."""
        return self.reports[-1].lwlrap.value

    @property
    def macro_ap(self) -> float:
        """Mean average precision over the species, of the model (the last report)."""
        return self.reports[-1].macro_ap.value

    @property
    def macro_auc(self) -> float:
        """Mean area under the ROC curve over the species, of the model (the last report)."""
        return self.reports[-1].macro_auc.value

    @property
    def per_species(self) -> pd.DataFrame:
        """Counts and metrics, one row a species, of the model (the last report)."""
        return self.reports[-1].per_species

    def __repr__(self) -> str:
        last = self.reports[-1]
        return (
            f"Evaluation({last.source!r}: LWLRAP {self.lwlrap:.3f}, macro AP {self.macro_ap:.3f}, "
            f"macro AUC {self.macro_auc:.3f}; {len(last.per_species)} species, "
            f"{last.recordings} recordings)"
        )


def evaluate(target: TrainResult | Path | str, truth: Path | str | None = None) -> Evaluation:
    """Compute LWLRAP, average precision and AUC, with 95 % intervals over recordings.

    Parameters
    ----------
    target
        A run or its folder; a folder that ``predict`` wrote; or a table of scores
        (``recording_id``, then one column a species).
    truth
        A table like that of scores with 1 (present), 0 (absent) or nothing (unknown). Without it
        a run is evaluated on its labelled boxes, out of fold.

    Returns
    -------
    Evaluation
        One report for each stage of a run, one for a table.

    Raises
    ------
    UserError
        ``E_NO_TRUTH`` for a table without ``truth``, ``E_NO_SCORES`` if ``target`` is neither a
        run nor a table, or a run that has no scores yet.

    Examples
    --------
    >>> antpitta.evaluate("run").macro_ap  # doctest: +SKIP
    >>> antpitta.evaluate("out/presence.csv", "truth.csv").per_species  # doctest: +SKIP
    """
    path = target.path if isinstance(target, TrainResult) else Path(target)
    if path.is_dir() and (path / SCORES).is_file():
        path = path / SCORES
    if path.is_dir():
        run = RunFolder(path)
        return _read_reports(run) if truth is None else _evaluate_run(run, Path(truth))
    if truth is None:
        raise UserError("E_NO_TRUTH", f"{path}: scores need a ground truth", "add --truth FILE")
    if not path.is_file():
        raise UserError(
            "E_NO_SCORES", f"{path}: there is no such file", "give a run or presence.csv"
        )
    return _evaluate_table(read_frame(path), read_frame(Path(truth)), path.name)


def evaluate_events(target: Path | str, truth: Path | str) -> pd.DataFrame:
    """Compute the F1 score of events: of detections against every call in the recordings.

    An event and a call of its species match if their intersection over union is at least 0.2.

    Parameters
    ----------
    target
        A folder that ``predict`` wrote, or its ``events.csv``.
    truth
        A table of every call, in any supported format of annotations.

    Returns
    -------
    DataFrame
        Rows: the species, then ``macro`` and ``micro``. Columns: ``species``, ``tp``, ``fp``,
        ``fn``, ``precision``, ``recall``, ``f1``. Only predicted recordings count.

    Raises
    ------
    UserError
        ``E_NO_TRUTH`` if the two have no recording in common.

    Examples
    --------
    >>> antpitta.api.evaluate_events("out", "calls.csv")  # doctest: +SKIP
    """
    path = Path(target)
    folder = path if path.is_dir() else path.parent
    table = read_frame(path / EVENTS if path.is_dir() else path)
    predicted = set(read_frame(folder / SCORES)["recording_id"])
    events = [_event(row) for row in table.to_dict("records")]
    annotations = read_table(Path(truth), True).annotations
    labels = class_names({annotation.label for annotation in annotations})
    calls = [
        Annotation(
            PurePath(annotation.recording).stem,
            annotation.start,
            annotation.stop,
            labels[annotation.label],
        )
        for annotation in annotations
    ]
    if not predicted & {call.recording for call in calls}:
        raise UserError(
            "E_NO_TRUTH",
            f"{truth}: names none of the recordings in {folder}",
            "give the calls of these recordings",
        )
    return event_f1(events, calls, min_iou=MIN_IOU, recordings=predicted)


def _read_reports(run: RunFolder) -> Evaluation:
    """The reports that a run's end wrote, on labelled boxes."""
    table = run.report()
    reports = tuple(report_from_json(stage["report"]) for stage in table["stages"])
    return Evaluation(reports, tuple(table["left_out"]))


def _evaluate_run(run: RunFolder, truth: Path) -> Evaluation:
    """Each stage's scores out of fold, against ground truth, in the order of training."""
    run.config()
    table = read_frame(truth)
    paths = sorted(run.path.glob("stages/*/oof_scores.parquet"), key=lambda p: p.stat().st_mtime)
    evaluations = [
        _evaluate_table(clip_scores(read_scores(path)), table, path.parent.name) for path in paths
    ]
    if not evaluations:
        raise UserError(
            "E_NO_SCORES", f"{run.path}: no stage has scores yet", "train it with --resume"
        )
    reports = tuple(evaluation.reports[0] for evaluation in evaluations)
    return Evaluation(reports, evaluations[-1].notes)


def _evaluate_table(scores: pd.DataFrame, truth: pd.DataFrame, source: str) -> Evaluation:
    cells = truth_cells(truth, scores)
    classes = Classes(tuple(name for name in truth.columns if name != "recording_id"))
    rng = np.random.default_rng(0)
    report = evaluate_cells(cells, classes, source, draws=DRAWS, rng=rng)
    rest = count_unmatched(truth, scores)
    notes = []
    if rest.recordings:
        notes.append(f"{len(rest.recordings)} scored recordings are not in the ground truth")
    if rest.species:
        notes.append(f"{len(rest.species)} scored species are not in the ground truth")
    if rest.unknown:
        notes.append(f"{rest.unknown} cells of the ground truth are blank: unknown, not absent")
    return Evaluation((report,), tuple(notes))


def _event(row: dict[Hashable, Any]) -> Event:
    start, stop, low, high, score = (float(row[name]) for name in NUMBERS)
    recording = PurePath(row["file"]).stem
    return Event(recording, start, stop, row["species"], score, row["model"], low, high)
