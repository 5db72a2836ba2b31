"""The small chunks of a WAV file that sound libraries ignore: GUANO, the comment, the data's size.

Only headers are read, however long the file is: each chunk is skipped by its size.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # left by a recorder that never closed its file
_MAX_METADATA = 1 << 20  # bytes


@dataclass(frozen=True)
class WavChunks:
    """What a WAV file holds besides its sound."""

    guano: bytes = b""
    comment: str = ""  # LIST INFO ICMT, where AudioMoth writes
    missing_share: float = 0.0  # of the bytes of sound that the header promises

    def missing_seconds(self, duration: float) -> float:
        """The seconds that are missing from a file that holds ``duration`` seconds."""
        return duration * self.missing_share / (1 - min(self.missing_share, 0.999))


def read_wav_chunks(path: Path) -> WavChunks:
    """Read the chunks of a WAV file; an empty WavChunks for any other or broken file.

    Parameters
    ----------
    path : any file

    Returns
    -------
    chunks : of metadata, and the share of sound that is missing
    """
    guano, comment, missing_share = b"", "", 0.0
    with path.open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            return WavChunks()
        end = path.stat().st_size
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", header)
            begin = file.tell()
            if name == b"data":
                if size in _UNKNOWN_SIZES:  # or RF64, whose true size is in another chunk
                    break
                missing_share = max(0.0, 1 - (end - begin) / size)
            elif name == b"guan":
                guano = file.read(min(size, _MAX_METADATA))
            elif name == b"LIST":
                comment = _find_comment(file.read(min(size, _MAX_METADATA))) or comment
            file.seek(begin + size + size % 2)
    return WavChunks(guano, comment, missing_share)


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
