"""Band-pass, and the level of a band over time."""

import numpy as np
import pytest
from scipy.signal import welch

from antpitta.sound.filters import bandpass, fade_seconds, spectrum, to_unit_rms


def test_tone_in_its_band_has_its_mean_square():
    wave = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    bins = spectrum(wave, 16_000)
    assert np.median(bins.band(900, 1100)) == pytest.approx(0.5, rel=0.02)
    assert bins.median_level(900, 1100) == pytest.approx(np.sqrt(0.5), rel=0.01)
    assert bins.median_level(4000, 6000) < 1e-3


def test_wave_shorter_than_a_frame_has_one_frame():
    assert len(spectrum(np.ones(3, np.float32), 16_000).power) == 1


def test_bandpass_leaks_nothing_out_of_its_band():
    white = np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
    frequency, power = welch(bandpass(white, 1000, 2000, 16_000), 16_000, nperseg=2048)
    assert power[(frequency > 1150) & (frequency < 1850)].min() > 1e-5
    assert power[(frequency < 950) | (frequency > 2050)].max() < 1e-7


def test_fade_copies_and_rises_from_silence_to_1():
    ones = np.ones(100, np.float32)
    faded = fade_seconds(ones, 0.01, 1000)
    assert ones.all()
    assert faded[0] == faded[-1] == 0
    assert faded[50] == 1


def test_fade_of_0_seconds_changes_nothing():
    assert fade_seconds(np.ones(8, np.float32), 0.0, 1000).all()


def test_silence_scaled_to_unit_rms_stays_silence():
    assert not to_unit_rms(np.zeros(4, np.float32)).any()
    assert len(to_unit_rms(np.zeros(0, np.float32))) == 0
