"""An archive on one machine: every recording heard once, and none lost without a word.

What is heard goes into the journal, recording by recording, and the tables are written from there
(archive/tables.py). A file that cannot be read is kept with its reason, and the rest goes on.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from antpitta.archive.choir import Choir
from antpitta.archive.journal import GONE, Entry, EventRow, Journal
from antpitta.archive.listening import Listened, listen_to
from antpitta.core.types import Event, Recording, Scores
from antpitta.files.recordings import Listed
from antpitta.scores.events import find_events

LEAST, GAP = 0.3, 0.6  # seconds: the shortest event, the longest pause inside one
Tick = Callable[[int, float], None]  # files done, and seconds of sound in them


def hear_archive(choir: Choir, files: Iterable[Listed], journal: Journal, tick: Tick) -> None:
    """Hear all that the journal does not have, and keep each recording there at once."""
    stamps: dict[Path, tuple[int, int]] = {}

    def missing() -> Iterator[Listed]:
        for file in files:
            stamp = stamp_of(file.path)  # before it is read: a later change is heard the next time
            if journal.has(file.path, stamp):
                tick(1, 0.0)
            else:
                stamps[file.path] = stamp
                yield file

    for one in listen_to(choir, missing()):
        entry = _entry(choir, one, stamps.pop(one.file.path))
        journal.keep(entry)
        tick(1, entry.seconds)


def stamp_of(path: Path) -> tuple[int, int]:
    """By what a file is known to be the same: its size, and when it was last changed."""
    try:
        told = path.stat()
    except OSError:
        return GONE
    return told.st_size, told.st_mtime_ns


def _entry(choir: Choir, one: Listened, stamp: tuple[int, int]) -> Entry:
    if one.recording is None or one.scores is None:
        return Entry(one.file.path, stamp, one.reason)
    recording, began = one.recording, one.recording.began
    events = tuple(_event_row(recording, event) for event in _events(choir, one.scores))
    when = None if began is None else began.isoformat()
    return Entry(
        *(one.file.path, stamp, one.reason, recording.duration, recording.site, when),
        *(one.presence, events),
    )


def _events(choir: Choir, scores: Scores) -> list[Event]:
    bundle = choir.bundle
    thresholds = {name: bundle.thresholds.get(name, 0.5) for name in bundle.species}
    return find_events(scores, thresholds, bands=bundle.bands, least=LEAST, gap=GAP, smooth=1)


def _event_row(recording: Recording, event: Event) -> EventRow:
    top = min(event.high, recording.sample_rate / 2)
    stop = min(event.stop, recording.duration)
    span = (round(event.start, 3), round(stop, 3), round(event.low, 1), round(top, 1))
    return (*span, event.label, round(event.score, 6), event.source)
