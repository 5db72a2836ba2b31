"""settings: every setting of a recipe, with type, default, range and meaning."""

from antpitta.core.config import Recipe
from antpitta.core.settings import Setting, list_settings
from antpitta.files.recipes import read_recipe


def settings(
    recipe: str | None = None, *, changes: tuple[str, ...] = (), baseline: bool = False
) -> tuple[Setting, ...]:
    """List all settings.

    Parameters
    ----------
    recipe : a shipped recipe's name, or a TOML file, whose values are listed beside the defaults
    changes : settings such as ``stages.masked.epochs=3``
    baseline : whether the recipe's stages begin with the baseline

    Returns
    -------
    One Setting per key, in the order of the recipe's tables. Without a recipe ``STAGE`` stands for
    the name of a stage; with one, tables that the recipe does not have are left out.

    Raises
    ------
    UserError
        As `read_recipe`.
    """
    values = None if recipe is None else read_recipe(recipe, changes, baseline=baseline)
    return tuple(list_settings(Recipe, values))
