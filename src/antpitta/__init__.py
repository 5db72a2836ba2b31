"""antpitta: from a few validated boxes to a species detector for long field recordings."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; the names come from __getattr__
    from antpitta.api import check, demo, ensemble, evaluate, init, open_data, predict, train

__all__ = ["check", "demo", "ensemble", "evaluate", "init", "open_data", "predict", "train"]


def __getattr__(name: str) -> Any:
    # Deferred, so that `import antpitta.core` does not load torch.
    if name in __all__:
        return getattr(import_module("antpitta.api"), name)
    raise AttributeError(f"antpitta has no {name!r}")
