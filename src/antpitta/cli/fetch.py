"""The command fetch: known embedding models, and bringing one into the cache."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from antpitta import api
from antpitta.cli.display import console, new_table, resumable, training_progress

if TYPE_CHECKING:
    from antpitta.api import ListedModel


def fetch(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A known model. Without it: list the known models."),
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", "--yes", help="Accept the licence of the model.")
    ] = False,
) -> None:
    """Fetch an embedding model for `train --recipe embedding`, pinned by its digest.

    Example: `antpitta fetch perch-2`
    """
    listed = api.list_embedding_models()
    if name is None:
        _show(listed)
        return
    for entry in listed:
        is_named = name in (entry.model.name, entry.model.alias)
        if is_named and entry.model.downloads and not entry.accepted:
            accept_licence = _ask(entry, accept_licence)
    with resumable("the same command"), training_progress() as progress:
        entry = api.fetch(name, accept_licence=accept_licence, progress=progress)
    console.print(f"{entry.path}")
    console.print(
        f"use it: antpitta train DATA -o RUN --recipe embedding --set embedding.model={name}"
    )


def _show(listed: "tuple[ListedModel, ...]") -> None:
    columns = ("name", "licence", "commercial use", "classes", "MB to fetch", "on this machine")
    table = new_table("embedding models", columns, text_columns=3)
    notes = []
    for entry in listed:
        model = entry.model
        size = f"{model.size / 1e6:.0f}" if model.downloads else "-"
        commercial = "allowed" if model.commercial else "forbidden"
        here = "yes" if entry.path else "no"
        table.add_row(model.name, model.licence, commercial, f"{model.classes:,}", size, here)
        if not model.downloads:
            notes.append(f"{model.name} is only in old versions of {' or '.join(model.packages)}")
    console.print(table)
    for note in (*notes, "antpitta fetch NAME brings one into the cache"):
        console.print(note)


def _ask(entry: "ListedModel", accept_licence: bool) -> bool:
    """Show the licence; whether the user accepts it, who is asked only on a terminal."""
    model = entry.model
    use = "allows" if model.commercial else "forbids"
    console.print(f"{model.title}, {model.classes:,} classes: {model.size / 1e6:.0f} MB")
    console.print(f"licence: {model.licence}, which {use} commercial use; {model.licence_page}")
    if accept_licence or sys.stdin is None or not sys.stdin.isatty():
        return accept_licence
    return typer.confirm("Do you accept this licence?")
