"""Tables of variants: what they may hold, and the ones that come with the benchmarks."""

import pytest

from antpitta.core.errors import UserError
from antpitta.files.recipes import shipped_recipes
from benchmarks.variants import choose_variants, read_variants, shipped_tables

QUICK = '[[variants]]\nname = "a"\ndescription = ""\nbase = "quick"\n'
TWO = '[[variants]]\nname = "b"\ndescription = ""\n'
ENSEMBLE = '[[variants]]\nname = "a"\ndescription = ""\nmembers = ["b", "c"]\n'


@pytest.fixture
def variants(tmp_path):
    path = tmp_path / "table.toml"
    path.write_text(
        QUICK
        + QUICK.replace('"a"', '"other"')
        + TWO.replace('"b"', '"both"')
        + 'members = ["a", "other"]\n'
        + TWO.replace('"b"', '"rescaled"')
        + 'rescaled = "both"\n'
    )
    return read_variants(str(path))


def test_chosen_ensemble_brings_its_members(variants):
    def chosen(*names):
        return [variant.name for variant in choose_variants(variants, names)]

    assert chosen() == ["a", "other", "both", "rescaled"]
    assert chosen("both") == ["a", "other", "both"]
    assert chosen("other") == ["other"]
    assert chosen("rescaled") == ["a", "other", "both", "rescaled"]


def test_unknown_variant_is_refused_with_the_known_names(variants):
    with pytest.raises(UserError, match=r"oter.*a, other, both, rescaled") as error:
        choose_variants(variants, ("oter",))
    assert error.value.code == "E_VARIANT_UNKNOWN"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x = [", "t.toml"),
        ('name = "a"', "t.toml"),
        ('[[variants]]\nname = "a"\ndescription = ""', "variant a"),
        ('[[variants]]\nname = "A b"\ndescription = ""\nbase = "quick"', "variant A b: name"),
        (QUICK.replace("description", "says"), "says"),
        (QUICK + 'rows = ["crops"]', "crops.*masked"),
        (ENSEMBLE, "b"),
        (QUICK + QUICK, "a"),
        (QUICK + TWO + 'members = ["a", "a"]', "variant b"),
        (QUICK + 'seeds = "all"', "variant a"),
        (ENSEMBLE + 'rows = ["x"]', "rows"),
        (ENSEMBLE + "baseline = true", "baseline"),
        (ENSEMBLE + "weights = [1]", "weight"),
        (ENSEMBLE + 'method = "fit"\nweights = [1, 2]', "auc, fit"),
        (ENSEMBLE + "weights = [1, -2]", "weights"),
        (ENSEMBLE + "weights = [1, inf]", "weights"),
    ],
)
def test_invalid_table_is_refused_with_the_variant(tmp_path, text, value):
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=value) as error:
        read_variants(str(path))
    assert error.value.code == "E_VARIANTS_INVALID"


@pytest.mark.parametrize("text", [QUICK.replace("quick", "quck"), QUICK + 'set = ["seeed=1"]'])
def test_wrong_recipe_or_setting_is_refused_with_the_variant(tmp_path, text):
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"variant a.*(quck|seeed)"):
        read_variants(str(path))


def test_unknown_table_is_refused_with_the_known_names():
    with pytest.raises(UserError, match="methods, quick") as error:
        read_variants("nowhere")
    assert error.value.code == "E_VARIANTS_NOT_FOUND"


@pytest.mark.parametrize("name", shipped_tables())
def test_shipped_variants_have_valid_recipes_and_descriptions(name):
    assert all(variant.description for variant in read_variants(name))


def test_baseline_puts_its_stage_first(variants):
    variant = variants[0].model_copy(update={"baseline": True})
    assert variants[0].stages() == ("masked",)
    assert variant.stages() == ("unknown_as_absent", "masked")


def test_recipe_of_an_ablation_is_not_listed():
    assert "crops" not in shipped_recipes()
    assert "crops" not in shipped_tables()
