"""How far a figure might have come out otherwise: resampling whole recordings.

The boxes of one recording share its weather, its callers and its noise, so recordings are
drawn, with replacement, and all their cells come along. A draw is then a weight for each
recording, and every draw's figure follows from one sorting of the rows: average precision and
AUC with weights, in arrays (draws, rows). Draws come in blocks, so that an archive's worth of
recordings does not fill the memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.scores.metrics import Flags, Floats

BLOCK = 2_000_000  # weights at a time
LEVELS = (2.5, 97.5)  # percentiles: 95 in 100 draws lie between


@dataclass(frozen=True)
class Interval:
    """A figure, and where 95 % of the draws lie; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RankedRows:
    """One species' rows from the highest score down."""

    recording: NDArray[np.intp]  # (rows,), the column of each row in the draws' weights
    present: Floats  # (rows,), 1 or 0
    starts: NDArray[np.intp]  # where each run of equal scores begins


def rank_rows(present: Flags, scores: Floats, recording: NDArray[np.intp]) -> RankedRows:
    """Sort the rows once, for every draw to come."""
    order = np.argsort(-scores, kind="stable")
    falls = np.diff(scores[order], prepend=np.inf) != 0
    return RankedRows(recording[order], present[order].astype(float), np.flatnonzero(falls))


def draw_weights(recordings: int, draws: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Blocks (draws, recordings) of how often each draw takes each recording; of none, none."""
    if not recordings:
        return
    step = max(1, BLOCK // recordings)
    share = np.full(recordings, 1 / recordings)
    for first in range(0, draws, step):
        size = min(step, draws - first)
        yield rng.multinomial(recordings, share, size=size).astype(float)


def weighted_figures(ranking: RankedRows, weights: Floats) -> tuple[Floats, Floats]:
    """Average precision and AUC (draws,) under ``weights`` (draws, recordings).

    NaN for a draw without a present or without an absent row. Equal to scikit-learn's with
    ``sample_weight``, ties included.
    """
    weight = weights[:, ranking.recording]
    hits = np.add.reduceat(weight * ranking.present, ranking.starts, axis=1)
    found = np.add.reduceat(weight, ranking.starts, axis=1)
    alarms = found - hits
    hits_so_far = np.cumsum(hits, axis=1)
    found_so_far = np.cumsum(found, axis=1)
    precision = np.divide(
        hits_so_far, found_so_far, out=np.zeros_like(found), where=found_so_far > 0
    )
    present = hits_so_far[:, -1]
    absent = found_so_far[:, -1] - present
    both = (present > 0) & (absent > 0)
    nothing = np.full(len(weights), np.nan)
    won: Floats = (alarms * (hits_so_far - hits / 2)).sum(axis=1)
    earned: Floats = (hits * precision).sum(axis=1)
    return (
        np.divide(earned, present, out=nothing.copy(), where=both),
        np.divide(won, present * absent, out=nothing, where=both),
    )


def interval(value: float, drawn: Floats) -> Interval:
    """The percentiles of the draws that have a figure; NaN if none has, or the value is NaN."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or np.isnan(value):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(drawn, LEVELS)
    return Interval(value, float(low), float(high))


def mean_known(values: Floats) -> Floats:
    """The mean over the last axis of what is not NaN; NaN where everything is."""
    known = ~np.isnan(values)
    count: Floats = known.sum(axis=-1).astype(float)
    total: Floats = np.where(known, values, 0.0).sum(axis=-1)
    return divide(total, count)


def divide(above: Floats, below: Floats) -> Floats:
    """The quotient, NaN where ``below`` is not above 0."""
    quotient: Floats = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=quotient, where=np.asarray(below) > 0)
    return quotient
