"""The rows and sentences that the page and the card both show: of stages, and of species.

Pseudo labels as a table: how many a species and cycle, and who taught them.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from antpitta.report.canvas import (
    NONE,
    FormattedFigure,
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
from antpitta.scores.bootstrap import Interval
from antpitta.scores.evaluate import Report

FEW = 10  # judged present boxes: below, a species' figures move with every single box


@dataclass(frozen=True)
class StageRow:
    """One stage, judged one way."""

    name: str
    says: str
    judged: str  # against what
    figures: tuple[FormattedFigure, ...]  # in the order of METRICS
    report: Report
    final: bool


@dataclass(frozen=True)
class SpeciesTableRow:
    """One species of the final stage."""

    species: str
    present: str
    absent: str
    chance: str
    ap: FormattedFigure
    auc: FormattedFigure
    lwlrap: str
    truth_ap: str
    truth_auc: str
    note: str  # why there is no average precision, or that it rests on few boxes


def write_figures(report: Report) -> tuple[FormattedFigure, ...]:
    """The report's own three, in the order of ``METRICS``."""
    found: list[Interval] = [getattr(report, field) for field, _ in METRICS]
    return tuple(format_interval(one.value, one.low, one.high) for one in found)


def list_stages(stages: Sequence[StageResult]) -> list[StageRow]:
    """Two rows for a stage that was also judged against whole truth."""
    rows = []
    for place, stage in enumerate(stages):
        final = place == len(stages) - 1
        reports = [("judged cells", stage.report)]
        if stage.truth is not None:
            reports.append(("whole truth", stage.truth))
        for judged, report in reports:
            says = stage.says if report is stage.report else ""
            figures = write_figures(report)
            rows.append(StageRow(stage.name, says, judged, figures, report, final))
    return rows


def list_species(stage: StageResult) -> list[SpeciesTableRow]:
    """Best average precision first, as in the picture."""
    truth = pd.DataFrame(columns=["ap", "auc"])
    if stage.truth is not None:
        truth = stage.truth.per_species.set_index("species")[["ap", "auc"]]
    rows = []
    for line in rank_species(stage.report.per_species).to_dict("records"):
        known = line["species"] in truth.index
        whole = truth.loc[line["species"]] if known else {"ap": np.nan, "auc": np.nan}
        rows.append(
            SpeciesTableRow(
                species=str(line["species"]),
                present=format_count(line["present"]),
                absent=format_count(line["absent"]),
                chance=format_number(line["chance"] if np.isfinite(line["ap"]) else np.nan),
                ap=format_interval(line["ap"], line["ap_low"], line["ap_high"]),
                auc=format_interval(line["auc"], line["auc_low"], line["auc_high"]),
                lwlrap=format_number(line["lwlrap"]),
                truth_ap=format_number(float(whole["ap"])),
                truth_auc=format_number(float(whole["auc"])),
                note=_note(line["ap"], line["present"], line["absent"]),
            )
        )
    return rows


def _note(ap: float, present: int, absent: int) -> str:
    if not np.isfinite(ap):
        return why_undefined(present, absent)
    return f"fewer than {FEW} present" if present < FEW else ""


def name_weak_species(report: Report) -> list[tuple[str, list[str]]]:
    """What the figures cannot carry, and the species it is true of; only what occurs."""
    table = report.per_species
    present, absent = table["present"], table["absent"]
    checks = (
        ("Never judged present: whether the model hears them is not known", present == 0),
        (f"Judged present in fewer than {FEW} boxes", (present > 0) & (present < FEW)),
        ("Never judged absent: false alarms were not measured", absent == 0),
    )
    return [
        (says, [str(name) for name in table["species"][hit]]) for says, hit in checks if hit.any()
    ]


def describe_training(run_report: RunReport) -> str:
    """One sentence: what the model was trained on."""
    if run_report.supervision is None:
        return ""
    table = count_supervision(run_report.supervision)
    unknown = np.asarray(run_report.supervision.unknown, dtype=float).sum()
    frames = unknown + sum(
        np.asarray(part, dtype=float).sum()
        for part in (run_report.supervision.present, run_report.supervision.absent)
    )
    said = (
        f"Trained on {count_nouns(len(run_report.supervision.recordings), 'recording', 'recordings')} "
        f"for {len(table):,} species"
    )
    if frames == 0:
        return f"{said}."
    return (
        f"{said}; listeners judged {format_share((frames - unknown) / frames)} of all "
        "species-frames, and the rest is unknown."
    )


def describe_figures(report: Report) -> str:
    """What the figures mean, in one sentence: out of fold, known cells only."""
    present, absent = (int(report.per_species[name].sum()) for name in ("present", "absent"))
    return (
        "Each recording was scored by models that did not train on it, and only what a listener "
        f"judged counts: {count_nouns(report.cells, 'cell', 'cells')} "
        f"({present:,} present, {absent:,} absent) in "
        f"{count_nouns(report.recordings, 'recording', 'recordings')} "
        f"(LWLRAP: {count_nouns(report.ranked, 'recording', 'recordings')} with a species present "
        "and a rival judged absent); what nobody listened for is neither a hit nor a rival."
    )


NO_SUM = ("recordings",)  # one recording counts for several species
_NOT_TEACHERS = ("cycle", "species", "recording")


@dataclass(frozen=True)
class PseudoTable:
    """Species x (kind of number, cycle), with a last row for all species."""

    kinds: tuple[str, ...]
    cycles: tuple[str, ...]  # under each kind
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def count_pseudo(pseudo: pd.DataFrame) -> pd.DataFrame:
    """Rows (``kind``, ``cycle``, ``species``, ``value``, ``whole``), one a printed number.

    Takes one row a label (``recording``, ``species``, ``score``, and ``cycle`` unless there was
    only one) or rows that are counted already (``cycle``, ``species``, numbers). Whole numbers
    are counts and add up; others are means.
    """
    table = pseudo if "cycle" in pseudo.columns else pseudo.assign(cycle=1)
    if "recording" in table.columns:
        table = table[["cycle", "species", "score"]].rename(columns={"score": "mean score"})
        table.insert(2, "labels", 1)
    parts = []
    for kind in table.columns:
        if kind in _NOT_TEACHERS or not pd.api.types.is_numeric_dtype(table[kind]):
            continue
        whole = bool((table[kind].dropna() % 1 == 0).all())
        groups = table.groupby(["cycle", "species"], sort=False)[kind]
        values = (groups.sum() if whole else groups.mean()).rename("value").reset_index()
        parts.append(values.assign(kind=str(kind), whole=whole))
    columns = ["kind", "cycle", "species", "value", "whole"]
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)


def tabulate_pseudo(pseudo: pd.DataFrame) -> PseudoTable:
    """What :func:`count_pseudo` counts, as it is printed; a mean has no sum over species."""
    counted = count_pseudo(pseudo).to_dict("records")
    places = list(dict.fromkeys((row["kind"], row["cycle"]) for row in counted))
    cells = {(row["species"], row["kind"], row["cycle"]): row for row in counted}
    rows = []
    for species in dict.fromkeys(row["species"] for row in counted):
        line = [cells.get((species, *place)) for place in places]
        rows.append((str(species), tuple(_write_cell(cell) for cell in line)))
    totals = []
    for place in places:
        column = [cell for (_, *at), cell in cells.items() if tuple(at) == place]
        whole = place[0] not in NO_SUM and all(cell["whole"] for cell in column)
        totals.append(format_count(sum(cell["value"] for cell in column)) if whole else NONE)
    return PseudoTable(
        kinds=tuple(dict.fromkeys(kind for kind, _ in places)),
        cycles=tuple(dict.fromkeys(str(cycle) for _, cycle in places)),
        rows=(*rows, ("all species", tuple(totals))),
    )


def _write_cell(cell: Mapping[Hashable, Any] | None) -> str:
    if cell is None:
        return NONE
    return format_count(cell["value"]) if cell["whole"] else format_number(cell["value"])


def list_teachers(pseudo: pd.DataFrame) -> list[str]:
    """What the text columns say of each cycle: ``cycle 1: teacher stage 2, folds 0 to 4``."""
    table = pseudo if "cycle" in pseudo.columns else pseudo.assign(cycle=1)
    said = []
    for cycle, rows in table.groupby("cycle", sort=False):
        for name in rows.columns:
            if name in _NOT_TEACHERS or pd.api.types.is_numeric_dtype(rows[name]):
                continue
            values = ", ".join(sorted(set(rows[name].dropna().astype(str))))
            if values:
                said.append(f"cycle {cycle}: {name} {values}")
    return said
