"""The spectrogram against librosa's, at several sample rates, and its scaling.

``golden/logmel.npz`` was made once with librosa 0.11.0, an independent implementation:
``melspectrogram(y=signal(), sr=32000, n_fft=2048, hop_length=512, n_mels=128, fmin=20,
fmax=16000, center=True, pad_mode="reflect")``, then ``power_to_db(ref=1.0, amin=1e-10,
top_db=80)``, transposed; ``edges`` is ``mel_frequencies(130, fmin=20, fmax=16000)`` and ``other``
is ``filters.mel(sr=22050, n_fft=512, n_mels=20, fmin=80, fmax=10000)``. The sound is not stored:
:func:`signal` computes it.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soxr

from antpitta.core.features import MelConfig
from antpitta.sound.mel import (
    LogMel,
    band_edges,
    hz_to_mel,
    mel_features,
    mel_filters,
    mel_to_hz,
    resampling_gain,
    to_uint8,
)

GOLDEN = np.load(Path(__file__).parent / "golden" / "logmel.npz")


def signal():
    n = np.arange(64_000)
    t = n / 32_000
    y = 0.3 * np.sin(2 * np.pi * (400 * t + 1800 * t**2))
    y += 0.2 * np.sin(2 * np.pi * 9_000 * t) * (np.sin(2 * np.pi * 12 * t) > 0)
    y += 0.01 * np.sin(n * n * 0.7310585) + 0.002 * np.sin(n * n * 1.3133)
    return y.astype(np.float32)


@pytest.fixture(scope="module")
def mel():
    return LogMel(MelConfig())


def test_decibels_equal_librosa(mel):
    decibels = mel(signal())
    assert decibels.shape == GOLDEN["decibels"].shape == (126, 128)
    np.testing.assert_allclose(decibels, GOLDEN["decibels"], atol=2e-3)
    assert np.abs(decibels - GOLDEN["decibels"]).mean() < 2e-5


def test_filters_and_their_edges_equal_librosa():
    np.testing.assert_allclose(band_edges(MelConfig()), GOLDEN["edges"], rtol=1e-9)
    other = MelConfig(sample_rate=22_050, n_fft=512, n_mels=20, fmin=80.0, fmax=10_000.0)
    np.testing.assert_allclose(mel_filters(other), GOLDEN["other"], atol=1e-7)


def test_mel_scale_is_linear_to_1_khz_and_invertible():
    np.testing.assert_allclose(hz_to_mel(np.array([0.0, 200.0, 1000.0])), [0, 3, 15])
    np.testing.assert_allclose(hz_to_mel(np.array([6400.0])), [42])  # 15 + 27: 6.4 kHz
    hz = np.array([0.0, 20.0, 999.0, 1000.0, 1001.0, 16_000.0])
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz)), hz, rtol=1e-12)


def test_one_minute_has_3751_frames_of_128_bands(mel):
    wave = np.random.default_rng(0).standard_normal(60 * 32_000).astype(np.float32)
    pixels = mel_features(wave, mel)
    assert pixels.shape == (3751, 128)
    assert pixels.dtype == np.uint8
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_tone_is_loudest_in_the_band_of_its_frequency(mel):
    t = np.arange(32_000) / 32_000
    edges = band_edges(MelConfig())
    for hz in (440.0, 3000.0, 12_000.0):
        pixels = mel_features(np.sin(2 * np.pi * hz * t).astype(np.float32), mel)
        band = int(pixels[30].argmax())
        assert edges[band] < hz < edges[band + 2]


def test_gain_changes_features_by_rounding_only(mel):
    wave = signal()
    plain = mel_features(wave, mel).astype(int)
    for gain in (0.1, 3.0, 32_768.0):
        assert np.abs(mel_features(gain * wave, mel).astype(int) - plain).max() <= 1


def test_values_more_than_top_db_below_the_loudest_are_clipped(mel):
    decibels = mel(signal())
    assert decibels.max() - decibels.min() <= 80.0001
    narrow = LogMel(MelConfig(top_db=30.0))(signal())
    np.testing.assert_array_equal(narrow, np.maximum(decibels, decibels.max() - 30))


def sound_at(rate, seconds=4.0):
    """Noise up to the Nyquist frequency, with interrupted tones."""
    t = np.arange(round(rate * seconds)) / rate
    wave = 0.02 * np.random.default_rng(1).standard_normal(len(t))
    wave += 0.3 * np.sin(2 * np.pi * (300 * t + 800 * t**2)) * (np.sin(9 * t) > 0)
    return (wave + 0.1 * np.sin(2 * np.pi * 0.42 * rate * t)).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 31_250, 48_000])
def test_features_at_the_recordings_rate_equal_those_of_the_resampled_wave(mel, rate):
    assert MelConfig().read_rate(rate) == rate
    wave = sound_at(rate)
    resampled = mel_features(soxr.resample(wave, rate, 32_000, quality="HQ"), mel).astype(int)
    pixels = mel_features(wave, LogMel(MelConfig(), rate), len(resampled)).astype(int)
    difference = np.abs(pixels - resampled)[3:-3]  # without the reflected ends
    inside = difference[:, band_edges(MelConfig())[2:] < 0.47 * rate]
    assert inside.max() <= 1
    assert (inside == 0).mean() > 0.95
    assert difference.mean() < 0.2  # a band across the Nyquist frequency differs by a few dB


def test_resampling_attenuates_only_near_the_nyquist_frequency():
    gain = 10 * np.log10(resampling_gain(MelConfig(), 48_000) * 1.5**2)
    hertz = np.arange(1025) * 32_000 / 2048
    np.testing.assert_allclose(gain[hertz < 14_000], 0, atol=0.01)
    assert gain[-1] < -90
    assert len(resampling_gain(MelConfig(), 16_000)) == 513


def test_spectrogram_equals_a_plain_transform_for_any_length():
    for sizes in ((256, 80), (256, 64), (256, 200), (64, 64)):
        config = MelConfig(
            sample_rate=8000, n_fft=sizes[0], hop_length=sizes[1], n_mels=16, fmax=4000.0
        )
        mel = LogMel(config)
        for samples in (*range(1, 700, 7), *range(sizes[0] - 2, sizes[0] + 3), 5000, 40_003):
            wave = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
            pad = sizes[0] // 2
            padded = np.pad(wave, pad, mode="reflect" if samples > pad else "constant")
            frames = np.lib.stride_tricks.sliding_window_view(padded, sizes[0])[:: sizes[1]]
            hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(sizes[0]) / sizes[0])
            power = np.square(np.abs(np.fft.rfft(frames * hann))) @ mel_filters(config).T
            expected = 10 * np.log10(np.maximum(power, 1e-10))
            expected = np.maximum(expected, expected.max() - 80)
            np.testing.assert_allclose(mel(wave), expected, atol=5e-3)


def test_number_of_frames_can_be_set():
    wave = sound_at(48_000)[: 48_000 - 1]
    fine = LogMel(MelConfig(), 48_000)
    assert len(mel_features(wave, fine)) == 63
    few, many = (
        mel_features(wave[: 62 * 768 - 1], fine, 62),
        mel_features(wave[: 62 * 768 - 1], fine, 63),
    )
    assert (len(few), len(many)) == (62, 63)
    assert many[-1].any()


def test_read_rate_is_the_recordings_where_frames_fall_on_its_samples():
    asked = (1000, 8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 192_000)
    kept = [rate for rate in asked if MelConfig().read_rate(rate) == rate]
    assert kept == [1000, 8000, 16_000, 24_000, 32_000, 48_000]
    assert all(MelConfig().read_rate(rate) in (rate, 32_000) for rate in asked)
    odd = MelConfig(n_fft=34, hop_length=16, n_mels=16)
    assert odd.read_rate(16_000) == 32_000  # a frame of 17 samples
    assert MelConfig(fmin=600.0).read_rate(1000) == 32_000  # below the band


@pytest.mark.parametrize("samples", [1, 100, 511, 1024, 1025, 2048])
def test_very_short_wave_has_features(mel, samples):
    wave = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    assert mel_features(wave, mel).shape == (samples // 512 + 1, 128)


def test_features_of_silence_are_0(mel):
    pixels = mel_features(np.zeros(32_000, dtype=np.float32), mel)
    assert pixels.shape == (63, 128)
    assert not pixels.any()


def test_uint8_scaling_does_not_depend_on_gain_and_offset():
    decibels = np.random.default_rng(0).random((40, 8), dtype=np.float32) * 20 - 60
    plain, other = to_uint8(decibels).astype(int), to_uint8(decibels * 3 + 7).astype(int)
    assert np.abs(plain - other).max() <= 1
    assert (plain.min(), plain.max()) == (0, 255)


def test_threads_that_share_one_object_give_equal_features(mel):
    waves = [np.random.default_rng(i).standard_normal(96_000).astype(np.float32) for i in range(24)]
    expected = [mel_features(wave, mel) for wave in waves]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda wave: mel_features(wave, mel), waves))
    for pixels, alone in zip(parallel, expected, strict=True):
        np.testing.assert_array_equal(pixels, alone)
