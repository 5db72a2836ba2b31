"""Every verb of the library as a command of one Typer app."""

from importlib.metadata import version
from typing import Annotated

import typer

from antpitta.cli import (
    bench,
    candidates,
    data,
    fetch,
    matching,
    prediction,
    review,
    rounds,
    settings,
    simulation,
    training,
)
from antpitta.cli.display import console

app = typer.Typer(
    name="antpitta",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (  # in the order of the help
    simulation.demo,
    data.init,
    data.check,
    training.train,
    training.evaluate,
    training.ensemble,
    prediction.predict,
    fetch.fetch,
    candidates.candidates,
    matching.match,
    review.review,
    review.clips,
    rounds.round,
    settings.settings,
    bench.bench,
    simulation.simulate,
):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"antpitta {version('antpitta')}")
        raise typer.Exit


@app.callback()
def describe(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """From a few validated boxes to a species detector for long field recordings.

    `antpitta demo` shows all steps on simulated sound. `antpitta COMMAND -h` explains a command.
    """
