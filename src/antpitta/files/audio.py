"""Sound from disk: what a file holds, and any part of it as samples.

- Only the part that is asked for is decoded, and a little around it, so that the resampler does
  not ring at its edges and parts join as if the file had been resampled as a whole.
- One channel is used, or all are averaged, those of opposite polarity after an inversion, so that
  none cancel. Polarity is decided once per recording: scores do not depend on how it is divided.
- Values that are not finite (a float WAV can have them) count as 0. Samples far beyond full scale
  are divided by the scale of the integers that they are, or by their peak.
- Lengths are measured, and not those of a header (files/audio_length.py).
- A file that is damaged gives what it still has. It is unreadable only if nothing decodes.
- Any failure on a file is an :class:`UnreadableAudio` of this file, by :func:`file_errors`. What
  the machine lacks (open files, memory) is never the file's: it ends the command.
- Undamaged FLAC files are decoded whole by dr_flac, in half the time of libFLAC with the same
  samples. dr_flac skips frames that do not decode without an error, so its result is taken only
  if it has as many samples as the header promises; libsndfile reads all other files. dr_flac is
  called through ``miniaudio``'s bindings, because miniaudio itself copies the samples and takes
  twice the memory.
"""

import hashlib
import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from miniaudio import ffi, lib
from numpy.typing import NDArray

from antpitta.core.errors import UserError, machine_failure
from antpitta.core.types import Recording
from antpitta.files.audio_length import displaced_part, measure_length, open_sound

SUFFIXES = frozenset(
    (".wav", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mpga")
) | frozenset((".aif", ".aiff", ".aifc", ".au", ".snd", ".caf"))
MAX_WHOLE_SAMPLES = 1 << 24  # of all channels: 64 MB; longer files are not decoded whole
TAIL = 0.5  # seconds: some codecs promise a few hundredths more than they give
NOT_FINITE = "has samples that are not finite, which count as silence"
BEYOND_SCALE = "has samples far beyond full scale, which are scaled down"
_MAX_PEAK = 8.0  # of full scale: recorders with float samples go a little beyond 1
_MAX_FLOAT = 1e30  # beyond it, sums of samples are not finite
_INTEGER_SCALES = (float(1 << 15), float(1 << 23), float(1 << 31))  # integers in a float file
_AS_LOUD = 0.8  # of the power of the loudest channel: the first such is the reference
_OPPOSITE = -0.8  # correlation of channels that cancel each other
_POLARITY_STRETCHES, _POLARITY_SECONDS = 4, 2.0  # that are compared, all over a recording
_MIN_RATE, _MAX_RATE = 1_000, 2_000_000  # Hz: outside, the header is broken
_MAX_SECONDS = 60 * 60 * 24 * 366  # a FLAC of unknown length claims 2**63 samples
_MARGIN = 0.05  # seconds around a part, longer than soxr's filter rings
_SEGMENT_BYTES = 1 << 28  # as much as a segment takes
_BLOCK_SAMPLES = 1 << 22  # decoded at once, of all channels
_DAMAGED_BLOCK = 1 << 9  # frames decoded at once where a file is damaged

Floats = NDArray[np.float32]


class UnreadableAudio(Exception):
    """A file that gives no sound; the text names the file and the reason."""


@contextmanager
def file_errors(path: Path, kinds: type[Exception] = Exception) -> Iterator[None]:
    """Turn every failure on a file into :class:`UnreadableAudio`: it is that file's own.

    Parameters
    ----------
    path : of the file that is opened or decoded in the block
    kinds : of errors that are the file's; others pass

    Yields
    ------
    None.

    Raises
    ------
    UnreadableAudio
        For any error but those of the user, of a store, or of the machine.
    UserError
        E_MACHINE.
    """
    try:
        yield
    except (UnreadableAudio, UserError):
        raise
    except kinds as error:
        if failure := machine_failure(error, path):
            raise failure from error
        if isinstance(error, MemoryError) and not _has_memory():
            raise
        raise UnreadableAudio(f"{path}: {_plain_reason(path, error)}") from error


def _has_memory() -> bool:
    """Whether the process can have as much as a segment takes; else no file is to blame."""
    try:
        return bool(np.empty(_SEGMENT_BYTES, np.uint8).size)
    except MemoryError:
        return False


def probe(path: Path, id: str, channel: int | None = None) -> Recording:
    """The recording in a file. Its length is measured (files/audio_length.py).

    Parameters
    ----------
    path : file of sound
    id : of the recording
    channel : the one to use, from 1; None for the mean of all

    Returns
    -------
    recording : with its sample rate, length and channels, but no site or time

    Raises
    ------
    UnreadableAudio
        The file is empty, no sound, has a broken header, or does not have this channel.
    """
    with file_errors(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableAudio(f"{path}: is no regular file")
        if not status.st_size:
            raise UnreadableAudio(f"{path}: is empty (0 bytes)")
        with open_sound(path) as file:
            rate, channels, frames = file.samplerate, file.channels, file.frames
        if not _MIN_RATE <= rate <= _MAX_RATE:
            raise UnreadableAudio(f"{path}: has an impossible sample rate of {rate} Hz")
        length = measure_length(path, max(0, frames), rate)
        if not channels or length.samples <= 0:
            raise UnreadableAudio(f"{path}: has a header but no samples")
        if length.samples / rate > _MAX_SECONDS:
            raise UnreadableAudio(f"{path}: has no length in its header; encode it again")
        header_samples = None if frames == length.samples == length.promised else length.promised
        if length.promised is None and frames != length.samples:
            header_samples = 0
        if channel is not None and not 1 <= channel <= channels:
            raise UnreadableAudio(f"{path}: has no channel {channel}, its last one is {channels}")
        recording = Recording(
            *(id, path, rate, length.samples, channels),
            header_samples=header_samples,
            channel=channel,
            gaps=displaced_part(length, rate),
        )
        if not _decodes_anywhere(recording):
            raise UnreadableAudio(f"{path}: has a header, but nothing in it decodes")
        return replace(recording, inverted=_opposite_channels(recording))


def _opposite_channels(recording: Recording) -> tuple[int, ...]:
    """The channels that would cancel the loudest one, by stretches all over the recording."""
    if recording.channels == 1 or recording.channel is not None:
        return ()
    length = round(_POLARITY_SECONDS * recording.sample_rate)
    last = max(0, recording.samples - length)
    starts = sorted({last * i // (_POLARITY_STRETCHES - 1) for i in range(_POLARITY_STRETCHES)})
    stretches: list[Floats] = []
    for start in starts:
        try:
            stretches += _blocks(recording, start, min(start + length, recording.samples), length)
        except (sf.SoundFileError, OSError):
            continue
    if not stretches:
        return ()
    signs = polarity(_to_full_scale(np.concatenate(stretches), []))
    return tuple(i + 1 for i in range(recording.channels) if signs[i] < 0)


def _decodes_anywhere(recording: Recording) -> bool:
    try:
        return any(True for _ in islice(_blocks(recording, 0, recording.samples, 1), 1))
    except (sf.SoundFileError, OSError):
        return _next_sound(recording, 0, recording.samples) is not None


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
    with file_errors(recording.path):
        sound = _decode(recording, first - lead, last + margin, problems)
        held = min(len(sound) - lead, last - first)  # less where the file was cut short
        if held <= 0:
            raise UnreadableAudio(f"{recording.path}: nothing decodes at {first / rate:.2f} s")
        if last - first - held > TAIL * rate:
            problems.append(f"is cut short after {(first + held) / rate:.2f} s")
        if rate != sample_rate:
            sound = soxr.resample(sound, rate, sample_rate, quality="HQ")
            lead = lead * sample_rate // rate
    is_complete = held == last - first and stop <= recording.duration
    length = round((stop - start) * sample_rate if is_complete else held * sample_rate / rate)
    sound = sound[lead : lead + length].astype(np.float32, copy=False)
    return sound if len(sound) == length else np.pad(sound, (0, length - len(sound)))


def read_or_silence(
    recording: Recording,
    start: float,
    stop: float,
    sample_rate: int,
    notes: list[str] | None = None,
) -> Floats:
    """As :func:`read`, but a part that does not decode is empty, with a note.

    Parameters
    ----------
    recording, start, stop, sample_rate, notes : as in :func:`read`

    Returns
    -------
    sound : (samples,); empty where nothing decodes
    """
    try:
        return read(recording, start, stop, sample_rate, notes)
    except UnreadableAudio:
        if notes is not None:
            notes.append(f"does not decode from {start:.2f} s on")
        return np.zeros(0, dtype=np.float32)


def read_samples(recording: Recording, first: int, last: int) -> Floats:
    """Decode samples of a file at its own rate, mono; what does not decode is silence.

    Parameters
    ----------
    recording : as from :func:`probe`
    first, last : samples of the file

    Returns
    -------
    sound : (last - first,)
    """
    try:
        with file_errors(recording.path):
            sound = _decode(recording, first, last, [])[: last - first]
    except UnreadableAudio:
        sound = np.zeros(0, dtype=np.float32)
    return np.pad(sound, (0, last - first - len(sound)))


def read_channels(recording: Recording, first: int, last: int) -> Floats:
    """Decode samples of every channel, up to the first that does not decode.

    Parameters
    ----------
    recording : as from :func:`probe`
    first, last : samples of the file

    Returns
    -------
    sound : (samples, channels), as it is in the file

    Raises
    ------
    UnreadableAudio
        Nothing decodes.
    """
    with file_errors(recording.path):
        blocks = list(_blocks(recording, first, last, _BLOCK_SAMPLES // recording.channels + 1))
        return np.concatenate(blocks) if blocks else np.zeros((0, recording.channels), np.float32)


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


def _decode(recording: Recording, first: int, last: int, notes: list[str]) -> Floats:
    """Frames ``first`` to ``last`` of the file as mono; damaged frames are silence."""
    if not first and last >= recording.samples:
        frames = read_whole(recording)
        if frames is not None:
            return to_mono(frames, recording)
    last = min(last, recording.samples)
    parts: list[Floats] = []
    large = max(_DAMAGED_BLOCK + 1, _BLOCK_SAMPLES // recording.channels)
    at, block = first, large
    while at < last:
        try:
            for frames in _blocks(recording, at, last, block):
                parts.append(to_mono(_to_full_scale(frames, notes), recording))
                at += len(frames)
            break
        except (sf.SoundFileError, OSError):
            if block > _DAMAGED_BLOCK:  # the whole block is lost, and its good sound too
                block = _DAMAGED_BLOCK
                continue
            after = _next_sound(recording, at, last)
            if after is None:
                if parts:
                    break
                raise
            rate = recording.sample_rate
            notes.append(f"is damaged: {at / rate:.2f} to {after / rate:.2f} s do not decode")
            parts.append(np.zeros(after - at, dtype=np.float32))
            at, block = after, large
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def _blocks(recording: Recording, first: int, last: int, block: int) -> Iterator[Floats]:
    """Frames (samples, channels) of a file, as long as it has any."""
    samples = None if recording.header_samples is None else recording.samples
    with open_sound(recording.path, samples) as file:
        if first:
            file.seek(first)
        while first < last:
            # With `out`, the library's own idea of what is left, which may be negative, is unused.
            frames = np.empty((min(block, last - first), recording.channels), dtype=np.float32)
            frames = file.read(out=frames)
            if not len(frames):
                return
            yield frames
            first += len(frames)


def _next_sound(recording: Recording, at: int, last: int) -> int | None:
    """The next frame after damage that decodes; None if there is none before ``last``."""
    step = _DAMAGED_BLOCK
    while at + step < last:
        try:
            if len(next(_blocks(recording, at + step, last, _DAMAGED_BLOCK), ())):
                return at + step
        except (sf.SoundFileError, OSError):
            pass
        step += max(_DAMAGED_BLOCK, step // 8)
    return None


def _to_full_scale(frames: Floats, notes: list[str]) -> Floats:
    """Bring samples of float files that are far beyond full scale into it."""
    peak = float(np.max(np.abs(frames), initial=0.0))
    if peak <= _MAX_PEAK:
        return frames
    usable = np.abs(frames) <= _MAX_FLOAT  # False for NaN
    if not usable.all():
        notes += [NOT_FINITE] if NOT_FINITE not in notes else []
        frames = np.where(usable, frames, np.float32(0))
        peak = float(np.max(np.abs(frames), initial=0.0))
    if peak > _MAX_PEAK:
        notes += [BEYOND_SCALE] if BEYOND_SCALE not in notes else []
        scale = next((s for s in _INTEGER_SCALES if peak <= s), peak)
        frames = frames / np.float32(scale)
    return frames


def to_mono(frames: Floats, recording: Recording) -> Floats:
    """The chosen channel, or the mean of all, some of them inverted.

    Parameters
    ----------
    frames : (samples, channels)
    recording : gives the channel, or those to invert

    Returns
    -------
    sound : (samples,)
    """
    if frames.shape[1] == 1:
        return frames[:, 0]
    if recording.channel is not None:
        return np.ascontiguousarray(frames[:, recording.channel - 1])
    if recording.inverted:
        signs = np.ones(frames.shape[1], dtype=np.float32)
        signs[[channel - 1 for channel in recording.inverted]] = -1
        frames = frames * signs
    mono: Floats = frames.mean(axis=1)
    return mono


def polarity(frames: Floats) -> Floats:
    """Whether channels have the polarity of the loudest one.

    Parameters
    ----------
    frames : (samples, channels)

    Returns
    -------
    signs : (channels,), -1 where a channel would cancel the loudest one, else 1
    """
    mean = frames.mean(axis=0, dtype=np.float64)
    covariance = (frames.T @ frames) / max(1, len(frames)) - np.outer(mean, mean)
    power = np.diagonal(covariance)
    loudest = int(np.argmax(power >= _AS_LOUD * power.max()))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance[loudest] / np.sqrt(power[loudest] * power)
    return np.where(correlation < _OPPOSITE, np.float32(-1), np.float32(1))


def _plain_reason(path: Path, error: Exception) -> str:
    """The message of libsndfile in plain words."""
    message = str(getattr(error, "error_string", None) or getattr(error, "strerror", None) or error)
    if "psf_fseek" in message:
        return "is cut short: its header promises more sound than there is"
    if any(words in message.lower() for words in ("not recognised", "regular file", "unspecified")):
        return f"is not {path.suffix.lstrip('.').upper() or 'sound'}, whatever its name says"
    if not isinstance(error, sf.SoundFileError | OSError):
        return f"cannot be decoded ({type(error).__name__}: {message[:200]})"
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
