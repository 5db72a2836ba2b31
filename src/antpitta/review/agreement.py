"""How far reviewers agree who judged the same sounds without seeing each other's verdicts.

Raw agreement flatters where one verdict is common: two people who say "absent" to nearly everything
agree nearly always. So it stands beside the agreement on each class (Cicchetti and Feinstein, 1990)
and Cohen's kappa (1960), which takes off what chance would give. Sounds of which one was unsure
have no part in these, and are counted.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import combinations
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.review.store import Store

ALL = "*"  # as species: all of them together
COLUMNS = (
    *("first", "second", "species", "both", "unsure", "agreement", "agreement_present"),
    *("agreement_absent", "kappa", "kappa_low", "kappa_high"),
)
_NO_VARIANCE = 1e-12
_VERDICTS = ("present", "absent")


def agreement_table(verdicts: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The agreement of each two reviewers who judged the same sounds.

    Parameters
    ----------
    verdicts : those that stand, as from :meth:`antpitta.review.store.Store.current`

    Returns
    -------
    One row a pair of reviewers and species, and one a pair for all species (``*``): the ids of the
    two, how many sounds ``both`` judged present or absent and of how many one was ``unsure``, raw
    ``agreement``, agreement on each class, and kappa with its 95 % interval. What is not defined
    is NaN.
    """
    sounds: dict[tuple[int, str], dict[int, str]] = defaultdict(dict)
    for row in verdicts:
        sounds[row["root"], row["species"]][row["reviewer"]] = row["verdict"]
    counts: dict[tuple[int, int, str], NDArray[np.int64]] = {}
    for (_, species), by_reviewer in sounds.items():
        for first, second in combinations(sorted(by_reviewer), 2):
            for name in (species, ALL):
                table = counts.setdefault((first, second, name), np.zeros((3, 3), np.int64))
                table[_place(by_reviewer[first]), _place(by_reviewer[second])] += 1
    rows = [(*pair, *_measure(table)) for pair, table in sorted(counts.items())]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def agreement_rows(store: Store) -> list[dict[str, Any]]:
    """The agreement of the reviewers of a queue, for JSON.

    Parameters
    ----------
    store : the queue

    Returns
    -------
    Rows of :func:`agreement_table` with the names of the two as ``reviewers``; what is not defined
    is None.
    """
    names = {row["id"]: row["name"] for row in store.reviewers()}
    rows = agreement_table(store.current()).to_dict("records")
    return [
        {
            "reviewers": [names[row["first"]], names[row["second"]]],
            **{name: None if row[name] != row[name] else row[name] for name in COLUMNS[2:]},
        }
        for row in rows
    ]


def _place(verdict: str) -> int:
    return _VERDICTS.index(verdict) if verdict in _VERDICTS else 2


def _measure(table: NDArray[np.int64]) -> tuple[float, ...]:
    """The figures of one pair: rows are the verdicts of the first, columns of the second."""
    own = table[:2, :2]
    both, unsure = int(own.sum()), int(table.sum() - own.sum())
    if not both:
        return (both, unsure, nan, nan, nan, nan, nan, nan)
    on_class = [
        2 * own[i, i] / (own[i].sum() + own[:, i].sum()) if own[i].sum() + own[:, i].sum() else nan
        for i in range(2)
    ]
    agreement = float(np.trace(own) / both)
    return (both, unsure, agreement, *map(float, on_class), *cohens_kappa(own))


def cohens_kappa(table: NDArray[np.integer]) -> tuple[float, float, float]:
    """Cohen's kappa and its 95 % interval.

    Parameters
    ----------
    table : (classes, classes), how often each pair of verdicts was given

    Returns
    -------
    kappa, low, high : NaN where both gave one and the same verdict to all; no interval where they
        never differ or one of them gave one verdict to all, so that the formula knows no variance

    Notes
    -----
    The interval is the large-sample one of Fleiss, Cohen and Everitt (1969).
    """
    share = table / table.sum()
    first, second = share.sum(axis=1), share.sum(axis=0)
    observed, expected = float(np.trace(share)), float(first @ second)
    if expected == 1.0:
        return nan, nan, nan
    kappa = (observed - expected) / (1 - expected)
    diagonal = np.diag(share)
    own = float(diagonal @ (1 - (first + second) * (1 - kappa)) ** 2)
    off = share * (second[:, None] + first[None, :]) ** 2
    others = (1 - kappa) ** 2 * float(off.sum() - np.trace(off))
    variance = own + others - (kappa - expected * (1 - kappa)) ** 2
    if variance < _NO_VARIANCE:
        return float(kappa), nan, nan
    error = 1.96 * np.sqrt(variance / table.sum()) / (1 - expected)
    return float(kappa), float(kappa - error), float(min(kappa + error, 1.0))
