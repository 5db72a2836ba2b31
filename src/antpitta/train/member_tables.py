"""Pseudo-labels from tables of scores of any model.

A table has one row for each recording, or one for each stretch of it (``start_time``,
``end_time``), and one column for each species. The score of a recording counts for all of its
windows, so rows for stretches teach more.

No model may label a recording that it trained on. A run proves this by its folds, a table by a
column:

- ``fold``: the part of the data that was held out from the model of this row, which counts as
  trained on the recordings of all other folds;
- ``trained_on``: the recordings that the model of this row was trained on, with ``;`` in between;
  empty for a model that was trained on none of them.

Without either, ``pseudo.unproven_members`` must say that the user answers for it. A table that
shows the contrary is refused in any case.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.errors import UserError, list_names
from antpitta.core.identity import species_of_columns
from antpitta.core.types import Dataset, Recording
from antpitta.files.matching import AmbiguousMatch, RecordingMatcher
from antpitta.files.own_files import explain_damage
from antpitta.files.tables import read_frame
from antpitta.scores.tables import locate_species
from antpitta.train.pseudo import TOLERANCE, OutOfFoldScores, TableScores

RECORDING = ("recording", "recording_id", "file")
TIMES = ("start_time", "end_time")
PROOFS = ("fold", "trained_on")
COLUMNS = (*RECORDING, *TIMES, *PROOFS)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MemberTable:
    """The scores of a table, one for each recording of the data set."""

    path: Path
    scores: tuple[OutOfFoldScores, ...] = field(repr=False)


def read_member_table(path: Path, dataset: Dataset, *, unproven: bool) -> MemberTable:
    """Read a table of scores, and prove that no model trained on what it scores.

    Parameters
    ----------
    path
        A text table, or Parquet where its name ends so.
    dataset
        The recordings and classes; rows of other recordings and columns of other species are not
        used.
    unproven
        Whether a table without a column of proof is accepted.

    Returns
    -------
    member
        With scores of all recordings and classes.

    Raises
    ------
    UserError
        ``E_MEMBER_UNPROVEN`` without proof, ``E_OTHER_DATA`` where recordings or species are
        missing, ``E_SCORE_VALUE`` for scores that are no probabilities, ``E_MEMBER_TABLE`` for
        rows that cannot be used, ``E_MISSING_COLUMN`` without recordings.
    """
    frame = _read(path)
    names = _recording_names(frame, path)
    ids = _match(names, dataset, path)
    used = ids.notna().to_numpy()
    frame, ids = frame[used], ids[used]
    start, stop = _times(frame, path)
    value = _scores(frame, dataset, path)
    trained_on, sources = _trained_on(frame, ids, dataset, path, unproven=unproven)
    rows_of = pd.Series(np.arange(len(ids))).groupby(ids.to_numpy()).indices
    scores = []
    for recording in dataset.recordings:
        rows = np.asarray(rows_of[recording.id])
        rows = rows[np.lexsort((stop[rows], start[rows]))]
        _check_rows(recording, start[rows], stop[rows], path)
        own = TableScores(
            *(recording.id, start[rows], stop[rows], dataset.classes, value[rows]),
            source=sources[recording.id],
        )
        scores.append(OutOfFoldScores(own, trained_on[recording.id]))
    return MemberTable(path, tuple(scores))


def _read(path: Path) -> pd.DataFrame:
    """The table, indexed by the line in its file (Parquet: the row, from 1)."""
    if path.suffix.lower() != ".parquet":
        return read_frame(path)
    if not path.is_file():
        raise UserError("E_CANNOT_READ", f"{path}: there is no such file", "check pseudo.members")
    with explain_damage(path, "write the table anew, or give it as CSV"):
        frame = pd.read_parquet(path).reset_index(drop=True)
    frame.columns = frame.columns.map(str)
    frame.index += 1
    return frame


def _recording_names(frame: pd.DataFrame, path: Path) -> "pd.Series[str]":
    columns = [name for name in RECORDING if name in frame.columns]
    if not columns:
        raise UserError(
            "E_MISSING_COLUMN",
            f"{path}: there is no column {RECORDING[0]!r}, only {list_names(frame.columns, 5)}",
            "name the column of recordings so",
        )
    return frame[columns[0]].astype(str)


def _match(names: "pd.Series[str]", dataset: Dataset, path: Path) -> "pd.Series[str]":
    """The id of each row's recording, None for a recording of other data."""
    matches = RecordingMatcher(dataset.recordings).find_all(names.unique().tolist(), path)
    for name, match in matches.items():
        if isinstance(match, AmbiguousMatch):
            row = names.index[names == name][0]
            what = f"{path}:{row}: {match.reason}"
            raise UserError("E_MEMBER_TABLE", what, "write the recording's id")
    ids = {n: match.id for n, match in matches.items() if isinstance(match, Recording)}
    present = set(ids.values())
    if missing := [r.id for r in dataset.recordings if r.id not in present]:
        raise UserError(
            "E_OTHER_DATA",
            f"{path} has no scores of {len(missing)} recordings of this run, such as {missing[0]}",
            "add them, or leave the table out of pseudo.members",
        )
    return names.map(ids.get).astype(object)


def _times(frame: pd.DataFrame, path: Path) -> tuple[Floats, Floats]:
    """The stretch of each row; 0 to infinity where a row stands for its whole recording."""
    there = [name for name in TIMES if name in frame.columns]
    if not there:
        return np.zeros(len(frame)), np.full(len(frame), np.inf)
    if len(there) == 1:
        raise UserError(
            "E_MISSING_COLUMN",
            f"{path}: there is a column {there[0]!r} and no {({*TIMES} - {*there}).pop()!r}",
            "give both, or neither for scores of whole recordings",
        )
    start, stop = (_numbers(frame[name]) for name in TIMES)
    if (wrong := ~((start >= 0) & (start < stop) & np.isfinite(stop))).any():
        row = frame.index[wrong][0]
        raise UserError(
            "E_MEMBER_TABLE",
            f"{path}:{row}: {frame.loc[row, TIMES[0]]!r} to {frame.loc[row, TIMES[1]]!r} is no "
            "stretch of a recording",
            "write seconds from the start of the file",
        )
    return start, stop


def _numbers(cells: "pd.Series[str]") -> Floats:
    return np.asarray(pd.to_numeric(cells, errors="coerce"), dtype=float)


def _scores(frame: pd.DataFrame, dataset: Dataset, path: Path) -> Floats:
    """The probabilities (rows, classes)."""
    columns = [str(name) for name in frame.columns if name not in COLUMNS]
    named = pd.DataFrame(columns=species_of_columns(columns, COLUMNS))
    located = locate_species(named, dataset.classes.names)
    missing = [n for n, at in zip(dataset.classes.names, located, strict=True) if at is None]
    if missing:
        raise UserError(
            "E_OTHER_DATA",
            f"{path} has no column of the species {list_names(missing, 3)}; it has "
            f"{list_names(columns, 3)}",
            "name its columns like the species of this run",
        )
    values = []
    for name, at in zip(dataset.classes.names, located, strict=True):
        cells = frame[columns[at or 0]]
        value = _numbers(cells)
        if (wrong := ~((value >= 0) & (value <= 1))).any():
            raise UserError(
                "E_SCORE_VALUE",
                f"{path}:{frame.index[wrong][0]}: {cells[wrong].iloc[0]!r} for {name} is no "
                "probability",
                "convert its scores to 0 to 1",
            )
        values.append(value)
    return np.stack(values, axis=1)


def _trained_on(
    frame: pd.DataFrame,
    ids: "pd.Series[str]",
    dataset: Dataset,
    path: Path,
    *,
    unproven: bool,
) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
    """What the model of each recording's rows was trained on, and what it is called."""
    recordings = [recording.id for recording in dataset.recordings]
    trained_on: dict[str, frozenset[str]] = dict.fromkeys(recordings, frozenset())
    sources = dict.fromkeys(recordings, path.name)
    if not {*PROOFS} & {*frame.columns}:
        if not unproven:
            raise UserError(
                "E_MEMBER_UNPROVEN",
                f"{path}: nothing shows that its model did not train on the recordings it scores",
                "add a column fold or trained_on, or set pseudo.unproven_members = true if you "
                "know that it did not",
            )
        return trained_on, dict.fromkeys(recordings, f"{path.name} (unproven)")
    if "fold" in frame.columns:
        folds = _folds(frame["fold"], ids, path)
        sources = {id: f"{path.name}/fold{fold}" for id, fold in folds.items()}
        outside = {
            fold: frozenset(id for id, own in folds.items() if own != fold)
            for fold in set(folds.values())
        }
        trained_on = {id: outside[fold] for id, fold in folds.items()}
    if "trained_on" in frame.columns:
        lists = _trained_on_lists(frame["trained_on"], ids, dataset, path)
        trained_on = {id: trained_on[id] | lists.get(id, frozenset()) for id in recordings}
    return trained_on, sources


def _folds(cells: "pd.Series[str]", ids: "pd.Series[str]", path: Path) -> dict[str, str]:
    """The one fold of each recording."""
    folds: dict[str, str] = {}
    for row, id, cell in zip(cells.index, ids, cells, strict=True):
        fold = "" if pd.isna(cell) else str(cell).strip()
        if not fold or folds.setdefault(id, fold) != fold:
            text = f"is also in fold {folds[id]}" if fold else "has no fold"
            raise UserError(
                "E_MEMBER_UNPROVEN",
                f"{path}:{row}: {id} {text}",
                "write the fold that the recording was held out in, the same in all of its rows",
            )
    if len(set(folds.values())) < 2:
        raise UserError(
            "E_MEMBER_UNPROVEN",
            f"{path}: all recordings are in one fold, which shows nothing",
            "write the fold that each was held out in, or use a column trained_on",
        )
    return folds


def _trained_on_lists(
    cells: "pd.Series[str]", ids: "pd.Series[str]", dataset: Dataset, path: Path
) -> dict[str, frozenset[str]]:
    """The recordings of this run that each recording's models were trained on."""
    matcher = RecordingMatcher(dataset.recordings)
    known: dict[str, frozenset[str]] = {}
    lists: dict[str, frozenset[str]] = {}
    for row, id, cell in zip(cells.index, ids, cells, strict=True):
        text = "" if pd.isna(cell) else str(cell)
        if text not in known:
            names = [name.strip() for name in text.split(";") if name.strip()]
            known[text] = _ids_of(matcher.find_all(names, path))
        if id in known[text]:
            raise UserError(
                "E_MEMBER_UNPROVEN",
                f"{path}:{row}: the model trained on {id}, which it scores",
                "use scores of a model that did not",
            )
        lists[id] = lists.get(id, frozenset()) | known[text]
    return lists


def _ids_of(matches: Mapping[str, object]) -> frozenset[str]:
    return frozenset(match.id for match in matches.values() if isinstance(match, Recording))


def _check_rows(recording: Recording, start: Floats, stop: Floats, path: Path) -> None:
    """Raise UserError for doubled rows, and for gaps as long as the recording's longest row.

    Shorter ones may be what is left at the end of a recording that is divided into stretches.
    """
    if ((start[1:] == start[:-1]) & (stop[1:] == stop[:-1])).any():
        raise UserError(
            "E_MEMBER_TABLE",
            f"{path}: {recording.id} has two rows for one stretch",
            "keep one of them",
        )
    ends = np.maximum.accumulate(np.append(0.0, stop))
    gaps = np.append(start, recording.duration) - ends
    if (wrong := gaps > np.max(stop - start) - TOLERANCE).any():
        at = int(np.flatnonzero(wrong)[0])
        raise UserError(
            "E_MEMBER_TABLE",
            f"{path}: there are no scores of {recording.id} from {ends[at]:g} s for {gaps[at]:g} s",
            "add rows for all of the recording",
        )
