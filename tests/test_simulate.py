"""Soundscapes and their boxes: what is said to be there is there, and nothing else."""

from itertools import pairwise

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.sound.ambience import demo_backgrounds
from antpitta.sound.filters import bandpass, spectrum, to_unit
from antpitta.sound.simulation import (
    LEAST,
    SimulationConfig,
    assign_species,
    prevalences,
    simulate,
    simulate_validation,
)
from antpitta.sound.species_sources import SpeciesSource, species_sources, species_template
from antpitta.sound.synthetic_species import demo_species

RATE = 16_000
PLAN = SimulationConfig(train=14, test=3, seconds=12, sample_rate=RATE, present=5, absent=15, seed=3)
NOISE = [lambda rng, samples: rng.standard_normal(samples).astype(np.float32)]


def tone_voice(name="tone", low=1000, high=1400, duration=0.5):
    wave = np.sin(2 * np.pi * 1200 * np.arange(int(0.4 * RATE)) / RATE).astype(np.float32)
    return SpeciesSource(name, low, high, duration, (lambda rng: wave * np.float32(2**0.5),))


@pytest.fixture(scope="module")
def voices():
    return demo_species(RATE, "train", PLAN.seed)


@pytest.fixture(scope="module")
def made(voices):
    return list(simulate(PLAN, "train", voices, demo_backgrounds(RATE, "train", PLAN.seed)))


@pytest.fixture(scope="module")
def boxes(made, voices):
    scenes = [one.scene for one in made]
    rng = np.random.default_rng(1)
    return simulate_validation(scenes, voices, rng, PLAN.present, PLAN.absent)


def calls_of(made, box):
    scene = next(one.scene for one in made if one.scene.recording == box.recording)
    return [call for call in scene.calls if call.progress.name == box.label]


def test_every_present_box_encloses_a_call_of_its_species(made, boxes):
    present = [box for box in boxes if box.present]
    for name in {box.label for box in boxes}:
        calls = [c for one in made for c in one.scene.calls if c.progress.name == name]
        assert sum(box.label == name for box in present) == min(PLAN.present, len(calls)) > 0
    for box in present:
        assert any(
            box.start <= call.start + 1e-3 and call.stop <= box.stop + 1e-3
            for call in calls_of(made, box)
        )


def test_no_absent_box_meets_a_call_of_its_species(made, boxes):
    absent = [box for box in boxes if not box.present]
    assert len(absent) > 8 * PLAN.absent * 0.8
    for box in absent:
        assert all(box.stop <= call.start or call.stop <= box.start for call in calls_of(made, box))


def test_absent_boxes_are_louder_than_the_band_usually_is(made, boxes):
    waves = {one.scene.recording: one.wave for one in made}
    over = []
    for box in (box for box in boxes if not box.present):
        heard = spectrum(waves[box.recording], RATE)
        level = heard.band(box.low, box.high)[
            int(box.start / heard.step) : int(box.stop / heard.step)
        ]
        over.append(10 * np.log10(level.max() / heard.floor(box.low, box.high) ** 2))
    assert min(over) > LEAST
    assert np.median(over) > 6


def test_the_loudest_false_matches_are_proposed_first(made, voices):
    scenes = {one.scene.recording: one.scene for one in made}

    def loudness(count):
        levels = []
        for box in simulate_validation(
            list(scenes.values()), voices[:1], np.random.default_rng(1), 0, count
        ):
            scene = scenes[box.recording]
            inside = slice(round(box.start / scene.step), round(box.stop / scene.step))
            levels.append(scene.contrast[0, inside].astype(float).mean())
        return np.mean(levels)

    assert loudness(2) > loudness(1000) + 1


def test_boxes_are_the_templates_and_lie_inside_the_recording(boxes, voices):
    sizes = {progress.name: (progress.low, progress.high, progress.duration) for progress in voices}
    for box in boxes:
        assert (box.low, box.high, pytest.approx(box.stop - box.start, abs=1e-3)) == sizes[
            box.label
        ]
        assert 0 <= box.start < box.stop <= PLAN.seconds


def test_some_absent_boxes_hold_another_species(made, boxes):
    strange = sum(
        any(
            call.progress.name != box.label
            and max(box.start, call.start) < min(box.stop, call.stop)
            and max(box.low, call.progress.low) < min(box.high, call.progress.high)
            for call in next(o.scene for o in made if o.scene.recording == box.recording).calls
        )
        for box in boxes
        if not box.present
    )
    assert 0 < strange < sum(not box.present for box in boxes)


def test_near_callers_are_proposed_more_often(made, voices):
    scenes = [one.scene for one in made]
    common = voices[int(prevalences(PLAN, len(voices)).argmax())]
    by_place = {
        (call.progress.name, scene.recording, round(call.start, 3)): call.snr
        for scene in scenes
        for call in scene.calls
    }
    drawn = []
    for seed in range(20):
        for box in simulate_validation(scenes, [common], np.random.default_rng(seed), 5, 0):
            drawn += [
                by_place[box.label, box.recording, round(call.start, 3)]
                for call in calls_of(made, box)
                if box.start <= call.start + 1e-3 and call.stop <= box.stop + 1e-3
            ]
    every = [snr for (name, _, _), snr in by_place.items() if name == common.name]
    assert np.mean(drawn) > np.mean(every) + 1


def test_calls_of_one_species_never_overlap_and_stay_inside(made):
    for scene in (one.scene for one in made):
        for call in scene.calls:
            assert 0 <= call.start < call.stop <= scene.seconds
            assert call.stop - call.start <= call.progress.duration
        for name in {call.progress.name for call in scene.calls}:
            mine = [call for call in scene.calls if call.progress.name == name]
            pairs = pairwise(mine)
            assert all(before.stop <= after.start for before, after in pairs)


def test_exactly_the_cast_calls(made, voices):
    sounds = assign_species(PLAN, "train", len(voices))
    for row, one in zip(sounds, made, strict=True):
        said = {annotation.label for annotation in one.scene.truth}
        assert said == {progress.name for progress, here in zip(voices, row, strict=True) if here}


def test_a_few_species_are_everywhere_and_most_are_rare_but_none_is_missing():
    plan = SimulationConfig(train=200, test=10)
    shares = np.sort(assign_species(plan, "train", 8).mean(axis=0))
    np.testing.assert_allclose(shares, np.sort(prevalences(plan, 8)), atol=0.003)
    steps = np.sort(prevalences(plan, 8))
    np.testing.assert_allclose(steps[1:] / steps[:-1], (0.9 / 0.08) ** (1 / 7))
    assert (assign_species(plan, "test", 8).sum(axis=0) >= 2).all()


def test_signal_to_noise_is_what_the_call_says():
    plan = SimulationConfig(
        train=8, test=0, seconds=10, sample_rate=RATE, commonest=1, rarest=1, quietest=6, loudest=6
    )
    burst = np.random.default_rng(1).standard_normal(int(0.4 * RATE)).astype(np.float32)
    burst = to_unit(bandpass(burst, 1000, 2000, RATE))  # a tone would interfere with its echo
    progress = SpeciesSource("burst", 1000, 2000, 0.6, (lambda rng: burst,))
    for one in simulate(plan, "train", [progress], NOISE):
        clean = bandpass(one.wave, progress.low, progress.high, RATE)
        quiet = spectrum(one.wave, RATE).floor(progress.low, progress.high)
        for call in one.scene.calls:
            inside = clean[int(call.start * RATE) : int(call.stop * RATE)]
            measured = 10 * np.log10((inside**2).mean() / quiet**2 - 1)  # less the noise itself
            assert measured == pytest.approx(call.snr, abs=2.0)  # the echo adds to it


def test_a_recording_that_would_clip_is_turned_down():
    plan = SimulationConfig(train=2, test=0, seconds=5, sample_rate=RATE, quietest=80, loudest=80)
    for one in simulate(plan, "train", [tone_voice()], NOISE):
        assert 0.9 < np.abs(one.wave).max() <= 0.981


def test_the_same_seed_sounds_the_same_and_another_does_not(made, voices):
    beds = demo_backgrounds(RATE, "train", PLAN.seed)
    again = next(simulate(PLAN, "train", voices, beds))
    np.testing.assert_array_equal(again.wave, made[0].wave)
    assert again.scene.truth == made[0].scene.truth
    other = SimulationConfig(train=2, test=0, seconds=12, sample_rate=RATE, seed=4)
    assert not np.array_equal(next(simulate(other, "train", voices, beds)).wave, made[0].wave)


def test_no_plan_without_sense(voices):
    for wrong in (
        {"train": 0, "test": 0},
        {"train": -1},
        {"seconds": 0},
        {"absent": -1},
        {"rarest": 0},
        {"rarest": 0.95},
        {"quietest": 20},
    ):
        with pytest.raises(UserError):
            SimulationConfig(**wrong)
    with pytest.raises(UserError, match="do not fit into recordings"):
        next(simulate(SimulationConfig(seconds=1, sample_rate=RATE), "train", voices, NOISE))
    with pytest.raises(UserError, match="sample rate of 8000"):
        next(simulate(SimulationConfig(sample_rate=8000), "train", voices, NOISE))
    with pytest.raises(UserError, match="species and backgrounds"):
        next(simulate(PLAN, "train", voices, []))


def test_a_species_that_never_calls_has_no_present_box(made, voices):
    scenes = [one.scene for one in made]
    silent = tone_voice("silent", voices[0].low, voices[0].high)
    found = simulate_validation(scenes, [silent], np.random.default_rng(1), 5, 5)
    assert found
    assert not any(box.present for box in found)


# Real clips: here tones in noise, so that the right band and length are known.


def clip(pitch, begin, length, seconds=6.0, seed=0, loud=0.5):
    rng = np.random.default_rng(seed)
    wave = 0.005 * rng.standard_normal(int(seconds * RATE))
    time = np.arange(int(length * RATE)) / RATE
    at = int(begin * RATE)
    wave[at : at + len(time)] += loud * np.sin(2 * np.pi * pitch * time)
    return wave.astype(np.float32)


def test_a_template_holds_the_call_and_little_else():
    clips = [clip(2000, 2, 1.0), clip(2200, 3, 1.2, seed=1), clip(1900, 1, 1.1, seed=2)]
    found = species_template("tone", clips, RATE)
    assert 1700 < found.low < 1900
    assert 2100 < found.high < 2300
    assert 1.1 <= found.duration <= 1.8


def test_one_odd_clip_does_not_widen_a_template():
    clips = [clip(2000, 2, 1.0, seed=s) for s in range(3)]
    odd = clip(7000, 1, 3.0, seed=9)
    assert species_template("tone", [*clips, odd], RATE).high < 2500


def test_a_call_that_fills_its_clip_still_has_a_band():
    found = species_template("tone", [clip(3000, 0, 6.0)], RATE)
    assert found.low < 3000 < found.high < 3500


def test_silent_clips_are_refused():
    with pytest.raises(UserError, match="no clip holds any sound"):
        species_template("mute", [np.zeros(RATE, np.float32)], RATE)
    half = clip(2000, 0, 1.0)
    half[2 * RATE :] = 0
    with pytest.raises(UserError, match="test side are silent"):
        species_sources({"half": [half]}, RATE, np.random.default_rng(1))


def test_a_clip_sings_on_one_side_only():
    pitches = [1500, 1600, 1700, 1800, 1900]
    clips = [clip(p, 1, 1.0, seed=p) for p in pitches]
    sides = species_sources({"five": clips}, RATE, np.random.default_rng(2))
    heard = {}
    for side, (progress,) in sides.items():
        waves = [sing(np.random.default_rng(1)) for sing in progress.singers]
        heard[side] = {
            min(pitches, key=lambda p, w=w: abs(p - np.abs(np.fft.rfft(w, RATE)).argmax()))
            for w in waves
        }
    assert len(heard["train"]) == 4
    assert len(heard["test"]) == 1
    assert heard["train"] | heard["test"] == set(pitches)


def test_an_only_clip_gives_each_side_an_end_of_its_own():
    wave = clip(1500, 0.5, 1.0) + clip(2500, 4.5, 1.0)
    sides = species_sources({"one": [wave]}, RATE, np.random.default_rng(2))
    peaks = {
        side: np.abs(np.fft.rfft(progress.singers[0](np.random.default_rng(1)), RATE)).argmax()
        for side, (progress,) in sides.items()
    }
    assert peaks["train"] == pytest.approx(1500, abs=20)
    assert peaks["test"] == pytest.approx(2500, abs=20)


def test_a_real_voice_sings_its_loud_stretches_in_its_band_at_unit_rms():
    wave = clip(2000, 2, 1.0)
    progress = species_sources({"v": [wave, wave]}, RATE, np.random.default_rng(1))["train"][0]
    for seed in range(10):
        sung = progress.singers[0](np.random.default_rng(seed))
        assert len(sung) / RATE < progress.duration
        assert np.sqrt((sung**2).mean()) == pytest.approx(1, abs=1e-3)
        power = np.abs(np.fft.rfft(sung)) ** 2
        frequency = np.fft.rfftfreq(len(sung), 1 / RATE)
        inside = (frequency >= progress.low) & (frequency < progress.high)
        assert power[inside].sum() > 0.9 * power.sum()
        assert power[abs(frequency - 2000) < 30].sum() > 0.5 * power.sum()  # never the pause


def test_a_voice_is_refused_without_singers_or_band():
    with pytest.raises(ValueError, match="nobody sings"):
        SpeciesSource("a", 100, 200, 1, ())
    with pytest.raises(ValueError, match="reversed"):
        SpeciesSource("a", 200, 100, 1, (lambda rng: np.zeros(1, np.float32),))
