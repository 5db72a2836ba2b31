"""Ranks within a class, scaled to 0..1, against rows that are kept.

A rank is a statement about a set of rows. New rows, and be it a single recording, are ranked
in the set that the blend was made with, so that a score means the same thing tomorrow. The
rank of a value is the share of reference rows below it plus half of those equal to it; between
two reference values the rank rises linearly, and outside them towards 0 at score 0 and 1 at
score 1, so that no two different scores of one class become one.

Several models' scores as one: mean, sharp, rank, auc, fit.

- ``mean``: the weighted mean of the probabilities.
- ``sharp``: the same, its odds to the power of ``SHARPER``. A mean of forecasts is less certain
  than it has reason to be, even of calibrated ones (Ranjan and Gneiting, Combining probability
  forecasts, 2010). A species' own order stays; rescaled to prevalences, species stand better
  beside each other.
- ``rank``: the mean of ranks within each class (ranks.py). Not a probability: choose thresholds
  anew.
- ``auc`` and ``fit``: logits brought to the first member's mean and deviation, then averaged
  with weights of each species' own (weights.py).

A member that does not know a species weighs nothing there and the others share its weight;
``Blend.missing`` says where. How blends are made is in ensemble.py.

Ensembles: how a blend (blend.py) is made, with judged cells to fit it on or without.

Weights that are fitted on cells flatter the blend on the same cells: :func:`nested_cells` is for
the report, :func:`fit_blend` on everything for use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
from scipy.special import expit

from antpitta.core.config import BlendMethod
from antpitta.core.errors import UserError
from antpitta.core.types import Classes
from antpitta.scores.cells import CellMatrices, judged_cell_scores
from antpitta.scores.ensemble.members import (
    Member,
    as_logits,
    check_aligned,
    known_classes,
    weight_shares,
)
from antpitta.scores.ensemble.weights import align_logits, auc_weights, fit_weights
from antpitta.scores.metrics import Flags, Floats
from antpitta.scores.tables import list_names

POINTS = 512  # of a class's reference that are kept


@dataclass(frozen=True)
class RankReference:
    """For each class, rising scores and the rank of each."""

    scores: tuple[tuple[float, ...], ...]
    ranks: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, scores: Floats, known: Flags | None = None) -> "RankReference":
        """Keep the scores (rows, classes) of the ``known`` cells, all if left out.

        Of more than ``POINTS`` different values some are kept, evenly spaced, the
        lowest and the highest among them. A class without any ranks by its score itself.
        """
        levels, ranks = [], []
        for column in range(scores.shape[1]):
            mine = scores[:, column] if known is None else scores[known[:, column], column]
            level, rank = _ladder(mine[~np.isnan(mine)])
            levels.append(tuple(level.tolist()))
            ranks.append(tuple(rank.tolist()))
        return cls(tuple(levels), tuple(ranks))

    def rank(self, scores: Floats) -> Floats:
        """The ranks, 0..1, of scores (rows, classes); NaN stays NaN."""
        if scores.shape[1] != len(self.scores):
            raise ValueError(f"{scores.shape[1]} classes against {len(self.scores)} kept")
        columns = [
            np.interp(scores[:, i], level, rank)
            for i, (level, rank) in enumerate(zip(self.scores, self.ranks, strict=True))
        ]
        return np.stack(columns, axis=1)


def _ladder(values: Floats) -> tuple[Floats, Floats]:
    level, count = np.unique(values.astype(float), return_counts=True)
    rank = (np.cumsum(count) - count / 2) / max(1, len(values))
    if len(level) > POINTS:
        keep = np.linspace(0, len(level) - 1, POINTS).round().astype(int)
        level, rank = level[keep], rank[keep]
    if not len(level) or level[0] > 0:
        level, rank = np.append(0.0, level), np.append(0.0, rank)
    if level[-1] < 1:
        level, rank = np.append(level, 1.0), np.append(rank, 1.0)
    return level, rank


FITTED = ("auc", "fit")  # on judged cells
SHARPER = 1.5


@dataclass(frozen=True)
class Blend:
    """A fitted ensemble: what to do with the scores of these members, in these classes."""

    method: BlendMethod
    members: tuple[str, ...]
    classes: tuple[str, ...]
    weights: Floats  # (members, classes), summing to 1 in each class
    slopes: Floats  # (members,): aligned logit = slope * logit + offset
    offsets: Floats
    knows: Flags  # (members, classes): who scored what when it was made
    ranks: tuple[RankReference, ...] = ()  # one a member, by rank only

    def __post_init__(self) -> None:
        if self.method not in get_args(BlendMethod):
            raise UserError(
                "E_TODO",
                f"no ensemble by {self.method!r}",
                f"choose one of {list_names(get_args(BlendMethod))}",
            )
        if self.weights.shape != (len(self.members), len(self.classes)):
            raise ValueError(f"weights {self.weights.shape} do not fit the members and classes")

    def apply(self, members: Sequence[Member]) -> Floats:
        """The blended scores (rows, classes) of the same members, in any order.

        A species that a member knew and now lacks goes to the others; UserError if nobody
        with a weight is left for a species.
        """
        check_aligned(members, len(self.classes))
        by_name = {member.name: member for member in members}
        if set(by_name) != set(self.members):
            raise UserError(
                "E_TODO",
                f"the blend is of {list_names(self.members)}, not of {list_names(by_name)}",
                "score the recordings with the same members",
            )
        ordered = [by_name[name] for name in self.members]
        check_known(ordered, self.classes)
        weights = weight_shares(self.weights, known_classes(ordered))
        heard = np.stack([self._prepare(i, member) for i, member in enumerate(ordered)])
        blended = np.einsum("mc,mrc->rc", weights, np.nan_to_num(heard))
        if self.method == "extremized":
            return np.asarray(expit(SHARPER * as_logits(blended)))
        return np.asarray(expit(blended) if self.method in FITTED else blended)

    def missing(self) -> dict[str, tuple[str, ...]]:
        """For each member that did not score some species when the blend was made: which."""
        silent = {
            name: tuple(c for c, known in zip(self.classes, row, strict=True) if not known)
            for name, row in zip(self.members, self.knows.tolist(), strict=True)
        }
        return {name: species for name, species in silent.items() if species}

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, for a bundle's manifest."""
        return {
            "by": self.method,
            "members": list(self.members),
            "classes": list(self.classes),
            "weights": self.weights.tolist(),
            "slopes": self.slopes.tolist(),
            "offsets": self.offsets.tolist(),
            "knows": self.knows.tolist(),
            "ranks": [
                {"scores": list(map(list, r.scores)), "ranks": list(map(list, r.ranks))}
                for r in self.ranks
            ],
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Blend":
        """The blend that :meth:`to_json` wrote down."""
        return cls(
            method=kept["by"],
            members=tuple(kept["members"]),
            classes=tuple(kept["classes"]),
            weights=np.array(kept["weights"], float),
            slopes=np.array(kept["slopes"], float),
            offsets=np.array(kept["offsets"], float),
            knows=np.array(kept["knows"], bool),
            ranks=tuple(
                RankReference(tuple(map(tuple, r["scores"])), tuple(map(tuple, r["ranks"])))
                for r in kept["ranks"]
            ),
        )

    def _prepare(self, place: int, member: Member) -> Floats:
        if self.method == "rank":
            return self.ranks[place].rank(member.scores)
        if self.method not in FITTED:
            return member.scores
        logits = as_logits(member.scores)
        return np.asarray(self.slopes[place] * logits + self.offsets[place])


def check_known(members: Sequence[Member], classes: Sequence[str]) -> None:
    """Refuse members none of whom scores some class."""
    known = known_classes(members)
    if gone := [name for i, name in enumerate(classes) if not known[:, i].any()]:
        raise UserError(
            "E_TODO", f"no member scores species {list_names(gone)}", "add one that does"
        )


def blend_members(
    members: Sequence[Member], method: BlendMethod, weights: Floats | None = None
) -> Floats:
    """Blend without any judged cell: ``mean``, ``sharp``, or ``rank`` among the rows at hand.

    ``weights`` are (members,) or (members, classes), not negative, scaled here; left out, all
    members weigh the same. Raises UserError for ``auc`` and ``fit``, which need cells.
    """
    check_aligned(members)
    classes = Classes(tuple(str(i) for i in range(members[0].scores.shape[1])))
    return plain_blend(members, classes, method, weights).apply(members)


def plain_blend(
    members: Sequence[Member],
    classes: Classes,
    method: BlendMethod,
    weights: Floats | None = None,
    known: Flags | None = None,
) -> Blend:
    """The blend of :func:`blend_members`, to keep; ranks come from the ``known`` cells, or all."""
    check_aligned(members, len(classes))
    if method in FITTED:
        raise UserError(
            "E_TODO", f"an ensemble by {method} is fitted on judged cells", "there are none here"
        )
    given = np.ones(len(members)) if weights is None else np.asarray(weights, float)
    if given.ndim == 1:
        given = np.tile(given[:, np.newaxis], (1, len(classes)))
    fits = given.shape == (len(members), len(classes))
    if not fits or not np.isfinite(given).all() or (given < 0).any() or not given.any():
        raise UserError(
            "E_TODO", f"weights must be one a member, finite, not negative, not all 0: {weights}"
        )
    references = [RankReference.of(member.scores, known) for member in members]
    return _blend(
        members, classes, method, weight_shares(given, known_classes(members)), tuple(references)
    )


def fit_blend(
    members: Sequence[Member],
    judged: CellMatrices,
    method: BlendMethod,
    classes: Classes,
    weights: Floats | None = None,
) -> Blend:
    """Fit the blend on judged cells: rows of ``judged`` are those of the members.

    The members' scores must come from models that did not train on these rows. ``mean`` and
    ``sharp`` have nothing to fit; ``rank`` keeps the judged cells as its reference. These three
    take ``weights``, as :func:`blend_members` does; UserError for the others.
    """
    check_aligned(members, len(classes))
    if judged.truth.shape != members[0].scores.shape:
        raise ValueError(f"{judged.truth.shape} judged, {members[0].scores.shape} scored")
    check_known(members, classes.names)
    if method not in FITTED:
        return plain_blend(members, classes, method, weights, judged.known)
    if weights is not None:
        raise UserError(
            "E_TODO", f"an ensemble by {method} finds its weights itself", "give none, or by sharp"
        )
    slopes, offsets = align_logits(members, judged.known)
    if method == "auc":
        weights = auc_weights(members, judged.truth, judged.known)
    else:
        logits = [
            slope * as_logits(member.scores) + offset
            for member, slope, offset in zip(members, slopes, offsets, strict=True)
        ]
        weights = fit_weights(members, logits, judged.truth, judged.known)
    return _blend(members, classes, method, weights, (), slopes, offsets)


def nested_cells(
    members: Sequence[Member],
    judged: CellMatrices,
    folds: Mapping[str, int],
    method: BlendMethod,
    classes: Classes,
    weights: Floats | None = None,
) -> pd.DataFrame:
    """The judged cells, each scored by a blend fitted on the other folds only.

    ``folds`` says which fold each recording is in. Hand the result to ``evaluate``.
    """
    if gone := {name for name in judged.recordings if name not in folds}:
        raise ValueError(f"no fold for recordings {list_names(gone)}")
    fold = np.array([folds[name] for name in judged.recordings])
    if len(judged.recordings) and len(set(fold.tolist())) < 2:
        raise UserError(
            "E_TODO", "weights are fitted on other folds, but there is one only", "use two or more"
        )
    scores = np.zeros(judged.truth.shape)
    for held_out in np.unique(fold):
        mine = fold == held_out
        others = CellMatrices(
            judged.truth[~mine],
            judged.known[~mine],
            judged.scores[~mine],
            [name for name, own in zip(judged.recordings, mine, strict=True) if not own],
        )
        kept = [member.take(~mine) for member in members]
        fitted = fit_blend(kept, others, method, classes, weights)
        scores[mine] = fitted.apply([member.take(mine) for member in members])
    return judged_cell_scores(judged, scores, classes)


def _blend(
    members: Sequence[Member],
    classes: Classes,
    method: BlendMethod,
    weights: Floats,
    ranks: tuple[RankReference, ...],
    slopes: Floats | None = None,
    offsets: Floats | None = None,
) -> Blend:
    return Blend(
        method=method,
        members=tuple(member.name for member in members),
        classes=classes.names,
        weights=weights,
        slopes=np.ones(len(members)) if slopes is None else slopes,
        offsets=np.zeros(len(members)) if offsets is None else offsets,
        knows=known_classes(members),
        ranks=ranks if method == "rank" else (),
    )
