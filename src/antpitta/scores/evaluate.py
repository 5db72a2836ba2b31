"""From judged cells to a report: LWLRAP, AP and AUC, each with an interval.

What is counted, and why:

- Only known cells. A species that nobody judged in a recording is no rival there.
- LWLRAP takes a recording that holds a species and a known rival (a species judged absent),
  or one whose every species is judged. A recording where a listener marked one present box and
  nothing else would earn 1 whatever the scores: validated boxes are mostly of that kind, and
  would lift every model to the same height. ``Report.ranked`` says how many recordings
  counted. On whole truth every recording with a species counts, as in the competition.
- AP and AUC take rows, boxes where boxes were judged; macro figures are means over the
  species that have both present and absent rows, each as important as any other.
- Intervals resample recordings. Species with present or absent rows in one recording only get
  none: a draw cannot vary what it has once. In a draw that misses a species, the macro mean is
  taken over the others.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.types import Classes
from antpitta.scores.bootstrap import (
    Interval,
    RankedRows,
    divide,
    draw_weights,
    interval,
    mean_known,
    rank_rows,
    weighted_figures,
)
from antpitta.scores.cells import CellMatrices, cell_matrices
from antpitta.scores.metrics import (
    Curve,
    Flags,
    Floats,
    area_under_roc,
    average_precision,
    label_precisions,
    lwlrap,
    precision_recall,
)

COUNTS = ("present", "absent")
FIGURES = ("ap", "ap_low", "ap_high", "auc", "auc_low", "auc_high", "lwlrap")
HEADLINES = ("lwlrap", "macro_ap", "macro_auc")
NAN = float("nan")
DRAWS = 1000  # of the bootstrap, where nothing asks for another number


@dataclass(frozen=True)
class Report:
    """How well one source of scores tells present from absent."""

    source: str
    lwlrap: Interval
    macro_ap: Interval
    macro_auc: Interval
    per_species: pd.DataFrame  # species, present, absent (rows), then FIGURES
    curves: dict[str, Curve]  # species that have one
    recordings: int
    cells: int
    ranked: int  # recordings that LWLRAP counts

    def __repr__(self) -> str:
        return (
            f"Report({self.source!r}: LWLRAP {self.lwlrap.value:.3f}, "
            f"macro AP {self.macro_ap.value:.3f}, macro AUC {self.macro_auc.value:.3f}; "
            f"{len(self.per_species)} species, {self.recordings} recordings)"
        )


def evaluate_cells(
    cells: pd.DataFrame, classes: Classes, source: str, *, draws: int, rng: np.random.Generator
) -> Report:
    """Judge scores by the cells; ``draws=0`` leaves the intervals NaN."""
    judged = cell_matrices(cells, classes)
    rows = cell_matrices(cells, classes, merge=False)
    # each row's recording, as its place in the merged order (which is sorted)
    place = np.searchsorted(np.array(judged.recordings), np.array(rows.recordings))
    counted = rankable(judged)
    earned, labels, per_class = _rank(judged, counted)
    species = [_Species.of(rows, place, column) for column in range(len(classes))]

    drawn_rank, drawn_ap, drawn_auc = [], [], []
    for weights in draw_weights(len(judged.recordings), draws, rng):
        drawn_rank.append(divide(weights @ earned, weights @ labels))
        figures = [one.drawn(weights) for one in species]
        drawn_ap.append(np.stack([ap for ap, _ in figures], axis=1))
        drawn_auc.append(np.stack([auc for _, auc in figures], axis=1))
    rank = np.concatenate([*drawn_rank, np.empty(0)])
    ap = np.concatenate([*drawn_ap, np.empty((0, len(classes)))])
    auc = np.concatenate([*drawn_auc, np.empty((0, len(classes)))])

    value = float(divide(earned.sum(keepdims=True), labels.sum(keepdims=True))[0])
    return Report(
        source=source,
        lwlrap=interval(value, rank),
        macro_ap=interval(float(mean_known(np.array([s.ap for s in species]))), mean_known(ap)),
        macro_auc=interval(float(mean_known(np.array([s.auc for s in species]))), mean_known(auc)),
        per_species=_table(species, classes, ap, auc, per_class),
        curves={
            name: s.curve
            for name, s in zip(classes.names, species, strict=True)
            if s.curve is not None
        },
        recordings=len(judged.recordings),
        cells=len(cells),
        ranked=int(counted.sum()),
    )


def rankable(judged: CellMatrices) -> Flags:
    """The recordings (rows,) that LWLRAP counts: see the top of this file.

    Of a single class there is no ranking, so none.
    """
    rival = (judged.known & ~judged.truth).any(axis=1) | judged.known.all(axis=1)
    several = judged.known.shape[1] > 1
    return np.asarray(judged.truth.any(axis=1) & rival & several, dtype=bool)


@dataclass(frozen=True)
class _Species:
    """One species' rows and what follows from them before any draw."""

    present: int
    absent: int
    ap: float
    auc: float
    curve: Curve | None
    ranking: RankedRows | None  # None where there is nothing to compare
    spread: bool  # present rows lie in two recordings or more, and so do absent ones

    @classmethod
    def of(cls, rows: CellMatrices, place: NDArray[np.intp], column: int) -> "_Species":
        mine = rows.known[:, column]
        truth, scores, recording = rows.truth[mine, column], rows.scores[mine, column], place[mine]
        curve = precision_recall(truth, scores)
        return cls(
            present=int(truth.sum()),
            absent=int((~truth).sum()),
            ap=average_precision(truth, scores),
            auc=area_under_roc(truth, scores),
            curve=curve,
            ranking=None if curve is None else rank_rows(truth, scores, recording),
            spread=min(len(set(recording[truth])), len(set(recording[~truth]))) > 1,
        )

    def drawn(self, weights: Floats) -> tuple[Floats, Floats]:
        if self.ranking is None:
            nothing = np.full(len(weights), np.nan)
            return nothing, nothing
        return weighted_figures(self.ranking, weights)


def _rank(judged: CellMatrices, counted: Flags) -> tuple[Floats, Floats, Floats]:
    """For each recording, precision earned and labels; for each class, its LWLRAP."""
    earned, labels = np.zeros(len(counted)), np.zeros(len(counted))
    if not counted.any():
        return earned, labels, np.full(judged.known.shape[1], np.nan)
    truth, known, scores = judged.truth[counted], judged.known[counted], judged.scores[counted]
    earned[counted] = label_precisions(truth, scores, known).sum(axis=1)
    labels[counted] = truth.sum(axis=1)
    return earned, labels, lwlrap(truth, scores, known).per_class


def _table(
    species: list[_Species], classes: Classes, ap: Floats, auc: Floats, per_class: Floats
) -> pd.DataFrame:
    rows = []
    for column, (name, one) in enumerate(zip(classes.names, species, strict=True)):
        draws = slice(None) if one.spread else slice(0)
        of_ap, of_auc = interval(one.ap, ap[draws, column]), interval(one.auc, auc[draws, column])
        figures = (of_ap.value, of_ap.low, of_ap.high, of_auc.value, of_auc.low, of_auc.high)
        rows.append((name, one.present, one.absent, *figures, float(per_class[column])))
    return pd.DataFrame(rows, columns=["species", *COUNTS, *FIGURES])


def report_to_json(report: Report) -> dict[str, Any]:
    """The report as plain lists, numbers and None (for NaN): strict JSON can hold it."""
    headlines = {name: getattr(report, name) for name in HEADLINES}
    return {
        "source": report.source,
        **{
            name: {"value": _bare(i.value), "low": _bare(i.low), "high": _bare(i.high)}
            for name, i in headlines.items()
        },
        "per_species": [
            {"species": str(row["species"])}
            | {name: int(row[name]) for name in COUNTS}
            | {name: _bare(row[name]) for name in FIGURES}
            for row in report.per_species.to_dict("records")
        ],
        "curves": {
            name: {"recall": recall.tolist(), "precision": precision.tolist()}
            for name, (recall, precision) in report.curves.items()
        },
        "recordings": report.recordings,
        "cells": report.cells,
        "ranked": report.ranked,
    }


def report_from_json(kept: dict[str, Any]) -> Report:
    """The report that :func:`report_to_json` wrote down."""
    table = pd.DataFrame(kept["per_species"], columns=["species", *COUNTS, *FIGURES])
    return Report(
        source=kept["source"],
        **{
            name: Interval(*(_full(kept[name][part]) for part in ("value", "low", "high")))
            for name in HEADLINES
        },
        per_species=table.astype(dict.fromkeys(FIGURES, float)),
        curves={
            name: (np.array(curve["recall"], float), np.array(curve["precision"], float))
            for name, curve in kept["curves"].items()
        },
        recordings=kept["recordings"],
        cells=kept["cells"],
        ranked=kept["ranked"],
    )


def _bare(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _full(value: float | None) -> float:
    return NAN if value is None else value
