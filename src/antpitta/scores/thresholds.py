"""From scores to yes or no: one threshold a species, chosen on out-of-fold cells.

The cells must come from models that did not train on them; on training cells nearly any
threshold looks perfect. What to know before trusting them:

- A threshold lies midway between the lowest score that it takes and the next one below, so
  that it does not hang on one box's last digit.
- Few boxes give no threshold: a species with fewer than ``FEW`` present or absent cells takes
  the pooled one, chosen the same way on all species' cells together. Where even these hold
  only one kind, it is ``DEFAULT``.
- A precision that a species never reaches gives the threshold of its best precision, marked
  ``unreached`` in the table, not a threshold that finds nothing.
- Precision is the precision among the validated boxes. In the field it depends on how common
  the species is there.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from antpitta.core.types import Classes
from antpitta.scores.bootstrap import divide
from antpitta.scores.cells import check_cells
from antpitta.scores.metrics import Flags, Floats

FEW = 5
DEFAULT = 0.5
Aim = float | Literal["f1"]  # the best F1, or the most found at this precision


@dataclass(frozen=True)
class _Choice:
    threshold: float
    reached: bool


def choose_thresholds(cells: pd.DataFrame, classes: Classes, *, aim: Aim) -> dict[str, float]:
    """A threshold for every class; a score counts as a find at or above it."""
    table = tabulate_thresholds(cells, classes, aim=aim)
    return {str(n): float(t) for n, t in zip(table["species"], table["threshold"], strict=True)}


def tabulate_thresholds(cells: pd.DataFrame, classes: Classes, *, aim: Aim) -> pd.DataFrame:
    """The thresholds, and where each comes from: species, threshold, origin, present, absent,
    and the precision, recall and f1 that it has on the species' own cells.

    ``origin`` is ``own``, ``unreached`` (own, but below the precision asked for), ``pooled``
    or ``default``.
    """
    check_cells(cells, classes)
    if isinstance(aim, str) != (aim == "f1") or not (aim == "f1" or 0 < aim <= 1):
        raise ValueError(f"aim is 'f1' or a precision above 0 and up to 1, not {aim!r}")
    names = cells["species"].astype(str).to_numpy(object)
    present, scores = cells["present"].to_numpy(bool), cells["score"].to_numpy(float)
    pooled = _Choice(DEFAULT, True)
    pooled_origin = "default"
    if min(present.sum(), (~present).sum()) > 0:
        pooled, pooled_origin = _choose(present, scores, aim), "pooled"

    rows = []
    for name in classes.names:
        mine = names == name
        own, heard = present[mine], scores[mine]
        choice, origin = pooled, pooled_origin
        if min(own.sum(), (~own).sum()) >= FEW:
            choice = _choose(own, heard, aim)
            origin = "own" if choice.reached else "unreached"
        figures = _figures(own, heard >= choice.threshold)
        rows.append((name, choice.threshold, origin, int(own.sum()), int((~own).sum()), *figures))
    columns = ["species", "threshold", "origin", "present", "absent", "precision", "recall", "f1"]
    return pd.DataFrame(rows, columns=columns)


def _choose(present: Flags, scores: Floats, aim: Aim) -> _Choice:
    """Try every distinct score as the lowest that is taken."""
    levels, place = np.unique(scores, return_inverse=True)
    found = np.bincount(place, minlength=len(levels))[::-1].cumsum()[::-1].astype(float)
    hits = np.bincount(place, weights=present)[::-1].cumsum()[::-1]
    precision, recall = hits / found, hits / hits[0]
    if aim == "f1":
        best, reached = _last_best(2 * hits / (found + hits[0])), True
    else:
        good = precision >= float(aim) - 1e-12
        reached = bool(good.any())
        # the lowest level takes the most; among equals of the best precision likewise
        best = int(np.flatnonzero(good)[0]) if reached else _most(precision, recall)
    below = levels[best - 1] if best else levels[best]
    middle = (levels[best] + below) / 2
    # of two neighbouring floats the middle may be the lower one, which is not to be taken
    return _Choice(float(middle if middle > below else levels[best]), reached)


def _last_best(values: Floats) -> int:
    """The highest level among equals: what gains nothing is not taken."""
    return int(len(values) - 1 - np.argmax(values[::-1]))


def _most(precision: Floats, recall: Floats) -> int:
    return int(np.lexsort((recall, precision))[-1])


def _figures(present: Flags, taken: Flags) -> tuple[float, float, float]:
    hits = float((present & taken).sum())
    above = np.array([hits, hits, 2 * hits])
    below = np.array([taken.sum(), present.sum(), taken.sum() + present.sum()], dtype=float)
    precision, recall, f1 = divide(above, below)
    return float(precision), float(recall), float(f1)
