"""How good the models of all rounds are on the same verdicts: the learning curve.

All models are measured on the verdicts of the last round, so that one point of the curve compares
with another. A model that does not know a species, or could not learn it, scores all its verdicts
alike: its average precision is then the share of present ones, which is chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from antpitta.core.identity import species_key
from antpitta.core.types import Classes, Scores
from antpitta.scores.bootstrap import Interval
from antpitta.scores.comparison import compare_last
from antpitta.scores.evaluate import DRAWS, evaluate_cells

MEAN = "*"  # as species: the mean over all
COLUMNS = (
    *("verdicts", "round", "run", "species", "trained_present", "trained_absent"),
    *("present", "absent", "ap", "ap_low", "ap_high"),
)
_CELL = ["recording", "species", "present", "start", "stop"]


@dataclass(frozen=True)
class RoundCells:
    """The scores that the model of one round gives the verdicts.

    Parameters
    ----------
    number : of the round, 0 for the first model
    run : its name
    cells : as from :func:`antpitta.scores.cells.box_cells`
    trained : numbers of present and absent boxes that it was trained on, by species
    """

    number: int
    run: str
    cells: pd.DataFrame
    trained: Mapping[str, tuple[int, int]]


def align_scores(scores: Scores, classes: Classes, not_learnable: Sequence[str] = ()) -> Scores:
    """Scores with the columns of another model.

    Parameters
    ----------
    scores : of one recording
    classes : the columns that are wanted
    not_learnable : species of ``scores`` whose scores mean nothing

    Returns
    -------
    scores : 0 where the model has none
    """
    blank = {species_key(name) for name in not_learnable}
    column = {species_key(name): i for i, name in enumerate(scores.classes.names)}
    value = np.zeros((len(scores.value), len(classes)), dtype=np.float32)
    for i, name in enumerate(classes.names):
        key = species_key(name)
        if key in column and key not in blank:
            value[:, i] = scores.value[:, column[key]]
    return Scores(scores.recording, scores.grid, classes, value, scores.source)


def shared_cells(rounds: Sequence[RoundCells]) -> list[pd.DataFrame]:
    """The cells of each round that all rounds have, in one order.

    Parameters
    ----------
    rounds : in their order

    Returns
    -------
    tables : of equal rows
    """
    tables = [own.cells.drop_duplicates(_CELL).set_index(_CELL) for own in rounds]
    shared = tables[0].index
    for table in tables[1:]:
        shared = shared[shared.isin(table.index)]
    return [table.loc[shared].reset_index() for table in tables]


def learning_curve(rounds: Sequence[RoundCells], classes: Classes, verdicts: str) -> pd.DataFrame:
    """Average precision of each species in each round, and their mean.

    Parameters
    ----------
    rounds : in their order
    classes : of the last round's model
    verdicts : what the cells are of, in a word

    Returns
    -------
    A table with :data:`COLUMNS`; intervals are 95 % ones over recordings. The mean (``*``) is over
    the species with present and absent verdicts.
    """
    rows = []
    for own, cells in zip(rounds, shared_cells(rounds), strict=True):
        rng = np.random.default_rng(0)  # the same recordings in each round
        report = evaluate_cells(cells, classes, own.run, draws=DRAWS, rng=rng)
        total = [sum(counts[i] for counts in own.trained.values()) for i in range(2)]
        judged = [int(cells["present"].sum()), int((~cells["present"]).sum())]
        mean = report.macro_ap
        ap = (mean.value, mean.low, mean.high)
        rows.append((verdicts, own.number, own.run, MEAN, *total, *judged, *ap))
        for row in report.per_species.to_dict("records"):
            if row["present"] + row["absent"]:
                trained = own.trained.get(species_key(str(row["species"])), (0, 0))
                figures = [row[name] for name in COLUMNS[-5:]]
                place = (verdicts, own.number, own.run, row["species"])
                rows.append((*place, *trained, *figures))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def macro_difference(rounds: Sequence[RoundCells], classes: Classes) -> Interval:
    """How much better the model of the last round is than that of the round before.

    Parameters
    ----------
    rounds : in their order
    classes : of the last one

    Returns
    -------
    difference : in macro AP, with its 95 % interval over recordings; NaN with one round
    """
    if len(rounds) < 2:
        return Interval(np.nan, np.nan, np.nan)
    tables = shared_cells(rounds[-2:])
    return compare_last(tables, classes, draws=DRAWS, rng=np.random.default_rng(0))
