"""How long work tells of itself, to a terminal, a log or nobody."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Whom a run tells how far it is."""

    message: Callable[[str], None]
    update: Callable[[str, int, int, float], None]  # what, done, of how many, loss
