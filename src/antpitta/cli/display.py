"""How results and progress look: tables, one moving bar on a terminal, plain lines elsewhere.

Everything that a command prints goes through :data:`console` or :func:`print_error`. Names of
files, species and settings may hold markup, line ends or escape sequences: here, and only here,
they become text that a terminal shows and does not obey. A test holds that nothing else prints.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from antpitta.cli import process
from antpitta.core.errors import printable, printable_lines
from antpitta.core.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from antpitta.api import Interval, Report

INTERRUPTED = 130  # exit code
TERMINAL = sys.stdout is not None and sys.stdout.isatty()
PIPED_WIDTH = None if TERMINAL else 100  # columns of a table that goes to a file


class PlainConsole(Console):
    """A console that shows text as it is: neither markup nor escape sequences have an effect.

    A string is a line of its own: a line end in it is part of a name.
    """

    def __init__(self) -> None:
        super().__init__(
            highlight=False, soft_wrap=True, width=PIPED_WIDTH, markup=False, emoji=False
        )

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a line or a cell with its control characters escaped."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render anything else by the same rule: only rich's own controls and line ends stay."""
        for text, style, control in super().render(renderable, options):
            if control or text.isprintable():
                yield Segment(text, style, control)
            else:
                yield Segment(printable_lines(text), style)


def print_error(line: str) -> None:
    """Print a line on stderr.

    Parameters
    ----------
    line : with the names of a user
    """
    sys.stderr.write(f"{printable(line)}\n")


console = PlainConsole()
MINUTE = 60.0
LINE_INTERVAL = 30.0  # seconds between plain lines about one task


@contextmanager
def resumable(command: str = "the same command with --resume") -> Iterator[None]:
    """Long work that Ctrl-C ends with one line, and with the shell's exit code for it.

    Parameters
    ----------
    command : the command that continues the work

    Yields
    ------
    None
        The work runs inside the context.
    """
    try:
        yield
    except BaseException as error:
        # An interrupted import or compiled function may raise an error of its own.
        if not isinstance(error, KeyboardInterrupt) and not process.interruption():
            raise
        console.print(f"interrupted; {command} continues from here")
        raise SystemExit(INTERRUPTED) from None


@contextmanager
def training_progress() -> Iterator[Progress]:
    """Progress as moving bars on a terminal, and as plain lines in a file."""
    if console.is_terminal:
        with _new_bars() as bars:
            yield _bar_progress(bars)
    else:
        yield _line_progress()


def _new_bars() -> ProgressBars:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    return ProgressBars(*columns, console=console)


def _bar_progress(bars: ProgressBars) -> Progress:
    tasks = {}

    def update(task: str, done: int, total: int, loss: float) -> None:
        if task not in tasks:
            tasks[task] = bars.add_task(printable(task), total=total, loss="")
        text = "" if isnan(loss) else f"loss {loss:.3f}"
        bars.update(tasks[task], completed=done, loss=text)

    return Progress(bars.console.print, update)


def _line_progress() -> Progress:
    printed: dict[str, float] = {}  # when each task was last printed

    def update(task: str, done: int, total: int, loss: float) -> None:
        now = time.monotonic()
        if done < total and now - printed.get(task, -LINE_INTERVAL) < LINE_INTERVAL:
            return
        printed[task] = now
        text = "" if isnan(loss) else f"  loss {loss:.3f}"
        console.print(f"{task}  {done}/{total}{text}")

    return Progress(console.print, update)


@contextmanager
def prediction_progress() -> Iterator[Callable[[int, int, float], None]]:
    """Progress over recordings (files done, files in all, speed as a multiple of real time).

    A moving bar on a terminal, a line a minute in a file.
    """
    if not console.is_terminal:
        yield _file_lines(time.monotonic())
        return
    columns = (
        *(TextColumn("recordings"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        TextColumn("{task.fields[speed]:.0f} x real time"),
    )
    with ProgressBars(*columns, console=console) as bars:
        task = bars.add_task("", total=None, speed=0.0)
        yield lambda done, total, speed: bars.update(task, completed=done, total=total, speed=speed)


def _file_lines(start: float) -> Callable[[int, int, float], None]:
    printed = start - MINUTE

    def update(done: int, total: int, speed: float) -> None:
        nonlocal printed
        now = time.monotonic()
        if done < total and now - printed < MINUTE:
            return
        printed = now
        rate = done / max(now - start, 1e-9)
        left = timedelta(seconds=round((total - done) / max(rate, 1e-9)))
        console.print(
            f"recordings  {done}/{total}  {rate:.1f} a second, {speed:.0f} x real time, {left} left"
        )

    return update


def new_table(title: str, columns: Sequence[str], text_columns: int = 1) -> Table:
    """A table whose first columns are text and whose others are numbers.

    Parameters
    ----------
    title : the line above the table
    columns : the names of the columns
    text_columns : the number of text columns

    Returns
    -------
    Table
        A table without rows.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE)
    for number, name in enumerate(columns):
        justify = "left" if number < text_columns else "right"
        table.add_column(
            name,
            justify=justify,  # type: ignore[arg-type]
            overflow="fold",  # a long name goes on in a second line
            no_wrap=number > 0,
        )
    return table


def format_interval(interval: "Interval") -> str:
    """A value with its confidence interval, ``-`` if it is undefined.

    Parameters
    ----------
    interval : a metric with its interval

    Returns
    -------
    str
        ``0.830 (0.780-0.898)``
    """
    if isnan(interval.value):
        return "-"
    if isnan(interval.low):
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f}-{interval.high:.3f})"


def show_reports(reports: "tuple[Report, ...]", title: str) -> None:
    """Print one row a report, with 95 % intervals over recordings.

    Parameters
    ----------
    reports : the metrics
    title : the line above the table
    """
    table = new_table(title, ("scores", "LWLRAP", "macro AP", "macro AUC"), text_columns=4)
    for report in reports:
        metrics = (report.lwlrap, report.macro_ap, report.macro_auc)
        table.add_row(report.source, *(format_interval(metric) for metric in metrics))
    console.print(table)


def show_species(per_species: "pd.DataFrame") -> None:
    """Print one row a species.

    Parameters
    ----------
    per_species : the table of a report
    """
    table = new_table("per species", ("species", "present", "absent", "AP", "AUC"))
    for _, row in per_species.iterrows():
        metrics = ("-" if isnan(row[key]) else f"{row[key]:.3f}" for key in ("ap", "auc"))
        table.add_row(str(row["species"]), str(row["present"]), str(row["absent"]), *metrics)
    console.print(table)


def show_events(metrics: "pd.DataFrame") -> None:
    """Print one row a species, then the means.

    Parameters
    ----------
    metrics : the table of :func:`antpitta.api.evaluate_events`
    """
    names = ("species", "tp", "fp", "fn", "precision", "recall", "f1")
    table = new_table("event F1", names)
    for _, row in metrics.iterrows():
        counts = ("-" if isnan(row[name]) else f"{row[name]:.0f}" for name in names[1:4])
        shares = ("-" if isnan(row[name]) else f"{row[name]:.3f}" for name in names[4:])
        table.add_row(str(row["species"]), *counts, *shares)
    console.print(table)
