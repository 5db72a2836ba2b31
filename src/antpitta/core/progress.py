"""How long work reports on itself: to a terminal, to a log or to nobody."""

from collections.abc import Callable
from dataclasses import dataclass

# Called with (done, total, extra); what extra is depends on the work, NaN where there is nothing.
ProgressCallback = Callable[[int, int, float], None]


def no_progress(done: int, total: int, extra: float) -> None:
    """Report nothing.

    Parameters
    ----------
    done, total, extra : as in ProgressCallback
    """


@dataclass(frozen=True)
class Progress:
    """Where a run reports.

    Parameters
    ----------
    message : called with a line of text
    update : called with (name of the work, done, total, loss); the loss is NaN where there is none
    """

    message: Callable[[str], None]
    update: Callable[[str, int, int, float], None]

    def __repr__(self) -> str:
        return "Progress()"

    def of(self, name: str) -> ProgressCallback:
        """The callback that reports one piece of work, without a loss.

        Parameters
        ----------
        name : of the work
        """
        return lambda done, total, extra: self.update(name, done, total, float("nan"))
