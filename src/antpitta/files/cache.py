"""Features on the disk, so that audio is decoded once and not in every epoch.

One ``.npy`` file per recording, keyed by the digest of the feature settings, the content of the
audio file, and the channel that is used: a renamed recording is found again, a changed one is
computed anew. Files are read as memory maps.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antpitta.core.progress import ProgressCallback, no_progress
from antpitta.core.types import Recording
from antpitta.files.audio import content_key
from antpitta.files.texts import atomic_replace

FeatureArray = NDArray[Any]  # (frames of all segments of a recording, bands or values)
CACHED_TYPES = (np.uint8, np.float16)  # of spectrograms, of embeddings


def cache_folder() -> Path:
    """The folder of cached features: $ANTPITTA_CACHE, or one in the user's cache folder."""
    if chosen := os.environ.get("ANTPITTA_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "antpitta"


def cached_features(
    recordings: list[Recording],
    digest: str,
    compute: Callable[[Recording], FeatureArray],
    *,
    key_suffix: Callable[[Recording], str] = lambda recording: "",
    folder: Path | None = None,
    workers: int = 2,
    progress: ProgressCallback = no_progress,
) -> list[FeatureArray]:
    """The features of each recording, computed where the cache has none.

    Parameters
    ----------
    recordings : in the order of the result
    digest : of the feature settings
    compute : called from several threads
    key_suffix : what features depend on besides the settings and the file's content
    folder : of the cache
    workers : threads
    progress : called with (recordings done, their number, NaN)

    Returns
    -------
    Memory maps, (frames, bands or values) each. A damaged file is computed anew.
    """
    home = (folder or cache_folder()) / digest
    home.mkdir(parents=True, exist_ok=True)
    lock, done = Lock(), 0

    def load_or_compute(recording: Recording) -> FeatureArray:
        nonlocal done
        path = home / f"{content_key(recording.path)}{recording.mixing}{key_suffix(recording)}.npy"
        features = _load(path)
        if features is None:
            _save(compute(recording), path)
            features = np.load(path, mmap_mode="r")
        with lock:
            done += 1
            progress(done, len(recordings), float("nan"))
        return features

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(load_or_compute, recordings))


def cached_files(features: list[FeatureArray]) -> list[Path]:
    """The files of cached features, to send to another process.

    Parameters
    ----------
    features : memory maps from :func:`cached_features`

    Returns
    -------
    One path each.
    """
    return [Path(str(getattr(array, "filename"))) for array in features]  # noqa: B009


def load_features(files: list[Path]) -> list[FeatureArray]:
    """The inverse of :func:`cached_files`.

    Parameters
    ----------
    files : of cached features

    Returns
    -------
    Memory maps, (frames, bands or values) each.
    """
    return [np.load(path, mmap_mode="r") for path in files]


def _load(path: Path) -> FeatureArray | None:
    try:
        features: FeatureArray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # EOFError: an empty file
        return None
    return features if features.ndim == 2 and features.dtype in CACHED_TYPES else None


def _save(features: FeatureArray, path: Path) -> None:
    with atomic_replace(path) as unfinished:
        np.save(unfinished, features)
