"""The commands demo and simulate, which make their own recordings."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from antpitta import api
from antpitta.cli.display import console, show_reports, training_progress


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="A new folder for data, run and predictions."
        ),
    ] = Path("demo"),
) -> None:
    """Simulate recordings, train, predict, evaluate, report, and queue what to listen to.

    It downloads nothing and needs no GPU.

    Example: `antpitta demo --out demo`
    """
    with training_progress() as progress:
        result = api.demo(out, progress=progress)
    show_reports(result.reports, "each stage on the test recordings, against complete ground truth")
    console.print(f"report  {result.run.path / 'report.html'}")
    console.print(f"model   {result.run.model}")
    console.print(f"events  {result.predictions / 'events.csv'}")
    if result.queue is not None:
        audio = out / "data" / "test"
        command = f"{_program()} review {result.queue} --audio {audio} --model {result.run.path}"
        console.print("Judge what the model found on a page, by eye and ear:")
        console.print(f"  {command}", soft_wrap=True)


def _program() -> str:
    """What starts this program on a command line: its path where it is not found by its name."""
    path = sys.argv[0]
    return path if Path(path).name == "antpitta" and not shutil.which("antpitta") else "antpitta"


def simulate(
    clips: Annotated[
        Path, typer.Argument(metavar="CLIPS", help="A folder with one folder of clips a species.")
    ],
    backgrounds: Annotated[
        Path, typer.Argument(metavar="BACKGROUNDS", help="A folder of background sound.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="The new data set.")],
    train: Annotated[int, typer.Option("--train", help="Number of training recordings.")] = 160,
    test: Annotated[int, typer.Option("--test", help="Number of test recordings.")] = 80,
    seconds: Annotated[float, typer.Option("--seconds", help="Length of a recording.")] = 60.0,
    sample_rate: Annotated[int, typer.Option("--sample-rate", help="In Hz.")] = 32_000,
    present: Annotated[
        int, typer.Option("--present", help="Present boxes a species, at most.")
    ] = 12,
    absent: Annotated[int, typer.Option("--absent", help="Absent boxes a species, at most.")] = 75,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random numbers.")] = 1,
    channel: Annotated[
        int | None,
        typer.Option(
            "--channel",
            metavar="NUMBER",
            help="The channel of each file, counted from 1; by default the mean of all.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace an earlier simulation in the folder.")
    ] = False,
) -> None:
    """Simulate soundscapes with complete ground truth, from clips and background sound.

    The training boxes are a part of the truth, as template matching and an expert would find it.

    Example: `antpitta simulate clips backgrounds -o soundscapes`
    """
    plan = api.SimulationConfig(train, test, seconds, sample_rate, present, absent, seed)
    simulated, unusable = api.simulate(
        clips, backgrounds, out, plan, channel=channel, replace=replace
    )
    for finding in unusable:
        console.print(f"left out: {finding}")
    console.print(
        f"{simulated.train} training and {simulated.test} test recordings, {simulated.present} "
        f"present and {simulated.absent} absent boxes -> {simulated.data}"
    )
    if unusable:
        raise typer.Exit(1)
