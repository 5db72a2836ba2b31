"""The commands about data: init, check."""

from pathlib import Path
from typing import Annotated, Any

import typer

from antpitta import api
from antpitta.cli.display import console, training_progress

MANY = 20  # findings of one kind that are printed

Audio = Annotated[list[Path] | None, typer.Option("--audio", help="A folder of recordings.")]
Present = Annotated[
    list[Path] | None, typer.Option("--present", help="A table of boxes that hold the species.")
]
Absent = Annotated[
    list[Path] | None, typer.Option("--absent", help="A table of boxes that do not.")
]
Tables = Annotated[
    list[Path] | None,
    typer.Option("--annotations", help="A table with verdicts of its own, in any known format."),
]
Sites = Annotated[
    Path | None, typer.Option("--sites", help="A table: recording, site, began; overrides names.")
]
Names = Annotated[
    Path | None,
    typer.Option("--names", help="A table: species, then other names; a network may know them."),
]
Data = Annotated[Path | None, typer.Argument(help="An antpitta.toml, or a folder that holds one.")]


def opened(
    data: Path | None,
    audio: list[Path] | None,
    present: list[Path] | None,
    absent: list[Path] | None,
    annotations: list[Path] | None,
    sites: Path | None,
    names: Path | None,
) -> Any:
    """The data set that DATA or the flags speak of."""
    return api.open_data(
        data,
        audio=audio or (),
        present=present or (),
        absent=absent or (),
        annotations=annotations or (),
        sites=sites,
        names=names,
    )


def init(
    folder: Annotated[Path, typer.Argument(help="Where antpitta.toml is written.")] = Path(),
    audio: Audio = None,
    present: Present = None,
    absent: Absent = None,
    annotations: Tables = None,
    sites: Sites = None,
    names: Names = None,
) -> None:
    """Write an antpitta.toml that names recordings and tables.

    Example: `antpitta init . --audio recordings --present tp.csv --absent fp.csv`
    """
    path = api.init(
        folder,
        audio=audio or (),
        present=present or (),
        absent=absent or (),
        annotations=annotations or (),
        sites=sites,
        names=names,
    )
    console.print(f"wrote {path}")


def check(
    data: Data = None,
    audio: Audio = None,
    present: Present = None,
    absent: Absent = None,
    annotations: Tables = None,
    sites: Sites = None,
    names: Names = None,
    sound: Annotated[
        bool, typer.Option("--sound/--no-sound", help="Decode every recording to find bad sound.")
    ] = True,
    picture: Annotated[
        Path | None, typer.Option("--picture", "-o", help="Where 'what supervises what' is drawn.")
    ] = None,
) -> None:
    """Examine a data set: every problem with file and row, and what supervises what.

    Example: `antpitta check --audio train --present train_tp.csv --absent train_fp.csv`
    """
    given = opened(data, audio, present, absent, annotations, sites, names)
    with training_progress() as progress:
        checked = api.check(given, sound=sound, picture=picture, progress=progress)
    serious = [finding for finding in checked.findings if finding.serious]
    minor = [finding for finding in checked.findings if not finding.serious]
    for title, findings in (("serious", serious), ("worth a look", minor)):
        for finding in findings[:MANY]:
            console.print(f"{title}: {finding}", markup=False)
        if len(findings) > MANY:
            console.print(f"{title}: and {len(findings) - MANY} more")
    console.print(checked.summary, markup=False)
    if checked.picture:
        console.print(f"what supervises what: {checked.picture}", markup=False)
    if serious:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(init)
    app.command()(check)
