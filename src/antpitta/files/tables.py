"""Tables and texts, in and out: however a table was saved, and never half written.

- Every cell is read as text. An id such as ``00204008`` or a label ``NA`` must not turn into a
  number or a gap; whoever knows the column turns it into what it means.
- The index of a frame is the line of the file (header: 1), so that a finding can name it even
  where blank lines or line breaks inside quotes come before.
- A row with too few or too many cells is an error, not a guess: cells moved by one column read
  as nonsense that looks right. Empty cells past the last column are a spreadsheet's, and go.
- Writing goes through a temporary sibling and ``os.replace``: a reader, or a run that was
  killed, never meets half a file.
"""

import codecs
import csv
import io
import json
import math
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from antpitta.core.errors import UserMistake

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATORS = ("\t", ";", ",")
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{12}(\.\w+)?")  # the siblings that `replacing` hands out
_LONGEST_CELL = 10_000_000  # characters; the csv module's own limit refuses long comments


def read_frame(path: Path) -> pd.DataFrame:
    """The table at ``path``, every cell a string ("" where empty), indexed by line number.

    Comma, semicolon or tab, as the header tells; header and cells come without surrounding
    blanks. A header without rows is a table of no rows. Raises UserMistake where the file
    is missing, empty, ragged, no text, or names a column twice.
    """
    text = read_text(path)
    rows = _rows(text, path)
    first, header = next(rows, (0, []))
    if not header:
        raise UserMistake(f"{path}: the table is empty; give one with a header line")
    while header and not header[-1]:
        header.pop()
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise UserMistake(f"{path}:{first}: column {twice[0]!r} stands twice; rename one")
    width, lines, cells = len(header), [], []
    for line, row in rows:
        if len(row) < width or any(row[width:]):
            raise UserMistake(
                f"{path}:{line}: {len(row)} cells under {width} columns; mend the row"
                " (a separator or a quote too many or too few)"
            )
        lines.append(line)
        cells.append(row[:width])
    names = [name or f"column {i}" for i, name in enumerate(header, start=1)]
    index = pd.Index(lines, name="line", dtype=np.int64)
    return pd.DataFrame(cells, index=index, columns=names, dtype=object)


def read_text(path: Path) -> str:
    """The text of a file in whatever encoding it was saved; raises UserMistake if it is none.

    UTF-8 with or without a mark, UTF-16 with or without, else the Windows code page, else
    Latin-1, which can read any byte.
    """
    try:
        raw = path.read_bytes()
    except OSError as trouble:
        reason = trouble.strerror or str(trouble)
        raise UserMistake(f"{path}: cannot be read ({reason}); check the path") from trouble
    if raw.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UserMistake(f"{path}: a spreadsheet or archive, not text; save the table as CSV")
    for encoding in _encodings(raw):
        try:
            text = raw.decode(encoding)
        except UnicodeError:
            continue
        if "\0" in text:
            raise UserMistake(f"{path}: not a text file; give the table as CSV")
        return text
    raise UserMistake(f"{path}: its characters cannot be read; save the table as UTF-8")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """The frame without its index, UTF-8, comma-separated, in one step."""
    write_text(frame.to_csv(index=False, lineterminator="\n"), path)


def write_json(value: object, path: Path) -> None:
    """Plain JSON; numpy, paths, dates and dataclasses included, NaN and infinity as null."""
    write_text(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n", path)


def read_json(path: Path) -> dict[str, Any]:
    """What a file of JSON holds, {} where there is none; raises UserMistake if it is no object."""
    if not path.exists():
        return {}
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as trouble:
        raise UserMistake(f"{path}:{trouble.lineno}: {trouble.msg}; mend or delete it") from None
    if not isinstance(found, dict):
        raise UserMistake(f"{path}: holds no JSON object; mend or delete it")
    return found


def write_text(text: str, path: Path) -> None:
    """UTF-8 with plain line ends, in one step."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def write_picture(value: bytes, path: Path) -> None:
    """A picture that was drawn, in one step."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(value)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Hands out a temporary sibling that takes the place of ``path`` once the block is done.

    For any writer (parquet, safetensors, pictures); the sibling keeps the suffix. After an
    error inside the block ``path`` is as it was. Folders on the way are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        yield unfinished
        with unfinished.open("rb+") as written:
            os.fsync(written.fileno())  # else a power cut can leave the new name on no bytes
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Clear away what writers that were killed inside :func:`replacing` left in a folder."""
    for path in folder.glob(".*"):
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _encodings(raw: bytes) -> list[str]:
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return [encoding]
    head = raw[:4096]
    if head.count(0) > len(head) // 4:  # half of plain text in UTF-16 is zeros
        return ["utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"]
    return ["utf-8", "cp1252", "latin-1"]


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
        raise UserMistake(f"{path}:{line}: {trouble}; mend the quotes of this row") from trouble


def _separator(text: str) -> str:
    """The one that the first line with any text holds most of, outside quotes."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    bare = "".join(header.split('"')[::2])
    return max(_SEPARATORS, key=lambda mark: (bare.count(mark), mark == ","))


def _plain(value: Any) -> Any:
    """The same value in what JSON knows."""
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set) else value)]
    if isinstance(value, np.ndarray | np.generic):
        value = _plain(value.tolist())
    elif is_dataclass(value) and not isinstance(value, type):
        value = _plain(asdict(value))
    elif isinstance(value, Path | date):
        value = value.as_posix() if isinstance(value, Path) else value.isoformat()
    return value
