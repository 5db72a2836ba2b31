"""The rows and sentences that the page and the card both show: of stages, and of species."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from antpitta.report.progress import METRICS
from antpitta.report.ranking import rank_species, why_undefined
from antpitta.report.story import StageResult, Story
from antpitta.report.supervised import count_supervision
from antpitta.report.writing import (
    Figure,
    count_nouns,
    write_count,
    write_interval,
    write_number,
    write_share,
)
from antpitta.scores.bootstrap import Interval
from antpitta.scores.evaluate import Report

FEW = 10  # judged present boxes: below, a species' figures move with every single box


@dataclass(frozen=True)
class StageRow:
    """One stage, judged one way."""

    name: str
    says: str
    judged: str  # against what
    figures: tuple[Figure, ...]  # in the order of METRICS
    report: Report
    final: bool


@dataclass(frozen=True)
class SpeciesRow:
    """One species of the final stage."""

    species: str
    present: str
    absent: str
    chance: str
    ap: Figure
    auc: Figure
    lwlrap: str
    truth_ap: str
    truth_auc: str
    note: str  # why there is no average precision, or that it rests on few boxes


def write_figures(report: Report) -> tuple[Figure, ...]:
    """The report's own three, in the order of ``METRICS``."""
    found: list[Interval] = [getattr(report, field) for field, _ in METRICS]
    return tuple(write_interval(one.value, one.low, one.high) for one in found)


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


def list_species(stage: StageResult) -> list[SpeciesRow]:
    """Best average precision first, as in the picture."""
    truth = pd.DataFrame(columns=["ap", "auc"])
    if stage.truth is not None:
        truth = stage.truth.per_species.set_index("species")[["ap", "auc"]]
    rows = []
    for line in rank_species(stage.report.per_species).to_dict("records"):
        known = line["species"] in truth.index
        whole = truth.loc[line["species"]] if known else {"ap": np.nan, "auc": np.nan}
        rows.append(
            SpeciesRow(
                species=str(line["species"]),
                present=write_count(line["present"]),
                absent=write_count(line["absent"]),
                chance=write_number(line["chance"] if np.isfinite(line["ap"]) else np.nan),
                ap=write_interval(line["ap"], line["ap_low"], line["ap_high"]),
                auc=write_interval(line["auc"], line["auc_low"], line["auc_high"]),
                lwlrap=write_number(line["lwlrap"]),
                truth_ap=write_number(float(whole["ap"])),
                truth_auc=write_number(float(whole["auc"])),
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


def say_training(story: Story) -> str:
    """One sentence: what the model was trained on."""
    if story.supervision is None:
        return ""
    table = count_supervision(story.supervision)
    unknown = np.asarray(story.supervision.unknown, dtype=float).sum()
    frames = unknown + sum(
        np.asarray(part, dtype=float).sum()
        for part in (story.supervision.present, story.supervision.absent)
    )
    said = (
        f"Trained on {count_nouns(len(story.supervision.recordings), 'recording', 'recordings')} "
        f"for {len(table):,} species"
    )
    if frames == 0:
        return f"{said}."
    return (
        f"{said}; listeners judged {write_share((frames - unknown) / frames)} of all "
        "species-frames, and the rest is unknown."
    )


def say_meaning(report: Report) -> str:
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
