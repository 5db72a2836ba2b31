"""evaluate_audits: what scores mean by the audits of a queue; tables for occupancy models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from antpitta.core.arguments import PathArgument, checked
from antpitta.core.errors import UserError
from antpitta.core.types import Recording
from antpitta.files.deployments import read_deployments
from antpitta.files.locks import lock_folder
from antpitta.files.manifest import check_own_files, replace_files
from antpitta.files.matching import RecordingMatcher
from antpitta.files.queue import DATABASE, is_url
from antpitta.files.tables import write_csv
from antpitta.files.texts import read_json
from antpitta.predict.exports import read_events
from antpitta.predict.journal import NAME, read_places
from antpitta.review.audits import QueueAudits, estimate_species, open_queue, read_audits
from antpitta.review.rescoring import score_audits
from antpitta.scores.audit import SpeciesAudit
from antpitta.scores.audit_thresholds import AuditThreshold, audit_threshold
from antpitta.scores.bootstrap import Interval
from antpitta.scores.occupancy import detection_histories, naive_occupancy, site_days

Precision = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class AuditEvaluation:
    """The result of :func:`evaluate_audits`.

    Attributes
    ----------
    thresholds : one row a species: threshold, precision, missed calls, recall and prevalence with
        95 % intervals, and what is left to check
    curves : the same for every score of a verdict
    sentences : by species, such as "0.62 gives 90 %, 83 to 95; check 40 more between 0.5 and 0.7"
    refused : species without a threshold, and why
    site_days, histories, occupancy : which species was detected where and when; empty without
        ``predicted``
    notes : what was left out
    """

    thresholds: pd.DataFrame
    curves: pd.DataFrame = field(repr=False)
    sentences: dict[str, str]
    refused: dict[str, str]
    site_days: pd.DataFrame = field(repr=False)
    histories: pd.DataFrame = field(repr=False)
    occupancy: pd.DataFrame = field(repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Prediction:
    """The detections and the recordings of an output folder, under the ids of the queue."""

    model: str
    recordings: tuple[str, ...]
    events: pd.DataFrame  # recording, species, score, start_time, end_time
    surveys: pd.DataFrame  # recording, site, day; of those whose site and clock are known


@checked
def is_queue(target: PathArgument) -> bool:
    """Whether something to evaluate is a queue.

    Parameters
    ----------
    target
        A folder or file, or the URL of a database.

    Returns
    -------
    bool
        True for a URL and for a folder that holds the database of a queue.
    """
    return is_url(target) or (Path(target) / DATABASE).is_file()


@checked
def evaluate_audits(
    queue: PathArgument,
    expect_precision: Precision = 0.9,
    *,
    predicted: PathArgument | None = None,
    deployments: PathArgument | None = None,
    out: PathArgument | None = None,
) -> AuditEvaluation:
    """Estimate precision, missed calls and prevalence of each species from the audits of a queue.

    Parameters
    ----------
    queue
        The folder of a queue, or the URL of its database.
    expect_precision
        That the threshold of each species shall have.
    predicted
        A folder that ``predict`` wrote for the audited recordings. The thresholds are applied to
        its detections. The audited candidates are scored anew by these where they are of another
        model.
    deployments
        A table of sites and time zones, as ``predict`` takes it.
    out
        A folder for the tables, replaced as far as antpitta wrote it.

    Returns
    -------
    AuditEvaluation

    Raises
    ------
    UserError
        ``E_NO_QUEUE``, ``E_NO_AUDIT`` if no species has a verdict of an audit,
        ``E_AUDIT_MODEL`` and ``E_AUDIT_RECORDINGS`` if ``predicted`` is of another model whose
        training saw the audit, or of other recordings, ``E_NO_JOURNAL`` if its recordings are not
        known, ``E_OUTPUT_EDITED`` for tables in ``out`` that were edited.

    Examples
    --------
    >>> antpitta.api.evaluate_audits("queue", 0.9).sentences  # doctest: +SKIP
    """
    with open_queue(queue) as store:
        audits = read_audits(store)
        judged = audits.items[audits.items["present"].notna()]
        if judged.empty:
            what = f"{queue}: no audit has a verdict yet"
            raise UserError("E_NO_AUDIT", what, "draw one with antpitta candidates --audit")
        prediction = None
        if predicted is not None:
            known = {row["recording_id"] for row in store.candidates()}
            prediction = _read_prediction(Path(predicted), known, deployments)
            surveyed, events = set(prediction.recordings), prediction.events
            audits = score_audits(store, audits, events, prediction.model, surveyed)
    result = _estimate(audits, expect_precision, prediction)
    if out is not None:
        _write(result, Path(out), with_occupancy=prediction is not None)
    return result


def _estimate(
    audits: QueueAudits, precision: float, prediction: _Prediction | None
) -> AuditEvaluation:
    refused = dict(audits.refused)
    estimates: list[tuple[SpeciesAudit, AuditThreshold, str]] = []
    for name, items in audits.items.groupby("species", sort=True):
        if items["present"].notna().any() and str(name) not in refused:
            audit = estimate_species(items)
            estimates.append(
                (audit, audit_threshold(audit, precision), str(items["model"].iloc[0]))
            )
    reached = {chosen.species: chosen.threshold for _, chosen, _ in estimates if chosen.reached}
    empty = pd.DataFrame({"recording": [], "site": [], "day": []}, dtype=str)
    table = site_days(
        empty if prediction is None else prediction.surveys,
        _no_events() if prediction is None else prediction.events,
        reached,
    )
    notes = []
    if prediction is not None and (lost := len(prediction.recordings) - len(prediction.surveys)):
        notes.append(f"{lost} recordings have no known site or no known time")
    curves = [audit.curve.assign(species=audit.species) for audit, _, _ in estimates]
    return AuditEvaluation(
        thresholds=pd.DataFrame([_row(*each) for each in estimates]),
        curves=pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(),
        sentences={chosen.species: chosen.sentence() for _, chosen, _ in estimates},
        refused=refused,
        site_days=table,
        histories=detection_histories(table),
        occupancy=naive_occupancy(table),
        notes=tuple(notes),
    )


def _row(audit: SpeciesAudit, chosen: AuditThreshold, model: str) -> dict[str, Any]:
    """The cells of a species in thresholds.csv."""
    row: dict[str, Any] = {
        "species": audit.species,
        "threshold": chosen.threshold,
        "wanted_precision": chosen.wanted,
        "reached": chosen.reached,
    }
    for name in ("precision", "missed", "recall"):
        row |= _cells(name, getattr(chosen, name))
    row |= _cells("prevalence", audit.prevalence)
    row |= {"candidates": round(audit.candidates), "judged": audit.judged}
    row |= {"present": audit.present, "unjudged": audit.unjudged}
    row |= {"clusters": audit.clusters, "cluster_count": audit.cluster_count}
    row |= {"enough": chosen.enough, "check_more": chosen.more}
    row |= {"check_from": chosen.low, "check_to": chosen.high, "model": model}
    return row


def _cells(name: str, interval: Interval) -> dict[str, float]:
    return {
        name: interval.value,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
    }


def _no_events() -> pd.DataFrame:
    types = {"recording": str, "species": str, "score": float}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in types.items()})


def _read_prediction(folder: Path, known: set[str], deployments: Path | str | None) -> _Prediction:
    """The detections of a folder; recordings have the ids of the queue where it knows them."""
    events = read_events(folder)
    model = str(read_json(folder / "run.json").get("digest", ""))
    places = read_places(folder)
    if not places:
        what = f"{folder / NAME}: the recordings without a detection are not known"
        raise UserError("E_NO_JOURNAL", what, "predict these recordings again")
    ids = _queue_ids({*places, *events["file"]}, known, folder)
    surveys = _surveys(places, deployments)
    names = ["recording", "species", "score", "start_time", "end_time"]
    return _Prediction(
        model,
        tuple(ids[file] for file in places),
        events.assign(recording=events["file"].map(ids))[names],
        surveys.assign(recording=surveys["file"].map(ids)).drop(columns="file"),
    )


def _queue_ids(files: set[str], known: set[str], folder: Path) -> dict[str, str]:
    """The id of each file in the queue, or its path where the queue has no such recording."""
    matcher = RecordingMatcher([Recording(name, Path(f"{name}.wav"), 1, 1) for name in known])
    matches = matcher.find_all(sorted(files), folder)
    return {
        file: match.id if isinstance(match := matches.get(file), Recording) else file
        for file in files
    }


def _surveys(
    places: Mapping[str, tuple[str | None, str | None]], deployments: Path | str | None
) -> pd.DataFrame:
    """Rows file, site, day of the recordings whose site and start are known."""
    table = None if deployments is None else read_deployments(Path(deployments))
    rows = []
    for file, (known_site, recorded_at) in places.items():
        deployment = None if table is None else table.of_recording(Path(file), known_site)
        site = known_site if deployment is None else deployment.site
        if site and recorded_at:
            rows.append((file, site, datetime.fromisoformat(recorded_at).date().isoformat()))
    return pd.DataFrame(rows, columns=["file", "site", "day"])


def _write(result: AuditEvaluation, folder: Path, *, with_occupancy: bool) -> None:
    """Write the tables; each replaces the one that an earlier command wrote."""
    tables = {"thresholds.csv": result.thresholds, "curves.csv": result.curves}
    if with_occupancy:
        tables |= {
            "site_days.csv": result.site_days,
            "histories.csv": result.histories,
            "occupancy.csv": result.occupancy,
        }
    with lock_folder(folder):
        check_own_files(folder, "estimates", tables)
        with replace_files(folder, "estimates", complete=True) as unfinished:
            for name, table in tables.items():
                write_csv(table, unfinished / name)
