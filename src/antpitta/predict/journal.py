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
- Every row carries a checksum of its content and of the run's key, so that a row which was edited,
  damaged or copied from another journal is never used. A file that is no journal of this version is
  not changed.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from antpitta.core.errors import UserError
from antpitta.files.remote import Location
from antpitta.files.texts import is_regular_file, utf8_text

NAME = "journal.sqlite"
APPLICATION = 0x616E7470  # "antp": whose database it is
LAYOUT = 2  # of the tables; raised when they change
TABLES = {
    "run": "key TEXT PRIMARY KEY, value TEXT NOT NULL",
    "recordings": "path TEXT PRIMARY KEY, size INTEGER, changed INTEGER, reason TEXT NOT NULL,"
    " duration REAL, site TEXT, recorded_at TEXT, presence BLOB, events TEXT, checksum BLOB",
}
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
    zone : of the recorder's clock by the table of deployments; it is not stored
    support : what supports the threshold of each species; it is not stored
    """

    path: Location
    stamp: Stamp
    reason: str = ""
    duration: float = 0.0
    site: str | None = None
    recorded_at: str | None = None
    presence: NDArray[np.float32] | None = None
    events: tuple[EventRow, ...] = ()
    zone: tzinfo | None = None
    support: Mapping[str, str] = field(default_factory=dict)

    def clock_time(self, seconds: float) -> datetime | None:
        """The time by the recorder's clock at some seconds of the file; None if unknown.

        It has a time zone where the recording or the table of deployments gives one.
        """
        if self.recorded_at is None:
            return None
        start = datetime.fromisoformat(self.recorded_at)
        return clock_after(start if start.tzinfo else start.replace(tzinfo=self.zone), seconds)


def clock_after(start: datetime, seconds: float) -> datetime:
    """A clock's time some seconds later, across changes of its offset.

    Parameters
    ----------
    start : with a time zone or without
    seconds : that pass

    Returns
    -------
    In the time zone of ``start``.
    """
    if start.tzinfo is None:
        return start + timedelta(seconds=seconds)
    return (start.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(start.tzinfo)


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
        ``E_OUTPUT_LOCKED``, ``E_OUTPUT_NOT_WRITABLE``, ``E_JOURNAL_DAMAGED``;
        ``E_RESUME_MISMATCH`` if the earlier run has another key, ``E_UNFINISHED_RUN`` if one was
        stopped here and ``resume`` is false.
    """

    def __init__(self, out: Path, key: dict[str, Any], *, resume: bool) -> None:
        self.path = out / NAME
        self._resume, self._begun = resume, False
        self._values: dict[str, str] = {}
        with explain_database_errors(self.path):
            out.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(self.path) and not is_regular_file(self.path):
                raise _damaged(self.path, "it is a link, a folder, a pipe or a device")
            self._is_new = not self.path.exists()
            self._database = sqlite3.connect(self.path, timeout=0, isolation_level=None)
            try:
                self._begin(key, resume=resume)
            except BaseException:
                self._close(failed=True)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self._close(failed=kind is not None)

    def _close(self, *, failed: bool) -> None:
        """Close the database; nothing is left of a run that could not begin."""
        empty = False
        if failed and self._is_new:
            try:
                count = self._database.execute("SELECT count(*) FROM recordings").fetchone()
                empty = count == (0,)
            except sqlite3.Error:  # such as a full disk, before there is a table
                empty = self._values == {}
        self._database.close()
        if empty:
            for suffix in ("", "-wal", "-journal"):
                with suppress(OSError):
                    self.path.with_name(NAME + suffix).unlink(missing_ok=True)

    def has(self, path: Location, stamp: Stamp) -> bool:
        """Whether this version of a file was processed, successfully or not."""
        if stamp == GONE or not (self._begun or self._resume):
            return False
        query = "SELECT 1 FROM recordings WHERE path = ? AND size = ? AND changed = ?"
        with explain_database_errors(self.path):
            row = self._database.execute(query, (utf8_text(str(path)), *stamp)).fetchone()
        return row is not None

    def add(self, entry: JournalEntry) -> None:
        """Store an entry; it replaces an earlier one of the same path."""
        presence = None if entry.presence is None else entry.presence.astype("<f4").tobytes()
        row = (
            *(utf8_text(str(entry.path)), *map(int, entry.stamp)),
            *(entry.reason, float(entry.duration)),
            *(entry.site, entry.recorded_at, presence, json.dumps(entry.events)),
        )
        self._begin_run()
        with explain_database_errors(self.path):
            self._database.execute(
                f"REPLACE INTO recordings VALUES ({','.join('?' * len(row))}, ?)",
                (*row, self._checksum(row)),
            )

    def read(self, paths: Iterable[Location]) -> Iterator[JournalEntry]:
        """The entries of these files, in their order; files without an entry are skipped."""
        self._begin_run()
        query = "SELECT * FROM recordings WHERE path = ?"
        for path in paths:
            with explain_database_errors(self.path):
                row = self._database.execute(query, (utf8_text(str(path)),)).fetchone()
            if row is None:
                continue
            self._check_row(row)
            _, size, changed, reason, duration, site, recorded_at, presence, events, _ = row
            yield JournalEntry(
                *(path, (size, changed), reason, duration, site, recorded_at),
                presence=None if presence is None else np.frombuffer(presence, dtype="<f4"),
                events=tuple(tuple(event) for event in json.loads(events)),
            )

    def count_others(self, paths: Iterable[Location]) -> int:
        """The number of entries of files that are not among these."""
        own = {utf8_text(str(path)) for path in paths}
        with explain_database_errors(self.path):
            rows = self._database.execute("SELECT path FROM recordings")
            return sum(path not in own for (path,) in rows)

    def finish(self) -> None:
        """Note that all tables are written."""
        self._begin_run()
        with explain_database_errors(self.path):
            self._database.execute("REPLACE INTO run VALUES ('finished', 'yes')")

    def _begin(self, key: dict[str, Any], *, resume: bool) -> None:
        # Exclusive: no second run, and no shared memory, which network drives do not have.
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._check_layout()
        self._database.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last recordings, never a part of one; a kill loses nothing.
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._values = {name: json.dumps(value) for name, value in key.items()}
        self._check_earlier_run(self._values, resume=resume)
        if resume:
            for row in self._database.execute("SELECT * FROM recordings"):
                self._check_row(row)
        if not self._database.execute("SELECT count(*) FROM recordings").fetchone()[0]:
            self._begin_run()  # there is nothing to delete

    def _check_layout(self) -> None:
        """Make the tables of a new journal; refuse any other database before it is changed."""
        tables = {
            name: text
            for name, text in self._database.execute("SELECT name, sql FROM sqlite_master")
            if not name.startswith("sqlite_")
        }
        (application,) = self._database.execute("PRAGMA application_id").fetchone()
        (layout,) = self._database.execute("PRAGMA user_version").fetchone()
        expected = {name: f"CREATE TABLE {name} ({text})" for name, text in TABLES.items()}
        if not tables and not layout:
            script = "; ".join(expected.values())
            self._database.executescript(
                f"BEGIN; {script}; PRAGMA application_id = {APPLICATION}; "
                f"PRAGMA user_version = {LAYOUT}; COMMIT"
            )
        elif (application, layout, tables) != (APPLICATION, LAYOUT, expected):
            raise _damaged(self.path, "it is not of this version of antpitta")

    def _checksum(self, row: tuple[Any, ...]) -> bytes:
        key = sorted(item for item in self._values.items() if item[1] != "null")
        content = repr((key, row))
        return blake2b(content.encode(), digest_size=8).digest()

    def _check_row(self, row: tuple[Any, ...]) -> None:
        if row[-1] != self._checksum(row[:-1]):
            raise _damaged(self.path, f"the row of {row[0]} was changed")

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
                f"{self.path}: the earlier run used another model, --inference, --precision,"
                " --channel, --spectrograms, --threshold, --expect-precision, --species or --top",
                "choose another --out, or leave --resume out to start again",
            )
        if not resume and count and "finished" not in earlier:
            raise UserError(
                "E_UNFINISHED_RUN",
                f"{self.path}: a run was stopped here after {count} recordings",
                "add --resume to continue it, or delete the folder to start again",
            )


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        "E_JOURNAL_DAMAGED",
        f"{path}: the journal cannot be used ({reason})",
        "delete this file, and all recordings are computed again",
    )


def read_durations(out: Path) -> dict[str, float]:
    """The length of each recording with scores in an output folder.

    Parameters
    ----------
    out : a folder that ``predict`` wrote, or any other

    Returns
    -------
    durations : seconds, by path; empty where there is no journal that can be read
    """
    return {path: float(duration) for path, duration in _read_columns(out, "duration")}


def read_places(out: Path) -> dict[str, tuple[str | None, str | None]]:
    """The site and the start of each recording with scores in an output folder.

    Parameters
    ----------
    out : a folder that ``predict`` wrote, or any other

    Returns
    -------
    places : site and ISO 8601 time, None where unknown, by path; empty where there is no journal
        that can be read
    """
    rows = _read_columns(out, "site, recorded_at")
    return {path: (site, recorded_at) for path, site, recorded_at in rows}


def _read_columns(out: Path, columns: str) -> list[tuple[Any, ...]]:
    """The path and some columns of each recording with scores; nothing is changed."""
    path = out / NAME
    if not is_regular_file(path):
        return []
    query = f"SELECT path, {columns} FROM recordings WHERE presence IS NOT NULL"
    address = f"{path.absolute().as_uri()}?mode=ro"
    if not path.with_name(f"{NAME}-wal").exists():
        address += "&immutable=1"  # no run has it open: SQLite then makes no files beside it
    try:
        with closing(sqlite3.connect(address, uri=True)) as database:
            return [(str(row[0]), *row[1:]) for row in database.execute(query)]
    except (sqlite3.Error, TypeError, ValueError):
        return []


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
        ``E_OUTPUT_LOCKED`` if another run has the journal open, ``E_JOURNAL_DAMAGED`` for a file
        that is no journal, else ``E_OUTPUT_NOT_WRITABLE``.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the details
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise UserError(
                "E_OUTPUT_LOCKED",
                f"{path}: another run is writing to this folder",
                "wait until it ends, or choose another --out",
            ) from None
        if isinstance(error, sqlite3.Error) and code not in _DISK_ERRORS:
            raise _damaged(path, str(error)) from None
        cause = error.strerror or error if isinstance(error, OSError) else error
        raise UserError(
            "E_OUTPUT_NOT_WRITABLE",
            f"{path}: cannot be written ({cause})",
            "free disk space or fix the permissions, then continue with --resume",
        ) from None


_DISK_ERRORS = (
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM),
    *(sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_AUTH),
)
