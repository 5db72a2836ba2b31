"""What an epoch shows: which windows, how often, and with which labels."""

import numpy as np
import pytest

from antpitta.core.config import BackboneConfig, HeadConfig, Recipe, WindowConfig
from antpitta.core.features import MelConfig
from antpitta.core.stages import Stage
from antpitta.core.types import Annotation, Targets
from antpitta.train.batches import epoch_batches

FRONT = MelConfig(
    sample_rate=8000, n_fft=256, hop_length=80, n_mels=16, fmin=50, fmax=4000, segment=4.0
)
RECIPE = Recipe(
    name="tiny",
    description="tests",
    features=FRONT,  # 100 frames a second, 401 an image
    windows=WindowConfig(frames=64, overlap=16, inference_overlap=32),
    backbone=BackboneConfig(name="test_resnet", pretrained=False),
    head=HeadConfig(),
    stages=(Stage(name="one"),),
)


def said(recording, start, stop, label="a", present=True):
    return Annotation(recording, start, stop, label, present)


BOXES = [
    said("r0", 1.0, 1.4),
    said("r0", 3.0, 3.2, "b"),
    said("r0", 3.1, 3.3, "a", present=False),
    said("r1", 9.0, 9.5, "c"),  # of 10 s: in the third image
    *(said(f"r{i}", 0.5, 1.0, "b", present=False) for i in range(2, 7)),
]
DURATIONS = [4.0, 10.0, 4.0, 4.0, 0.3, 4.0, 4.0, 4.0]  # of the last nobody said anything
EVERY = np.arange(8)


@pytest.fixture(scope="module")
def training_data(make_training_data):
    return make_training_data(RECIPE, DURATIONS, BOXES)


def draw(training_data, stage, train=EVERY, pseudo_labels=None, seed=0):
    return epoch_batches(
        stage, training_data, np.array(train), pseudo_labels, np.random.default_rng(seed)
    )


def keys(batches):
    return [
        (int(i), int(f)) for b in batches for i, f in zip(b.windows.segment, b.windows.start, strict=True)
    ]


def test_recordings_come_whole_and_each_once(training_data):
    train = [0, 1, 4, 7]
    batches = draw(training_data, Stage(name="s", batch_size=2), train)
    assert len(batches) == 2
    rows = training_data.windows_of(np.array(train))
    wanted = [(int(training_data.windows.segment[r]), int(training_data.windows.start[r])) for r in rows]
    assert sorted(keys(batches)) == sorted(wanted)
    for batch in batches:
        assert len(set(training_data.recording_index[batch.windows.segment])) == 2


def test_targets_are_those_of_the_windows(training_data):
    place = {
        key: row
        for row, key in enumerate(
            zip(training_data.windows.segment.tolist(), training_data.windows.start.tolist(), strict=True)
        )
    }
    pseudo_labels = Targets(
        np.random.default_rng(0).random(training_data.labels.value.shape),
        np.random.default_rng(1).random(training_data.labels.value.shape),
    )
    for sample in ("recordings", "known"):
        batches = draw(
            training_data, Stage(name="s", batch_size=3, sample=sample), pseudo_labels=pseudo_labels
        )
        for batch in batches:
            rows = [place[key] for key in keys([batch])]
            for found, wanted in (
                (batch.labels, training_data.labels),
                (batch.pseudo_labels, pseudo_labels),
            ):
                np.testing.assert_array_equal(found.value, wanted.value[rows])
                np.testing.assert_array_equal(found.weight, wanted.weight[rows])


def test_known_shows_the_windows_that_somebody_knows_and_no_other(training_data):
    stage = Stage(name="s", batch_size=4, sample="known")
    found = keys(draw(training_data, stage))
    known = training_data.labels.weight.any(axis=1)
    wanted = list(
        zip(training_data.windows.segment[known], training_data.windows.start[known], strict=True)
    )
    assert sorted(found) == sorted(wanted)
    assert 7 not in training_data.recording_index[[image for image, _ in found]]
    # a teacher's word makes a window known, in the training recordings only
    weight = np.zeros_like(training_data.labels.weight)
    row = int(training_data.windows_of(np.array([7]))[2])
    weight[row, 1] = 1
    pseudo_labels = Targets(weight.copy(), weight)
    key = (int(training_data.windows.segment[row]), int(training_data.windows.start[row]))
    assert key in keys(draw(training_data, stage, pseudo_labels=pseudo_labels))
    assert key not in keys(draw(training_data, stage, range(7), pseudo_labels))


def test_no_batch_of_one_is_left_over(training_data):
    assert [
        len(b.windows) for b in draw(training_data, Stage(name="s", sample="crops", batch_size=3))
    ] == [
        3,
        4,
    ]
    assert [
        len(b.windows) for b in draw(training_data, Stage(name="s", sample="crops", batch_size=7))
    ] == [7]
    one = draw(training_data, Stage(name="s", sample="crops", batch_size=7), [0])
    assert [len(b.windows) for b in one] == [1]


def test_nothing_known_gives_no_batch(training_data):
    for sample in ("crops", "known"):
        assert draw(training_data, Stage(name="s", sample=sample), [7]) == []


def test_crops_are_one_a_recording_with_presents_and_some_without(training_data):
    stage = Stage(name="s", sample="crops", batch_size=64, absent_crops=3)
    drawn = set()
    for seed in range(40):
        (batch,) = draw(training_data, stage, seed=seed)
        owners = training_data.recording_index[batch.windows.segment].tolist()
        assert len(owners) == len(set(owners)) == 5
        assert {0, 1} <= set(owners)
        drawn |= set(owners)
    assert drawn == {0, 1, 2, 3, 4, 5, 6}  # anew each epoch; 7 has no box
    assert len(draw(training_data, Stage(name="s", sample="crops", absent_crops=0))[0].windows) == 2
    assert {0} == set(training_data.recording_index[draw(training_data, stage, [0, 7])[0].windows.segment])


def test_a_crop_lies_around_a_present_box_moved_by_one_of_the_shifts(training_data):
    shifts = (3, 11)
    stage = Stage(name="s", sample="crops", batch_size=64, crop_shifts=shifts)
    middles = {0: (120, 310), 1: (125,)}  # frames in the image; r1's box lies in [8, 10)
    seen = set()
    for seed in range(60):
        (batch,) = draw(training_data, stage, seed=seed)
        for image, first in keys([batch]):
            owner = int(training_data.recording_index[image])
            if owner in middles:
                moved = {first + 32 - middle for middle in middles[owner]}
                (shift,) = moved & {-11, -3, 3, 11}
                seen.add((owner, shift, min(middles[owner], key=lambda m: abs(first + 32 - m))))
            if owner == 1:
                assert training_data.grids[image].start == 8.0
    assert len(seen) == 3 * 4


def test_a_crop_stays_inside_its_image(training_data):
    stage = Stage(name="s", sample="crops", batch_size=64, crop_shifts=(500,))
    for seed in range(10):
        for image, first in keys(draw(training_data, stage, seed=seed)):
            assert 0 <= first <= max(0, training_data.features.lengths[image] - 64)


def test_a_crops_labels_are_what_the_boxes_say_of_its_frames(training_data):
    stage = Stage(name="s", sample="crops", batch_size=64)
    for seed in range(20):
        (batch,) = draw(training_data, stage, seed=seed)
        for row, (image, first) in enumerate(keys([batch])):
            grid = training_data.grids[image]
            value, weight = np.zeros(3), np.zeros(3)
            boxes = training_data.boxes[training_data.recording_index[image]]
            for box in sorted(boxes, key=lambda b: b.present):
                start, stop = (
                    int((t - grid.start) / grid.hop + 1e-9) for t in (box.start, box.stop)
                )
                shown = range(first, min(first + 64, grid.frames))
                if set(range(start, stop)) & set(shown):
                    column = "abc".index(box.label)
                    value[column], weight[column] = box.present, 1
            np.testing.assert_array_equal(batch.labels.value[row], value)
            np.testing.assert_array_equal(batch.labels.weight[row], weight)
        assert batch.pseudo_labels is None


def test_a_box_beyond_the_end_of_its_recording_is_no_trap(make_training_data):
    training_data = make_training_data(
        RECIPE, [4.0, 9.0], [said("r0", 50.0, 51.0), said("r1", 8.9, 12.0)]
    )
    (batch,) = draw(
        training_data, Stage(name="s", sample="crops", batch_size=8, crop_shifts=(3,)), [0, 1]
    )
    assert sorted(training_data.recording_index[batch.windows.segment].tolist()) == [0, 1]
    for row, image in enumerate(batch.windows.segment):
        assert batch.labels.weight[row].sum() == (training_data.recording_index[image] == 1)


@pytest.mark.parametrize("sample", ["crops", "recordings", "known"])
def test_an_epoch_is_a_function_of_its_generator(training_data, sample):
    stage = Stage(name="s", sample=sample, batch_size=2)
    assert keys(draw(training_data, stage, seed=5)) == keys(draw(training_data, stage, seed=5))
    assert keys(draw(training_data, stage, seed=5)) != keys(draw(training_data, stage, seed=6))
