"""Recordings in folders: found, probed, named, and given a site and a time.

- An id is the file's stem if no other file has it, else the path below its folder, else that
  with the folder's name before it. Two recordings never share an id.
- The folder names the site only where there are several folders to tell apart.
- A file that looks like sound and cannot be read is a Finding, never skipped in silence. Hidden
  files are skipped: a Mac leaves ``._*`` on foreign disks, with the suffix of sound and no sound.
- Spectrograms (files/spectrograms.py) stand for recordings as sound does, and are used where both
  are given: the sound of the same id then gives name, site and time. Sound without one is left out.
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
from antpitta.core.identity import recording_key
from antpitta.core.types import Recording
from antpitta.files.audio import SUFFIXES, UnreadableAudio, file_errors, probe
from antpitta.files.matching import AmbiguousMatch, RecordingMatcher
from antpitta.files.recording_metadata import PLAUSIBLE_YEARS, read_metadata, site_from_folder
from antpitta.files.remote import Location, RemotePath, fetch, list_objects
from antpitta.files.spectrograms import REMEDY, SPECTROGRAM_SUFFIXES, probe_spectrogram
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

    @property
    def are_spectrograms(self) -> bool:
        """Whether they are read from spectrograms; they all are, or none is."""
        return any(recording.spectrogram is not None for recording in self.recordings)


@dataclass(frozen=True)
class ListedFile:
    """A file of sound, or a spectrogram, that has not been opened yet."""

    id: str
    path: Location
    folder: str | None = None  # the site, if the file itself has none
    channel: int | None = None  # the one to use, from 1; None: the mean of all
    spectrogram: Path | None = None  # what is read; ``path`` is then its sound, or itself

    @property
    def source(self) -> Location:
        """The file that is read."""
        return self.spectrogram or self.path


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
    roots: Sequence[Location], channel: int | None = None, spectrograms: Sequence[Location] = ()
) -> tuple[tuple[ListedFile, ...], tuple[Finding, ...]]:
    """List the files of sound, or the spectrograms, in folders, without opening them.

    Parameters
    ----------
    roots : folders, files, or URLs
    channel : the one to use of each file, from 1; None for the mean of all
    spectrograms : folders of spectrograms, which are then used instead of all sound

    Returns
    -------
    files : sorted by id
    findings : files of sound in formats that cannot be read, sound without a spectrogram

    Raises
    ------
    UserError
        E_NO_FILE: a root does not exist. E_NO_AUDIO: a root has no sound, or no spectrograms.
        E_OPTION: a channel below 1, or a channel or a URL beside spectrograms.
    """
    if not roots and not spectrograms:
        raise UserError("E_NO_AUDIO", "no recordings are given", "name a file or a folder")
    if channel is not None and channel < 1:
        raise UserError("E_OPTION", f"--channel {channel}: there is none", "count from 1")
    if not spectrograms:
        return _list_roots(roots, channel, SUFFIXES)
    option = None if channel is None else f"--channel {channel}"
    option = next((str(r) for r in (*roots, *spectrograms) if isinstance(r, RemotePath)), option)
    if option is not None:
        what = f"{option}: cannot be combined with --spectrograms"
        raise UserError("E_OPTION", what, "leave one of the two out")
    dumps, findings = _list_spectrograms(spectrograms)
    sounds, unsupported = _list_roots(roots, None, SUFFIXES) if roots else ((), ())
    paired, alone = _pair(dumps, sounds)
    where = ", ".join(map(str, spectrograms))
    findings += unsupported
    for sound in alone:
        what, remedy = f"has no spectrogram in {where}", "add it, or leave the sound out"
        path = utf8_text(str(sound.path))
        findings += (Finding("W_NO_SPECTROGRAM", path, None, what, remedy, True),)
    return paired, findings


def _list_spectrograms(
    roots: Sequence[Location],
) -> tuple[tuple[ListedFile, ...], tuple[Finding, ...]]:
    """The spectrograms in folders; a recording with two files in one folder has none."""
    files, findings = _list_roots(roots, None, SPECTROGRAM_SUFFIXES)
    paths = [file.path for file in files if isinstance(file.path, Path)]
    stems = [unicodedata.normalize("NFC", str(path.with_suffix(""))) for path in paths]
    counts, kept, reported = Counter(stems), [], set()
    for file, path, stem in zip(files, paths, stems, strict=True):
        if counts[stem] == 1:
            kept.append(replace(file, spectrogram=path))
        elif stem not in reported:
            reported.add(stem)
            what = f"{path.stem} has a .npy and a .npz file here, and none of them is used"
            finding = ("W_SPECTROGRAM_TWICE", utf8_text(str(path.parent)), None, what)
            findings += (Finding(*finding, "remove one of them", True),)
    return tuple(kept), findings


def _pair(
    dumps: Sequence[ListedFile], sounds: Sequence[ListedFile]
) -> tuple[tuple[ListedFile, ...], list[ListedFile]]:
    """Spectrograms with the sound of the same id, and sound without a spectrogram.

    Where no id is equal, two that differ in case only are, unless there are several.
    """
    ids = {dump.id for dump in dumps} & {sound.id for sound in sounds}
    groups: list[dict[str, list[ListedFile]]] = [{}, {}]
    for files, group in zip((dumps, sounds), groups, strict=True):
        for file in files:
            key = file.id if file.id in ids else f"{recording_key(file.id)}\0"
            group.setdefault(key, []).append(file)
    paired: list[ListedFile] = []
    alone = []
    for key, own in groups[0].items():
        same = groups[1].get(key, ())
        if len(own) == len(same) == 1:
            site = same[0].folder or own[0].folder
            paired.append(replace(own[0], path=same[0].path, folder=site))
        else:
            paired += own
    used = {file.path for file in paired}
    alone = [sound for sound in sounds if sound.path not in used]
    return tuple(sorted(paired, key=lambda file: file.id)), alone


def _list_roots(
    roots: Sequence[Location], channel: int | None, suffixes: frozenset[str]
) -> tuple[tuple[ListedFile, ...], tuple[Finding, ...]]:
    files, findings = _collect(roots, suffixes)
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
            if file.spectrogram is not None:
                recording = replace(probe_spectrogram(file.spectrogram, file.id), path=path)
            else:
                recording = probe(path, file.id, file.channel)
            metadata = read_metadata(path)
    except UnreadableAudio as error:
        raise UnreadableAudio(str(error).replace(str(path), str(file.path))) from None
    site = metadata.site or file.folder or metadata.recorder
    site = None if site is None else utf8_text(site)
    return replace(recording, site=site, recorded_at=metadata.recorded_at)


def find_recordings(
    roots: Sequence[Path],
    sites: Path | None = None,
    channel: int | None = None,
    spectrograms: Sequence[Path] = (),
) -> FoundRecordings:
    """Find and probe every recording in folders.

    Parameters
    ----------
    roots : folders or files
    sites : table of sites and times, which overrides what the files have
    channel : the one to use of each file, from 1; None for the mean of all
    spectrograms : folders of spectrograms, which are then used instead of all sound

    Returns
    -------
    found : recordings sorted by id, and findings

    Raises
    ------
    UserError
        E_NO_FILE, E_NO_AUDIO; E_MISSING_COLUMN: the table of sites lacks one.
    """
    files, unsupported = list_files(roots, channel, spectrograms)
    with ThreadPoolExecutor(_PROBE_THREADS) as pool:
        opened = list(pool.map(_open_or_report, files))
    recordings = tuple(result for result in opened if isinstance(result, Recording))
    findings = [*_sum_up(unsupported, spectrograms)]
    findings += [result for result in opened if isinstance(result, Finding)]
    if not recordings:
        first = f"; the first: {findings[0].what}" if findings else ""
        raise UserError(
            "E_NO_AUDIO",
            f"{', '.join(map(str, spectrograms or roots))}: no recording can be read{first}",
            REMEDY if spectrograms else "give WAV, FLAC, OGG or MP3 files",
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


def _sum_up(findings: Sequence[Finding], spectrograms: Sequence[Path]) -> Iterator[Finding]:
    """The findings, with one for all sound without a spectrogram."""
    missing = [finding for finding in findings if finding.code == "W_NO_SPECTROGRAM"]
    yield from (finding for finding in findings if finding.code != "W_NO_SPECTROGRAM")
    if missing:
        names = list_names((PurePath(finding.file).stem for finding in missing), 8)
        what = f"{len(missing)} recordings with sound have no spectrogram here: {names}"
        where = utf8_text(", ".join(map(str, spectrograms)))
        yield replace(missing[0], file=where, what=what, remedy="add them, or leave the sound out")


def _collect(
    roots: Sequence[Location], suffixes: frozenset[str]
) -> tuple[list[_File], list[Finding]]:
    """The files with some suffixes, each once though roots may overlap, in order."""
    is_sound = suffixes is SUFFIXES
    files: dict[str, _File] = {}
    findings = []
    for root in roots:
        count = 0
        for key, file in _walk(root):
            suffix = file.path.suffix.lower()
            if suffix in suffixes:
                count += 1
                files.setdefault(key, file)
            elif is_sound and suffix in _UNSUPPORTED:
                count += 1
                what, remedy = f"{suffix[1:].upper()} cannot be read", "convert it to FLAC"
                path = str(file.path)
                findings.append(Finding("W_AUDIO_UNREADABLE", path, None, what, remedy, True))
        if not count:
            what = "there are no recordings" if is_sound else "there are no spectrograms"
            kinds = "WAV, FLAC, OGG or MP3" if is_sound else ".npy or .npz"
            remedy = f"give a folder with {kinds} files"
            raise UserError("E_NO_AUDIO", f"{root}: {what}", remedy)
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
        what = str(error).removeprefix(f"{file.source}: ")
        path = utf8_text(str(file.source))
        if file.spectrogram is not None:
            return Finding("W_SPECTROGRAM_UNREADABLE", path, None, what, REMEDY, True)
        remedy = "copy or convert it again, or leave it out"
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
