"""What a benchmark keeps on the disk: tables of variants that ship, and notes beside runs.

A table of variants is TOML, found by name among those that ship or by path; the recipes that
only a table uses lie beside it, so that they are not listed among the recipes. A note is JSON
that may be lost without harm: what it says can be worked out again.
"""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antpitta.core.errors import UserError
from antpitta.files.texts import read_text, write_text

SHIPPED = Path(__file__).parent / "ablations"


@dataclass(frozen=True)
class Told:
    """A table of variants as it was written, and where."""

    table: dict[str, Any]
    path: Path


def shipped_ablations() -> tuple[str, ...]:
    """The names that :func:`read_ablation` knows without a path."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def read_ablation(name: str) -> Told:
    """The table of variants that ships under a name, or the one at a path.

    Raises UserError for an unknown name and for a file that is no TOML.
    """
    path = SHIPPED / f"{name}.toml" if name in shipped_ablations() else Path(name)
    if not path.is_file():
        known = ", ".join(shipped_ablations())
        raise UserError(
            "E_TODO",
            f"--recipe {name}: no table of variants of that name",
            f"take one of {known}, or a path",
        )
    try:
        return Told(tomllib.loads(read_text(path)), path)
    except tomllib.TOMLDecodeError as error:
        raise UserError("E_TODO", f"{path}: is no TOML ({error})", "correct that line") from None


def read_note(path: Path) -> dict[str, Any]:
    """What is kept there; nothing where the file is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_page(page: str, path: Path) -> None:
    """A page of results, in one step."""
    write_text(page, path)
