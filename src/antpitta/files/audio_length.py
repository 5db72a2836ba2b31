"""How much sound a file holds, measured in the file itself and compared with its header.

- WAV, AIFF, AU, CAF and W64: by their chunks (files/wav_chunks.py, files/sound_chunks.py).
- FLAC: the last frame of the file has its own number. It is found in the last bytes, without
  decoding.
- MP3: the length of a file with a Xing header is that of the header, unless the file has fewer
  frames. Without one, libsndfile estimates the length from the first frames, which is far off for
  a variable bit rate; then the frames are counted, which takes 20 ms for 10 minutes.
- OGG: its header makes no promise, but its last page is marked as the end.
- Other formats are left to libsndfile.

A file whose header is wrong is given to libsndfile as :func:`open_sound` corrects it: raw samples
of a WAV, a FLAC with another count of samples, an MP3 behind a Xing header that counts its frames.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import soundfile as sf

from antpitta.core.errors import machine_failure
from antpitta.files.mp3_frames import (
    TOLERANCE,
    id3_size,
    parse_mp3_header,
    read_mp3_frames,
    skip_id3,
)
from antpitta.files.sound_chunks import read_sound_chunks
from antpitta.files.wav_chunks import RIFF_NAMES, WavChunks, read_wav_chunks

_FLAC_TAIL = (1 << 16, 1 << 21)  # bytes in which the last frame is looked for
_FLAC_BLOCKS = {1: 192, **{n: 576 << (n - 2) for n in range(2, 6)}}
_FLAC_BLOCKS |= {n: 256 << (n - 8) for n in range(8, 16)}
_MP3_DELAY = 529  # samples at the start that mpg123 leaves out


@dataclass(frozen=True)
class SoundLength:
    """The length of the sound in a file.

    Parameters
    ----------
    samples : that the file holds
    promised : by the header; None where it makes no promise, 0 samples included
    displaced_from : the sample behind the damage of an MP3; None without damage
    """

    samples: int
    promised: int | None
    displaced_from: int | None = None


def displaced_part(length: SoundLength, sample_rate: int) -> tuple[tuple[float, float], ...] | None:
    """The part of a recording behind damage, whose sound is not at its time.

    Parameters
    ----------
    length : as from :func:`measure_length`
    sample_rate : Hz

    Returns
    -------
    parts : (start, stop) in seconds; None where there is no such part
    """
    if length.displaced_from is None or length.displaced_from >= length.samples:
        return None
    return ((length.displaced_from / sample_rate, length.samples / sample_rate),)


def measure_length(path: Path, header_samples: int, sample_rate: int) -> SoundLength:
    """Measure the sound in a file.

    Parameters
    ----------
    path : file of sound
    header_samples : by libsndfile, per channel
    sample_rate : Hz

    Returns
    -------
    length : that of libsndfile, unless the file itself shows another one
    """
    kind = _kind(path)
    slack = round(TOLERANCE * sample_rate)
    if (chunks := _read_chunks(path, kind)) is not None:
        return _length_by_chunks(chunks, header_samples)
    if kind == "flac":
        promised = _flac_header(path)[1] or None
        held = last_flac_sample(path)
        if held is None:
            held = _count_decoded(path)
        if promised is not None and abs(held - promised) <= slack:
            held = promised
        return SoundLength(held, promised)
    if kind == "mp3":
        return _length_of_mp3(path, header_samples, slack)
    return SoundLength(header_samples, header_samples)


def _length_by_chunks(chunks: WavChunks, header_samples: int) -> SoundLength:
    held = chunks.samples(chunks.held)
    if held is None:  # a codec, of which a file that is cut short has its share
        share = (chunks.promised or 0) / max(1, chunks.held)
        return SoundLength(header_samples, round(header_samples * max(1.0, share)))
    return SoundLength(held or header_samples, chunks.samples(chunks.promised))


def _length_of_mp3(path: Path, header_samples: int, slack: int) -> SoundLength:
    frames = read_mp3_frames(path)
    if abs(frames.samples - header_samples) <= slack or not frames.count:
        return SoundLength(header_samples, header_samples, frames.displaced_from)
    if frames.tagged is None:
        delay = _MP3_DELAY if header_samples < frames.samples else 0  # as in open_sound
        return SoundLength(max(1, frames.samples - delay), None, frames.displaced_from)
    promised = frames.tagged * frames.samples // frames.count
    held = min(frames.samples, header_samples)
    return SoundLength(held, promised, frames.displaced_from)


def open_sound(path: Path, samples: int | None = None) -> sf.SoundFile:
    """Open a file with libsndfile.

    Parameters
    ----------
    path : file of sound; its name may have any bytes
    samples : that the file holds; None to believe its header

    Returns
    -------
    file : whose ``frames`` are ``samples``, whatever the header promises
    """
    try:
        return _open(path, samples)
    except OSError as error:  # no reader takes E_MACHINE for damage of the file
        raise machine_failure(error, path) or error from error


def _open(path: Path, samples: int | None) -> sf.SoundFile:
    name = os.fsencode(path) if os.name == "posix" else str(path)
    kind = "" if samples is None else _kind(path)
    corrected = None
    if kind == "flac" and samples:
        corrected = _open_flac(path, samples)
    elif kind == "mp3" and samples:
        corrected = _open_mp3(path, samples, name)
    elif samples is not None and (chunks := _read_chunks(path, kind)):
        corrected = _open_chunks(path, chunks)
    if corrected is not None:
        return corrected
    try:
        return _open_plain(path, name)
    except sf.SoundFileError:  # a container that libsndfile does not know, or calls broken
        chunks = _read_chunks(path, _kind(path))
        if chunks is None or (corrected := _open_chunks(path, chunks)) is None:
            raise
        return corrected


def _open_plain(path: Path, name: bytes | str) -> sf.SoundFile:
    try:
        return sf.SoundFile(name)
    except sf.LibsndfileError as error:
        if error.code != 2:  # no error of the system
            raise
    with path.open("rb"):  # raises the error of the system, which libsndfile does not tell
        return sf.SoundFile(name)


def _open_flac(path: Path, samples: int) -> sf.SoundFile | None:
    begin, _ = _flac_header(path)
    with path.open("rb") as file:
        head = bytearray(file.read(begin + 18))
    if not begin:
        return None
    block_size = int.from_bytes(head[begin + 10 : begin + 18], "big")
    head[begin + 10 : begin + 18] = (block_size >> 36 << 36 | samples).to_bytes(8, "big")
    return sf.SoundFile(_Patched(path, bytes(head), ((len(head), path.stat().st_size),)))


def _open_mp3(path: Path, samples: int, name: bytes | str) -> sf.SoundFile | None:
    plain = _open_plain(path, name)
    if plain.frames >= samples:  # a length that is estimated too long does no harm
        return plain
    plain.close()
    frames = read_mp3_frames(path)
    if not frames.count or frames.tagged is not None:
        return None
    return sf.SoundFile(_Patched(path, frames.xing_frame(), ((frames.begin, path.stat().st_size),)))


def _open_chunks(path: Path, chunks: WavChunks) -> sf.SoundFile | None:
    sound = chunks.format
    if sound is None or not sound.subtype or not chunks.spans:
        return None
    return sf.SoundFile(
        _Patched(path, b"", chunks.spans),
        samplerate=sound.sample_rate,
        channels=sound.channels,
        subtype=sound.subtype,
        format="RAW",
        endian=sound.endian,
    )


class _Patched(io.RawIOBase):
    """A file of other parts: ``head``, then some spans of bytes of a file."""

    def __init__(self, path: Path, head: bytes, spans: Sequence[tuple[int, int]]) -> None:
        self._file = path.open("rb")
        self._head, self._spans = head, spans
        self._size = len(head) + sum(end - begin for begin, end in spans)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._head[self._at : self._at + len(buffer)]
        at = self._at - len(self._head)
        for begin, end in self._spans if not part else ():
            if 0 <= at < end - begin:
                self._file.seek(begin + at)
                part = self._file.read(min(len(buffer), end - begin - at))
                break
            at -= end - begin
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()


def _kind(path: Path) -> str:
    """The format by the first bytes, whatever the name: wav, flac, mp3 or ""."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] in RIFF_NAMES and head[8:] == b"WAVE":
            return "wav"
        if head[:3] == b"ID3":
            file.seek(id3_size(head))
            head = file.read(4)
    if head[:4] == b"fLaC":
        return "flac"
    return "mp3" if head[:1] == b"\xff" and parse_mp3_header(head[:4]) else ""


def _read_chunks(path: Path, kind: str) -> WavChunks | None:
    """Where the sound of a file with chunks lies; None for other files."""
    return read_wav_chunks(path) if kind == "wav" else read_sound_chunks(path)


# ---- FLAC


def _flac_header(path: Path) -> tuple[int, int]:
    """Where the STREAMINFO begins, and the samples that it promises; (0, 0) without one."""
    with path.open("rb") as file:
        begin = skip_id3(file.read(10))
        file.seek(begin)
        raw = file.read(42)
    if len(raw) < 42 or raw[:4] != b"fLaC" or raw[4] & 0x7F:
        return 0, 0
    return begin + 8, int.from_bytes(raw[18:26], "big") & ((1 << 36) - 1)


def read_vorbis_comments(path: Path) -> dict[str, str]:
    """The comments of a FLAC file.

    Parameters
    ----------
    path : any file

    Returns
    -------
    comments : by their names in capitals; empty for other files
    """
    begin, _ = _flac_header(path)
    if not begin:
        return {}
    comments: dict[str, str] = {}
    with path.open("rb") as file:
        file.seek(begin - 4)
        for _ in range(128):  # blocks of metadata
            header = file.read(4)
            size = int.from_bytes(header[1:], "big")
            if len(header) < 4 or header[0] & 0x7F == 0x7F:
                break
            if header[0] & 0x7F == 4:
                raw = file.read(size)
                at = 8 + int.from_bytes(raw[:4], "little")
                for _ in range(int.from_bytes(raw[at - 4 : at], "little")):
                    length = int.from_bytes(raw[at : at + 4], "little")
                    text = raw[at + 4 : at + 4 + length].decode("utf-8", "replace")
                    name, _, value = text.partition("=")
                    comments.setdefault(name.upper(), value)
                    at += 4 + length
                    if at >= len(raw):
                        break
            else:
                file.seek(size, io.SEEK_CUR)
            if header[0] & 0x80:
                break
    return comments


def last_flac_sample(path: Path) -> int | None:
    """The number of samples up to the end of the last frame of a FLAC file.

    A last frame that is incomplete does not count. None if there is no frame near the end.

    Parameters
    ----------
    path : FLAC file

    Returns
    -------
    samples : per channel
    """
    begin, promised = _flac_header(path)
    with path.open("rb") as file:
        file.seek(begin)
        block = int.from_bytes(file.read(4)[2:], "big")  # the largest; all, but for the last
        for length in _FLAC_TAIL:
            file.seek(max(0, path.stat().st_size - length))
            tail = file.read()
            at = len(tail)
            later: set[int] = set()  # starts of frames, of which some are chance
            while (at := max(tail.rfind(b"\xff\xf8", 0, at), tail.rfind(b"\xff\xf9", 0, at))) >= 0:
                if (frame := _parse_flac_frame(tail[at : at + 16], block)) is None:
                    continue
                start, end = frame[0], sum(frame)
                if end == promised or (not later and _crc(tail[at:], 16, 0x8005) == 0):
                    return end
                if end in later:
                    return end
                later.add(start)
    return None


def _parse_flac_frame(raw: bytes, block: int) -> tuple[int, int] | None:
    """The first sample and the number of samples of a frame; None for other bytes."""
    if len(raw) < 6 or raw[3] & 1 or raw[2] & 0xF == 0xF or not raw[2] >> 4 or raw[3] >> 4 > 10:
        return None
    extra = 0
    while extra < 7 and raw[4] & (0x80 >> extra):
        extra += 1
    if extra == 1:
        return None
    count = max(extra, 1)
    number = raw[4] & (0x7F >> extra) if extra < 7 else 0
    for byte in raw[5 : 4 + count]:
        number = number << 6 | (byte & 0x3F)
    at, code = 4 + count, raw[2] >> 4
    samples = _FLAC_BLOCKS.get(code, 0)
    if code in (6, 7):
        samples = int.from_bytes(raw[at : at + code - 5], "big") + 1
        at += code - 5
    at += {12: 1, 13: 2, 14: 2}.get(raw[2] & 0xF, 0)
    if len(raw) <= at or _crc(raw[: at + 1], 8, 0x07):
        return None
    return (number if raw[1] & 1 else number * block), samples


def _crc(raw: bytes, bits: int, polynomial: int) -> int:
    """The checksum of FLAC; 0 over bytes that end in their own checksum."""
    table = _crc_table(bits, polynomial)
    crc, mask, shift = 0, (1 << bits) - 1, bits - 8
    for byte in raw:
        crc = (crc << 8 & mask) ^ table[crc >> shift ^ byte]
    return crc


@cache
def _crc_table(bits: int, polynomial: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> (bits - 1) & 1 else 0)
        table.append(value & ((1 << bits) - 1))
    return tuple(table)


def _count_decoded(path: Path) -> int:
    """The samples that libsndfile decodes, where nothing else shows them."""
    count = 0
    try:
        with open_sound(path) as file:
            for block in file.blocks(1 << 16, dtype="float32", always_2d=True):
                count += len(block)
    except sf.SoundFileError:
        pass
    return count
