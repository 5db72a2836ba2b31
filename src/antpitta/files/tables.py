"""Tables, in and out, however a table was saved.

- Every cell is read as text. An id such as ``00204008`` or a label ``NA`` must not turn into a
  number or a gap; whoever knows the column turns it into what it means.
- The index of a frame is the line of the file (header: 1), so that a finding can name it even
  where blank lines or line breaks inside quotes come before.
- A row with too few or too many cells is an error, not a guess: cells moved by one column read
  as nonsense that looks right. Empty cells past the last column are a spreadsheet's, and go.

How often each species is there, as a table: species, prevalence.
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
_LONGEST_CELL = 10_000_000  # characters; the csv module's own limit refuses long comments


def read_frame(path: Path) -> pd.DataFrame:
    """The table at ``path``, every cell a string ("" where empty), indexed by line number.

    Comma, semicolon or tab, as the header tells; header and cells come without surrounding
    blanks. A header without rows is a table of no rows. Raises UserError where the file
    is missing, empty, ragged, no text, or names a column twice.
    """
    text = read_text(path)
    rows = _rows(text, path)
    first, header = next(rows, (0, []))
    if not header:
        raise UserError("E_TODO", f"{path}: the table is empty", "give one with a header line")
    while header and not header[-1]:
        header.pop()
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise UserError("E_TODO", f"{path}:{first}: column {twice[0]!r} stands twice", "rename one")
    width, lines, cells = len(header), [], []
    for line, row in rows:
        if len(row) < width or any(row[width:]):
            raise UserError(
                "E_TODO",
                f"{path}:{line}: {len(row)} cells under {width} columns",
                "mend the row (a separator or a quote too many or too few)",
            )
        lines.append(line)
        cells.append(row[:width])
    names = [name or f"column {i}" for i, name in enumerate(header, start=1)]
    index = pd.Index(lines, name="line", dtype=np.int64)
    return pd.DataFrame(cells, index=index, columns=names, dtype=object)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """The frame without its index, UTF-8, comma-separated, in one step."""
    write_text(frame.to_csv(index=False, lineterminator="\n"), path)


def _rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold anything, each with the line it begins on."""
    told = text[:6].splitlines()[0].lower() if text else ""
    spreadsheet = len(told) == 5 and told.startswith("sep=")  # Excel's own first line
    separator = told[-1] if spreadsheet else _separator(text)
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells) and not (line == 1 and spreadsheet):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as trouble:
        raise UserError(
            "E_TODO", f"{path}:{line}: {trouble}", "mend the quotes of this row"
        ) from trouble


def _separator(text: str) -> str:
    """The one that the first line with any text holds most of, outside quotes."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    bare = "".join(header.split('"')[::2])
    return max(_SEPARATORS, key=lambda mark: (bare.count(mark), mark == ","))


def write_prevalence(species: tuple[str, ...], share: NDArray[np.floating], path: Path) -> None:
    """The share of recordings (species,) that each is in. Estimated out of fold, it is what
    `predict --prevalence` takes for more sound of the same place and season.
    """
    shares = share.astype(float).round(6)
    write_csv(pd.DataFrame({"species": species, "prevalence": shares}), path)


def read_prevalence(path: Path, species: tuple[str, ...]) -> NDArray[np.float64]:
    """The expected shares in the order of ``species``; NaN for those the table leaves out.

    Raises UserError for missing columns, a share outside 0..1, or no known species.
    """
    table = read_frame(path)
    if missing := {"species", "prevalence"} - set(table.columns):
        raise UserError(
            "E_TODO", f"{path}: no column {sorted(missing)[0]!r}", "give species,prevalence"
        )
    shares = pd.to_numeric(table["prevalence"], errors="coerce")
    wrong = ~shares.between(0, 1)
    if wrong.any():
        raise UserError(
            "E_TODO", f"{path}:{wrong.idxmax()}: prevalence is no share", "write 0 to 1"
        )
    given = dict(zip(table["species"], shares, strict=True))
    if not set(given) & set(species):
        raise UserError(
            "E_TODO", f"{path}: none of the model's species, such as {species[0]}", "name those"
        )
    return np.array([given.get(name, np.nan) for name in species], dtype=np.float64)
