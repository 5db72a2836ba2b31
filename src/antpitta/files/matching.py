"""Which recording does a name in a table mean? Tables write ids, file names, and old paths.

A name is an id, else a file's stem, else a file's name. Of several files of one name the one
whose folders agree furthest from the right is taken, then the one that lies nearest to the table.
If that leaves several, the match is ambiguous: a guess could put labels on the wrong sound.
Suffixes may differ (tables outlive a conversion to FLAC), and so may the case of letters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from antpitta.core.types import Recording
from antpitta.files.audio import SUFFIXES


@dataclass(frozen=True)
class AmbiguousMatch:
    """A name that fits several recordings, or a recording that several names fit."""

    reason: str


class RecordingMatcher:
    """Finds recordings by the names that tables write.

    Parameters
    ----------
    recordings : those to choose from
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._by_id = {recording.id: recording for recording in recordings}
        self._by_name: dict[str, list[Recording]] = {}
        for recording in recordings:
            path = recording.path
            for name in dict.fromkeys((path.name, path.stem)):
                for key in dict.fromkeys((name, name.casefold())):
                    self._by_name.setdefault(key, []).append(recording)

    def find(self, name: str, table: Path | None = None) -> Recording | AmbiguousMatch | None:
        """The recording that a name means.

        Parameters
        ----------
        name : as the table writes it
        table : where the name was read

        Returns
        -------
        match : None where no recording fits
        """
        if name in self._by_id:
            return self._by_id[name]
        parts = _path_parts(name)
        if not parts:
            return None
        matches = next(filter(None, map(self._by_name.get, _possible_names(parts[-1]))), [])
        if len(matches) > 1:
            matches = _best(matches, [_count_common_folders(parts, r) for r in matches])
        if len(matches) > 1 and table is not None:
            matches = _best(matches, [_count_common_roots(table, r.path) for r in matches])
        if len(matches) > 1:
            ids = ", ".join(recording.id for recording in matches[:3])
            return AmbiguousMatch(f"{len(matches)} recordings are called {name!r} ({ids})")
        return matches[0] if matches else None

    def find_all(
        self, names: Iterable[str], table: Path
    ) -> dict[str, Recording | AmbiguousMatch | None]:
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
        matches = {name: self.find(name, table) for name in dict.fromkeys(names)}
        names_of: dict[str, list[str]] = {}
        for name, match in matches.items():
            if isinstance(match, Recording) and len(_path_parts(name)) > 1 and name != match.id:
                names_of.setdefault(match.id, []).append(name)
        for rivals in names_of.values():
            if len({_path_parts(name)[:-1] for name in rivals}) > 1:
                _resolve_rivals(rivals, matches)
        return matches


def _resolve_rivals(
    rivals: Sequence[str], matches: dict[str, Recording | AmbiguousMatch | None]
) -> None:
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
    return PurePosixPath(name.strip().replace("\\", "/")).parts


def _possible_names(last: str) -> tuple[str, ...]:
    """What a file may be called, the likeliest first."""
    path = PurePosixPath(last)
    stem = path.stem if path.suffix.lower() in SUFFIXES else last
    return (last, last.casefold(), stem, stem.casefold())


def _count_common_folders(parts: Sequence[str], recording: Recording) -> int:
    """How many folders agree, from the file's upwards."""
    count = 0
    for ours, theirs in zip(recording.path.parts[-2::-1], parts[-2::-1], strict=False):
        if ours.casefold() != theirs.casefold():
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
