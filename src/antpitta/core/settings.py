"""Settings as a list, and settings from a table: what `antpitta settings` and `--set` need.

The settings classes (core/config.py, core/stages.py, core/features.py) are the only source of
names, types, defaults, ranges and descriptions. A key is written as for ``--set``: the names of the
tables and of the setting, joined by dots, a stage by its name (``stages.masked.loss.on``).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from antpitta.core.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
ANY_STAGE = "STAGE"  # stands for the name of a stage in the keys of no particular recipe
_KINDS = {int: "integer", float: "number", str: "text", bool: "true or false", NoneType: "null"}
_PLURALS = {"integer": "integers", "number": "numbers", "text": "texts"}


@dataclass(frozen=True)
class Setting:
    """One setting of a recipe, as text."""

    key: str  # as for --set
    kind: str  # the type, or the choices
    default: str
    range: str
    description: str
    section: str  # what its table is for
    value: str = ""  # in one recipe


def list_settings(
    model: type[BaseModel], values: BaseModel | None = None, prefix: str = ""
) -> Iterator[Setting]:
    """List every setting of a settings class, in the order of its fields.

    Parameters
    ----------
    model : a settings class
    values : an instance of it, whose values are listed too; tables that it lacks are left out
    prefix : of the keys, with a dot at its end

    Yields
    ------
    One Setting per field, those of nested tables included.
    """
    for name, field in model.model_fields.items():
        key, value = f"{prefix}{name}", getattr(values, name, None)
        nested = _nested_model(field.annotation)
        if nested is None:
            yield Setting(
                key=key,
                kind=_alternatives(list(dict.fromkeys(_kinds(field.annotation)))),
                default="required" if field.is_required() else _text(field.default),
                range=_range(field),
                description=field.description or "",
                section=(model.__doc__ or "").partition("\n")[0],
                value="" if values is None else _text(value),
            )
        elif values is None:
            stage = f"{ANY_STAGE}." if _is_list(field.annotation) else ""
            yield from list_settings(nested, None, f"{key}.{stage}")
        elif isinstance(value, tuple):
            for item in value:
                yield from list_settings(nested, item, f"{key}.{item.name}.")
        elif value is not None:
            yield from list_settings(nested, value, f"{key}.")


def nearest_keys(key: str, all_keys: list[str], count: int = 3) -> list[str]:
    """Find the keys that a mistyped one may mean.

    Parameters
    ----------
    key : the unknown key
    all_keys : the known keys
    count : how many to return at most

    Returns
    -------
    Keys that begin with it, then similar ones, then those with the same name in other tables.
    """
    longer = [candidate for candidate in all_keys if candidate.startswith(key)]
    similar = get_close_matches(key, all_keys, count)
    name = key.rpartition(".")[2]
    same_name = [candidate for candidate in all_keys if candidate.rpartition(".")[2] == name]
    return list(dict.fromkeys([*longer, *similar, *same_name]))[:count]


def check_settings(model: type[Model], table: dict[str, Any], where: str) -> Model:
    """Turn a table into settings.

    Parameters
    ----------
    model : the settings class
    table : the content of a TOML file
    where : name of the file or recipe, for messages

    Returns
    -------
    An instance of the class.

    Raises
    ------
    UserError
        E_UNKNOWN_SETTING, naming the nearest known keys, or E_SETTING_VALUE; all wrong settings
        are in one message.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        mistakes = error.errors()
    settings = _settings_by_key(model, table)
    unknown = [_full_key(e, table) for e in mistakes if e["type"] == "extra_forbidden"]
    known = [e for e in mistakes if e["type"] != "extra_forbidden"]
    what = [f"unknown setting {key}" for key in unknown]
    what += dict.fromkeys(_explain(error, table, settings) for error in known)
    near = dict.fromkeys(match for key in unknown for match in nearest_keys(key, list(settings)))
    if near:
        remedy = f"use {_alternatives(list(near))}"
    elif unknown:
        remedy = "see `antpitta settings` for all settings"
    else:
        remedy = "correct these settings"
    code = "E_UNKNOWN_SETTING" if unknown else "E_SETTING_VALUE"
    raise UserError(code, f"{where}: {'; '.join(what)}", remedy)


def apply_change(table: dict[str, Any], change: str) -> None:
    """Change one setting of a recipe's table, in place.

    Parameters
    ----------
    table : the content of a recipe file
    change : ``stages.masked.epochs=3``: the value is JSON, or else text; ``stages.masked=null``
        removes the stage

    Raises
    ------
    UserError
        E_SET where there is no ``=`` or no such table or stage.
    """
    path, sign, text = change.partition("=")
    if not sign:
        raise UserError("E_SET", f"--set {change}: there is no '='", "write --set key=value")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    *tables, last = path.strip().split(".")
    target: Any = table
    for key in tables:
        target = _descend(target, key, path)
    if isinstance(target, list):
        if value is not None:
            raise UserError(
                "E_SET",
                f"--set {path}: this is a whole stage",
                f"set one of its settings, such as {path}.epochs=3, or remove it with {path}=null",
            )
        target.remove(_descend(target, last, path))
        return
    if not isinstance(target, dict):
        raise UserError("E_SET", f"--set {path}: {'.'.join(tables)} is no table", "correct the key")
    target[last] = value


def _descend(target: Any, key: str, path: str) -> Any:
    """The table or stage below ``target`` that a part of a key names, made if there is none."""
    if isinstance(target, list):
        stages = [stage for stage in target if isinstance(stage, dict)]
        for stage in stages:
            if stage.get("name") == key:
                return stage
        names = ", ".join(str(stage.get("name")) for stage in stages)
        raise UserError("E_SET", f"--set {path}: no stage {key!r}", f"the stages are {names}")
    if not isinstance(target, dict):
        raise UserError("E_SET", f"--set {path}: {key!r} is below a value", "correct the key")
    return target.setdefault(key, {})


def _settings_by_key(model: type[BaseModel], table: Mapping[str, Any]) -> dict[str, Setting]:
    """All settings, with the names of the table's own stages in the keys."""
    stages = table.get("stages")
    tables = stages if isinstance(stages, list) else []
    names = [str(stage.get("name")) for stage in tables if isinstance(stage, dict)]
    settings: dict[str, Setting] = {}
    for setting in list_settings(model):
        head, sign, tail = setting.key.partition(f".{ANY_STAGE}.")
        keys = [f"{head}.{name}.{tail}" for name in names or [ANY_STAGE]] if sign else [head]
        settings |= dict.fromkeys(keys, setting)
    return settings


def _key(location: tuple[int | str, ...], table: Mapping[str, Any]) -> str:
    """The key of a place that pydantic names; a stage by its name, or else by its number."""
    parts = []
    for length, part in enumerate(location, start=1):
        value = _value_at(location[:length], table)
        is_named = isinstance(part, int) and isinstance(value, dict) and "name" in value
        parts.append(str(value["name"]) if is_named else str(part))
    return ".".join(parts)


def _value_at(location: tuple[int | str, ...], table: Mapping[str, Any]) -> Any:
    """The value at a place that pydantic names; None where the table has none."""
    value: Any = table
    for part in location:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _full_key(error: ErrorDetails, table: Mapping[str, Any]) -> str:
    """The key of an unknown setting, down to the single value that a change put there."""
    key, value = _key(error["loc"], table), error["input"]
    while isinstance(value, dict) and len(value) == 1:
        ((name, value),) = value.items()
        key = f"{key}.{name}"
    return key


def _explain(error: ErrorDetails, table: Mapping[str, Any], settings: Mapping[str, Setting]) -> str:
    """What is wrong with a setting; equal for all alternatives of its type."""
    location = error["loc"]
    key = _key(location, table)
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "value_error":
        cause = error["ctx"]["error"]
        return f"{key}: {cause}" if key else str(cause)
    for length in range(len(location), 0, -1):
        key = _key(location[:length], table)
        if setting := settings.get(key):
            value = _value_at(location[:length], table)
            allowed = ", ".join(filter(None, (setting.kind, setting.range)))
            return f"{key} = {_text(value)} is not allowed ({allowed})"
    return f"{_key(location, table)} = {_text(error['input'])} is no table of settings"


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    """The settings class of a nested table, an optional one or a list of them included."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple


def _kinds(annotation: Any) -> Iterator[str]:
    """The words for a type: one per alternative."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _kinds(arguments[0])
    elif origin is Literal:
        yield from map(str, arguments)
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from _kinds(argument)
    elif origin is tuple:
        kind = next(_kinds(arguments[0]))
        yield f"list of {_PLURALS.get(kind, kind.replace('list', 'lists', 1))}"
    else:
        yield _KINDS[annotation]


def _alternatives(texts: list[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def _range(field: FieldInfo) -> str:
    """The values that a setting may have, such as ``0 to 1``; empty where all are allowed."""
    limits = dict(_limits([*field.metadata, *_rules(field.annotation)]))
    low = high = ""
    if "ge" in limits:
        low = f"{_number(limits['ge'])}"
    elif "gt" in limits:
        low = f"above {_number(limits['gt'])}"
    if "le" in limits:
        high = f"{_number(limits['le'])}"
    elif "lt" in limits:
        high = f"below {_number(limits['lt'])}"
    if "pattern" in limits:
        return f"matching {limits['pattern']}"
    if low and high:
        return f"{low} to {high}"
    return f"at least {low}" if "ge" in limits else low or high


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _limits(rules: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for rule in rules:
        yield from _limits(getattr(rule, "metadata", ()))
        for name in ("ge", "gt", "le", "lt", "pattern"):
            if getattr(rule, name, None) is not None:
                yield name, getattr(rule, name)


def _rules(annotation: Any) -> Iterator[Any]:
    """The limits inside a type, such as that of Count in ``Count | None``."""
    if get_origin(annotation) is Annotated:
        yield from get_args(annotation)[1:]
    for argument in get_args(annotation):
        yield from _rules(argument)


def _text(value: Any) -> str:
    """A value as TOML or --set would have it."""
    if isinstance(value, str):
        return value or '""'
    try:
        return json.dumps(value, default=str)
    except (ValueError, RecursionError):  # thousands of digits or levels
        return "a value that is too long"
