"""One decision threshold per species, chosen on labelled cells.

The cells must have scores of models that did not train on them; on training cells nearly any
threshold looks perfect. What is decided here:

- A threshold of a species' own has the best F1 of those that reach ``PRECISION`` on its boxes. It
  accepts five present boxes at least and rejects an absent one. Present boxes count at most as much
  as the absent ones together: otherwise a species with many of them would accept everything. The
  threshold lies midway between the lowest score that it accepts and the next one below, so it
  does not depend on the last digit of one box.
- It needs ten present and ten absent boxes, each in two recordings or more, and an AUC whose
  interval lies above 0.5. Every other species has the conservative threshold.
- The conservative threshold begins with a number that all species share: the lowest from
  ``DEFAULT`` up that reaches ``PRECISION`` on the boxes of all species together, or one above all
  absent boxes where none does. Networks may score each species, and each fold, on a scale of its
  own, so it is raised for each species: above its highest absent box, and so far that in every
  fold the species is found in no larger share of the recordings without a present box than the
  share of all recordings that have one. Where no score is left above, the species is not found.
- Precision is that among the validated boxes. In the field it depends on how common the species is.
- Intervals resample recordings, as in scores/bootstrap.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.thresholds import (
    LOWEST,
    MIN_CELLS,
    Estimate,
    OperatingPoint,
    Reason,
    SpeciesThreshold,
    unsupported_threshold,
)
from antpitta.core.types import Classes, Scores
from antpitta.scores.bootstrap import (
    RankedRows,
    divide,
    draw_weights,
    percentile_interval,
    rank_rows,
    weighted_metrics,
)
from antpitta.scores.cells import check_cells
from antpitta.scores.metrics import Flags, Floats

DEFAULT = 0.5  # the lowest shared threshold
PRECISION = 0.9  # on labelled boxes
MIN_HITS = 5  # present boxes that a species' own threshold accepts: with fewer, one box decides
DRAWS = 1000  # of the bootstrap


class FoldScores(NamedTuple):
    """The scores of whole recordings, each by the model of the fold that holds it out.

    Parameters
    ----------
    recordings : (recordings,), ids
    folds : (recordings,)
    value : (recordings, classes), the highest score in each recording
    """

    recordings: NDArray[np.object_]
    folds: NDArray[np.integer]
    value: Floats

    @classmethod
    def of(cls, scores: Sequence[Scores], folds: Mapping[str, int]) -> Self:
        """Those of framewise scores.

        Parameters
        ----------
        scores : of each recording, by the model of the fold that holds it out
        folds : of each recording

        Returns
        -------
        The scores of whole recordings.
        """
        value = np.array([own.value.max(axis=0) for own in scores], dtype=float)
        return cls.in_folds([own.recording for own in scores], folds, value)

    @classmethod
    def in_folds(cls, recordings: Sequence[str], folds: Mapping[str, int], value: Floats) -> Self:
        """Those of a table.

        Parameters
        ----------
        recordings : (recordings,), ids
        folds : of each recording
        value : (recordings, classes)

        Returns
        -------
        The scores of whole recordings.
        """
        own = np.array([folds[recording] for recording in recordings], dtype=int)
        return cls(np.array(recordings, dtype=object), own, value)


@dataclass(frozen=True)
class _Rows:
    """The boxes of one species."""

    present: Flags
    scores: Floats
    recording: NDArray[np.intp]  # the column of each box's recording in the weights of the draws

    @property
    def counts(self) -> tuple[int, int]:
        """Present and absent boxes."""
        return int(self.present.sum()), int((~self.present).sum())

    def unsupported(self) -> Reason:
        """Why their number supports no threshold; empty if it does."""
        if not self.present.any():
            return "no present"
        if min(self.counts) < MIN_CELLS:
            return "few boxes"
        places = (len(set(self.recording[own])) for own in (self.present, ~self.present))
        return "one recording" if min(places) < 2 else ""


def choose_thresholds(
    cells: pd.DataFrame, classes: Classes, clips: FoldScores, *, rng: np.random.Generator
) -> dict[str, SpeciesThreshold]:
    """The threshold of every class, and what it rests on.

    Parameters
    ----------
    cells : as in :mod:`antpitta.scores.cells`
    classes : the classes, in the order of the columns
    clips : the scores of all training recordings, out of fold
    rng : source of all random choices

    Returns
    -------
    thresholds : of each class, in their order
    """
    check_cells(cells, classes)
    ids, place = np.unique(cells["recording"].astype(str).to_numpy(object), return_inverse=True)
    names = cells["species"].astype(str).to_numpy(object)
    present, scores = cells["present"].to_numpy(bool), cells["score"].to_numpy(float)
    weights = np.concatenate([np.empty((0, len(ids))), *draw_weights(len(ids), DRAWS, rng)])
    shared = _shared_threshold(present, scores)
    thresholds = {}
    for column, name in enumerate(classes.names):
        own = names == name
        rows = _Rows(present[own], scores[own], place[own])
        with_present = set(ids[rows.recording[rows.present]])
        conservative = _conservative_threshold(shared, rows, clips, column, with_present)
        thresholds[name] = _choose(rows, conservative, weights)
    return thresholds


def _choose(rows: _Rows, conservative: float | None, weights: Floats) -> SpeciesThreshold:
    """The threshold of a species' own where its boxes support one, else the conservative one."""
    present, absent = rows.counts
    if reason := rows.unsupported():
        return unsupported_threshold(reason, present, absent, conservative)
    ranking = rank_rows(rows.present, rows.scores, rows.recording)
    _, auc = weighted_metrics(ranking, weights)
    if not percentile_interval(0.0, auc).low > 0.5:
        return unsupported_threshold("no better than chance", present, absent, conservative)
    edges = _edges(np.unique(rows.scores)[::-1])
    points = _operating_points(ranking, edges)
    own = _own_threshold(ranking, edges, weights)
    if own is None:
        return unsupported_threshold("imprecise", present, absent, conservative, points)
    return SpeciesThreshold(
        origin="own",
        present=present,
        absent=absent,
        conservative=conservative,
        points=points,
        **own,
    )


def _own_threshold(ranking: RankedRows, edges: Floats, weights: Floats) -> dict[str, Any] | None:
    """The threshold with the best F1 and its intervals; None where the precision is not reached."""
    every = np.ones((1, weights.shape[1]))
    [best] = _best_levels(ranking, every)
    if best < 0 or edges[best] < LOWEST:
        return None
    value = float(edges[best])
    drawn = _best_levels(ranking, weights)
    interval = percentile_interval(value, edges[drawn[drawn >= 0]])
    (precision,), (recall,) = (part[:, best] for part in _precision_recall(ranking, every))
    draws = [part[:, best] for part in _precision_recall(ranking, weights)]
    estimates = [
        Estimate(*map(float, (value, *_limits(value, drawn))))
        for value, drawn in zip((precision, recall), draws, strict=True)
    ]
    return {
        "value": value,
        "interval": (interval.low, interval.high),
        "precision": estimates[0],
        "recall": estimates[1],
    }


def _limits(value: float, draws: Floats) -> tuple[float, float]:
    interval = percentile_interval(value, draws)
    return interval.low, interval.high


def _edges(levels: Floats) -> Floats:
    """The threshold that accepts each of the falling levels and none below it."""
    below = np.append(levels[1:], levels[-1])
    middle = (levels + below) / 2
    # Of two neighbouring floats the middle may be the lower one, which must not be accepted.
    return np.where(middle.astype(np.float32) > below, middle, levels)


def _count(ranking: RankedRows, weights: Floats) -> tuple[Floats, Floats]:
    """Present and absent boxes at or above each falling level, in each draw."""
    weight = weights[:, ranking.recording]
    hits = np.add.reduceat(weight * ranking.present, ranking.starts, axis=1).cumsum(axis=1)
    rows = np.add.reduceat(weight, ranking.starts, axis=1).cumsum(axis=1)
    return hits, rows - hits


def _best_levels(ranking: RankedRows, weights: Floats) -> NDArray[np.intp]:
    """The precise level with the best F1 of each draw, the highest of equal ones; else -1."""
    hits, alarms = _count(ranking, weights)
    present, absent = hits[:, -1:], alarms[:, -1:]
    weight = np.minimum(1, divide(absent, present))
    precise = weight * hits >= (PRECISION - 1e-12) * (weight * hits + alarms)
    f1 = divide(2 * weight * hits, weight * (hits + present) + alarms)
    f1 = np.where(precise & (hits >= MIN_HITS) & (alarms < absent), f1, -1.0)
    best = np.argmax(f1, axis=1)
    return np.where(f1[np.arange(len(f1)), best] > 0, best, -1)


def _precision_recall(ranking: RankedRows, weights: Floats) -> tuple[Floats, Floats]:
    """Precision and recall at each level, in each draw."""
    hits, alarms = _count(ranking, weights)
    return divide(hits, hits + alarms), divide(hits, np.broadcast_to(hits[:, -1:], hits.shape))


def _operating_points(ranking: RankedRows, edges: Floats) -> tuple[OperatingPoint, ...]:
    """From the lowest threshold up, those that are more precise than every one below."""
    every = np.ones((1, ranking.recording.max() + 1))
    (hits,), (alarms,) = _count(ranking, every)
    (precision,), (recall,) = _precision_recall(ranking, every)
    usable = (hits >= MIN_HITS) & (alarms < alarms[-1]) & (edges >= LOWEST)
    points: list[OperatingPoint] = []
    for level in np.flatnonzero(usable)[::-1]:
        if precision[level] > (points[-1].precision if points else 0.0):
            values = (edges[level], precision[level], recall[level])
            points.append(OperatingPoint(*map(float, values)))
    return tuple(points)


def _shared_threshold(present: Flags, scores: Floats) -> float | None:
    """The conservative threshold before it is raised; None where no score lies above the absent."""
    if not present.any() or present.all():
        return DEFAULT
    ranking = rank_rows(present, scores, np.zeros(len(scores), dtype=np.intp))
    (hits,), (alarms,) = _count(ranking, np.ones((1, 1)))
    weight = min(1.0, alarms[-1] / hits[-1])
    precision = divide(weight * hits, weight * hits + alarms)
    good = np.flatnonzero((precision >= PRECISION) & (hits >= MIN_CELLS))
    if not len(good):
        return _above(max(scores[~present].max(), DEFAULT))
    return max(float(_edges(np.unique(scores)[::-1])[good[-1]]), DEFAULT)


def _conservative_threshold(
    shared: float | None, rows: _Rows, clips: FoldScores, column: int, with_present: set[str]
) -> float | None:
    """The shared threshold, raised above a species' absent boxes and its usual scores."""
    floors = list(rows.scores[~rows.present])
    others = np.array([id not in with_present for id in clips.recordings], dtype=bool)
    share = 1 - others.mean() if len(others) else 0.0
    for fold in np.unique(clips.folds[others]):
        own = clips.value[others & (clips.folds == fold), column]
        floors.append(np.quantile(own, 1 - share, method="higher"))
    raised = _above(max(floors)) if floors else LOWEST
    return None if shared is None or raised is None else max(shared, raised)


def _above(score: float) -> float | None:
    """The next number above a score; None above 1."""
    above = float(np.nextafter(np.float32(score), np.float32(2)))
    return above if above <= 1 else None
