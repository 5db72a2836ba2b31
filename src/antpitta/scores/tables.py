"""Wide score tables, as anyone writes them: ``recording_id``, then one column a species.

Such tables come from spreadsheets and other people's models, so nothing is trusted: columns
go by name and rows by id, never by position, and whatever is missing, doubled or not a
number is an error that names it. What nobody asked for is left out, and can be counted.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pandas as pd

from antpitta.core.errors import UserError
from antpitta.scores.metrics import Floats

KEY = "recording_id"
SHOWN = 3  # names in an error, before the rest is only counted


def list_names(names: Collection[str]) -> str:
    """The first few names and how many there are, for an error in one line.

    >>> some(["a", "b", "c", "d"])
    'a, b, c, ... (4)'
    """
    shown = ", ".join(sorted(names)[:SHOWN])
    return f"{shown}{', ...' if len(names) > SHOWN else ''} ({len(names)})"


def index_by_recording(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """The table with its recordings as index and every name as text.

    A reader that took ids for numbers is forgiven; ids that occur twice, no id at all, and
    columns that occur twice are the user's to mend.
    """
    named = frame.rename(columns=lambda name: str(name).strip())
    if KEY not in named.columns:
        have = (
            list_names([str(name) for name in named.columns]) if len(named.columns) else "no column"
        )
        raise UserError(
            "E_TODO", f"{what} has no column {KEY}, only {have}", "name the recordings' column"
        )
    if doubled := set(named.columns[named.columns.duplicated()]):
        raise UserError(
            "E_TODO", f"{what} has two columns of one name: {list_names(doubled)}", "keep one"
        )
    if named[KEY].isna().any():
        rows = int(named[KEY].isna().sum())
        raise UserError(
            "E_TODO", f"{what} has rows without {KEY} ({rows})", "fill them in or drop them"
        )
    named = named.assign(**{KEY: named[KEY].astype(str)}).set_index(KEY)
    if doubled := set(named.index[named.index.duplicated()]):
        raise UserError(
            "E_TODO",
            f"{what} has recordings in two rows: {list_names(doubled)}",
            "keep one row each",
        )
    return named


def select_scores(
    frame: pd.DataFrame, recordings: Sequence[str], species: Iterable[str], what: str
) -> Floats:
    """The numbers of an indexed table: (recordings, species), in the order asked for.

    Raises UserError for a recording or species that is not there and for any value that
    is no finite number.
    """
    columns = list(species)
    if gone := [name for name in columns if name not in frame.columns]:
        raise UserError("E_TODO", f"{what} lacks species {list_names(gone)}", "add these columns")
    if gone := [name for name in recordings if name not in frame.index]:
        raise UserError("E_TODO", f"{what} lacks recordings {list_names(gone)}", "add these rows")
    numbers = numeric_scores(frame.loc[list(recordings), columns], what)
    if not np.isfinite(numbers).all():
        row, column = np.argwhere(~np.isfinite(numbers))[0]
        where = f"recording {recordings[row]}, species {columns[column]}"
        raise UserError(
            "E_TODO", f"{what} holds no finite number at {where}", "every score must be one"
        )
    return numbers


def numeric_scores(frame: pd.DataFrame, what: str) -> Floats:
    """Every value as a float, blank as NaN; UserError for text that is no number."""
    columns = []
    for name in frame.columns:
        numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(float, na_value=np.nan)
        if (bad := np.isnan(numbers) & frame[name].notna().to_numpy()).any():
            row = int(np.flatnonzero(bad)[0])
            where = f"recording {frame.index[row]}, species {name}"
            raise UserError(
                "E_TODO", f"{what} holds {frame[name].iloc[row]!r} at {where}", "write a number"
            )
        columns.append(numbers)
    return np.stack(columns, axis=1) if columns else np.empty((len(frame), 0))
