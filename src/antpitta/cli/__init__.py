"""The verbs as commands. Printing and argument parsing live in this room only.

Exit codes: 0 done, 1 done with something left out (and said so), 2 the user's mistake, in one line.
"""

import gc
import sys

import typer

from antpitta.cli import data, prediction, settings, simulation, training
from antpitta.core.errors import UserError

app = typer.Typer(
    name="antpitta",
    help="From a few validated boxes to a species detector for long field recordings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
data.register(app)
training.register(app)
prediction.register(app)
simulation.register(app)
settings.register(app)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except UserError as mistake:
        sys.stderr.write(f"antpitta: {' '.join(str(mistake).split())}\n")
        sys.exit(2)
    finally:
        gc.freeze()  # the process ends: to look through all that was loaded takes a quarter second
