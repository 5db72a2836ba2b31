"""The readers of sound files: length, metadata, any part of the sound, and the checks of it.

The first byte chooses the file's name; the headers of all formats are read whatever the name says.
"""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import soundfile as sf

from fuzz.harness import fuzz, instrumented

with instrumented():
    from antpitta.files.audio import read, read_channels
    from antpitta.files.audio_checks import check_audio
    from antpitta.files.audio_length import read_vorbis_comments
    from antpitta.files.recording_metadata import metadata_from_comment, metadata_from_name
    from antpitta.files.recordings import ListedFile, open_file
    from antpitta.files.wav_chunks import read_wav_chunks

NAMES = (
    *(
        "S4A_20240501_050000.wav",
        "a.flac",
        "a.mp3",
        "a.ogg",
        "a.aif",
        "a.au",
        "a.w64",
        "5CE2A0B0.WAV",
    ),
)
RATE = 8_000
_MOST = RATE * 60 * 60  # an hour: more is only touched at its ends


def run(data: bytes, folder: Path) -> None:
    """One input: a byte that chooses the name, then the bytes of the file."""
    number, data = (data or b"\0")[0] % (len(NAMES) + 1), data[1:]
    if number == len(NAMES):
        text = data.decode("utf-8", "replace")
        metadata_from_name(text)
        metadata_from_comment(text)
        return
    path = folder / NAMES[number]
    path.write_bytes(data)
    read_wav_chunks(path)
    read_vorbis_comments(path)
    recording = open_file(ListedFile("a", path))
    assert recording.samples > 0
    if recording.samples > _MOST:
        read(recording, 0.0, 1.0, RATE, [])
        return
    end = recording.duration
    for start, stop in ((0.0, min(1.0, end)), (max(0.0, end - 1), end + 1), (end / 2, end / 2)):
        notes: list[str] = []
        sound = read(recording, start, stop, RATE, notes)
        assert sound.ndim == 1
        assert np.isfinite(sound).all()
    read_channels(recording, 0, min(recording.samples, RATE))
    for finding in check_audio(
        [recording], {"a"}, lambda r, start, stop: read(r, start, stop, RATE)
    ):
        str(finding).encode()


def _encode(
    format: str, subtype: str | None = None, channels: int = 1, seconds: float = 0.25
) -> bytes:
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.3, 0.3, (int(RATE * seconds), channels))
    buffer = io.BytesIO()
    sf.write(buffer, sound, RATE, format=format, subtype=subtype)
    return buffer.getvalue()


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _wav(*chunks: bytes, size: int | None = None, kind: bytes = b"RIFF") -> bytes:
    sound = b"\x10\x00\xf0\xff" * 500
    head = _chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16))
    data = b"data" + struct.pack("<I", len(sound) if size is None else size) + sound
    body = b"WAVE" + b"".join(chunks) + head + data
    return kind + struct.pack("<I", len(body)) + body


GUANO = (
    b"GUANO|Version:1.0\nTimestamp:2024-05-01T05:00:00.250-04:00\nLoc Position:18.1 -66.2\n"
    b"WA|Song Meter|Prefix:S4A\nSamplerate:8000\n"
)
COMMENT = b"Recorded at 05:15:00 07/06/2020 (UTC-5) by AudioMoth 24F319055FDF at gain setting 2\0"
NAMES_AS_TEXT = (
    *("S4A03895_20190522$053000.wav", "69C0F3A0.WAV", "20190522T053000-0400_a.flac"),
    *("5677.180312093000.wav", "S20210305T050000+1000_E20210305T060000+1000.wav"),
)

SEEDS = (
    b"\0" + _wav(),
    b"\0" + _wav(_chunk(b"guan", GUANO)),
    b"\0" + _wav(_chunk(b"LIST", b"INFO" + _chunk(b"ICMT", COMMENT))),
    b"\0" + _wav(size=0xFFFFFFFF),
    b"\0" + _wav(_chunk(b"ds64", struct.pack("<QQQI", 3000, 2000, 1000, 0)),
                 size=0xFFFFFFFF, kind=b"RF64"),
    b"\0" + _encode("WAV", "FLOAT", 2, 0.1),
    b"\0" + _encode("WAV", "PCM_24", 1, 0.1),
    b"\0" + _encode("WAVEX", "PCM_16", 2, 0.1),
    b"\1" + _encode("FLAC", None, 1, 0.2),
    b"\1" + _encode("FLAC", None, 2, 0.1),
    b"\2" + _encode("MP3"),
    b"\2ID3\x04\0\0\0\0\0\x05abcde" + _encode("MP3"),
    b"\3" + _encode("OGG"),
    b"\4" + _encode("AIFF", None, 1, 0.1),
    b"\5" + _encode("AU", None, 1, 0.1),
    b"\6" + _encode("W64", None, 1, 0.1),
    *(b"\x08" + name.encode() for name in NAMES_AS_TEXT),
    b"\x08" + COMMENT,
)  # fmt: skip
WORDS = (
    *(b"RIFF", b"RF64", b"WAVE", b"fmt ", b"data", b"ds64", b"LIST", b"INFO", b"ICMT", b"guan"),
    *(b"fLaC", b"OggS", b"ID3", b"Xing", b"Info", b"VBRI", b"FORM", b"AIFF", b"AIFC", b"COMM"),
    *(b"SSND", b".snd", b"\xff\xf8", b"\xff\xf9", b"\xff\xfb", b"\xff\xf3", b"\xff\xff\xff\xff"),
    *(b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"Timestamp:", b"Loc Position:", b"+25:00"),
    *(b"Recorded at ", b"AudioMoth ", b"(UTC", b"RECORDINGSTART=", b"GUANO=", b"9999-12-31T"),
    *(b"20240501_050000", b"-0400", b"GMT+14", b"$", b"\xfe\xff", b"\x03\0", b"\x01\0", b"\x11\0"),
)

if __name__ == "__main__":
    fuzz("audio_headers", run, SEEDS, WORDS)
    sys.exit()
