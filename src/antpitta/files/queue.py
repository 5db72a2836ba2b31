"""The database of a queue: a SQLite file in the queue's folder, or any SQLAlchemy URL.

SQLite writes ahead (WAL), so that readers never wait for a writer, and to the disk before a commit
returns: a verdict that was acknowledged survives a power failure. A transaction that writes takes
the write lock at its beginning; where two would upgrade from reading, one would fail.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from antpitta.core.errors import UserError
from antpitta.files.locks import is_empty
from antpitta.files.texts import explain_write_errors

DATABASE = "queue.sqlite"
WAIT = 30.0  # seconds for another writer
_IS_SQLITE = b"SQLite format 3\0"


def is_url(queue: Path | str) -> bool:
    """Whether a queue is named by the URL of a database, and not by a folder.

    Parameters
    ----------
    queue : folder or URL

    Returns
    -------
    True or False.
    """
    return isinstance(queue, str) and "://" in queue


def queue_engine(queue: Path | str, *, create: bool) -> Engine:
    """The engine of a queue's database, which may still be empty where it is created.

    Parameters
    ----------
    queue : folder, or URL such as ``postgresql+psycopg://user@host/name``
    create : whether to make a missing folder

    Returns
    -------
    The engine, not connected yet.

    Raises
    ------
    UserError
        E_NO_QUEUE, E_QUEUE_DAMAGED, E_QUEUE_URL, E_OUT_NOT_EMPTY, E_NEEDS_POSTGRES_EXTRA.
    """
    if is_url(queue):
        return _engine_of_url(str(queue))
    folder = Path(queue)
    check_queue_folder(folder, create=create)
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return _sqlite_engine(f"sqlite:///{folder / DATABASE}")


def check_queue_folder(folder: Path, *, create: bool) -> None:
    """Refuse a folder that can hold no queue, before any work is done for it.

    Parameters
    ----------
    folder : of the queue
    create : whether a missing or empty folder will do

    Raises
    ------
    UserError
        E_NO_QUEUE, E_QUEUE_DAMAGED, E_OUT_NOT_EMPTY.
    """
    file = folder / DATABASE
    if file.is_file():
        _check_header(file)
    elif not create:
        what = f"{folder}: there is no queue in this folder"
        raise UserError("E_NO_QUEUE", what, "make one with antpitta candidates OUT -o QUEUE")
    elif not is_empty(folder):
        what = f"{folder}: this holds something already, but no queue"
        raise UserError("E_OUT_NOT_EMPTY", what, "choose another folder with -o")


def _check_header(file: Path) -> None:
    with file.open("rb") as opened:
        if opened.read(len(_IS_SQLITE)) not in (_IS_SQLITE, b""):
            raise _damaged(str(file), "it is no SQLite database")


def _engine_of_url(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":  # the driver that the extra installs
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "sqlite":
            if parsed.database in (None, "", ":memory:"):
                raise ValueError("a database in memory would be lost at once")
            return _sqlite_engine(str(parsed))
        return create_engine(parsed, pool_pre_ping=True, pool_size=10, max_overflow=20)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        what = f"{url.partition('://')[0]}://...: SQLAlchemy cannot use this URL ({error})"
        remedy = "give a folder, or a URL such as postgresql://user@host/name"
        raise UserError("E_QUEUE_URL", what, remedy) from None
    except ModuleNotFoundError as error:
        what = f"a queue in this database needs the package {error.name}, which is not installed"
        remedy = "run: pip install 'antpitta[postgres]'"
        raise UserError("E_NEEDS_POSTGRES_EXTRA", what, remedy) from None


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": WAIT, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's BEGIN below, not Python's own
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def connect(engine: Engine, *, writes: bool = False) -> Iterator[Connection]:
    """A connection with a transaction that ends with the block.

    Parameters
    ----------
    engine : of :func:`queue_engine`
    writes : whether the block changes anything

    Yields
    ------
    The connection.

    Raises
    ------
    UserError
        E_QUEUE_UNREACHABLE, E_QUEUE_DAMAGED.
    """
    try:
        with engine.connect().execution_options(writes=writes) as connection, connection.begin():
            yield connection
    except DBAPIError as error:
        raise _explain(error, engine) from error


def _explain(error: DBAPIError, engine: Engine) -> Exception:
    """What a failure of the database means for the user; the error itself where it is ours."""
    name = engine.url.render_as_string(hide_password=True)
    reason = " ".join(str(error.orig).split())[:200]
    if isinstance(error.orig, sqlite3.Error):
        name = str(engine.url.database)
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return _damaged(name, reason)
        if reason.startswith("no such table"):  # a view of the layout is one, too
            return _damaged(name, reason)
        if code == sqlite3.SQLITE_FULL:
            what = f"{name}: the queue cannot be written ({reason})"
            return UserError("E_QUEUE_UNREACHABLE", what, "free disk space")
        if code in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR):
            return error
    elif not error.connection_invalidated and type(error).__name__ != "OperationalError":
        return error
    what = f"{name}: the queue cannot be read or written ({reason})"
    return UserError("E_QUEUE_UNREACHABLE", what, "check the database, and that nothing holds it")


def _damaged(name: str, reason: str) -> UserError:
    what = f"{name}: the queue is damaged ({reason})"
    return UserError("E_QUEUE_DAMAGED", what, "restore it from a backup, or name another folder")
