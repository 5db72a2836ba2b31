"""Somebody's vectors of chosen windows, kept in the cache like spectrograms.

The engine is that of ``backbone = "embedding"`` (model/embedding.py), asked for one window at a
time: a recipe's vectors lie on a grid, a yardstick's lie where the boxes are.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antpitta.core.features import EmbeddingConfig
from antpitta.core.progress import ProgressCallback
from antpitta.core.types import Dataset, Recording
from antpitta.files.audio import content_key, read
from antpitta.files.cache import cached_features
from antpitta.files.embedding_models import KNOWN, find_embedding_model
from antpitta.files.species_names import match_embedding_classes
from antpitta.model.embedding import EmbeddingModel

Floats = NDArray[np.float32]
Starts = NDArray[np.floating]  # seconds


@dataclass(frozen=True)
class Embed:
    """Somebody's model as a function of sound."""

    seconds: float  # of a window
    # recordings and the starts of windows in each -> for each (windows, values)
    all: Callable[[Sequence[Recording], Sequence[Starts], ProgressCallback], list[Floats]]
    known: tuple[tuple[int, ...], ...] | None = None  # of core/features.py: the last values


def open_embed(name: str, dataset: Dataset) -> Embed:
    """The model of a name that is known, such as birdnet, or at a path.

    A known file is asked for its embedding wherever it lies, any other for its first output; a
    window is as long as BirdNET's, 3 s at 48 kHz. What it knows by itself stands last.
    Raises UserError where there is no such file, or it cannot be run.
    """
    file = Path(name).name
    known = KNOWN.get(name) or next((one for one in KNOWN.values() if one.file == file), None)
    embedding = EmbeddingConfig(model=name, output=known.vector if known else None)
    path = find_embedding_model(embedding)
    embedding = embedding.model_copy(update={"model_digest": content_key(path)})
    embedding = match_embedding_classes(embedding, dataset)
    hear = partial(_embed, EmbeddingModel(embedding, path))
    return Embed(embedding.seconds, hear, embedding.class_map)


def _embed(
    embedder: EmbeddingModel, recordings: Sequence[Recording], starts: Sequence[Starts], progress: ProgressCallback
) -> list[Floats]:
    found = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for value in pool.map(partial(_embed_one, embedder), recordings, starts):
            found.append(value)
            progress(len(found), len(recordings), float("nan"))
    return found


def _embed_one(embedder: EmbeddingModel, recording: Recording, starts: Starts) -> Floats:
    if not len(starts):
        return np.zeros((0, embedder.width), dtype=np.float32)
    key = hashlib.blake2b(starts.tobytes(), digest_size=8).hexdigest()
    rate, seconds = embedder.embedding.sample_rate, embedder.embedding.seconds

    def draw(one: Recording) -> NDArray[np.float16]:
        waves = (read(one, start, start + seconds, rate) for start in starts)
        return np.concatenate([embedder.draw(wave, 1) for wave in waves])

    digest = f"{embedder.embedding.digest}-{key}"
    (value,) = cached_features([recording], digest, draw, workers=1)
    return np.asarray(value, dtype=np.float32)
