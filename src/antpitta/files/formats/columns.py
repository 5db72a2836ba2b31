"""The names of columns, with and without units, and the names of tables."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from antpitta.core.errors import list_names
from antpitta.core.identity import clean_name

_TABLE_SUFFIXES = re.compile(
    r"(\.birdnet\.(results|selection\.table)|[._ -]selections?([._ -]table)?|\.table[._ ]?\d*"
    r"|[._ -](labels?|annotations?|audacity|raven|birdnet|hawkears|britekit|nighthawk|koogu)"
    r"|~[0-9a-f]{8})$",  # by which antpitta's exports tell names apart
    re.IGNORECASE,
)
_BRACKETS = re.compile(r"[(\[]\s*([^()\[\]]*?)\s*[)\]]\s*\*?\s*$")
_UNITS = dict.fromkeys(("s", "sec", "secs", "second", "seconds", "hz", "hertz"), 1.0)
_UNITS |= {"ms": 0.001, "khz": 1000.0}
_BRACKETED_UNITS = _UNITS | {"min": 60.0, "db": 1.0}  # t_min is no minute


def recording_from_table_name(path: Path) -> str:
    """The recording of a table that has no column for it, from the table's file name.

    ``dawn.Table.1.selections.txt`` and ``dawn.BirdNET.results.csv`` both belong to ``dawn``.

    Parameters
    ----------
    path : file of the table

    Returns
    -------
    name : of the recording
    """
    name = re.sub(r"\.(txt|csv|tsv)$", "", path.name, flags=re.IGNORECASE)
    while (shorter := _TABLE_SUFFIXES.sub("", name)) and shorter != name:
        name = shorter
    return name


def normalize_column(name: str) -> str:
    """A column's name in lower case and without its unit, its words joined by one space.

    Parameters
    ----------
    name : of a column, as a table writes it

    Returns
    -------
    name : for comparisons

    Examples
    --------
    >>> normalize_column("File Offset (s)"), normalize_column("Begin.Time..s.")
    ('file offset', 'begin time')
    """
    return split_unit(name)[0]


@lru_cache(maxsize=10_000)  # folders of tables have the same columns again and again
def split_unit(name: str) -> tuple[str, float]:
    """Split a column's name from its unit.

    Parameters
    ----------
    name : of a column, as a table writes it

    Returns
    -------
    name : for comparisons, as from :func:`normalize_column`
    factor : what a number in this unit is multiplied by to be seconds or Hz
    """
    lower, factor = clean_name(name).lower(), 1.0
    match = _BRACKETS.search(lower)
    if match and match[1] in _BRACKETED_UNITS:
        lower, factor = lower[: match.start()], _BRACKETED_UNITS[match[1]]
    words = re.findall(r"[^\W_]+", lower)
    if len(words) > 1 and words[-1] in _UNITS:
        factor *= _UNITS[words.pop()]
    return " ".join(words), factor


def has_columns(header: Sequence[str], names: Iterable[str]) -> bool:
    """Whether every one of ``names`` is among the columns.

    Parameters
    ----------
    header : names of the columns
    names : to look for

    Returns
    -------
    answer : True or False
    """
    return {normalize_column(name) for name in names} <= set(map(normalize_column, header))


def nearest_column(name: str, header: Sequence[str]) -> str:
    """``(nearest: 'tmin')``, or the columns there are: for messages about a missing column.

    Parameters
    ----------
    name : of the missing column
    header : names of the columns

    Returns
    -------
    text : in brackets
    """
    by_letters = {normalize_column(column).replace(" ", ""): column for column in header}
    close = get_close_matches(normalize_column(name).replace(" ", ""), by_letters, n=1)
    if close:
        return f"(nearest: {by_letters[close[0]]!r})"
    return f"(columns here: {list_names(header)})"
