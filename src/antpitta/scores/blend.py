"""Several models' scores as one: mean, sharp, rank, auc, fit.

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
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from scipy.special import expit, logit

from antpitta.core.choices import By
from antpitta.core.errors import UserMistake
from antpitta.scores.members import Member, check_aligned
from antpitta.scores.metrics import Flags, Floats
from antpitta.scores.ranks import RankReference
from antpitta.scores.tables import some

FITTED = ("auc", "fit")  # on judged cells
SHARPER = 1.5
EDGE = 1e-6  # probabilities nearer to 0 or 1 say no more than this


@dataclass(frozen=True)
class Blend:
    """A fitted ensemble: what to do with the scores of these members, in these classes."""

    by: By
    members: tuple[str, ...]
    classes: tuple[str, ...]
    weights: Floats  # (members, classes), summing to 1 in each class
    slopes: Floats  # (members,): aligned logit = slope * logit + offset
    offsets: Floats
    knows: Flags  # (members, classes): who scored what when it was made
    ranks: tuple[RankReference, ...] = ()  # one a member, by rank only

    def __post_init__(self) -> None:
        if self.by not in get_args(By):
            raise UserMistake(f"no ensemble by {self.by!r}; choose one of {some(get_args(By))}")
        if self.weights.shape != (len(self.members), len(self.classes)):
            raise ValueError(f"weights {self.weights.shape} do not fit the members and classes")

    def apply(self, members: Sequence[Member]) -> Floats:
        """The blended scores (rows, classes) of the same members, in any order.

        A species that a member knew and now lacks goes to the others; UserMistake if nobody
        with a weight is left for a species.
        """
        check_aligned(members, len(self.classes))
        by_name = {member.name: member for member in members}
        if set(by_name) != set(self.members):
            raise UserMistake(
                f"the blend is of {some(self.members)}, not of {some(by_name)}; "
                "score the recordings with the same members"
            )
        ordered = [by_name[name] for name in self.members]
        check_known(ordered, self.classes)
        weights = shares(self.weights, knowing(ordered))
        heard = np.stack([self._prepare(i, member) for i, member in enumerate(ordered)])
        blended = np.einsum("mc,mrc->rc", weights, np.nan_to_num(heard))
        if self.by == "sharp":
            return np.asarray(expit(SHARPER * as_logits(blended)))
        return np.asarray(expit(blended) if self.by in FITTED else blended)

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
            "by": self.by,
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
            by=kept["by"],
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
        if self.by == "rank":
            return self.ranks[place].rank(member.scores)
        if self.by not in FITTED:
            return member.scores
        logits = as_logits(member.scores)
        return np.asarray(self.slopes[place] * logits + self.offsets[place])


def as_logits(scores: Floats) -> Floats:
    """Logits of probabilities, cut at ``EDGE``; NaN stays NaN."""
    return np.asarray(logit(np.clip(scores, EDGE, 1 - EDGE)))


def knowing(members: Sequence[Member]) -> Flags:
    """(members, classes): who scores what."""
    return np.stack([member.knows for member in members])


def shares(weights: Floats, knows: Flags) -> Floats:
    """Weights (members, classes) that sum to 1 in each class, 0 where a member is ignorant.

    Where all that know a class weigh nothing they weigh the same; a class that nobody knows
    stays 0.
    """
    kept = np.where(knows, weights, 0.0)
    kept = np.where(kept.sum(axis=0) > 0, kept, knows.astype(float))
    total = kept.sum(axis=0)
    return np.asarray(kept / np.where(total > 0, total, 1.0))


def check_known(members: Sequence[Member], classes: Sequence[str]) -> None:
    """Refuse members none of whom scores some class."""
    known = knowing(members)
    if gone := [name for i, name in enumerate(classes) if not known[:, i].any()]:
        raise UserMistake(f"no member scores species {some(gone)}; add one that does")
