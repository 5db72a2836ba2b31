"""Ensembles: how a blend (blend.py) is made, with judged cells to fit it on or without.

Weights that are fitted on cells flatter the blend on the same cells: :func:`nested_cells` is for
the report, :func:`fit_blend` on everything for use.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from antpitta.core.choices import By
from antpitta.core.errors import UserMistake
from antpitta.core.types import Classes
from antpitta.scores.blend import FITTED, Blend, as_logits, check_known, knowing, shares
from antpitta.scores.cells import Matrices, cells_of
from antpitta.scores.members import Member, check_aligned
from antpitta.scores.metrics import Flags, Floats
from antpitta.scores.ranks import RankReference
from antpitta.scores.tables import some
from antpitta.scores.weights import align, weigh_by_auc, weigh_by_fit


def blend(members: Sequence[Member], by: By, weights: Floats | None = None) -> Floats:
    """Blend without any judged cell: ``mean``, ``sharp``, or ``rank`` among the rows at hand.

    ``weights`` are (members,) or (members, classes), not negative, scaled here; left out, all
    members weigh the same. Raises UserMistake for ``auc`` and ``fit``, which need cells.
    """
    check_aligned(members)
    classes = Classes(tuple(str(i) for i in range(members[0].scores.shape[1])))
    return plain_blend(members, classes, by, weights).apply(members)


def plain_blend(
    members: Sequence[Member],
    classes: Classes,
    by: By,
    weights: Floats | None = None,
    known: Flags | None = None,
) -> Blend:
    """The blend of :func:`blend`, to keep; ranks come from the ``known`` cells, or all."""
    check_aligned(members, len(classes))
    if by in FITTED:
        raise UserMistake(f"an ensemble by {by} is fitted on judged cells; there are none here")
    given = np.ones(len(members)) if weights is None else np.asarray(weights, float)
    if given.ndim == 1:
        given = np.tile(given[:, np.newaxis], (1, len(classes)))
    fits = given.shape == (len(members), len(classes))
    if not fits or not np.isfinite(given).all() or (given < 0).any() or not given.any():
        raise UserMistake(
            f"weights must be one a member, finite, not negative, not all 0: {weights}"
        )
    references = [RankReference.of(member.scores, known) for member in members]
    return _blend(members, classes, by, shares(given, knowing(members)), tuple(references))


def fit_blend(
    members: Sequence[Member],
    judged: Matrices,
    by: By,
    classes: Classes,
    weights: Floats | None = None,
) -> Blend:
    """Fit the blend on judged cells: rows of ``judged`` are those of the members.

    The members' scores must come from models that did not train on these rows. ``mean`` and
    ``sharp`` have nothing to fit; ``rank`` keeps the judged cells as its reference. These three
    take ``weights``, as :func:`blend` does; UserMistake for the others.
    """
    check_aligned(members, len(classes))
    if judged.truth.shape != members[0].scores.shape:
        raise ValueError(f"{judged.truth.shape} judged, {members[0].scores.shape} scored")
    check_known(members, classes.names)
    if by not in FITTED:
        return plain_blend(members, classes, by, weights, judged.known)
    if weights is not None:
        raise UserMistake(f"an ensemble by {by} finds its weights itself; give none, or by sharp")
    slopes, offsets = align(members, judged.known)
    if by == "auc":
        weights = weigh_by_auc(members, judged.truth, judged.known)
    else:
        logits = [
            slope * as_logits(member.scores) + offset
            for member, slope, offset in zip(members, slopes, offsets, strict=True)
        ]
        weights = weigh_by_fit(members, logits, judged.truth, judged.known)
    return _blend(members, classes, by, weights, (), slopes, offsets)


def nested_cells(
    members: Sequence[Member],
    judged: Matrices,
    folds: Mapping[str, int],
    by: By,
    classes: Classes,
    weights: Floats | None = None,
) -> pd.DataFrame:
    """The judged cells, each scored by a blend fitted on the other folds only.

    ``folds`` says which fold each recording is in. Hand the result to ``evaluate``.
    """
    if gone := {name for name in judged.recordings if name not in folds}:
        raise ValueError(f"no fold for recordings {some(gone)}")
    fold = np.array([folds[name] for name in judged.recordings])
    if len(judged.recordings) and len(set(fold.tolist())) < 2:
        raise UserMistake(
            "weights are fitted on other folds, but there is one only; use two or more"
        )
    scores = np.zeros(judged.truth.shape)
    for held_out in np.unique(fold):
        mine = fold == held_out
        others = Matrices(
            judged.truth[~mine],
            judged.known[~mine],
            judged.scores[~mine],
            [name for name, own in zip(judged.recordings, mine, strict=True) if not own],
        )
        kept = [member.take(~mine) for member in members]
        fitted = fit_blend(kept, others, by, classes, weights)
        scores[mine] = fitted.apply([member.take(mine) for member in members])
    return cells_of(judged, scores, classes)


def _blend(
    members: Sequence[Member],
    classes: Classes,
    by: By,
    weights: Floats,
    ranks: tuple[RankReference, ...],
    slopes: Floats | None = None,
    offsets: Floats | None = None,
) -> Blend:
    return Blend(
        by=by,
        members=tuple(member.name for member in members),
        classes=classes.names,
        weights=weights,
        slopes=np.ones(len(members)) if slopes is None else slopes,
        offsets=np.zeros(len(members)) if offsets is None else offsets,
        knows=knowing(members),
        ranks=ranks if by == "rank" else (),
    )
