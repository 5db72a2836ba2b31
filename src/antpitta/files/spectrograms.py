"""Spectrograms that another program computed, read instead of sound.

- A file holds one recording: ``<recording id>.npy`` or ``.npz`` with one array of decibels, (bands,
  frames), from the lowest band up, with the settings of :data:`~antpitta.core.features.DUMP`. These
  are Theo Viel's spectrograms of the RFCX competition, (128, 3751) for a minute.
- Nothing but the header is read when a file is opened. ``.npy`` files are mapped into memory, and
  only the frames that are asked for are read. Pickled objects are never loaded.
- The length of the recording follows from the number of frames; the first and the last one are
  centred on its ends.
- float16, float32 and float64 are read as float32. Values that are not finite make a file
  unreadable: features are scaled by the least and the greatest value.
"""

import math
import stat
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from antpitta.core.errors import Finding, UserError, list_names
from antpitta.core.features import DUMP
from antpitta.core.types import Recording
from antpitta.files.audio import UnreadableAudio, file_errors, probe, read, read_or_silence
from antpitta.files.texts import utf8_text

SPECTROGRAM_SUFFIXES = frozenset((".npy", ".npz"))
REMEDY = f"write it again as float32 decibels of shape ({DUMP.n_mels}, frames), or leave it out"
_FLOAT_SIZES = (2, 4, 8)  # bytes of a value
_MAX_DECIBELS = 1000.0  # no decibels of sound are as far from 0
_LENGTH_TOLERANCE = 0.1  # seconds between the sound and its spectrogram
_SECONDS = DUMP.hop_length / DUMP.sample_rate  # of a frame

Floats = NDArray[np.float32]


def probe_spectrogram(path: Path, id: str) -> Recording:
    """The recording that a spectrogram is of; only its header is read.

    Parameters
    ----------
    path : a ``.npy`` or ``.npz`` file
    id : of the recording

    Returns
    -------
    recording : with the length of the spectrogram, and no site or time

    Raises
    ------
    UnreadableAudio
        The file is no array, or none of this shape and type; the text names the file.
    """
    with file_errors(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableAudio(f"{path}: is no regular file")
        if not status.st_size:
            raise UnreadableAudio(f"{path}: is empty (0 bytes)")
        frames, _ = _header(path)
    samples = (frames - 1) * DUMP.hop_length
    return Recording(id, path, DUMP.sample_rate, samples, spectrogram=path)


def read_decibels(recording: Recording, start: float, stop: float) -> Floats:
    """Read a part of a spectrogram.

    Parameters
    ----------
    recording : as from :func:`probe_spectrogram`
    start, stop : seconds; whole frames

    Returns
    -------
    decibels : (frames, bands), the frames centred from ``start`` to ``stop``, both included

    Raises
    ------
    UnreadableAudio
        The file cannot be read any more, or holds values that are not finite or no decibels.
    """
    path = recording.source
    first, last = round(start / _SECONDS), round(stop / _SECONDS)
    with file_errors(path):
        array = _open(path)
        part = array[:, first : last + 1]
        if part.shape[1] != last + 1 - first:
            raise UnreadableAudio(f"{path}: has {array.shape[1]} frames, and had more before")
        decibels = np.ascontiguousarray(part.T, dtype=np.float32)
        usable = np.abs(decibels) <= _MAX_DECIBELS  # False for NaN
        if not usable.all():
            frame, band = np.argwhere(~usable)[0].tolist()
            value = decibels[frame, band]
            where = f"at {start + frame * _SECONDS:.3f} s in band {band}"
            raise UnreadableAudio(f"{path}: holds {value:g} {where}, which is no level in dB")
    return decibels


def read_input(
    recording: Recording,
    start: float,
    stop: float,
    sample_rate: int,
    notes: list[str] | None = None,
) -> Floats:
    """Read a part of a recording: sound, or decibels if it is a spectrogram.

    Parameters
    ----------
    recording, start, stop, sample_rate, notes : as in :func:`antpitta.files.audio.read`

    Returns
    -------
    values : (samples,) of sound, or (frames, bands) of a spectrogram

    Raises
    ------
    UnreadableAudio
        As :func:`antpitta.files.audio.read` and :func:`read_decibels` do.
    """
    if recording.spectrogram is not None:
        return read_decibels(recording, start, stop)
    return read(recording, start, stop, sample_rate, notes)


def read_training_input(
    recording: Recording,
    start: float,
    stop: float,
    sample_rate: int,
    notes: list[str] | None = None,
) -> Floats:
    """As :func:`read_input`, but sound that does not decode is empty.

    Parameters
    ----------
    recording, start, stop, sample_rate, notes : as in :func:`read_input`

    Returns
    -------
    values : as from :func:`read_input`

    Raises
    ------
    UserError
        E_SPECTROGRAM_UNREADABLE: a part of a spectrogram that holds no decibels.
    """
    if recording.spectrogram is None:
        return read_or_silence(recording, start, stop, sample_rate, notes)
    try:
        return read_decibels(recording, start, stop)
    except UnreadableAudio as error:
        raise UserError("E_SPECTROGRAM_UNREADABLE", str(error), REMEDY) from None


def check_spectrograms(
    recordings: Sequence[Recording], annotated: Collection[str]
) -> Iterator[Finding]:
    """Read whole spectrograms and report what their headers do not tell.

    Parameters
    ----------
    recordings : in the order of the findings; those of sound are left out
    annotated : ids of recordings with boxes, in which values that cannot be used are serious

    Yields
    ------
    findings : those of each spectrogram, in order, then one about rounded values
    """
    rounded = []
    for recording in recordings:
        if recording.spectrogram is None:
            continue
        serious = recording.id in annotated
        for code, what, remedy, bad in _problems(recording):
            path = utf8_text(str(recording.source))
            yield Finding(code, path, None, what, remedy, serious and bad)
        if _is_half(recording.source):
            rounded.append(recording.id)
    if rounded:
        what = f"{len(rounded)} spectrograms are float16, which rounds decibels to 0.06"
        what = f"{what}: {list_names(rounded, 5)}"
        home = next(r.source.parent for r in recordings if r.id == rounded[0])
        yield Finding(
            "W_SPECTROGRAM_VALUES", utf8_text(str(home)), None, what, "write them as float32", False
        )


def _problems(recording: Recording) -> Iterator[tuple[str, str, str, bool]]:
    """Code, text and remedy of each problem of a spectrogram, and whether it makes it useless."""
    path = recording.source
    try:
        decibels = read_decibels(recording, 0.0, recording.duration)
    except UnreadableAudio as error:
        what = str(error).removeprefix(f"{path}: ")
        yield "W_SPECTROGRAM_UNREADABLE", what, REMEDY, True
        return
    least, greatest = float(decibels.min()), float(decibels.max())
    if greatest - least <= 1e-6:
        remedy = "check the program that made it, and leave the recording out"
        yield "W_SPECTROGRAM_VALUES", f"every value is {least:g} dB", remedy, True
    elif least >= 0:
        what = f"its values are {least:g} to {greatest:g}, and decibels of sound go below 0"
        yield "W_SPECTROGRAM_VALUES", what, "check that these are decibels", False
    if recording.path != path:
        try:
            seconds = probe(recording.path, recording.id).duration
        except UnreadableAudio:  # the sound is not used
            return
        if abs(seconds - recording.duration) > _LENGTH_TOLERANCE:
            what = f"it is {recording.duration:.2f} s long, {recording.path} is {seconds:.2f} s"
            remedy = f"compute spectrograms with a hop length of {DUMP.hop_length} at 32 kHz"
            yield "W_SPECTROGRAM_LENGTH", what, remedy, True


def _is_half(path: Path) -> bool:
    try:
        with file_errors(path):
            return _header(path)[1].itemsize == 2
    except UnreadableAudio:
        return False


def _header(path: Path) -> tuple[int, np.dtype[Any]]:
    """The frames of a file's array and their type; its values are not read."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            member = _member(path, archive)
            with archive.open(member) as file:
                return _read_header(path, file, member.file_size)
    with path.open("rb") as file:
        return _read_header(path, file, path.stat().st_size)


def _open(path: Path) -> NDArray[Any]:
    """The array of a file, (bands, frames), after a check of its header."""
    if not zipfile.is_zipfile(path):
        return _map(path)
    with zipfile.ZipFile(path) as archive:
        member = _member(path, archive)
        with archive.open(member) as file:
            _read_header(path, file, member.file_size)
        with archive.open(member) as file:
            array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array


def _member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        names = list_names((member.filename for member in members), 3)
        raise UnreadableAudio(f"{path}: holds {len(members)} arrays ({names}), one is expected")
    return members[0]


def _map(path: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file, mapped into memory."""
    _header(path)
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _read_header(path: Path, file: IO[bytes], size: int) -> tuple[int, np.dtype[Any]]:
    """Frames and type of an array of ``size`` bytes; UnreadableAudio if it is no spectrogram."""
    try:
        version = npy.read_magic(file)
        read_shape = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_shape(file)
    except Exception:  # any bytes may be in a file of this name
        raise UnreadableAudio(f"{path}: is no array of NumPy") from None
    if dtype.hasobject or dtype.names:
        raise UnreadableAudio(f"{path}: holds Python objects or records, not float32")
    if dtype.kind != "f" or dtype.itemsize not in _FLOAT_SIZES:
        raise UnreadableAudio(f"{path}: holds values of type {dtype.name}, not float32")
    expected = f"({DUMP.n_mels}, frames) is expected"
    if len(shape) != 2 or shape[0] != DUMP.n_mels:
        transposed = len(shape) == 2 and shape[1] == DUMP.n_mels
        hint = ": frames and bands are exchanged" if transposed else ""
        raise UnreadableAudio(f"{path}: has the shape {shape}, and {expected}{hint}")
    if shape[1] < 2:
        raise UnreadableAudio(f"{path}: has {shape[1]} frames, and at least 2 are needed")
    promised = file.tell() + math.prod(shape) * dtype.itemsize
    if size != promised:
        verb = "is cut short" if size < promised else "is too long"
        raise UnreadableAudio(
            f"{path}: {verb}: its header promises {promised} bytes, and there are {size}"
        )
    return int(shape[1]), dtype
