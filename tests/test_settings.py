"""The list of settings: complete, described, equal on the page, and how it finds near keys."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import antpitta as ap
from antpitta.cli import app
from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.settings import list_settings, nearest_keys

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"


def by_key(recipe=None, **more):
    return {setting.key: setting for setting in ap.settings(recipe, **more)}


def test_every_setting_has_a_type_and_a_one_sentence_description():
    for setting in list_settings(Recipe):
        assert setting.kind
        assert setting.description.endswith(".")
        assert setting.section.endswith(".")


@pytest.mark.parametrize(
    ("key", "kind", "default", "limits"),
    [
        ("folds", "integer", "5", "2 to 100"),
        ("head.background_subtraction", "duration or number", "0.0", "0 to 1"),
        ("head.smoothing_frames", "boxes, integer or list of integers", "1", "1 to 10000"),
        ("backbone.step", "integer or null", "null", "1 to 1024"),
        ("stages.STAGE.lr", "number", "0.0003", "above 0 to 10"),
        ("stages.STAGE.loss.unknown", "masked or absent", "masked", ""),
        ("stages.STAGE.pseudo.teacher", "text", "required", ""),
        ("embedding.class_map", "list of lists of integers or null", "null", "at least 0"),
    ],
)
def test_setting_is_listed_with_type_default_and_range(key, kind, default, limits):
    setting = by_key()[key]
    assert (setting.kind, setting.default, setting.range) == (kind, default, limits)


def test_recipe_shows_its_values_under_keys_that_set_takes():
    listed = by_key("quick", changes=("folds=4",))
    assert (listed["folds"].value, listed["folds"].default) == ("4", "5")
    assert listed["stages.masked.optimizer"].value == "lbfgs"
    assert listed["backbone.reduction"].value == "[4, 8, 16]"
    assert "stages.masked.pseudo.threshold" not in listed
    assert "embedding.step" not in listed
    assert "embedding.step" in by_key("embedding")
    assert "stages.unknown_as_absent.lr" in by_key("quick", baseline=True)


def test_every_key_of_a_recipe_can_be_set():
    values = {"null": "null", "true": "true", "false": "false"}
    for key, setting in by_key("quick").items():
        if key.count(".") and not key.endswith((".name", ".teacher", ".init_from")):
            ap.settings("quick", changes=(f"{key}={values.get(setting.value, setting.value)}",))


def test_page_of_recipes_holds_what_the_command_prints():
    printed = CliRunner().invoke(app, ["settings", "--markdown"]).output
    _, _, after = PAGE.read_text(encoding="utf-8").partition("<!-- settings: generated")
    between, _, _ = after.partition("<!-- end of settings -->")
    assert between.partition("\n")[2] == printed


def test_command_prints_value_and_default_of_a_recipe():
    printed = CliRunner().invoke(app, ["settings", "quick"]).output
    assert "features.hop_length = 1024  (default 512; integer, 1 to 65536)" in printed


@pytest.mark.parametrize(
    ("key", "near"),
    [("flods", "folds"), ("features.hop", "features.hop_length"), ("epochs", "stages.a.epochs")],
)
def test_nearest_keys_are_similar_or_have_the_same_name(key, near):
    known = ["folds", "features.hop_length", "features.n_mels", "stages.a.epochs"]
    assert nearest_keys(key, known)[0] == near


def test_unknown_recipe_is_an_error():
    with pytest.raises(UserError) as error:
        ap.settings("qiuck")
    assert error.value.code == "E_NO_RECIPE"
