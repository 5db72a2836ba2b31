"""The command that listens: predict."""

from pathlib import Path
from typing import Annotated

import typer

from antpitta import api
from antpitta.cli.show import console, listening


def predict(
    model: Annotated[Path, typer.Argument(help="A model, or the run that holds it.")],
    audio: Annotated[list[Path], typer.Argument(help="Folders or files of sound.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the tables are written.")],
    form: Annotated[
        str, typer.Option("--format", help="Of the events: csv, parquet, or both.")
    ] = "csv",
    prevalence: Annotated[
        Path | None,
        typer.Option("--prevalence", help="A table species,prevalence to rescale presence.csv to."),
    ] = None,
) -> None:
    """Listen to recordings: presence.csv, events.csv, quarantine.csv and run.json.

    Example: `antpitta predict run/model recordings -o found`
    """
    with listening() as voice:
        found = api.predict_to(
            model,
            audio,
            out,
            formats=tuple(name.strip() for name in form.split(",") if name.strip()),
            prevalence=prevalence,
            tick=lambda done, total: voice.tick("recordings", done, total, float("nan")),
        )
    console.print(
        f"{len(found.presence)} recordings, {len(found.events)} events -> {out}", markup=False
    )
    if len(found.quarantine):
        console.print(
            f"{len(found.quarantine)} files could not be read: {out / 'quarantine.csv'}",
            markup=False,
        )
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(predict)
