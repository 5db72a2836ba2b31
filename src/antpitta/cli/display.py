"""How results and progress look: tables, one moving bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from math import isnan
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.table import Table

from antpitta.core.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from antpitta.api import Interval, Report


WIDE = None if sys.stdout.isatty() else 100  # columns: a file has no edge to wrap at

console = Console(highlight=False, soft_wrap=True, width=WIDE)
MINUTE = 60.0
EVERY = 30.0  # seconds between plain lines of one piece of work


@contextmanager
def resumable(again: str = "the same command with --resume") -> Iterator[None]:
    """Long work that Ctrl-C ends in a line, and with a shell's exit code for it."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"stopped; {again} goes on from here")
        raise typer.Exit(130) from None


@contextmanager
def training_progress() -> Iterator[Progress]:
    """A voice that draws bars where somebody is looking, and prints lines where nobody is."""
    if console.is_terminal:
        with _bars() as bars:
            yield _drawn(bars)
    else:
        yield _printed()


def _bars() -> ProgressBars:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    return ProgressBars(*columns, console=console)


def _drawn(bars: ProgressBars) -> Progress:
    tasks = {}

    def tick(what: str, done: int, total: int, loss: float) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total, loss="")
        shown = "" if isnan(loss) else f"loss {loss:.3f}"
        bars.update(tasks[what], completed=done, loss=shown)

    return Progress(bars.console.print, tick)


def _printed() -> Progress:
    last: dict[str, float] = {}

    def tick(what: str, done: int, total: int, loss: float) -> None:
        now = time.monotonic()
        if done < total and now - last.get(what, -EVERY) < EVERY:
            return
        last[what] = now
        shown = "" if isnan(loss) else f"  loss {loss:.3f}"
        console.print(f"{what}  {done}/{total}{shown}")

    return Progress(console.print, tick)


@contextmanager
def scan_progress() -> Iterator[Callable[[int, int, float], None]]:
    """Something to tell of an archive (files done, of how many, times real time): how fast it
    goes and how long it will take, moving where somebody looks, a line a minute elsewhere.
    """
    if not console.is_terminal:
        yield _scanned(time.monotonic())
        return
    columns = (
        *(TextColumn("recordings"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        TextColumn("{task.fields[speed]:.0f} x real time"),
    )
    with ProgressBars(*columns, console=console) as bars:
        task = bars.add_task("", total=None, speed=0.0)
        yield lambda done, total, speed: bars.update(task, completed=done, total=total, speed=speed)


def _scanned(began: float) -> Callable[[int, int, float], None]:
    said = began - MINUTE

    def tick(done: int, total: int, speed: float) -> None:
        nonlocal said
        now = time.monotonic()
        if done < total and now - said < MINUTE:
            return
        said = now
        rate = done / max(now - began, 1e-9)
        left = timedelta(seconds=round((total - done) / max(rate, 1e-9)))
        console.print(
            f"recordings  {done}/{total}  {rate:.1f} a second, {speed:.0f} x real time, {left} left"
        )

    return tick


def span(figure: "Interval") -> str:
    """A figure with its interval."""
    if isnan(figure.value):
        return "-"
    if isnan(figure.low):
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})"


def show_reports(reports: "tuple[Report, ...]", title: str) -> None:
    """One row a report, with 95 % intervals over recordings."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE)
    table.add_column("scores", no_wrap=True)
    for name in ("LWLRAP", "macro AP", "macro AUC"):
        table.add_column(name, no_wrap=True)
    for report in reports:
        figures = (report.lwlrap, report.macro_ap, report.macro_auc)
        table.add_row(report.source, *(span(figure) for figure in figures))
    console.print(table)


def show_species(per_species: "pd.DataFrame") -> None:
    """One row a species."""
    table = Table(title="per species", title_justify="left", title_style="bold", box=SIMPLE)
    for name in ("species", "present", "absent", "AP", "AUC"):
        table.add_column(name, justify="left" if name == "species" else "right")
    for _, row in per_species.iterrows():
        numbers = ("-" if isnan(row[key]) else f"{row[key]:.3f}" for key in ("ap", "auc"))
        table.add_row(str(row["species"]), str(row["present"]), str(row["absent"]), *numbers)
    console.print(table)


def show_events(table: "pd.DataFrame") -> None:
    """One row a species, then the means."""
    shown = Table(title="event F1", title_justify="left", title_style="bold", box=SIMPLE)
    names = ("species", "tp", "fp", "fn", "precision", "recall", "f1")
    for name in names:
        shown.add_column(name, justify="left" if name == "species" else "right")
    for _, row in table.iterrows():
        counts = ("-" if isnan(row[name]) else f"{row[name]:.0f}" for name in names[1:4])
        shares = ("-" if isnan(row[name]) else f"{row[name]:.3f}" for name in names[4:])
        shown.add_row(str(row["species"]), *counts, *shares)
    console.print(shown)
