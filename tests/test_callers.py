"""The invented species: bands and lengths that hold, pairs that only rhythm tells apart."""

import numpy as np
import pytest
from scipy.signal import periodogram

from antpitta.core.errors import UserError
from antpitta.sound.species_sources import MARGIN
from antpitta.sound.synthetic_species import (
    CALLERS,
    Individual,
    call,
    demo_species,
    draw_individual,
)

NAMES = [caller.name for caller in CALLERS]
every_caller = pytest.mark.parametrize("caller", CALLERS, ids=NAMES)


def some_calls(caller, sample_rate, count=12):
    rng = np.random.default_rng(3)
    return [call(caller, draw_individual(rng), rng, sample_rate) for _ in range(count)]


def notes_per_second(wave, sample_rate):
    """The strongest rhythm between 3 and 25 Hz in the call's loudness."""
    size = 2**15
    loud = np.abs(wave[: size * 4]) ** 2
    spectrum = np.abs(np.fft.rfft(loud - loud.mean(), size * 4))
    frequency = np.fft.rfftfreq(size * 4, 1 / sample_rate)
    inside = (frequency > 3) & (frequency < 25)
    return frequency[inside][spectrum[inside].argmax()]


@pytest.mark.parametrize("sample_rate", [16_000, 24_000, 48_000])
@every_caller
def test_the_band_holds_nine_tenths_of_every_individuals_energy(caller, sample_rate):
    for wave in some_calls(caller, sample_rate):
        frequency, power = periodogram(wave, sample_rate)
        inside = (frequency >= caller.low) & (frequency < caller.high)
        assert power[inside].sum() / power.sum() > 0.9


@every_caller
def test_a_call_is_shorter_than_its_template_and_longer_than_a_third_of_it(caller):
    for wave in some_calls(caller, 16_000, 40):
        assert caller.duration / 3 < len(wave) / 16_000 <= caller.duration - MARGIN


@every_caller
def test_a_call_has_unit_rms_and_silent_ends(caller):
    for wave in some_calls(caller, 24_000, 3):
        assert wave.dtype == np.float32
        assert np.sqrt((wave**2).mean()) == pytest.approx(1, abs=1e-3)
        assert max(abs(wave[0]), abs(wave[-1])) < 1e-3


def test_the_two_trills_share_a_band_and_differ_in_rhythm_for_every_individual():
    amber, brass = CALLERS[:2]
    assert (amber.low, amber.high, amber.duration) == (brass.low, brass.high, brass.duration)
    slow = [notes_per_second(wave, 16_000) for wave in some_calls(amber, 16_000)]
    fast = [notes_per_second(wave, 16_000) for wave in some_calls(brass, 16_000)]
    assert max(slow) < 9
    assert min(fast) > 11


def test_the_two_sweeps_overlap_in_band_and_both_rise():
    copper, dusk = CALLERS[2:4]
    assert copper.low < dusk.low < copper.high < dusk.high
    for caller in (copper, dusk):
        wave = some_calls(caller, 16_000, 1)[0]
        first, last = np.array_split(wave, 2)
        middles = [
            np.average(f, weights=p) for f, p in (periodogram(x, 16_000) for x in (first, last))
        ]
        assert middles[1] > middles[0] + 200


def test_individuals_differ_more_than_the_calls_of_one():
    caller = CALLERS[4]  # its notes' pitch shows in the spectrum's middle

    def middle(who, seed):
        wave = call(caller, who, np.random.default_rng(seed), 16_000)
        frequency, power = periodogram(wave, 16_000)
        inside = (frequency > 380) & (frequency < 620)  # the first partial
        return np.average(frequency[inside], weights=power[inside])

    rng = np.random.default_rng(0)
    individuals = [draw_individual(rng) for _ in range(12)]
    between = np.std([middle(who, 5) for who in individuals])
    within = np.std([middle(individuals[0], seed) for seed in range(12)])
    assert between > 2 * within > 0


def test_partials_above_nyquist_are_left_out_rather_than_folded_down():
    caller = CALLERS[3]  # its second partial reaches 5.4 kHz
    wave = caller.draw(Individual(), np.random.default_rng(1), 8_000)
    frequency, power = periodogram(wave, 8_000)
    assert power[frequency > caller.high].sum() / power.sum() < 0.01


def test_training_and_test_individuals_differ_and_a_seed_brings_them_back():
    def first_calls(side, seed):
        voices = demo_species(16_000, side, seed)
        assert [progress.name for progress in voices] == NAMES
        return [sing(np.random.default_rng(9)) for progress in voices for sing in progress.singers]

    train, test = first_calls("train", 1), first_calls("test", 1)
    assert all(len(a) != len(b) or not np.allclose(a, b, atol=0.05) for a in train for b in test)
    again, other = first_calls("train", 1), first_calls("train", 2)
    assert all(np.array_equal(a, b) for a, b in zip(train, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(train, other, strict=True))


def test_a_sample_rate_that_cannot_hold_the_species_is_refused():
    with pytest.raises(UserError, match="sample rate 8000"):
        demo_species(8_000, "train", 1)
