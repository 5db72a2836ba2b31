"""The command ``predict``."""

from pathlib import Path
from typing import Annotated

import typer

from antpitta import api
from antpitta.cli.display import console, prediction_progress, resumable
from antpitta.core.config import Executor, InferenceMode, Precision
from antpitta.core.errors import list_names

OutputOption = Annotated[
    str,
    typer.Option("--out", "-o", metavar="FOLDER", help="Output folder, or an s3:// or gs:// URL."),
]
ChannelOption = Annotated[
    int | None,
    typer.Option(
        "--channel",
        metavar="NUMBER",
        help="The channel of each file, counted from 1; by default the mean of all, in which"
        " none cancels another.",
    ),
]


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A model (RUN/model), or the folder of a run or an ensemble."
        ),
    ],
    out: OutputOption,
    audio: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="AUDIO",
            help="Files and folders of recordings, or s3:// and gs:// URLs.",
            show_default=False,
        ),
    ] = None,
    spectrograms: Annotated[
        list[Path] | None,
        typer.Option(
            "--spectrograms",
            metavar="FOLDER",
            help="A folder of spectrograms in dB, RECORDING.npy or .npz; may be repeated. They are"
            " read instead of all sound: AUDIO beside them only gives file names, sites and times,"
            " and what has no spectrogram is left out.",
        ),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAMES",
            help="Formats of the events, separated by commas: csv, parquet, raven, audacity,"
            " kaleidoscope, camtrapdp.",
        ),
    ] = "csv",
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="NUMBER",
            help="One threshold for all species, above 0 and up to 1, instead of the model's.",
        ),
    ] = None,
    expect_precision: Annotated[
        float | None,
        typer.Option(
            "--expect-precision",
            metavar="NUMBER",
            help="For each species the lowest threshold that reached this precision on its boxes,"
            " out of fold. Species whose boxes do not support one have a conservative threshold,"
            " and are named.",
        ),
    ] = None,
    species: Annotated[
        list[str] | None,
        typer.Option(
            "--species",
            metavar="NAMES",
            help="Only these species, separated by commas; may be repeated.",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            metavar="NUMBER",
            help="Of each species at most so many events in a recording, those with the highest"
            " scores at or above the threshold.",
        ),
    ] = None,
    prevalence: Annotated[
        Path | None,
        typer.Option(
            "--prevalence",
            metavar="TABLE",
            help="Table with columns species and prevalence (share of recordings). The scores in"
            " presence.csv are rescaled to it.",
        ),
    ] = None,
    deployments: Annotated[
        Path | None,
        typer.Option(
            "--deployments",
            metavar="TABLE",
            help="Table with columns site, latitude, longitude and timezone: the sites and time"
            " zones of the events. --format camtrapdp requires it.",
        ),
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(
            "--submission",
            metavar="SAMPLE",
            help="A sample submission: recording_id and one column a species. submission.csv has"
            " its rows and columns; recordings without scores get the mean of each species.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue a stopped run; only new or changed files are computed."
        ),
    ] = False,
    inference: Annotated[
        InferenceMode,
        typer.Option(
            "--inference",
            help="full: whole segments of up to a minute. sliding: overlapping windows as in"
            " training; several times slower, float32 only.",
        ),
    ] = "full",
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision",
            help="float32, or bfloat16 or int8, which may be faster and give slightly other scores."
            " int8 only if the model offers it.",
        ),
    ] = "float32",
    channel: ChannelOption = None,
    executor: Annotated[
        Executor,
        typer.Option("--executor", help="local: this machine. ray: all machines of a Ray cluster."),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="NUMBER",
            help="Number of threads (with ray: of actors).",
            show_default="one per core",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="With ray: address of a running cluster, or auto.",
        ),
    ] = None,
) -> None:
    """Apply a model to recordings.

    Writes presence.csv, events.csv, quarantine.csv and run.json, with --submission submission.csv.

    Example: `antpitta predict run/model recordings -o out`

    On a cluster: `antpitta predict run/model s3://season -o out --executor ray --address auto`
    """
    with resumable(), prediction_progress() as progress:
        prediction = api.predict_to(
            model,
            audio or [],
            out,
            spectrograms=spectrograms or (),
            formats=tuple(name.strip() for name in formats.split(",") if name.strip()),
            threshold=threshold,
            expect_precision=expect_precision,
            species=tuple(species or ()),
            top=top,
            prevalence=prevalence,
            deployments=deployments,
            submission=submission,
            resume=resume,
            inference=inference,
            precision=precision,
            executor=executor,
            workers=workers,
            address=address,
            channel=channel,
            progress=progress,
        )
    counts, unplaced = prediction.counts, len(prediction.unplaced)
    console.print(f"{counts.recordings} recordings, {counts.events} events -> {out}")
    for note in prediction.notes:
        console.print(note)
    folder = out.rstrip("/")
    if counts.quarantined:
        text = f"{counts.quarantined} files could not be read completely"
        console.print(f"{text}: {folder}/quarantine.csv")
    if unplaced:
        console.print(f"{unplaced} recordings are not in camtrapdp: {folder}/unplaced.csv")
    if filled := prediction.filled:
        text = f"{len(filled)} recordings of the sample have no scores but the mean of each species"
        console.print(f"{text}: {list_names(filled)}", markup=False)
        console.print(f"{folder}/run.json lists all of them")
    if counts.quarantined or unplaced or filled:
        raise typer.Exit(1)
