"""settings: every setting of a recipe, with type, default, range and meaning."""

from antpitta.core.arguments import PathArgument, Words, as_words, checked
from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.settings import Setting, list_settings
from antpitta.files.recipes import read_recipe


@checked
def settings(
    recipe: PathArgument | None = None, *, changes: Words = (), baseline: bool = False
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
    changes = as_words(changes)
    if recipe is None and (changes or baseline):
        raise UserError("E_OPTION", "changes need a recipe", "name the recipe that they change")
    values = None if recipe is None else read_recipe(str(recipe), changes, baseline=baseline)
    return tuple(list_settings(Recipe, values))
