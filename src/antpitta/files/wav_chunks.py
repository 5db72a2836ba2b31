"""The chunks of a WAV file: where its sound lies, and the metadata that sound libraries ignore.

- Only headers are read, however long the file is: each chunk is skipped by its size.
- The size of the data is checked against the file. Recorders leave 0 or another placeholder where
  they could not return to the header; the size of a file of more than 4 GiB wraps round. If what
  follows the data is no chain of chunks, then it is sound, and the data lasts to the file's end.
- A file that is cut short has less data than its header promises. Several chunks of data are one
  sound, although other programs read the first of them only.
- AudioMoths that record by a trigger leave out silence: 512 bytes stand for each stretch, at a
  multiple of 512 bytes of the file (AudioMoth's note "Triggered T.WAV File Format").
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

_MAX_METADATA = 1 << 20  # bytes
_MAX_CHUNKS = 10_000
_KEPT = (b"ds64", b"fmt ", b"guan", b"wamd", b"LIST", b"bext")
RIFF_NAMES = (b"RIFF", b"RF64", b"BW64")
_BLOCK = 512  # bytes, of AudioMoth
_BLOCK_BITS = 32  # of the number of blocks that one block stands for, a sample each: 1 or -1
_READ_BLOCKS = 1 << 13
_SLACK = 512  # bytes behind the data that are neither sound nor a chunk
_SUBTYPES = {
    **{(1, 8): "PCM_U8", (1, 16): "PCM_16", (1, 24): "PCM_24", (1, 32): "PCM_32"},
    **{(3, 32): "FLOAT", (3, 64): "DOUBLE", (6, 8): "ALAW", (7, 8): "ULAW"},
}


@dataclass(frozen=True)
class WavFormat:
    """How samples are stored.

    Parameters
    ----------
    subtype : libsndfile's name; "" for codecs in which bytes are no measure of time
    block : bytes of one sample of all channels
    endian : libsndfile's name
    """

    subtype: str
    channels: int
    sample_rate: int
    block: int
    endian: str = "LITTLE"


@dataclass(frozen=True)
class WavChunks:
    """What a WAV file holds, by its chunks and by its length.

    Parameters
    ----------
    guano : content of the GUANO chunk; of the last, if there are several
    more_guano : content of the other GUANO chunks
    bext : content of the chunk of the Broadcast Wave Format
    wamd : content of the chunk of Wildlife Acoustics
    comment : LIST INFO ICMT, where AudioMoth writes
    format : None in a broken file
    spans : begin and end of each chunk of data in the file, bytes
    promised : bytes of data by the header; None where the header gives a placeholder
    """

    guano: bytes = b""
    comment: str = ""
    format: WavFormat | None = None
    spans: tuple[tuple[int, int], ...] = ()
    promised: int | None = None
    more_guano: tuple[bytes, ...] = ()
    wamd: bytes = b""
    bext: bytes = b""

    @property
    def held(self) -> int:
        """Bytes of data in the file."""
        return sum(end - begin for begin, end in self.spans)

    def samples(self, size: int | None) -> int | None:
        """Samples in ``size`` bytes of data; None where bytes are no measure of time."""
        if size is None or self.format is None or not self.format.subtype:
            return None
        return size // self.format.block


def read_wav_chunks(path: Path) -> WavChunks:
    """Read the chunks of a WAV file; an empty WavChunks for any other or broken file.

    Parameters
    ----------
    path : any file

    Returns
    -------
    chunks : metadata, and where the sound lies
    """
    with path.open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] not in RIFF_NAMES or head[8:] != b"WAVE":
            return WavChunks()
        return _read_chunks(file, path.stat().st_size)


def _read_chunks(file: BinaryIO, end: int) -> WavChunks:
    guano: list[bytes] = []
    comment, sound_format, long_size = "", None, None
    others = {b"wamd": b"", b"bext": b""}
    spans: list[tuple[int, int]] = []
    sizes: list[int | None] = []  # by the header
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            break
        name, size = struct.unpack("<4sI", header)
        begin = file.tell()
        content = file.read(min(size, _MAX_METADATA)) if name in _KEPT else b""
        if name == b"ds64" and len(content) >= 16:
            long_size = struct.unpack_from("<Q", content, 8)[0]
        elif name == b"fmt ":
            sound_format = sound_format or parse_wav_format(content)
            if sound_format != parse_wav_format(content):
                break
        elif name == b"guan":
            guano.append(content)
        elif name in others:
            others[name] = content
        elif name in RIFF_NAMES:  # one file behind another
            size = 4
        elif name == b"LIST":
            comment = _find_comment(content) or comment
        elif name == b"data":
            size = long_size if size == 0xFFFFFFFF and long_size else size
            promised, size = measure_data(file, begin, size, end)
            spans.append((begin, begin + size))
            sizes.append(promised)
        file.seek(begin + size + size % 2)
    last = guano.pop() if guano else b""
    lengths = _whole_samples(sound_format, spans, sizes)
    return WavChunks(last, comment, sound_format, *lengths, tuple(guano), *others.values())


def _whole_samples(
    sound_format: WavFormat | None, spans: list[tuple[int, int]], sizes: list[int | None]
) -> tuple[tuple[tuple[int, int], ...], int | None]:
    """The spans of data in whole samples, and the bytes that the header promises."""
    # Whole samples, so that channels stay apart; a broken header has samples of 0 bytes.
    first = max(1, sound_format.block) if sound_format else 1
    spans = [(begin, stop - (stop - begin) % first) for begin, stop in spans if stop > begin]
    total = sum(size for size in sizes if size is not None)
    is_short = total > sum(stop - begin for begin, stop in spans) + first * len(spans)
    return tuple(spans), total if is_short and None not in sizes else (sizes or [None])[0]


def measure_data(file: BinaryIO, begin: int, size: int, end: int) -> tuple[int | None, int]:
    """Measure the data of a file.

    Parameters
    ----------
    file : open
    begin, size : of the data, by the header
    end : of the file, bytes

    Returns
    -------
    promised : bytes by the header; None for a placeholder
    held : bytes in the file
    """
    rest = end - begin
    if size > rest:
        return (None if _is_placeholder(size) else size), rest
    if rest - size <= _SLACK or _is_chain(file, begin + size + size % 2, end):
        return size, size
    return (size or None), rest


def _is_placeholder(size: int) -> bool:
    """Whether a program that writes to a pipe gives this size: about 2 GiB, or 4 GiB, or more."""
    return 0x7FFFE000 <= size <= 0x80000100 or size >= 0xFFFFE000


def _is_chain(file: BinaryIO, at: int, end: int) -> bool:
    """Whether chunks follow one another from ``at`` to the end of the file."""
    for _ in range(_MAX_CHUNKS):
        if end - at <= _SLACK:
            return True
        file.seek(at)
        header = file.read(8)
        if not (header[:4].isascii() and header[:4].decode("ascii").isprintable()):
            return not any(header) and not any(file.read(_MAX_METADATA))  # zeros fill a sector
        at += 8 + (size := int.from_bytes(header[4:], "little")) + size % 2
        if at > end + 1:
            return header[:4] == b"data"  # cut short
    return False


def left_out_seconds(path: Path, chunks: WavChunks) -> float:
    """The silence that a triggered AudioMoth left out of a file.

    Parameters
    ----------
    path : WAV file
    chunks : of this file

    Returns
    -------
    seconds : 0 where the file has no blocks that stand for silence
    """
    sound = chunks.format
    if sound is None or (sound.subtype, sound.channels) != ("PCM_16", 1) or not chunks.spans:
        return 0.0
    begin, end = chunks.spans[0]
    blocks = 0
    with path.open("rb") as file:
        file.seek(-(-begin // _BLOCK) * _BLOCK)
        while file.tell() + _BLOCK <= end:
            count = min(_READ_BLOCKS, (end - file.tell()) // _BLOCK)
            samples = np.frombuffer(file.read(count * _BLOCK), "<i2").reshape(count, -1)
            bits = samples[~samples[:, _BLOCK_BITS:].any(axis=1), :_BLOCK_BITS].astype(np.int64)
            bits = bits[(np.abs(bits) == 1).all(axis=1)]
            blocks += int(((bits > 0) @ (1 << np.arange(_BLOCK_BITS))).sum()) - len(bits)
    return max(0, blocks) * _BLOCK / 2 / sound.sample_rate


def parse_wav_format(content: bytes) -> WavFormat | None:
    """Read how samples are stored.

    Parameters
    ----------
    content : of a chunk ``fmt``

    Returns
    -------
    sound : None where the chunk is too short
    """
    if len(content) < 16:
        return None
    tag, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", content)
    if tag == 0xFFFE and len(content) >= 26:  # the true tag begins the GUID
        tag = struct.unpack_from("<H", content, 24)[0]
    block = block or channels * (bits // 8)
    matches = block == channels * (bits // 8) > 0
    return WavFormat(_SUBTYPES.get((tag, bits), "") if matches else "", channels, rate, block)


def _find_comment(chunk: bytes) -> str:
    """The ICMT of a LIST INFO chunk."""
    if chunk[:4] != b"INFO":
        return ""
    at = 4
    while at + 8 <= len(chunk):
        name, size = struct.unpack_from("<4sI", chunk, at)
        if name == b"ICMT":
            return chunk[at + 8 : at + 8 + size].split(b"\0")[0].decode("utf-8", "replace")
        at += 8 + size + size % 2
    return ""
