"""The frames of an MP3 file, counted without decoding, and what is lost between them."""

import struct
from dataclasses import dataclass
from pathlib import Path

TOLERANCE = 0.1  # seconds: codecs add a few hundredths, which are no mistake of a header
_TAGS = (b"ID3", b"TAG", b"APE")  # also between the frames of files that were joined
_MP3_RATES = (44100, 48000, 32000)
_MP3_BITRATES = {  # kbit/s of layer III
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def id3_size(head: bytes) -> int:
    """Bytes of an ID3 tag.

    Parameters
    ----------
    head : its first 10 bytes

    Returns
    -------
    size : with these
    """
    return 10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:10]))


def skip_id3(raw: bytes) -> int:
    """Where a file begins behind its ID3 tag.

    Parameters
    ----------
    raw : the first bytes of the file

    Returns
    -------
    begin : 0 without a tag
    """
    return id3_size(raw) if raw[:3] == b"ID3" else 0


@dataclass(frozen=True)
class Mp3Frames:
    """The frames of an MP3 file.

    Parameters
    ----------
    begin : byte of the first frame
    header : of the first frame
    count : frames with sound
    samples : in all of them, per channel
    size : bytes of all frames
    tagged : frames by the Xing or VBRI header; None without one
    lost_after : samples before the first damage between frames; None without damage
    lost_bytes : of all damage between frames
    """

    begin: int = 0
    header: bytes = b""
    count: int = 0
    samples: int = 0
    size: int = 0
    tagged: int | None = None
    lost_after: int | None = None
    lost_bytes: int = 0

    @property
    def displaced_from(self) -> int | None:
        """The sample from which on sound comes earlier than in the recording; None if none does.

        A decoder leaves out what it does not know, and joins what is around it.
        """
        lost = self.lost_bytes * self.samples // max(1, self.size)
        if self.tagged is not None and self.count:
            lost = max(0, self.tagged - self.count) * self.samples // self.count
        seconds = lost / max(1, self.sample_rate)
        return self.lost_after if seconds > TOLERANCE else None

    @property
    def sample_rate(self) -> int:
        """In Hz; 0 without frames."""
        return _sample_rate(self.header) if self.header else 0

    def xing_frame(self) -> bytes:
        """A frame of silence with a Xing header that counts the frames."""
        raw = bytearray(self.header)
        for rate in range(1, 15):  # the smallest frame that has room
            raw[2] = rate << 4 | raw[2] & 0x0C
            parsed = parse_mp3_header(bytes(raw))
            if parsed and parsed[0] >= 64:
                break
        raw[1] |= 1  # no checksum
        assert parsed
        frame = bytes(raw) + bytes(_side_info(bytes(raw)))
        frame += b"Xing" + struct.pack(">III", 3, self.count, self.size + parsed[0])
        return frame.ljust(parsed[0], b"\0")


def read_mp3_frames(path: Path) -> Mp3Frames:
    """Count the frames of an MP3 file.

    Parameters
    ----------
    path : MP3 file

    Returns
    -------
    frames : without frames where none is found
    """
    raw = path.read_bytes()
    at = begin = skip_id3(raw)
    first, tagged, count, samples, bytes_of_frames = b"", None, 0, 0, 0
    end, lost_after, lost_bytes = begin, None, 0  # of the last frame
    while at + 4 <= len(raw):
        header = raw[at : at + 4]
        parsed = parse_mp3_header(header)
        if parsed is None or (first and (header[1] ^ first[1]) & 0x1E):
            at = raw.find(b"\xff", at + 1)  # damage: go on at the next frame
            if at < 0:
                break
            continue
        size, length = parsed
        if at + size > len(raw):
            break
        if not first:
            first, begin = header, at
            tagged = _tagged_frames(raw[at : at + size])
            if tagged is not None:
                at = end = at + size
                continue
        elif at > end and raw[end : end + 3] not in _TAGS:
            lost_after = samples if lost_after is None else lost_after
            lost_bytes += at - end
        count, samples, bytes_of_frames = count + 1, samples + length, bytes_of_frames + size
        at = end = at + size
    return Mp3Frames(
        *(begin, first, count, samples, bytes_of_frames, tagged), lost_after, lost_bytes
    )


def _tagged_frames(frame: bytes) -> int | None:
    at = 4 + _side_info(frame[:4])
    if frame[at : at + 4] in (b"Xing", b"Info"):
        flags = int.from_bytes(frame[at + 4 : at + 8], "big")
        return int.from_bytes(frame[at + 8 : at + 12], "big") if flags & 1 else None
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None


def _side_info(header: bytes) -> int:
    """Bytes between the header of a frame without checksum and its sound."""
    mono = header[3] >> 6 == 3
    return (17 if mono else 32) if header[1] & 8 else (9 if mono else 17)


def parse_mp3_header(raw: bytes) -> tuple[int, int] | None:
    """Read the header of a frame of layer III.

    Parameters
    ----------
    raw : 4 bytes

    Returns
    -------
    frame : its bytes and its samples; None for other bytes
    """
    if len(raw) < 4 or raw[0] != 0xFF or raw[1] & 0xE6 != 0xE2 or raw[1] & 0x18 == 8:
        return None
    version, rate, code = raw[1] >> 3 & 3, raw[2] >> 2 & 3, raw[2] >> 4
    if rate == 3 or code in (0, 15):
        return None
    hertz = _sample_rate(raw)
    samples = 1152 if version == 3 else 576
    size = samples // 8 * _MP3_BITRATES[version == 3][code] * 1000 // hertz
    return size + (raw[2] >> 1 & 1), samples


def _sample_rate(header: bytes) -> int:
    return _MP3_RATES[header[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[header[1] >> 3 & 3]
