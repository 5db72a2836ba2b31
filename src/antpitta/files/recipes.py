"""Recipes: the shipped ones by name, others by path, and recipes that extend another one.

``extends = "quick"`` starts from that recipe: its tables are merged with those of this file, which
win, and its stages with those of the same name; new stages follow. What can be extended is a
shipped recipe, a preset (``recipes/presets``, parts that recipes share), or a file, seen from the
folder of this one.
"""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from antpitta.core.config import Recipe, parse_recipe
from antpitta.core.errors import UserError
from antpitta.files.texts import read_text

SHIPPED = files("antpitta") / "recipes"
BASELINE = "baseline"  # the preset of the stage that comes in front with `train --baseline`

Table = dict[str, Any]


def shipped_recipes() -> tuple[str, ...]:
    """The names that :func:`read_recipe` takes without a path."""
    names = (entry.name for entry in SHIPPED.iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in names))


def read_recipe(name: str, changes: tuple[str, ...] = (), *, baseline: bool = False) -> Recipe:
    """A shipped recipe, or the one of a file.

    Parameters
    ----------
    name : name of a shipped recipe, or path of a TOML file
    changes : settings such as ``stages.masked.epochs=3``
    baseline : whether the baseline stage ``unknown_as_absent`` comes in front of the stages

    Returns
    -------
    The recipe, after its extended recipes and the changes.

    Raises
    ------
    UserError
        E_NO_RECIPE, E_NO_TOML, E_RECIPE_EXTENDS, or a code of `parse_recipe`.
    """
    shipped = name in shipped_recipes()
    if not shipped and not Path(name).is_file():
        raise UserError(
            "E_NO_RECIPE",
            f"recipe {name!r}: there is no such recipe or file",
            f"give one of {', '.join(shipped_recipes())}, or the path of a file",
        )
    table = _read_extended(name, Path(), ())
    if baseline:
        table = _merge(_read_shipped(BASELINE) or {}, table)
    return parse_recipe(table, f"recipe {name}" if shipped else name, changes)


def _read_extended(name: str, folder: Path, extending: tuple[str, ...]) -> Table:
    """The table of a recipe, merged with those it extends; paths are seen from ``folder``."""
    path = folder / name
    if (shipped := _read_shipped(name)) is not None:
        table, where = shipped, name
    elif path.is_file():
        table, where = _parse(read_text(path), str(path)), str(path)
    else:
        raise UserError(
            "E_RECIPE_EXTENDS",
            f'{extending[-1]}: extends = "{name}" is no recipe or file',
            f"give one of {', '.join(shipped_recipes())}, or the path of a file",
        )
    if where in extending:
        raise UserError(
            "E_RECIPE_EXTENDS", f"{where}: the recipe extends itself", "remove one `extends`"
        )
    base = table.pop("extends", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise UserError("E_RECIPE_EXTENDS", f"{where}: extends = {base!r}", "give one name")
    return _merge(_read_extended(base, path.parent, (*extending, where)), table)


def _read_shipped(name: str) -> Table | None:
    """The table of a shipped recipe or of a preset."""
    for folder in (SHIPPED, SHIPPED / "presets"):
        if f"{name}.toml" in (entry.name for entry in folder.iterdir()):
            return _parse((folder / f"{name}.toml").read_text(encoding="utf-8"), name)
    return None


def _parse(text: str, where: str) -> Table:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            "E_NO_TOML", f"{where}: is no TOML ({error})", "correct that line"
        ) from None


def _merge(base: Table, table: Table) -> Table:
    """Both tables; values of ``table`` win, and stages are merged by name."""
    merged = {**base, **table}
    for key in base.keys() & table.keys():
        below, above = base[key], table[key]
        if isinstance(below, dict) and isinstance(above, dict):
            merged[key] = _merge(below, above)
        elif key == "stages" and _are_tables(below) and _are_tables(above):
            stages = {stage.get("name"): stage for stage in below}
            stages |= {
                stage.get("name"): _merge(stages.get(stage.get("name"), {}), stage)
                for stage in above
            }
            merged[key] = list(stages.values())
    return merged


def _are_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
