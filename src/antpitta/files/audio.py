"""Sound from disk: what the header of a file gives, and any part of it as samples.

- Only the part that is asked for is decoded, and a little around it, so that the resampler does
  not ring at its edges and parts join as if the file had been resampled as a whole.
- Channels are averaged. Values that are not finite (a float WAV can have them) count as 0.
- A file that is cut short gives what it still has. It is unreadable only if nothing decodes.
- Undamaged FLAC files are decoded whole by dr_flac, in half the time of libFLAC with the same
  samples. dr_flac skips frames that do not decode without an error, so its result is taken only
  if it has as many samples as the header promises; libsndfile reads all other files. dr_flac is
  called through ``miniaudio``'s bindings, because miniaudio itself copies the samples and takes
  twice the memory.
"""

import hashlib
import math
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from miniaudio import ffi, lib
from numpy.typing import NDArray

from antpitta.core.types import Recording

SUFFIXES = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mpga", ".aif", ".aiff", ".au", ".w64")
)
MAX_WHOLE_SAMPLES = 1 << 24  # of all channels: 64 MB; longer files are not decoded whole
TAIL = 0.5  # seconds: some codecs promise a few hundredths more than they give
NOT_FINITE = "has samples that are not finite, which count as silence"
_MIN_RATE, _MAX_RATE = 1_000, 2_000_000  # Hz: outside, the header is broken
_MAX_SECONDS = 60 * 60 * 24 * 366  # a FLAC of unknown length claims 2**63 samples
_MARGIN = 0.05  # seconds around a part, longer than soxr's filter rings
_BLOCK_SAMPLES = 1 << 22  # decoded at once, of all channels
_DAMAGED_BLOCK = 1 << 9  # frames decoded at once where a file is damaged

Floats = NDArray[np.float32]


class UnreadableAudio(Exception):
    """A file that gives no sound; the text names the file and the reason."""


def probe(path: Path, id: str) -> Recording:
    """The recording in a file, from its header.

    A file that is cut short passes: the header of a FLAC still promises what is missing.

    Parameters
    ----------
    path : file of sound
    id : of the recording

    Returns
    -------
    recording : with its sample rate, length and channels, but no site or time

    Raises
    ------
    UnreadableAudio
        The file is empty, no sound, or has a broken header.
    """
    try:
        size = path.stat().st_size
        if not size:
            raise UnreadableAudio(f"{path}: is empty (0 bytes)")
        header = sf.info(path)
    except OSError as error:
        raise UnreadableAudio(f"{path}: {error.strerror or error}") from error
    except sf.SoundFileError as error:
        raise UnreadableAudio(f"{path}: {_plain_reason(path, error)}") from error
    rate, samples = header.samplerate, header.frames
    if not header.channels or not samples:
        raise UnreadableAudio(f"{path}: has a header but no samples")
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise UnreadableAudio(f"{path}: has an impossible sample rate of {rate} Hz")
    if not 0 < samples / rate <= _MAX_SECONDS:
        raise UnreadableAudio(f"{path}: has no length in its header; encode it again")
    return Recording(id, path, rate, samples, header.channels)


def read(
    recording: Recording,
    start: float,
    stop: float,
    sample_rate: int,
    notes: list[str] | None = None,
) -> Floats:
    """Decode a part of a recording, mono.

    Parameters
    ----------
    recording : as from :func:`probe`
    start, stop : seconds; what lies beyond the end of the recording is left out
    sample_rate : of the result, in Hz
    notes : a list to which problems of sound that is returned all the same are added

    Returns
    -------
    sound : (samples,); ``round((stop - start) * sample_rate)`` inside the recording, whatever
        the rate of the file

    Raises
    ------
    UnreadableAudio
        The header promises sound and none decodes.
    ValueError
        The part is reversed, or begins before the file.
    """
    if not 0 <= start <= stop:
        raise ValueError(f"{recording.id}: cannot read from {start} to {stop} s")
    rate = recording.sample_rate
    first = min(round(start * rate), recording.samples)
    last = recording.samples if stop >= recording.duration else round(stop * rate)
    if last <= first:
        return np.zeros(0, dtype=np.float32)
    step = rate // math.gcd(rate, sample_rate)  # frames of the file that make whole samples
    margin = 0 if rate == sample_rate else math.ceil(_MARGIN * rate / step) * step
    lead = min(margin, first // step * step)
    problems = [] if notes is None else notes
    sound = _decode(recording, first - lead, last + margin, problems)
    held = min(len(sound) - lead, last - first)  # less where the file was cut short
    if held <= 0:
        raise UnreadableAudio(f"{recording.path}: nothing decodes at {first / rate:.2f} s")
    if last - first - held > TAIL * rate:
        problems.append(f"is cut short after {(first + held) / rate:.2f} s")
    if rate != sample_rate:
        sound = soxr.resample(sound, rate, sample_rate, quality="HQ")
        lead = lead * sample_rate // rate
    whole = held == last - first and stop <= recording.duration
    length = round((stop - start) * sample_rate if whole else held * sample_rate / rate)
    sound = sound[lead : lead + length].astype(np.float32, copy=False)
    return sound if len(sound) == length else np.pad(sound, (0, length - len(sound)))


def content_key(path: Path) -> str:
    """A digest of the file's bytes, whatever the file is called.

    Parameters
    ----------
    path : any file

    Returns
    -------
    key : 40 hexadecimal digits
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()


def _decode(
    recording: Recording, first: int, last: int, notes: list[str], block: int = 0
) -> Floats:
    """Frames ``first`` to ``last`` of the file, or up to where it breaks, as mono."""
    if not first and last >= recording.samples and not block:
        whole = read_whole(recording)
        if whole is not None:
            return _to_mono(whole)
    block = block or max(_DAMAGED_BLOCK + 1, _BLOCK_SAMPLES // recording.channels)
    parts: list[Floats] = []
    try:
        with sf.SoundFile(recording.path) as file:
            check_finite = not file.subtype.startswith("PCM")  # integers are finite
            if first:
                file.seek(first)
            while first < last:
                frames = file.read(min(block, last - first), dtype="float32", always_2d=True)
                if not len(frames):
                    break
                if check_finite and not np.isfinite(frames).all():
                    notes += [NOT_FINITE] if NOT_FINITE not in notes else []
                    np.nan_to_num(frames, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
                parts.append(_to_mono(frames))
                first += len(frames)
    except (sf.SoundFileError, OSError) as error:
        if block > _DAMAGED_BLOCK:  # the whole block is lost, and its good sound too
            try:
                parts.append(
                    _decode(recording, first, min(last, first + block), notes, _DAMAGED_BLOCK)
                )
            except UnreadableAudio:
                if not parts:
                    raise
        elif not parts:
            raise UnreadableAudio(
                f"{recording.path}: {_plain_reason(recording.path, error)}"
            ) from None
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def _to_mono(frames: Floats) -> Floats:
    return frames.mean(axis=1) if frames.shape[1] > 1 else frames[:, 0]


def _plain_reason(path: Path, error: Exception) -> str:
    """The message of libsndfile in plain words."""
    message = str(getattr(error, "error_string", error))
    if "psf_fseek" in message:
        return "is cut short: its header promises more sound than there is"
    if any(words in message.lower() for words in ("not recognised", "regular file", "unspecified")):
        return f"is not {path.suffix.lstrip('.').upper() or 'sound'}, whatever its name says"
    return message.removeprefix("Error : ").rstrip(".")


def read_whole(recording: Recording) -> Floats | None:
    """Decode all of a FLAC file.

    Parameters
    ----------
    recording : as from :func:`probe`

    Returns
    -------
    sound : (samples, channels); None where the file is not FLAC, or large, or damaged
    """
    large = recording.samples * recording.channels > MAX_WHOLE_SAMPLES
    if large or recording.path.suffix.lower() != ".flac":
        return None
    try:
        small = recording.path.stat().st_size <= 4 * MAX_WHOLE_SAMPLES
        encoded = recording.path.read_bytes() if small else b""
    except OSError:
        return None
    flac = lib.ma_dr_flac_open_memory(ffi.from_buffer(encoded), len(encoded), ffi.NULL)
    if not flac:
        return None
    try:
        header = (flac.sampleRate, flac.totalPCMFrameCount, flac.channels)
        if header != (recording.sample_rate, recording.samples, recording.channels):
            return None
        sound = np.empty((recording.samples, recording.channels), dtype=np.float32)
        buffer = ffi.cast("float *", sound.ctypes.data)
        decoded = lib.ma_dr_flac_read_pcm_frames_f32(flac, recording.samples, buffer)
    finally:
        lib.ma_dr_flac_close(flac)
    return sound if decoded == recording.samples else None
