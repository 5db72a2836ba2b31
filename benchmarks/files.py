"""Files that only the benchmarks read and write: TOML tables, JSON notes and pages of results."""

import json
import tomllib
from pathlib import Path
from typing import Any

from antpitta.core.errors import UserError
from antpitta.files.texts import read_text, write_text


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    path : the file

    Returns
    -------
    dict
        The tables and values of the file.

    Raises
    ------
    UserError
        E_VARIANTS_INVALID where the file is not TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UserError(
            "E_VARIANTS_INVALID", f"{path} is not TOML ({error})", "correct that line"
        ) from None


def read_note(path: Path) -> dict[str, Any]:
    """Read a JSON note that may be missing: what it holds can always be computed again.

    Parameters
    ----------
    path : the file

    Returns
    -------
    dict
        The content of the note; empty where the file is missing or damaged.
    """
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def write_page(page: str, path: Path) -> None:
    """Write a page of results atomically.

    Parameters
    ----------
    page : Markdown
    path : the file
    """
    write_text(page, path)
