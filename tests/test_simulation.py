"""Soundscapes, their ground truth, and the boxes of the simulated validation."""

from itertools import pairwise

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.sound.ambience import demo_backgrounds
from antpitta.sound.filters import bandpass, spectrum, to_unit_rms
from antpitta.sound.simulation import (
    MIN_CONTRAST,
    SimulationConfig,
    assign_species,
    draw_prevalences,
    simulate,
    simulate_validation,
)
from antpitta.sound.species_sources import SpeciesSource
from antpitta.sound.synthetic_species import demo_species

RATE = 16_000
CONFIG = SimulationConfig(
    train=14, test=3, seconds=12, sample_rate=RATE, present=5, absent=15, seed=3
)
NOISE = [lambda rng, samples: rng.standard_normal(samples).astype(np.float32)]


def tone_source(name="tone", low=1000, high=1400, duration=0.5):
    wave = np.sin(2 * np.pi * 1200 * np.arange(int(0.4 * RATE)) / RATE).astype(np.float32)
    return SpeciesSource(name, low, high, duration, (lambda rng: wave * np.float32(2**0.5),))


@pytest.fixture(scope="module")
def species():
    return demo_species(RATE, "train", CONFIG.seed)


@pytest.fixture(scope="module")
def soundscapes(species):
    return list(simulate(CONFIG, "train", species, demo_backgrounds(RATE, "train", CONFIG.seed)))


@pytest.fixture(scope="module")
def scenes(soundscapes):
    return {soundscape.scene.recording: soundscape.scene for soundscape in soundscapes}


@pytest.fixture(scope="module")
def boxes(scenes, species):
    rng = np.random.default_rng(1)
    return simulate_validation(list(scenes.values()), species, rng, CONFIG.present, CONFIG.absent)


def calls_of(scenes, box):
    return [call for call in scenes[box.recording].calls if call.species.name == box.label]


def test_present_box_encloses_a_call_of_its_species(scenes, boxes):
    present = [box for box in boxes if box.present]
    for name in {box.label for box in boxes}:
        calls = [c for scene in scenes.values() for c in scene.calls if c.species.name == name]
        assert sum(box.label == name for box in present) == min(CONFIG.present, len(calls)) > 0
    for box in present:
        assert any(
            box.start <= call.start + 1e-3 and call.stop <= box.stop + 1e-3
            for call in calls_of(scenes, box)
        )


def test_absent_box_overlaps_no_call_of_its_species(scenes, boxes):
    absent = [box for box in boxes if not box.present]
    assert len(absent) > 8 * CONFIG.absent * 0.8
    for box in absent:
        assert all(
            box.stop <= call.start or call.stop <= box.start for call in calls_of(scenes, box)
        )


def test_absent_boxes_are_louder_than_the_median_of_the_band(soundscapes, boxes):
    waves = {soundscape.scene.recording: soundscape.wave for soundscape in soundscapes}
    over = []
    for box in (box for box in boxes if not box.present):
        bins = spectrum(waves[box.recording], RATE)
        inside = slice(int(box.start / bins.step), int(box.stop / bins.step))
        level = bins.band(box.low, box.high)[inside]
        over.append(10 * np.log10(level.max() / bins.median_level(box.low, box.high) ** 2))
    assert min(over) > MIN_CONTRAST
    assert np.median(over) > 6


def test_loudest_false_matches_are_proposed_first(scenes, species):
    def mean_contrast(count):
        levels = []
        for box in simulate_validation(
            list(scenes.values()), species[:1], np.random.default_rng(1), 0, count
        ):
            scene = scenes[box.recording]
            inside = slice(round(box.start / scene.step), round(box.stop / scene.step))
            levels.append(scene.contrast[0, inside].astype(float).mean())
        return np.mean(levels)

    assert mean_contrast(2) > mean_contrast(1000) + 1


def test_boxes_have_the_size_of_the_template_and_lie_inside_the_recording(boxes, species):
    sizes = {source.name: (source.low, source.high, source.duration) for source in species}
    for box in boxes:
        assert (box.low, box.high, pytest.approx(box.stop - box.start, abs=1e-3)) == sizes[
            box.label
        ]
        assert 0 <= box.start < box.stop <= CONFIG.seconds


def test_some_absent_boxes_hold_another_species(scenes, boxes):
    others = sum(
        any(
            call.species.name != box.label
            and max(box.start, call.start) < min(box.stop, call.stop)
            and max(box.low, call.species.low) < min(box.high, call.species.high)
            for call in scenes[box.recording].calls
        )
        for box in boxes
        if not box.present
    )
    assert 0 < others < sum(not box.present for box in boxes)


def test_near_individuals_are_proposed_more_often(scenes, species):
    common = species[int(draw_prevalences(CONFIG, len(species)).argmax())]
    snr = {
        (call.species.name, scene.recording, round(call.start, 3)): call.snr
        for scene in scenes.values()
        for call in scene.calls
    }
    chosen = []
    for seed in range(20):
        for box in simulate_validation(
            list(scenes.values()), [common], np.random.default_rng(seed), 5, 0
        ):
            chosen += [
                snr[box.label, box.recording, round(call.start, 3)]
                for call in calls_of(scenes, box)
                if box.start <= call.start + 1e-3 and call.stop <= box.stop + 1e-3
            ]
    every = [value for (name, _, _), value in snr.items() if name == common.name]
    assert np.mean(chosen) > np.mean(every) + 1


def test_calls_of_one_species_never_overlap_and_stay_inside(scenes):
    for scene in scenes.values():
        for call in scene.calls:
            assert 0 <= call.start < call.stop <= scene.seconds
            assert call.stop - call.start <= call.species.duration
        for name in {call.species.name for call in scene.calls}:
            calls = [call for call in scene.calls if call.species.name == name]
            assert all(before.stop <= after.start for before, after in pairwise(calls))


def test_exactly_the_assigned_species_call(scenes, species):
    assigned = assign_species(CONFIG, "train", len(species))
    for row, scene in zip(assigned, scenes.values(), strict=True):
        labels = {annotation.label for annotation in scene.truth}
        assert labels == {source.name for source, here in zip(species, row, strict=True) if here}


def test_prevalences_fall_geometrically_and_no_species_is_missing():
    config = SimulationConfig(train=200, test=10)
    shares = np.sort(assign_species(config, "train", 8).mean(axis=0))
    np.testing.assert_allclose(shares, np.sort(draw_prevalences(config, 8)), atol=0.003)
    steps = np.sort(draw_prevalences(config, 8))
    np.testing.assert_allclose(steps[1:] / steps[:-1], (0.9 / 0.08) ** (1 / 7))
    assert (assign_species(config, "test", 8).sum(axis=0) >= 2).all()


def test_signal_to_noise_ratio_is_that_of_the_call():
    config = SimulationConfig(
        train=8,
        test=0,
        seconds=10,
        sample_rate=RATE,
        max_prevalence=1,
        min_prevalence=1,
        min_snr=6,
        max_snr=6,
    )
    burst = np.random.default_rng(1).standard_normal(int(0.4 * RATE)).astype(np.float32)
    burst = to_unit_rms(bandpass(burst, 1000, 2000, RATE))  # a tone would interfere with its echo
    source = SpeciesSource("burst", 1000, 2000, 0.6, (lambda rng: burst,))
    for soundscape in simulate(config, "train", [source], NOISE):
        filtered = bandpass(soundscape.wave, source.low, source.high, RATE)
        quiet = spectrum(soundscape.wave, RATE).median_level(source.low, source.high)
        for call in soundscape.scene.calls:
            inside = filtered[int(call.start * RATE) : int(call.stop * RATE)]
            measured = 10 * np.log10((inside**2).mean() / quiet**2 - 1)  # without the noise
            assert measured == pytest.approx(call.snr, abs=2.0)  # the echo adds to it


def test_recording_that_would_clip_is_scaled_down():
    config = SimulationConfig(train=2, test=0, seconds=5, sample_rate=RATE, min_snr=80, max_snr=80)
    for soundscape in simulate(config, "train", [tone_source()], NOISE):
        assert 0.9 < np.abs(soundscape.wave).max() <= 0.981


def test_equal_seeds_give_equal_soundscapes_and_others_do_not(soundscapes, species):
    backgrounds = demo_backgrounds(RATE, "train", CONFIG.seed)
    first, again = soundscapes[0], next(simulate(CONFIG, "train", species, backgrounds))
    np.testing.assert_array_equal(again.wave, first.wave)
    assert again.scene.truth == first.scene.truth
    other = SimulationConfig(train=2, test=0, seconds=12, sample_rate=RATE, seed=4)
    different = next(simulate(other, "train", species, backgrounds))
    assert not np.array_equal(different.wave, first.wave)


@pytest.mark.parametrize(
    "settings",
    [
        {"train": 0, "test": 0},
        {"train": -1},
        {"seconds": 0},
        {"absent": -1},
        {"min_prevalence": 0},
        {"min_prevalence": 0.95},
        {"min_snr": 20},
    ],
)
def test_contradictory_settings_are_refused(settings):
    with pytest.raises(UserError) as error:
        SimulationConfig(**settings)
    assert error.value.code == "E_SIMULATION_SETTING"


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"seconds": 1}, "E_SIMULATION_SETTING"), ({"sample_rate": 8000}, "E_SIMULATION_RATE")],
)
def test_calls_that_do_not_fit_are_refused(species, settings, code):
    config = SimulationConfig(**{"sample_rate": RATE, **settings})
    with pytest.raises(UserError) as error:
        next(simulate(config, "train", species, NOISE))
    assert error.value.code == code


def test_simulation_without_backgrounds_is_refused(species):
    with pytest.raises(UserError) as error:
        next(simulate(CONFIG, "train", species, []))
    assert error.value.code == "E_SIMULATION_INPUT"


def test_species_that_never_calls_has_no_present_box(scenes, species):
    silent = tone_source("silent", species[0].low, species[0].high)
    boxes = simulate_validation(list(scenes.values()), [silent], np.random.default_rng(1), 5, 5)
    assert boxes
    assert not any(box.present for box in boxes)
