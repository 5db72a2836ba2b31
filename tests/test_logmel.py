"""The spectrogram, against librosa's, and what drops out of the picture.

``golden/logmel.npz`` was made once with librosa 0.11.0, an independent implementation:
``melspectrogram(y=signal(), sr=32000, n_fft=2048, hop_length=512, n_mels=128, fmin=20,
fmax=16000, center=True, pad_mode="reflect")``, then ``power_to_db(ref=1.0, amin=1e-10,
top_db=80)``, transposed; ``edges`` is ``mel_frequencies(130, fmin=20, fmax=16000)`` and ``other``
is ``filters.mel(sr=22050, n_fft=512, n_mels=20, fmin=80, fmax=10000)``. The sound itself is made
again here, from :func:`signal`.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from antpitta.core.drawings import Front
from antpitta.sound.logmel import (
    LogMel,
    band_edges,
    hz_to_mel,
    mel_matrix,
    mel_to_hz,
    picture,
    to_bytes,
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
    return LogMel(Front())


def test_decibels_equal_librosas(mel):
    found = mel(torch.from_numpy(signal())[None])[0].numpy()
    assert found.shape == GOLDEN["decibels"].shape == (126, 128)
    np.testing.assert_allclose(found, GOLDEN["decibels"], atol=2e-3)
    assert np.abs(found - GOLDEN["decibels"]).mean() < 2e-5


def test_triangles_and_their_corners_equal_librosas():
    np.testing.assert_allclose(band_edges(Front()), GOLDEN["edges"], rtol=1e-9)
    other = Front(sample_rate=22_050, n_fft=512, bands=20, low=80.0, high=10_000.0)
    np.testing.assert_allclose(mel_matrix(other), GOLDEN["other"], atol=1e-7)


def test_the_mel_scale_is_linear_to_1_khz_and_comes_back():
    np.testing.assert_allclose(hz_to_mel(np.array([0.0, 200.0, 1000.0])), [0, 3, 15])
    np.testing.assert_allclose(hz_to_mel(np.array([6400.0])), [42])  # 15 + 27: 6.4 kHz
    hz = np.array([0.0, 20.0, 999.0, 1000.0, 1001.0, 16_000.0])
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz)), hz, rtol=1e-12)


def test_a_minute_is_a_picture_of_3751_by_128(mel):
    wave = np.random.default_rng(0).standard_normal(60 * 32_000).astype(np.float32)
    found = picture(wave, mel)
    assert found.shape == (3751, 128)
    assert found.dtype == np.uint8
    assert (found.min(), found.max()) == (0, 255)


def test_a_tone_stands_in_the_band_of_its_frequency(mel):
    t = np.arange(32_000) / 32_000
    edges = band_edges(Front())
    for hz in (440.0, 3000.0, 12_000.0):
        found = picture(np.sin(2 * np.pi * hz * t).astype(np.float32), mel)
        band = int(found[30].argmax())
        assert edges[band] < hz < edges[band + 2]


def test_gain_changes_nothing_but_rounding(mel):
    wave = signal()
    plain = picture(wave, mel).astype(int)
    for gain in (0.1, 3.0, 32_768.0):
        assert np.abs(picture(gain * wave, mel).astype(int) - plain).max() <= 1


def test_what_lies_more_than_80_decibels_below_the_loudest_is_cut_off(mel):
    found = mel(torch.from_numpy(signal())[None])
    assert found.max() - found.min() <= 80.0001
    narrow = LogMel(Front(range=30.0))(torch.from_numpy(signal())[None])
    torch.testing.assert_close(narrow, torch.maximum(found, found.max() - 30))


@pytest.mark.parametrize("samples", [1, 100, 511, 1024, 1025, 2048])
def test_very_short_sound_gives_a_picture_too(mel, samples):
    wave = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    assert picture(wave, mel).shape == (samples // 512 + 1, 128)


def test_silence_is_black(mel):
    found = picture(np.zeros(32_000, dtype=np.float32), mel)
    assert found.shape == (63, 128)
    assert not found.any()


def test_each_image_of_a_batch_is_stretched_by_itself():
    one = torch.rand(40, 8) * 20 - 60
    both = to_bytes(torch.stack([one, one * 3 + 7]))
    assert (both[0].int() - both[1].int()).abs().max() <= 1
    assert both.amax(dim=(1, 2)).tolist() == [255, 255]
    assert both.amin(dim=(1, 2)).tolist() == [0, 0]


def test_waves_of_a_batch_do_not_touch_each_other(mel):
    waves = torch.from_numpy(np.stack([signal(), signal()[::-1].copy() * 0.01]))
    together = mel(waves)
    torch.testing.assert_close(together[1], mel(waves[1:])[0], atol=1e-3, rtol=0)
