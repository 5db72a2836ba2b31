"""By what means an archive is heard: on this machine or on a cluster, and in which arithmetic."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast, get_args

from antpitta.archive.choir import Choir
from antpitta.archive.cluster import hear_on_ray
from antpitta.archive.engines import settle
from antpitta.archive.journal import Journal
from antpitta.archive.listening import cores
from antpitta.archive.predict import hear_archive
from antpitta.core.choices import Engine, Precision, Scan
from antpitta.core.errors import UserMistake
from antpitta.files.bundle import Bundle
from antpitta.files.recordings import Listed
from antpitta.net.engines import Hearing

Tick = Callable[[int, int, float], None]  # files done, of how many, times real time


@dataclass(frozen=True)
class Means:
    """What was asked for; raises UserMistake for what does not go together."""

    engine: Engine
    scan: Scan
    precision: Precision
    workers: int | None  # threads or actors; None: one a core
    address: str | None  # of a Ray cluster

    def __post_init__(self) -> None:
        known = get_args(Engine)
        if self.engine not in known:
            raise UserMistake(f"--engine {self.engine}: unknown; choose from {', '.join(known)}")
        if self.engine != "ray" and self.address:
            raise UserMistake("--address: is of a Ray cluster; add --engine ray")
        if self.workers is not None and self.workers < 1:
            raise UserMistake(f"--workers {self.workers}: give 1 or more, or leave it out")

    def key(self, bundle: Bundle) -> dict[str, str]:
        """What an earlier run must have in common with this one to be gone on with."""
        return {"digest": bundle.digest, "scan": self.scan, "precision": self.precision}

    def hear(
        self, bundle: Bundle, files: Sequence[Listed], journal: Journal, tick: Tick
    ) -> Precision:
        """Hear all that the journal does not have; the arithmetic that it was done in.

        "auto" is settled once and kept in the journal: a run that goes on, goes on in the same.
        """
        chosen = journal.settled("arithmetic", lambda: settle(self.precision, self.scan, bundle))
        settled = cast(Precision, chosen)
        count = _counting(tick, len(files))
        if self.engine == "ray":
            make = partial(Choir, hearing=Hearing(self.scan, settled))
            hear_on_ray(
                *(bundle, files, journal, count),
                workers=self.workers,
                address=self.address,
                make=make,
            )
        else:
            choir = Choir(bundle, Hearing(self.scan, settled, self.workers or cores()))
            hear_archive(choir, files, journal, count)
        return settled


def _counting(tick: Tick, total: int) -> Callable[[int, float], None]:
    began, done, sound = time.monotonic(), 0, 0.0

    def count(files: int, seconds: float) -> None:
        nonlocal done, sound
        done, sound = done + files, sound + seconds
        tick(done, total, sound / max(time.monotonic() - began, 1e-9))

    return count
