"""Text and JSON files: read in any encoding, written completely or not at all.

Everything that is read as text goes through :func:`read_text`, which refuses what is no regular
file, what is too large, and what is no text.

Every file is written under a temporary name in its folder and then renamed, so that neither a
reader nor a resumed run finds half a file.
"""

import codecs
import json
import math
import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # surrogates that stand for no byte
_VISIBLE = re.compile(r"\S")
_BREAKS = "\n\r\v\f\x1c-\x1e\x85\u2028\u2029"  # those of str.splitlines
_LINE_END = re.compile(f"[{_BREAKS}]")
_LINE = re.compile(f"[^{_BREAKS}]*(?:\r\n|[{_BREAKS}])|[^{_BREAKS}]+")
LARGEST_TEXT = 1_000_000_000  # bytes
_LONGEST_LINE = 10_000_000  # bytes of the first line
_PACKED = (
    *(b"PK\x03\x04", b"PK\x05\x06", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"),
    *(b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x28\xb5\x2f\xfd"),
)
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{12}(\.\w+)?")  # temporary names of atomic_replace


def read_text(path: Path) -> str:
    """The text of a file.

    Tries UTF-8 and UTF-16 with and without a byte order mark, then the Windows code page, then
    Latin-1, which can decode any byte.

    Parameters
    ----------
    path : of the file

    Returns
    -------
    The decoded text.

    Raises
    ------
    UserError
        E_CANNOT_READ for a file that is missing or unreadable, E_FILE_TOO_LARGE, E_NOT_TEXT for one
        that is no text.
    """
    raw = _read_bytes(path)
    for encoding in _encodings(raw):
        try:
            text = raw.decode(encoding)
        except UnicodeError:
            continue
        if "\0" in text:
            raise UserError(
                "E_NOT_TEXT", f"{path}: this is not a text file", "save the table as CSV"
            )
        return text
    raise UserError(
        "E_NOT_TEXT", f"{path}: the characters cannot be decoded", "save the table as UTF-8"
    )


def first_line(text: str) -> str:
    """The first line that is not blank.

    Parameters
    ----------
    text : of a file; its other lines are not copied

    Returns
    -------
    line : without its end, empty where all lines are blank
    """
    if (begin := _VISIBLE.search(text)) is None:
        return ""
    end = _LINE_END.search(text, begin.end())
    return text[: end.start() if end else None].splitlines()[-1]


def iter_lines(text: str) -> Iterator[str]:
    """The lines that ``str.splitlines`` gives, one after the other.

    Parameters
    ----------
    text : of a file

    Yields
    ------
    line : with its end
    """
    return (match[0] for match in _LINE.finditer(text))


def path_exists(path: Path) -> bool:
    """Whether there is a file or folder; a name that no disk can hold names none.

    Parameters
    ----------
    path : to look for

    Returns
    -------
    answer : True or False
    """
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, a zero byte
        return False


def _read_bytes(path: Path) -> bytes:
    """The bytes of a regular file that may be text."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe that nobody writes to would never end
            what = f"{path}: this is a folder, a pipe or a device"
            raise UserError("E_CANNOT_READ", what, "give a file")
        with path.open("rb") as file:
            size = status.st_size or LARGEST_TEXT  # a buffer of this size is allocated
            head = file.read(min(size, _LONGEST_LINE))
            _check_head(path, head)
            if status.st_size > LARGEST_TEXT:
                what = f"{path}: larger than {LARGEST_TEXT / 1e9:g} GB"
                raise UserError("E_FILE_TOO_LARGE", what, "divide it into several files")
            return head + file.read(size - len(head)) if len(head) == _LONGEST_LINE else head
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            "E_CANNOT_READ", f"{path}: the file cannot be read ({reason})", "check the path"
        ) from error


def _check_head(path: Path, head: bytes) -> None:
    """Raise UserError for the beginning of a file that is no text."""
    if head.startswith(_PACKED):
        what = f"{path}: this is a spreadsheet or an archive, not a text file"
        raise UserError("E_NOT_TEXT", what, "unpack it, or save the table as CSV")
    if len(head) == _LONGEST_LINE and not {10, 13} & set(head):
        what = f"{path}: the first line is longer than {_LONGEST_LINE // 1_000_000} MB"
        raise UserError("E_NOT_TEXT", what, "save the table as CSV, one line for each row")


def write_json(value: object, path: Path) -> None:
    """Write a JSON file.

    Parameters
    ----------
    value : of JSON's types, numpy arrays, paths, dates and dataclasses; NaN becomes null
    path : of the file
    """
    write_text(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n", path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file.

    Parameters
    ----------
    path : of the file

    Returns
    -------
    Its object; an empty one without the file.

    Raises
    ------
    UserError
        E_NOT_JSON.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(
            "E_NOT_JSON", f"{path}:{error.lineno}: {error.msg}", "correct or delete the file"
        ) from None
    if not isinstance(content, dict):
        raise UserError(
            "E_NOT_JSON", f"{path}: the file is no JSON object", "correct or delete the file"
        )
    return content


def write_text(text: str, path: Path) -> None:
    """Write text as UTF-8, with the line ends that it has.

    Parameters
    ----------
    text : the content
    path : of the file
    """
    with atomic_replace(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def utf8_text(text: str) -> str:
    """A name that UTF-8 can hold: bytes of a name that are none are written as ``\\xe9``.

    Parameters
    ----------
    text : name or path, as Python has it from the file system

    Returns
    -------
    text : the same for all names in UTF-8
    """
    if text.isascii():
        return text
    bytes_only = _NO_BYTES.sub(lambda match: ascii(match[0])[1:-1], text)
    return bytes_only.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_picture(content: bytes, path: Path) -> None:
    """Write a picture.

    Parameters
    ----------
    content : the bytes of the file
    path : of the file
    """
    with atomic_replace(path) as unfinished:
        unfinished.write_bytes(content)


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """Give a temporary path that replaces ``path`` at the end of the block.

    After an error in the block ``path`` is unchanged. Missing folders are made.

    Parameters
    ----------
    path : of the file to write

    Yields
    ------
    A path in the same folder, with the same suffix.

    Raises
    ------
    UserError
        E_OUTPUT_NOT_WRITABLE.
    """
    unfinished = path.with_name(f".{path.stem[:40]}.{uuid.uuid4().hex[:12]}{path.suffix[:20]}")
    try:
        with explain_write_errors(path):
            if path.exists() and not path.is_file():
                raise OSError("this is a folder, a pipe or a device")
            path.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())  # else a power cut can leave an empty file of the new name
            unfinished.replace(path)
    finally:
        with suppress(OSError):  # its folder could not be made
            unfinished.unlink(missing_ok=True)


def is_regular_file(path: Path) -> bool:
    """Whether a path is a file: no link, folder, pipe or device, which must not be opened.

    Parameters
    ----------
    path : that may be missing

    Returns
    -------
    False for a path that is missing or cannot be looked at.
    """
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn an error of the file system into a UserError that names what cannot be written.

    Parameters
    ----------
    path : of the file or folder that is written in the block

    Yields
    ------
    None.

    Raises
    ------
    UserError
        E_OUTPUT_NOT_WRITABLE.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            "E_OUTPUT_NOT_WRITABLE",
            f"{path}: cannot be written ({error.strerror or error})",
            "free disk space, correct the permissions or choose another place",
        ) from error


def remove_unfinished(folder: Path) -> None:
    """Delete the temporary files of :func:`atomic_replace` calls that were killed.

    Parameters
    ----------
    folder : without its subfolders
    """
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
    """The same value in types that JSON has."""
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {utf8_text(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return utf8_text(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set) else value)]
    if isinstance(value, np.ndarray | np.generic):
        value = _plain(value.tolist())
    elif is_dataclass(value) and not isinstance(value, type):
        value = _plain(asdict(value))
    elif isinstance(value, Path | date):
        value = utf8_text(value.as_posix()) if isinstance(value, Path) else value.isoformat()
    return value
