"""The figures of one run: out of fold, on the test recordings, and of what it was taught.

A test figure is read off tables that `predict` wrote, the out-of-fold figure off the run's own
report. Nothing here is handed back to anything that learns.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from antpitta.core.config import BlendMethod, Recipe
from antpitta.files.bundle import read_bundle
from antpitta.files.runs import RunFolder
from antpitta.files.tables import read_frame, read_prevalence
from antpitta.files.texts import write_json
from antpitta.scores.cells import clip_score_table
from antpitta.scores.evaluate import report_from_json
from antpitta.scores.event_metrics import MACRO
from antpitta.scores.metrics import average_precision
from antpitta.scores.prevalence import rescale_odds
from antpitta.scores.tables import numeric_scores
from antpitta.train.stages import cycles_of
from benchmarks.files import read_note
from benchmarks.test_set import KEY, TestSet

NAN = float("nan")


@dataclass(frozen=True)
class Commands:
    """What a bench asks for and does not know how to do: it is done above it (api/)."""

    # recipe, changes, the run's folder, whether with the baseline stage
    train: Callable[[str, tuple[str, ...], Path, bool], object]
    blend: Callable[
        [list[Path], Path, BlendMethod, tuple[float, ...]], object
    ]  # runs, home, by, weights
    predict: Callable[[Path, Path], object]  # model, folder of tables
    events: Callable[[Path, Path], pd.DataFrame]  # folder of tables, true calls


@dataclass(frozen=True)
class Figures:
    """How good one model is, as told without truth and with it."""

    oof_ap: float
    oof_auc: float
    lwlrap: float
    macro_ap: float
    event_f1: float


def out_of_fold(folder: RunFolder) -> dict[str, tuple[float, float]]:
    """Macro AP and AUC on judged boxes, of each stage and cycle."""
    reports = {one["name"]: report_from_json(one["report"]) for one in folder.report()["stages"]}
    return {name: (one.macro_ap.value, one.macro_auc.value) for name, one in reports.items()}


def examine(
    model: Path, found: Path, exam: TestSet, verbs: Commands, oof: tuple[float, float]
) -> Figures:
    """Let a model listen to the test recordings, unless it has, and judge what it says."""
    key = {"model": read_bundle(model).digest, "audio": exam.digest}
    note = found / "bench.json"
    if read_note(note) != key:
        shutil.rmtree(found, ignore_errors=True)
        verbs.predict(model, found)
        write_json(key, note)
    report = exam.judge(read_frame(found / "presence.csv"), found.name)
    f1 = NAN
    if exam.events is not None:
        table = verbs.events(found, exam.events).set_index("species")
        f1 = float(table.loc[MACRO, "f1"])  # type: ignore[arg-type]
    return Figures(*oof, report.lwlrap.value, report.macro_ap.value, f1)


def judge_rescaled(found: Path, prevalence: Path, exam: TestSet) -> tuple[float, float]:
    """LWLRAP and macro AP of a folder's presence.csv, once rescaled to a table of prevalences."""
    table = read_frame(found / "presence.csv").set_index(KEY)
    names = tuple(str(name) for name in table.columns)
    value = rescale_odds(numeric_scores(table, "presence.csv"), read_prevalence(prevalence, names))
    ids = [str(name) for name in table.index]
    report = exam.judge(clip_score_table(ids, value, names), found.name)
    return report.lwlrap.value, report.macro_ap.value


def judge_labels(recipe: Recipe, folder: RunFolder, truth: pd.DataFrame) -> list[dict[str, Any]]:
    """What each cycle of each taught stage was taught, against the training recordings' truth.

    A row a stage and cycle: labels, and of those whose recording and species the truth knows
    (``judged``) either ``right``, the share of hard labels whose recording holds the species,
    or, for soft labels, ``ap`` (macro) and ``brier`` (mean squared error) of the highest label of
    each recording and species.
    """
    rows = []
    for stage in recipe.stages:
        for cycle in range(1, cycles_of(stage) + 1) if stage.pseudo else ():
            assert stage.pseudo is not None
            home = folder.stage(stage.name, cycle)
            labels = read_frame(home / "pseudo.csv").astype({"score": float})
            known = _with_truth(labels, truth)
            soft = stage.pseudo.targets == "soft"
            figures = _soft(known) if soft else {"right": _mean(known["present"])}
            counts = {"labels": len(labels), "judged": len(known)}
            kind = "soft" if soft else "hard"
            rows.append({"stage": home.name, "kind": kind, **counts, **figures})
    return rows


def seconds_until(sessions: list[dict[str, float]], moment: float) -> float:
    """How long was worked until ``moment``; NaN where a session was cut off without its end.

    >>> seconds_until([{"began": 0.0, "ended": 10.0}, {"began": 20.0, "ended": 30.0}], 25.0)
    15.0
    """
    if not sessions or not all("ended" in one for one in sessions):
        return NAN
    return sum(max(0.0, min(one["ended"], moment) - one["began"]) for one in sessions)


def _with_truth(labels: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """The labels that the truth speaks of, with a column ``present``."""
    told = truth.set_index(KEY)
    value = numeric_scores(told, "the truth table")
    wide = pd.DataFrame(value, index=told.index, columns=told.columns)
    row = wide.index.get_indexer(pd.Index(labels["recording"]))
    column = wide.columns.get_indexer(pd.Index(labels["species"]))
    said = np.where((row >= 0) & (column >= 0), wide.to_numpy()[row, column], np.nan)
    return labels.assign(present=said)[~np.isnan(said)]


def _soft(known: pd.DataFrame) -> dict[str, float]:
    cells = known.groupby(["recording", "species"])[["score", "present"]].max().reset_index()
    each = [
        average_precision(own["present"].to_numpy() == 1, own["score"].to_numpy())
        for _, own in cells.groupby("species")
    ]
    figures = [value for value in each if np.isfinite(value)]
    ap = float(np.mean(figures)) if figures else NAN
    return {"ap": ap, "brier": _mean((cells["score"] - cells["present"]) ** 2)}


def _mean(values: "pd.Series[Any]") -> float:
    return float(values.mean()) if len(values) else NAN
