"""Spectrograms and embeddings on the disk, so that an epoch never decodes audio.

One ``.npy`` a recording, keyed by the drawing's digest and by the sound's content: a renamed
file is found again, a changed one is not. Files are read through memory maps.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antpitta.core.types import Recording
from antpitta.files.audio import content_key
from antpitta.files.texts import atomic_replace

FeatureArray = NDArray[Any]  # (frames of all images of the recording, bands)
KINDS = (np.uint8, np.float16)  # of spectrograms, of embeddings


def cache_folder() -> Path:
    """Where pictures are kept: $ANTPITTA_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("ANTPITTA_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "antpitta"


def cached_features(
    recordings: list[Recording],
    digest: str,
    draw: Callable[[Recording], FeatureArray],
    *,
    plan: Callable[[Recording], str] = lambda recording: "",
    folder: Path | None = None,
    workers: int = 2,
    tick: Callable[[int], None] = lambda done: None,
) -> list[FeatureArray]:
    """The picture of each recording, drawn where the cache has none.

    ``plan`` names what else a picture is of besides the sound of its file.
    ``draw`` is called from several threads. A cache file that cannot be read is drawn again.
    """
    home = (folder or cache_folder()) / digest
    home.mkdir(parents=True, exist_ok=True)

    def fetch(recording: Recording) -> FeatureArray:
        path = home / f"{content_key(recording.path)}{plan(recording)}.npy"
        found = _load(path)
        if found is None:
            _save(draw(recording), path)
            found = np.load(path, mmap_mode="r")
        tick(1)
        return found

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(fetch, recordings))


def cached_files(pictures: list[FeatureArray]) -> list[Path]:
    """The files of pictures that :func:`cached_features` gave, to send to another process."""
    return [Path(str(getattr(picture, "filename"))) for picture in pictures]  # noqa: B009


def load_features(files: list[Path]) -> list[FeatureArray]:
    """The inverse of :func:`cached_files`."""
    return [np.load(path, mmap_mode="r") for path in files]


def _load(path: Path) -> FeatureArray | None:
    try:
        found: FeatureArray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # EOFError: an empty file
        return None
    return found if found.ndim == 2 and found.dtype in KINDS else None


def _save(picture: FeatureArray, path: Path) -> None:
    with atomic_replace(path) as part:
        np.save(part, picture)
