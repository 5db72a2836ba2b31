"""Some sixty odd files of sound, with what is right for each.

``write_odd_sounds`` makes them anew; nothing of it comes from a recorder.
"""

import os
import struct
from dataclasses import dataclass

import numpy as np
import soundfile as sf

RATE = 16_000
SECONDS = 2.0
SOUND = np.random.default_rng(0).normal(0, 0.05, round(RATE * SECONDS)).astype(np.float32)
PCM = (SOUND * 32767).astype("<i2").tobytes()
STEREO = np.stack([SOUND, -SOUND], axis=1)


@dataclass(frozen=True)
class OddSound:
    """A file, the seconds that are used of it (None: it fails), and the code of a finding."""

    name: str
    seconds: float | None = SECONDS
    code: str | None = None


UNREADABLE = "W_AUDIO_UNREADABLE"


def write_odd_sounds(home):
    """Write the files into a folder, and return what is right for each."""
    home.mkdir(parents=True, exist_ok=True)
    return [odd for write in WRITERS for odd in write(home)]


def put(path, sound=SOUND, form=None, subtype=None, rate=RATE):
    sf.write(
        os.fsencode(path), sound, rate, format=form or path.suffix[1:].upper(), subtype=subtype
    )
    return path


def change(path, function):
    path.write_bytes(function(path.read_bytes()))


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def wav(path, *data, name=b"RIFF", before=b"", after=b"", fmt=(1, 1, RATE, RATE * 2, 2, 16)):
    """A WAV with chunks of data of any size by the header."""
    body = b"WAVE" + before + chunk(b"fmt ", struct.pack("<HHIIHH", *fmt))
    body += b"".join(b"data" + struct.pack("<I", size) + sound for size, sound in data) + after
    path.write_bytes(name + struct.pack("<I", len(body) & 0xFFFFFFFF) + body)


def write_containers(home):
    for name, form, subtype in (
        ("int24.wav", "WAV", "PCM_24"),
        ("int8.wav", "WAV", "PCM_U8"),
        ("float.wav", "WAV", "FLOAT"),
        ("double.wav", "WAV", "DOUBLE"),
        ("ulaw.wav", "WAV", "ULAW"),
        ("extensible.wav", "WAVEX", "PCM_16"),
        ("big.rf64", "RF64", "PCM_16"),
        ("sony.w64", "W64", "PCM_16"),
        ("sun.au", "AU", "PCM_16"),
        ("apple.caf", "CAF", "PCM_16"),
        ("plain.aiff", "AIFF", "PCM_16"),
        ("float.aifc", "AIFF", "FLOAT"),
        ("int24.flac", "FLAC", "PCM_24"),
        ("vorbis.ogg", "OGG", "VORBIS"),
        ("opus.opus", "OGG", "OPUS"),
        ("plain.mp3", "MP3", "MPEG_LAYER_III"),
        ("wrong_suffix.mp3", "FLAC", "PCM_16"),
    ):
        put(home / name, form=form, subtype=subtype)
        yield OddSound(name)
    put(home / "adpcm.wav", form="WAV", subtype="IMA_ADPCM")
    yield OddSound("adpcm.wav", 2.04)
    put(home / "slow.flac", SOUND[:16000], rate=8000)
    yield OddSound("slow.flac")
    sizes = b"ds64" + struct.pack("<IQQQI", 28, 0, len(PCM), len(PCM) // 2, 0)
    wav(home / "bw64.wav", (0xFFFFFFFF, PCM), name=b"BW64", before=sizes)
    yield OddSound("bw64.wav")


def write_wrong_headers(home):
    size, half = len(PCM), len(PCM) // 2
    header, cut = "W_AUDIO_HEADER", "W_AUDIO_CUT_SHORT"
    for name, data, seconds, code in (
        ("size_0.wav", [(0, PCM)], 2, None),
        ("size_of_pipe.wav", [(0xFFFFFFFF, PCM)], 2, None),
        ("size_too_small.wav", [(half, PCM)], 2, header),
        ("size_too_large.wav", [(size * 3, PCM)], 2, cut),
        ("two_chunks.wav", [(size, PCM), (size, PCM)], 4, header),
        ("second_chunk_cut.wav", [(size, PCM), (size, PCM[:half])], 3, cut),
    ):
        wav(home / name, *data)
        yield OddSound(name, seconds, code)
    wav(home / "two_files.wav", (size, PCM))
    change(home / "two_files.wav", lambda raw: raw * 2)
    yield OddSound("two_files.wav", 4, header)
    wav(home / "padded.wav", (size, PCM))
    change(home / "padded.wav", lambda raw: raw + bytes(30_000))
    yield OddSound("padded.wav")
    for name in ("cut.wav", "cut.w64", "cut.au", "cut.caf", "cut.aiff"):
        put(home / name)
        change(home / name, lambda raw: raw[: len(raw) // 2])
        yield OddSound(name, 0.936 if name == "cut.caf" else 1, cut)
    for name, subtype in (("cut.ogg", "VORBIS"), ("cut.opus", "OPUS")):
        put(home / name, np.tile(SOUND, 4), "OGG", subtype)
        change(home / name, lambda raw: raw[: len(raw) * 9 // 10])
        yield OddSound(name, float("nan"), cut)  # whole pages: a length that differs by library


def write_flac(home):
    def with_count(count):
        def patch(raw):
            block = int.from_bytes(raw[18:26], "big")
            return raw[:18] + (block >> 36 << 36 | count).to_bytes(8, "big") + raw[26:]

        return patch

    for name, count, code in (
        ("count_0.flac", 0, None),
        ("count_doubled.flac", len(SOUND) * 2, "W_AUDIO_CUT_SHORT"),
        ("count_absurd.flac", (1 << 36) - 1, "W_AUDIO_CUT_SHORT"),
        ("count_halved.flac", len(SOUND) // 2, "W_AUDIO_HEADER"),
    ):
        change(put(home / name), with_count(count))
        yield OddSound(name, SECONDS, code)
    change(put(home / "header_only.flac"), lambda raw: raw[:86] + bytes(len(raw) - 86))
    yield OddSound("header_only.flac", None, UNREADABLE)
    middle = len(put(home / "damaged.flac").read_bytes()) // 2
    change(home / "damaged.flac", lambda raw: raw[:middle] + bytes(300) + raw[middle + 300 :])
    yield OddSound("damaged.flac")


def write_mp3(home):
    noise = np.random.default_rng(1).bytes(1 << 16)
    change(put(home / "garbage.mp3"), lambda raw: raw[: len(raw) // 2] + noise[: len(raw) // 2])
    yield OddSound("garbage.mp3", float("nan"), "W_AUDIO_CUT_SHORT")
    change(put(home / "id3.mp3"), lambda raw: b"ID3\4\0\0\0\0\7\x68" + bytes(1000) + raw)
    yield OddSound("id3.mp3")
    change(put(home / "quarter.mp3", np.tile(SOUND, 4)), lambda raw: raw[: len(raw) // 4])
    yield OddSound("quarter.mp3", float("nan"), "W_AUDIO_CUT_SHORT")


def write_no_sound(home):
    put(home / "whole.flac")
    raw = (home / "whole.flac").read_bytes()
    yield OddSound("whole.flac")
    for name, content in (
        ("empty.wav", b""),
        ("text.ogg", b"no sound"),
        ("picture.flac", b"\x89PNG\r\n\x1a\n" + bytes(100)),
        ("riff_only.wav", b"RIFF\0\0\0\0WAVE"),
        ("zeros.mp3", bytes(5000)),
        ("first_bytes.flac", raw[:42]),
    ):
        (home / name).write_bytes(content)
        yield OddSound(name, None, UNREADABLE)
    wav(home / "rate_0.wav", (len(PCM), PCM), fmt=(1, 1, 0, 0, 2, 16))
    yield OddSound("rate_0.wav", None, UNREADABLE)
    wav(home / "no_samples.wav", (0, b""))
    yield OddSound("no_samples.wav", None, UNREADABLE)
    (home / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    yield OddSound("phone.m4a", None, UNREADABLE)
    os.mkfifo(home / "pipe.wav")
    yield OddSound("pipe.wav", None, UNREADABLE)


def write_content(home):
    loud = np.clip(SOUND * 100, -1, 1)
    steady = np.concatenate([SOUND[:8000], np.full(RATE * 5, 0.25, np.float32), SOUND[:8000]])
    odd = SOUND.copy()
    odd[100:200] = np.nan
    odd[300] = np.inf
    for name, sound, code in (
        ("opposite.wav", STEREO, "W_AUDIO_CHANNELS"),
        ("dead.wav", STEREO * [1, 0], "W_AUDIO_CHANNELS"),
        ("eight.wav", np.tile(STEREO, 4), "W_AUDIO_CHANNELS"),
        ("silent.wav", SOUND * 0, "W_AUDIO_SILENT"),
        ("clipped.wav", loud, "W_AUDIO_CLIPPED"),
        ("steady.wav", steady, "W_AUDIO_CONSTANT"),
    ):
        put(home / name, sound)
        yield OddSound(name, len(sound) / RATE, code)
    for name, sound in (("nan.wav", odd), ("scaled.wav", SOUND * 32768)):
        put(home / name, sound, subtype="FLOAT")
        yield OddSound(name)
    for name, samples in (("short1.wav", 16_000), ("short2.wav", 1600), ("short3.wav", 1)):
        put(home / name, SOUND[:samples])
        yield OddSound(name, samples / RATE, "W_AUDIO_SILENT" if samples == 1 else None)


def write_clocks(home):
    clock, days = "W_RECORDER_CLOCK", (b"2024-05-01", b"2024-05-02")
    wamd = struct.pack("<HI", 5, 25) + b"2024-05-01 05:00:00+99:00"
    guano = b"GUANO|Version: 1.0\nTimestamp: "
    for name, chunks in (
        ("zone.wav", [(b"guan", guano + b"2024-05-01T05:00:00+25:00")]),
        ("late.wav", [(b"guan", guano + b"9999-12-31T23:59:59")]),
        ("garbled.wav", [(b"guan", guano + b"\x00\xff\xfe")]),
        ("wamd.wav", [(b"wamd", wamd)]),
        ("two_guano.wav", [(b"guan", guano + day + b" 05:00:00") for day in days]),
        ("LAKE_20240501_050000.wav", [(b"guan", guano + b"2024-05-01 05:00:00\nStation: POND")]),
        ("POND_20240501_050000.wav", [(b"guan", guano + b"2024-05-07 05:00:00")]),
        ("SITE_23000101_000000.wav", []),
        ("SITE_20240230_053000.wav", []),
        ("SITE_20240101_053000+2500.wav", []),
    ):  # fmt: skip
        before = b"".join(chunk(*parts) for parts in chunks)
        wav(home / name, (len(PCM), PCM), before=before)
        yield OddSound(name, SECONDS, clock)
    put(home / "far.wav")
    os.utime(home / "far.wav", ns=(0, 10_413_792_000 * 10**9))  # the year 2300
    yield OddSound("far.wav")
    gap = struct.pack("<256h", *[1] * 10, *[-1] * 22, *[0] * 224)  # 1,023 blocks of silence
    pad = chunk(b"JUNK", bytes(512 - 52))
    wav(
        home / "20240501_070000T.WAV",
        (len(PCM) + 512, PCM[:25_600] + gap + PCM[25_600:]),
        before=pad,
    )
    yield OddSound("20240501_070000T.WAV", 2.016, "W_RECORDER_TRIGGERED")


def write_names(home):
    for name in (
        b"caf\xe9_20240501_050000.wav".decode("utf-8", "surrogateescape"),
        "n" * 231 + "_20240501_050000.wav",
        "[red]_20240501_050000.wav",
        "two\nlines_20240501_050000.wav",
        "-o_20240501_050000.wav",
        "\N{FROG FACE}, =1+1_20240501_050000.wav",
    ):
        put(home / name)
        yield OddSound(name)


WRITERS = (
    *(write_containers, write_wrong_headers, write_flac, write_mp3, write_no_sound),
    *(write_content, write_clocks, write_names),
)
