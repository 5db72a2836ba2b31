"""The background of soundscapes: noise, distractors in the species' bands, and joints."""

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
from antpitta.sound.filters import spectrum, to_unit_rms
from antpitta.sound.synthetic_species import SYNTHETIC_SPECIES

QUIET = Ambience(exponent=1.0, wind=0.5, rain=0.0, insects=(), distractors=0.0)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_noise_power_falls_by_its_exponent(exponent):
    wave = coloured_noise(np.random.default_rng(1), 20, 16_000, exponent)
    frequency, power = welch(wave, 16_000, nperseg=4096)
    inside = (frequency > 200) & (frequency < 7000)
    slope = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.05)
    assert np.sqrt((wave**2).mean()) == pytest.approx(1, abs=1e-3)


def test_distractors_are_loud_in_the_species_bands():
    def loudest(distractors):
        ambience = Ambience(QUIET.exponent, QUIET.wind, 0.0, (), distractors)
        wave = draw_background(np.random.default_rng(2), 60, 16_000, ambience)
        bins = spectrum(wave, 16_000)
        return [
            bins.band(s.low, s.high).max() / bins.median_level(s.low, s.high) ** 2
            for s in SYNTHETIC_SPECIES
        ]

    without, several = np.array(loudest(0.0)), np.array(loudest(0.5))
    assert (several > 3 * without).sum() >= 6


def test_insects_are_loud_at_their_pitch_only():
    ambience = Ambience(0.5, 0.0, 0.0, (5000.0, 5000.0, 5000.0, 5000.0, 5000.0), 0.0)
    wave = draw_background(np.random.default_rng(4), 10, 16_000, ambience)
    frequency, power = welch(wave, 16_000, nperseg=1024)
    distance = abs(frequency - 5000)
    inside, outside = power[distance < 60], power[(distance > 300) & (frequency > 3000)]
    assert inside.mean() > 3 * outside.mean()


def test_rain_and_insects_near_nyquist_stay_finite():
    ambience = Ambience(1.0, 1.0, 0.5, (7590.0, 7600.0), 0.4)
    for seed in range(8):
        wave = draw_background(np.random.default_rng(seed), 3, 15_300, ambience)
        assert np.isfinite(wave).all()
        assert len(wave) == 45_900


def test_splits_have_different_sites_and_a_seed_reproduces_them():
    def sounds(split, seed):
        sources = demo_backgrounds(16_000, split, seed)
        return [source(np.random.default_rng(5), 8000) for source in sources]

    train, test = sounds("train", 1), sounds("test", 1)
    assert not any(np.array_equal(a, b) for a in train for b in test)
    assert all(np.array_equal(a, b) for a, b in zip(train, sounds("train", 1), strict=True))
    assert draw_ambience(np.random.default_rng(1)) != draw_ambience(np.random.default_rng(2))


def test_short_background_is_blended_without_a_click():
    tone = np.sin(2 * np.pi * 300 * np.arange(8000) / 8000).astype(np.float32)
    source = background_source([lambda rng, samples: tone[: int(rng.integers(5000, 8000))]], 8000)
    wave = source(np.random.default_rng(3), 50_000)
    assert len(wave) == 50_000
    assert np.sqrt((wave**2).mean()) == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(wave)).max() < 3 * np.abs(np.diff(to_unit_rms(tone))).max()


def test_backgrounds_without_sound_are_refused():
    with pytest.raises(ValueError, match="clips"):
        background_source([], 8000)
    source = background_source([lambda rng, samples: np.zeros(0, np.float32)], 8000)
    with pytest.raises(ValueError, match="clip"):
        source(np.random.default_rng(1), 100)
