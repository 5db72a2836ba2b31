"""The figures of one model: out of fold, on the test set, and of the pseudo-labels it trained on.

Test figures are read off the tables that ``predict`` writes, out-of-fold figures off the run's own
report. Nothing here returns to anything that trains.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from antpitta import api
from antpitta.core.config import Recipe
from antpitta.core.progress import Progress
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
from benchmarks.files import read_note
from benchmarks.test_set import KEY, TestSet

NAN = float("nan")


@dataclass(frozen=True)
class Figures:
    """How good one model is, out of fold and on the test set."""

    oof_ap: float
    oof_auc: float
    lwlrap: float
    macro_ap: float
    event_f1: float  # NaN without a table of calls


def out_of_fold_figures(folder: RunFolder) -> dict[str, tuple[float, float]]:
    """Read macro AP and macro AUC on validated boxes from a run's report.

    Parameters
    ----------
    folder : a finished run

    Returns
    -------
    dict
        Macro AP and macro AUC by stage folder.
    """
    stages = folder.report()["stages"]
    reports = {stage["name"]: report_from_json(stage["report"]) for stage in stages}
    return {
        name: (report.macro_ap.value, report.macro_auc.value) for name, report in reports.items()
    }


def evaluate_model(
    model: Path,
    out: Path,
    test_set: TestSet,
    out_of_fold: tuple[float, float],
    progress: Progress,
) -> Figures:
    """Predict the test recordings, unless that is done already, and evaluate the tables.

    Parameters
    ----------
    model : a bundle
    out : the folder of the tables that ``predict`` writes
    test_set : recordings and their truth
    out_of_fold : macro AP and macro AUC, passed through
    progress : gets the number of predicted recordings

    Returns
    -------
    Figures
        All figures of the model.
    """
    key = {"model": read_bundle(model).digest, "audio": test_set.digest}
    note = out / "benchmark.json"
    if read_note(note) != key:
        shutil.rmtree(out, ignore_errors=True)
        api.predict_to(model, test_set.audio, out, progress=progress.of("test recordings"))
        write_json(key, note)
    report = test_set.evaluate(read_frame(out / "presence.csv"), out.name)
    f1 = NAN
    if test_set.events is not None:
        table = api.evaluate_events(out, test_set.events).set_index("species")
        f1 = float(table.loc[MACRO, "f1"])  # type: ignore[arg-type]
    return Figures(*out_of_fold, report.lwlrap.value, report.macro_ap.value, f1)


def evaluate_rescaled(out: Path, prevalence: Path, test_set: TestSet) -> tuple[float, float]:
    """Evaluate the clip scores in a folder after rescaling their odds to prevalences.

    Parameters
    ----------
    out : a folder that ``predict`` wrote
    prevalence : a table (species, prevalence)
    test_set : recordings and their truth

    Returns
    -------
    tuple of float
        LWLRAP and macro AP.
    """
    table = read_frame(out / "presence.csv").set_index(KEY)
    names = tuple(str(name) for name in table.columns)
    scores = numeric_scores(table, "presence.csv")
    rescaled = rescale_odds(scores, read_prevalence(prevalence, names))
    ids = [str(name) for name in table.index]
    report = test_set.evaluate(clip_score_table(ids, rescaled, names), out.name)
    return report.lwlrap.value, report.macro_ap.value


def evaluate_pseudo_labels(
    recipe: Recipe, folder: RunFolder, truth: pd.DataFrame
) -> list[dict[str, Any]]:
    """Evaluate the pseudo-labels of each stage and cycle against the training recordings' truth.

    Parameters
    ----------
    recipe : the recipe of the run
    folder : the run
    truth : ``recording_id``, then one column per species

    Returns
    -------
    list of dict
        One row per stage and cycle: ``labels`` counts all labels, ``judged`` those whose recording
        and species are in the truth. Hard labels have ``correct``, the share whose recording
        contains the species. Soft labels have ``ap`` (macro) and ``brier`` (mean squared error) of
        the highest label per recording and species.
    """
    rows = []
    for stage in recipe.stages:
        for cycle in range(1, stage.cycles + 1) if stage.pseudo else ():
            assert stage.pseudo is not None
            home = folder.stage(stage.name, cycle)
            labels = read_frame(home / "pseudo.csv").astype({"score": float})
            judged = _with_truth(labels, truth)
            soft = stage.pseudo.targets == "soft"
            figures = _soft_figures(judged) if soft else {"correct": _mean(judged["present"])}
            counts = {"labels": len(labels), "judged": len(judged)}
            kind = "soft" if soft else "hard"
            rows.append({"stage": home.name, "kind": kind, **counts, **figures})
    return rows


def seconds_until(sessions: list[dict[str, float]], moment: float) -> float:
    """Sum the seconds of work before a moment.

    Parameters
    ----------
    sessions : ``began`` and ``ended`` of each session of work, in seconds
    moment : seconds on the same clock

    Returns
    -------
    float
        Seconds; NaN where a session was stopped before it could note its end.

    Examples
    --------
    >>> seconds_until([{"began": 0.0, "ended": 10.0}, {"began": 20.0, "ended": 30.0}], 25.0)
    15.0
    """
    if not sessions or not all("ended" in session for session in sessions):
        return NAN
    return sum(max(0.0, min(session["ended"], moment) - session["began"]) for session in sessions)


def _with_truth(labels: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Select the labels that the truth covers, with a column ``present``."""
    indexed = truth.set_index(KEY)
    values = numeric_scores(indexed, "the truth table")
    row = indexed.index.get_indexer(pd.Index(labels["recording"]))
    column = indexed.columns.get_indexer(pd.Index(labels["species"]))
    present = np.where((row >= 0) & (column >= 0), values[row, column], np.nan)
    return labels.assign(present=present)[~np.isnan(present)]


def _soft_figures(judged: pd.DataFrame) -> dict[str, float]:
    cells = judged.groupby(["recording", "species"])[["score", "present"]].max().reset_index()
    per_species = [
        average_precision(rows["present"].to_numpy() == 1, rows["score"].to_numpy())
        for _, rows in cells.groupby("species")
    ]
    finite = [value for value in per_species if np.isfinite(value)]
    macro_ap = float(np.mean(finite)) if finite else NAN
    return {"ap": macro_ap, "brier": _mean((cells["score"] - cells["present"]) ** 2)}


def _mean(values: "pd.Series[Any]") -> float:
    return float(values.mean()) if len(values) else NAN
