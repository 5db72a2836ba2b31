"""What was heard so far, kept so that nothing is lost and nothing is heard twice.

One SQLite file in the folder of the output. Each recording is a transaction of its own, so a run
that is killed anywhere leaves every recording either whole or not there at all. The tables are
written from the journal, in the order of the archive: however often a run was stopped, they
come out the same.

A recording is known again by its path, size and time of change; one that has changed is heard
anew. The file is locked for as long as a run has it open, and the system takes the lock off a run
that was killed.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from antpitta.core.errors import UserError
from antpitta.files.remote import Location

NAME = "journal.sqlite"
TABLES = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS heard (
    path TEXT PRIMARY KEY, size INTEGER, changed INTEGER,
    reason TEXT NOT NULL, seconds REAL, site TEXT, recorded_at TEXT, presence BLOB, events TEXT
);
"""
EventRow = tuple[float, float, float, float, str, float, str]
EVENT_COLUMNS = ("start_time", "end_time", "low_freq", "high_freq", "species", "score", "model")
GONE = (-1, -1)  # the stamp of a file that is not there; it is looked for again


@dataclass(frozen=True)
class JournalEntry:
    """One file of the archive: heard or not, and what is wrong with it."""

    path: Location
    stamp: tuple[int, int]  # bytes, and nanoseconds of its last change
    reason: str = ""  # why it was not heard, or not wholly
    seconds: float = 0.0
    site: str | None = None
    recorded_at: str | None = None  # ISO 8601
    presence: NDArray[np.float32] | None = None  # (classes,); None where it was not heard
    events: tuple[EventRow, ...] = ()


class Journal:
    """The journal of one output folder; use it as a context.

    ``key`` says what hears (the model's digest): another one's journal is not gone on with.
    Raises UserError where another run has it open, or holds what ``resume`` does not allow.
    """

    def __init__(self, out: Path, key: dict[str, Any], *, resume: bool) -> None:
        self.path = out / NAME
        with explain_database_errors(self.path):
            out.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self.path, timeout=0, isolation_level=None)
            try:
                self._begin(key, resume=resume)
            except BaseException:
                self._base.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *what: object) -> None:
        self._base.close()

    def settled(self, name: str, choose: Callable[[], str]) -> str:
        """A choice of this archive: what an earlier run chose, or else what ``choose`` gives."""
        ask = "SELECT value FROM run WHERE key = ?"
        if found := self._base.execute(ask, (name,)).fetchone():
            return str(found[0])
        chosen = choose()
        with explain_database_errors(self.path):
            self._base.execute("INSERT INTO run VALUES (?, ?)", (name, chosen))
        return chosen

    def has(self, path: Location, stamp: tuple[int, int]) -> bool:
        """Whether this very file was heard, or found to be unreadable."""
        ask = "SELECT 1 FROM heard WHERE path = ? AND size = ? AND changed = ?"
        return stamp != GONE and self._base.execute(ask, (str(path), *stamp)).fetchone() is not None

    def keep(self, entry: JournalEntry) -> None:
        """From here on the recording is heard, whatever happens."""
        presence = None if entry.presence is None else entry.presence.astype("<f4").tobytes()
        events = json.dumps(entry.events)
        row = (
            str(entry.path),
            *entry.stamp,
            entry.reason,
            entry.seconds,
            entry.site,
            entry.recorded_at,
        )
        with explain_database_errors(self.path):
            self._base.execute(
                f"REPLACE INTO heard VALUES ({','.join('?' * 9)})",
                (*row, presence, events),
            )

    def read(self, paths: Iterator[Location]) -> Iterator[JournalEntry]:
        """The entries of these files, in their order; those that are not there are passed over."""
        for path in paths:
            found = self._base.execute(
                "SELECT * FROM heard WHERE path = ?", (str(path),)
            ).fetchone()
            if found is not None:
                _, size, changed, reason, seconds, site, began, presence, events = found
                heard = None if presence is None else np.frombuffer(presence, dtype="<f4")
                rows = tuple(tuple(row) for row in json.loads(events))
                yield JournalEntry(path, (size, changed), reason, seconds, site, began, heard, rows)

    def finish(self) -> None:
        """All tables are written."""
        with explain_database_errors(self.path):
            self._base.execute("REPLACE INTO run VALUES ('finished', 'yes')")

    def _begin(self, key: dict[str, Any], *, resume: bool) -> None:
        # Exclusive: no second run, and no shared memory, which network drives do not have.
        self._base.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._base.execute("PRAGMA journal_mode = WAL")
        # A power cut may take the last recordings back, never a part of one; a kill takes nothing.
        self._base.execute("PRAGMA synchronous = NORMAL")
        self._base.executescript(TABLES)
        told = dict(self._base.execute("SELECT key, value FROM run"))
        key = {name: json.dumps(value) for name, value in key.items()}
        count = self._base.execute("SELECT count(*) FROM heard").fetchone()[0]
        if resume and told and any(told.get(name) != value for name, value in key.items()):
            raise UserError(
                "E_TODO",
                f"{self.path}: another model was at work here, or one with another --inference or --precision",
                "choose another --out, or leave --resume out to begin anew",
            )
        if not resume and count and "finished" not in told:
            raise UserError(
                "E_TODO",
                f"{self.path}: a run was stopped here after {count} recordings",
                "add --resume to go on with it, or delete the folder to begin anew",
            )
        with closing(self._base.cursor()) as doing:
            doing.execute("BEGIN IMMEDIATE")
            if resume:
                doing.execute("DELETE FROM run WHERE key = 'finished'")
            else:
                doing.execute("DELETE FROM run")
                doing.execute("DELETE FROM heard")
            doing.executemany("REPLACE INTO run VALUES (?, ?)", key.items())
            doing.execute("COMMIT")


@contextmanager
def explain_database_errors(path: Path) -> Iterator[None]:
    """Turn what a disk or a lock does into a line for the user."""
    try:
        yield
    except (sqlite3.Error, OSError) as trouble:
        said = trouble.strerror if isinstance(trouble, OSError) else str(trouble)
        if "locked" in str(said):
            raise UserError(
                "E_TODO",
                f"{path}: another run is writing here",
                "wait for it, or choose another --out",
            ) from None
        raise UserError(
            "E_TODO",
            f"{path}: cannot be written ({said})",
            "what was heard so far is kept: make room or give leave to write, then go on with --resume",
        ) from None
