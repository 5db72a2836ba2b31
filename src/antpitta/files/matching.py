"""Which recording does a table mean? It writes an id, a file's name, or a path of years ago.

A name is an id, else a file's stem, else a file's name; of several files of one name the one
whose folders agree furthest from the right, then the one that lies nearest to the table. What is
still open is ambiguous: a guess would put labels on the wrong sound. Suffixes may differ (tables
outlive a conversion to FLAC), and so may the case of letters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from antpitta.core.types import Recording
from antpitta.files.audio import SUFFIXES


@dataclass(frozen=True)
class AmbiguousMatch:
    """A name that several recordings answer to, or that answers for several."""

    why: str


class RecordingMatcher:
    """Finds recordings by whatever a table calls them."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._by_id = {recording.id: recording for recording in recordings}
        self._by_name: dict[str, list[Recording]] = {}
        for recording in recordings:
            path = recording.path
            for name in dict.fromkeys((path.name, path.stem)):
                for key in dict.fromkeys((name, name.casefold())):
                    self._by_name.setdefault(key, []).append(recording)

    def find(self, name: str, table: Path | None = None) -> Recording | AmbiguousMatch | None:
        """The recording that ``name`` means; ``table`` is where the name was read."""
        if name in self._by_id:
            return self._by_id[name]
        parts = _parts(name)
        if not parts:
            return None
        found = next(filter(None, map(self._by_name.get, _keys(parts[-1]))), [])
        if len(found) > 1:
            found = _best(found, [_agreement(parts, one) for one in found])
        if len(found) > 1 and table is not None:
            found = _best(found, [_nearness(table, one.path) for one in found])
        if len(found) > 1:
            also = ", ".join(one.id for one in found[:3])
            return AmbiguousMatch(f"{len(found)} recordings are called {name!r} ({also})")
        return found[0] if found else None

    def find_all(
        self, names: Iterable[str], table: Path
    ) -> dict[str, Recording | AmbiguousMatch | None]:
        """The recording of each name of one table.

        Where a table names files of two folders and the folder of only one is here (or of
        neither), the other's rows must not fall upon it for having the same file name:
        AudioMoths at different sites write the same names.
        """
        found = {name: self.find(name, table) for name in dict.fromkeys(names)}
        claims: dict[str, list[str]] = {}
        for name, recording in found.items():
            if isinstance(recording, Recording) and len(_parts(name)) > 1 and name != recording.id:
                claims.setdefault(recording.id, []).append(name)
        for rivals in claims.values():
            if len({tuple(_parts(name)[:-1]) for name in rivals}) < 2:
                continue
            recording = found[rivals[0]]
            assert isinstance(recording, Recording)
            agreeing = [_agreement(_parts(name), recording) for name in rivals]
            best = max(agreeing)
            for name, agreement in zip(rivals, agreeing, strict=True):
                if agreement < best:
                    found[name] = None
                elif agreeing.count(best) > 1:
                    why = f"{agreeing.count(best)} different files of the table fit {recording.id}"
                    found[name] = AmbiguousMatch(why)
        return found


def _parts(name: str) -> tuple[str, ...]:
    """A path's parts, whichever system wrote it."""
    return PurePosixPath(name.strip().replace("\\", "/")).parts


def _keys(last: str) -> tuple[str, ...]:
    """What a file may be called, the likeliest first."""
    path = PurePosixPath(last)
    bare = path.stem if path.suffix.lower() in SUFFIXES else last
    return (last, last.casefold(), bare, bare.casefold())


def _agreement(parts: Sequence[str], recording: Recording) -> int:
    """How many folders agree, from the file's upwards."""
    count = 0
    for ours, theirs in zip(recording.path.parts[-2::-1], parts[-2::-1], strict=False):
        if ours.casefold() != theirs.casefold():
            break
        count += 1
    return count


def _nearness(table: Path, path: Path) -> int:
    """How many folders two files share, from the root."""
    ours, theirs = table.absolute().parts[:-1], path.absolute().parts[:-1]
    if table.is_dir():
        ours = table.absolute().parts
    return next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )


def _best(found: list[Recording], worth: list[int]) -> list[Recording]:
    return [one for one, value in zip(found, worth, strict=True) if value == max(worth)]
