"""Synthetic species: their bands and lengths, and pairs that differ in rhythm only."""

import numpy as np
import pytest
from scipy.signal import periodogram

from antpitta.core.errors import UserError
from antpitta.sound.species_sources import MARGIN
from antpitta.sound.synthetic_species import (
    SYNTHETIC_SPECIES,
    Individual,
    demo_species,
    draw_individual,
    synthesize_call,
)

NAMES = [species.name for species in SYNTHETIC_SPECIES]
every_species = pytest.mark.parametrize("species", SYNTHETIC_SPECIES, ids=NAMES)


def random_calls(species, sample_rate, count=12):
    rng = np.random.default_rng(3)
    return [synthesize_call(species, draw_individual(rng), rng, sample_rate) for _ in range(count)]


def notes_per_second(wave, sample_rate):
    """The strongest rhythm of the call's power between 3 and 25 Hz."""
    size = 2**15
    power = np.abs(wave[: size * 4]) ** 2
    spectrum = np.abs(np.fft.rfft(power - power.mean(), size * 4))
    frequency = np.fft.rfftfreq(size * 4, 1 / sample_rate)
    inside = (frequency > 3) & (frequency < 25)
    return frequency[inside][spectrum[inside].argmax()]


@pytest.mark.parametrize("sample_rate", [16_000, 24_000, 48_000])
@every_species
def test_band_holds_nine_tenths_of_each_individuals_energy(species, sample_rate):
    for wave in random_calls(species, sample_rate):
        frequency, power = periodogram(wave, sample_rate)
        inside = (frequency >= species.low) & (frequency < species.high)
        assert power[inside].sum() / power.sum() > 0.9


@every_species
def test_call_is_shorter_than_its_template_and_longer_than_a_third_of_it(species):
    for wave in random_calls(species, 16_000, 40):
        assert species.duration / 3 < len(wave) / 16_000 <= species.duration - MARGIN


@every_species
def test_call_has_unit_rms_and_silent_ends(species):
    for wave in random_calls(species, 24_000, 3):
        assert wave.dtype == np.float32
        assert np.sqrt((wave**2).mean()) == pytest.approx(1, abs=1e-3)
        assert max(abs(wave[0]), abs(wave[-1])) < 1e-3


def test_the_two_trills_share_a_band_and_differ_in_rhythm():
    amber, brass = SYNTHETIC_SPECIES[:2]
    assert (amber.low, amber.high, amber.duration) == (brass.low, brass.high, brass.duration)
    slow = [notes_per_second(wave, 16_000) for wave in random_calls(amber, 16_000)]
    fast = [notes_per_second(wave, 16_000) for wave in random_calls(brass, 16_000)]
    assert max(slow) < 9
    assert min(fast) > 11


def test_the_two_sweeps_overlap_in_band_and_both_rise():
    copper, dusk = SYNTHETIC_SPECIES[2:4]
    assert copper.low < dusk.low < copper.high < dusk.high
    for species in (copper, dusk):
        wave = random_calls(species, 16_000, 1)[0]
        first, last = np.array_split(wave, 2)
        means = [
            np.average(f, weights=p) for f, p in (periodogram(x, 16_000) for x in (first, last))
        ]
        assert means[1] > means[0] + 200


def test_individuals_differ_more_than_the_calls_of_one_individual():
    hoot = SYNTHETIC_SPECIES[4]

    def mean_pitch(individual, seed):
        wave = synthesize_call(hoot, individual, np.random.default_rng(seed), 16_000)
        frequency, power = periodogram(wave, 16_000)
        inside = (frequency > 380) & (frequency < 620)  # the first partial
        return np.average(frequency[inside], weights=power[inside])

    rng = np.random.default_rng(0)
    individuals = [draw_individual(rng) for _ in range(12)]
    between = np.std([mean_pitch(individual, 5) for individual in individuals])
    within = np.std([mean_pitch(individuals[0], seed) for seed in range(12)])
    assert between > 2 * within > 0


def test_partials_above_nyquist_are_left_out():
    species = SYNTHETIC_SPECIES[3]  # its second partial reaches 5.4 kHz
    wave = species.synthesize(Individual(), np.random.default_rng(1), 8_000)
    frequency, power = periodogram(wave, 8_000)
    assert power[frequency > species.high].sum() / power.sum() < 0.01


def test_splits_have_different_individuals_and_a_seed_reproduces_them():
    def first_calls(split, seed):
        sources = demo_species(16_000, split, seed)
        assert [source.name for source in sources] == NAMES
        return [
            render(np.random.default_rng(9)) for source in sources for render in source.individuals
        ]

    train, test = first_calls("train", 1), first_calls("test", 1)
    assert all(len(a) != len(b) or not np.allclose(a, b, atol=0.05) for a in train for b in test)
    again, other = first_calls("train", 1), first_calls("train", 2)
    assert all(np.array_equal(a, b) for a, b in zip(train, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(train, other, strict=True))


def test_sample_rate_that_cannot_hold_the_species_is_refused():
    with pytest.raises(UserError, match="8000") as error:
        demo_species(8_000, "train", 1)
    assert error.value.code == "E_SIMULATION_RATE"
