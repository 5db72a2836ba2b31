"""Texts and other small files, in and out: whatever encoding they have, and never half written.

Writing goes through a temporary sibling and ``os.replace``: a reader, or a run that was killed,
never meets half a file.
"""

import codecs
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

from antpitta.core.errors import UserError

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{12}(\.\w+)?")  # the siblings that `replacing` hands out


def read_text(path: Path) -> str:
    """The text of a file in whatever encoding it was saved; raises UserError if it is none.

    UTF-8 with or without a mark, UTF-16 with or without, else the Windows code page, else
    Latin-1, which can read any byte.
    """
    try:
        raw = path.read_bytes()
    except OSError as trouble:
        reason = trouble.strerror or str(trouble)
        raise UserError(
            "E_TODO", f"{path}: cannot be read ({reason})", "check the path"
        ) from trouble
    if raw.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UserError(
            "E_TODO", f"{path}: a spreadsheet or archive, not text", "save the table as CSV"
        )
    for encoding in _encodings(raw):
        try:
            text = raw.decode(encoding)
        except UnicodeError:
            continue
        if "\0" in text:
            raise UserError("E_TODO", f"{path}: not a text file", "give the table as CSV")
        return text
    raise UserError("E_TODO", f"{path}: its characters cannot be read", "save the table as UTF-8")


def write_json(value: object, path: Path) -> None:
    """Plain JSON; numpy, paths, dates and dataclasses included, NaN and infinity as null."""
    write_text(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n", path)


def read_json(path: Path) -> dict[str, Any]:
    """What a file of JSON holds, {} where there is none; raises UserError if it is no object."""
    if not path.exists():
        return {}
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as trouble:
        raise UserError(
            "E_TODO", f"{path}:{trouble.lineno}: {trouble.msg}", "mend or delete it"
        ) from None
    if not isinstance(found, dict):
        raise UserError("E_TODO", f"{path}: holds no JSON object", "mend or delete it")
    return found


def write_text(text: str, path: Path) -> None:
    """UTF-8 with plain line ends, in one step."""
    with atomic_replace(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def write_picture(value: bytes, path: Path) -> None:
    """A picture that was drawn, in one step."""
    with atomic_replace(path) as unfinished:
        unfinished.write_bytes(value)


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
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


def remove_unfinished(folder: Path) -> None:
    """Clear away what writers that were killed inside :func:`atomic_replace` left in a folder."""
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
