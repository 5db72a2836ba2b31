"""Members of an ensemble: each one's scores on the same rows.

A row is whatever all members scored: a recording, a judged box, a frame. A species that a
member does not know (a table of somebody's model has other species than ours) is a column of
NaN: it weighs nothing there, it is not a score of 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from antpitta.core.errors import UserError
from antpitta.core.types import Classes
from antpitta.scores.cells import CellMatrices, cell_matrices
from antpitta.scores.metrics import Flags, Floats
from antpitta.scores.tables import index_by_recording, list_names, select_scores


@dataclass(frozen=True)
class Member:
    """One model's probabilities, and by which name the blend knows it."""

    name: str
    scores: Floats  # (rows, classes); a column of NaN is a species it does not know

    def __post_init__(self) -> None:
        if self.scores.ndim != 2:
            raise ValueError(f"{self.name}: scores must be (rows, classes): {self.scores.shape}")
        blank = np.isnan(self.scores)
        if len(blank) and (blank.any(axis=0) != blank.all(axis=0)).any():
            raise ValueError(f"{self.name}: a species is scored in some rows and not in others")
        if not (blank | ((self.scores >= 0) & (self.scores <= 1))).all():
            raise ValueError(f"{self.name}: a score is no probability")

    @property
    def knows(self) -> Flags:
        """(classes,): the species that it scores. Without rows nothing contradicts it."""
        return np.asarray(~np.isnan(self.scores).any(axis=0), dtype=bool)

    def take(self, rows: Flags) -> "Member":
        """The same member on some of the rows."""
        return Member(self.name, self.scores[rows])


def member_from_table(
    frame: pd.DataFrame,
    recordings: Sequence[str],
    classes: Classes,
    *,
    name: str,
    logits: bool = False,
) -> Member:
    """A member from a table ``recording_id, species, ...`` of anyone's model.

    Columns go by name, rows by id; rows and columns beyond ours are passed over. Species that
    the table lacks become unknown to the member. Raises UserError if it lacks a recording or
    every species, or if a value is no probability: whether such values are logits is the
    user's to say, a guess would be wrong for a table of percentages.
    """
    table = index_by_recording(frame, f"the table of {name}")
    ours = [species for species in classes.names if species in table.columns]
    if not ours:
        have = (
            list_names([str(column) for column in table.columns]) if len(table.columns) else "none"
        )
        raise UserError(
            "E_TODO",
            f"the table of {name} has none of the species {list_names(classes.names)}, but {have}",
            "name its columns like the classes",
        )
    value = select_scores(table, recordings, ours, f"the table of {name}")
    if logits:
        value = expit(value)
    elif ((value < 0) | (value > 1)).any():
        row, column = np.argwhere((value < 0) | (value > 1))[0]
        raise UserError(
            "E_TODO",
            f"the table of {name} holds {value[row, column]:g} for {ours[column]} in {recordings[row]}, which is no probability",
            "say so if these are logits",
        )
    scores = np.full((len(recordings), len(classes)), np.nan)
    scores[:, [classes.names.index(species) for species in ours]] = value
    return Member(name, scores)


def members_from_cells(
    judged: Mapping[str, pd.DataFrame], classes: Classes, *, merge: bool = True
) -> tuple[list[Member], CellMatrices]:
    """Members from each run's out-of-fold cells, and what listeners said of their rows.

    All runs must have judged the same cells in the same order; ``merge`` is that of
    :func:`antpitta.scores.cells.cell_matrices`. Unknown cells are scored 0 and must not be looked
    at: fitting a blend does not. The scores of the matrices are the first run's.
    """
    if not judged:
        raise UserError("E_TODO", "no run to blend", "name at least one")
    members: list[Member] = []
    first: CellMatrices | None = None
    leader = next(iter(judged))
    for name, cells in judged.items():
        found = cell_matrices(cells, classes, merge=merge)
        statement = cells[["recording", "species", "present"]].astype(str).to_numpy(object)
        if first is None:
            first, said = found, statement
        elif not np.array_equal(said, statement):
            raise UserError(
                "E_TODO",
                f"{name} and {leader} were not judged on the same cells ({len(statement)} and {len(said)} rows)",
                "evaluate both on the same tables",
            )
        members.append(Member(name, found.scores))
    assert first is not None
    return members, first


def check_aligned(members: Sequence[Member], classes: int | None = None) -> None:
    """Refuse members that do not speak of the same rows and classes, or share a name."""
    if not members:
        raise UserError("E_TODO", "an ensemble of no members", "name at least one")
    names = [member.name for member in members]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise UserError("E_TODO", f"two members have one name: {list_names(doubled)}", "rename one")
    shapes = {member.scores.shape for member in members}
    if len(shapes) > 1 or (classes is not None and {shape[1] for shape in shapes} != {classes}):
        raise ValueError(f"members do not have the same rows and classes: {sorted(shapes)}")


EDGE = 1e-6  # probabilities nearer to 0 or 1 say no more than this


def as_logits(scores: Floats) -> Floats:
    """Logits of probabilities, cut at ``EDGE``; NaN stays NaN."""
    return np.asarray(logit(np.clip(scores, EDGE, 1 - EDGE)))


def known_classes(members: Sequence[Member]) -> Flags:
    """(members, classes): who scores what."""
    return np.stack([member.knows for member in members])


def weight_shares(weights: Floats, knows: Flags) -> Floats:
    """Weights (members, classes) that sum to 1 in each class, 0 where a member is ignorant.

    Where all that know a class weigh nothing they weigh the same; a class that nobody knows
    stays 0.
    """
    kept = np.where(knows, weights, 0.0)
    kept = np.where(kept.sum(axis=0) > 0, kept, knows.astype(float))
    total = kept.sum(axis=0)
    return np.asarray(kept / np.where(total > 0, total, 1.0))
