"""antpitta: from a few validated boxes to a species detector for long field recordings.

The verbs are functions of this package: ``antpitta.train(data, out="run")``. Two of them share
their names with packages of the implementation (``antpitta.train``, ``antpitta.predict``); as an
attribute of ``antpitta`` the name always means the function, and ``from antpitta.train import
loop`` the package.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; the names are looked up by _Package
    from antpitta.api import (
        check,
        demo,
        ensemble,
        evaluate,
        init,
        open_data,
        predict,
        settings,
        train,
    )

__all__ = [
    "check",
    "demo",
    "ensemble",
    "evaluate",
    "init",
    "open_data",
    "predict",
    "settings",
    "train",
]


class _Package(ModuleType):
    """A package whose verbs are loaded when they are first used: `import antpitta` stays light."""

    def __dir__(self) -> list[str]:
        return sorted({*__all__, *(name for name in self.__dict__ if name.startswith("__"))})


def _verb(name: str) -> property:
    def get(package: ModuleType) -> Any:
        return getattr(import_module("antpitta.api"), name)

    def ignore(package: ModuleType, submodule: Any) -> None:
        """The import system sets a loaded subpackage of this name here; the verb stays."""

    return property(get, ignore)


for _name in __all__:
    setattr(_Package, _name, _verb(_name))
sys.modules[__name__].__class__ = _Package
