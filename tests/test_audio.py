"""Probing and decoding sound: formats, rates, parts, damaged files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from antpitta.files.audio import (
    UnreadableAudio,
    content_key,
    probe,
    read,
    read_or_silence,
    read_whole,
)

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


@pytest.mark.parametrize("peak", [9.0, 32767.0, 2.0**31, 1e18, 1e25])
def test_float_samples_far_beyond_full_scale_are_scaled_with_a_note(tmp_path, peak):
    recording = save(tmp_path / "a.wav", peak * 2 * tone(8000, 1), 8000, subtype="FLOAT")
    notes: list[str] = []
    sound = read(recording, 0.0, 1.0, 32000, notes)
    assert np.isfinite(sound).all()
    assert 1e-4 < np.abs(sound).max() <= 1.01
    assert notes == ["has samples far beyond full scale, which are scaled down"]


def test_float_samples_a_little_beyond_full_scale_are_kept(tmp_path):
    recording = save(tmp_path / "a.wav", 3 * tone(8000, 1), 8000, subtype="FLOAT")
    notes: list[str] = []
    np.testing.assert_allclose(read(recording, 0, 1, 8000, notes), 3 * tone(8000, 1), atol=1e-5)
    assert not notes


def test_channels_that_cancel_are_inverted_and_others_averaged(tmp_path):
    wave, noise = tone(8000, 2), np.random.default_rng(0).normal(0, 0.05, (4, 16000))
    cases = {
        "opposite": (np.stack([wave + noise[0], -wave + noise[1]]), wave),
        "offset": (np.stack([wave + 0.3, -wave - 0.2]), wave),
        "three": (np.stack([wave, -wave, wave]), wave),
        "shifted": (np.stack([wave, np.roll(wave, 5)]), (wave + np.roll(wave, 5)) / 2),
        "dead": (np.stack([wave, 0 * wave]), wave / 2),
    }
    for name, (channels, expected) in cases.items():
        recording = save(tmp_path / f"{name}.wav", channels.T, 8000, subtype="FLOAT")
        sound = read(recording, 0.0, 2.0, 8000)
        centred = sound - sound.mean()
        sign = np.sign(np.dot(centred, expected))
        np.testing.assert_allclose(
            sign * centred, expected - expected.mean(), atol=0.2, err_msg=name
        )
        assert np.std(sound) == pytest.approx(np.std(expected), rel=0.02)


def test_every_failure_on_a_file_is_its_own(tmp_path, monkeypatch):
    recording = save(tmp_path / "a.wav", tone(8000, 1), 8000)

    def fail(*args, **options):
        raise RuntimeError("unforeseen")

    for name in ("open_sound", "measure_length"):
        with monkeypatch.context() as patch:
            patch.setattr(f"antpitta.files.audio.{name}", fail)
            with pytest.raises(UnreadableAudio, match=r"a\.wav: .*RuntimeError"):
                probe(recording.path, "a")
    monkeypatch.setattr("antpitta.files.audio.to_mono", fail)
    with pytest.raises(UnreadableAudio, match=r"a\.wav: .*RuntimeError"):
        read(recording, 0.0, 1.0, 8000)
    assert len(read_or_silence(recording, 0.0, 1.0, 8000)) == 0


def test_header_that_reads_before_sound_that_does_not_is_unreadable(tmp_path):
    path = tmp_path / "a.flac"
    sf.write(path, tone(8000, 3), 8000)
    raw = path.read_bytes()
    path.write_bytes(raw[:86] + bytes(len(raw) - 86))
    with pytest.raises(UnreadableAudio):
        probe(path, "a")


def test_polarity_is_decided_once_so_that_parts_are_those_of_the_whole(tmp_path):
    rng = np.random.default_rng(5)
    call = rng.normal(0, 0.1, 16_000 * 12)
    noise = rng.normal(0, 0.1, (16_000 * 12, 2))
    noise[16_000 * 4 : 16_000 * 8] = 0  # in the middle, the channels cancel; elsewhere they do not
    together = np.stack([call, -0.97 * call], axis=1)
    together[: 16_000 * 4] *= 0.5
    sf.write(tmp_path / "a.wav", 0.3 * together + 0.2 * noise, 16_000)
    recording = probe(tmp_path / "a.wav", "a")
    whole = read(recording, 0, 12, 16_000)
    parts = [read(recording, i, i + 1, 16_000) for i in range(12)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_chosen_channel_is_that_of_the_file_and_one_that_is_missing_its_failure(tmp_path, suffix):
    rng = np.random.default_rng(6)
    sound = rng.normal(0, 0.05, (16_000 * 2, 3)).astype(np.float32)
    path = tmp_path / f"a.{suffix}"
    sf.write(path, sound, 16_000)
    stored = sf.read(path, dtype="float32")[0]
    for channel in (1, 2, 3):
        recording = probe(path, "a", channel)
        np.testing.assert_array_equal(read(recording, 0, 2, 16_000), stored[:, channel - 1])
        assert recording.reading_key == f"-channel{channel}"
    for channel in (4, 0, -1):
        with pytest.raises(UnreadableAudio, match=f"no channel {channel}"):
            probe(path, "a", channel)
