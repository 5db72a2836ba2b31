"""Other names of the species, and the classes of an embedding model that have these names.

A table of names has a species column; every other column is a name: scientific, common, a code. A
species may have several rows, and so match several classes of a model, such as two treefrogs that
sound alike.

A model's labels are lines, one per class in the order of its logits. BirdNET's lines are
``Acris crepitans_Northern Cricket Frog``; a .csv has a header, and each of its cells is a name.
Names that are similar (core/identity.py) are equal here: ``fowlers-toad`` is Fowler's Toad.
"""

from collections.abc import Iterable
from pathlib import Path

from antpitta.core.errors import UserError, list_names
from antpitta.core.features import LABELS_BESIDE_MODEL, EmbeddingConfig
from antpitta.core.identity import clean_name, similar_key
from antpitta.core.types import Dataset
from antpitta.files.embedding_models import find_embedding_model
from antpitta.files.known_models import KNOWN
from antpitta.files.tables import read_frame
from antpitta.files.texts import read_text

_SPECIES = ("species", "species_id", "label", "class")


def read_species_names(table: Path) -> dict[str, tuple[str, ...]]:
    """The other names of each species of a table.

    Parameters
    ----------
    table : path of a table with a species column and columns of names

    Returns
    -------
    The names by species; empty for a species without any.

    Raises
    ------
    UserError
        E_MISSING_COLUMN where one of these columns is missing, or a code of `read_frame`.
    """
    frame = read_frame(table)
    columns = {str(name).strip().lower(): name for name in frame.columns}
    species = next((columns[name] for name in _SPECIES if name in columns), None)
    others = [name for name in frame.columns if name != species]
    if species is None or not others:
        raise UserError(
            "E_MISSING_COLUMN",
            f"{table}: the columns are {list_names(map(str, frame.columns))}",
            "give a column 'species' and at least one column of names",
        )
    names: dict[str, tuple[str, ...]] = {}
    for row in frame.to_dict("records"):
        label = clean_name(row[species])
        names[label] = (*names.get(label, ()), *(row[name] for name in others if row[name]))
    return names


def match_embedding_classes(embedding: EmbeddingConfig, dataset: Dataset) -> EmbeddingConfig:
    """Fill in ``class_map`` and ``n_model_classes`` where the model classifies our species.

    Parameters
    ----------
    embedding : names the model and its labels
    dataset : its classes and their other names

    Returns
    -------
    The embedding, unchanged where the model has no labels or none of the species.

    Raises
    ------
    UserError
        E_LABELS_WITHOUT_SPECIES or a code of `read_labels`, where the recipe gives a label file.
    """
    labels = _label_file(embedding)
    if labels is None:
        return embedding
    model_classes = read_labels(labels)
    names = dataset.classes.names
    class_map = match_species(
        model_classes, [(name, *dataset.aliases.get(name, ())) for name in names]
    )
    if any(class_map):
        matched = {"class_map": class_map, "n_model_classes": len(model_classes)}
        return embedding.model_copy(update=matched)
    if embedding.labels == LABELS_BESIDE_MODEL:
        return embedding
    raise UserError(
        "E_LABELS_WITHOUT_SPECIES",
        f"{labels}: the labels name none of the species {', '.join(names[:4])} ...",
        "give their other names with --names TABLE, or set embedding.labels=null",
    )


def read_labels(path: Path) -> tuple[tuple[str, ...], ...]:
    """Read the labels of an embedding model.

    Parameters
    ----------
    path : of a .csv with a header, or of a text file with one class per line

    Returns
    -------
    The names of each class, in the order of the model's first output.

    Raises
    ------
    UserError
        E_NO_LABELS.
    """
    if path.suffix.lower() == ".csv":
        frame = read_frame(path)
        classes = tuple(tuple(cell for cell in row if cell) for row in frame.to_numpy().tolist())
    else:
        lines = read_text(path).removeprefix("\ufeff").splitlines()
        classes = tuple((line.strip(), *line.strip().split("_")) for line in lines)
    if not any(map(any, classes)):
        raise UserError(
            "E_NO_LABELS",
            f"{path}: the file names no classes",
            "give one line for each class of the model",
        )
    return classes


def match_species(
    model_classes: Iterable[tuple[str, ...]], species: Iterable[tuple[str, ...]]
) -> tuple[tuple[int, ...], ...]:
    """The indices of the model's classes that share a name with each species.

    Parameters
    ----------
    model_classes : the names of each class of the model
    species : the names of each species

    Returns
    -------
    (species,) tuples of indices, empty for a species that the model does not classify.
    """
    indices: dict[str, set[int]] = {}
    for index, names in enumerate(model_classes):
        for name in names:
            indices.setdefault(similar_key(name), set()).add(index)
    indices.pop("", None)
    return tuple(
        tuple(sorted(set().union(*(indices.get(similar_key(name), set()) for name in names))))
        for names in species
    )


def _label_file(embedding: EmbeddingConfig) -> Path | None:
    """The file of labels; None where they are not wanted, or a known model has none beside it."""
    if embedding.labels != LABELS_BESIDE_MODEL:
        return None if embedding.labels is None else Path(embedding.labels)
    known = KNOWN.get(embedding.model)
    path = find_embedding_model(embedding).with_name(known.labels) if known else None
    return path if path is not None and path.is_file() else None
