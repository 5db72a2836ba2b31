"""Variants: what is compared, as data. A variant is a recipe with settings, an ensemble, or
another variant rescaled.

All are checked before the first one is trained: a misspelt setting in the last of them would
otherwise be found after hours. Members of an ensemble are variants too; one that is chosen
brings along whatever it is made of.
"""

from collections.abc import Sequence
from math import inf
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from antpitta.core.config import BlendMethod, Recipe
from antpitta.core.errors import UserError
from antpitta.core.features import FrozenConfig
from antpitta.files.recipes import read_recipe
from antpitta.scores.ensemble.blend import FITTED
from antpitta.scores.tables import list_names
from antpitta.train.stages import cycles_of
from benchmarks.files import Told, read_ablation

BLEND = "-"  # in the column of stages: an ensemble has none


class Variant(FrozenConfig):
    """One row of the table, or one row a stage."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    says: str  # one line for the table
    base: str = ""  # a recipe that ships, or a file beside the table of variants
    set: tuple[str, ...] = ()  # changes to it, as after --set
    baseline: bool = False  # with the baseline stage in front, as with --baseline
    rows: tuple[str, ...] = ()  # stages that are judged, a later cycle as "pseudo-c2"; all
    members: tuple[str, ...] = ()  # of an ensemble: names of other variants
    method: BlendMethod = "mean"
    weights: tuple[float, ...] = ()  # of the members, in their order; all alike
    seeds: Literal["each", "all"] = "each"  # "all": one ensemble of the members of all seeds
    rescaled: str = ""  # a variant whose last presences are rescaled to its own prevalences

    @model_validator(mode="after")
    def _is_one_of_these(self) -> Self:
        if sum(map(bool, (self.base, self.members, self.rescaled))) != 1:
            raise ValueError(
                "give one of base (a recipe), members (of an ensemble) or rescaled (a variant)"
            )
        if not self.base and (self.set or self.rows or self.baseline):
            raise ValueError("only a recipe takes set, rows and baseline")
        if self.seeds == "all" and not self.members:
            raise ValueError("only an ensemble is of all seeds; give members")
        if self.weights and len(self.weights) != len(self.members):
            raise ValueError("weights are of the members, one each")
        usable = all(0 <= weight < inf for weight in self.weights) and any(self.weights)
        if self.weights and (self.method in FITTED or not usable):
            raise ValueError(
                f"weights, finite, not negative, go with by other than {list_names(FITTED)}"
            )
        return self

    def recipe(self, seed: int) -> Recipe:
        """The variant's recipe; UserError for an unknown one or a wrong setting."""
        return read_recipe(self.base, self.changes(seed), baseline=self.baseline)

    def changes(self, seed: int) -> tuple[str, ...]:
        """All its settings. A seed deals folds and copies anew, too, or it would change little."""
        return (f"split_seed={seed}", *self.set, f"seed={seed}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The variants that it is made of."""
        return self.members or ((self.rescaled,) if self.rescaled else ())

    def places(self) -> tuple[str, ...]:
        """The stages and cycles that are judged, in the order in which they are trained."""
        if not self.base:
            return (BLEND,)
        every = places_of(self.recipe(1))
        return tuple(place for place in every if not self.rows or place in self.rows)


def places_of(recipe: Recipe) -> tuple[str, ...]:
    """Every stage and cycle, under the name of its folder."""
    return tuple(
        stage.name if cycle == 1 else f"{stage.name}-c{cycle}"
        for stage in recipe.stages
        for cycle in range(1, cycles_of(stage) + 1)
    )


def read_variants(name: str) -> tuple[Variant, ...]:
    """The variants of a table, each checked down to its settings.

    Raises UserError that names the first variant that is wrong.
    """
    told = read_ablation(name)
    listed = told.table.get("variants")
    if not isinstance(listed, list) or not listed or set(told.table) != {"variants"}:
        raise UserError(
            "E_TODO",
            f"{told.path}: is no table of variants",
            "give a file of [[variants]], not a recipe",
        )
    found: list[Variant] = []
    for entry in listed:
        variant = _parse(entry, told)
        if variant.name in {one.name for one in found}:
            raise UserError(
                "E_TODO", f"{told.path}: two variants are named {variant.name!r}", "rename one"
            )
        _check(variant, found, told)
        found.append(variant)
    return tuple(found)


def choose_variants(variants: Sequence[Variant], names: Sequence[str]) -> tuple[Variant, ...]:
    """Those named, and what they are made of, in the table's order; all where none is named."""
    known = {variant.name: variant for variant in variants}
    if strange := [name for name in names if name not in known]:
        raise UserError(
            "E_TODO",
            f"--variants {strange[0]}: there is no such variant",
            f"take of {', '.join(known)}",
        )
    wanted: set[str] = set()
    queue = list(names or known)
    while queue:
        name = queue.pop()
        wanted.add(name)
        queue += known[name].parts
    return tuple(variant for variant in variants if variant.name in wanted)


def _parse(entry: Any, told: Told) -> Variant:
    try:
        variant = Variant.model_validate(entry)
    except ValidationError as error:
        name = entry.get("name", "without a name") if isinstance(entry, dict) else entry
        said = "; ".join(
            f"{'.'.join(str(at) for at in one['loc']) or 'variant'}: {one['msg']}"
            for one in error.errors()
        )
        raise UserError("E_TODO", f"{told.path}: variant {name}: {said}", "correct these") from None
    beside = told.path.parent / variant.base
    if variant.base and beside.is_file():
        return variant.model_copy(update={"base": str(beside)})
    return variant


def _check(variant: Variant, before: Sequence[Variant], told: Told) -> None:
    where = f"{told.path}: variant {variant.name}"
    names = [one.name for one in before]
    if strange := [name for name in variant.parts if name not in names]:
        raise UserError(
            "E_TODO", f"{where}: {strange[0]!r} is not above it", "name a variant that is"
        )
    fewest = 1 if variant.seeds == "all" else 2
    if variant.members and len(set(variant.members)) < max(fewest, len(variant.members)):
        raise UserError(
            "E_TODO", f"{where}: an ensemble needs two different members or more", "name them"
        )
    if mixed := [one.name for one in before if one.name in variant.members and not one.base]:
        raise UserError(
            "E_TODO", f"{where}: {mixed[0]!r} is no recipe", "blend variants that have a base"
        )
    if not variant.base:
        return
    try:
        every = places_of(variant.recipe(1))
    except UserError as mistake:
        raise UserError("E_TODO", f"{where}: {mistake}") from None
    if strange := [row for row in variant.rows if row not in every]:
        raise UserError(
            "E_TODO", f"{where}: no stage {strange[0]!r}", f"rows are of {', '.join(every)}"
        )
