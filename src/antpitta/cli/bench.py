"""The command bench: how fast this machine predicts."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from antpitta import api
from antpitta.cli.display import console, new_table, training_progress


def bench(
    audio: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="AUDIO",
            help="Recordings or folders. Without any: simulated minutes at 48 kHz.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="MODEL", help="A model or a run. Without one: an untrained network."
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", help="Minutes of sound for each precision.")
    ] = 60.0,
) -> None:
    """Measure how fast this machine predicts, in each precision. It takes about a minute.

    Example: `antpitta bench --model run/model recordings`
    """
    with training_progress() as progress:
        result = api.bench(audio or (), model=model, minutes=minutes, progress=progress)
    columns = ("precision", "x real time", "time for a day of sound", "first result after")
    title = f"predict with {result.model}: {result.minutes:.0f} minutes of sound"
    table = new_table(title, columns)
    for row in result.table.to_dict("records"):
        day = timedelta(seconds=round(row["day"]))
        table.add_row(row["precision"], f"{row['speed']:.0f}", str(day), f"{row['first']:.1f} s")
    console.print(table)
    console.print(result.machine)
