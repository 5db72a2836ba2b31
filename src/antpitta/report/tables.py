"""The rows and sentences that the page and the card share: stages, species, pseudo-labels."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from antpitta.core.thresholds import REASONS, SpeciesThreshold
from antpitta.report.canvas import (
    NONE,
    FormattedNumber,
    count_nouns,
    format_count,
    format_interval,
    format_number,
    format_share,
)
from antpitta.report.results import RunReport, StageResult
from antpitta.report.species import rank_species, why_undefined
from antpitta.report.stages import METRICS
from antpitta.report.supervision import count_supervision
from antpitta.scores.evaluate import Report

FEW = 10  # present boxes: with fewer, a species' metrics change with every single box
LABELLED, COMPLETE = "labelled cells", "complete ground truth"  # what scores are compared with


@dataclass(frozen=True)
class StageRow:
    """The metrics of one stage on one kind of reference."""

    name: str
    description: str
    reference: str  # LABELLED or COMPLETE
    metrics: tuple[FormattedNumber, ...]  # in the order of METRICS
    report: Report
    final: bool


@dataclass(frozen=True)
class ThresholdRow:
    """The threshold of one species, and what it rests on."""

    species: str
    threshold: FormattedNumber
    precision: FormattedNumber
    recall: FormattedNumber
    present: str
    absent: str
    support: str  # "supported", or why not


@dataclass(frozen=True)
class SpeciesTableRow:
    """The metrics of one species in the stage that ships."""

    species: str
    present: str
    absent: str
    chance: str
    ap: FormattedNumber
    auc: FormattedNumber
    lwlrap: str
    truth_ap: str
    truth_auc: str
    note: str  # why there is no average precision, or that it rests on few boxes


def format_metrics(report: Report) -> tuple[FormattedNumber, ...]:
    """The report's three headline metrics, in the order of ``METRICS``.

    Parameters
    ----------
    report : the metrics

    Returns
    -------
    tuple of FormattedNumber
        One for each metric.
    """
    intervals = [getattr(report, name) for name, _ in METRICS]
    return tuple(
        format_interval(interval.value, interval.low, interval.high) for interval in intervals
    )


def list_stages(run_report: RunReport) -> list[StageRow]:
    """One row a stage, and a second one for a stage with complete ground truth.

    Parameters
    ----------
    run_report : the stages, and which one ships

    Returns
    -------
    list of StageRow
        The rows.
    """
    rows = []
    for stage in run_report.stages:
        final = stage is run_report.final
        rows.append(
            StageRow(
                *(stage.name, stage.description, LABELLED),
                *(format_metrics(stage.report), stage.report, final),
            )
        )
        if stage.truth is not None:
            metrics = format_metrics(stage.truth)
            rows.append(StageRow(stage.name, "", COMPLETE, metrics, stage.truth, final))
    return rows


def list_species(stage: StageResult) -> list[SpeciesTableRow]:
    """One row a species, the best average precision first, as in the picture.

    Parameters
    ----------
    stage : the one that ships

    Returns
    -------
    list of SpeciesTableRow
        The rows.
    """
    truth = pd.DataFrame(columns=["ap", "auc"])
    if stage.truth is not None:
        truth = stage.truth.per_species.set_index("species")[["ap", "auc"]]
    rows = []
    for row in rank_species(stage.report.per_species).to_dict("records"):
        known = row["species"] in truth.index
        complete = truth.loc[row["species"]] if known else {"ap": np.nan, "auc": np.nan}
        rows.append(
            SpeciesTableRow(
                species=str(row["species"]),
                present=format_count(row["present"]),
                absent=format_count(row["absent"]),
                chance=format_number(row["chance"] if np.isfinite(row["ap"]) else np.nan),
                ap=format_interval(row["ap"], row["ap_low"], row["ap_high"]),
                auc=format_interval(row["auc"], row["auc_low"], row["auc_high"]),
                lwlrap=format_number(row["lwlrap"]),
                truth_ap=format_number(float(complete["ap"])),
                truth_auc=format_number(float(complete["auc"])),
                note=_note(row["ap"], row["present"], row["absent"]),
            )
        )
    return rows


def _note(ap: float, present: int, absent: int) -> str:
    if not np.isfinite(ap):
        return why_undefined(present, absent)
    return f"fewer than {FEW} present" if present < FEW else ""


def list_thresholds(thresholds: Mapping[str, SpeciesThreshold]) -> list[ThresholdRow]:
    """One row a species, in the order of the classes.

    Parameters
    ----------
    thresholds : of each species

    Returns
    -------
    list of ThresholdRow
        The rows.
    """
    rows = []
    for name, own in thresholds.items():
        nothing = format_interval(np.nan, np.nan, np.nan)
        value = np.nan if own.value is None else own.value
        why = "not learnable" if not own.learnable else "unsupported"
        rows.append(
            ThresholdRow(
                species=name,
                threshold=format_interval(value, *(own.interval or (np.nan, np.nan))),
                precision=format_interval(*own.precision) if own.precision else nothing,
                recall=format_interval(*own.recall) if own.recall else nothing,
                present=format_count(own.present),
                absent=format_count(own.absent),
                support="supported" if own.supported else f"{why}: {REASONS[own.reason]}",
            )
        )
    return rows


def weak_species(report: Report) -> list[tuple[str, list[str]]]:
    """Problems of the evaluation that occur, each with the species that have it.

    Parameters
    ----------
    report : the metrics

    Returns
    -------
    list of (str, list of str)
        Problems and names of species.
    """
    table = report.per_species
    present, absent = table["present"], table["absent"]
    checks = (
        ("No present box, so it is unknown whether the model detects them", present == 0),
        (f"Fewer than {FEW} present boxes", (present > 0) & (present < FEW)),
        ("No absent box, so false alarms were not measured", absent == 0),
    )
    return [
        (problem, [str(name) for name in table["species"][affected]])
        for problem, affected in checks
        if affected.any()
    ]


def describe_training(run_report: RunReport) -> str:
    """The size of the training data and the labelled share of it, in a sentence.

    Parameters
    ----------
    run_report : the content of the page

    Returns
    -------
    str
        The sentence, or nothing without labels.
    """
    if run_report.supervision is None:
        return ""
    table = count_supervision(run_report.supervision)
    unknown = np.asarray(run_report.supervision.unknown, dtype=float).sum()
    frames = unknown + sum(
        np.asarray(part, dtype=float).sum()
        for part in (run_report.supervision.present, run_report.supervision.absent)
    )
    recordings = count_nouns(len(run_report.supervision.recordings), "recording", "recordings")
    text = f"Trained on {recordings} with {len(table):,} species"
    if frames == 0:
        return f"{text}."
    labelled = format_share((frames - unknown) / frames)
    return f"{text}. {labelled} of the data (species x frames) are labelled; the rest is unknown."


def describe_metrics(report: Report) -> str:
    """What the metrics are computed from: out of fold, labelled cells only.

    Parameters
    ----------
    report : the metrics of the stage that ships

    Returns
    -------
    str
        A few sentences.
    """
    present, absent = (int(report.per_species[name].sum()) for name in ("present", "absent"))
    return (
        "Each recording was scored by models that were not trained on it (out of fold). The "
        f"metrics use labelled cells only: {count_nouns(report.cells, 'cell', 'cells')} "
        f"({present:,} present, {absent:,} absent) in "
        f"{count_nouns(report.recordings, 'recording', 'recordings')}. LWLRAP uses "
        f"{count_nouns(report.ranked, 'recording', 'recordings')} with both a present and an "
        "absent species. Unknown is never counted as absent."
    )


NO_SUM = ("recordings",)  # one recording counts for several species
_KEYS = ("cycle", "species", "recording")  # columns that are neither counts nor sources


@dataclass(frozen=True)
class PseudoTable:
    """Species x (quantity, cycle), with a last row for all species."""

    quantities: tuple[str, ...]
    cycles: tuple[str, ...]  # under each quantity
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def count_pseudo(pseudo: pd.DataFrame) -> pd.DataFrame:
    """Count pseudo-labels by species and cycle.

    Parameters
    ----------
    pseudo
        One row a label (``recording``, ``species``, ``score``, and ``cycle`` if there are
        several), or rows that are counted already (``cycle``, ``species``, numbers).

    Returns
    -------
    DataFrame
        One row a printed number: ``quantity``, ``cycle``, ``species``, ``value``, ``is_count``.
        Whole numbers are counts, which add up; others are means.
    """
    table = pseudo if "cycle" in pseudo.columns else pseudo.assign(cycle=1)
    if "recording" in table.columns:
        table = table[["cycle", "species", "score"]].rename(columns={"score": "mean score"})
        table.insert(2, "labels", 1)
    parts = []
    for quantity in table.columns:
        if quantity in _KEYS or not pd.api.types.is_numeric_dtype(table[quantity]):
            continue
        is_count = bool((table[quantity].dropna() % 1 == 0).all())
        groups = table.groupby(["cycle", "species"], sort=False)[quantity]
        values = (groups.sum() if is_count else groups.mean()).rename("value").reset_index()
        parts.append(values.assign(quantity=str(quantity), is_count=is_count))
    columns = ["quantity", "cycle", "species", "value", "is_count"]
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)


def pseudo_table(pseudo: pd.DataFrame) -> PseudoTable:
    """The counts of :func:`count_pseudo` as text; a mean has no sum over species.

    Parameters
    ----------
    pseudo : as for :func:`count_pseudo`

    Returns
    -------
    PseudoTable
        The table.
    """
    counted = count_pseudo(pseudo).to_dict("records")
    columns = list(dict.fromkeys((row["quantity"], row["cycle"]) for row in counted))
    cells = {(row["species"], row["quantity"], row["cycle"]): row for row in counted}
    rows = []
    for species in dict.fromkeys(row["species"] for row in counted):
        row = [cells.get((species, *column)) for column in columns]
        rows.append((str(species), tuple(_format_cell(cell) for cell in row)))
    totals = []
    for column in columns:
        values = [cell for (_, *key), cell in cells.items() if tuple(key) == column]
        adds_up = column[0] not in NO_SUM and all(cell["is_count"] for cell in values)
        totals.append(format_count(sum(cell["value"] for cell in values)) if adds_up else NONE)
    return PseudoTable(
        quantities=tuple(dict.fromkeys(quantity for quantity, _ in columns)),
        cycles=tuple(dict.fromkeys(str(cycle) for _, cycle in columns)),
        rows=(*rows, ("all species", tuple(totals))),
    )


def _format_cell(cell: Mapping[Hashable, Any] | None) -> str:
    if cell is None:
        return NONE
    return format_count(cell["value"]) if cell["is_count"] else format_number(cell["value"])


def list_sources(pseudo: pd.DataFrame) -> list[str]:
    """The text columns of each cycle, such as ``cycle 1: source masked/fold0, masked/fold1``.

    Parameters
    ----------
    pseudo : as for :func:`count_pseudo`

    Returns
    -------
    list of str
        One line a cycle and column.
    """
    table = pseudo if "cycle" in pseudo.columns else pseudo.assign(cycle=1)
    lines = []
    for cycle, rows in table.groupby("cycle", sort=False):
        for name in rows.columns:
            if name in _KEYS or pd.api.types.is_numeric_dtype(rows[name]):
                continue
            values = ", ".join(sorted(set(rows[name].dropna().astype(str))))
            if values:
                lines.append(f"cycle {cycle}: {name} {values}")
    return lines
