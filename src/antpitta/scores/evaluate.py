"""From labelled cells to a report: LWLRAP, average precision and AUC, each with an interval.

What is counted, and why:

- Only known cells. A species without a label in a recording is no rival there.
- LWLRAP counts recordings with a present species and a known rival (an absent species), and
  recordings in which every species is known. A recording with one present box and nothing else
  would earn 1 whatever its scores are. Most validated boxes are of that kind, and would lift every
  model to the same value. ``Report.ranked`` is the number of recordings that count. With complete
  ground truth, every recording with a species counts, as in the competition.
- Average precision and AUC count rows (boxes, where boxes are labelled). Their macro means are over
  the species with present and absent rows, and all species count equally.
- Intervals resample recordings. A species whose present or absent rows lie in one recording has
  no interval: draws cannot vary it. Where a draw misses a species, the macro mean is taken over
  the other species.
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
    nan_mean,
    percentile_interval,
    rank_rows,
    weighted_metrics,
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
METRICS = ("ap", "ap_low", "ap_high", "auc", "auc_low", "auc_high", "lwlrap")
HEADLINES = ("lwlrap", "macro_ap", "macro_auc")
DRAWS = 1000  # of the bootstrap, by default


@dataclass(frozen=True)
class Report:
    """The metrics of one source of scores.

    Parameters
    ----------
    per_species : columns species, present, absent (numbers of rows), then the metrics
    curves : precision-recall curves of the species that have one
    recordings, cells : how many were evaluated
    ranked : number of recordings that LWLRAP counts
    """

    source: str
    lwlrap: Interval
    macro_ap: Interval
    macro_auc: Interval
    per_species: pd.DataFrame
    curves: dict[str, Curve]
    recordings: int
    cells: int
    ranked: int

    def __repr__(self) -> str:
        return (
            f"Report({self.source!r}: LWLRAP {self.lwlrap.value:.3f}, "
            f"macro AP {self.macro_ap.value:.3f}, macro AUC {self.macro_auc.value:.3f}; "
            f"{len(self.per_species)} species, {self.recordings} recordings)"
        )


def evaluate_cells(
    cells: pd.DataFrame, classes: Classes, source: str, *, draws: int, rng: np.random.Generator
) -> Report:
    """Compute all metrics of labelled cells.

    Parameters
    ----------
    cells : as in :mod:`antpitta.scores.cells`
    classes : the classes, in the order of the columns
    source : what the report calls the scores
    draws : of the bootstrap; 0 leaves the intervals NaN
    rng : source of all random choices

    Returns
    -------
    report : all metrics
    """
    matrices = cell_matrices(cells, classes)
    rows = cell_matrices(cells, classes, merge=False)
    # The place of each row's recording in the merged order, which is sorted.
    place = np.searchsorted(np.array(matrices.recordings), np.array(rows.recordings))
    counted = rankable(matrices)
    earned, labels, per_class = _rank(matrices, counted)
    species = [_Species.of(rows, place, column) for column in range(len(classes))]

    lwlrap_draws, ap_draws, auc_draws = [], [], []
    for weights in draw_weights(len(matrices.recordings), draws, rng):
        lwlrap_draws.append(divide(weights @ earned, weights @ labels))
        metrics = [row.draw(weights) for row in species]
        ap_draws.append(np.stack([ap for ap, _ in metrics], axis=1))
        auc_draws.append(np.stack([auc for _, auc in metrics], axis=1))
    rank = np.concatenate([*lwlrap_draws, np.empty(0)])
    ap = np.concatenate([*ap_draws, np.empty((0, len(classes)))])
    auc = np.concatenate([*auc_draws, np.empty((0, len(classes)))])

    value = float(divide(earned.sum(keepdims=True), labels.sum(keepdims=True))[0])
    return Report(
        source=source,
        lwlrap=percentile_interval(value, rank),
        macro_ap=_macro_interval([row.ap for row in species], ap),
        macro_auc=_macro_interval([row.auc for row in species], auc),
        per_species=_table(species, classes, ap, auc, per_class),
        curves={
            name: row.curve
            for name, row in zip(classes.names, species, strict=True)
            if row.curve is not None
        },
        recordings=len(matrices.recordings),
        cells=len(cells),
        ranked=int(counted.sum()),
    )


def _macro_interval(values: list[float], draws: Floats) -> Interval:
    return percentile_interval(float(nan_mean(np.array(values))), nan_mean(draws))


def rankable(matrices: CellMatrices) -> Flags:
    """The recordings (rows,) that LWLRAP counts; with a single class there are none.

    Parameters
    ----------
    matrices : merged cells: a row is a recording

    Returns
    -------
    counted : (rows,)
    """
    rival = (matrices.known & ~matrices.truth).any(axis=1) | matrices.known.all(axis=1)
    several = matrices.known.shape[1] > 1
    return np.asarray(matrices.truth.any(axis=1) & rival & several, dtype=bool)


@dataclass(frozen=True)
class _Species:
    """The rows of one species, and what follows from them before any draw."""

    present: int
    absent: int
    ap: float
    auc: float
    curve: Curve | None
    ranking: RankedRows | None  # None where there is nothing to compare
    spread: bool  # present rows lie in two recordings or more, and so do absent ones

    @classmethod
    def of(cls, rows: CellMatrices, place: NDArray[np.intp], column: int) -> "_Species":
        own = rows.known[:, column]
        truth, scores, recording = rows.truth[own, column], rows.scores[own, column], place[own]
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

    def draw(self, weights: Floats) -> tuple[Floats, Floats]:
        """Average precision and AUC of each draw."""
        if self.ranking is None:
            nothing = np.full(len(weights), np.nan)
            return nothing, nothing
        return weighted_metrics(self.ranking, weights)


def _rank(matrices: CellMatrices, counted: Flags) -> tuple[Floats, Floats, Floats]:
    """For each recording, precision earned and labels; for each class, its LWLRAP."""
    earned, labels = np.zeros(len(counted)), np.zeros(len(counted))
    if not counted.any():
        return earned, labels, np.full(matrices.known.shape[1], np.nan)
    truth, known = matrices.truth[counted], matrices.known[counted]
    scores = matrices.scores[counted]
    earned[counted] = label_precisions(truth, scores, known).sum(axis=1)
    labels[counted] = truth.sum(axis=1)
    return earned, labels, lwlrap(truth, scores, known).per_class


def _table(
    species: list[_Species], classes: Classes, ap: Floats, auc: Floats, per_class: Floats
) -> pd.DataFrame:
    rows = []
    for column, (name, own) in enumerate(zip(classes.names, species, strict=True)):
        draws = slice(None) if own.spread else slice(0)
        values: list[float] = []
        for value, drawn in ((own.ap, ap), (own.auc, auc)):
            interval = percentile_interval(value, drawn[draws, column])
            values += [interval.value, interval.low, interval.high]
        rows.append((name, own.present, own.absent, *values, float(per_class[column])))
    return pd.DataFrame(rows, columns=["species", *COUNTS, *METRICS])


def report_to_json(report: Report) -> dict[str, Any]:
    """The report as plain lists, numbers and None (for NaN), for strict JSON.

    Parameters
    ----------
    report : any report

    Returns
    -------
    content : for :func:`report_from_json`
    """
    headlines = {name: getattr(report, name) for name in HEADLINES}
    return {
        "source": report.source,
        **{
            name: {
                "value": _to_json(interval.value),
                "low": _to_json(interval.low),
                "high": _to_json(interval.high),
            }
            for name, interval in headlines.items()
        },
        "per_species": [
            {"species": str(row["species"])}
            | {name: int(row[name]) for name in COUNTS}
            | {name: _to_json(row[name]) for name in METRICS}
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


def report_from_json(content: dict[str, Any]) -> Report:
    """The report that :func:`report_to_json` wrote.

    Parameters
    ----------
    content : what was read from JSON

    Returns
    -------
    report : equal to the one that was written
    """
    table = pd.DataFrame(content["per_species"], columns=["species", *COUNTS, *METRICS])
    return Report(
        source=content["source"],
        **{
            name: Interval(*(_from_json(content[name][part]) for part in ("value", "low", "high")))
            for name in HEADLINES
        },
        per_species=table.astype(dict.fromkeys(METRICS, float)),
        curves={
            name: (np.array(curve["recall"], float), np.array(curve["precision"], float))
            for name, curve in content["curves"].items()
        },
        recordings=content["recordings"],
        cells=content["cells"],
        ranked=content["ranked"],
    )


def _to_json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _from_json(value: float | None) -> float:
    return float("nan") if value is None else value
