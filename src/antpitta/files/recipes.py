"""Recipes: those that ship, by name, and anybody's, by path."""

import tomllib
from importlib.resources import files
from pathlib import Path

from antpitta.core.config import Recipe, parse_recipe
from antpitta.core.errors import UserError
from antpitta.files.texts import read_text

SHIPPED = files("antpitta") / "recipes"


def shipped_recipes() -> tuple[str, ...]:
    """The names that :func:`read_recipe` knows without a path."""
    names = (entry.name for entry in SHIPPED.iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in names))


def read_recipe(name: str, changes: tuple[str, ...] = ()) -> Recipe:
    """A shipped recipe, or the TOML file at a path, after ``changes`` (key=value).

    Raises UserError for an unknown name, a file that is no TOML, or a wrong setting.
    """
    if name in shipped_recipes():
        text, where = (SHIPPED / f"{name}.toml").read_text(encoding="utf-8"), f"recipe {name}"
    elif Path(name).is_file():
        text, where = read_text(Path(name)), name
    else:
        known = ", ".join(shipped_recipes())
        raise UserError(
            "E_TODO", f"recipe {name!r}: no such recipe or file", f"take one of {known}, or a path"
        )
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError("E_TODO", f"{where}: is no TOML ({error})", "correct that line") from None
    return parse_recipe(table, where, changes)
