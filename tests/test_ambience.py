"""What lies under the calls: the colour of noise, strangers in the bands, seams without clicks."""

import numpy as np
import pytest
from scipy.signal import welch

from antpitta.sound.ambience import (
    Ambience,
    background_source,
    coloured_noise,
    demo_backgrounds,
    draw_ambience,
    draw_background,
)
from antpitta.sound.filters import bandpass, fade, spectrum, to_unit
from antpitta.sound.synthetic_species import CALLERS

QUIET = Ambience(exponent=1.0, wind=0.5, rain=0.0, insects=(), strangers=0.0)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_noise_falls_as_its_exponent_says(exponent):
    wave = coloured_noise(np.random.default_rng(1), 20, 16_000, exponent)
    frequency, power = welch(wave, 16_000, nperseg=4096)
    inside = (frequency > 200) & (frequency < 7000)
    slope = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.05)
    assert np.sqrt((wave**2).mean()) == pytest.approx(1, abs=1e-3)


def test_strangers_make_loud_moments_in_the_species_bands_of_a_bed():
    def loudest(strangers):
        where = Ambience(QUIET.exponent, QUIET.wind, 0.0, (), strangers)
        wave = draw_background(np.random.default_rng(2), 60, 16_000, where)
        heard = spectrum(wave, 16_000)
        return [heard.band(c.low, c.high).max() / heard.floor(c.low, c.high) ** 2 for c in CALLERS]

    quiet, lively = np.array(loudest(0.0)), np.array(loudest(0.5))
    assert (lively > 3 * quiet).sum() >= 6


def test_insects_hum_at_their_own_pitch_only():
    where = Ambience(0.5, 0.0, 0.0, (5000.0, 5000.0, 5000.0, 5000.0, 5000.0), 0.0)
    wave = draw_background(np.random.default_rng(4), 10, 16_000, where)
    frequency, power = welch(wave, 16_000, nperseg=1024)
    at, beside = power[abs(frequency - 5000) < 60], power[abs(frequency - 5000) > 300]
    assert at.mean() > 3 * beside[frequency[abs(frequency - 5000) > 300] > 3000].mean()


def test_rain_and_insects_near_nyquist_stay_finite():
    where = Ambience(1.0, 1.0, 0.5, (7590.0, 7600.0), 0.4)
    for seed in range(8):
        wave = draw_background(np.random.default_rng(seed), 3, 15_300, where)
        assert np.isfinite(wave).all()
        assert len(wave) == 45_900


def test_the_two_sides_are_different_places_and_a_seed_brings_them_back():
    def sounds(side, seed):
        return [lay(np.random.default_rng(5), 8000) for lay in demo_backgrounds(16_000, side, seed)]

    train, test = sounds("train", 1), sounds("test", 1)
    assert not any(np.array_equal(a, b) for a in train for b in test)
    assert all(np.array_equal(a, b) for a, b in zip(train, sounds("train", 1), strict=True))
    assert draw_ambience(np.random.default_rng(1)) != draw_ambience(np.random.default_rng(2))


def test_a_short_background_is_blended_end_to_end_without_a_click():
    tone = np.sin(2 * np.pi * 300 * np.arange(8000) / 8000).astype(np.float32)
    lay = background_source([lambda rng, samples: tone[: int(rng.integers(5000, 8000))]], 8000)
    wave = lay(np.random.default_rng(3), 50_000)
    assert len(wave) == 50_000
    assert np.sqrt((wave**2).mean()) == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(wave)).max() < 3 * np.abs(np.diff(to_unit(tone))).max()


def test_backgrounds_without_sound_are_refused():
    with pytest.raises(ValueError, match="no background"):
        background_source([], 8000)
    lay = background_source([lambda rng, samples: np.zeros(0, np.float32)], 8000)
    with pytest.raises(ValueError, match="no sound"):
        lay(np.random.default_rng(1), 100)


def test_the_level_of_a_tone_in_its_band_is_its_mean_square():
    wave = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    heard = spectrum(wave, 16_000)
    assert np.median(heard.band(900, 1100)) == pytest.approx(0.5, rel=0.02)
    assert heard.floor(900, 1100) == pytest.approx(np.sqrt(0.5), rel=0.01)
    assert heard.floor(4000, 6000) < 1e-3


def test_a_wave_shorter_than_a_frame_has_one():
    assert len(spectrum(np.ones(3, np.float32), 16_000).power) == 1


def test_a_band_pass_keeps_its_band_and_nothing_else():
    white = np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
    frequency, power = welch(bandpass(white, 1000, 2000, 16_000), 16_000, nperseg=2048)
    assert power[(frequency > 1150) & (frequency < 1850)].min() > 1e-5
    assert power[(frequency < 950) | (frequency > 2050)].max() < 1e-7


def test_fades_copy_and_silence_stays_silence():
    ones = np.ones(100, np.float32)
    out = fade(ones, 0.01, 1000)
    assert ones.all()
    assert out[0] == 0
    assert out[50] == 1
    assert not to_unit(np.zeros(4, np.float32)).any()
    assert len(to_unit(np.zeros(0, np.float32))) == 0
