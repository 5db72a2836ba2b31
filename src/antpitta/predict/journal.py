"""The journal of one output folder: every file that was processed, and what came of it.

- The journal is one SQLite file. Each recording is a transaction of its own: a run that is killed
  at any moment leaves every recording either complete or absent.
- The tables are written from the journal, in the order of the archive. They come out the same
  however often a run was stopped.
- A file is identified by path, size and time of change. A file that has changed is processed again.
- Entries of an earlier, finished run are deleted when the first recording of the new one is done,
  so that a run which cannot start (no int8 network) deletes nothing.
- The database stays locked while a run has it open. The operating system releases the lock of a
  run that was killed.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from antpitta.core.errors import UserError
from antpitta.files.remote import Location
from antpitta.files.texts import utf8_text

NAME = "journal.sqlite"
TABLES = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS recordings (
    path TEXT PRIMARY KEY, size INTEGER, changed INTEGER, reason TEXT NOT NULL,
    duration REAL, site TEXT, recorded_at TEXT, presence BLOB, events TEXT
);
"""
EventRow = tuple[float, float, float, float, str, float, str]  # by EVENT_COLUMNS
EVENT_COLUMNS = ("start_time", "end_time", "low_freq", "high_freq", "species", "score", "model")
Stamp = tuple[int, int]  # size in bytes, time of the last change in nanoseconds
GONE: Stamp = (-1, -1)  # of a file that does not exist; every run looks for it again


@dataclass(frozen=True)
class JournalEntry:
    """One file of the archive after processing.

    Parameters
    ----------
    path : as the user named the file
    stamp : size in bytes and time of the last change in nanoseconds, or :data:`GONE`
    reason : why the file has no scores, or only scores of a part; "" if nothing is wrong
    duration : seconds
    site : None if unknown
    recorded_at : ISO 8601; None if unknown
    presence : (classes,), None if the file could not be read
    events : one tuple per event, ordered as :data:`EVENT_COLUMNS`
    """

    path: Location
    stamp: Stamp
    reason: str = ""
    duration: float = 0.0
    site: str | None = None
    recorded_at: str | None = None
    presence: NDArray[np.float32] | None = None
    events: tuple[EventRow, ...] = ()


class Journal:
    """The journal of an output folder, locked while it is open; a context manager.

    Parameters
    ----------
    out : folder, created if missing
    key : what makes two runs comparable: the model's digest and how scores are computed
    resume : continue with the entries of an earlier run that has the same ``key``

    Raises
    ------
    UserError
        ``E_OUTPUT_LOCKED``, ``E_OUTPUT_NOT_WRITABLE``; ``E_RESUME_MISMATCH`` if the earlier run
        has another key, ``E_UNFINISHED_RUN`` if one was stopped here and ``resume`` is false.
    """

    def __init__(self, out: Path, key: dict[str, Any], *, resume: bool) -> None:
        self.path = out / NAME
        self._resume, self._begun = resume, False
        self._values: dict[str, str] = {}
        with explain_database_errors(self.path):
            out.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=0, isolation_level=None)
            try:
                self._begin(key, resume=resume)
            except BaseException:
                self._database.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    def has(self, path: Location, stamp: Stamp) -> bool:
        """Whether this version of a file was processed, successfully or not."""
        if stamp == GONE or not (self._begun or self._resume):
            return False
        query = "SELECT 1 FROM recordings WHERE path = ? AND size = ? AND changed = ?"
        return self._database.execute(query, (utf8_text(str(path)), *stamp)).fetchone() is not None

    def add(self, entry: JournalEntry) -> None:
        """Store an entry; it replaces an earlier one of the same path."""
        presence = None if entry.presence is None else entry.presence.astype("<f4").tobytes()
        row = (
            *(utf8_text(str(entry.path)), *entry.stamp, entry.reason, entry.duration, entry.site),
            *(entry.recorded_at, presence, json.dumps(entry.events)),
        )
        self._begin_run()
        with explain_database_errors(self.path):
            self._database.execute(
                f"REPLACE INTO recordings VALUES ({','.join('?' * len(row))})", row
            )

    def read(self, paths: Iterator[Location]) -> Iterator[JournalEntry]:
        """The entries of these files, in their order; files without an entry are skipped."""
        self._begin_run()
        query = "SELECT * FROM recordings WHERE path = ?"
        for path in paths:
            if row := self._database.execute(query, (utf8_text(str(path)),)).fetchone():
                _, size, changed, reason, duration, site, recorded_at, presence, events = row
                yield JournalEntry(
                    *(path, (size, changed), reason, duration, site, recorded_at),
                    presence=None if presence is None else np.frombuffer(presence, dtype="<f4"),
                    events=tuple(tuple(event) for event in json.loads(events)),
                )

    def finish(self) -> None:
        """Note that all tables are written."""
        self._begin_run()
        with explain_database_errors(self.path):
            self._database.execute("REPLACE INTO run VALUES ('finished', 'yes')")

    def _begin(self, key: dict[str, Any], *, resume: bool) -> None:
        # Exclusive: no second run, and no shared memory, which network drives do not have.
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last recordings, never a part of one; a kill loses nothing.
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(TABLES)
        values = {name: json.dumps(value) for name, value in key.items()}
        self._check_earlier_run(values, resume=resume)
        self._values = values
        if not self._database.execute("SELECT count(*) FROM recordings").fetchone()[0]:
            self._begin_run()  # there is nothing to delete

    def _begin_run(self) -> None:
        """Delete the entries of an earlier run; called when the new one has its first result."""
        if self._begun:
            return
        with explain_database_errors(self.path), closing(self._database.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            if self._resume:
                cursor.execute("DELETE FROM run WHERE key = 'finished'")
            else:
                cursor.execute("DELETE FROM run")
                cursor.execute("DELETE FROM recordings")
            cursor.executemany("REPLACE INTO run VALUES (?, ?)", self._values.items())
            cursor.execute("COMMIT")
        self._begun = True

    def _check_earlier_run(self, key: dict[str, str], *, resume: bool) -> None:
        earlier = dict(self._database.execute("SELECT key, value FROM run"))
        count = self._database.execute("SELECT count(*) FROM recordings").fetchone()[0]
        if (
            resume
            and earlier
            and any(earlier.get(name, "null") != value for name, value in key.items())
        ):
            raise UserError(
                "E_RESUME_MISMATCH",
                f"{self.path}: the earlier run used another model, --inference, --precision or"
                " --channel",
                "choose another --out, or leave --resume out to start again",
            )
        if not resume and count and "finished" not in earlier:
            raise UserError(
                "E_UNFINISHED_RUN",
                f"{self.path}: a run was stopped here after {count} recordings",
                "add --resume to continue it, or delete the folder to start again",
            )


@contextmanager
def explain_database_errors(path: Path) -> Iterator[None]:
    """Turn errors of the disk and the database into a UserError.

    Parameters
    ----------
    path : named in the message

    Yields
    ------
    None.

    Raises
    ------
    UserError
        ``E_OUTPUT_LOCKED`` if another run has the journal open, else ``E_OUTPUT_NOT_WRITABLE``.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        if "locked" in str(cause):
            raise UserError(
                "E_OUTPUT_LOCKED",
                f"{path}: another run is writing to this folder",
                "wait until it ends, or choose another --out",
            ) from None
        raise UserError(
            "E_OUTPUT_NOT_WRITABLE",
            f"{path}: cannot be written ({cause})",
            "free disk space or fix the permissions, then continue with --resume",
        ) from None
