"""The command line: every verb of the library as a command.

Printing and the parsing of arguments live in this package only. An error is one line on stderr:
``antpitta: what is wrong. What to do. [E_CODE]``.

Exit codes: 0 done; 1 done, but something was left out, and the output names it; 2 a mistake that
the user can correct; 3 an unforeseen error, whose traceback is in a log file; 130 interrupted (128
and the number of the signal). :func:`run_app` is the only place that decides on them.

The commands are imported when they are run, so that an interruption or a lack of memory during
their imports ends like any other.
"""

try:
    import gc
    import os
    import sys
    from collections.abc import Callable
    from typing import TYPE_CHECKING, Any

    from antpitta.cli import process
    from antpitta.core.errors import UserError, machine_failure, sentences
except KeyboardInterrupt:
    raise SystemExit(130) from None

if TYPE_CHECKING:  # for type checkers; __getattr__ imports it
    from antpitta.cli.commands import app

__all__ = ["app", "main", "run_app"]

LEFT_OUT, MISTAKE, UNFORESEEN, INTERRUPTED = 1, 2, 3, 130  # exit codes


def __getattr__(name: str) -> Any:
    if name == "app":
        return _commands()
    raise AttributeError(f"antpitta.cli has no {name!r}")


def _commands() -> Any:
    from antpitta.cli.commands import app

    return app


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    run_app(_commands)


def run_app(find: Callable[[], Any], name: str = "antpitta") -> None:
    """Run a Typer app on the arguments of this process, and end the process with its exit code.

    Parameters
    ----------
    find : imports and returns the app
    name : of the program, for its help
    """
    own = process.begin()
    try:
        code = _run(find, name)
    except BaseException as error:
        code = _report(error)
    if own and (lost := process.flush()):
        what = f"the standard output is not complete ({lost.strerror})"
        _fail("E_STDOUT", what, "write it to another place")
        code = code or LEFT_OUT
    if own:
        process.end(code)
    gc.freeze()  # the process ends: a last collection would take a quarter of a second
    sys.exit(code)


def _run(find: Callable[[], Any], name: str) -> int:
    _refuse_empty(sys.argv[1:])
    process.check_memory(sys.argv[1:])
    code = int(find()(prog_name=name, standalone_mode=False) or 0)
    if code == INTERRUPTED:  # Typer's, for a KeyboardInterrupt
        raise KeyboardInterrupt
    return code


def _refuse_empty(arguments: list[str]) -> None:
    """An empty path would be this folder: what a script's unset variable leaves."""
    for word in arguments:
        option, _, value = word.partition("=")
        if not word.strip() or (option.startswith("--") and "=" in word and not value.strip()):
            what = f"the value of {option} is empty" if option.strip() else "an argument is empty"
            raise UserError("E_USAGE", what, "leave it out, or give a value")


def _report(error: BaseException) -> int:
    """Print one line about what ended a command; its exit code."""
    if isinstance(error, SystemExit) and error.code == INTERRUPTED:  # display.resumable
        return 128 + process.interruption() if process.interruption() else INTERRUPTED
    if process.interruption() or isinstance(error, KeyboardInterrupt):
        _fail("E_INTERRUPTED", "interrupted", "")
        return 128 + process.interruption() if process.interruption() else INTERRUPTED
    if not isinstance(error, UserError):
        error = machine_failure(error) or error
    if isinstance(error, UserError):
        _fail(error.code, error.what, error.remedy)
        return MISTAKE
    if _show_usage(error):
        return MISTAKE
    if process.is_memory_shortage(error):
        what = "the memory that this process may use is too little"
        _fail("E_MEMORY", what, "close other programs, use fewer --workers, or raise ulimit -v")
        return MISTAKE
    _fail("E_UNFORESEEN", *_log(error))
    return UNFORESEEN


def _fail(code: str, what: str, remedy: str) -> None:
    line = f"antpitta: {sentences(what, remedy)} [{code}]"
    try:
        from antpitta.cli.display import print_error
    except (ImportError, MemoryError):
        os.write(2, line.encode("ascii", "backslashreplace") + b"\n")
    else:
        print_error(line)


def _show_usage(error: BaseException) -> bool:
    """Print what is wrong if the arguments could not be parsed; whether that is so."""
    # Typer carries its own copy of click from 0.20 on, so the classes have no common import.
    kinds = [kind.__name__ for kind in type(error).__mro__]
    if "NoArgsIsHelpError" in kinds:
        error.show()  # type: ignore[attr-defined]
    elif "ClickException" in kinds:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "antpitta"
        message = error.format_message()  # type: ignore[attr-defined]
        _fail("E_USAGE", message[:1].lower() + message[1:], f"see {command} -h")
    elif "Abort" in kinds:  # the end of the input
        _fail("E_USAGE", "the input ended", "")
    else:
        return False
    return True


def _log(error: BaseException) -> tuple[str, str]:
    """Write the traceback to a file; the error in a few words, and where that file is."""
    import platform
    import tempfile
    import traceback
    from importlib.metadata import version

    parts = (error, *process.other_errors)
    trace = "\n".join("".join(traceback.format_exception(part)) for part in parts)
    head = f"antpitta {version('antpitta')}, Python {platform.python_version()}, "
    head += f"{platform.platform()}\ncommand: {sys.argv[1:]}\n\n"
    what = f"unforeseen error, {type(error).__name__}: {error}"
    try:
        with tempfile.NamedTemporaryFile(
            *("w", -1, "utf-8"),
            prefix="antpitta-",
            suffix=".log",
            delete=False,
            errors="backslashreplace",
        ) as file:
            file.write(head + trace)
    except OSError:  # nothing can be written anywhere
        from antpitta.cli.display import print_error

        for line in (head + trace).splitlines():
            print_error(line)
        return what, "report it with the traceback above"
    return what, f"report it with the log {file.name}"
