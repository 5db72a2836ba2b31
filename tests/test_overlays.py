"""Copies with calls laid over absent boxes: who may lend to whom, and what is heard then."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from antpitta.core.config import OverlayConfig, Recipe
from antpitta.core.stages import Stage
from antpitta.core.types import Annotation, Classes, Dataset, Recording
from antpitta.train.data import build_training_data
from antpitta.train.overlays import plan_overlays, read_with_overlays

RATE = 8000
NAMES = ("a", "b", "c", "d")
FOLDS = np.array([0, 0, 1, 1])


def recording(name, seconds=10.0):
    return Recording(name, Path(f"{name}.wav"), RATE, round(seconds * RATE))


def box(name, start, label, present, length=1.0):
    return Annotation(name, start, start + length, label, present, 800.0, 1200.0)


DATA = Dataset(
    tuple(recording(name) for name in NAMES),
    (
        box("a", 2, "frog", True),
        box("b", 5, "frog", False),
        box("b", 5.5, "frog", False),
        box("b", 8, "bird", False),
        box("c", 3, "frog", True),
        box("d", 9.5, "frog", False, 0.5),  # a call of a second would not end before the host
        box("d", 4, "bird", True),
    ),
    Classes(("frog", "bird")),
)
ALWAYS = OverlayConfig(copies=1, probability=1.0, max_gain=0.0)


def sound(rec, start, stop, rate):
    """A soft tone, ten times as loud where a frog calls; d is all silence."""
    t = np.arange(round(start * rate), round(stop * rate)) / rate
    wave = 0.01 * np.sin(2 * np.pi * 1000 * t) * (rec.id != "d")
    for one in DATA.annotations:
        if one.recording == rec.id and one.present:
            wave[(t >= one.start) & (t < one.stop)] *= 10
    return wave.astype(np.float32)


def test_a_call_goes_where_its_species_is_absent_within_its_fold():
    (copy,) = plan_overlays(DATA, FOLDS, ALWAYS, 1)
    assert copy.host == 1
    assert copy.recording.id == "b+1"
    assert copy.recording.path == DATA.recordings[1].path
    assert {one.call.recording for one in copy.calls} == {"a"}
    assert [one.start for one in copy.calls] == [5, 5.5]
    frogs = [one for one in copy.boxes if one.label == "frog"]
    assert all(one.present and one.recording == "b+1" for one in frogs)
    assert [(one.start, one.stop) for one in frogs] == [(5, 6), (5.5, 6.5)]
    assert [one.label for one in copy.boxes if not one.present] == ["bird"]  # nobody to lend a call


def test_an_absent_box_that_a_call_touches_is_no_longer_said():
    once = OverlayConfig(copies=30, probability=0.5, max_gain=0.0)
    for copy in plan_overlays(DATA, FOLDS, once, 1):
        if len(copy.calls) == 1:  # the two boxes overlap
            assert [one.present for one in copy.boxes if one.label == "frog"] == [True]
            return
    pytest.fail("none of 30 copies has one call")


def test_no_copies_are_made_unless_asked_for():
    assert plan_overlays(DATA, FOLDS, OverlayConfig(), 1) == []


def test_equal_seeds_give_equal_plans_and_other_seeds_others():
    many = OverlayConfig(copies=3, probability=0.5)
    plans = [[c.digest for c in plan_overlays(DATA, FOLDS, many, seed)] for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


def test_a_copy_sounds_as_its_host_with_the_call_as_far_above_its_background():
    copies = plan_overlays(DATA, FOLDS, ALWAYS, 1)
    one = replace(copies[0], laid=copies[0].calls[:1])
    hear = read_with_overlays(sound, [one], DATA, RATE)
    mixed, host = hear(one.recording, 0, 10, RATE), sound(DATA.recordings[1], 0, 10, RATE)
    new = mixed - host
    assert np.abs(new[: 5 * RATE]).max() == 0
    assert np.abs(new[6 * RATE :]).max() == 0
    level = np.sqrt(np.mean(new[round(5.2 * RATE) : round(5.8 * RATE)] ** 2))
    assert level == pytest.approx(0.1 / np.sqrt(2), rel=0.03)
    late = hear(one.recording, 5.5, 6, RATE)  # a stretch that begins inside the call
    np.testing.assert_allclose(late, mixed[round(5.5 * RATE) : 6 * RATE], atol=1e-6)


def test_a_copy_is_laid_at_the_rate_that_it_is_asked_for():
    one = plan_overlays(DATA, FOLDS, ALWAYS, 1)[0]
    hear = read_with_overlays(sound, [one], DATA, RATE)
    twice = hear(one.recording, 0, 10, 2 * RATE)
    assert len(twice) == 20 * RATE
    np.testing.assert_allclose(twice[::2], hear(one.recording, 0, 10, RATE), atol=2e-3)


def test_recordings_themselves_are_heard_as_they_are():
    copies = plan_overlays(DATA, FOLDS, ALWAYS, 1)
    hear = read_with_overlays(sound, copies, DATA, RATE)
    for one in DATA.recordings:
        np.testing.assert_array_equal(hear(one, 0, 10, RATE), sound(one, 0, 10, RATE))


def test_copies_are_learnt_from_by_whoever_learns_from_the_host():
    front = {"sample_rate": RATE, "hop_length": 800, "n_fft": 800, "fmax": 4000.0, "segment": 10.0}
    recipe = Recipe.model_validate(
        {
            "name": "t", "description": "t", "features": front, "stages": [Stage(name="s")],
            "windows": {"frames": 20, "overlap": 0, "inference_overlap": 0},
        }
    )  # fmt: skip
    copies = plan_overlays(DATA, FOLDS, ALWAYS, 1)
    drawn = [np.ones((101, 128), dtype=np.uint8)] * (4 + len(copies))
    training_data = build_training_data(DATA, recipe, drawn, torch.device("cpu"), copies)
    assert training_data.with_overlays(np.array([1])).tolist() == [1, 4]
    assert training_data.with_overlays(np.array([2, 3])).tolist() == [2, 3]
    windows = training_data.windows_of(np.array([4]))
    assert not training_data.original_windows[windows].any()
    assert training_data.original_windows.sum() == 4 * 6
    frog = training_data.labels.value[windows, 0] * training_data.labels.weight[windows, 0]
    assert frog.tolist() == [0, 0, 1, 1, 0, 0]  # windows of two seconds; the calls last to 6.5
