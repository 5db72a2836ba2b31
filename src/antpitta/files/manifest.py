"""The manifest of an output folder: the files that antpitta wrote there, with their digests.

Only a file whose digest is in the manifest is ever replaced or deleted. A file that a user edited
has another digest and a file that a user added has none, so both stay: a command that would have
to replace them is refused.

- New files are written to a hidden folder first and are moved when all of them are complete. While
  they move, the manifest names the old and the new digests. A command that is killed at any moment
  therefore leaves no file that the next one would take for a user's.
- The manifest names the kind of the folder, so that one kind of output never replaces another one.
- A manifest that cannot be read, or that a later version wrote, names no file. Paths in it that
  lead out of the folder are ignored.
"""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from antpitta.core.errors import UserError
from antpitta.files.locks import LOCK
from antpitta.files.texts import explain_write_errors, is_regular_file, write_text

MANIFEST = ".antpitta.json"
LAYOUT = 1  # raised when an older version could not read it
OutputKind = Literal["prediction", "run", "model", "ensemble", "simulation", "estimates", "clips"]
_UNFINISHED = re.compile(r"\.unfinished-[0-9a-f]{12}")
Digests = dict[str, list[str]]  # of each file, by its path below the folder


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
            raise _edited(folder, name, kind)


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
        raise _edited(folder, "", kind)


def check_unchanged(folder: Path, kind: OutputKind, name: str) -> None:
    """Refuse a file that was changed since antpitta wrote it; one without a digest is accepted.

    Parameters
    ----------
    folder : the output folder
    kind : of the output
    name : path of the file below the folder

    Raises
    ------
    UserError
        E_FILE_DAMAGED.
    """
    digests = _read(folder, kind)
    if name in digests and not _is_own(folder, name, digests):
        raise UserError(
            "E_FILE_DAMAGED",
            f"{folder / name}: the file was changed since antpitta wrote it",
            "move it away, and repeat the command that wrote it (train with --resume)",
        )


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
    unfinished = folder / f".unfinished-{uuid.uuid4().hex[:12]}"
    try:
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob(".unfinished-*"):
                if _UNFINISHED.fullmatch(leftover.name):
                    shutil.rmtree(leftover, ignore_errors=True)
            unfinished.mkdir()
            for name in merged:
                if (folder / name).is_file():
                    (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(folder / name, unfinished / name)
        yield unfinished
        with explain_write_errors(folder):
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
            raise _edited(folder, name, kind)
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
    """Whether a file is missing, or is as antpitta wrote it; a link is never followed."""
    file = folder / name
    above = [parent for parent in file.parents if parent.is_relative_to(folder)]
    if file.is_symlink() or any(parent.is_symlink() for parent in above if parent != folder):
        return False
    if not file.exists():
        return not any(parent.exists() and not parent.is_dir() for parent in above)
    return file.is_file() and name in digests and _digest(file) in digests[name]


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
        return digest_of(file)


def digest_of(file: Any) -> str:
    """The digest of an open file.

    Parameters
    ----------
    file : of bytes

    Returns
    -------
    32 hexadecimal digits.
    """
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _read(folder: Path, kind: OutputKind) -> Digests:
    """The digests of a folder of this kind; a manifest that cannot be read names no file."""
    content = _content(folder)
    if content is None or content[0] != kind:
        return {}
    return content[1]


def _content(folder: Path) -> tuple[str, Digests] | None:
    """The kind and the digests of a manifest; None without one that can be read."""
    file = folder / MANIFEST
    if not is_regular_file(file):
        return None
    try:
        return _parse(file.read_bytes())
    except OSError:
        return None


def parse_manifest(content: bytes, kind: OutputKind) -> Digests:
    """The digests in a manifest.

    Parameters
    ----------
    content : of the file
    kind : that the output must be

    Returns
    -------
    Digests by path; none of a manifest of another kind, or one that cannot be read.
    """
    parsed = _parse(content)
    return parsed[1] if parsed is not None and parsed[0] == kind else {}


def read_digests(folder: Path) -> Digests:
    """The digests of the folder of a prediction.

    Parameters
    ----------
    folder : the output folder

    Returns
    -------
    Digests by path below the folder.
    """
    return _read(folder, "prediction")


def _parse(text: bytes) -> tuple[str, Digests] | None:
    try:
        content = json.loads(text)
        if content.get("layout", LAYOUT) > LAYOUT:
            return None
        files = {str(name): list(map(str, each)) for name, each in content["files"].items()}
        return str(content["kind"]), {n: each for n, each in files.items() if _is_inside(n)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_inside(name: str) -> bool:
    """Whether a path of a manifest stays in its folder."""
    path = PurePosixPath(name)
    plain = not path.is_absolute() and ".." not in path.parts and "\0" not in name
    return plain and name not in ("", ".", MANIFEST, LOCK) and not PureWindowsPath(name).drive


def _write(folder: Path, kind: OutputKind, digests: Digests) -> None:
    write_text(manifest_text(kind, digests), folder / MANIFEST)


def manifest_text(kind: OutputKind, digests: Digests) -> str:
    """The content of a manifest.

    Parameters
    ----------
    kind : of the output
    digests : by path

    Returns
    -------
    JSON.
    """
    content = {"layout": LAYOUT, "kind": kind, "files": dict(sorted(digests.items()))}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _edited(folder: Path, name: str, kind: OutputKind) -> UserError:
    what = f"{folder / name}: it is of no {kind} that antpitta wrote, or it was changed"
    if (folder / MANIFEST).exists() and _content(folder) is None:
        what = (
            f"{folder / MANIFEST}: it is damaged or of a later version of antpitta, so nothing "
            f"tells whether {folder / name} may be replaced"
        )
    return UserError(
        "E_OUTPUT_EDITED", what, "choose another folder with -o, or move the file away"
    )
