"""The manifest of an output folder: the files that antpitta wrote there, with their digests.

Only a file whose digest is in the manifest is ever replaced or deleted. A file that a user edited
has another digest and a file that a user added has none, so both stay: a command that would have
to replace them is refused.

- New files are written to a hidden folder first and are moved when all of them are complete. While
  they move, the manifest names the old and the new digests. A command that is killed at any moment
  therefore leaves no file that the next one would take for a user's.
- The manifest names the kind of the folder, so that one kind of output never replaces another one.
- The lock is that of a SQLite file: the operating system releases it when a process ends.
"""

import hashlib
import json
import re
import shutil
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from antpitta.core.errors import UserError
from antpitta.files.texts import write_json

MANIFEST = ".antpitta.json"
LOCK = ".antpitta.lock"
OutputKind = Literal["prediction", "run", "model", "ensemble", "simulation"]
_UNFINISHED = re.compile(r"\.unfinished-[0-9a-f]{12}")
Digests = dict[str, list[str]]  # of each file, by its path below the folder


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other commands from writing to a folder.

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
    lock = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
    except (OSError, sqlite3.Error) as error:
        if lock is not None:
            lock.close()
        if "locked" in str(error):
            raise UserError(
                "E_OUTPUT_LOCKED",
                f"{folder}: another command is writing to this folder",
                "wait until it ends, or choose another folder with -o",
            ) from None
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            "E_OUTPUT_NOT_WRITABLE",
            f"{folder}: the folder cannot be written ({reason})",
            "choose another folder with -o",
        ) from None
    try:
        yield
    finally:
        lock.close()


def write_manifest(folder: Path, kind: OutputKind) -> None:
    """Write the manifest of a folder that antpitta has just filled.

    Parameters
    ----------
    folder : all files below it are recorded
    kind : of the output
    """
    digests = {name: [_digest(folder / name)] for name in _files(folder)}
    _write(folder, kind, digests)


def check_own_files(
    folder: Path, kind: OutputKind, names: Iterable[str] = (), *, merged: Iterable[str] = ()
) -> None:
    """Refuse to write to a folder if files would be replaced that were edited or are others'.

    Parameters
    ----------
    folder : the output folder, which may be missing
    kind : of the output
    names : paths below the folder of files that will be written, besides those of the manifest
    merged : paths of files that may be edited

    Raises
    ------
    UserError
        E_OUTPUT_EDITED.
    """
    digests = _read(folder, kind)
    for name in sorted({*names, *digests} - set(merged)):
        if not _is_own(folder, name, digests):
            raise _edited(folder / name, kind)


def check_own_folder(folder: Path, kind: OutputKind) -> None:
    """Refuse to replace a folder that holds anything but unchanged files of antpitta.

    Parameters
    ----------
    folder : which may be missing or empty
    kind : of the output that would replace it

    Raises
    ------
    UserError
        E_OUTPUT_EDITED.
    """
    if folder.is_dir() and not folder.is_symlink():
        check_own_files(folder, kind, _files(folder))
    elif folder.exists() or folder.is_symlink():
        raise _edited(folder, kind)


@contextmanager
def replace_files(
    folder: Path, kind: OutputKind, *, complete: bool = False, merged: Iterable[str] = ()
) -> Iterator[Path]:
    """Give an empty folder whose files are moved into ``folder`` at the end of the block.

    After an error in the block, ``folder`` is unchanged.

    Parameters
    ----------
    folder : the output folder
    kind : of the output
    complete : whether the new files are the whole output; earlier files that are none of them are
        then deleted, unless they were edited
    merged : paths of files that the block reads and writes anew with a user's edits in them; they
        are copied into the new folder and may be replaced

    Yields
    ------
    The new folder.

    Raises
    ------
    UserError
        E_OUTPUT_EDITED if a file would be replaced that is not antpitta's or was edited.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".unfinished-*"):
        if _UNFINISHED.fullmatch(leftover.name):
            shutil.rmtree(leftover, ignore_errors=True)
    unfinished = folder / f".unfinished-{uuid.uuid4().hex[:12]}"
    unfinished.mkdir()
    try:
        for name in merged:
            if (folder / name).is_file():
                (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, unfinished / name)
        yield unfinished
        _move(unfinished, folder, kind, complete=complete, merged=set(merged))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move(
    unfinished: Path, folder: Path, kind: OutputKind, *, complete: bool, merged: set[str]
) -> None:
    earlier = _read(folder, kind)
    new = {name: [_digest(unfinished / name)] for name in _files(unfinished)}
    both = {**earlier, **{name: [*earlier.get(name, []), *new[name]] for name in new}}
    for name in set(new) - merged:
        if not _is_own(folder, name, both):
            raise _edited(folder / name, kind)
    _write(folder, kind, both)
    for name in new:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (unfinished / name).replace(folder / name)
    kept = dict(earlier)
    for name in set(earlier) - set(new) if complete else ():
        if (folder / name).is_file() and _is_own(folder, name, earlier):
            (folder / name).unlink()
        del kept[name]
    _write(folder, kind, {**kept, **new})


def _is_own(folder: Path, name: str, digests: Digests) -> bool:
    """Whether a file is missing, or is as antpitta wrote it."""
    file = folder / name
    if file.is_symlink() or (file.exists() and not file.is_file()):
        return False
    return not file.exists() or (name in digests and _digest(file) in digests[name])


def _files(folder: Path) -> list[str]:
    """The files and links below a folder, without the manifest, the lock and hidden folders."""
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.startswith((".unfinished-", LOCK)) or name == MANIFEST:
            continue
        if path.is_symlink() or not path.is_dir():
            names.append(name)
    return names


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _read(folder: Path, kind: OutputKind) -> Digests:
    """The digests of a folder of this kind; a manifest that cannot be read names no file."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if content["kind"] != kind:
            return {}
        return {str(name): list(map(str, digests)) for name, digests in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(folder: Path, kind: OutputKind, digests: Digests) -> None:
    write_json({"kind": kind, "files": dict(sorted(digests.items()))}, folder / MANIFEST)


def _edited(path: Path, kind: OutputKind) -> UserError:
    return UserError(
        "E_OUTPUT_EDITED",
        f"{path}: this is no file of a {kind} that antpitta wrote, or it was changed since",
        "choose another folder with -o, or move the file away",
    )
