"""Which recording does a name in a table mean? Tables write ids, file names, and old paths.

- A name is an id, else a file's stem, else a file's name. Suffixes may differ (tables outlive a
  conversion to FLAC), and so may case, blanks and Unicode's forms (core/identity.py).
- Of several files of one name the one whose folders agree furthest from the right is taken, then
  the one whose folder is called like the table's, then the one nearest to the table. If that
  leaves several, the match is ambiguous: a guess could put labels on the wrong sound.
- A path counts against a match, too. Recorders at different sites write the same names if a name
  is nothing but a time. Such a file is never taken for one in a folder of another name, even where
  it is the only one. Other names may have moved to another folder; the caller can report that.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from antpitta.core.errors import Finding, list_names
from antpitta.core.identity import clean_name, recording_key
from antpitta.core.types import Recording
from antpitta.files.audio import SUFFIXES
from antpitta.files.recording_metadata import metadata_from_name, site_from_folder
from antpitta.files.spectrograms import SPECTROGRAM_SUFFIXES
from antpitta.files.texts import utf8_text

if TYPE_CHECKING:  # pandas, which prediction does not wait for
    from antpitta.files.formats import AnnotationTable


@dataclass(frozen=True)
class AmbiguousMatch:
    """A name that fits several recordings, or a recording that may be another one's namesake."""

    reason: str
    elsewhere: bool = False  # only recordings in other folders than that of the name fit it


Match = Recording | AmbiguousMatch | None


class RecordingMatcher:
    """Finds recordings by the names that tables write.

    Parameters
    ----------
    recordings : those to choose from
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._by_id = {clean_name(recording.id): recording for recording in recordings}
        self._by_id |= {recording.id: recording for recording in recordings}
        self._by_path = {utf8_text(str(recording.path)): recording for recording in recordings}
        self._by_name: dict[str, list[Recording]] = {}
        self._by_key: dict[str, list[Recording]] = {}
        for recording in recordings:
            names = (utf8_text(recording.path.name), utf8_text(recording.path.stem))
            for name in dict.fromkeys(map(clean_name, names)):
                self._by_name.setdefault(name, []).append(recording)
                self._by_key.setdefault(recording_key(name), []).append(recording)

    def find(self, name: str, table: Path | None = None) -> Match:
        """The recording that a name means.

        Parameters
        ----------
        name : as the table writes it
        table : where the name was read

        Returns
        -------
        match : None where no recording fits
        """
        names = ((self._by_path, name), (self._by_id, name), (self._by_id, clean_name(name)))
        for known, spelling in names:
            if spelling in known:
                return known[spelling]
        parts = _path_parts(name)
        if not parts:
            return None
        matches = self._find_files(parts[-1])
        if not matches and "\\" in name:  # it may be a part of the name, where no folder ends
            matches = self._find_files(clean_name(name).rpartition("/")[2])
        if len(matches) > 1:
            matches = _best(matches, [_count_common_folders(parts, r) for r in matches])
            matches = [r for r in matches if not lies_elsewhere(name, r, table)] or matches
        if len(matches) > 1 and table is not None:
            beside = (*table.absolute().parts[:-1], parts[-1])
            matches = _best(matches, [_count_common_folders(beside, r) for r in matches])
        if len(matches) > 1 and table is not None:
            matches = _best(matches, [_count_common_roots(table, r.path) for r in matches])
        if not matches:
            return None
        if _is_time_only(parts[-1]):
            others = [match for match in matches if lies_elsewhere(name, match, table)]
            if len(others) == len(matches):
                folder = others[0].path.parent.name
                reason = f"{name!r} lies in another folder than {folder!r}"
                return AmbiguousMatch(reason, elsewhere=True)
            matches = [match for match in matches if match not in others]
        if len(matches) > 1:
            ids = ", ".join(recording.id for recording in matches[:3])
            return AmbiguousMatch(f"{len(matches)} recordings are called {name!r} ({ids})")
        return matches[0]

    def _find_files(self, last: str) -> list[Recording]:
        """The recordings whose file may be called so; the same suffix and case count first."""
        path = PurePosixPath(last)
        is_file = path.suffix.lower() in SUFFIXES | SPECTROGRAM_SUFFIXES
        stem = path.stem if is_file else last
        for name in (last, stem):
            if matches := self._by_name.get(name) or self._by_key.get(recording_key(name)):
                return matches
        return []

    def find_all(self, names: Iterable[str], table: Path) -> dict[str, Match]:
        """The recording of each name of one table.

        A table may name files of two folders of which only one (or neither) is here. The rows of
        the other must not fall upon it because the file names are equal: AudioMoths at different
        sites write the same names.

        Parameters
        ----------
        names : as the table writes them
        table : where the names were read

        Returns
        -------
        matches : a match for each name, as from :meth:`find`
        """
        matches = {name: self._find_in(name, table) for name in dict.fromkeys(names)}
        names_of: dict[str, list[str]] = {}
        for name, match in matches.items():
            if isinstance(match, Recording) and len(_path_parts(name)) > 1 and name != match.id:
                names_of.setdefault(match.id, []).append(name)
        for rivals in names_of.values():
            if len({_path_parts(name)[:-1] for name in rivals}) > 1:
                _resolve_rivals(rivals, matches)
        return matches

    def _find_in(self, name: str, table: Path) -> Match:
        """The recording that a name means in a table, which may be named after the recording.

        The track of ``dawn_raven.wav`` is ``dawn_raven.txt``, which may belong to ``dawn.wav``,
        too: the whole name counts before the shorter one.
        """
        from antpitta.files.formats.columns import recording_from_table_name  # loads pandas

        if table.suffix.lower() == ".txt" and name == recording_from_table_name(table):
            whole = self.find(table.stem, table)
            if isinstance(whole, Recording):
                return whole
        return self.find(name, table)


def lies_elsewhere(name: str, recording: Recording, table: Path | None = None) -> bool:
    """Whether the folders in a name contradict the folder of the recording that it fits.

    Folders that recorders and people make everywhere, such as ``Data`` or a date, are passed over.
    A name with a station and a time means the same recording in any folder.

    Parameters
    ----------
    name : as the table writes it
    recording : that the name fits
    table : where the name was read; one beside the recording means it

    Returns
    -------
    answer : False where either has no folder that says anything
    """
    *above, last = _path_parts(name) or ("",)
    metadata = metadata_from_name(last)
    if not above or (metadata.recorded_at is not None and metadata.site is not None):
        return False
    folders = PurePosixPath(*above)
    ours = recording.path.parent
    if table is not None and table.absolute().parent == ours.absolute():
        return False
    named, actual = _site_key(folders), _site_key(ours)
    if named is None or actual is None:
        return False
    return named not in _folder_keys(ours) and actual not in _folder_keys(folders)


def report_missing(
    missing: Sequence[tuple[str, Path, int]], count_rows: int, *, spectrograms: bool
) -> Finding:
    """The finding about rows whose recordings are not here.

    Parameters
    ----------
    missing : name, file and line of each of these rows
    count_rows : the number of rows in the table
    spectrograms : whether recordings are spectrograms, all of which are needed

    Returns
    -------
    finding : serious for spectrograms, which it names
    """
    name, file, row = missing[0]
    names = dict.fromkeys(name for name, _, _ in missing)
    what = f"{len(missing)} of {count_rows} rows name {len(names)} recordings whose"
    if spectrograms:
        what = f"{what} spectrograms are not here: {list_names(names, 8)}"
        remedy = "add them, or leave these rows out"
        return Finding("W_NO_SPECTROGRAM", str(file), row, what, remedy, True)
    what = f"{what} audio is not here, the first {name!r}"
    remedy = "add the audio, or ignore this if that is intended"
    return Finding("W_NO_AUDIO", str(file), row, what, remedy, False)


def match_table(
    table: "AnnotationTable", matcher: RecordingMatcher
) -> dict[Path, dict[str, Match]]:
    """The recording of each name in each file of a table.

    Parameters
    ----------
    table : as from :func:`antpitta.files.formats.read_table`
    matcher : of the recordings that are here

    Returns
    -------
    matches : file -> name, as the file writes it -> recording
    """
    names: dict[Path, dict[str, None]] = {}
    for box, (file, _) in zip(table.annotations, table.iter_origins(), strict=True):
        names.setdefault(file, {})[box.recording] = None
    matches = {file: matcher.find_all(names[file], file) for file in names}
    drop_rivals(matches)
    return matches


def drop_rivals(matches: Mapping[Path, dict[str, Match]]) -> None:
    """Of tables in several folders that claim one recording, keep those that fit it best.

    It concerns tables that are named after a recording: ``siteA/`` and ``siteB/`` may have one
    each for a recording of their site, of which only one is here. Tables whose folders say equally
    much, such as those of two observers, keep the recording.

    Parameters
    ----------
    matches : of the names of each table; changed in place
    """
    claims: dict[str, list[tuple[Path, str, int]]] = {}
    for table, by_name in matches.items():
        for name, match in by_name.items():
            if isinstance(match, Recording) and table.name.startswith(name):
                parts = (*table.absolute().parts[:-1], name)
                agreement = _count_common_folders(parts, match)
                claims.setdefault(match.id, []).append((table, name, agreement))
    for rivals in claims.values():
        best = max(agreement for _, _, agreement in rivals)
        for table, name, agreement in rivals:
            if agreement < best:
                matches[table][name] = None


def _resolve_rivals(rivals: Sequence[str], matches: dict[str, Match]) -> None:
    """Leave the recording to the one of these paths that agrees with it best."""
    recording = matches[rivals[0]]
    assert isinstance(recording, Recording)
    agreements = [_count_common_folders(_path_parts(name), recording) for name in rivals]
    best = max(agreements)
    for name, agreement in zip(rivals, agreements, strict=True):
        if agreement < best:
            matches[name] = None
        elif agreements.count(best) > 1:
            count = agreements.count(best)
            reason = f"{count} different files of the table fit {recording.id}"
            matches[name] = AmbiguousMatch(reason)


def _path_parts(name: str) -> tuple[str, ...]:
    """A path's parts, whichever system wrote it."""
    return PurePosixPath(clean_name(name).replace("\\", "/")).parts


def _is_time_only(name: str) -> bool:
    """Whether a file's name is a time without a station, which recorders elsewhere write, too."""
    metadata = metadata_from_name(name)
    return metadata.recorded_at is not None and metadata.site is None


def _site_key(folder: PurePosixPath | Path) -> str | None:
    """The innermost folder that may name a site; drives and ``..`` name none."""
    parts = [part for part in folder.parts if part.strip("./") and not part.endswith(":")]
    site = site_from_folder(PurePosixPath(*parts))
    return None if site is None else recording_key(site)


def _folder_keys(folder: PurePosixPath | Path) -> set[str]:
    return set(map(recording_key, folder.parts))


def _count_common_folders(parts: Sequence[str], recording: Recording) -> int:
    """How many folders agree, from the file's upwards."""
    count = 0
    for ours, theirs in zip(recording.path.parts[-2::-1], parts[-2::-1], strict=False):
        if recording_key(ours) != recording_key(theirs):
            break
        count += 1
    return count


def _count_common_roots(table: Path, path: Path) -> int:
    """How many folders a table and a file share, from the root downwards."""
    folders = table.absolute().parts if table.is_dir() else table.absolute().parts[:-1]
    others = path.absolute().parts[:-1]
    return next(
        (i for i, (a, b) in enumerate(zip(folders, others, strict=False)) if a != b),
        min(len(folders), len(others)),
    )


def _best(recordings: list[Recording], agreements: list[int]) -> list[Recording]:
    best = max(agreements)
    return [r for r, agreement in zip(recordings, agreements, strict=True) if agreement == best]
