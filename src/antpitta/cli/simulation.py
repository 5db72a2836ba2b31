"""The commands that make their own sound: demo, simulate."""

from pathlib import Path
from typing import Annotated

import typer

from antpitta import api
from antpitta.cli.display import console, show_reports, training_progress


def demo(
    out: Annotated[Path, typer.Option("--out", help="The folder for everything.")] = Path("demo"),
) -> None:
    """The whole story on built-in sound: simulate, check, train, predict, evaluate, report.

    Nothing is downloaded and no GPU is needed. Example: `antpitta demo --out demo`
    """
    with training_progress() as progress:
        shown = api.demo(out, progress=progress)
    show_reports(shown.reports, "each stage against the whole truth of recordings it never saw")
    console.print(f"report  {shown.run.path / 'report.html'}", markup=False)
    console.print(f"model   {shown.run.model}", markup=False)
    console.print(f"found   {shown.found / 'events.csv'}", markup=False)


def simulate(
    clips: Annotated[Path, typer.Argument(help="A folder with one folder of clips a species.")],
    backgrounds: Annotated[Path, typer.Argument(help="A folder of background sound.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The data set's folder.")],
    train: Annotated[int, typer.Option(help="Training recordings.")] = 160,
    test: Annotated[int, typer.Option(help="Test recordings.")] = 80,
    seconds: Annotated[float, typer.Option(help="Length of a recording.")] = 60.0,
    rate: Annotated[int, typer.Option(help="Sample rate in Hz.")] = 32_000,
    present: Annotated[int, typer.Option(help="Present boxes a species, at most.")] = 12,
    absent: Annotated[int, typer.Option(help="Absent boxes a species, at most.")] = 75,
    seed: Annotated[int, typer.Option()] = 1,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace an older simulation there.")
    ] = False,
) -> None:
    """Make soundscapes of known truth, labelled as pattern matching and an expert would.

    Example: `antpitta simulate clips backgrounds -o soundscapes`
    """
    plan = api.SimulationConfig(train, test, seconds, rate, present, absent, seed)
    made, unusable = api.simulate(clips, backgrounds, out, plan, replace=replace)
    for finding in unusable:
        console.print(str(finding), markup=False)
    console.print(
        f"{made.train} training and {made.test} test recordings, {made.present} present and "
        f"{made.absent} absent boxes -> {made.data}",
        markup=False,
    )
    if unusable:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(demo)
    app.command()(simulate)
