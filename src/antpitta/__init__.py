"""antpitta: from a few validated boxes to a species detector for long field recordings.

The verbs of the command line are functions of this package::

    import antpitta

    data = antpitta.open_data("my-data")
    run = antpitta.train(data, out="run")
    scores = antpitta.predict(run.model, "recordings")

Three verbs share their names with packages of the implementation: ``antpitta.train``,
``antpitta.predict`` and ``antpitta.review``. As an attribute of ``antpitta`` such a name is always
the function; ``from antpitta.train import loop`` imports from the package.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; _Package looks the names up
    from antpitta.api import (
        bench,
        candidates,
        check,
        clips,
        demo,
        ensemble,
        evaluate,
        fetch,
        init,
        match,
        open_data,
        predict,
        review,
        round,
        settings,
        simulate,
        train,
    )

__all__ = [
    "bench",
    "candidates",
    "check",
    "clips",
    "demo",
    "ensemble",
    "evaluate",
    "fetch",
    "init",
    "match",
    "open_data",
    "predict",
    "review",
    "round",
    "settings",
    "simulate",
    "train",
]


class _Package(ModuleType):
    """A package that imports a verb when it is first used, so that importing it takes no time."""

    def __dir__(self) -> list[str]:
        return sorted({*__all__, *(name for name in self.__dict__ if name.startswith("__"))})


def _verb(name: str) -> property:
    def get(package: ModuleType) -> Any:
        return getattr(import_module("antpitta.api"), name)

    def ignore(package: ModuleType, submodule: Any) -> None:
        """The import system sets a subpackage of this name here; the verb stays."""

    return property(get, ignore)


for _name in __all__:
    setattr(_Package, _name, _verb(_name))
sys.modules[__name__].__class__ = _Package
