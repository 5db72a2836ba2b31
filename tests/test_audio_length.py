"""Lengths measured in files whose headers give too little, too much, an estimate or nothing."""

import struct
from contextlib import suppress

import numpy as np
import pytest
import soundfile as sf

from antpitta.files.audio import UnreadableAudio, probe, read
from antpitta.files.audio_length import last_flac_sample
from antpitta.files.mp3_frames import read_mp3_frames
from antpitta.files.sound_chunks import has_ogg_end

RATE = 16_000
SOUND = np.random.default_rng(0).normal(0, 0.05, RATE * 10).astype(np.float32)
PCM = (SOUND * 32767).astype("<i2").tobytes()


def write_wav(path, size, sound=PCM, fmt=(1, 1, RATE, RATE * 2, 2, 16), after=b"", riff=None):
    """A WAV whose header gives ``size`` bytes of data."""
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, *fmt) + b"data" + struct.pack("<I", size)
    total = len(head) + len(sound) + len(after) if riff is None else riff
    path.write_bytes(b"RIFF" + struct.pack("<I", total) + head + sound + after)
    return path


def sound_of(path, notes=None):
    recording = probe(path, "a")
    sound = read(recording, 0.0, recording.duration, recording.sample_rate, notes)
    assert len(sound) == recording.samples
    return recording, sound


@pytest.mark.parametrize(
    ("size", "header_samples"),
    [
        (len(PCM), None),
        (len(PCM) // 4, len(PCM) // 8),  # wrapped round at 4 GiB
        (44, 22),
        (len(PCM) + 44, len(PCM) // 2 + 22),  # the size of the file
        (0, 0),
        (0x7FFFF000, 0),
        (0x80000000, 0),
        (0xFFFFFFFF, 0),
        (0xFFFFFFDB, 0),
    ],
)
@pytest.mark.parametrize("riff", [None, 0, 36, 0xFFFFFFFF])
def test_wav_with_a_wrong_size_gives_all_of_its_sound(tmp_path, size, header_samples, riff):
    recording, sound = sound_of(write_wav(tmp_path / "a.wav", size, riff=riff))
    assert recording.samples == RATE * 10
    assert recording.header_samples in (header_samples, None if not header_samples else -1)
    np.testing.assert_allclose(sound, SOUND, atol=1e-4)
    part = read(recording, 7.0, 8.0, RATE)
    np.testing.assert_allclose(part, SOUND[7 * RATE : 8 * RATE], atol=1e-4)


@pytest.mark.parametrize(
    ("tag", "bits", "dtype", "scale"),
    [(1, 8, "u1", 0), (1, 32, "<i4", 2**31 - 1), (3, 32, "<f4", 1), (3, 64, "<f8", 1)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_wav_of_other_samples_and_a_size_too_small_is_read_whole(
    tmp_path, tag, bits, dtype, scale, channels
):
    values = SOUND.astype(np.float64)
    stored = (values * 127 + 128).astype("u1") if bits == 8 else (values * scale).astype(dtype)
    content = np.repeat(stored, channels).tobytes()
    block = channels * bits // 8
    fmt = (tag, channels, RATE, RATE * block, block, bits)
    recording, sound = sound_of(write_wav(tmp_path / "a.wav", 4 * block, content, fmt))
    assert (recording.samples, recording.channels) == (RATE * 10, channels)
    np.testing.assert_allclose(sound, SOUND, atol=0.02 if bits == 8 else 1e-4)


def test_chunks_behind_the_data_are_no_sound(tmp_path):
    after = b"LIST" + struct.pack("<I", 5000) + b"INFO" + bytes(4996)
    after += b"guan" + struct.pack("<I", 3000) + bytes(3000)
    recording, _ = sound_of(write_wav(tmp_path / "a.wav", len(PCM), after=after))
    assert (recording.samples, recording.header_samples) == (RATE * 10, None)
    recording, _ = sound_of(write_wav(tmp_path / "b.wav", len(PCM), after=bytes(40_000)))
    assert (recording.samples, recording.header_samples) == (RATE * 10, None)


def test_rf64_without_its_size_gives_all_of_its_sound(tmp_path):
    path = tmp_path / "a.wav"
    sf.write(path, SOUND, RATE, format="RF64", subtype="PCM_16")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"ds64") + 8
    for size in (0, 5000, 1 << 50):
        raw[at + 8 : at + 16] = struct.pack("<Q", size)
        path.write_bytes(raw)
        recording, _ = sound_of(path)
        assert recording.samples == RATE * 10


def flac(path, samples, sound=SOUND, keep=None):
    """A FLAC whose header counts ``samples``."""
    sf.write(path, sound, RATE)
    raw = bytearray(path.read_bytes())
    word = int.from_bytes(raw[18:26], "big")
    raw[18:26] = (word >> 36 << 36 | samples).to_bytes(8, "big")
    path.write_bytes(raw if keep is None else raw[: int(len(raw) * keep)])
    return path


@pytest.mark.parametrize("samples", [0, 1, RATE * 5, RATE * 10, RATE * 20, 2**36 - 1])
def test_flac_with_a_wrong_count_gives_all_of_its_sound(tmp_path, samples):
    notes = []
    recording, sound = sound_of(flac(tmp_path / "a.flac", samples), notes)
    assert recording.samples == RATE * 10
    assert recording.missing_seconds == pytest.approx(max(samples, 0) / RATE - 10 if samples else 0)
    np.testing.assert_allclose(sound, SOUND, atol=1e-4)
    np.testing.assert_allclose(read(recording, 9, 10, RATE), SOUND[9 * RATE :], atol=1e-4)
    assert not notes


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.93, 0.999])
@pytest.mark.parametrize("samples", [0, RATE * 10, 2**36 - 1])
def test_flac_cut_short_has_the_length_that_decodes(tmp_path, keep, samples):
    path = flac(tmp_path / "a.flac", samples, keep=keep)
    recording = probe(path, "a")
    sound = read(recording, 0.0, recording.duration, RATE)
    assert recording.samples - 4608 <= len(sound) <= recording.samples  # within the last frame
    assert keep * 10 - 0.6 < recording.duration <= keep * 10 + 0.3
    np.testing.assert_allclose(sound, SOUND[: len(sound)], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 44100, 96000, 256000])
@pytest.mark.parametrize("seconds", [0.01, 1.0, 3.21])
def test_last_frame_of_a_flac_gives_its_length(tmp_path, channels, rate, seconds):
    samples = round(rate * seconds)
    sound = np.random.default_rng(1).normal(0, 0.1, (samples, channels))
    sf.write(tmp_path / "a.flac", sound, rate)
    assert last_flac_sample(tmp_path / "a.flac") == samples
    sf.write(tmp_path / "b.flac", np.zeros((samples, channels)), rate)
    assert last_flac_sample(tmp_path / "b.flac") == samples


def test_bytes_behind_a_flac_do_not_change_its_length(tmp_path):
    path = flac(tmp_path / "a.flac", RATE * 10)
    path.write_bytes(path.read_bytes() + b"TAG" + b"\xff\xf8" * 60)
    assert probe(path, "a").samples == RATE * 10


def mp3(path, sound, rate, *, tag):
    """An MP3 of variable bit rate, with or without its Xing header."""
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE"}
    sf.write(path, sound, rate, **options, compression_level=0.5)
    if not tag:
        raw = path.read_bytes()
        frames = read_mp3_frames(path)
        assert frames.tagged is not None
        second = raw.index(raw[frames.begin : frames.begin + 2], frames.begin + 30)
        path.write_bytes(raw[second:])
    return path


@pytest.mark.parametrize("rate", [16000, 24000, 44100, 48000])
@pytest.mark.parametrize("quiet_first", [True, False])
def test_mp3_without_its_xing_header_is_counted(tmp_path, rate, quiet_first):
    parts = [np.zeros(rate * 5), np.random.default_rng(2).normal(0, 0.3, rate * 5)] * 2
    sound = np.concatenate(parts if quiet_first else parts[::-1])
    recording, decoded = sound_of(mp3(tmp_path / "a.mp3", sound, rate, tag=False))
    assert recording.duration == pytest.approx(20, abs=0.2)
    assert recording.missing_seconds == 0
    loud = np.abs(decoded).reshape(-1)[: rate * 20].reshape(20, -1).mean(axis=1) > 0.01
    expected = [False] * 5 + [True] * 5 if quiet_first else [True] * 5 + [False] * 5
    middle = [1, 2, 3, 6, 7, 8, 11, 12, 13, 16, 17, 18]
    assert [bool(loud[i]) for i in middle] == [(expected * 2)[i] for i in middle]
    late = read(recording, 16.0, 18.0, rate)
    assert (np.abs(late).mean() > 0.01) == quiet_first


def test_mp3_with_its_xing_header_keeps_its_length(tmp_path):
    path = mp3(tmp_path / "a.mp3", np.tile(SOUND, 2), RATE, tag=True)
    recording, _ = sound_of(path)
    assert (recording.samples, recording.header_samples) == (sf.info(path).frames, None)


def test_aiff_cut_short_tells_what_is_missing(tmp_path):
    path = tmp_path / "a.aiff"
    sf.write(path, SOUND, RATE)
    assert probe(path, "a").header_samples is None
    path.write_bytes(path.read_bytes()[: len(PCM) // 2])
    assert probe(path, "a").missing_seconds == pytest.approx(5.0, abs=0.01)


@pytest.mark.parametrize("suffix", ["mp3", "flac", "wav", "ogg", "aiff", "w64", "au"])
def test_fuzzed_file_is_read_or_unreadable(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    sf.write(path, SOUND[: RATE * 3], RATE)
    good = path.read_bytes()
    rng = np.random.default_rng(3)
    for i in range(80):
        raw = bytearray(good)
        end = min(len(raw), 200) if i % 2 else len(raw)
        for at in rng.integers(0, end, rng.integers(1, 30)):
            raw[at] = rng.integers(256)
        if i % 3 == 0:
            del raw[int(rng.integers(len(raw))) :]
        path.write_bytes(raw)
        with suppress(UnreadableAudio):  # any other error fails the test
            recording = probe(path, "a")
            assert 0 < recording.duration < 4000
            for start in (0.0, recording.duration / 2):
                read(recording, start, min(start + 3, recording.duration), RATE, [])


def write_chunks(path, *data, name=b"RIFF", before=b""):
    """A WAV with some chunks of data, each with a size of its own."""
    body = b"WAVE" + before + b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, RATE * 2, 2, 16)
    body += b"".join(b"data" + struct.pack("<I", size) + sound for size, sound in data)
    path.write_bytes(name + struct.pack("<I", len(body)) + body)
    return path


WHOLE = (len(PCM), PCM)


@pytest.mark.parametrize(
    ("data", "seconds", "missing"),
    [
        ((WHOLE, WHOLE), 20, -10),
        ((WHOLE, WHOLE, WHOLE), 30, -20),
        ((WHOLE, (len(PCM), PCM[: len(PCM) // 2])), 15, 5),
        (((0, b""), WHOLE), 10, 0),
    ],
)
def test_wav_with_several_chunks_of_data_gives_the_sound_of_all(tmp_path, data, seconds, missing):
    recording, sound = sound_of(write_chunks(tmp_path / "a.wav", *data))
    assert (recording.duration, recording.missing_seconds) == (seconds, missing)
    expected = np.concatenate([SOUND] * 3)[: seconds * RATE]
    np.testing.assert_allclose(sound, expected, atol=1e-4)
    part = read(recording, seconds - 3.0, seconds - 2.0, RATE)
    np.testing.assert_allclose(
        part, expected[(seconds - 3) * RATE : (seconds - 2) * RATE], atol=1e-4
    )


def test_wav_behind_a_wav_in_one_file_is_one_sound(tmp_path):
    path = write_chunks(tmp_path / "a.wav", WHOLE)
    path.write_bytes(path.read_bytes() * 2)
    recording, _ = sound_of(path)
    assert (recording.duration, recording.missing_seconds) == (20, -10)


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
@pytest.mark.parametrize(("share", "missing"), [(1, 0), (2, 10), (0, 0), (0.5, -5)])
def test_size_of_64_bits_is_checked_against_the_file(tmp_path, name, share, missing):
    size = int(len(PCM) * share)
    sizes = b"ds64" + struct.pack("<IQQQI", 28, 0, size, size // 2, 0)
    path = write_chunks(tmp_path / "a.wav", (0xFFFFFFFF, PCM), name=name, before=sizes)
    recording, sound = sound_of(path)
    assert (recording.duration, recording.missing_seconds) == (10, missing)
    np.testing.assert_allclose(sound, SOUND, atol=1e-4)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("form", ["AU", "CAF", "W64", "AIFF", "RF64"])
def test_too_much_and_too_little_sound_is_measured_in_seconds(tmp_path, form, subtype):
    path = tmp_path / f"a.{form.lower()}"
    sf.write(path, SOUND, RATE, format=form, subtype=subtype)
    raw = path.read_bytes()
    recording, sound = sound_of(path)
    assert (recording.duration, recording.missing_seconds) == (10, 0)
    np.testing.assert_allclose(sound, SOUND, atol=1e-4)
    path.write_bytes(raw[: len(raw) // 2])
    recording, sound = sound_of(path)
    assert 4.9 < recording.duration <= 5
    assert recording.missing_seconds == pytest.approx(10 - recording.duration)
    np.testing.assert_allclose(sound, SOUND[: len(sound)], atol=1e-4)
    path.write_bytes(raw + raw[-RATE * 4 :])
    recording, sound = sound_of(path)
    assert recording.duration > 10.9
    assert recording.missing_seconds == pytest.approx(10 - recording.duration)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_without_its_end_is_known(tmp_path, subtype):
    path = tmp_path / "a.ogg"
    sf.write(path, SOUND, RATE, format="OGG", subtype=subtype)
    assert has_ogg_end(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert not has_ogg_end(path)
