"""The command candidates."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from antpitta import api
from antpitta.cli.data import MAX_FINDINGS
from antpitta.cli.display import console, training_progress


def candidates(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="OUT",
            help="Folders that predict or match wrote, or tables of BirdNET-Analyzer, Raven, "
            "Audacity, Kaleidoscope or Arbimon.",
        ),
    ],
    queue: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="QUEUE",
            help="Folder of the queue, made if missing, or a URL such as "
            "postgresql://user@host/name.",
        ),
    ],
    audio: Annotated[
        list[Path] | None,
        typer.Option(
            "--audio",
            metavar="FOLDER",
            help="A folder of the recordings; may be repeated. By default the files that the "
            "tables name.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="RUN",
            help="A run or a model whose networks score the candidates one by one, so that --teach "
            "and the page know where they disagree.",
        ),
    ] = None,
    teach: Annotated[
        int,
        typer.Option(
            "--teach",
            metavar="N",
            min=0,
            help="Draw this many candidates that a model learns most from.",
        ),
    ] = 0,
    audit: Annotated[
        int,
        typer.Option(
            "--audit",
            metavar="N",
            min=0,
            help="Draw this many candidates of each species at random within strata of the score, "
            "to estimate errors. Their verdicts train no model until they are released.",
        ),
    ] = 0,
    merge_gap: Annotated[
        float,
        typer.Option(
            "--merge-gap",
            metavar="SECONDS",
            min=0.0,
            help="Detections of a species that are this close become one candidate.",
        ),
    ] = 0.5,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random draws.")] = 0,
) -> None:
    """Put detections of any source into a queue, and draw what people are to listen to.

    Without --teach and --audit all new candidates are drawn, the highest scores first. A queue may
    be filled again at any time: what it has already is not added twice.

    Example: `antpitta candidates out -o queue --audio recordings --audit 60`
    """
    with training_progress() as progress:
        result = api.candidates(
            sources,
            queue,
            audio=audio or (),
            model=model,
            teach=teach,
            audit=audit,
            merge_gap=merge_gap,
            seed=seed,
            progress=progress,
        )
    known = f", {result.known} known before" if result.known else ""
    console.print(
        f"{result.added} new candidates{known}: {result.species} species in {result.recordings} "
        f"recordings -> {result.queue}"
    )
    if result.verdicts:
        console.print(f"{result.verdicts} verdicts of the tables")
    for draw in result.draws:
        console.print(f"draw {draw['id']} ({draw['purpose']}): {draw['items']} candidates")
    if not result.draws:
        console.print("nothing new to draw")
    for finding in result.findings[:MAX_FINDINGS]:
        console.print(f"left out: {finding}")
    if len(result.findings) > MAX_FINDINGS:
        console.print(f"left out: and {len(result.findings) - MAX_FINDINGS} more findings")
    folders = [shlex.quote(str(folder)) for folder in audio or ()] or ["AUDIO"]
    words = [shlex.quote(result.queue), *(f"--audio {folder}" for folder in folders)]
    console.print(f"open it with: antpitta review {' '.join(words)}", markup=False, soft_wrap=True)
    if result.findings:
        raise typer.Exit(1)
