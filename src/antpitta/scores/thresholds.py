"""One decision threshold per species, chosen on labelled cells.

The cells must have scores of models that did not train on them; on training cells nearly any
threshold looks perfect. What is decided here:

- A threshold lies midway between the lowest score that it accepts and the next one below, so it
  does not depend on the last digit of one box.
- A species with fewer than ``MIN_CELLS`` present or absent cells gets the pooled threshold, chosen
  in the same way on the cells of all species. Where these are all present or all absent too, the
  threshold is ``DEFAULT``.
- A precision that a species never reaches gives the threshold of its best precision, marked
  ``unreached`` in the table, and not a threshold that accepts nothing.
- Precision is that among the validated boxes. In the field it depends on how common the species is.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from antpitta.core.types import Classes
from antpitta.scores.bootstrap import divide
from antpitta.scores.cells import check_cells
from antpitta.scores.metrics import Flags, Floats

MIN_CELLS = 5
DEFAULT = 0.5
ThresholdTarget = float | Literal["f1"]  # the best F1, or the highest recall at this precision


@dataclass(frozen=True)
class _Choice:
    threshold: float
    reached: bool


def choose_thresholds(
    cells: pd.DataFrame, classes: Classes, *, target: ThresholdTarget
) -> dict[str, float]:
    """The threshold of every class; a score at or above it counts as present.

    Parameters
    ----------
    cells : as in :mod:`antpitta.scores.cells`
    classes : the classes, in the order of the columns
    target : ``"f1"``, or a precision above 0 and up to 1

    Returns
    -------
    thresholds : of each class
    """
    table = tabulate_thresholds(cells, classes, target=target)
    return {str(n): float(t) for n, t in zip(table["species"], table["threshold"], strict=True)}


def tabulate_thresholds(
    cells: pd.DataFrame, classes: Classes, *, target: ThresholdTarget
) -> pd.DataFrame:
    """The thresholds, where each comes from, and what it gives.

    Parameters
    ----------
    cells, target : as in :func:`choose_thresholds`
    classes : the classes, in the order of the columns

    Returns
    -------
    table : columns species, threshold, origin (``own``, ``unreached``, ``pooled`` or ``default``),
        present, absent, and precision, recall and f1 on the species' own cells
    """
    check_cells(cells, classes)
    if isinstance(target, str) != (target == "f1") or not (target == "f1" or 0 < target <= 1):
        raise ValueError(f"target must be 'f1' or a precision in (0, 1], not {target!r}")
    names = cells["species"].astype(str).to_numpy(object)
    present, scores = cells["present"].to_numpy(bool), cells["score"].to_numpy(float)
    pooled = _Choice(DEFAULT, True)
    pooled_origin = "default"
    if min(present.sum(), (~present).sum()) > 0:
        pooled, pooled_origin = _choose(present, scores, target), "pooled"

    rows = []
    for name in classes.names:
        own, own_scores = present[names == name], scores[names == name]
        choice, origin = pooled, pooled_origin
        if min(own.sum(), (~own).sum()) >= MIN_CELLS:
            choice = _choose(own, own_scores, target)
            origin = "own" if choice.reached else "unreached"
        metrics = _metrics(own, own_scores >= choice.threshold)
        rows.append((name, choice.threshold, origin, int(own.sum()), int((~own).sum()), *metrics))
    columns = ["species", "threshold", "origin", "present", "absent", "precision", "recall", "f1"]
    return pd.DataFrame(rows, columns=columns)


def _choose(present: Flags, scores: Floats, target: ThresholdTarget) -> _Choice:
    """Try every distinct score as the lowest that is accepted."""
    levels, place = np.unique(scores, return_inverse=True)
    accepted = np.bincount(place, minlength=len(levels))[::-1].cumsum()[::-1].astype(float)
    hits = np.bincount(place, weights=present)[::-1].cumsum()[::-1]
    precision, recall = hits / accepted, hits / hits[0]
    if target == "f1":
        best, reached = _last_best(2 * hits / (accepted + hits[0])), True
    else:
        good = precision >= float(target) - 1e-12
        reached = bool(good.any())
        # The lowest level has the highest recall. If none is good, the best precision counts,
        # and among equals the highest recall.
        best = int(np.flatnonzero(good)[0]) if reached else int(np.lexsort((recall, precision))[-1])
    below = levels[best - 1] if best else levels[best]
    middle = (levels[best] + below) / 2
    # Of two neighbouring floats the middle may be the lower one, which must not be accepted.
    return _Choice(float(middle if middle > below else levels[best]), reached)


def _last_best(values: Floats) -> int:
    """The highest level among equals: it accepts least."""
    return int(len(values) - 1 - np.argmax(values[::-1]))


def _metrics(present: Flags, accepted: Flags) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    hits = float((present & accepted).sum())
    numerator = np.array([hits, hits, 2 * hits])
    sums = [accepted.sum(), present.sum(), accepted.sum() + present.sum()]
    precision, recall, f1 = divide(numerator, np.array(sums, dtype=float))
    return float(precision), float(recall), float(f1)
