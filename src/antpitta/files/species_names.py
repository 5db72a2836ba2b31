"""What else our species are called, and which of a network's own classes they are by name.

A table of names has a species column, and every other column is a name: scientific, common, a
code. A species may have several rows, and so be several classes of a network, as two treefrogs are
that nobody tells apart by ear.

A network's labels are lines, one a class in the order of its first output. BirdNET's lines are
``Acris crepitans_Northern Cricket Frog``; a .csv has a header, and each of its cells is a name.
Names are equal whatever their case, hyphens and apostrophes: ``fowlers-toad`` is Fowler's Toad.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from antpitta.core.errors import UserError
from antpitta.core.features import LABELS_BESIDE_MODEL, EmbeddingConfig
from antpitta.core.types import Dataset
from antpitta.files.embedding_models import KNOWN, find_embedding_model
from antpitta.files.tables import read_frame
from antpitta.files.texts import read_text

_SPECIES = ("species", "species_id", "label", "class")


def read_species_names(table: Path) -> dict[str, tuple[str, ...]]:
    """What else each species of the table is called.

    Raises UserError where it has no column of species, or no other one.
    """
    frame = read_frame(table)
    columns = {str(name).strip().lower(): name for name in frame.columns}
    species = next((columns[name] for name in _SPECIES if name in columns), None)
    others = [name for name in frame.columns if name != species]
    if species is None or not others:
        raise UserError(
            "E_TODO",
            f"{table}: needs a column 'species' and one of names",
            f"it has {', '.join(map(str, frame.columns))}",
        )
    found: dict[str, tuple[str, ...]] = {}
    for row in frame.to_dict("records"):
        names = tuple(row[name] for name in others if row[name])
        found[row[species]] = (*found.get(row[species], ()), *names)
    return found


def match_embedding_classes(embedding: EmbeddingConfig, dataset: Dataset) -> EmbeddingConfig:
    """The embedding with those of the network's classes written into it that are species of ours.

    Nothing is written where none is. Raises UserError where labels were asked for by path and
    cannot be read, or name none of our species.
    """
    labels = _labels_of(embedding)
    if labels is None:
        return embedding
    classes = read_labels(labels)
    names = dataset.classes.names
    known = match_species(classes, [(name, *dataset.aliases.get(name, ())) for name in names])
    if any(known):
        told: dict[str, Any] = {"class_map": known, "n_model_classes": len(classes)}
        return embedding.model_copy(update=told)
    if embedding.labels == LABELS_BESIDE_MODEL:
        return embedding
    raise UserError(
        "E_TODO",
        f"{labels}: names none of the species {', '.join(names[:4])} ...",
        "tell what else they are called by --names TABLE, or set embedding.labels=null",
    )


def read_labels(path: Path) -> tuple[tuple[str, ...], ...]:
    """The names of each class of a network. Raises UserError where there are none."""
    if path.suffix.lower() == ".csv":
        frame = read_frame(path)
        classes = tuple(tuple(cell for cell in row if cell) for row in frame.to_numpy().tolist())
    else:
        lines = read_text(path).removeprefix("\ufeff").splitlines()
        classes = tuple((line.strip(), *line.strip().split("_")) for line in lines)
    if not any(map(any, classes)):
        raise UserError(
            "E_TODO", f"{path}: names no classes", "give a line for each class of the network"
        )
    return classes


def match_species(
    classes: Iterable[tuple[str, ...]], species: Iterable[tuple[str, ...]]
) -> tuple[tuple[int, ...], ...]:
    """For each species, by all its names, the places of its classes; none where it has none."""
    places: dict[str, set[int]] = {}
    for place, names in enumerate(classes):
        for name in names:
            places.setdefault(_plain(name), set()).add(place)
    places.pop("", None)
    return tuple(
        tuple(sorted(set().union(*(places.get(_plain(name), set()) for name in names))))
        for names in species
    )


def _labels_of(embedding: EmbeddingConfig) -> Path | None:
    """The file of labels; None where none are wanted, and none lie beside."""
    if embedding.labels != LABELS_BESIDE_MODEL:
        return None if embedding.labels is None else Path(embedding.labels)
    known = KNOWN.get(embedding.model)
    path = find_embedding_model(embedding).with_name(known.labels) if known else None
    return path if path is not None and path.is_file() else None


def _plain(name: str) -> str:
    """Small letters and digits; what parts words is a blank, an apostrophe nothing."""
    return re.sub(r"[\W_]+", " ", re.sub("['\u2019`]", "", name.casefold())).strip()
