"""Average precision, area under ROC and precision-recall curves of one species.

All three compare rows that a listener marked present with rows that a listener marked
absent, and nothing else. Where one of the two kinds is missing there is nothing to compare:
the answer is NaN, and no curve. Average precision is the step-wise sum (no interpolation);
equal scores are one threshold, so ties count as half in AUC and never in the model's favour.

Validated boxes are not a sample of the field: how many absent boxes a species has depends on
who made them, and average precision depends on that ratio. Compare it between models on the
same cells, not between species; AUC does not depend on the ratio.
"""

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from antpitta.scores.metrics import Flags, Floats

Curve = tuple[Floats, Floats]  # recall, rising, and the precision at each


def average_precision(present: Flags, scores: Floats) -> float:
    """Mean precision over the present rows, from the highest score down; NaN: see above."""
    return float(average_precision_score(present, scores)) if _both(present) else float("nan")


def area_under_roc(present: Flags, scores: Floats) -> float:
    """How often a present row outscores an absent one; NaN: see above."""
    return float(roc_auc_score(present, scores)) if _both(present) else float("nan")


def precision_recall(present: Flags, scores: Floats) -> Curve | None:
    """The curve's corners, from recall 0; None where there is nothing to compare."""
    if not _both(present):
        return None
    precision, recall, _ = precision_recall_curve(present, scores, drop_intermediate=True)
    return np.asarray(recall[::-1], float), np.asarray(precision[::-1], float)


def _both(present: Flags) -> bool:
    return bool(present.any() and not present.all())
