"""Is one stage better than another? The difference of a metric, resampled in pairs.

Both stages score the same boxes, so what a recording adds to one it adds to the other, too. Each
draw takes recordings with replacement and compares both on them, which is far sharper than two
intervals side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from antpitta.core.types import Classes
from antpitta.scores.bootstrap import (
    Interval,
    draw_weights,
    nan_mean,
    percentile_interval,
    rank_rows,
    weighted_metrics,
)
from antpitta.scores.cells import check_cells
from antpitta.scores.metrics import Floats


@dataclass(frozen=True)
class StageComparison:
    """How two stages differ in macro AP out of fold.

    Parameters
    ----------
    earlier, later : their places in the order of training
    difference : of the later one from the earlier one, with its 95 % interval
    """

    earlier: int
    later: int
    difference: Interval

    @property
    def is_better(self) -> bool:
        """Whether the later stage is better by more than the noise."""
        return self.difference.low > 0


def choose_stage(
    tables: Sequence[pd.DataFrame], classes: Classes, *, draws: int, rng: np.random.Generator
) -> tuple[int, tuple[StageComparison, ...]]:
    """The stage whose model ships: a later one only if it is better by more than the noise.

    Parameters
    ----------
    tables : the cells of each stage, in the order of training; all have the same rows
    classes : the classes, in the order of the columns
    draws : of the bootstrap
    rng : source of all random choices

    Returns
    -------
    stage : its place
    comparisons : of every later stage with the best one before it
    """
    values = _macro_ap(tables, classes, draws, rng)
    best, comparisons = 0, []
    for later in range(1, len(tables)):
        difference = values[later] - values[best]
        interval = percentile_interval(float(difference[0]), difference[1:])
        comparisons.append(StageComparison(best, later, interval))
        if comparisons[-1].is_better:
            best = later
    return best, tuple(comparisons)


def compare_last(
    tables: Sequence[pd.DataFrame], classes: Classes, *, draws: int, rng: np.random.Generator
) -> Interval:
    """How much the last of several models is better than the one before it.

    Parameters
    ----------
    tables : the cells of each model; all have the same rows
    classes : the classes, in the order of the columns
    draws : of the bootstrap
    rng : source of all random choices

    Returns
    -------
    difference : in macro AP, with its 95 % interval
    """
    values = _macro_ap(tables, classes, draws, rng)
    difference = values[-1] - values[-2]
    return percentile_interval(float(difference[0]), difference[1:])


def _macro_ap(
    tables: Sequence[pd.DataFrame], classes: Classes, draws: int, rng: np.random.Generator
) -> Floats:
    """Macro AP (stages, 1 + draws): of all recordings, then of each draw."""
    for cells in tables:
        check_cells(cells, classes)
    key = ["recording", "species", "present"]
    if any(not cells[key].equals(tables[0][key]) for cells in tables):
        raise ValueError("the stages have different cells")
    ids, place = np.unique(tables[0]["recording"].astype(str).to_numpy(object), return_inverse=True)
    every = np.ones((1, len(ids)))
    weights = np.concatenate([every, *draw_weights(len(ids), draws, rng)])
    names = tables[0]["species"].astype(str).to_numpy(object)
    present = tables[0]["present"].to_numpy(bool)
    values = np.full((len(tables), len(weights), len(classes)), np.nan)
    for column, name in enumerate(classes.names):
        own = names == name
        if not (present[own].any() and (~present[own]).any()):
            continue
        for stage, cells in enumerate(tables):
            scores = cells["score"].to_numpy(float)[own]
            ranking = rank_rows(present[own], scores, place[own])
            values[stage, :, column], _ = weighted_metrics(ranking, weights)
    return nan_mean(values)
