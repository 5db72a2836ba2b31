"""Settings that are filled in from the boxes of the data set, and runs that repeat exactly."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

import antpitta as ap
from antpitta.core.config import HeadConfig, Recipe
from antpitta.core.errors import UserError
from antpitta.core.features import MelConfig
from antpitta.core.stages import Stage
from antpitta.core.types import Annotation, Classes, Dataset, Recording
from antpitta.files.bundle import read_bundle
from antpitta.files.locks import lock_folder
from antpitta.train.training import (
    fill_background_subtraction,
    fill_class_band_limits,
    fill_smoothing_frames,
)

CLASSES = Classes(("frog", "bird", "bat"))


def dataset_of(*annotations):
    recording = Recording("r", Path("r.wav"), 32_000, 32_000 * 60)
    return Dataset((recording,), annotations, CLASSES)


def recipe_of(features, head):
    return Recipe(
        name="t", description="t", features=features, head=head, stages=(Stage(name="s"),)
    )


# ---- background_subtraction ----


@pytest.mark.parametrize(
    ("durations", "share"),
    [([60], 0.5), ([600, 60, 1], 0.5), ([5], 0.042), ([4, 6, 60], 0.05), ([0.01], 0.001)],
)
def test_background_is_subtracted_by_the_duration_of_recordings(durations, share):
    recordings = tuple(
        Recording(f"r{i}", Path(f"r{i}.wav"), 32_000, round(32_000 * seconds))
        for i, seconds in enumerate(durations)
    )
    recipe = recipe_of(MelConfig(), HeadConfig(background_subtraction="duration"))
    filled = fill_background_subtraction(recipe, Dataset(recordings, (), CLASSES))
    assert filled.head.background_subtraction == share


def test_background_subtraction_that_is_a_number_is_kept():
    recipe = recipe_of(MelConfig(), HeadConfig(background_subtraction=0.3))
    assert fill_background_subtraction(recipe, dataset_of()) is recipe


# ---- smoothing_frames ----


def box(species, seconds, present):
    return Annotation("r", 0, seconds, species, present)


def smoothing_frames_of(*boxes):
    ten_per_second = MelConfig(hop_length=3200, n_fft=3200)
    recipe = recipe_of(ten_per_second, HeadConfig(smoothing_frames="boxes"))
    return fill_smoothing_frames(recipe, dataset_of(*boxes)).head.smoothing_frames


def test_smoothing_frames_are_the_median_length_of_present_boxes():
    frames = smoothing_frames_of(
        box("frog", 1, True),
        box("frog", 2, True),
        box("frog", 9, True),
        box("frog", 30, False),
        box("bird", 3, False),  # without present boxes, the absent ones
        box("bat", 0.001, True),
    )
    assert frames == (20, 30, 1)


def test_smoothing_frames_of_a_class_without_boxes_are_the_median_of_all():
    frames = smoothing_frames_of(box("frog", 1, True), box("frog", 2, True), box("*", 60, False))
    assert frames == (15, 15, 15)


def test_smoothing_frames_without_boxes_raise():
    with pytest.raises(UserError) as error:
        smoothing_frames_of(box("*", 60, False))
    assert error.value.code == "E_NO_BOXES"
    assert "head.smoothing_frames" in error.value.what


def test_smoothing_frames_that_are_numbers_are_kept():
    recipe = recipe_of(MelConfig(), HeadConfig(smoothing_frames=3))
    assert fill_smoothing_frames(recipe, dataset_of()) is recipe


# ---- class_band_limits ----


def class_band_limits_of(*annotations):
    # Below 1 kHz mels are linear: edges at 0, 200, 400 ... Hz, band i from 200 i to 200 i + 400.
    features = MelConfig(
        sample_rate=2000, n_fft=512, hop_length=200, n_mels=4, fmin=0.0, fmax=1000.0
    )
    head = HeadConfig(frequency_pooling="none", class_band_limits="boxes")
    recipe = recipe_of(features, head)
    return fill_class_band_limits(recipe, dataset_of(*annotations)).head.class_band_limits


def band_box(species, present, *band):
    return Annotation("r", 0, 1, species, present, *band)


def test_class_band_limits_go_from_the_lowest_to_the_highest_band_of_present_boxes():
    limits = class_band_limits_of(
        band_box("frog", True, 450, 550),
        band_box("frog", False, 0, 100),
        band_box("bird", True, 100, 150),
        band_box("bird", True, 650, 700),
        band_box("bat", False, 600, 800),
    )
    assert limits == ((1, 3), (0, 4), (2, 4))


def test_class_band_limits_without_frequencies_or_outside_the_spectrogram_are_all_bands():
    limits = class_band_limits_of(
        band_box("frog", True), band_box("frog", True, 450, 550), band_box("bird", True, 5000, 6000)
    )
    assert limits == ((0, 4),) * 3  # the bat has no boxes, and takes those of all classes


def test_class_band_limits_without_boxes_raise():
    with pytest.raises(UserError) as error:
        class_band_limits_of(band_box("*", False))
    assert error.value.code == "E_NO_BOXES"
    assert "head.class_band_limits" in error.value.what


def test_class_band_limits_that_are_not_set_are_kept():
    recipe = recipe_of(MelConfig(), HeadConfig())
    assert fill_class_band_limits(recipe, dataset_of()) is recipe


# ---- the folder of a run ----


def contents(folder):
    """Every file that does not tell how long the training took."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "tensorboard" and not path.name.endswith(".lock")
    }
    log = pd.read_csv(folder / "log.csv").drop(columns="seconds")
    minutes = re.sub(rb"took [\d.]+ minutes", b"", files.pop("report.html"))
    digests = json.loads(files.pop(".antpitta.json"))["files"]
    del digests["report.html"]
    return {**files, "log.csv": log.to_csv().encode(), "report.html": minutes}, digests


def test_two_trainings_with_one_seed_give_equal_files(
    run, simulated, recipe, tmp_path, low_thresholds
):
    with low_thresholds():
        again = ap.train(ap.open_data(simulated), str(recipe), tmp_path / run.path.name)
    first, second = contents(run.path), contents(again.path)
    assert first[0].keys() == second[0].keys()
    assert [name for name in first[0] if first[0][name] != second[0][name]] == []
    assert first[1] == second[1]
    assert read_bundle(run.model).digest == read_bundle(again.model).digest

    (again.model / "MODEL_CARD.md").write_text("edited")
    with pytest.raises(UserError) as error:
        ap.train(ap.open_data(simulated), str(recipe), again.path, resume=True)
    assert error.value.code == "E_OUTPUT_EDITED"
    assert (again.model / "MODEL_CARD.md").read_text() == "edited"


def test_second_training_in_one_folder_is_refused_while_the_first_runs(simulated, recipe, tmp_path):
    with lock_folder(tmp_path / "run"), pytest.raises(UserError) as error:
        ap.train(ap.open_data(simulated), str(recipe), tmp_path / "run")
    assert error.value.code == "E_OUTPUT_LOCKED"
    assert not (tmp_path / "run" / "config.json").exists()
