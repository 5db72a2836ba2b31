"""Changes to a recipe's table before it is checked, as ``--set`` takes them."""

import json
from typing import Any

from antpitta.core.errors import UserMistake


def apply_change(table: dict[str, Any], change: str) -> None:
    """Set what ``stages.masked.epochs=3`` says; a stage goes by its name, null leaves it out.

    The value is JSON, or else text. Raises UserMistake where the path leads nowhere.
    """
    path, sign, text = change.partition("=")
    if not sign:
        raise UserMistake(f"--set {change}: no '='; write --set key=value")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    *way, last = path.strip().split(".")
    at: Any = table
    for key in way:
        at = _step(at, key, path)
    if isinstance(at, list):
        if value is not None:
            raise UserMistake(
                f"--set {path}: name a setting of the stage; write {path}.epochs=3, say, "
                f"or {path}=null to leave it out"
            )
        at.remove(_step(at, last, path))
        return
    if not isinstance(at, dict):
        raise UserMistake(f"--set {path}: {'.'.join(way)} is a value, not a table; set it itself")
    at[last] = value


def _step(at: Any, key: str, path: str) -> Any:
    if isinstance(at, list):
        stages = [stage for stage in at if isinstance(stage, dict)]
        for stage in stages:
            if stage.get("name") == key:
                return stage
        names = ", ".join(str(stage.get("name")) for stage in stages)
        raise UserMistake(f"--set {path}: no stage {key!r}; the stages are {names}")
    if not isinstance(at, dict):
        raise UserMistake(f"--set {path}: nothing lies below a value; check the key {key!r}")
    return at.setdefault(key, {})
