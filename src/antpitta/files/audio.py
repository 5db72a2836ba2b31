"""Sound from disk: what a file holds, told from its header, and a stretch of it as samples.

- Only the stretch asked for is decoded, and a little around it, so that the resampler does not
  ring at its edges and stretches join as if the file had been resampled as a whole.
- Channels are averaged, and what is not a number (a float WAV can hold such) counts as 0.
- A file cut short gives what it still holds. It is unreadable only where nothing comes out.

Undamaged FLAC files, decoded whole by dr_flac: half of libFLAC's time, the same samples.

dr_flac passes over frames that do not decode, without a word, so its answer is taken only where it
has as many samples as the header promises. libsndfile tells what is wrong with all other files.

It is called as ``miniaudio`` calls it, but for two things: the file is read at once, and the
samples are decoded to where they stay. miniaudio copies them, and asks for twice the memory.
"""

import hashlib
import math
from datetime import datetime
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
_LOWEST, _HIGHEST = 1_000, 2_000_000  # Hz: beyond, the header is broken, not the recorder odd
_LONGEST = 60 * 60 * 24 * 366  # seconds: a FLAC of unknown length claims 2**63 samples
_EDGE = 0.05  # seconds around a stretch, longer than soxr's filter rings
_BLOCK = 1 << 22  # samples decoded at once, of all channels
_SMALL = 1 << 9  # frames decoded at once where a file is damaged

TAIL = 0.5  # seconds: some codecs promise a few hundredths more than they give
NO_NUMBERS = "holds samples that are no numbers, which were taken for silence"

Floats = NDArray[np.float32]


class UnreadableAudio(Exception):
    """A file that gives no sound, and why; the text names the file."""


def probe(path: Path, id: str, site: str | None = None, began: datetime | None = None) -> Recording:
    """The recording at ``path`` as its header tells. Raises UnreadableAudio, with a plain reason.

    A file that was cut short passes: a FLAC's header still promises what is gone.
    """
    try:
        size = path.stat().st_size
        if not size:
            raise UnreadableAudio(f"{path}: is empty (0 bytes)")
        told = sf.info(path)
    except OSError as trouble:
        raise UnreadableAudio(f"{path}: {trouble.strerror or trouble}") from trouble
    except sf.SoundFileError as trouble:
        raise UnreadableAudio(f"{path}: {_reason(path, trouble)}") from trouble
    if not told.channels or not told.frames:
        raise UnreadableAudio(f"{path}: holds no samples, only a header")
    if not _LOWEST <= told.samplerate <= _HIGHEST:
        raise UnreadableAudio(f"{path}: claims {told.samplerate} samples a second")
    if not 0 < told.frames / told.samplerate <= _LONGEST:
        raise UnreadableAudio(f"{path}: its header does not tell its length; encode it anew")
    return Recording(id, path, told.samplerate, told.frames, told.channels, site, began)


def read(
    recording: Recording,
    start: float,
    stop: float,
    sample_rate: int,
    notes: list[str] | None = None,
) -> Floats:
    """The sound from ``start`` to ``stop``, mono: (samples,) at ``sample_rate``.

    A stretch inside the recording gives ``round((stop - start) * sample_rate)`` samples at
    any rate of the file, one that reaches beyond the end gives what there is: nothing, where
    it begins there. What is wrong with sound that is given all the same is added to ``notes``.
    Raises UnreadableAudio where the header promises sound and none decodes,
    and ValueError for a stretch that is reversed or begins before the file does.
    """
    if not 0 <= start <= stop:
        raise ValueError(f"{recording.id}: cannot read from {start} to {stop} s")
    rate = recording.sample_rate
    first = min(round(start * rate), recording.samples)
    last = recording.samples if stop >= recording.duration else round(stop * rate)
    if last <= first:
        return np.zeros(0, dtype=np.float32)
    step = rate // math.gcd(rate, sample_rate)  # frames of the file that make whole samples
    edge = 0 if rate == sample_rate else math.ceil(_EDGE * rate / step) * step
    lead = min(edge, first // step * step)
    troubles = [] if notes is None else notes
    sound = _decode(recording, first - lead, last + edge, troubles)
    here = min(len(sound) - lead, last - first)  # less where the file was cut short
    if here <= 0:
        raise UnreadableAudio(f"{recording.path}: nothing to decode at {first / rate:.2f} s")
    if last - first - here > TAIL * rate:
        troubles.append(f"is cut short: nothing after {(first + here) / rate:.2f} s")
    if rate != sample_rate:
        sound = soxr.resample(sound, rate, sample_rate, quality="HQ")
        lead = lead * sample_rate // rate
    whole = here == last - first and stop <= recording.duration
    length = round((stop - start) * sample_rate if whole else here * sample_rate / rate)
    sound = sound[lead : lead + length].astype(np.float32, copy=False)
    return sound if len(sound) == length else np.pad(sound, (0, length - len(sound)))


def content_key(path: Path) -> str:
    """A name for the file's bytes: equal bytes, equal name, whatever the file is called."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()


def _decode(
    recording: Recording, first: int, last: int, notes: list[str], block: int = 0
) -> Floats:
    """Frames ``first`` to ``last`` of the file, or up to where it breaks, as mono."""
    if not first and last >= recording.samples and not block:
        whole = read_whole(recording)
        if whole is not None:
            return _mono(whole)
    block = block or max(_SMALL + 1, _BLOCK // recording.channels)
    parts: list[Floats] = []
    try:
        with sf.SoundFile(recording.path) as file:
            doubtful = not file.subtype.startswith("PCM")  # whole numbers are all numbers
            if first:
                file.seek(first)
            while first < last:
                frames = file.read(min(block, last - first), dtype="float32", always_2d=True)
                if not len(frames):
                    break
                if doubtful and not np.isfinite(frames).all():
                    notes += [NO_NUMBERS] if NO_NUMBERS not in notes else []
                    np.nan_to_num(frames, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
                parts.append(_mono(frames))
                first += len(frames)
    except (sf.SoundFileError, OSError) as trouble:
        if block > _SMALL:  # a block is lost whole, with the good sound before the break
            try:
                parts.append(_decode(recording, first, min(last, first + block), notes, _SMALL))
            except UnreadableAudio:
                if not parts:
                    raise
        elif not parts:
            raise UnreadableAudio(f"{recording.path}: {_reason(recording.path, trouble)}") from None
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def _mono(frames: Floats) -> Floats:
    return frames.mean(axis=1) if frames.shape[1] > 1 else frames[:, 0]


def _reason(path: Path, trouble: Exception) -> str:
    """What libsndfile says, in plain words."""
    told = str(getattr(trouble, "error_string", trouble))
    if "psf_fseek" in told:
        return "is cut short: its header promises more sound than there is"
    if "not recognised" in told or "regular file" in told or "unspecified" in told.lower():
        return f"is not {path.suffix.lstrip('.').upper() or 'sound'}, whatever its name says"
    return told.removeprefix("Error : ").rstrip(".")


LARGEST = 1 << 24  # samples of all channels: 64 MB, and no more of the file


def read_whole(recording: Recording) -> NDArray[np.float32] | None:
    """All of a recording, (samples, channels); None where it is no FLAC, or large, or damaged."""
    large = recording.samples * recording.channels > LARGEST
    if large or recording.path.suffix.lower() != ".flac":
        return None
    try:
        small = recording.path.stat().st_size <= 4 * LARGEST
        encoded = recording.path.read_bytes() if small else b""
    except OSError:
        return None
    flac = lib.ma_dr_flac_open_memory(ffi.from_buffer(encoded), len(encoded), ffi.NULL)
    if not flac:
        return None
    try:
        told = (flac.sampleRate, flac.totalPCMFrameCount, flac.channels)
        if told != (recording.sample_rate, recording.samples, recording.channels):
            return None
        found = np.empty((recording.samples, recording.channels), dtype=np.float32)
        place = ffi.cast("float *", found.ctypes.data)
        held = lib.ma_dr_flac_read_pcm_frames_f32(flac, recording.samples, place)
    finally:
        lib.ma_dr_flac_close(flac)
    return found if held == recording.samples else None
