"""What the commands of the benchmarks share: running one, and printing its tables."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import typer
from rich.box import SIMPLE
from rich.table import Table

from antpitta.cli import run_app
from antpitta.cli.display import console


def command_app(command: Callable[..., None]) -> typer.Typer:
    """Build an app of one command.

    Parameters
    ----------
    command : a function with typer options

    Returns
    -------
    typer.Typer
        The app, with ``-h`` as well as ``--help``.
    """
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command()(command)
    return app


def run(app: typer.Typer) -> None:
    """Run a command with the arguments of this process, and end it as ``antpitta`` ends.

    Parameters
    ----------
    app : the app of the command; a user's mistake ends the process with one line and exit code 2
    """
    run_app(lambda: app, Path(sys.argv[0]).stem)


def print_table(table: pd.DataFrame, title: str) -> None:
    """Print a table whose cells are text.

    Parameters
    ----------
    table : the cells
    title : the line above it
    """
    shown = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE)
    for name in table.columns:
        shown.add_column(name, no_wrap=name in ("variant", "stage"))
    for row in table.itertuples(index=False, name=None):
        shown.add_row(*row)
    console.print(shown)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines as they are, without markup.

    Parameters
    ----------
    lines : the lines
    """
    for line in lines:
        console.print(line)
