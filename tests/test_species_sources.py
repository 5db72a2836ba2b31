"""Species sources from real clips: templates, splits, and individuals.

The clips here are tones in noise, so the right band and length are known.
"""

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.sound.species_sources import SpeciesSource, species_sources, species_template

RATE = 16_000


def clip(pitch, begin, length, seconds=6.0, seed=0):
    rng = np.random.default_rng(seed)
    wave = 0.005 * rng.standard_normal(int(seconds * RATE))
    time = np.arange(int(length * RATE)) / RATE
    first = int(begin * RATE)
    wave[first : first + len(time)] += 0.5 * np.sin(2 * np.pi * pitch * time)
    return wave.astype(np.float32)


def test_template_encloses_the_call_closely():
    clips = [clip(2000, 2, 1.0), clip(2200, 3, 1.2, seed=1), clip(1900, 1, 1.1, seed=2)]
    template = species_template("tone", clips, RATE)
    assert 1700 < template.low < 1900
    assert 2100 < template.high < 2300
    assert 1.1 <= template.duration <= 1.8


def test_one_odd_clip_does_not_widen_the_template():
    clips = [clip(2000, 2, 1.0, seed=s) for s in range(3)]
    odd = clip(7000, 1, 3.0, seed=9)
    assert species_template("tone", [*clips, odd], RATE).high < 2500


def test_call_that_fills_its_clip_has_a_band():
    template = species_template("tone", [clip(3000, 0, 6.0)], RATE)
    assert template.low < 3000 < template.high < 3500


def test_silent_clips_are_refused():
    with pytest.raises(UserError, match="mute") as error:
        species_template("mute", [np.zeros(RATE, np.float32)], RATE)
    assert error.value.code == "E_SILENT_CLIPS"


def test_split_without_sound_is_refused():
    half = clip(2000, 0, 1.0)
    half[2 * RATE :] = 0
    with pytest.raises(UserError, match="test") as error:
        species_sources({"half": [half]}, RATE, np.random.default_rng(1))
    assert error.value.code == "E_SILENT_CLIPS"


def test_clip_belongs_to_one_split_only():
    pitches = [1500, 1600, 1700, 1800, 1900]
    clips = [clip(p, 1, 1.0, seed=p) for p in pitches]
    sources = species_sources({"five": clips}, RATE, np.random.default_rng(2))
    used = {}
    for split, (source,) in sources.items():
        waves = [render(np.random.default_rng(1)) for render in source.individuals]
        used[split] = {
            min(pitches, key=lambda p, w=w: abs(p - np.abs(np.fft.rfft(w, RATE)).argmax()))
            for w in waves
        }
    assert len(used["train"]) == 4
    assert len(used["test"]) == 1
    assert used["train"] | used["test"] == set(pitches)


def test_only_clip_gives_each_split_one_end():
    wave = clip(1500, 0.5, 1.0) + clip(2500, 4.5, 1.0)
    sources = species_sources({"one": [wave]}, RATE, np.random.default_rng(2))
    peaks = {
        split: np.abs(np.fft.rfft(source.individuals[0](np.random.default_rng(1)), RATE)).argmax()
        for split, (source,) in sources.items()
    }
    assert peaks["train"] == pytest.approx(1500, abs=20)
    assert peaks["test"] == pytest.approx(2500, abs=20)


def test_individual_renders_the_loud_stretches_of_its_clip_at_unit_rms():
    wave = clip(2000, 2, 1.0)
    source = species_sources({"v": [wave, wave]}, RATE, np.random.default_rng(1))["train"][0]
    for seed in range(10):
        call = source.individuals[0](np.random.default_rng(seed))
        assert len(call) / RATE < source.duration
        assert np.sqrt((call**2).mean()) == pytest.approx(1, abs=1e-3)
        power = np.abs(np.fft.rfft(call)) ** 2
        frequency = np.fft.rfftfreq(len(call), 1 / RATE)
        inside = (frequency >= source.low) & (frequency < source.high)
        assert power[inside].sum() > 0.9 * power.sum()
        assert power[abs(frequency - 2000) < 30].sum() > 0.5 * power.sum()  # never a pause


def test_source_without_individuals_or_band_is_refused():
    with pytest.raises(ValueError, match="individuals"):
        SpeciesSource("a", 100, 200, 1, ())
    with pytest.raises(ValueError, match="reversed"):
        SpeciesSource("a", 200, 100, 1, (lambda rng: np.zeros(1, np.float32),))
