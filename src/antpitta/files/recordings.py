"""Recordings in folders: found, probed, named, and given a site and a time.

- An id is the file's stem if no other file has it, else the path below its folder, else that
  with the folder's name before it. Two recordings never share an id.
- The folder names the site only where there are several folders to tell apart.
- A file that looks like sound and cannot be read is a Finding, never skipped in silence. Hidden
  files are skipped: a Mac leaves ``._*`` on foreign disks, with the suffix of sound and no sound.
- A root may be a URL (files/remote.py): its files are listed like others, and fetched when opened.
- The table of sites overrides what names and metadata give. Its columns, in any order, are
  ``recording`` and ``site`` or ``recorded_at`` or both. An empty cell changes nothing.
- Short names for any paths are made by the same rule as ids.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePath, PurePosixPath

from antpitta.core.errors import Finding, UserError, list_names
from antpitta.core.types import Recording
from antpitta.files.audio import SUFFIXES, UnreadableAudio, file_errors, probe
from antpitta.files.matching import AmbiguousMatch, RecordingMatcher
from antpitta.files.recording_metadata import PLAUSIBLE_YEARS, read_metadata, site_from_folder
from antpitta.files.remote import Location, RemotePath, fetch, list_objects
from antpitta.files.texts import utf8_text

_UNSUPPORTED = frozenset((".m4a", ".aac", ".wma", ".wac", ".wv", ".ape", ".amr", ".mp4"))
_PROBE_THREADS = 8  # probing waits for the disk
_RECORDING_COLUMNS = ("recording", "recording_id", "file", "filename", "file_name")
_SITE_COLUMNS = ("site", "site_name", "location")
_TIME_COLUMNS = ("recorded_at", "start", "start_time", "datetime")


@dataclass(frozen=True)
class FoundRecordings:
    """The recordings that can be read, and findings about files and rows that cannot."""

    recordings: tuple[Recording, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class ListedFile:
    """A file with the suffix of sound that has not been opened yet."""

    id: str
    path: Location
    folder: str | None = None  # the site, if the file itself has none
    channel: int | None = None  # the one to use, from 1; None: the mean of all


@dataclass(frozen=True)
class _File:
    path: Location
    root: Location  # the folder that was searched
    below: PurePath  # the path from there

    def possible_ids(self) -> tuple[str, ...]:
        """The ids it could have, the most preferred first."""
        below = self.below.with_suffix("").as_posix()
        if isinstance(self.root, Path) and isinstance(self.path, Path):
            root, path = self.root.resolve().name, self.path.absolute().as_posix()
        else:
            root, path = self.root.name, str(self.path)
        stem = self.below.stem
        names = (stem, below, f"{root}/{below}", f"{root}/{self.below.as_posix()}")
        # An id has accents in one form, whatever the disk has; the whole path tells files apart.
        return (*(unicodedata.normalize("NFC", name) for name in names), path)


def list_files(
    roots: Sequence[Location], channel: int | None = None
) -> tuple[tuple[ListedFile, ...], tuple[Finding, ...]]:
    """List the files of sound in folders, without opening them.

    Parameters
    ----------
    roots : folders, files, or URLs
    channel : the one to use of each file, from 1; None for the mean of all

    Returns
    -------
    files : sorted by id
    findings : files of sound in formats that cannot be read

    Raises
    ------
    UserError
        E_NO_FILE: a root does not exist. E_NO_AUDIO: a root has no sound. E_OPTION: a channel
        below 1.
    """
    if not roots:
        raise UserError("E_NO_AUDIO", "no recordings are given", "name a file or a folder")
    if channel is not None and channel < 1:
        raise UserError("E_OPTION", f"--channel {channel}: there is none", "count from 1")
    files, findings = _collect(roots)
    folders: dict[Location, set[str | None]] = {}
    for file in files:
        folders.setdefault(file.root, set()).add(site_from_folder(file.below.parent))
    ids = short_names([[utf8_text(id) for id in file.possible_ids()] for file in files])
    listed = []
    for file, id in zip(files, ids, strict=True):
        several = len(folders[file.root]) > 1
        site = site_from_folder(file.below.parent) if several else None
        listed.append(ListedFile(id, file.path, site, channel))
    return tuple(sorted(listed, key=lambda file: file.id)), tuple(findings)


def open_file(file: ListedFile) -> Recording:
    """Probe a listed file, and add its site and time (files/recording_metadata.py).

    A remote file is fetched. Its copy stays as long as the recording's path is in use.

    Parameters
    ----------
    file : as from :func:`list_files`

    Returns
    -------
    recording : with site and time

    Raises
    ------
    UnreadableAudio
        The file is no sound that can be read.
    UserError
        The store of a remote file cannot be reached.
    """
    path = file.path if isinstance(file.path, Path) else fetch(file.path)
    try:
        with file_errors(path):
            recording, metadata = probe(path, file.id, file.channel), read_metadata(path)
    except UnreadableAudio as error:
        raise UnreadableAudio(str(error).replace(str(path), str(file.path))) from None
    site = metadata.site or file.folder or metadata.recorder
    site = None if site is None else utf8_text(site)
    return replace(recording, site=site, recorded_at=metadata.recorded_at)


def find_recordings(
    roots: Sequence[Path], sites: Path | None = None, channel: int | None = None
) -> FoundRecordings:
    """Find and probe every recording in folders.

    Parameters
    ----------
    roots : folders or files
    sites : table of sites and times, which overrides what the files have
    channel : the one to use of each file, from 1; None for the mean of all

    Returns
    -------
    found : recordings sorted by id, and findings

    Raises
    ------
    UserError
        E_NO_FILE, E_NO_AUDIO; E_MISSING_COLUMN: the table of sites lacks one.
    """
    files, unsupported = list_files(roots, channel)
    with ThreadPoolExecutor(_PROBE_THREADS) as pool:
        opened = list(pool.map(_open_or_report, files))
    recordings = tuple(result for result in opened if isinstance(result, Recording))
    findings = [*unsupported, *(result for result in opened if isinstance(result, Finding))]
    if not recordings:
        first = f"; the first: {findings[0].what}" if findings else ""
        raise UserError(
            "E_NO_AUDIO",
            f"{', '.join(map(str, roots))}: no recording can be read{first}",
            "give WAV, FLAC, OGG or MP3 files",
        )
    if sites is not None:
        recordings, site_findings = apply_site_table(recordings, sites)
        findings += site_findings
    return FoundRecordings(recordings, tuple(findings))


def apply_site_table(
    recordings: Sequence[Recording], table: Path
) -> tuple[tuple[Recording, ...], list[Finding]]:
    """Give recordings the sites and times of a table.

    Parameters
    ----------
    recordings : all that the table may name
    table : file with columns ``recording``, ``site``, ``recorded_at``

    Returns
    -------
    recordings : in the same order
    findings : rows of the table that cannot be used

    Raises
    ------
    UserError
        E_MISSING_COLUMN: the table lacks a column.
    """
    from antpitta.files.tables import read_frame  # pandas, which prediction does not wait for

    frame = read_frame(table)
    columns = {str(name).strip().lower().replace(" ", "_"): name for name in frame.columns}
    name, site, time = (
        next((columns[known] for known in names if known in columns), None)
        for names in (_RECORDING_COLUMNS, _SITE_COLUMNS, _TIME_COLUMNS)
    )
    if name is None or (site is None and time is None):
        header = list_names(map(str, frame.columns))
        raise UserError(
            "E_MISSING_COLUMN",
            f"{table}: has the columns {header}",
            "give 'recording' and 'site' or 'recorded_at'",
        )
    by_id = {recording.id: recording for recording in recordings}
    matches = RecordingMatcher(recordings).find_all(frame[name], table)
    findings, unknown = [], []
    remedy = "write a recording's id, and times as 2020-06-07 05:15:00"
    for line, row in zip(frame.index.tolist(), frame.to_dict("records"), strict=True):
        match, problem = matches[row[name]], ""
        if isinstance(match, Recording):
            changed, problem = _with_cells(by_id[match.id], row.get(site), row.get(time))
            by_id[match.id] = changed
        elif isinstance(match, AmbiguousMatch):
            problem = match.reason
        else:
            unknown.append((line, row[name]))
        if problem:
            findings.append(Finding("W_SITE_TABLE", str(table), line, problem, remedy, True))
    if unknown:
        line, example = unknown[0]
        what = f"{len(unknown)} rows name recordings that are not here, the first {example!r}"
        remedy = "add the audio, or ignore this if that is intended"
        findings.append(Finding("W_NO_AUDIO", str(table), line, what, remedy, False))
    return tuple(by_id[recording.id] for recording in recordings), findings


def _with_cells(recording: Recording, site: str | None, time: str | None) -> tuple[Recording, str]:
    """The recording with the cells of its row, and what is wrong with them."""
    if site:
        recording = replace(recording, site=site)
    if time:
        try:
            recorded_at = datetime.fromisoformat(time)
            if recorded_at.year in PLAUSIBLE_YEARS:
                return replace(recording, recorded_at=recorded_at), ""
            return recording, f"{time!r} is in a year of no recorder"
        except ValueError:
            return recording, f"{time!r} is not a time"
    return recording, ""


def _collect(roots: Sequence[Location]) -> tuple[list[_File], list[Finding]]:
    """The files with suffixes of sound, each once though roots may overlap, in order."""
    files: dict[str, _File] = {}
    findings = []
    for root in roots:
        count = 0
        for key, file in _walk(root):
            suffix = file.path.suffix.lower()
            if suffix in SUFFIXES:
                count += 1
                files.setdefault(key, file)
            elif suffix in _UNSUPPORTED:
                count += 1
                what, remedy = f"{suffix[1:].upper()} cannot be read", "convert it to FLAC"
                path = str(file.path)
                findings.append(Finding("W_AUDIO_UNREADABLE", path, None, what, remedy, True))
        if not count:
            raise UserError(
                "E_NO_AUDIO",
                f"{root}: there are no recordings",
                "give a folder with WAV, FLAC, OGG or MP3 files",
            )
    order = lambda file: (isinstance(file.path, RemotePath), file.path)  # noqa: E731
    return sorted(files.values(), key=order), findings


def _walk(root: Location) -> Iterator[tuple[str, _File]]:
    """Every visible file under a root, each with a key that is the same on every way to it."""
    if isinstance(root, RemotePath):
        for remote, below in list_objects(root):
            if not any(part.startswith(".") for part in below.split("/")):
                above = root if remote != root else root.parent
                yield remote.url, _File(remote, above, PurePosixPath(below))
        return
    if not root.exists():
        raise UserError("E_NO_FILE", f"{root}: there is no such file or folder", "check the path")
    for path, home in _walk_folder(root):
        real = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118
        yield real, _File(path, home, PurePath(path.relative_to(home)))


def _walk_folder(root: Path) -> Iterator[tuple[Path, Path]]:
    """Every visible file under a root, and the folder that its path begins at."""
    if root.is_file():
        yield root, root.parent
        return
    visited = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link back up
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder) / name, root


def _open_or_report(file: ListedFile) -> Recording | Finding:
    try:
        return open_file(file)
    except UnreadableAudio as error:
        what = str(error).removeprefix(f"{file.path}: ")
        remedy = "copy or convert it again, or leave it out"
        path = utf8_text(str(file.path))
        return Finding("W_AUDIO_UNREADABLE", path, None, what, remedy, True)


def short_names(choices: Sequence[Sequence[str]]) -> list[str]:
    """For each item the first of its names that no other item has, else its last.

    Parameters
    ----------
    choices : for each item its possible names, the most preferred first

    Returns
    -------
    names : one for each item
    """
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
    """Each path's last name, with as many folders before it as make it unique.

    ``seed1/quick`` beside ``seed2/quick`` is ``seed1-quick``. A file loses its suffix. The same
    path twice has the same name twice.

    Parameters
    ----------
    paths : files or folders

    Returns
    -------
    names : one for each path
    """
    return short_names([_possible_path_names(path.absolute()) for path in paths])


def _possible_path_names(path: Path) -> list[str]:
    parts = [*path.parts[1:-1], path.name if path.is_dir() else path.stem]
    return ["-".join(parts[at:]) for at in range(len(parts) - 1, -1, -1)]
