"""The members of an ensemble: the scores of each on the same rows.

A row is anything that all members score: a recording, a box, a frame. A species that a member does
not score (a table of another model has other species) is a column of NaN, which has weight 0. It
is not a score of 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from antpitta.core.errors import UserError
from antpitta.core.types import Classes
from antpitta.scores.cells import CellMatrices, cell_matrices
from antpitta.scores.metrics import Flags, Floats
from antpitta.scores.tables import (
    blank_species,
    index_by_recording,
    locate_species,
    sample_names,
    select_scores,
)


@dataclass(frozen=True)
class Member:
    """The probabilities of one model.

    Parameters
    ----------
    name : unique in the ensemble
    scores : (rows, classes); a column of NaN is a class without scores
    """

    name: str
    scores: Floats

    def __post_init__(self) -> None:
        if self.scores.ndim != 2:
            raise ValueError(f"{self.name}: scores must be (rows, classes): {self.scores.shape}")
        blank = np.isnan(self.scores)
        if len(blank) and (blank.any(axis=0) != blank.all(axis=0)).any():
            raise ValueError(f"{self.name}: a class has scores in some rows and not in others")
        if not (blank | ((self.scores >= 0) & (self.scores <= 1))).all():
            raise ValueError(f"{self.name}: a score is not a probability")

    @property
    def scored(self) -> Flags:
        """(classes,): the classes that have scores; without any row, all of them."""
        return np.asarray(~np.isnan(self.scores).any(axis=0), dtype=bool)

    def take(self, rows: Flags) -> "Member":
        """The same member on some of the rows."""
        return Member(self.name, self.scores[rows])


def member_from_table(
    frame: pd.DataFrame, recordings: Sequence[str], classes: Classes, *, name: str
) -> Member:
    """A member from a table of scores of any model.

    Parameters
    ----------
    frame : ``recording_id``, then one column per species; rows and columns are found by name, and
        those that were not asked for are left out
    recordings : (rows,), ids
    classes : the classes, in the order of the columns
    name : of the member

    Returns
    -------
    member : NaN for species that the table lacks or leaves blank

    Raises
    ------
    UserError
        E_SCORES_MISSING if the table lacks a recording or every species, E_SCORE_VALUE for a value
        that is not a probability, E_SCORE_TABLE as in :mod:`antpitta.scores.tables`.
    """
    title = f"the table of {name}"
    table = index_by_recording(frame, title)
    columns, blank = locate_species(table, classes.names), blank_species(table, classes.names)
    located = zip(classes.names, columns, strict=True)
    species = [label for label, at in located if at is not None and label not in blank]
    if not species:
        names = [str(column) for column in table.columns]
        raise UserError(
            "E_SCORES_MISSING",
            f"{title} has none of the species {sample_names(classes.names)}, but "
            f"{sample_names(names) if names else 'none'}",
            "name its columns like the species",
        )
    value = select_scores(table, recordings, species, title)
    if ((value < 0) | (value > 1)).any():
        row, column = np.argwhere((value < 0) | (value > 1))[0]
        raise UserError(
            "E_SCORE_VALUE",
            f"{title} has {value[row, column]:g} for {species[column]} in {recordings[row]}, "
            "which is not a probability",
            "convert its scores to 0 to 1",
        )
    scores = np.full((len(recordings), len(classes)), np.nan)
    scores[:, [classes.names.index(label) for label in species]] = value
    return Member(name, scores)


def members_from_cells(
    cells: Mapping[str, pd.DataFrame], classes: Classes
) -> tuple[list[Member], CellMatrices]:
    """Members from the out-of-fold cells of runs, and the labels of their rows.

    Unknown cells have a score of 0, which fitting an ensemble does not use.

    Parameters
    ----------
    cells : of each run; all runs must have the same cells in the same order
    classes : the classes, in the order of the columns

    Returns
    -------
    members : in the order of the runs
    matrices : with the scores of the first run

    Raises
    ------
    UserError
        E_ENSEMBLE_CELLS for runs with different cells.
    """
    names = list(cells)
    labels = [
        table[["recording", "species", "present"]].astype(str).to_numpy(object)
        for table in cells.values()
    ]
    for name, own in zip(names, labels, strict=True):
        if not np.array_equal(own, labels[0]):
            raise UserError(
                "E_ENSEMBLE_CELLS",
                f"{name} and {names[0]} have different labelled cells ({len(own)} and "
                f"{len(labels[0])} rows)",
                "train both on the same tables",
            )
    matrices = [cell_matrices(table, classes) for table in cells.values()]
    members = [Member(name, own.scores) for name, own in zip(names, matrices, strict=True)]
    return members, matrices[0]


def check_aligned(members: Sequence[Member], classes: int) -> None:
    """Check that the members have different names, and the same rows and classes.

    Parameters
    ----------
    members : the members of one ensemble
    classes : number of classes

    Raises
    ------
    UserError
        E_ENSEMBLE_MEMBERS without members, or for a name that occurs twice.
    """
    names = [member.name for member in members]
    if not names:
        raise UserError("E_ENSEMBLE_MEMBERS", "the ensemble has no members", "name at least one")
    if doubled := {name for name in names if names.count(name) > 1}:
        raise UserError(
            "E_ENSEMBLE_MEMBERS", f"two members are called {sample_names(doubled)}", "rename one"
        )
    shapes = {member.scores.shape for member in members}
    if len(shapes) > 1 or {shape[1] for shape in shapes} != {classes}:
        raise ValueError(f"members do not have the same rows and classes: {sorted(shapes)}")


def check_scored(members: Sequence[Member], classes: Sequence[str]) -> None:
    """Check that every class has scores of one member at least.

    Parameters
    ----------
    members : the members of one ensemble
    classes : names

    Raises
    ------
    UserError
        E_SCORES_MISSING for a class that no member scores.
    """
    scored = scored_classes(members)
    if missing := [name for i, name in enumerate(classes) if not scored[:, i].any()]:
        raise UserError(
            "E_SCORES_MISSING",
            f"no member scores the species {sample_names(missing)}",
            "add a member that does",
        )


def scored_classes(members: Sequence[Member]) -> Flags:
    """(members, classes): which member scores which class.

    Parameters
    ----------
    members : the members of one ensemble

    Returns
    -------
    scored : (members, classes)
    """
    return np.stack([member.scored for member in members])


def normalize_weights(weights: Floats, scored: Flags) -> Floats:
    """Weights that sum to 1 in each class, 0 where a member does not score the class.

    Where all members that score a class have weight 0, they get equal weights. A class that no
    member scores keeps 0.

    Parameters
    ----------
    weights, scored : (members, classes)

    Returns
    -------
    weights : (members, classes)
    """
    kept = np.where(scored, weights, 0.0)
    kept = np.where(kept.sum(axis=0) > 0, kept, scored.astype(float))
    total = kept.sum(axis=0)
    return np.asarray(kept / np.where(total > 0, total, 1.0))
