"""Copies with overlaid calls: which calls are added where, and what the copy sounds like."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from antpitta.core.config import OverlayConfig, Recipe
from antpitta.core.stages import Stage
from antpitta.core.types import Annotation, Classes, Dataset, Recording
from antpitta.train import overlays
from antpitta.train.data import build_training_data
from antpitta.train.overlays import plan_overlays, read_with_overlays

RATE = 8000
NAMES = ("a", "b", "c", "d")
FOLDS = np.array([0, 0, 1, 1])


def make_recording(name, seconds=10.0):
    return Recording(name, Path(f"{name}.wav"), RATE, round(seconds * RATE))


def make_box(name, start, label, present, length=1.0):
    return Annotation(name, start, start + length, label, present, 800.0, 1200.0)


DATASET = Dataset(
    tuple(make_recording(name) for name in NAMES),
    (
        make_box("a", 2, "frog", True),
        make_box("b", 5, "frog", False),
        make_box("b", 5.5, "frog", False),
        make_box("b", 8, "bird", False),
        make_box("c", 3, "frog", True),
        make_box("d", 9.5, "frog", False, 0.5),  # a call of a second would end after the host
        make_box("d", 4, "bird", True),
    ),
    Classes(("frog", "bird")),
)
ALWAYS = OverlayConfig(copies=1, probability=1.0, max_gain=0.0)


def read_tone(recording, start, stop, rate):
    """A soft tone, ten times as loud where a frog calls; d is silent."""
    t = np.arange(round(start * rate), round(stop * rate)) / rate
    wave = 0.01 * np.sin(2 * np.pi * 1000 * t) * (recording.id != "d")
    for box in DATASET.annotations:
        if box.recording == recording.id and box.present:
            wave[(t >= box.start) & (t < box.stop)] *= 10
    return wave.astype(np.float32)


def test_a_call_is_added_where_its_species_is_absent_within_its_fold():
    (overlay,) = plan_overlays(DATASET, FOLDS, ALWAYS, 1)
    assert overlay.host == 1
    assert overlay.recording.id == "b+1"
    assert overlay.recording.path == DATASET.recordings[1].path
    assert {overlaid.call.recording for overlaid in overlay.calls} == {"a"}
    assert [overlaid.start for overlaid in overlay.calls] == [5, 5.5]
    frogs = [box for box in overlay.boxes if box.label == "frog"]
    assert all(box.present and box.recording == "b+1" for box in frogs)
    assert [(box.start, box.stop) for box in frogs] == [(5, 6), (5.5, 6.5)]
    # no bird calls in the fold, so the absent box of the bird stays
    assert [box.label for box in overlay.boxes if not box.present] == ["bird"]


def test_an_absent_box_that_an_added_call_overlaps_is_removed():
    often = OverlayConfig(copies=30, probability=0.5, max_gain=0.0)
    for overlay in plan_overlays(DATASET, FOLDS, often, 1):
        if len(overlay.calls) == 1:  # the two boxes overlap
            assert [box.present for box in overlay.boxes if box.label == "frog"] == [True]
            return
    pytest.fail("none of 30 copies has one call")


def test_by_default_there_are_no_copies():
    assert plan_overlays(DATASET, FOLDS, OverlayConfig(), 1) == []


def test_equal_seeds_give_equal_plans_and_other_seeds_others():
    config = OverlayConfig(copies=3, probability=0.5)
    digests = [
        [overlay.digest for overlay in plan_overlays(DATASET, FOLDS, config, seed)]
        for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_copy_is_its_host_plus_the_call_at_the_same_level_above_the_background():
    overlays = plan_overlays(DATASET, FOLDS, ALWAYS, 1)
    overlay = replace(overlays[0], calls=overlays[0].calls[:1])
    read = read_with_overlays(read_tone, [overlay], DATASET, RATE)
    mixed = read(overlay.recording, 0, 10, RATE)
    added = mixed - read_tone(DATASET.recordings[1], 0, 10, RATE)
    assert np.abs(added[: 5 * RATE]).max() == 0
    assert np.abs(added[6 * RATE :]).max() == 0
    level = np.sqrt(np.mean(added[round(5.2 * RATE) : round(5.8 * RATE)] ** 2))
    assert level == pytest.approx(0.1 / np.sqrt(2), rel=0.03)
    late = read(overlay.recording, 5.5, 6, RATE)  # begins inside the call
    np.testing.assert_allclose(late, mixed[round(5.5 * RATE) : 6 * RATE], atol=1e-6)


def test_a_call_is_added_at_the_sample_rate_that_is_read():
    overlay = plan_overlays(DATASET, FOLDS, ALWAYS, 1)[0]
    read = read_with_overlays(read_tone, [overlay], DATASET, RATE)
    doubled = read(overlay.recording, 0, 10, 2 * RATE)
    assert len(doubled) == 20 * RATE
    np.testing.assert_allclose(doubled[::2], read(overlay.recording, 0, 10, RATE), atol=2e-3)


def test_recordings_without_overlays_are_read_unchanged():
    overlays = plan_overlays(DATASET, FOLDS, ALWAYS, 1)
    read = read_with_overlays(read_tone, overlays, DATASET, RATE)
    for recording in DATASET.recordings:
        np.testing.assert_array_equal(
            read(recording, 0, 10, RATE), read_tone(recording, 0, 10, RATE)
        )


def test_copies_are_trained_on_wherever_their_host_is():
    features = {"sample_rate": RATE, "hop_length": 800, "n_fft": 800, "fmax": 4000.0}
    recipe = Recipe.model_validate(
        {
            "name": "t",
            "description": "t",
            "features": features | {"segment": 10.0},
            "stages": [Stage(name="s")],
            "windows": {"frames": 20, "overlap": 0, "inference_overlap": 0},
        }
    )
    overlays = plan_overlays(DATASET, FOLDS, ALWAYS, 1)
    arrays = [np.ones((101, 128), dtype=np.uint8)] * (4 + len(overlays))
    training_data = build_training_data(DATASET, recipe, arrays, torch.device("cpu"), overlays)
    assert training_data.with_overlays(np.array([1])).tolist() == [1, 4]
    assert training_data.with_overlays(np.array([2, 3])).tolist() == [2, 3]
    windows = training_data.windows_of(np.array([4]))
    assert not training_data.original_windows[windows].any()
    assert training_data.original_windows.sum() == 4 * 6
    frog = training_data.labels.value[windows, 0] * training_data.labels.weight[windows, 0]
    assert frog.tolist() == [0, 0, 1, 1, 0, 0]  # windows of 2 s; the calls last until 6.5 s


def test_at_most_a_thousand_copies_are_made(monkeypatch):
    config = OverlayConfig(copies=30, probability=1.0, max_gain=0.0)
    every = plan_overlays(DATASET, FOLDS, config, seed=1)
    monkeypatch.setattr(overlays, "MAX_COPIES", 7)
    chosen = plan_overlays(DATASET, FOLDS, config, seed=1)
    assert len(every) > len(chosen) == 7
    ids = [copy.recording.id for copy in every]
    assert [copy.recording.id for copy in chosen] == sorted(
        (copy.recording.id for copy in chosen), key=ids.index
    )
