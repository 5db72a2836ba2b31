"""The options that name a data set, and the commands init and check.

Every command that opens a data set takes the same options. They are listed once, as the parameters
of :func:`open_options`, and :func:`takes_data` gives them to a command.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from antpitta import api
from antpitta.cli.display import console, training_progress

if TYPE_CHECKING:
    from antpitta.api import OpenedDataset

MAX_FINDINGS = 20  # findings of one kind that are printed
PANEL = "Data options"

Data = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="An antpitta.toml, or a folder that holds one; this folder by default. Leave it out "
        "with data options.",
    ),
]
Audio = Annotated[
    list[Path] | None,
    typer.Option(
        "--audio",
        metavar="FOLDER",
        help="A folder of recordings; may be repeated.",
        rich_help_panel=PANEL,
    ),
]
Present = Annotated[
    list[Path] | None,
    typer.Option(
        "--present",
        metavar="TABLE",
        help="A table of boxes in which the species is present; may be repeated.",
        rich_help_panel=PANEL,
    ),
]
Absent = Annotated[
    list[Path] | None,
    typer.Option(
        "--absent",
        metavar="TABLE",
        help="A table of boxes in which the species is absent; may be repeated.",
        rich_help_panel=PANEL,
    ),
]
Annotations = Annotated[
    list[Path] | None,
    typer.Option(
        "--annotations",
        metavar="TABLE",
        help="A table of boxes with a column of verdicts; may be repeated.",
        rich_help_panel=PANEL,
    ),
]
Sites = Annotated[
    Path | None,
    typer.Option(
        "--sites",
        metavar="TABLE",
        help="A table with the columns recording, site and recorded_at. It overrides file names.",
        rich_help_panel=PANEL,
    ),
]
Names = Annotated[
    Path | None,
    typer.Option(
        "--names",
        metavar="TABLE",
        help="A table of species and their other names, such as scientific names.",
        rich_help_panel=PANEL,
    ),
]

Channel = Annotated[
    int | None,
    typer.Option(
        "--channel",
        metavar="NUMBER",
        help="The channel of each file, counted from 1; by default the mean of all, in which none "
        "cancels another.",
        rich_help_panel=PANEL,
    ),
]

Spectrograms = Annotated[
    list[Path] | None,
    typer.Option(
        "--spectrograms",
        metavar="FOLDER",
        help="A folder of spectrograms in dB, RECORDING.npy or .npz; may be repeated. They are "
        "read instead of all sound; recordings without one are left out.",
        rich_help_panel=PANEL,
    ),
]


def open_options(
    data: Data = None,
    audio: Audio = None,
    present: Present = None,
    absent: Absent = None,
    annotations: Annotations = None,
    sites: Sites = None,
    names: Names = None,
    channel: Channel = None,
    spectrograms: Spectrograms = None,
) -> "OpenedDataset":
    """Open the data set that DATA or the data options name.

    Parameters
    ----------
    data : the argument DATA
    audio, present, absent, annotations, sites, names, channel, spectrograms : the data options

    Returns
    -------
    OpenedDataset
        The data set.
    """
    return api.open_data(
        data,
        audio=audio or (),
        present=present or (),
        absent=absent or (),
        annotations=annotations or (),
        sites=sites,
        names=names,
        channel=channel,
        spectrograms=spectrograms or (),
    )


def takes_data(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command DATA and the data options; its parameter ``data`` is the opened data set.

    Parameters
    ----------
    command : a function with a keyword parameter ``data``

    Returns
    -------
    Callable
        The function that Typer registers.
    """
    own = dict(inspect.signature(command).parameters)
    del own["data"]
    data_options = inspect.signature(open_options).parameters
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*own.values(), *data_options.values())
    ]

    @wraps(command)
    def run(**values: Any) -> None:
        data = open_options(**{name: values.pop(name) for name in data_options})
        command(data=data, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def init(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="The folder that antpitta.toml is written to."),
    ] = Path(),
    audio: Audio = None,
    present: Present = None,
    absent: Absent = None,
    annotations: Annotations = None,
    sites: Sites = None,
    names: Names = None,
    channel: Channel = None,
    spectrograms: Spectrograms = None,
) -> None:
    """Write an antpitta.toml that names recordings and tables.

    Example: `antpitta init . --audio recordings --present present.csv --absent absent.csv`
    """
    path = api.init(
        folder,
        audio=audio or (),
        present=present or (),
        absent=absent or (),
        annotations=annotations or (),
        sites=sites,
        names=names,
        channel=channel,
        spectrograms=spectrograms or (),
    )
    console.print(f"wrote {path}")


@takes_data
def check(
    *,
    data: "OpenedDataset",
    sound: Annotated[
        bool,
        typer.Option("--sound/--no-sound", help="Decode every recording to find damaged files."),
    ] = True,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            "-o",
            metavar="FILE",
            help="Draw the labelled recordings of each species (.svg or .png).",
        ),
    ] = None,
) -> None:
    """Report every problem in a data set, with file and row, and how much of it is labelled.

    The exit code is 1 if a problem would make a trained model wrong.

    Example: `antpitta check --audio recordings --present present.csv --absent absent.csv`
    """
    with training_progress() as progress:
        checked = api.check(data, sound=sound, picture=picture, progress=progress)
    serious = [finding for finding in checked.findings if finding.serious]
    minor = [finding for finding in checked.findings if not finding.serious]
    for title, findings in (("error", serious), ("warning", minor)):
        for finding in findings[:MAX_FINDINGS]:
            console.print(f"{title}: {finding}")
        if len(findings) > MAX_FINDINGS:
            console.print(f"{title}: and {len(findings) - MAX_FINDINGS} more")
    console.print(checked.summary)
    if checked.picture:
        console.print(f"picture  {checked.picture}")
    if serious:
        raise typer.Exit(1)
