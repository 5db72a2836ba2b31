"""Tables in text files, and the table of prevalences.

- Every cell is read as text: an id such as ``00204008`` or a label ``NA`` must not become a number
  or a gap. The caller converts the columns it knows.
- The index of a table is the line in the file (header: 1), so that a message can name it, also
  after blank lines and line breaks inside quotes.
- A row with too few or too many cells is an error: cells that moved by one column would be read
  wrongly without notice. Empty cells after the last column come from spreadsheets and are ignored.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.errors import UserError
from antpitta.files.texts import read_text, write_text

_SEPARATORS = ("\t", ";", ",")
_LONGEST_CELL = 10_000_000  # characters; the csv module's default refuses long comments


def read_frame(path: Path) -> pd.DataFrame:
    """Read a table.

    The separator (comma, semicolon or tab) is taken from the header. Blanks around cells are
    removed. A header without rows is an empty table.

    Parameters
    ----------
    path : of the table

    Returns
    -------
    Strings ("" for empty cells), indexed by the line in the file.

    Raises
    ------
    UserError
        E_CANNOT_READ, E_NOT_TEXT, E_TABLE_EMPTY, E_DUPLICATE_COLUMN for a column named twice,
        E_TABLE_ROW for a row with the wrong number of cells or wrong quotes.
    """
    text = read_text(path)
    rows = _rows(text, path)
    first, header = next(rows, (0, []))
    if not header:
        raise UserError(
            "E_TABLE_EMPTY", f"{path}: the table is empty", "give a table with a header line"
        )
    while header and not header[-1]:
        header.pop()
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise UserError(
            "E_DUPLICATE_COLUMN",
            f"{path}:{first}: two columns are named {twice[0]!r}",
            "rename one of them",
        )
    width, lines, cells = len(header), [], []
    for line, row in rows:
        if len(row) < width or any(row[width:]):
            raise UserError(
                "E_TABLE_ROW",
                f"{path}:{line}: {len(row)} cells for {width} columns",
                "correct the row (a missing or extra separator or quote)",
            )
        lines.append(line)
        cells.append(row[:width])
    names = [name or f"column {i}" for i, name in enumerate(header, start=1)]
    index = pd.Index(lines, name="line", dtype=np.int64)
    return pd.DataFrame(cells, index=index, columns=names, dtype=object)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table without its index, comma-separated, as UTF-8.

    Parameters
    ----------
    frame : the table
    path : of the file
    """
    write_text(frame.to_csv(index=False, lineterminator="\n"), path)


def _rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line it begins on."""
    beginning = text[:6].splitlines()[0].lower() if text else ""
    spreadsheet = len(beginning) == 5 and beginning.startswith("sep=")  # Excel's first line
    separator = beginning[-1] if spreadsheet else _separator(text)
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells) and not (line == 1 and spreadsheet):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            "E_TABLE_ROW", f"{path}:{line}: {error}", "correct the quotes of this row"
        ) from error


def _separator(text: str) -> str:
    """The most frequent separator of the first line with text, outside quotes."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    unquoted = "".join(header.split('"')[::2])
    return max(_SEPARATORS, key=lambda mark: (unquoted.count(mark), mark == ","))


def write_prevalence(
    species: tuple[str, ...], prevalence: NDArray[np.floating], path: Path
) -> None:
    """Write the table that `predict --prevalence` takes: species, prevalence.

    Parameters
    ----------
    species : names
    prevalence : (species,), share of the recordings that contain each
    path : of the table
    """
    rounded = prevalence.astype(float).round(6)
    write_csv(pd.DataFrame({"species": species, "prevalence": rounded}), path)


def read_prevalence(path: Path, species: tuple[str, ...]) -> NDArray[np.float64]:
    """Read a table of prevalences.

    Parameters
    ----------
    path : of the table
    species : names of the model's species

    Returns
    -------
    (species,), NaN for species that the table leaves out.

    Raises
    ------
    UserError
        E_MISSING_COLUMN, E_PREVALENCE_VALUE outside 0 to 1, E_PREVALENCE_SPECIES without a species
        of the model.
    """
    table = read_frame(path)
    if missing := {"species", "prevalence"} - set(table.columns):
        raise UserError(
            "E_MISSING_COLUMN",
            f"{path}: there is no column {sorted(missing)[0]!r}",
            "give the columns species and prevalence",
        )
    prevalence = pd.to_numeric(table["prevalence"], errors="coerce")
    wrong = ~prevalence.between(0, 1)
    if wrong.any():
        line, text = wrong.idxmax(), table["prevalence"][wrong].iloc[0]
        raise UserError(
            "E_PREVALENCE_VALUE",
            f"{path}:{line}: prevalence {text!r} is not between 0 and 1",
            "write the share of recordings that contain the species",
        )
    by_name = dict(zip(table["species"], prevalence, strict=True))
    if not set(by_name) & set(species):
        raise UserError(
            "E_PREVALENCE_SPECIES",
            f"{path}: the table names none of the model's species, such as {species[0]}",
            "name the species as the model does",
        )
    return np.array([by_name.get(name, np.nan) for name in species], dtype=np.float64)
