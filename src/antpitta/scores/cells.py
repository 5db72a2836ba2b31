"""The judged cells: what every metric here works on.

A cell is one statement that can be held against a score: a DataFrame row with ``recording``,
``species``, ``present`` (bool) and ``score``, and maybe a ``site``. There are two sources:

- Validated boxes: one row a box, scored by the highest framewise score inside it, by a model
  that did not train on its recording.
- Whole truth: one row for each recording and species, scored by the recording's score.

What has no row is unknown. It is no rival in a ranking and no absence in a curve, and the
matrices carry it as ``known=False``.

From framewise scores to the judged cells of validated boxes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation, Classes, Scores
from antpitta.scores.metrics import Flags, Floats
from antpitta.scores.tables import index_by_recording, list_names, numeric_scores, select_scores

COLUMNS = ("recording", "species", "present", "score")


class CellMatrices(NamedTuple):
    """Cells as arrays (rows, classes); a row is a recording, or a cell where nothing merged."""

    truth: Flags
    known: Flags
    scores: Floats  # 0 where unknown
    recordings: list[str]  # (rows,), the recording of each row


@dataclass(frozen=True)
class UnmatchedScores:
    """What a score table holds beyond the truth, and the truth's blanks: none was judged."""

    recordings: tuple[str, ...]
    species: tuple[str, ...]
    unknown: int  # blank cells of the truth


def check_cells(cells: pd.DataFrame, classes: Classes) -> None:
    """Refuse a table that is no table of judged cells, with a ValueError that says why."""
    if gone := [name for name in COLUMNS if name not in cells.columns]:
        raise ValueError(f"cells lack the columns {gone}, they have {list(cells.columns)}")
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
    if strangers := set(cells["species"].astype(str)) - set(classes.names):
        raise ValueError(
            f"cells speak of species that are not among the classes: {list_names(strangers)}"
        )


def cell_matrices(cells: pd.DataFrame, classes: Classes, *, merge: bool = True) -> CellMatrices:
    """The cells as arrays, recordings sorted by name.

    A species is present in a recording if any of its rows says so. Its score is then the
    highest of its present rows: a loud absent box elsewhere is no reason to believe that the
    call was found. Where every row says absent, it is the highest of them all.
    ``merge=False`` keeps one array row for each cell, in the table's order.
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
    speaks = present == truth[row, column]  # an absent box beside a present one does not
    scores = np.full(shape, -np.inf)
    np.maximum.at(scores, (row[speaks], column[speaks]), score[speaks])
    return CellMatrices(
        truth, known, np.where(known, scores, 0.0), [str(name) for name in recordings]
    )


def judged_cell_scores(judged: CellMatrices, scores: Floats, classes: Classes) -> pd.DataFrame:
    """The known cells again, with other scores (rows, classes): what a blend made of them."""
    row, column = np.nonzero(judged.known)
    return pd.DataFrame(
        {
            "recording": np.array(judged.recordings, dtype=object)[row],
            "species": np.array(classes.names, dtype=object)[column],
            "present": judged.truth[row, column],
            "score": scores[row, column],
        }
    )


def truth_cells(truth: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Hold a table of scores against a table of truth; both are ``recording_id, s0, s1, ...``.

    The truth decides what is judged: each of its recordings and species must have a score.
    A blank in it is unknown and makes no cell; :func:`unmatched` counts what was passed over.
    """
    said = index_by_recording(truth, "the truth table")
    heard = index_by_recording(scores, "the score table")
    present = numeric_scores(said, "the truth table")
    if (odd := ~np.isin(present, (0, 1)) & ~np.isnan(present)).any():
        row, column = np.argwhere(odd)[0]
        where = f"recording {said.index[row]}, species {said.columns[column]}"
        raise UserError(
            "E_TODO",
            f"the truth table holds {present[row, column]:g} at {where}",
            "write 1 for present, 0 for absent, nothing for unknown",
        )
    recordings, species = [str(i) for i in said.index], [str(i) for i in said.columns]
    found = select_scores(heard, recordings, species, "the score table")
    known = ~np.isnan(present)
    judged = CellMatrices(present == 1, known, found, recordings)
    return judged_cell_scores(judged, found, Classes(tuple(species)))


def unmatched(truth: pd.DataFrame, scores: pd.DataFrame) -> UnmatchedScores:
    """What :func:`truth_cells` passes over in the same two tables."""
    said = index_by_recording(truth, "the truth table")
    heard = index_by_recording(scores, "the score table")
    return UnmatchedScores(
        tuple(str(name) for name in heard.index.difference(said.index)),
        tuple(str(name) for name in heard.columns if name not in said.columns),
        int(said.isna().to_numpy().sum()),
    )


def box_cells(
    scores: Iterable[Scores], annotations: Iterable[Annotation], classes: Classes
) -> pd.DataFrame:
    """One row a box (and species, where a statement is about all): recording, species, present,
    score, start, stop, low, high.

    The score is the highest framewise one inside the box: only sound that somebody listened to
    is judged. Boxes of recordings without scores, and boxes beyond the scores' end, have no row.
    """
    by_recording: Mapping[str, Scores] = {one.recording: one for one in scores}
    rows = []
    for said in annotations:
        one = by_recording.get(said.recording)
        if one is None:
            continue
        inside = one.value[one.grid.frames_by_centre(said.start, min(said.stop, one.grid.end))]
        if not len(inside):
            continue
        for column in classes.columns(said.label):
            rows.append(
                (
                    said.recording,
                    classes.names[column],
                    said.present,
                    float(inside[:, column].max()),
                    said.start,
                    min(said.stop, one.grid.end),
                    said.low,
                    said.high,
                )
            )
    names = ["recording", "species", "present", "score", "start", "stop", "low", "high"]
    return pd.DataFrame(rows, columns=names).astype({"present": bool, "score": float})


def clip_scores(scores: Iterable[Scores]) -> pd.DataFrame:
    """The competition's layout: recording_id, then each species' highest score anywhere in it."""
    ids, rows, names = [], [], None
    for one in scores:
        ids.append(one.recording)
        rows.append(one.value.max(axis=0))
        names = one.classes.names
    return clip_score_table(ids, np.array(rows), names or ())


def clip_score_table(
    ids: list[str], value: NDArray[np.floating], names: tuple[str, ...]
) -> pd.DataFrame:
    """The layout of presence.csv; ``value`` is (recordings, classes)."""
    table = pd.DataFrame(value.reshape(len(ids), len(names)), columns=list(names))
    table.insert(0, "recording_id", ids)
    return table
