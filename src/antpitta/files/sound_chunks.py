"""Where the sound lies in AIFF, AU, CAF and W64 files, and how much of it their headers promise.

libsndfile believes these headers where they promise too little, and does not say what is missing
where they promise too much. The size of the data is therefore compared with that of the file, as
for WAV (files/wav_chunks.py). Codecs in which bytes are no measure of time are left to libsndfile.
The header of an OGG makes no promise, but its last page is marked as the end.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from antpitta.files.wav_chunks import WavChunks, WavFormat, measure_data, parse_wav_format

_OGG_PAGE = 27  # bytes of a page before the lengths of its segments, the last their number
_OGG_TAIL = 1 << 17  # bytes: a page has 65,307 at most
_MAX_CHUNKS = 1_000
_MAX_HEADER = 1 << 12  # bytes that describe the samples
_PCM = {8: "PCM_S8", 16: "PCM_16", 24: "PCM_24", 32: "PCM_32"}
_AU = {
    **{1: ("ULAW", 1), 2: ("PCM_S8", 1), 3: ("PCM_16", 2), 4: ("PCM_24", 3), 5: ("PCM_32", 4)},
    **{6: ("FLOAT", 4), 7: ("DOUBLE", 8), 27: ("ALAW", 1)},
}
_AIFC = {b"fl32": "FLOAT", b"FL32": "FLOAT", b"fl64": "DOUBLE", b"FL64": "DOUBLE"}
_UNKNOWN = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)  # a size that the program could not return to

Chunk = tuple[bytes, int, int]  # name, first byte of the content, size


def read_sound_chunks(path: Path) -> WavChunks | None:
    """Find the sound of an AIFF, AU, CAF or W64 file.

    Parameters
    ----------
    path : any file

    Returns
    -------
    chunks : format, place and promised size of the sound; None for other and for broken files
    """
    with path.open("rb") as file:
        head, end = file.read(40), path.stat().st_size
        try:
            if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
                return _read_aiff(file, end, compressed=head[8:12] == b"AIFC")
            if head[:4] == b".snd":
                return _read_au(file, head, end)
            if head[:4] == b"caff":
                return _read_caf(file, end)
            if head[:4] == b"riff" and head[24:28] == b"wave":
                return _read_w64(file, end)
        except (struct.error, ValueError, OverflowError):
            return None
    return None


def has_ogg_end(path: Path) -> bool:
    """Whether the last page of an OGG file is marked as its end, and is complete.

    Parameters
    ----------
    path : any file

    Returns
    -------
    complete : True for other files
    """
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return True
        file.seek(max(0, path.stat().st_size - _OGG_TAIL))
        tail = file.read()
    at = tail.rfind(b"OggS\0")
    if at < 0 or at + _OGG_PAGE > len(tail) or not tail[at + 5] & 4:
        return False
    lengths = tail[at + _OGG_PAGE : at + _OGG_PAGE + tail[at + _OGG_PAGE - 1]]
    return len(lengths) == tail[at + _OGG_PAGE - 1] and (
        at + _OGG_PAGE + len(lengths) + sum(lengths) <= len(tail)
    )


def _iter_chunks(file: BinaryIO, at: int, end: int, layout: str, align: int) -> Iterator[Chunk]:
    """The chunks of a file from a byte on; the caller may read in it."""
    length = struct.calcsize(layout)
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        header = file.read(length)
        if len(header) < length:
            return
        name, size = struct.unpack(layout, header)
        if layout.startswith("<"):  # W64 counts the header
            size -= length
        yield name, at + length, size
        at += length + size + -(size + (length if layout.startswith("<") else 0)) % align
        if size < 0 or at >= end:
            return


def _content(file: BinaryIO, begin: int, size: int) -> bytes:
    file.seek(begin)
    return file.read(min(size, _MAX_HEADER))


def _with_data(
    file: BinaryIO, sound: WavFormat, begin: int, size: int, end: int, promised: int | None = None
) -> WavChunks:
    """The chunks of a file whose data begin at a byte and have a size by the header."""
    promise, held = measure_data(file, begin, size, end)
    if size in _UNKNOWN:
        promise = None
    held -= held % sound.block
    return WavChunks(
        format=sound,
        spans=((begin, begin + held),) if held > 0 else (),
        promised=promise if promised is None else promised,
    )


def _read_aiff(file: BinaryIO, end: int, *, compressed: bool) -> WavChunks | None:
    sound, promised = None, 0
    for name, begin, size in _iter_chunks(file, 12, end, ">4sI", 2):
        if name == b"COMM":
            content = _content(file, begin, size)
            channels, samples, bits, exponent, mantissa = struct.unpack_from(">hIhHQ", content)
            rate = round(mantissa * 2.0 ** ((exponent & 0x7FFF) - 16446))
            kind = content[18:22] if compressed else b"NONE"
            subtype, endian = _AIFC.get(kind, ""), "BIG"
            if kind in (b"NONE", b"twos", b"sowt"):
                subtype, endian = _PCM.get(-(-bits // 8) * 8, ""), "BIG"
                endian = "LITTLE" if kind == b"sowt" else "BIG"
            block = channels * -(-bits // 8)
            if not (subtype and 0 < channels <= 1024 and rate > 0):
                return None
            sound, promised = WavFormat(subtype, channels, rate, block, endian), samples * block
        elif name == b"SSND" and sound is not None:
            offset = int.from_bytes(_content(file, begin, 4), "big")
            rest = max(0, size - 8 - offset)
            return _with_data(file, sound, begin + 8 + offset, rest, end, promised or None)
    return None


def _read_au(file: BinaryIO, head: bytes, end: int) -> WavChunks | None:
    begin, size, encoding, rate, channels = struct.unpack_from(">5I", head, 4)
    if encoding not in _AU or not 0 < channels <= 1024 or begin < 24:
        return None
    subtype, width = _AU[encoding]
    sound = WavFormat(subtype, channels, rate, width * channels, "BIG")
    return _with_data(file, sound, begin, size, end)


def _read_caf(file: BinaryIO, end: int) -> WavChunks | None:
    sound = None
    for name, begin, size in _iter_chunks(file, 8, end, ">4sQ", 1):
        if name == b"desc":
            content = _content(file, begin, size)
            rate, kind, flags, block, frames, channels, bits = struct.unpack_from(">d4s5I", content)
            subtype = {32: "FLOAT", 64: "DOUBLE"}.get(bits, "") if flags & 1 else _PCM.get(bits, "")
            if kind != b"lpcm" or not subtype or frames != 1 or not 0 < block <= 1 << 13:
                return None
            endian = "LITTLE" if flags & 2 else "BIG"
            sound = WavFormat(subtype, channels, round(rate), block, endian)
        elif name == b"data" and sound is not None:
            rest = size if size in _UNKNOWN else max(0, size - 4)  # a count of edits comes first
            return _with_data(file, sound, begin + 4, rest, end)
    return None


def _read_w64(file: BinaryIO, end: int) -> WavChunks | None:
    sound = None
    for name, begin, size in _iter_chunks(file, 40, end, "<16sq", 8):
        if name[:4] == b"fmt ":
            sound = parse_wav_format(_content(file, begin, size))
            if sound is None or not sound.subtype:
                return None
        elif name[:4] == b"data" and sound is not None:
            return _with_data(file, sound, begin, max(0, size), end)
    return None
