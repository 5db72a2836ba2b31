"""Tables in text files, and the table of prevalences.

- Every cell is read as text: an id such as ``00204008`` or a label ``NA`` must not become a number
  or a gap. The caller converts the columns it knows.
- The index of a table is the line in the file (header: 1), so that a message can name it, also
  after blank lines and line breaks inside quotes.
- A row with too few or too many cells is an error: cells that moved by one column would be read
  wrongly without notice. Empty cells after the last column come from spreadsheets and are ignored.
- Tab-separated tables are those of Raven, which leaves out the tabs of empty last cells and quotes
  nothing: short rows are filled, and a quote mark is a character. Only a whole cell in quotes, as
  spreadsheets write it, loses them.
- In the other tables a cell in quotes may span lines. If the lines in it could be rows, it is
  doubted: a single quote mark would swallow them.
"""

import csv
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.errors import UserError
from antpitta.core.identity import species_key
from antpitta.files.texts import first_line, read_text, write_text

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SEPARATORS = ("\t", ";", ",")
_MAX_KNOWN = 100_000  # different cells of a column that are kept to be shared
_LONGEST_CELL = 10_000_000  # characters; the csv module's default refuses long comments


@dataclass(frozen=True)
class Cells:
    """The cells of a table without pandas, which costs milliseconds for each small table."""

    lines: NDArray[np.int64]  # (rows,), in the file
    columns: dict[str, NDArray[np.object_]]  # name -> (rows,) strings, "" for empty cells

    def select(self, rows: NDArray[np.bool_]) -> "Cells":
        """Those of some rows.

        Parameters
        ----------
        rows : (rows,), mask

        Returns
        -------
        cells : of these rows
        """
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Cells(self.lines[rows], columns)


def read_frame(path: Path) -> pd.DataFrame:
    """Read a table, as :func:`read_cells` does, as a frame.

    Parameters
    ----------
    path : of the table

    Returns
    -------
    Strings ("" for empty cells), indexed by the line in the file.
    """
    cells = read_cells(path)
    index = pd.Index(cells.lines, name="line", dtype=np.int64)
    frame = pd.DataFrame(dict(enumerate(cells.columns.values())), index=index, dtype=object)
    frame.columns = pd.Index(list(cells.columns), dtype=object)
    return frame


def read_cells(path: Path) -> Cells:
    """Read a table.

    The separator (comma, semicolon or tab) is taken from the header. Blanks around cells are
    removed. A header without rows is an empty table.

    Parameters
    ----------
    path : of the table

    Returns
    -------
    cells : of each column, and their lines

    Raises
    ------
    UserError
        E_CANNOT_READ, E_NOT_TEXT, E_TABLE_EMPTY, E_DUPLICATE_COLUMN for a column named twice,
        E_TABLE_ROW for a row with the wrong number of cells or wrong quotes.
    """
    header, rows, padded = _open_table(path)
    names = [name or f"column {i}" for i, name in enumerate(header, start=1)]
    return collect_cells(names, _full_rows(rows, len(header), path, padded=padded))


def _full_rows(
    rows: Iterable[tuple[int, list[str]]], width: int, path: Path, *, padded: bool
) -> Iterator[tuple[int, list[str]]]:
    """The rows with a cell for each column; short ones are filled or refused."""
    for line, row in rows:
        if padded:
            row.extend([""] * (width - len(row)))
        if len(row) < width or any(row[width:]):
            raise UserError(
                "E_TABLE_ROW",
                f"{path}:{line}: {len(row)} cells for {width} columns",
                "correct the row (a missing or extra separator or quote)",
            )
        yield line, row


def collect_cells(names: Sequence[str], rows: Iterable[tuple[int, Sequence[str]]]) -> Cells:
    """The cells of rows that come one after the other.

    Parameters
    ----------
    names : of the columns
    rows : line, and a cell for each column

    Returns
    -------
    cells : of each column, and their lines
    """
    lines = array("q")
    columns: list[list[str]] = [[] for _ in names]
    # One string for all equal cells of a column, so that tables of a million rows fit.
    known: list[dict[str, str]] = [{} for _ in names]
    for line, row in rows:
        lines.append(line)
        for column, shared, cell in zip(columns, known, row, strict=False):
            share = shared.setdefault if len(shared) < _MAX_KNOWN else shared.get
            column.append(share(cell, cell))
    columns.reverse()  # each list is freed when its array is made
    arrays = {name: np.array(columns.pop(), dtype=object) for name in names}
    return Cells(np.array(lines, dtype=np.int64), arrays)


def read_header(path: Path) -> list[str]:
    """The names of a table's columns, without its rows.

    Parameters
    ----------
    path : of the table

    Returns
    -------
    names : in their order

    Raises
    ------
    UserError
        Those of :func:`read_frame` about the header.
    """
    return _open_table(path)[0]


def _open_table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]], bool]:
    """The header, the rows after it, and whether short rows are to be filled."""
    text = read_text(path)
    separator = _separator(text)
    rows = _rows(text, path, separator)
    first, header = next(rows, (0, []))
    if not header:
        raise UserError(
            "E_TABLE_EMPTY", f"{path}: the table is empty", "give a table with a header line"
        )
    while header and not header[-1]:
        header.pop()
    if twice := sorted(name for name, count in Counter(header).items() if name and count > 1):
        raise UserError(
            "E_DUPLICATE_COLUMN",
            f"{path}:{first}: two columns are named {twice[0]!r}",
            "rename one of them",
        )
    return header, rows, separator == "\t"


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table without its index, comma-separated, as UTF-8.

    Parameters
    ----------
    frame : the table
    path : of the file
    """
    text = frame.to_csv(index=False, lineterminator="\n", quoting=csv_quoting(frame))
    write_text(text, path)


def write_new_rows(rows: Iterable[Iterable[Any]], path: Path) -> None:
    """Write rows into a new file of a folder that moves when it is complete, so not atomically.

    Parameters
    ----------
    rows : the header, then the rows
    path : its folder is made if it is missing
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)


def csv_quoting(frame: pd.DataFrame) -> Literal[0, 2]:
    """Choose which cells ``to_csv`` quotes: all text where a carriage return is part of a cell.

    The csv module quotes a cell with the line end it writes and not one with a carriage return,
    at which readers would break the row.

    Parameters
    ----------
    frame : the table

    Returns
    -------
    ``csv.QUOTE_MINIMAL`` or ``csv.QUOTE_NONNUMERIC``.
    """
    numbers = frame.select_dtypes("number").columns
    texts = (frame[name] for name in frame.columns.difference(numbers, sort=False))
    broken = any("\r" in str(name) for name in frame.columns) or any(
        isinstance(cell, str) and "\r" in cell for column in texts for cell in column
    )
    return csv.QUOTE_NONNUMERIC if broken else csv.QUOTE_MINIMAL


def _rows(text: str, path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line it begins on."""
    lines = (match[0] for match in _LINE.finditer(text))
    csv.field_size_limit(_LONGEST_CELL)
    if separator == "\t":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=separator, strict=True)
    line, width = 1, 0
    try:
        for row in reader:
            if separator == "\t" and any('"' in cell for cell in row):
                row = _unquote(row, width)  # noqa: PLW2901
            cells = [cell.strip() for cell in row]
            width = width or len(row)
            if reader.line_num > line and any(_holds_row(cell, separator, width) for cell in row):
                raise UserError(
                    "E_TABLE_ROW",
                    f"{path}:{line}: a quote mark swallows the rows down to line {reader.line_num}",
                    "double the quote mark, or remove it",
                )
            if any(cells) and not (line == 1 and _is_spreadsheet(text)):
                yield line, cells
            elif line == 1:
                width = 0
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            "E_TABLE_ROW", f"{path}:{line}: {error}", "correct the quotes of this row"
        ) from error


def _unquote(row: list[str], width: int) -> list[str]:
    """The cells of a tab-separated row without the quotes that a spreadsheet put around them."""
    if len(row) > width > 0:  # a cell in quotes may hold a tab, where the row fits only so
        joined = next(csv.reader(["\t".join(row)], delimiter="\t"))
        if len(joined) == width:
            return joined
    return [_unquote_cell(cell.strip()) for cell in row]


def _unquote_cell(cell: str) -> str:
    inner = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else cell


def _holds_row(cell: str, separator: str, width: int) -> bool:
    """Whether a cell spans lines, and has as many separators as a row.

    One separator is no evidence, as a name may have it. A quote mark that swallows a row of two
    columns stands alone in its cell: it is followed by the line's end, or preceded by a separator.
    """
    if not {"\n", "\r"} & set(cell) or cell.count(separator) < width - 1 or width < 2:
        return False
    return width > 2 or cell[0] in "\r\n" or cell[-1] in f"\r\n{separator}"


def _is_spreadsheet(text: str) -> bool:
    """Whether the first line is Excel's, such as ``sep=;``."""
    first = text[:6].splitlines()[0].lower() if text else ""
    return len(first) == 5 and first.startswith("sep=")


def _separator(text: str) -> str:
    """That of Excel's first line, else the most frequent one of the header, outside quotes."""
    if _is_spreadsheet(text):
        return text[4]
    unquoted = "".join(first_line(text).split('"')[::2])
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
        E_MISSING_COLUMN, E_PREVALENCE_VALUE outside 0 to 1, E_PREVALENCE_TWICE for a species in two
        rows, E_PREVALENCE_SPECIES without a species of the model.
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
    keys = table["species"].map(species_key)
    if (twice := keys.duplicated()).any():
        line, name = twice.idxmax(), table["species"][twice].iloc[0]
        what = f"{path}:{line}: {name!r} has two prevalences"
        raise UserError("E_PREVALENCE_TWICE", what, "keep one of the rows")
    by_key = dict(zip(keys, prevalence, strict=True))
    if not set(by_key) & set(map(species_key, species)):
        raise UserError(
            "E_PREVALENCE_SPECIES",
            f"{path}: the table names none of the model's species, such as {species[0]}",
            "name the species as the model does",
        )
    return np.array([by_key.get(species_key(name), np.nan) for name in species], dtype=np.float64)
