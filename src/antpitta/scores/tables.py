"""Tables of scores that anyone may have written: ``recording_id``, then one column per species.

Such tables come from spreadsheets and from other people's models. Columns are found by name and
rows by id, never by position, and whatever is missing, doubled or not a number is an error that
names it. Columns and rows that were not asked for are left out.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pandas as pd

from antpitta.core.errors import UserError
from antpitta.scores.metrics import Floats

KEY = "recording_id"
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
    shown = ", ".join(sorted(names)[:SHOWN])
    return f"{shown}{', ...' if len(names) > SHOWN else ''} ({len(names)})"


def index_by_recording(frame: pd.DataFrame, title: str) -> pd.DataFrame:
    """The table with its recordings as index and every name as text.

    Parameters
    ----------
    frame : ``recording_id``, then one column per species
    title : what a message calls the table

    Returns
    -------
    indexed : one column per species

    Raises
    ------
    UserError
        E_SCORE_TABLE for a table without ``recording_id``, and for ids or columns that are missing
        or occur twice.
    """
    named = frame.rename(columns=lambda name: str(name).strip())
    if KEY not in named.columns:
        names = [str(name) for name in named.columns]
        raise UserError(
            "E_SCORE_TABLE",
            f"{title} has no column {KEY}, only {sample_names(names) if names else 'no column'}",
            f"name the column of recordings {KEY}",
        )
    if doubled := set(named.columns[named.columns.duplicated()]):
        raise UserError(
            "E_SCORE_TABLE",
            f"{title} has columns twice: {sample_names(doubled)}",
            "keep one of each",
        )
    if named[KEY].isna().any():
        raise UserError(
            "E_SCORE_TABLE",
            f"{title} has {int(named[KEY].isna().sum())} rows without {KEY}",
            "add the ids, or remove these rows",
        )
    named = named.assign(**{KEY: named[KEY].astype(str)}).set_index(KEY)
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
    if missing := [name for name in columns if name not in frame.columns]:
        raise UserError(
            "E_SCORES_MISSING",
            f"{title} lacks the species {sample_names(missing)}",
            "add their columns",
        )
    if missing := [name for name in recordings if name not in frame.index]:
        raise UserError(
            "E_SCORES_MISSING", f"{title} lacks the recordings {sample_names(missing)}", "add them"
        )
    numbers = numeric_scores(frame.loc[list(recordings), columns], title)
    if not np.isfinite(numbers).all():
        row, column = np.argwhere(~np.isfinite(numbers))[0]
        raise UserError(
            "E_SCORE_VALUE",
            f"{title} has no finite number for {columns[column]} in {recordings[row]}",
            "write a finite number in every cell",
        )
    return numbers


def numeric_scores(frame: pd.DataFrame, title: str) -> Floats:
    """Every value of an indexed table as a number, blank cells as NaN.

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
    for name in frame.columns:
        numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(float, na_value=np.nan)
        if (bad := np.isnan(numbers) & frame[name].notna().to_numpy()).any():
            row = int(np.flatnonzero(bad)[0])
            raise UserError(
                "E_SCORE_VALUE",
                f"{title} has {frame[name].iloc[row]!r} for {name} in {frame.index[row]}",
                "write a number",
            )
        columns.append(numbers)
    return np.stack(columns, axis=1) if columns else np.empty((len(frame), 0))
