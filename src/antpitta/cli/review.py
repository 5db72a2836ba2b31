"""The commands review and clips, which put detections in front of a person."""

from pathlib import Path
from typing import Annotated

import typer

from antpitta import api
from antpitta.cli.display import console


def review(
    queue: Annotated[
        str,
        typer.Argument(metavar="QUEUE", help="The folder of a queue, or the URL of its database."),
    ],
    audio: Annotated[
        list[Path],
        typer.Option("--audio", metavar="FOLDER", help="A folder of the recordings; repeatable."),
    ],
    reviewers: Annotated[
        list[str] | None,
        typer.Option(
            "--reviewer",
            metavar="NAME",
            help="Who gives verdicts; repeatable. Each gets an address of their own. Without any"
            " name: the user of this computer, as an expert.",
        ),
    ] = None,
    experts: Annotated[
        list[str] | None,
        typer.Option(
            "--expert", metavar="NAME", help="A reviewer who may resolve conflicts; repeatable."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A model or a run: one of the two pictures is what it reads. From a run, the page "
            "can train the next model.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", metavar="NUMBER", help="The port to listen on.")
    ] = 8765,
) -> None:
    """Open the page on which people look at candidates, listen, and give verdicts.

    The page is served to this computer only. Every verdict is stored at once.

    Example: `antpitta review queue --audio recordings`
    """
    server = api.review(
        queue,
        audio,
        reviewers=reviewers or (),
        experts=experts or (),
        model=model,
        port=port,
    )
    for name, address in server.addresses.items():
        console.print(f"{name}: {address}", soft_wrap=True)
    console.print(f"{server.recordings} recordings. Ctrl-C ends the server.")
    try:
        server.serve()
    except KeyboardInterrupt:
        console.print("The server has ended. Every verdict that the page showed as stored is kept.")


def clips(
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="A folder that predict wrote, or its table of events."),
    ],
    audio: Annotated[
        list[Path],
        typer.Option("--audio", metavar="FOLDER", help="A folder of the recordings; repeatable."),
    ],
    folder: Annotated[
        Path, typer.Option("--out", "-o", metavar="CLIPS", help="The folder for the clips.")
    ],
    species: Annotated[
        list[str] | None,
        typer.Option("--species", metavar="NAME", help="Only this species; repeatable."),
    ] = None,
    most: Annotated[
        int, typer.Option("--most", metavar="NUMBER", help="Most clips of a species.")
    ] = 50,
    margin: Annotated[
        float, typer.Option("--margin", help="Seconds before and after a detection.")
    ] = 1.0,
) -> None:
    """Write sound and picture of detections as files, one folder a species, the best first.

    clips.csv lists them with an empty column of verdicts, and can be filled in and trained on.

    Example: `antpitta clips out --audio recordings -o clips`
    """
    result = api.clips(out, audio, folder, species=species or (), most=most, margin=margin)
    console.print(f"{len(result.clips)} clips of {result.species} species -> {folder}")
    for file, reason in result.left_out:
        console.print(f"left out: {file}: {reason}", markup=False)
    if result.left_out:
        raise typer.Exit(1)
