"""The recipe's settings: what is refused, what --set reaches, and the geometry of images."""

import math
from itertools import pairwise

import pytest

from antpitta.core.config import Recipe, WindowConfig, parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.features import MelConfig
from antpitta.core.stages import Stage


def table(**more):
    return {
        "name": "mine",
        "description": "never",
        "stages": [
            {"name": "crops", "sample": "crops"},
            {"name": "masked", "init_from": "crops"},
            {"name": "pseudo", "init_from": "crops", "pseudo": {"teacher": "masked"}},
        ],
        **more,
    }


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"flods": 3}, "flods"),
        ({"features": {"hops": 3}}, "front.hops"),
        ({"stages": [{"name": "a", "loss": {"focus": 2}}]}, "stages.0.loss.focus"),
        ({"stages": [{"name": "a", "masks": {"chanse": 0.2}}]}, "stages.0.masks.chanse"),
    ],
)
def test_an_unknown_key_is_refused_by_its_name(more, key):
    with pytest.raises(UserError, match=f"my.toml: .*{key}"):
        parse_recipe(table(**more), "my.toml")


def test_every_wrong_key_is_named_in_one_line():
    with pytest.raises(UserError) as caught:
        parse_recipe(table(seeed=1, folds=1), "my.toml")
    said = str(caught.value)
    assert "seeed" in said
    assert "folds" in said
    assert "\n" not in said


def test_changes_reach_a_stage_by_its_name_and_leave_the_others():
    changes = (
        "stages.masked.epochs=3",
        "stages.pseudo.pseudo.threshold=0.7",
        "features.n_mels=64",
        "backbone.weights=a/b.safetensors",
        "stages.crops.crop_shifts=[1, 2]",
        "backbone.pretrained=false",
    )
    found = parse_recipe(table(), "my.toml", changes)
    assert [stage.epochs for stage in found.stages] == [5, 3, 5]
    assert found.stages[2].pseudo.threshold == 0.7
    assert found.features.n_mels == 64
    assert found.backbone.weights == "a/b.safetensors"
    assert found.stages[0].crop_shifts == (1, 2)
    assert found.backbone.pretrained is False


def test_a_stage_can_be_left_out():
    found = parse_recipe(table(), "my.toml", ("stages.pseudo=null",))
    assert [stage.name for stage in found.stages] == ["crops", "masked"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("folds", "no '='"),
        ("stages.maksed.epochs=3", "no stage 'maksed'; the stages are crops, masked, taught"),
        ("stages.masked=3", "name a setting"),
        ("stages.maksed=null", "no stage 'maksed'; the stages are crops, masked, taught"),
        ("stages.masked=null", "'pseudo' needs 'masked', which is not before it"),
        ("stages.masked.epochs=three", "epochs"),
        ("flods=3", "flods"),
        ("name.first=3", "name.first"),
        ("name.first.second=3", "name.first.second"),
        ("stages.crops.name.first=3", "stages.crops.name.first"),
        ("stages=3", "stages"),
    ],
)
def test_a_change_that_reaches_nothing_is_the_users_mistake(change, message):
    with pytest.raises(UserError, match=message):
        parse_recipe(table(), "my.toml", (change,))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "needs a stage"),
        ([{"name": "a", "init_from": "b"}, {"name": "b"}], "'a' needs 'b', which is not before it"),
        ([{"name": "a", "init_from": "a"}], "'a' needs 'a'"),
        ([{"name": "a", "pseudo": {"teacher": "a"}}], "'a' needs 'a'"),
        ([{"name": "a"}, {"name": "a"}], "two stages are named 'a'"),
        ([{"name": "../a"}], "stages.0.name"),
    ],
)
def test_a_stage_builds_only_on_stages_before_it(stages, message):
    with pytest.raises(UserError, match=message):
        parse_recipe(table(stages=stages), "my.toml")


def test_no_stage_can_take_the_folder_of_anothers_cycle():
    stages = [
        {"name": "a"},
        {"name": "b", "pseudo": {"teacher": "a", "cycles": 2}},
        {"name": "b-c2"},
    ]
    with pytest.raises(UserError, match="b-c2"):
        parse_recipe(table(stages=stages), "my.toml")


@pytest.mark.parametrize(
    "front", [{"fmin": 9000.0, "fmax": 8000.0}, {"fmax": 16000.1}, {"sample_rate": 31_000}]
)
def test_bands_must_be_heard_at_the_sample_rate(front):
    with pytest.raises(ValueError, match="must hold"):
        MelConfig(**front)


@pytest.mark.parametrize("key", ["overlap", "scan_overlap"])
def test_windows_that_never_advance_are_refused(key):
    with pytest.raises(ValueError, match="never advances"):
        WindowConfig(frames=50, **{"overlap": 10, "inference_overlap": 20, key: 50})


def test_a_minute_is_3751_frames_and_a_time_becomes_a_frame_as_in_the_recipe():
    front = MelConfig()
    assert front.n_frames(60.0) == 3751
    grid = front.time_grid(0.0, 60.0)
    assert (grid.frames, grid.start) == (3751, 0.0)
    assert grid.hop == 60 / 3751
    for start, stop in ((0.27, 0.6), (44.544, 45.1307), (52.112, 60.0)):
        rows = grid.overlapping_frames(start, stop)
        assert (rows.start, rows.stop) == (int(3751 * start / 60), int(3751 * stop / 60))


@pytest.mark.parametrize(
    ("duration", "images"),
    [
        (60.0, [(0, 60)]),
        (0.5, [(0, 0.5)]),
        (120.0, [(0, 60), (60, 120)]),
        (150.5, [(0, 60), (60, 120), (120, 150.5)]),
        (60.01, [(0, 60)]),  # what is left is shorter than a frame of 16 ms
        (0.001, [(0, 0.001)]),
    ],
)
def test_a_long_recording_is_several_images(duration, images):
    assert MelConfig().segments(duration) == images


def test_images_lie_end_to_end_and_leave_out_less_than_a_frame():
    front = MelConfig(segment=7.3)
    for duration in (3.0, 7.3, 21.9, 36.5, 86_400.0, 59.999979):
        images = front.segments(duration)
        assert images[0][0] == 0.0
        for (_, before), (after, _) in pairwise(images):
            assert before == pytest.approx(after, abs=1e-9)
        assert 0 <= duration - images[-1][1] < front.hop_length / front.sample_rate
        assert all(stop > start for start, stop in images)


def test_touched_never_loses_a_box_nor_leaves_the_grid():
    grid = MelConfig().time_grid(60.0, 120.0)
    assert grid.overlapping_frames(60.0, 60.001) == slice(0, 1)
    assert grid.overlapping_frames(59.0, 60.5).start == 0
    assert grid.overlapping_frames(119.9, 500.0) == slice(int(3751 * 59.9 / 60), 3751)
    assert grid.overlapping_frames(119.9, math.inf).stop == 3751
    for start, stop in ((0.0, 60.0), (59.999, 59.9995), (120.0, 121.0), (300.0, 301.0)):
        rows = grid.overlapping_frames(start, stop)
        assert rows.start >= rows.stop


def test_equal_settings_have_equal_digests_and_others_do_not():
    one, two = parse_recipe(table(), "a"), parse_recipe(table(), "b")
    other = parse_recipe(table(), "a", ("stages.masked.lr=1e-3",))
    assert one.digest == two.digest != other.digest
    assert one.features.digest == other.features.digest != MelConfig(top_db=70.0).digest


def test_a_recipe_survives_json():
    one = parse_recipe(table(), "a")
    assert Recipe.model_validate_json(one.model_dump_json()) == one
    assert isinstance(one.stages[0], Stage)
