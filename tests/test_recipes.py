"""Recipes: the shipped ones, those of users, and recipes that extend others."""

import pytest

from antpitta.core.errors import UserError
from antpitta.files.recipes import read_recipe, shipped_recipes

PLAIN = 'name = "mine"\ndescription = "now"\n'


@pytest.fixture
def write(tmp_path):
    def save(text, name="mine.toml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return save


def stage_names(recipe):
    return [stage.name for stage in recipe.stages]


def test_every_shipped_recipe_is_valid_and_described():
    names = {name for name in shipped_recipes() if not name.startswith("rfcx-")}
    assert names == {"rfcx", "quick", "best", "embedding", "demo"}
    for name in shipped_recipes():
        recipe = read_recipe(name)
        assert recipe.name == name
        assert len(recipe.description) > 20
        assert all(stage.description for stage in recipe.stages)


def test_file_is_read_by_its_path_with_a_byte_order_mark_and_changes(write):
    path = write(b"\xef\xbb\xbf" + f'{PLAIN}[[stages]]\nname = "one"\n'.encode())
    assert read_recipe(path, ("stages.one.epochs=9",)).stages[0].epochs == 9


def test_recipe_read_twice_does_not_keep_changes():
    assert read_recipe("quick", ("folds=9",)).folds == 9
    assert read_recipe("quick").folds != 9


def test_unknown_name_lists_the_known_ones(tmp_path):
    for name in ("qiuck", "linear_head", str(tmp_path), str(tmp_path / "gone.toml")):
        with pytest.raises(UserError) as error:
            read_recipe(name)
        assert error.value.code == "E_NO_RECIPE"
        assert "quick" in error.value.remedy


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("name = mine", "E_NO_TOML", "line 1"),
        ('name = "mine"', "E_SETTING_VALUE", "description"),
        (f"{PLAIN}stages = 3", "E_SETTING_VALUE", "stages"),
        (f'{PLAIN}[[stages]]\nname = "A"', "E_SETTING_VALUE", "stages.A.name"),
        (f'{PLAIN}[[stages]]\nname = "a"\nepochs = 0', "E_SETTING_VALUE", "stages.a.epochs"),
    ],
)
def test_wrong_file_is_an_error_with_its_path_and_setting(write, text, code, named):
    path = write(text)
    with pytest.raises(UserError) as error:
        read_recipe(path)
    assert error.value.code == code
    assert error.value.what.startswith(path)
    assert named in error.value.what


# ---- extends ----


def test_extending_recipe_changes_settings_and_keeps_the_others(write):
    recipe = read_recipe(write(f'{PLAIN}extends = "quick"\n[features]\nn_mels = 64\n'))
    quick = read_recipe("quick")
    changed = {"name": "mine", "description": "now", "features": recipe.features}
    assert recipe.features.n_mels == 64
    assert recipe.features.hop_length == quick.features.hop_length != 512
    assert recipe == quick.model_copy(update=changed)


def test_stages_of_an_extending_recipe_are_merged_by_name_and_new_ones_follow(write):
    stages = '[[stages]]\nname = "masked"\nweight_decay = 0.5\n[[stages]]\nname = "more"\n'
    recipe = read_recipe(write(f'{PLAIN}extends = "quick"\n{stages}'))
    assert stage_names(recipe) == ["masked", "more"]
    assert recipe.stages[0].weight_decay == 0.5
    assert recipe.stages[0].optimizer == "lbfgs"
    assert recipe.stages[0].loss == read_recipe("quick").stages[0].loss


def test_file_extends_a_file_seen_from_its_own_folder(write):
    write(f'{PLAIN}folds = 7\n[[stages]]\nname = "one"\n', "far/base.toml")
    write('name = "middle"\nextends = "base.toml"\n', "far/middle.toml")
    recipe = read_recipe(write('name = "top"\nextends = "far/middle.toml"\n'))
    assert (recipe.name, recipe.folds, stage_names(recipe)) == ("top", 7, ["one"])


@pytest.mark.parametrize("base", ['"gone"', '"mine.toml"', "3"])
def test_recipe_that_extends_nothing_or_itself_is_an_error(write, base):
    path = write(f"{PLAIN}extends = {base}\n")
    with pytest.raises(UserError) as error:
        read_recipe(path)
    assert error.value.code == "E_RECIPE_EXTENDS"
    assert error.value.what.startswith(path)


def test_best_is_quick_with_finer_features():
    quick, best = read_recipe("quick"), read_recipe("best")
    assert best.features.n_mels > quick.features.n_mels
    assert (best.stages, best.head, best.backbone) == (quick.stages, quick.head, quick.backbone)


# ---- the baseline ----


@pytest.mark.parametrize("name", ["quick", "best", "embedding", "rfcx"])
def test_baseline_comes_in_front_only_when_it_is_asked_for(name):
    plain, compared = read_recipe(name), read_recipe(name, baseline=True)
    assert stage_names(compared) == ["unknown_as_absent", *stage_names(plain)]
    assert compared.stages[0].loss.unknown == "absent"
    assert compared.stages[1:] == plain.stages


def test_demo_has_the_baseline_already():
    demo = read_recipe("demo")
    assert stage_names(demo) == ["unknown_as_absent", "masked", "pseudo"]
    assert demo == read_recipe("demo", baseline=True)
    assert demo.stages[0].epochs == 40


def test_changes_address_the_baseline():
    recipe = read_recipe("quick", ("stages.unknown_as_absent.epochs=2",), baseline=True)
    assert recipe.stages[0].epochs == 2
