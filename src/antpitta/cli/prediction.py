"""The command that listens: predict."""

from pathlib import Path
from typing import Annotated

import typer

from antpitta import api
from antpitta.cli.display import console, prediction_progress, resumable
from antpitta.core.config import Executor, InferenceMode, Precision


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
            help="Of the events, parted by commas: csv, parquet, raven, audacity, kaleidoscope,"
            " camtrapdp.",
        ),
    ] = "csv",
    prevalence: Annotated[
        Path | None,
        typer.Option("--prevalence", help="A table species,prevalence to rescale presence.csv to."),
    ] = None,
    deployments: Annotated[
        Path | None,
        typer.Option(
            "--deployments", help="A table site,latitude,longitude,timezone for camtrapdp."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped there.")
    ] = False,
    inference: Annotated[
        InferenceMode,
        typer.Option(
            "--inference",
            help="whole images; or overlapping windows: exact as in training, and slow.",
        ),
    ] = "full",
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision",
            help="auto: f32 or bf16, the faster here. int8: faster still, where the model has it.",
        ),
    ] = "auto",
    executor: Annotated[
        Executor,
        typer.Option("--executor", help="local, or ray: on as many machines as a cluster has."),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Threads, or actors with ray; one a core unless given."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help="With ray: a cluster that runs, or auto to find it."),
    ] = None,
) -> None:
    """Listen to recordings: presence.csv, events.csv, quarantine.csv and run.json.

    Example: `antpitta predict run/model recordings -o found`

    On a cluster: `antpitta predict run/model s3://season -o found --executor ray --address auto`
    """
    with resumable(), prediction_progress() as tick:
        found = api.predict_to(
            model,
            audio,
            out,
            formats=tuple(name.strip() for name in form.split(",") if name.strip()),
            prevalence=prevalence,
            deployments=deployments,
            resume=resume,
            inference=inference,
            precision=precision,
            executor=executor,
            workers=workers,
            address=address,
            tick=tick,
        )
    counts = found.counts
    console.print(f"{counts.recordings} recordings, {counts.events} events -> {out}", markup=False)
    if counts.quarantined:
        console.print(
            f"{counts.quarantined} files could not be read: {out.rstrip('/')}/quarantine.csv",
            markup=False,
        )
    if unplaced := len(found.unplaced):
        console.print(
            f"{unplaced} recordings are not in camtrapdp: {out.rstrip('/')}/unplaced.csv",
            markup=False,
        )
    if counts.quarantined or unplaced:
        raise typer.Exit(1)
