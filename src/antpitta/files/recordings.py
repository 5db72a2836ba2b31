"""Recordings found in folders: probed, named, and placed.

- An id is the file's stem where no other file has it, else the path below its folder, else
  that with the folder's name before it. Two recordings never share one.
- The folder names the site only where there are several to tell apart.
- What looks like sound and cannot be read is a Finding, never passed over. Hidden files are
  passed over: ``._*`` are what a Mac leaves on a foreign disk, with sound's suffix and no sound.
- A root may be a URL (files/remote.py): its files are listed like others, and fetched when opened.

Short names for paths: each as short as tells it from all others.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath

from antpitta.core.errors import Finding, UserError
from antpitta.core.types import Recording
from antpitta.files.audio import SUFFIXES, UnreadableAudio, probe
from antpitta.files.recording_metadata import read_metadata, site_from_folder
from antpitta.files.remote import Location, RemotePath, fetch, list_objects
from antpitta.files.sites import apply_site_table

_FOREIGN = frozenset((".m4a", ".aac", ".wma", ".wac", ".wv", ".ape", ".amr", ".mp4"))
_PROBERS = 8  # threads: probing waits for the disk


@dataclass(frozen=True)
class FoundRecordings:
    """What there is to listen to, and the files and rows that had to be left out."""

    recordings: tuple[Recording, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class ListedFile:
    """A file with sound's suffix that nobody has opened yet."""

    id: str
    path: Location
    folder: str | None = None  # the site, if the file itself tells of none


@dataclass(frozen=True)
class _File:
    path: Location
    root: Location  # the folder it was found under
    below: PurePath  # its path from there

    def ids(self) -> tuple[str, ...]:
        """The ids it could have, the most preferred first."""
        below = self.below.with_suffix("").as_posix()
        if isinstance(self.root, Path) and isinstance(self.path, Path):
            home, whole = self.root.resolve().name, self.path.absolute().as_posix()
        else:
            home, whole = self.root.name, str(self.path)
        stem = self.below.stem
        return (stem, below, f"{home}/{below}", f"{home}/{self.below.as_posix()}", whole)


def list_files(roots: Sequence[Location]) -> tuple[tuple[ListedFile, ...], tuple[Finding, ...]]:
    """Every file in these folders (or files) that should be sound, by id, and what cannot be.

    None is opened, so a million cost seconds. Raises UserError for a root that is not there or
    holds no sound.
    """
    files, findings = _collect(roots)
    homes: dict[Location, set[str | None]] = {}
    for file in files:
        homes.setdefault(file.root, set()).add(site_from_folder(file.below.parent))
    listed = []
    for file, id in zip(files, short_names([file.ids() for file in files]), strict=True):
        several = len(homes[file.root]) > 1
        listed.append(
            ListedFile(id, file.path, site_from_folder(file.below.parent) if several else None)
        )
    return tuple(sorted(listed, key=lambda one: one.id)), tuple(findings)


def open_file(listed: ListedFile) -> Recording:
    """The recording, with its site and time; see names.py for what goes before what.

    A remote one is fetched, and its copy is there as long as the recording's path is held.
    Raises UnreadableAudio where it is none, UserError where its store cannot be reached.
    """
    path = listed.path if isinstance(listed.path, Path) else fetch(listed.path)
    try:
        recording, origin = probe(path, listed.id), read_metadata(path)
    except UnreadableAudio as trouble:
        raise UnreadableAudio(str(trouble).replace(str(path), str(listed.path))) from None
    site = origin.site or listed.folder or origin.recorder
    return replace(recording, site=site, recorded_at=origin.recorded_at)


def find_recordings(roots: Sequence[Path], sites: Path | None = None) -> FoundRecordings:
    """Every recording in these folders (or files), sorted by id.

    ``sites`` is a table that knows better where and when (files/sites.py). Raises UserError
    for a root that is not there or holds no sound, and where no file at all can be read.
    """
    files, strangers = list_files(roots)
    with ThreadPoolExecutor(_PROBERS) as pool:
        opened = list(pool.map(_open, files))
    recordings = tuple(one for one in opened if isinstance(one, Recording))
    findings = [*strangers, *(one for one in opened if isinstance(one, Finding))]
    if not recordings:
        first = f"; the first: {findings[0].what}" if findings else ""
        raise UserError(
            "E_TODO",
            f"{', '.join(map(str, roots))}: no recording can be read{first}",
            "give WAV, FLAC, OGG or MP3 files",
        )
    if sites is not None:
        recordings, strange = apply_site_table(recordings, sites)
        findings += strange
    return FoundRecordings(recordings, tuple(findings))


def _collect(roots: Sequence[Location]) -> tuple[list[_File], list[Finding]]:
    """The files with sound's suffixes, each once though roots may overlap, in order."""
    files: dict[str, _File] = {}
    findings = []
    for root in roots:
        met = 0
        for key, file in _walk(root):
            suffix = file.path.suffix.lower()
            if suffix in SUFFIXES:
                met += 1
                files.setdefault(key, file)
            elif suffix in _FOREIGN:
                met += 1
                what = f"{suffix[1:].upper()} cannot be read"
                findings.append(
                    Finding("E_TODO", str(file.path), None, what, "convert it to FLAC", True)
                )
        if not met:
            raise UserError(
                "E_TODO",
                f"{root}: holds no recordings",
                "give a folder with WAV, FLAC, OGG or MP3 files",
            )
    order = lambda file: (isinstance(file.path, RemotePath), file.path)  # noqa: E731
    return sorted(files.values(), key=order), findings


def _walk(root: Location) -> Iterator[tuple[str, _File]]:
    """Every visible file under a root, each after what it is known again by."""
    if isinstance(root, RemotePath):
        for place, under in list_objects(root):
            if not any(part.startswith(".") for part in under.split("/")):
                above = root if place != root else root.parent
                yield place.url, _File(place, above, PurePosixPath(under))
        return
    if not root.exists():
        raise UserError("E_TODO", f"{root}: there is no such file or folder", "check the path")
    for path, home in _walk_folder(root):
        real = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118
        yield real, _File(path, home, PurePath(path.relative_to(home)))


def _walk_folder(root: Path) -> Iterator[tuple[Path, Path]]:
    """Every visible file under a root with the folder it counts from; links are followed once."""
    if root.is_file():
        yield root, root.parent
        return
    seen = set()
    for folder, inside, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up
            inside.clear()
            continue
        seen.add(real)
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder) / name, root


def _open(listed: ListedFile) -> Recording | Finding:
    try:
        return open_file(listed)
    except UnreadableAudio as trouble:
        what = str(trouble).removeprefix(f"{listed.path}: ")
        return Finding(
            "E_TODO", str(listed.path), None, what, "record, copy or convert it anew", True
        )


def short_names(choices: Sequence[Sequence[str]]) -> list[str]:
    """For each item the first of its names that no other has; its last where there is none."""
    level = [0] * len(choices)
    while True:
        names = [choice[at] for choice, at in zip(choices, level, strict=True)]
        shared = {name for name, count in Counter(names).items() if count > 1}
        rising = [
            i for i, name in enumerate(names) if name in shared and level[i] + 1 < len(choices[i])
        ]
        if not rising:
            return names
        for i in rising:
            level[i] += 1


def short_path_names(paths: Sequence[Path]) -> list[str]:
    """Each path's last name, without a table's suffix, after as many of its folders as it takes.

    ``seed1/quick`` beside ``seed2/quick`` is ``seed1-quick``. The same path twice is named alike.
    """
    return short_names([_endings(path.absolute()) for path in paths])


def _endings(path: Path) -> list[str]:
    parts = [*path.parts[1:-1], path.name if path.is_dir() else path.stem]
    return ["-".join(parts[at:]) for at in range(len(parts) - 1, -1, -1)]
