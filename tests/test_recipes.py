"""Recipes: the shipped ones, anybody's file, and what is wrong with either."""

import pytest

from antpitta.core.errors import UserError
from antpitta.files.recipes import read_recipe, shipped_recipes


def test_every_shipped_recipe_is_sound_and_says_when_to_use_it():
    assert {"rfcx", "quick", "demo"} <= set(shipped_recipes())
    for name in shipped_recipes():
        recipe = read_recipe(name)
        assert recipe.name == name
        assert len(recipe.description) > 20
        assert all(stage.description for stage in recipe.stages)


def test_a_file_is_read_by_its_path_with_a_mark_and_changes(tmp_path):
    path = tmp_path / "mine.toml"
    text = 'name = "mine"\nwhen = "now"\n[[stages]]\nname = "one"\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_recipe(str(path), ("stages.one.epochs=9",)).stages[0].epochs == 9


def test_two_readings_do_not_share_their_changes():
    changed = read_recipe("quick", ("folds=9",))
    assert changed.folds == 9
    assert read_recipe("quick").folds != 9


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    for name in ("qiuck", str(tmp_path), str(tmp_path / "gone.toml")):
        with pytest.raises(UserError, match=r"no such recipe or file; take one of .*quick"):
            read_recipe(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = mine", "is no TOML"),
        ('name = "mine"', "when: Field required"),
        ('name = "a"\nwhen = "b"\nstages = 3', "stages"),
        ('name = "a"\nwhen = "b"\n[[stages]]\nname = "A"', "stages.0.name"),
        ('name = "a"\nwhen = "b"\n[[stages]]\nname = "a"\nepochs = 0', "stages.0.epochs"),
    ],
)
def test_a_wrong_file_is_the_users_mistake(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"mine.toml: .*{message}"):
        read_recipe(str(path))
