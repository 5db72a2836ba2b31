"""The command about settings: settings."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from antpitta import api
from antpitta.cli.display import console

if TYPE_CHECKING:
    from antpitta.api import Setting


def settings(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE", help="A shipped recipe's name, or a TOML file: shows its values."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting to change, such as stages.masked.epochs=3."),
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="With the baseline stage, as train --baseline.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print tables in Markdown, as in the documentation.")
    ] = False,
) -> None:
    """List every setting with default, range and meaning; with RECIPE also its values.

    Example: `antpitta settings quick`
    """
    listed = api.settings(recipe, changes=tuple(changes or ()), baseline=baseline)
    lines = _markdown(listed, recipe) if markdown else _plain(listed, recipe)
    for line in lines:
        console.print(line)


def _plain(settings: "Sequence[Setting]", recipe: str | None) -> Iterator[str]:
    """Two lines a setting: key, value, default and range, then the meaning."""
    for section, members in groupby(settings, key=lambda setting: setting.section):
        yield f"# {section}"
        for setting in members:
            allowed = ", ".join(filter(None, (setting.kind, setting.range)))
            required = setting.default == "required"
            default = setting.default if required else f"default {setting.default}"
            value = f" = {setting.value}" if recipe is not None else ""
            yield f"{setting.key}{value}  ({default}; {allowed})"
            yield f"    {setting.description}"
        yield ""


def _markdown(settings: "Sequence[Setting]", recipe: str | None) -> Iterator[str]:
    """A table for each section."""
    columns = ["setting", "type or choices", "default", "range", "meaning"]
    if recipe is not None:
        columns.insert(2, recipe)
    for section, members in groupby(settings, key=lambda setting: setting.section):
        yield section
        yield ""
        yield _row(columns)
        yield _row(["---"] * len(columns))
        for setting in members:
            cells = [f"`{setting.key}`", setting.kind, f"`{setting.default}`", setting.range]
            if recipe is not None:
                cells.insert(2, f"`{setting.value}`")
            yield _row([*cells, setting.description])
        yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
