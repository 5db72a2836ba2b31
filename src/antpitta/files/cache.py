"""Features on the disk, so that audio is decoded once and not in every epoch.

One ``.npy`` file per recording, keyed by the digest of the feature settings, the content of the
audio file or spectrogram, and the channel that is used: a renamed recording is found again, a
changed one is computed anew. Files are read as memory maps. Behind the array is what was wrong with
the sound, as JSON, so that it is known each time. Each file ends with a checksum of all its bytes,
which is compared whenever features are read: a damaged one is computed anew.
"""

import io
import json
import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antpitta.core.errors import UserError
from antpitta.core.progress import ProgressCallback, no_progress
from antpitta.core.types import Recording
from antpitta.files.audio import content_key
from antpitta.files.texts import atomic_replace, is_regular_file

FeatureArray = NDArray[Any]  # (frames of all segments of a recording, bands or values)
CACHED_TYPES = (np.uint8, np.float16)  # of spectrograms, of embeddings
CHECKSUM_SIZE = 16  # bytes at the end of a file


def cache_folder() -> Path:
    """The folder of cached features: $ANTPITTA_CACHE, or one in the user's cache folder."""
    if chosen := os.environ.get("ANTPITTA_CACHE"):
        return Path(chosen)
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # neither HOME nor an entry of this user
        what, remedy = "this user has no home folder", "set ANTPITTA_CACHE to a folder"
        raise UserError("E_CACHE_NOT_WRITABLE", what, remedy) from None
    return Path(base) / "antpitta"


def check_cache() -> None:
    """Refuse a cache that cannot be written, before anything else is.

    Raises
    ------
    UserError
        E_CACHE_NOT_WRITABLE.
    """
    probe = cache_folder() / f".{uuid.uuid4().hex[:12]}"
    with _explain_errors(probe):
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"0")
        probe.unlink()


def cached_features(
    recordings: list[Recording],
    digest: str,
    compute: Callable[[Recording, list[str]], FeatureArray],
    *,
    notes: list[str] | None = None,
    folder: Path | None = None,
    workers: int = 2,
    progress: ProgressCallback = no_progress,
) -> list[FeatureArray]:
    """The features of each recording, computed where the cache has none.

    Parameters
    ----------
    recordings : in the order of the result
    digest : of the feature settings
    compute : called from several threads, with a recording and a list to which it adds what is
        wrong with the sound
    notes : a list to which this is added, also for features that the cache has
    folder : of the cache
    workers : threads
    progress : called with (recordings done, their number, NaN)

    Returns
    -------
    Memory maps, (frames, bands or values) each. A damaged file is computed anew.

    Raises
    ------
    UserError
        E_CACHE_NOT_WRITABLE.
    """
    home = (folder or cache_folder()) / digest
    lock, done = Lock(), 0

    def load_or_compute(recording: Recording) -> FeatureArray:
        nonlocal done
        path = home / f"{content_key(recording.source)}{recording.reading_key}.npy"
        features, problems = _load(path)
        if features is None:
            computed = compute(recording, problems)
            with _explain_errors(path):
                _save(computed, problems, path)
                features = np.load(path, mmap_mode="r")
        with lock:
            if notes is not None:
                notes.extend(problems)
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


def _load(path: Path) -> tuple[FeatureArray | None, list[str]]:
    """The features of a file and the notes behind them; None if it is missing or damaged."""
    if not is_regular_file(path):
        return None, []
    try:
        content = path.read_bytes()
        if _checksum(memoryview(content)[:-CHECKSUM_SIZE]) != content[-CHECKSUM_SIZE:]:
            return None, []
        features = np.load(path, mmap_mode="r")
        behind = content[features.offset + features.nbytes : -CHECKSUM_SIZE]
        notes = [str(note) for note in json.loads(behind)] if behind else []
    except (OSError, ValueError, EOFError):  # EOFError: an empty file
        return None, []
    if features.ndim != 2 or features.dtype not in CACHED_TYPES:
        return None, []
    return features, notes


def _save(features: FeatureArray, notes: list[str], path: Path) -> None:
    if os.path.lexists(path) and not is_regular_file(path):  # somebody's folder or link: kept
        path.rename(path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}"))
    content = io.BytesIO()
    np.save(content, features)
    if notes:
        content.write(json.dumps(list(dict.fromkeys(notes))).encode())
    with atomic_replace(path) as unfinished:
        unfinished.write_bytes(content.getvalue() + _checksum(content.getbuffer()))


def _checksum(content: memoryview) -> bytes:
    return blake2b(content, digest_size=CHECKSUM_SIZE).digest()


@contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UserError) as error:
        reason = error.what if isinstance(error, UserError) else str(error)
        raise UserError(
            "E_CACHE_NOT_WRITABLE",
            f"the cache of features cannot be written ({reason})",
            "free disk space, or set ANTPITTA_CACHE to a folder that can be written",
        ) from error
