"""Variants: what a benchmark compares, read from a table of variants.

A variant is a recipe with changed settings, an ensemble of other variants, or another variant
whose scores are rescaled to its own prevalences. All variants are checked before the first one is
trained, down to the last setting; a misspelt one would otherwise be found after hours.

A table of variants is a TOML file, found by its path or by its name in ``ablations/``. Recipes that
only one table uses lie in ``ablations/parts/``.
"""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from antpitta.core.config import BlendMethod, Recipe
from antpitta.core.errors import UserError
from antpitta.core.features import FrozenConfig
from antpitta.files.recipes import read_recipe
from antpitta.scores.ensemble.blend import FITTED
from antpitta.scores.tables import sample_names
from benchmarks.files import read_toml

TABLES = Path(__file__).parent / "ablations"
NO_STAGE = "-"  # in the column of stages: ensembles and baselines have none


class Variant(FrozenConfig):
    """One entry of a table of variants: one row of the results, or one row per stage."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    description: str  # one line for the results
    base: str = ""  # the name of a recipe, or of a file beside the table of variants
    set: tuple[str, ...] = ()  # changed settings, as after --set
    baseline: bool = False  # put the baseline stage first, as --baseline does
    rows: tuple[str, ...] = ()  # the stages to evaluate, a later cycle as "pseudo-c2"; default: all
    members: tuple[str, ...] = ()  # of an ensemble: names of other variants
    method: BlendMethod = "mean"
    weights: tuple[float, ...] = ()  # one per member, in their order; default: equal weights
    seeds: Literal["each", "all"] = "each"  # "all": one ensemble of the members of all seeds
    rescaled: str = ""  # a variant whose clip scores are rescaled to its own prevalences

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if sum(map(bool, (self.base, self.members, self.rescaled))) != 1:
            raise ValueError(
                "give one of base (a recipe), members (of an ensemble) or rescaled (a variant)"
            )
        if not self.base and (self.set or self.rows or self.baseline):
            raise ValueError("set, rows and baseline need a base")
        if self.seeds == "all" and not self.members:
            raise ValueError('seeds = "all" needs members')
        if self.weights and len(self.weights) != len(self.members):
            raise ValueError("give one weight per member")
        usable = all(0 <= weight < inf for weight in self.weights) and any(self.weights)
        if self.weights and (self.method in FITTED or not usable):
            raise ValueError(
                "give finite weights that are not negative, and a method other than "
                f"{sample_names(FITTED)}"
            )
        return self

    def recipe(self, seed: int) -> Recipe:
        """Read the recipe of this variant for one training seed."""
        return read_recipe(self.base, self.changes(seed), baseline=self.baseline)

    def changes(self, seed: int) -> tuple[str, ...]:
        """All settings that differ from the base; the seed assigns folds, too."""
        return (f"split_seed={seed}", *self.set, f"seed={seed}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the variants that this one is made of."""
        return self.members or ((self.rescaled,) if self.rescaled else ())

    def stages(self) -> tuple[str, ...]:
        """The stages and cycles to evaluate, in the order of training."""
        if not self.base:
            return (NO_STAGE,)
        names = stage_folders(self.recipe(1))
        return tuple(name for name in names if not self.rows or name in self.rows)


def stage_folders(recipe: Recipe) -> tuple[str, ...]:
    """List every stage and cycle of a recipe by the name of its folder in a run.

    Parameters
    ----------
    recipe : the recipe

    Returns
    -------
    tuple of str
        Names such as ``pseudo`` and, for a second cycle, ``pseudo-c2``.
    """
    return tuple(
        stage.name if cycle == 1 else f"{stage.name}-c{cycle}"
        for stage in recipe.stages
        for cycle in range(1, stage.cycles + 1)
    )


def shipped_tables() -> tuple[str, ...]:
    """List the tables of variants that :func:`read_variants` knows by name."""
    return tuple(sorted(path.stem for path in TABLES.glob("*.toml")))


def read_variants(table: str) -> tuple[Variant, ...]:
    """Read a table of variants and check every setting in it.

    Parameters
    ----------
    table : the name of a table in ``ablations/``, or a path

    Returns
    -------
    tuple of Variant
        The variants in the order of the table.

    Raises
    ------
    UserError
        E_VARIANTS_NOT_FOUND, E_VARIANTS_INVALID, or the code of a wrong recipe or setting.
    """
    path = TABLES / f"{table}.toml" if table in shipped_tables() else Path(table)
    if not path.is_file():
        known = ", ".join(shipped_tables())
        raise UserError(
            "E_VARIANTS_NOT_FOUND",
            f"--recipe {table}: there is no such table of variants",
            f"give one of {known}, or the path of a file",
        )
    content = read_toml(path)
    entries = content.get("variants")
    if not isinstance(entries, list) or not entries or set(content) != {"variants"}:
        raise _invalid(f"{path} is not a table of variants", "list [[variants]] and nothing else")
    variants: list[Variant] = []
    for entry in entries:
        variant = _parse(entry, path)
        if variant.name in {earlier.name for earlier in variants}:
            raise _invalid(f"{path}: two variants have the name {variant.name!r}", "rename one")
        _check(variant, variants, f"{path}: variant {variant.name}")
        variants.append(variant)
    return tuple(variants)


def choose_variants(variants: Sequence[Variant], names: Sequence[str]) -> tuple[Variant, ...]:
    """Select variants by name, together with the variants that they are made of.

    Parameters
    ----------
    variants : all variants of a table
    names : the names to select; all variants where there are none

    Returns
    -------
    tuple of Variant
        The selection in the order of the table.

    Raises
    ------
    UserError
        E_VARIANT_UNKNOWN for a name that is not in the table.
    """
    by_name = {variant.name: variant for variant in variants}
    if unknown := [name for name in names if name not in by_name]:
        raise UserError(
            "E_VARIANT_UNKNOWN",
            f"--variants {unknown[0]}: there is no such variant",
            f"choose from {', '.join(by_name)}",
        )
    chosen: set[str] = set()
    queue = list(names or by_name)
    while queue:
        name = queue.pop()
        chosen.add(name)
        queue += by_name[name].parts
    return tuple(variant for variant in variants if variant.name in chosen)


def _invalid(what: str, remedy: str) -> UserError:
    return UserError("E_VARIANTS_INVALID", what, remedy)


def _parse(entry: Any, path: Path) -> Variant:
    try:
        variant = Variant.model_validate(entry)
    except ValidationError as error:
        name = entry.get("name", "without a name") if isinstance(entry, dict) else entry
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'variant'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise _invalid(f"{path}: variant {name}: {problems}", "correct these keys") from None
    recipe = path.parent / variant.base
    if variant.base and recipe.is_file():
        return variant.model_copy(update={"base": str(recipe)})
    return variant


def _check(variant: Variant, earlier: Sequence[Variant], where: str) -> None:
    names = [other.name for other in earlier]
    if unknown := [name for name in variant.parts if name not in names]:
        raise _invalid(f"{where}: {unknown[0]!r} is not above it", "name a variant that is")
    fewest = 1 if variant.seeds == "all" else 2
    if variant.members and len(set(variant.members)) < max(fewest, len(variant.members)):
        raise _invalid(f"{where}: an ensemble needs two different members or more", "name them")
    nested = [other.name for other in earlier if other.name in variant.members and not other.base]
    if nested:
        raise _invalid(
            f"{where}: member {nested[0]!r} is not a recipe", "name variants with a base"
        )
    if not variant.base:
        return
    try:
        folders = stage_folders(variant.recipe(1))
    except UserError as error:
        raise UserError(error.code, f"{where}: {error.what}", error.remedy) from None
    if unknown := [row for row in variant.rows if row not in folders]:
        raise _invalid(f"{where}: there is no stage {unknown[0]!r}", f"use {', '.join(folders)}")
