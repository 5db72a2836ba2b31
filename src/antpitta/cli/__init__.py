"""The command line: every verb of the library as a command.

Printing and the parsing of arguments live in this package only. An error is one line on stderr:
``antpitta: what is wrong. What to do. [E_CODE]``.

Exit codes: 0 done; 1 done, but something was left out, and the output names it; 2 a mistake that
the user can correct; 3 an unforeseen error, whose traceback is in a log file; 130 interrupted.
"""

import gc
import platform
import sys
import tempfile
import traceback
from importlib.metadata import version
from typing import Annotated

import typer

from antpitta.cli import bench, data, prediction, settings, simulation, training
from antpitta.cli.display import console, print_error
from antpitta.core.errors import UserError, sentences

MISTAKE, UNFORESEEN, INTERRUPTED = 2, 3, 130  # exit codes

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


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    try:
        sys.exit(app(prog_name="antpitta", standalone_mode=False) or 0)
    except UserError as error:
        _fail(error.code, error.what, error.remedy)
        sys.exit(MISTAKE)
    except (KeyboardInterrupt, typer.Abort):
        _fail("E_INTERRUPTED", "interrupted", "")
        sys.exit(INTERRUPTED)
    except Exception as error:
        _refuse_usage(error)
        _fail("E_UNFORESEEN", *_log(error))
        sys.exit(UNFORESEEN)
    finally:
        gc.freeze()  # the process ends: a last collection would take a quarter of a second


def _fail(code: str, what: str, remedy: str) -> None:
    print_error(f"antpitta: {sentences(what, remedy)} [{code}]")


def _refuse_usage(error: Exception) -> None:
    """End the process if the arguments could not be parsed; return for any other error."""
    # Typer carries its own copy of click from 0.20 on, so the classes have no common import.
    kinds = [kind.__name__ for kind in type(error).__mro__]
    if "NoArgsIsHelpError" in kinds:
        error.show()  # type: ignore[attr-defined]
        sys.exit(MISTAKE)
    if "ClickException" in kinds:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "antpitta"
        message = error.format_message()  # type: ignore[attr-defined]
        _fail("E_USAGE", message[:1].lower() + message[1:], f"see {command} -h")
        sys.exit(MISTAKE)


def _log(error: Exception) -> tuple[str, str]:
    """Write the traceback to a file; the error in a few words, and where that file is."""
    trace = "".join(traceback.format_exception(error))
    head = f"antpitta {version('antpitta')}, Python {platform.python_version()}, "
    head += f"{platform.platform()}\ncommand: {sys.argv[1:]}\n\n"
    what = f"unforeseen error, {type(error).__name__}: {error}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="antpitta-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write(head + trace)
    except OSError:  # a full disk: nothing can be written anywhere
        for line in (head + trace).splitlines():
            print_error(line)
        return what, "report it with the traceback above"
    return what, f"report it with the log {file.name}"
