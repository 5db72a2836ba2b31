"""Confidence intervals of metrics, by resampling whole recordings.

The boxes of one recording share its weather, its individuals and its noise. So recordings are
drawn with replacement, with all their cells. A draw is then a weight for each recording, and the
metrics of all draws follow from sorting the rows once: average precision and AUC with weights, as
arrays (draws, rows). Draws come in blocks, so many recordings do not fill the memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.scores.metrics import Flags, Floats

BLOCK = 2_000_000  # weights at a time
PERCENTILES = (2.5, 97.5)  # 95 % of the draws lie between


@dataclass(frozen=True)
class Interval:
    """The value of a metric and its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RankedRows:
    """The rows of one species from the highest score down.

    Parameters
    ----------
    recording : (rows,), the column of each row's recording in the weights of the draws
    present : (rows,), 1 or 0
    starts : where each run of equal scores begins
    """

    recording: NDArray[np.intp]
    present: Floats
    starts: NDArray[np.intp]


def rank_rows(present: Flags, scores: Floats, recording: NDArray[np.intp]) -> RankedRows:
    """Sort the rows of one species, once for all draws.

    Parameters
    ----------
    present, scores, recording : (rows,)

    Returns
    -------
    ranking : the rows from the highest score down
    """
    order = np.argsort(-scores, kind="stable")
    falls = np.diff(scores[order], prepend=np.inf) != 0
    return RankedRows(recording[order], present[order].astype(float), np.flatnonzero(falls))


def draw_weights(recordings: int, draws: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Blocks (draws, recordings) of how often each draw takes each recording.

    Parameters
    ----------
    recordings : number of recordings
    draws : number of draws
    rng : source of all random choices

    Yields
    ------
    weights : (draws, recordings)
    """
    if not recordings:
        return
    step = max(1, BLOCK // recordings)
    share = np.full(recordings, 1 / recordings)
    for first in range(0, draws, step):
        size = min(step, draws - first)
        yield rng.multinomial(recordings, share, size=size).astype(float)


def weighted_metrics(ranking: RankedRows, weights: Floats) -> tuple[Floats, Floats]:
    """Average precision and AUC of each draw, equal to scikit-learn's with ``sample_weight``.

    Parameters
    ----------
    ranking : the rows of one species
    weights : (draws, recordings)

    Returns
    -------
    ap, auc : (draws,), NaN for a draw without a present or without an absent row
    """
    weight = weights[:, ranking.recording]
    hits = np.add.reduceat(weight * ranking.present, ranking.starts, axis=1)
    rows = np.add.reduceat(weight, ranking.starts, axis=1)
    alarms = rows - hits
    hits_so_far = np.cumsum(hits, axis=1)
    rows_so_far = np.cumsum(rows, axis=1)
    precision = np.divide(hits_so_far, rows_so_far, out=np.zeros_like(rows), where=rows_so_far > 0)
    present = hits_so_far[:, -1]
    absent = rows_so_far[:, -1] - present
    both = (present > 0) & (absent > 0)
    neither = np.full(len(weights), np.nan)
    won: Floats = (alarms * (hits_so_far - hits / 2)).sum(axis=1)
    earned: Floats = (hits * precision).sum(axis=1)
    return (
        np.divide(earned, present, out=neither.copy(), where=both),
        np.divide(won, present * absent, out=neither, where=both),
    )


def percentile_interval(value: float, draws: Floats) -> Interval:
    """The interval of a metric from its draws (draws,), of which NaN are left out.

    Parameters
    ----------
    value : the metric itself
    draws : (draws,)

    Returns
    -------
    interval : NaN limits without finite draws
    """
    draws = draws[np.isfinite(draws)]
    if not len(draws) or np.isnan(value):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(draws, PERCENTILES)
    return Interval(value, float(low), float(high))


def nan_mean(values: Floats) -> Floats:
    """The mean over the last axis without NaN; NaN where everything is.

    Parameters
    ----------
    values : (..., n)

    Returns
    -------
    mean : (...)
    """
    finite = ~np.isnan(values)
    count: Floats = finite.sum(axis=-1).astype(float)
    total: Floats = np.where(finite, values, 0.0).sum(axis=-1)
    return divide(total, count)


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, NaN where the denominator is not positive.

    Parameters
    ----------
    numerator : any shape
    denominator : the same shape

    Returns
    -------
    quotient : the same shape
    """
    quotient: Floats = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) > 0)
    return quotient
