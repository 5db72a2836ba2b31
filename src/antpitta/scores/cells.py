"""Labelled cells: the rows that every metric here works on.

A cell is one label that can be compared with a score: a row of a DataFrame with ``recording``,
``species``, ``present`` (bool) and ``score``. There are two sources of cells:

- Validated boxes: one row per box, with the highest framewise score inside it, from a model
  that did not train on its recording.
- Complete ground truth: one row per recording and species, with the score of the recording.

What has no row is unknown. It is no rival in a ranking and no absence in a curve; the matrices
hold it as ``known=False``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.errors import UserError
from antpitta.core.identity import species_columns
from antpitta.core.types import Annotation, Classes, Scores
from antpitta.scores.metrics import Flags, Floats
from antpitta.scores.tables import (
    KEY,
    blank_species,
    index_by_recording,
    locate_recordings,
    locate_species,
    numeric_scores,
    sample_names,
    select_scores,
)

COLUMNS = ("recording", "species", "present", "score")


class CellMatrices(NamedTuple):
    """Cells as arrays (rows, classes); a row is a recording, or a single cell if not merged.

    Parameters
    ----------
    truth : whether the class is present
    known : whether the cell is labelled
    scores : 0 where unknown
    recordings : (rows,)
    """

    truth: Flags
    known: Flags
    scores: Floats
    recordings: list[str]


@dataclass(frozen=True)
class UnmatchedScores:
    """What :func:`truth_cells` leaves out.

    Parameters
    ----------
    recordings, species : scores without ground truth
    unknown : blank cells of the ground truth
    unscored : species of the ground truth whose column of scores is blank
    """

    recordings: tuple[str, ...]
    species: tuple[str, ...]
    unknown: int
    unscored: tuple[str, ...]


def check_cells(cells: pd.DataFrame, classes: Classes) -> None:
    """Raise ValueError for a table that is not one of labelled cells.

    Parameters
    ----------
    cells : columns recording, species, present (bool), score
    classes : the classes, in the order of the columns
    """
    if missing := [name for name in COLUMNS if name not in cells.columns]:
        raise ValueError(f"cells lack the columns {missing}, they have {list(cells.columns)}")
    if cells.empty:
        return
    for name in COLUMNS:
        if cells[name].isna().any():
            raise ValueError(f"cells: {int(cells[name].isna().sum())} rows have no {name}")
    if not pd.api.types.is_bool_dtype(cells["present"]):  # 0 and 1 would index rows 0 and 1
        raise ValueError(f"cells: present must be bool, not {cells['present'].dtype}")
    if not pd.api.types.is_numeric_dtype(cells["score"]):
        raise ValueError(f"cells: score must be a number, not {cells['score'].dtype}")
    if not np.isfinite(cells["score"].to_numpy(float)).all():
        raise ValueError("cells: a score is infinite")
    if unknown := set(cells["species"].astype(str)) - set(classes.names):
        raise ValueError(f"cells: species that are not among the classes: {sample_names(unknown)}")


def cell_matrices(cells: pd.DataFrame, classes: Classes, *, merge: bool = True) -> CellMatrices:
    """The cells as arrays.

    A species is present in a recording if one of its rows is. Its score is then the highest of
    its present rows: a loud absent box elsewhere does not mean that the call was detected. If
    all rows are absent, the score is the highest of them all.

    Parameters
    ----------
    cells : columns recording, species, present (bool), score
    classes : the classes, in the order of the columns
    merge : one row per recording, sorted by name; otherwise one row per cell, in the order of the
        table

    Returns
    -------
    matrices : (rows, classes)
    """
    check_cells(cells, classes)
    ids = cells["recording"].astype(str).to_numpy(object)
    if merge:
        recordings, row = np.unique(ids, return_inverse=True)
    else:
        recordings, row = ids, np.arange(len(ids))
    position = {name: i for i, name in enumerate(classes.names)}
    column = np.array([position[name] for name in cells["species"].astype(str)], dtype=int)
    present = cells["present"].to_numpy(bool)
    score = cells["score"].to_numpy(float)

    shape = (len(recordings), len(classes))
    truth, known = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    known[row, column] = True
    truth[row[present], column[present]] = True
    counts = present == truth[row, column]  # an absent box beside a present one does not
    scores = np.full(shape, -np.inf)
    np.maximum.at(scores, (row[counts], column[counts]), score[counts])
    return CellMatrices(
        truth, known, np.where(known, scores, 0.0), [str(name) for name in recordings]
    )


def cells_from_matrices(matrices: CellMatrices, scores: Floats, classes: Classes) -> pd.DataFrame:
    """The known cells as a table again, with other ``scores`` (rows, classes).

    Parameters
    ----------
    matrices : which cells are known, and their labels
    scores : (rows, classes)
    classes : the classes, in the order of the columns

    Returns
    -------
    cells : columns recording, species, present, score
    """
    row, column = np.nonzero(matrices.known)
    return pd.DataFrame(
        {
            "recording": np.array(matrices.recordings, dtype=object)[row],
            "species": np.array(classes.names, dtype=object)[column],
            "present": matrices.truth[row, column],
            "score": scores[row, column],
        }
    )


def truth_cells(
    truth: pd.DataFrame,
    scores: pd.DataFrame,
    truth_title: str = "the table of ground truth",
    scores_title: str = "the table of scores",
) -> pd.DataFrame:
    """Labelled cells from a table of ground truth and a table of scores.

    The ground truth decides what is compared: each of its recordings and species must have a
    score. A blank cell is unknown, and a blank column of scores is a species that the model could
    not learn; :func:`count_unmatched` counts what is left out.

    Parameters
    ----------
    truth, scores : ``recording_id``, then one column per species
    truth_title, scores_title : what a message calls the tables, such as their paths

    Returns
    -------
    cells : columns recording, species, present, score

    Raises
    ------
    UserError
        E_NO_TRUTH for a truth without cells, E_TRUTH_VALUE for a truth other than 0, 1 or blank;
        E_SCORE_TABLE, E_SCORES_MISSING and E_SCORE_VALUE as in :mod:`antpitta.scores.tables`.
    """
    labels = index_by_recording(truth, truth_title)
    present = numeric_scores(labels, truth_title)
    if np.isnan(present).all():  # also of a table without rows or without columns
        raise UserError(
            "E_NO_TRUTH",
            f"{truth_title} no cell is 1 (present) or 0 (absent)",
            "give recording_id and one column a species, and one row a recording",
        )
    if (invalid := ~np.isin(present, (0, 1)) & ~np.isnan(present)).any():
        row, column = np.argwhere(invalid)[0]
        raise UserError(
            "E_TRUTH_VALUE",
            f"{truth_title} has {present[row, column]:g} for {labels.columns[column]} "
            f"in {labels.index[row]}",
            "write 1 for present, 0 for absent and nothing for unknown",
        )
    indexed = index_by_recording(scores, scores_title)
    blank = blank_species(indexed, map(str, labels.columns))
    kept = [str(name) not in blank for name in labels.columns]
    if not any(kept):
        raise UserError(
            "E_SCORES_MISSING",
            f"{scores_title} the columns of all species of the ground truth are blank",
            "give scores of a model that could learn one of them",
        )
    present = present[:, kept]
    recordings, species = [str(i) for i in labels.index], [str(i) for i in labels.columns[kept]]
    selected = select_scores(indexed, recordings, species, scores_title)
    matrices = CellMatrices(present == 1, ~np.isnan(present), selected, recordings)
    return cells_from_matrices(matrices, selected, Classes(tuple(species)))


def count_unmatched(truth: pd.DataFrame, scores: pd.DataFrame) -> UnmatchedScores:
    """What :func:`truth_cells` leaves out of the same two tables.

    Parameters
    ----------
    truth : ``recording_id``, then one column per species
    scores : the same layout

    Returns
    -------
    unmatched : names and counts of what is left out
    """
    labels = index_by_recording(truth, "the table of ground truth")
    indexed = index_by_recording(scores, "the table of scores")
    rows = set(locate_recordings(indexed, map(str, labels.index)))
    columns = set(locate_species(indexed, map(str, labels.columns)))
    return UnmatchedScores(
        tuple(str(name) for i, name in enumerate(indexed.index) if i not in rows),
        tuple(str(name) for i, name in enumerate(indexed.columns) if i not in columns),
        int(np.isnan(numeric_scores(labels, "the table of ground truth")).sum()),
        blank_species(indexed, map(str, labels.columns)),
    )


def box_cells(
    scores: Iterable[Scores], annotations: Iterable[Annotation], classes: Classes
) -> pd.DataFrame:
    """One labelled cell per box; a box about every class gives one per class.

    The score is the highest framewise score inside the box, so only labelled sound is evaluated.
    Boxes of recordings without scores, and boxes beyond the end of the scores, have no row.

    Parameters
    ----------
    scores : framewise scores of each recording
    annotations : boxes
    classes : the classes, in the order of the columns

    Returns
    -------
    cells : columns recording, species, present, score, start, stop, low, high (seconds and Hz)
    """
    by_recording: Mapping[str, Scores] = {own.recording: own for own in scores}
    rows = []
    for box in annotations:
        own = by_recording.get(box.recording)
        if own is None:
            continue
        stop = min(box.stop, own.grid.end)
        inside = own.value[own.grid.frames_by_centre(box.start, stop)]
        if not len(inside):
            continue
        for column in classes.columns(box.label):
            label = (box.recording, classes.names[column], box.present)
            score = float(inside[:, column].max())
            rows.append((*label, score, box.start, stop, box.low, box.high))
    names = ["recording", "species", "present", "score", "start", "stop", "low", "high"]
    return pd.DataFrame(rows, columns=names).astype({"present": bool, "score": float})


def clip_scores(scores: Iterable[Scores]) -> pd.DataFrame:
    """A table of each recording's highest scores: ``recording_id``, then one column per species.

    Parameters
    ----------
    scores : framewise scores of each recording

    Returns
    -------
    table : the layout of presence.csv
    """
    ids, rows, names = [], [], None
    for recording in scores:
        ids.append(recording.recording)
        rows.append(recording.value.max(axis=0))
        names = recording.classes.names
    return clip_score_table(ids, np.array(rows), names or ())


def clip_score_table(
    ids: list[str], value: NDArray[np.floating], names: tuple[str, ...]
) -> pd.DataFrame:
    """The layout of presence.csv.

    Parameters
    ----------
    ids : (recordings,)
    value : (recordings, classes)
    names : (classes,)

    Returns
    -------
    table : ``recording_id``, then one column per species
    """
    columns = species_columns(names, (KEY,))
    table = pd.DataFrame(value.reshape(len(ids), len(names)), columns=columns)
    table.insert(0, KEY, ids)
    return table
