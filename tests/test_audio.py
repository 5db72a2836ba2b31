"""Probing and decoding sound: formats, rates, parts, damaged files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from antpitta.files.audio import UnreadableAudio, content_key, probe, read, read_whole

REAL = Path(__file__).parents[1].parent / "shared" / "data" / "rfcx" / "audio"


def tone(rate, seconds, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def save(path, sound, rate, **options):
    sf.write(path, sound, rate, **options)
    return probe(path, path.stem)


def cut(path, share=0.5):
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_every_format_is_probed_and_read(tmp_path, suffix):
    recording = save(tmp_path / f"a.{suffix}", tone(32000, 2), 32000)
    assert (recording.sample_rate, recording.samples, recording.channels) == (32000, 64000, 1)
    sound = read(recording, 0.5, 1.5, 32000)
    assert sound.dtype == np.float32
    np.testing.assert_allclose(sound, tone(32000, 2)[16000:48000], atol=0.03)


@pytest.mark.parametrize("rate", [8000, 11025, 24001, 32000, 44100, 48000, 96000, 256000, 500000])
def test_minute_at_any_rate_gives_a_minute_of_samples(tmp_path, rate):
    recording = save(tmp_path / "a.wav", np.zeros(rate * 60, dtype=np.int16), rate)
    assert len(read(recording, 0.0, 60.0, 32000)) == 60 * 32000
    assert len(read(recording, 0.0, 99.0, 32000)) == 60 * 32000
    assert len(read(recording, 10.1, 12.35, 32000)) == 72000


@pytest.mark.parametrize("rate", [8000, 44100, 256000])
def test_parts_join_as_if_the_whole_had_been_resampled(tmp_path, rate):
    recording = save(tmp_path / "a.wav", tone(rate, 3), rate, subtype="FLOAT")
    whole = read(recording, 0.0, 3.0, 32000)
    parts = np.concatenate([read(recording, i, i + 1.0, 32000) for i in range(3)])
    np.testing.assert_allclose(parts, whole, atol=2e-5)
    np.testing.assert_allclose(whole[3200:-3200], tone(32000, 3)[3200:-3200], atol=1e-3)


def test_channels_are_averaged_and_values_that_are_not_finite_are_silence(tmp_path):
    sound = np.full((1000, 2), (0.5, 0.25), dtype=np.float32)
    sound[10] = np.nan, 0.5
    sound[11] = np.inf, -np.inf
    recording = save(tmp_path / "a.wav", sound, 8000, subtype="FLOAT")
    decoded = read(recording, 0.0, 1.0, 8000)
    assert recording.channels == 2
    assert decoded[9:13].tolist() == [0.375, 0.25, 0.0, 0.375]


def test_part_beyond_the_end_gives_what_there_is(tmp_path):
    recording = save(tmp_path / "a.wav", tone(8000, 1.25), 8000)
    assert len(read(recording, 1.0, 5.0, 32000)) == 8000
    assert len(read(recording, 1.25, 5.0, 32000)) == 0
    assert len(read(recording, 9.0, 10.0, 32000)) == 0
    assert len(read(recording, 0.5, 0.5, 32000)) == 0


@pytest.mark.parametrize(("start", "stop"), [(-1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_reversed_or_negative_part_is_refused(tmp_path, start, stop):
    with pytest.raises(ValueError, match="cannot read from"):
        read(save(tmp_path / "a.wav", tone(8000, 1), 8000), start, stop, 8000)


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_file_that_is_cut_short_gives_what_it_has(tmp_path, suffix):
    noise = np.random.default_rng(0).normal(0, 0.1, 480000)
    recording = save(tmp_path / f"a.{suffix}", noise, 48000)
    cut(recording.path)
    held = probe(recording.path, "a")
    assert held.header_samples == pytest.approx(480000, abs=2000)
    assert held.missing_seconds == pytest.approx(5.05, abs=0.1)
    whole, late = (read(recording, start, 10.0, 48000) for start in (0.0, 4.0))
    assert 4.7 * 48000 < len(whole) < 5.1 * 48000
    assert abs(len(late) - (len(whole) - 4 * 48000)) <= 512
    if suffix == "flac":
        np.testing.assert_allclose(whole, noise[: len(whole)], atol=1e-4)
    with pytest.raises(UnreadableAudio, match=rf"a\.{suffix}: .*(cut short|8\.00 s)"):
        read(recording, 8.0, 9.0, 48000)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.wav", b"", "is empty"),
        ("a.wav", b"hello, this is a letter and no sound", "is not WAV"),
        ("a.mp3", b"hello, this is a letter and no sound" * 99, "is not MP3"),
    ],
)
def test_file_that_is_no_sound_is_refused_with_its_name(tmp_path, name, content, why):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableAudio, match=why) as error:
        probe(path, "a")
    assert str(path) in str(error.value)


def test_header_without_samples_or_with_an_impossible_rate_is_refused(tmp_path):
    sf.write(tmp_path / "a.wav", np.zeros(0), 8000)
    with pytest.raises(UnreadableAudio, match=r"a\.wav: .*no samples"):
        probe(tmp_path / "a.wav", "a")
    sf.write(tmp_path / "b.wav", np.zeros(9), 50)
    with pytest.raises(UnreadableAudio, match=r"b\.wav: .* 50 Hz"):
        probe(tmp_path / "b.wav", "b")
    with pytest.raises(UnreadableAudio, match=r"none\.wav"):
        probe(tmp_path / "none.wav", "c")


def test_file_that_is_gone_is_unreadable(tmp_path):
    recording = save(tmp_path / "a.wav", tone(8000, 1), 8000)
    recording.path.unlink()
    with pytest.raises(UnreadableAudio):
        read(recording, 0.0, 1.0, 8000)


def test_content_key_depends_on_the_bytes_and_not_on_the_name(tmp_path):
    for name, content in (("a", b"x" * 100_000), ("b", b"x" * 100_000), ("c", b"x" * 99_999)):
        (tmp_path / name).write_bytes(content)
    a, b, c = (content_key(tmp_path / name) for name in "abc")
    assert a == b != c
    assert a == hashlib.blake2b(b"x" * 100_000, digest_size=20).hexdigest()


def test_real_recording_reads_as_a_minute():
    if not REAL.is_dir():
        pytest.skip(f"no real recordings at {REAL}")
    recording = probe(min(REAL.glob("*.flac")), "r")
    assert (recording.sample_rate, recording.duration) == (48000, 60.0)
    sound = read(recording, 0.0, 60.0, 32000)
    assert len(sound) == 1_920_000
    assert 1e-4 < np.abs(sound).max() <= 1.1


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_whole_flac_has_the_samples_of_libsndfile(tmp_path, subtype, channels):
    sound = np.random.default_rng(1).normal(0, 0.2, (30001, channels)).clip(-1, 1)
    recording = save(tmp_path / "a.flac", sound, 48000, subtype=subtype)
    expected, _ = sf.read(recording.path, dtype="float32", always_2d=True)
    np.testing.assert_array_equal(read_whole(recording), expected)
    np.testing.assert_array_equal(
        read(recording, 0.0, recording.duration, 48000), expected.mean(axis=1)
    )


def test_sound_after_a_broken_frame_of_a_flac_is_used(tmp_path):
    recording = save(tmp_path / "a.flac", tone(48000, 3) + 0.01, 48000)
    raw = bytearray(recording.path.read_bytes())
    raw[len(raw) // 2] ^= 1
    recording.path.write_bytes(raw)
    assert read_whole(recording) is None
    notes: list[str] = []
    sound = read(recording, 0.0, 3.0, 48000, notes)
    expected = tone(48000, 3) + 0.01
    assert len(sound) == 3 * 48000
    assert np.count_nonzero(np.abs(sound - expected) > 1e-3) < 3 * 4096
    assert len(notes) == 1
    assert notes[0].startswith("is damaged: 1.")


def test_large_files_and_other_formats_are_not_decoded_whole(tmp_path, monkeypatch):
    assert read_whole(save(tmp_path / "a.wav", tone(8000, 1), 8000)) is None
    recording = save(tmp_path / "a.flac", tone(8000, 1), 8000)
    monkeypatch.setattr("antpitta.files.audio.MAX_WHOLE_SAMPLES", 7999)
    assert read_whole(recording) is None
