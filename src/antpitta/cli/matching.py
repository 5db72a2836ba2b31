"""The command ``match``."""

from pathlib import Path
from typing import Annotated

import typer

from antpitta import api
from antpitta.cli.display import console, prediction_progress, resumable
from antpitta.cli.prediction import ChannelOption, OutputOption


def match(
    templates: Annotated[
        Path,
        typer.Argument(
            metavar="TEMPLATES",
            help="A table of boxes around example calls, whose recordings lie in its folder or in"
            " AUDIO; or a data set, whose present boxes are used.",
        ),
    ],
    audio: Annotated[
        list[str],
        typer.Argument(
            metavar="AUDIO", help="Files and folders of recordings, or s3:// and gs:// URLs."
        ),
    ],
    out: OutputOption,
    threshold: Annotated[
        float, typer.Option("--threshold", help="The lowest score of a match, up to 1.")
    ] = 0.2,
    most: Annotated[
        int,
        typer.Option(
            "--most", metavar="NUMBER", help="Matches of a recording and species, at most."
        ),
    ] = 3,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAMES",
            help="Formats of the matches, separated by commas: csv, parquet, raven, audacity,"
            " kaleidoscope.",
        ),
    ] = "csv",
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="The recipe whose spectrogram or embedding model is used: its name, or the path"
            " of a TOML file.",
        ),
    ] = "rfcx",
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting, such as features.n_mels=256; may be repeated.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue a stopped search; only new or changed files are searched."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="NUMBER", help="Number of threads.", show_default="one per core"
        ),
    ] = None,
    channel: ChannelOption = None,
) -> None:
    """Find sounds that resemble example boxes, by template matching or by embeddings.

    Writes events.csv (the matches, with empty verdicts), presence.csv (the highest score of each
    recording and species), quarantine.csv and run.json. A score is a correlation from -1 to 1, or
    with --recipe embedding the cosine between embeddings.

    Example: `antpitta match examples.csv recordings -o matches`
    """
    with resumable(), prediction_progress() as progress:
        result = api.match(
            templates,
            audio,
            out,
            threshold=threshold,
            most=most,
            formats=tuple(name.strip() for name in formats.split(",") if name.strip()),
            recipe=recipe,
            changes=tuple(changes or ()),
            resume=resume,
            workers=workers,
            channel=channel,
            progress=progress,
        )
    counts = result.counts
    console.print(f"{counts.recordings} recordings, {counts.events} matches -> {out}")
    for note in result.notes:
        console.print(f"left out: {note}")
    if counts.quarantined:
        text = f"{counts.quarantined} files could not be read completely"
        console.print(f"{text}: {out.rstrip('/')}/quarantine.csv")
    if counts.quarantined or result.notes:
        raise typer.Exit(1)
