"""Tables of scores that anyone may have written: ``recording_id``, then one column per species.

Such tables come from spreadsheets and from other people's models. Columns are found by name and
rows by id (core/identity.py), never by position, and whatever is missing, doubled or not a number
is an error that names it. Columns and rows that were not asked for are left out. An id that is
there in the same letters is taken before one in another spelling.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
import pandas as pd

from antpitta.core.errors import UserError, cut_name
from antpitta.core.identity import recording_key, species_key, species_of_columns
from antpitta.scores.metrics import Floats

KEY = "recording_id"
UNKNOWN = ("", "na", "nan")  # cells without a number, in small letters
SHOWN = 3  # names in an error message; the rest is only counted


def sample_names(names: Collection[str]) -> str:
    """The first few names and how many there are, for a message.

    >>> sample_names(["a", "b", "c", "d"])
    'a, b, c, ... (4)'

    Parameters
    ----------
    names : in any order

    Returns
    -------
    text : one line
    """
    shown = ", ".join(cut_name(name, 80) for name in sorted(names)[:SHOWN])
    return f"{shown}{', ...' if len(names) > SHOWN else ''} ({len(names)})"


def index_by_recording(frame: pd.DataFrame, title: str) -> pd.DataFrame:
    """The table with its recordings as index and every name as text.

    Parameters
    ----------
    frame : ``recording_id``, then one column per species
    title : what a message calls the table

    Returns
    -------
    indexed : one column per species; blank cells are NaN

    Raises
    ------
    UserError
        E_SCORE_TABLE for a table without ``recording_id``, and for ids or columns that are missing
        or occur twice.
    """
    named = frame.rename(columns=lambda name: str(name).strip())
    if KEY not in named.columns:
        columns = [str(name) for name in named.columns]
        raise UserError(
            "E_SCORE_TABLE",
            f"{title} has no column {KEY}, only {sample_names(columns) if columns else 'none'}",
            f"name the column of recordings {KEY}",
        )
    names = pd.Index(species_of_columns(named.columns.drop(KEY), (KEY,)), dtype=object)
    if doubled := {*named.columns[named.columns.duplicated()]} or _doubled(names, species_key):
        raise UserError(
            "E_SCORE_TABLE",
            f"{title} has columns twice: {sample_names(doubled)}",
            "keep one of each",
        )
    named = named.replace("", np.nan)
    if blank := int(named[KEY].isna().sum()):
        raise UserError(
            "E_SCORE_TABLE",
            f"{title} has {blank} rows without {KEY}",
            "add the ids, or remove these rows",
        )
    named = named.assign(**{KEY: named[KEY].astype(str)}).set_index(KEY)
    named.columns = names
    if doubled := set(named.index[named.index.duplicated()]):
        raise UserError(
            "E_SCORE_TABLE",
            f"{title} has recordings twice: {sample_names(doubled)}",
            "keep one row of each",
        )
    return named


def select_scores(
    frame: pd.DataFrame, recordings: Sequence[str], species: Iterable[str], title: str
) -> Floats:
    """The numbers of an indexed table, in the order asked for.

    Parameters
    ----------
    frame : a table from :func:`index_by_recording`
    recordings : (recordings,), ids
    species : names of the columns
    title : what a message calls the table

    Returns
    -------
    scores : (recordings, species)

    Raises
    ------
    UserError
        E_SCORES_MISSING for a recording or species that the table lacks, E_SCORE_VALUE for a
        value that is not a finite number.
    """
    columns = list(species)
    positions = locate_species(frame, columns)
    if missing := [name for name, column in zip(columns, positions, strict=True) if column is None]:
        raise UserError(
            "E_SCORES_MISSING",
            f"{title} lacks the species {sample_names(missing)}",
            "add their columns",
        )
    rows = locate_recordings(frame, recordings)
    if missing := [name for name, row in zip(recordings, rows, strict=True) if row is None]:
        raise UserError(
            "E_SCORES_MISSING", f"{title} lacks the recordings {sample_names(missing)}", "add them"
        )
    selected = frame.take(np.array(rows, dtype=int)).take(np.array(positions, dtype=int), axis=1)
    numbers = numeric_scores(selected, title)
    if not np.isfinite(numbers).all():
        row, column = np.argwhere(~np.isfinite(numbers))[0]
        raise UserError(
            "E_SCORE_VALUE",
            f"{title} has no finite number for {columns[column]} in {recordings[row]}",
            "write a finite number in every cell",
        )
    return numbers


def blank_species(frame: pd.DataFrame, species: Iterable[str]) -> tuple[str, ...]:
    """The species whose column is blank in every row, as one that was not learnable is.

    Parameters
    ----------
    frame : a table from :func:`index_by_recording`
    species : names to look for

    Returns
    -------
    names : of those that have a column without a value
    """
    names = list(species)
    places = zip(names, locate_species(frame, names), strict=True)
    return tuple(
        name
        for name, at in places
        if at is not None
        and len(frame)
        and (frame.iloc[:, at].isna() | (frame.iloc[:, at].astype(str).str.strip() == "")).all()
    )


def locate_species(frame: pd.DataFrame, species: Iterable[str]) -> list[int | None]:
    """The column of each species of an indexed table.

    Parameters
    ----------
    frame : a table from :func:`index_by_recording`
    species : their names

    Returns
    -------
    columns : positions; None for a species without a column
    """
    return locate_names([str(name) for name in frame.columns], species, species_key)


def locate_recordings(frame: pd.DataFrame, recordings: Iterable[str]) -> list[int | None]:
    """The row of each recording of an indexed table.

    Parameters
    ----------
    frame : a table from :func:`index_by_recording`
    recordings : their ids

    Returns
    -------
    rows : positions; None for a recording without a row, or with one in two other spellings
    """
    return locate_names([str(name) for name in frame.index], recordings, recording_key)


def locate_names(
    names: Sequence[str], wanted: Iterable[str], key: Callable[[str], str]
) -> list[int | None]:
    """The position of each wanted name: in the same letters, else with an equal key.

    Parameters
    ----------
    names : to look in
    wanted : to look for
    key : what two spellings of a name have in common

    Returns
    -------
    positions : None for a name that is not there, or there in two other spellings
    """
    exact = {name: i for i, name in enumerate(names)}
    by_key: dict[str, int | None] = {}
    for i, name in enumerate(names):
        by_key[key(name)] = None if key(name) in by_key else i
    return [exact[name] if name in exact else by_key.get(key(name)) for name in wanted]


def _doubled(names: Iterable[str], key: Callable[[str], str]) -> set[str]:
    """The names whose key another name has."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return {name for group in groups.values() if len(group) > 1 for name in group}


def numeric_scores(frame: pd.DataFrame, title: str) -> Floats:
    """Every value of an indexed table as a number; blank cells, and ``NA``, as NaN.

    Parameters
    ----------
    frame : a table from :func:`index_by_recording`
    title : what a message calls the table

    Returns
    -------
    scores : (recordings, species)

    Raises
    ------
    UserError
        E_SCORE_VALUE for text that is not a number.
    """
    columns = []
    for name, cells in frame.items():
        numbers = pd.to_numeric(cells, errors="coerce").to_numpy(float, na_value=np.nan)
        unknown = cells.isna() | cells.astype(str).str.strip().str.lower().isin(UNKNOWN)
        if (bad := np.isnan(numbers) & ~unknown.to_numpy()).any():
            row = int(np.flatnonzero(bad)[0])
            raise UserError(
                "E_SCORE_VALUE",
                f"{title} has {cells.iloc[row]!r} for {name} in {frame.index[row]}",
                "write a number",
            )
        columns.append(numbers)
    return np.stack(columns, axis=1) if columns else np.empty((len(frame), 0))
