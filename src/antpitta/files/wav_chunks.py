"""The small chunks of a WAV file that sound libraries pass over: GUANO, comments, promised size.

Only headers are read, whatever the file's length: chunk after chunk is skipped by its size.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

_UNKNOWN = (0, 0xFFFFFFFF)  # sizes that a recorder leaves which never got to close its file
_LONGEST = 1 << 20  # bytes of metadata; more is not metadata


@dataclass(frozen=True)
class WavChunks:
    """What a WAV file says beside its sound."""

    guano: bytes = b""
    comment: str = ""  # LIST INFO ICMT, where AudioMoth writes
    missing: float = 0.0  # share of the promised sound bytes that the file does not hold

    def gone(self, held: float) -> float:
        """The seconds that are missing from a file that holds ``held`` seconds."""
        return held * self.missing / (1 - min(self.missing, 0.999))


def read_wav_chunks(path: Path) -> WavChunks:
    """The chunks of a WAV file; an empty Riff for any other file, and for a broken one."""
    guano, comment, missing = b"", "", 0.0
    with path.open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            return WavChunks()
        end = path.stat().st_size
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", header)
            begin = file.tell()
            if name == b"data":
                if size in _UNKNOWN:  # or RF64, whose true size stands elsewhere
                    break
                missing = max(0.0, 1 - (end - begin) / size)
            elif name == b"guan":
                guano = file.read(min(size, _LONGEST))
            elif name == b"LIST":
                comment = _comment(file.read(min(size, _LONGEST))) or comment
            file.seek(begin + size + size % 2)
    return WavChunks(guano, comment, missing)


def _comment(chunk: bytes) -> str:
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
