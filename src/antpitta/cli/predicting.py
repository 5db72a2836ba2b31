"""The command that listens: predict."""

from pathlib import Path
from typing import Annotated

import typer

from antpitta import api
from antpitta.cli.show import console, scanning


def predict(
    model: Annotated[Path, typer.Argument(help="A model, or the run that holds it.")],
    audio: Annotated[
        list[str], typer.Argument(help="Folders or files of sound; s3:// and gs:// too.")
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Where the tables are written; s3:// and gs:// too.")
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="Of the events, parted by commas: csv, parquet, raven, audacity, kaleidoscope.",
        ),
    ] = "csv",
    prevalence: Annotated[
        Path | None,
        typer.Option("--prevalence", help="A table species,prevalence to rescale presence.csv to."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped there.")
    ] = False,
    engine: Annotated[
        str, typer.Option("--engine", help="local, or ray: many processes, on many machines.")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="With ray: how many listen; all processors, or all GPUs."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help="With ray: a cluster that runs, or auto to find it."),
    ] = None,
) -> None:
    """Listen to recordings: presence.csv, events.csv, quarantine.csv and run.json.

    Example: `antpitta predict run/model recordings -o found`

    On a cluster: `antpitta predict run/model s3://season/2025 -o found --engine ray --address auto`
    """
    try:
        with scanning() as tick:
            found = api.predict_to(
                model,
                audio,
                out,
                formats=tuple(name.strip() for name in form.split(",") if name.strip()),
                prevalence=prevalence,
                resume=resume,
                engine=engine,
                workers=workers,
                address=address,
                tick=tick,
            )
    except KeyboardInterrupt:
        console.print("stopped; the same command with --resume goes on from here")
        raise typer.Exit(130) from None
    counts = found.counts
    console.print(f"{counts.recordings} recordings, {counts.events} events -> {out}", markup=False)
    if counts.quarantined:
        console.print(
            f"{counts.quarantined} files could not be read: {out.rstrip('/')}/quarantine.csv",
            markup=False,
        )
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(predict)
