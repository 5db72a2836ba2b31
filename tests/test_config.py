"""The settings of a recipe: what is refused, what --set changes, and the geometry of segments."""

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
    ("more", "key", "near"),
    [
        ({"flods": 3}, "flods", "folds"),
        ({"features": {"hops": 3}}, "features.hops", "features.hop_length"),
        ({"feature": {"hop_length": 3}}, "feature.hop_length", "features.hop_length"),
        (
            {"stages": [{"name": "a", "loss": {"focal": 2}}]},
            "stages.a.loss.focal",
            "stages.a.loss.focal_gamma",
        ),
        (
            {"stages": [{"name": "a", "masks": {"probabilty": 0.2}}]},
            "stages.a.masks.probabilty",
            "stages.a.masks.probability",
        ),
    ],
)
def test_unknown_key_is_an_error_that_names_the_nearest_known_key(more, key, near):
    with pytest.raises(UserError) as error:
        parse_recipe(table(**more), "my.toml")
    assert error.value.code == "E_UNKNOWN_SETTING"
    assert error.value.what.startswith("my.toml: ")
    assert key in error.value.what
    assert near in error.value.remedy


def test_all_wrong_settings_are_named_in_one_line():
    with pytest.raises(UserError) as error:
        parse_recipe(table(seeed=1, folds=1), "my.toml")
    assert error.value.code == "E_UNKNOWN_SETTING"
    assert "seeed" in error.value.what
    assert "folds" in error.value.what
    assert "\n" not in str(error.value)


def test_value_of_a_wrong_type_is_one_phrase_with_its_key():
    with pytest.raises(UserError) as error:
        parse_recipe(table(head={"smoothing_frames": "bxes"}), "my.toml")
    assert error.value.code == "E_SETTING_VALUE"
    assert error.value.what == (
        "my.toml: head.smoothing_frames = bxes is not allowed "
        "(boxes, integer or list of integers, 1 to 10000)"
    )


def test_changes_address_a_stage_by_its_name_and_leave_the_others():
    changes = (
        "stages.masked.epochs=3",
        "stages.pseudo.pseudo.threshold=0.7",
        "features.n_mels=64",
        "backbone.weights=a/b.safetensors",
        "stages.crops.crop_shifts=[1, 2]",
        "backbone.pretrained=false",
    )
    recipe = parse_recipe(table(), "my.toml", changes)
    assert [stage.epochs for stage in recipe.stages] == [5, 3, 5]
    assert recipe.stages[2].pseudo.threshold == 0.7
    assert recipe.features.n_mels == 64
    assert recipe.backbone.weights == "a/b.safetensors"
    assert recipe.stages[0].crop_shifts == (1, 2)
    assert recipe.backbone.pretrained is False


def test_stage_set_to_null_is_removed():
    recipe = parse_recipe(table(), "my.toml", ("stages.pseudo=null",))
    assert [stage.name for stage in recipe.stages] == ["crops", "masked"]


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        ("folds", "E_SET", "folds"),
        ("stages.maksed.epochs=3", "E_SET", "'maksed'"),
        ("stages.masked=3", "E_SET", "stages.masked"),
        ("stages.maksed=null", "E_SET", "'maksed'"),
        ("stages.masked=null", "E_SETTING_VALUE", "'pseudo' needs 'masked'"),
        ("stages.masked.epochs=three", "E_SETTING_VALUE", "stages.masked.epochs"),
        ("flods=3", "E_UNKNOWN_SETTING", "flods"),
        ("front.hop=3", "E_UNKNOWN_SETTING", "front.hop"),
        ("name.first=3", "E_SET", "name.first"),
        ("name.first.second=3", "E_SET", "name.first.second"),
        ("stages.crops.name.first=3", "E_SET", "stages.crops.name.first"),
        ("stages=3", "E_SETTING_VALUE", "stages"),
    ],
)
def test_change_of_no_setting_is_an_error_that_names_it(change, code, named):
    with pytest.raises(UserError) as error:
        parse_recipe(table(), "my.toml", (change,))
    assert error.value.code == code
    assert named in error.value.what


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({"overlay": {"copies": 1}}, "overlay"),
        ({"overlay": {}, "head": {"within_class_whitening": 0}}, "head.within_class_whitening"),
        ({"stages": [{"name": "a", "use_overlays": False}]}, "stages.a.use_overlays"),
    ],
)
def test_recipe_with_a_removed_setting_names_it_and_says_to_leave_it_out(settings, keys):
    with pytest.raises(UserError) as error:
        parse_recipe(table() | settings, "my.toml")
    assert error.value.code == "E_REMOVED_SETTING"
    assert keys in error.value.what
    assert "leave" in error.value.remedy


@pytest.mark.parametrize("change", ["overlay.copies=2", "stages.masked.use_overlays=true"])
def test_change_of_a_removed_setting_is_an_error_that_names_it(change):
    with pytest.raises(UserError) as error:
        parse_recipe(table(), "my.toml", (change,))
    assert error.value.code == "E_REMOVED_SETTING"
    assert change.partition(".copies")[0].partition("=")[0] in error.value.what


def test_change_of_an_unknown_stage_lists_the_stages():
    with pytest.raises(UserError) as error:
        parse_recipe(table(), "my.toml", ("stages.maksed.epochs=3",))
    assert "crops, masked, pseudo" in error.value.remedy


@pytest.mark.parametrize(
    ("stages", "named"),
    [
        ([], "stage"),
        ([{"name": "a", "init_from": "b"}, {"name": "b"}], "'a' needs 'b'"),
        ([{"name": "a", "init_from": "a"}], "'a' needs 'a'"),
        ([{"name": "a", "pseudo": {"teacher": "a"}}], "'a' needs 'a'"),
        ([{"name": "a"}, {"name": "a"}], "'a'"),
        ([{"name": "../a"}], "stages.../a.name"),
        ([{"name": "b-c2"}], "'b-c2'"),
    ],
)
def test_stage_with_a_wrong_name_or_predecessor_is_an_error(stages, named):
    with pytest.raises(UserError) as error:
        parse_recipe(table(stages=stages), "my.toml")
    assert error.value.code == "E_SETTING_VALUE"
    assert named in error.value.what


BALANCED = {"on": "boxes", "reduction": "balanced"}
SOLVED = {"name": "a", "optimizer": "lbfgs", "loss": {"on": "boxes"}}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"head": {"class_band_limits": "boxes"}}, "frequency_pooling"),
        ({"stages": [{"name": "a", "loss": {"on": "boxes"}, "mixup": 0.1}]}, "mixup"),
        ({"stages": [{"name": "a", "loss": {"on": "boxes"}, "sample": "crops"}]}, "crops"),
        ({"stages": [{"name": "a", "optimizer": "lbfgs"}]}, "loss.on"),
        (
            {"stages": [{**SOLVED, "loss": {**BALANCED, "weak_negatives": 1}}]},
            "weak_negatives needs head.background_subtraction above 0",
        ),
        (
            {"stages": [{**SOLVED, "keep": "best"}]},
            'keep = "best" needs optimizer = "adam"',
        ),
        (
            {"stages": [SOLVED, {"name": "b", "pseudo": {"teacher": "a", "scores": "clipwise"}}]},
            "stages.b.pseudo.scores",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_an_error(settings, named):
    with pytest.raises(UserError) as error:
        parse_recipe(table(**settings), "my.toml")
    assert error.value.code == "E_SETTING_VALUE"
    assert named in error.value.what


@pytest.mark.parametrize(
    "limits", [{"fmin": 9000.0, "fmax": 8000.0}, {"fmax": 16000.1}, {"sample_rate": 31_000}]
)
def test_frequency_limits_above_half_the_sample_rate_are_refused(limits):
    with pytest.raises(ValueError, match=r"fmin .* fmax"):
        MelConfig(**limits)


@pytest.mark.parametrize("key", ["overlap", "inference_overlap"])
def test_overlap_of_a_whole_window_is_refused(key):
    with pytest.raises(ValueError, match="50 frames"):
        WindowConfig(frames=50, **{"overlap": 10, "inference_overlap": 20, key: 50})


def test_minute_has_3751_frames_and_times_become_frames_as_in_the_competition():
    features = MelConfig()
    assert features.n_frames(60.0) == 3751
    grid = features.time_grid(0.0, 60.0)
    assert (grid.frames, grid.start) == (3751, 0.0)
    assert grid.hop == 60 / 3751
    for start, stop in ((0.27, 0.6), (44.544, 45.1307), (52.112, 60.0)):
        frames = grid.overlapping_frames(start, stop)
        assert (frames.start, frames.stop) == (int(3751 * start / 60), int(3751 * stop / 60))


@pytest.mark.parametrize(
    ("duration", "segments"),
    [
        (60.0, [(0, 60)]),
        (0.5, [(0, 0.5)]),
        (120.0, [(0, 60), (60, 120)]),
        (150.5, [(0, 60), (60, 120), (120, 150.5)]),
        (60.01, [(0, 60)]),  # the remainder is shorter than a frame of 16 ms
        (0.001, [(0, 0.001)]),
    ],
)
def test_long_recording_is_divided_into_segments(duration, segments):
    assert MelConfig().segments(duration) == segments


def test_segments_join_and_leave_out_less_than_a_frame():
    features = MelConfig(segment=7.3)
    for duration in (3.0, 7.3, 21.9, 36.5, 86_400.0, 59.999979):
        segments = features.segments(duration)
        assert segments[0][0] == 0.0
        for (_, before), (after, _) in pairwise(segments):
            assert before == pytest.approx(after, abs=1e-9)
        assert 0 <= duration - segments[-1][1] < features.hop_length / features.sample_rate
        assert all(stop > start for start, stop in segments)


def test_overlapping_frames_never_lose_a_box_nor_leave_the_grid():
    grid = MelConfig().time_grid(60.0, 120.0)
    assert grid.overlapping_frames(60.0, 60.001) == slice(0, 1)
    assert grid.overlapping_frames(59.0, 60.5).start == 0
    assert grid.overlapping_frames(119.9, 500.0) == slice(int(3751 * 59.9 / 60), 3751)
    assert grid.overlapping_frames(119.9, math.inf).stop == 3751
    for start, stop in ((0.0, 60.0), (59.999, 59.9995), (120.0, 121.0), (300.0, 301.0)):
        frames = grid.overlapping_frames(start, stop)
        assert frames.start >= frames.stop


def test_equal_settings_have_equal_digests_and_others_do_not():
    first, same = parse_recipe(table(), "a"), parse_recipe(table(), "b")
    other = parse_recipe(table(), "a", ("stages.masked.lr=1e-3",))
    assert first.digest == same.digest != other.digest
    assert first.features.digest == other.features.digest != MelConfig(top_db=70.0).digest


def test_recipe_survives_json():
    recipe = parse_recipe(table(), "a")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert isinstance(recipe.stages[0], Stage)


def test_repr_of_a_recipe_is_one_short_line():
    recipe = parse_recipe(table(), "a")
    assert repr(recipe) == str(recipe) == "Recipe('mine': 5 folds, stages crops, masked, pseudo)"
