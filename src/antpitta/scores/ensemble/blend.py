"""Ensembles: the scores of several models as one.

- ``mean``: the weighted mean of the probabilities.
- ``extremized``: the same, with its log-odds multiplied by ``EXTREMIZE``. A mean of forecasts is
  less certain than it should be, even if each forecast is calibrated (Ranjan and Gneiting,
  Combining probability forecasts, 2010). The order within a species stays; scores that are
  rescaled to prevalences compare better between species.
- ``rank``: the mean of ranks within each class. It is not a probability, so thresholds must be
  chosen anew.
- ``aligned``: the weighted mean of the logits, after each member's are brought to the mean and
  deviation of the first one's (weights.py).
- ``auc`` and ``fit``: the same, with weights for each species (weights.py).

A member without scores for a species has weight 0 there, and the others share its weight;
``Blend.missing`` lists such species. Weights that are fitted on cells flatter the ensemble on the
same cells: :func:`nested_cells` is for the report, and :func:`fit_blend` on all cells is for use.
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
from antpitta.scores.cells import CellMatrices, cells_from_matrices
from antpitta.scores.ensemble.members import (
    Member,
    check_aligned,
    check_scored,
    normalize_weights,
    scored_classes,
)
from antpitta.scores.ensemble.weights import align_logits, auc_weights, fit_weights
from antpitta.scores.metrics import Flags, Floats, clipped_logit
from antpitta.scores.tables import sample_names

FITTED = ("auc", "fit")  # the methods that need labelled cells
LOGITS = ("aligned", *FITTED)  # the methods that average aligned logits
EXTREMIZE = 1.5
MAX_REFERENCE = 512  # scores of a class that are kept to rank others


@dataclass(frozen=True)
class RankReference:
    """The scores that new scores are ranked among, so that a rank means the same tomorrow.

    The rank of a score is the share of reference scores below it plus half of those equal to it.
    Between two reference scores the rank rises linearly, and outside them towards 0 at score 0 and
    1 at score 1, so no two different scores of a class have one rank.

    Parameters
    ----------
    scores : rising scores of each class
    ranks : the rank of each, 0..1
    """

    scores: tuple[tuple[float, ...], ...]
    ranks: tuple[tuple[float, ...], ...]

    @classmethod
    def from_scores(
        cls, scores: Floats, known: Flags, most: int = MAX_REFERENCE
    ) -> "RankReference":
        """Keep the scores of known cells.

        Of more than ``most`` different scores some are kept, evenly spaced, with the lowest and the
        highest. A class without any ranks by the score itself.

        Parameters
        ----------
        scores, known : (rows, classes)
        most : scores kept in each class
        """
        levels, ranks = [], []
        for column in range(scores.shape[1]):
            own = scores[known[:, column], column]
            level, rank = _rank_steps(own[~np.isnan(own)], most)
            levels.append(tuple(level.tolist()))
            ranks.append(tuple(rank.tolist()))
        return cls(tuple(levels), tuple(ranks))

    def rank(self, scores: Floats) -> Floats:
        """The ranks, 0..1, of scores (rows, classes); NaN stays NaN."""
        if scores.shape[1] != len(self.scores):
            raise ValueError(f"{scores.shape[1]} classes, but a reference of {len(self.scores)}")
        columns = [
            np.interp(scores[:, i], level, rank)
            for i, (level, rank) in enumerate(zip(self.scores, self.ranks, strict=True))
        ]
        return np.stack(columns, axis=1)


def _rank_steps(values: Floats, most: int) -> tuple[Floats, Floats]:
    """Rising scores and their ranks, from score 0 to 1."""
    level, count = np.unique(values.astype(float), return_counts=True)
    rank = (np.cumsum(count) - count / 2) / max(1, len(values))
    if len(level) > most:
        keep = np.linspace(0, len(level) - 1, most).round().astype(int)
        level, rank = level[keep], rank[keep]
    if not len(level) or level[0] > 0:
        level, rank = np.append(0.0, level), np.append(0.0, rank)
    if level[-1] < 1:
        level, rank = np.append(level, 1.0), np.append(rank, 1.0)
    return level, rank


@dataclass(frozen=True)
class Blend:
    """A fitted ensemble: how the scores of its members are combined.

    Parameters
    ----------
    members, classes : their names
    weights : (members, classes), summing to 1 in each class
    slopes, offsets : (members,): aligned logit = slope * logit + offset
    scored : (members, classes), which member scored which class when the ensemble was fitted
    ranks : one for each member, for the method ``rank`` only

    Raises
    ------
    UserError
        E_ENSEMBLE_METHOD for an unknown method.
    """

    method: BlendMethod
    members: tuple[str, ...]
    classes: tuple[str, ...]
    weights: Floats
    slopes: Floats
    offsets: Floats
    scored: Flags
    ranks: tuple[RankReference, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in get_args(BlendMethod):
            raise UserError(
                "E_ENSEMBLE_METHOD",
                f"there is no ensemble method {self.method!r}",
                f"use one of {', '.join(get_args(BlendMethod))}",
            )
        shape = (len(self.members), len(self.classes))
        if self.weights.shape != shape or self.scored.shape != shape:
            raise ValueError(f"weights {self.weights.shape} do not fit the members and classes")
        if self.slopes.shape != shape[:1] or self.offsets.shape != shape[:1]:
            raise ValueError(f"slopes {self.slopes.shape} do not fit the members")
        if len(self.ranks) != (shape[0] if self.method == "rank" else 0):
            raise ValueError(f"ranks of {len(self.ranks)} members do not fit the members")
        if not all(len(ranks.scores) == len(ranks.ranks) == shape[1] for ranks in self.ranks):
            raise ValueError("ranks do not fit the classes")
        if not all(np.isfinite(v).all() for v in (self.weights, self.slopes, self.offsets)):
            raise ValueError("weights, slopes or offsets are not numbers")

    def apply(self, members: Sequence[Member]) -> Floats:
        """Combine the scores of the members.

        Parameters
        ----------
        members : those of the ensemble, in any order; the weight of a class that one of them no
            longer scores goes to the others

        Returns
        -------
        scores : (rows, classes)

        Raises
        ------
        UserError
            E_ENSEMBLE_MEMBERS for other members, E_SCORES_MISSING for a class without scores.
        """
        check_aligned(members, len(self.classes))
        by_name = {member.name: member for member in members}
        if set(by_name) != set(self.members):
            raise UserError(
                "E_ENSEMBLE_MEMBERS",
                f"the ensemble has the members {sample_names(self.members)}, not "
                f"{sample_names(by_name)}",
                "score the recordings with the same members",
            )
        ordered = [by_name[name] for name in self.members]
        check_scored(ordered, self.classes)
        weights = normalize_weights(self.weights, scored_classes(ordered))
        stack = np.stack([self._transform(i, member) for i, member in enumerate(ordered)])
        blended = np.einsum("mc,mrc->rc", weights, np.nan_to_num(stack))
        if self.method == "extremized":
            return np.asarray(expit(EXTREMIZE * clipped_logit(blended)))
        return np.asarray(expit(blended) if self.method in LOGITS else blended)

    def missing(self) -> dict[str, tuple[str, ...]]:
        """The classes that a member did not score, for each member with such classes."""
        missing = {
            name: tuple(label for label, own in zip(self.classes, row, strict=True) if not own)
            for name, row in zip(self.members, self.scored.tolist(), strict=True)
        }
        return {name: labels for name, labels in missing.items() if labels}

    def to_json(self) -> dict[str, Any]:
        """The ensemble as plain lists and numbers, for the manifest of a bundle."""
        return {
            "method": self.method,
            "members": list(self.members),
            "classes": list(self.classes),
            "weights": self.weights.tolist(),
            "slopes": self.slopes.tolist(),
            "offsets": self.offsets.tolist(),
            "scored": self.scored.tolist(),
            "ranks": [
                {"scores": list(map(list, r.scores)), "ranks": list(map(list, r.ranks))}
                for r in self.ranks
            ],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Blend":
        """The ensemble that :meth:`to_json` wrote; UserError (E_MODEL_DAMAGED) for another one."""
        try:
            return cls(
                method=content["method"],
                members=tuple(content["members"]),
                classes=tuple(content["classes"]),
                weights=np.array(content["weights"], float),
                slopes=np.array(content["slopes"], float),
                offsets=np.array(content["offsets"], float),
                scored=np.array(content["scored"], bool),
                ranks=tuple(
                    RankReference(tuple(map(tuple, r["scores"])), tuple(map(tuple, r["ranks"])))
                    for r in content["ranks"]
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                "E_MODEL_DAMAGED",
                f"the ensemble's description is damaged ({type(error).__name__}: {error})",
                "make the ensemble again",
            ) from None

    def _transform(self, i: int, member: Member) -> Floats:
        """What the method averages: probabilities, ranks or aligned logits."""
        if self.method == "rank":
            return self.ranks[i].rank(member.scores)
        if self.method not in LOGITS:
            return member.scores
        return np.asarray(self.slopes[i] * clipped_logit(member.scores) + self.offsets[i])


def fit_blend(
    members: Sequence[Member],
    cells: CellMatrices,
    method: BlendMethod,
    classes: Classes,
    weights: Floats | None = None,
    most_ranks: int = MAX_REFERENCE,
) -> Blend:
    """Fit an ensemble on labelled cells.

    Parameters
    ----------
    members : with scores of models that did not train on the rows
    cells : the labels of the members' rows; ``mean`` and ``extremized`` fit nothing, and ``rank``
        and ``aligned`` use the scores of known cells and no label
    method : see the top of this file
    classes : the classes, in the order of the columns
    weights : (members,) or (members, classes), not negative, for these four methods
    most_ranks : scores that are kept in each class to rank others

    Returns
    -------
    blend : ready to be applied

    Raises
    ------
    UserError
        E_ENSEMBLE_WEIGHTS for weights that cannot be used, E_ENSEMBLE_MEMBERS and E_SCORES_MISSING
        as in :meth:`Blend.apply`.
    """
    check_aligned(members, len(classes))
    if cells.truth.shape != members[0].scores.shape:
        raise ValueError(f"{cells.truth.shape} labels, {members[0].scores.shape} scores")
    check_scored(members, classes.names)
    scored = scored_classes(members)
    slopes: Floats = np.ones(len(members))
    offsets: Floats = np.zeros(len(members))
    ranks: tuple[RankReference, ...] = ()
    if method in LOGITS:
        slopes, offsets = align_logits(members, cells.known)
    if method not in FITTED:
        fitted = normalize_weights(_check_weights(members, classes, weights), scored)
        if method == "rank":
            ranks = tuple(
                RankReference.from_scores(m.scores, cells.known, most_ranks) for m in members
            )
    else:
        if weights is not None:
            raise UserError(
                "E_ENSEMBLE_WEIGHTS",
                f"the method {method} finds its own weights",
                "leave the weights out, or use another method",
            )
        fitted = _fit_weights(members, cells, method, slopes, offsets)
    names = tuple(member.name for member in members)
    return Blend(method, names, classes.names, fitted, slopes, offsets, scored, ranks)


def _check_weights(members: Sequence[Member], classes: Classes, weights: Floats | None) -> Floats:
    """The weights as (members, classes), equal ones by default."""
    array = np.ones(len(members)) if weights is None else np.asarray(weights, float)
    if array.ndim == 1:
        array = np.tile(array[:, np.newaxis], (1, len(classes)))
    fits = array.shape == (len(members), len(classes))
    if not fits or not np.isfinite(array).all() or (array < 0).any() or not array.any():
        raise UserError(
            "E_ENSEMBLE_WEIGHTS",
            f"the weights {weights} cannot be used for {len(members)} members",
            "give one a member, none of them negative and not all 0",
        )
    return array


def _fit_weights(
    members: Sequence[Member],
    cells: CellMatrices,
    method: BlendMethod,
    slopes: Floats,
    offsets: Floats,
) -> Floats:
    if method == "auc":
        return auc_weights(members, cells.truth, cells.known)
    logits = [
        slope * clipped_logit(member.scores) + offset
        for member, slope, offset in zip(members, slopes, offsets, strict=True)
    ]
    return fit_weights(members, logits, cells.truth, cells.known)


def nested_cells(
    members: Sequence[Member],
    cells: CellMatrices,
    folds: Mapping[str, int],
    method: BlendMethod,
    classes: Classes,
    weights: Floats | None = None,
) -> pd.DataFrame:
    """The labelled cells, each scored by an ensemble that was fitted on the other folds only.

    Parameters
    ----------
    folds : the fold of each recording
    members, cells, method, classes, weights : as in :func:`fit_blend`

    Returns
    -------
    cells : as in :mod:`antpitta.scores.cells`

    Raises
    ------
    UserError
        E_ENSEMBLE_FOLDS if there is one fold only.
    """
    if missing := {name for name in cells.recordings if name not in folds}:
        raise ValueError(f"no fold for recordings {sample_names(missing)}")
    fold = np.array([folds[name] for name in cells.recordings])
    if len(cells.recordings) and len(set(fold.tolist())) < 2:
        raise UserError(
            "E_ENSEMBLE_FOLDS",
            "an ensemble is evaluated on folds that it was not fitted on, and there is one fold",
            "train with two folds or more",
        )
    scores = np.zeros(cells.truth.shape)
    for held_out in np.unique(fold):
        test = fold == held_out
        others = CellMatrices(
            cells.truth[~test],
            cells.known[~test],
            cells.scores[~test],
            [name for name, out in zip(cells.recordings, test, strict=True) if not out],
        )
        training = [member.take(~test) for member in members]
        fitted = fit_blend(training, others, method, classes, weights)
        scores[test] = fitted.apply([member.take(test) for member in members])
    return cells_from_matrices(cells, scores, classes)
