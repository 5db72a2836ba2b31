"""One command at a time writes to an output folder.

The lock of a folder is that of a SQLite file: the operating system releases it when a process ends,
so a command that was killed is in nobody's way. The file also names the command that holds it. On a
disk that several machines share, locks may hold on one machine only, so a command of another
machine that has not ended is never overruled.
"""

import errno
import os
import socket
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from antpitta.core.errors import UserError
from antpitta.files.texts import explain_write_errors, is_regular_file

LOCK = ".antpitta.lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other commands from writing to a folder, and explain why it cannot be written.

    A folder that is made here is removed again if nothing was written to it.

    Parameters
    ----------
    folder : created if missing

    Yields
    ------
    None
        The folder is locked inside the context.

    Raises
    ------
    UserError
        E_OUTPUT_LOCKED if another command has the lock, E_OUTPUT_NOT_WRITABLE.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with explain_write_errors(folder):
            if os.path.lexists(folder) and not folder.is_dir():
                raise OSError("this is no folder")
            folder.mkdir(parents=True, exist_ok=True)
            lock = _take_lock(folder)
        try:
            yield
        except OSError as error:
            if not _is_write_error(error, folder):
                raise
            with explain_write_errors(Path(error.filename or folder)):
                raise
        finally:
            _release(lock, folder)
    finally:
        for path in made:
            with suppress(OSError):  # it is not empty
                path.rmdir()


def is_empty(folder: Path) -> bool:
    """Whether a folder is missing, or holds nothing but its lock.

    Parameters
    ----------
    folder : of an output

    Returns
    -------
    False for a file.
    """
    if not folder.is_dir():
        return not os.path.lexists(folder)
    return all(path.name.startswith(LOCK) for path in folder.iterdir())


def _is_write_error(error: OSError, folder: Path) -> bool:
    """Whether an error of the file system concerns a full disk, or a file below the folder."""
    if error.errno in _FULL:
        return True
    names = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if name]
    return any(folder in (name, *name.parents) for name in names)


@dataclass(frozen=True)
class _Holder:
    """The command that holds a lock."""

    token: str
    host: str
    boot: str  # equal in all containers of one machine; "" where the system has none
    process: int
    since: str

    @classmethod
    def of_this_process(cls) -> Self:
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return cls(uuid.uuid4().hex, socket.gethostname(), _boot_id(), os.getpid(), since)

    def is_on(self, other: "_Holder") -> bool:
        """Whether two commands run on one machine, where locks hold between them."""
        return self.host == other.host or (self.boot == other.boot and bool(self.boot))


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        return ""


def _take_lock(folder: Path) -> sqlite3.Connection:
    """An open connection, whose transaction is the lock."""
    file = folder / LOCK
    if os.path.lexists(file) and not is_regular_file(file):
        raise OSError(f"{LOCK} is a link, a folder, a pipe or a device")
    own = _Holder.of_this_process()
    for _ in range(5):
        lock = sqlite3.connect(file, timeout=0.5, isolation_level=None)
        try:
            _write_holder(lock, own, folder)
            if _is_at(file, own):
                return lock
        except sqlite3.Error as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_DBMOVED:
                raise _lock_error(error, lock, own, folder) from None
        except BaseException:
            lock.close()
            raise
        lock.close()  # the command before deleted the file when it ended
    raise _locked(folder, None, own)


def _write_holder(lock: sqlite3.Connection, own: _Holder, folder: Path) -> None:
    lock.execute("BEGIN IMMEDIATE")
    lock.execute("CREATE TABLE IF NOT EXISTS holder (token, host, boot, process, since)")
    if (earlier := _holder(lock)) and not earlier.is_on(own):
        raise _locked(folder, earlier, own)
    lock.execute("DELETE FROM holder")
    lock.execute("INSERT INTO holder VALUES (?, ?, ?, ?, ?)", tuple(vars(own).values()))
    lock.execute("COMMIT")  # others can read it from now on
    lock.execute("BEGIN IMMEDIATE")


def _holder(lock: sqlite3.Connection) -> _Holder | None:
    row = lock.execute("SELECT token, host, boot, process, since FROM holder").fetchone()
    return None if row is None else _Holder(*row)


def _is_at(file: Path, own: _Holder) -> bool:
    """Whether the locked file is still the one of this name."""
    if not file.exists():
        return False
    with closing(sqlite3.connect(file)) as other:
        return _holder(other) == own


def _lock_error(
    error: sqlite3.Error, lock: sqlite3.Connection, own: _Holder, folder: Path
) -> Exception:
    """What stopped the lock, after closing it."""
    holder, code = None, error.sqlite_errorcode & 0xFF
    with closing(lock), suppress(sqlite3.Error):
        holder = _holder(lock)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return _locked(folder, holder, own)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
        return UserError(
            "E_OUTPUT_LOCKED",
            f"{folder / LOCK}: the file is damaged, or of another version of antpitta",
            "delete it if no other command is writing to the folder",
        )
    with suppress(OSError):
        if not (folder / LOCK).stat().st_size:  # made here, on a full disk
            (folder / LOCK).unlink()
    return OSError(f"{LOCK}: {error}")


def _locked(folder: Path, holder: _Holder | None, own: _Holder) -> UserError:
    what, remedy = f"{folder}: another command is writing to this folder", "wait until it ends"
    if holder is not None and holder.is_on(own):
        what += f" (process {holder.process}, since {holder.since})"
    elif holder is not None:
        what = (
            f"{folder}: a command on {holder.host} began to write to this folder (process "
            f"{holder.process}, since {holder.since}) and has not ended"
        )
        remedy = f"wait until it ends; if it no longer runs, delete {folder / LOCK}"
    return UserError("E_OUTPUT_LOCKED", what, f"{remedy}, or choose another folder with -o")


def _release(lock: sqlite3.Connection, folder: Path) -> None:
    try:
        (folder / LOCK).unlink(missing_ok=True)
    except OSError:  # Windows deletes no file that is open
        with suppress(sqlite3.Error):
            lock.execute("DELETE FROM holder")
            lock.execute("COMMIT")
    lock.close()
