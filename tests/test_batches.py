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
def material(make_material):
    return make_material(RECIPE, DURATIONS, BOXES)


def draw(material, stage, train=EVERY, taught=None, seed=0):
    return epoch_batches(stage, material, np.array(train), taught, np.random.default_rng(seed))


def keys(batches):
    return [
        (int(i), int(f)) for b in batches for i, f in zip(b.cuts.image, b.cuts.first, strict=True)
    ]


def test_recordings_come_whole_and_each_once(material):
    train = [0, 1, 4, 7]
    batches = draw(material, Stage(name="s", batch_size=2), train)
    assert len(batches) == 2
    rows = material.windows_of(np.array(train))
    wanted = [(int(material.cuts.image[r]), int(material.cuts.first[r])) for r in rows]
    assert sorted(keys(batches)) == sorted(wanted)
    for batch in batches:
        assert len(set(material.owner[batch.cuts.image])) == 2


def test_targets_are_those_of_the_windows(material):
    place = {
        key: row
        for row, key in enumerate(
            zip(material.cuts.image.tolist(), material.cuts.first.tolist(), strict=True)
        )
    }
    taught = Targets(
        np.random.default_rng(0).random(material.heard.value.shape),
        np.random.default_rng(1).random(material.heard.value.shape),
    )
    for sample in ("recordings", "known"):
        batches = draw(material, Stage(name="s", batch_size=3, sample=sample), taught=taught)
        for batch in batches:
            rows = [place[key] for key in keys([batch])]
            for found, wanted in ((batch.heard, material.heard), (batch.taught, taught)):
                np.testing.assert_array_equal(found.value, wanted.value[rows])
                np.testing.assert_array_equal(found.weight, wanted.weight[rows])


def test_known_shows_the_windows_that_somebody_knows_and_no_other(material):
    stage = Stage(name="s", batch_size=4, sample="known")
    found = keys(draw(material, stage))
    known = material.heard.weight.any(axis=1)
    wanted = list(zip(material.cuts.image[known], material.cuts.first[known], strict=True))
    assert sorted(found) == sorted(wanted)
    assert 7 not in material.owner[[image for image, _ in found]]
    # a teacher's word makes a window known, in the training recordings only
    weight = np.zeros_like(material.heard.weight)
    row = int(material.windows_of(np.array([7]))[2])
    weight[row, 1] = 1
    taught = Targets(weight.copy(), weight)
    key = (int(material.cuts.image[row]), int(material.cuts.first[row]))
    assert key in keys(draw(material, stage, taught=taught))
    assert key not in keys(draw(material, stage, range(7), taught))


def test_no_batch_of_one_is_left_over(material):
    assert [len(b.cuts) for b in draw(material, Stage(name="s", sample="crops", batch_size=3))] == [
        3,
        4,
    ]
    assert [len(b.cuts) for b in draw(material, Stage(name="s", sample="crops", batch_size=7))] == [
        7
    ]
    one = draw(material, Stage(name="s", sample="crops", batch_size=7), [0])
    assert [len(b.cuts) for b in one] == [1]


def test_nothing_known_gives_no_batch(material):
    for sample in ("crops", "known"):
        assert draw(material, Stage(name="s", sample=sample), [7]) == []


def test_crops_are_one_a_recording_with_presents_and_some_without(material):
    stage = Stage(name="s", sample="crops", batch_size=64, absent_crops=3)
    drawn = set()
    for seed in range(40):
        (batch,) = draw(material, stage, seed=seed)
        owners = material.owner[batch.cuts.image].tolist()
        assert len(owners) == len(set(owners)) == 5
        assert {0, 1} <= set(owners)
        drawn |= set(owners)
    assert drawn == {0, 1, 2, 3, 4, 5, 6}  # anew each epoch; 7 has no box
    assert len(draw(material, Stage(name="s", sample="crops", absent_crops=0))[0].cuts) == 2
    assert {0} == set(material.owner[draw(material, stage, [0, 7])[0].cuts.image])


def test_a_crop_lies_around_a_present_box_moved_by_one_of_the_shifts(material):
    shifts = (3, 11)
    stage = Stage(name="s", sample="crops", batch_size=64, crop_shifts=shifts)
    middles = {0: (120, 310), 1: (125,)}  # frames in the image; r1's box lies in [8, 10)
    seen = set()
    for seed in range(60):
        (batch,) = draw(material, stage, seed=seed)
        for image, first in keys([batch]):
            owner = int(material.owner[image])
            if owner in middles:
                moved = {first + 32 - middle for middle in middles[owner]}
                (shift,) = moved & {-11, -3, 3, 11}
                seen.add((owner, shift, min(middles[owner], key=lambda m: abs(first + 32 - m))))
            if owner == 1:
                assert material.grids[image].start == 8.0
    assert len(seen) == 3 * 4


def test_a_crop_stays_inside_its_image(material):
    stage = Stage(name="s", sample="crops", batch_size=64, crop_shifts=(500,))
    for seed in range(10):
        for image, first in keys(draw(material, stage, seed=seed)):
            assert 0 <= first <= max(0, material.pictures.lengths[image] - 64)


def test_a_crops_labels_are_what_the_boxes_say_of_its_frames(material):
    stage = Stage(name="s", sample="crops", batch_size=64)
    for seed in range(20):
        (batch,) = draw(material, stage, seed=seed)
        for row, (image, first) in enumerate(keys([batch])):
            grid = material.grids[image]
            value, weight = np.zeros(3), np.zeros(3)
            boxes = material.boxes[material.owner[image]]
            for box in sorted(boxes, key=lambda b: b.present):
                start, stop = (
                    int((t - grid.start) / grid.hop + 1e-9) for t in (box.start, box.stop)
                )
                shown = range(first, min(first + 64, grid.frames))
                if set(range(start, stop)) & set(shown):
                    column = "abc".index(box.label)
                    value[column], weight[column] = box.present, 1
            np.testing.assert_array_equal(batch.heard.value[row], value)
            np.testing.assert_array_equal(batch.heard.weight[row], weight)
        assert batch.taught is None


def test_a_box_beyond_the_end_of_its_recording_is_no_trap(make_material):
    material = make_material(RECIPE, [4.0, 9.0], [said("r0", 50.0, 51.0), said("r1", 8.9, 12.0)])
    (batch,) = draw(
        material, Stage(name="s", sample="crops", batch_size=8, crop_shifts=(3,)), [0, 1]
    )
    assert sorted(material.owner[batch.cuts.image].tolist()) == [0, 1]
    for row, image in enumerate(batch.cuts.image):
        assert batch.heard.weight[row].sum() == (material.owner[image] == 1)


@pytest.mark.parametrize("sample", ["crops", "recordings", "known"])
def test_an_epoch_is_a_function_of_its_generator(material, sample):
    stage = Stage(name="s", sample=sample, batch_size=2)
    assert keys(draw(material, stage, seed=5)) == keys(draw(material, stage, seed=5))
    assert keys(draw(material, stage, seed=5)) != keys(draw(material, stage, seed=6))
