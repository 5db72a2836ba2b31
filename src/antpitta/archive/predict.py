"""An archive on one machine: every recording heard once, and none lost without a word.

What is heard goes into the journal, recording by recording, and the tables are written from there
(archive/tables.py). A file that cannot be read is kept with its reason, and the rest goes on.
"""

from collections.abc import Callable, Iterable, Iterator

from antpitta.archive.choir import Choir
from antpitta.archive.journal import GONE, Entry, EventRow, Journal
from antpitta.archive.listening import Listened, listen_to
from antpitta.core.types import Event, Recording, Scores
from antpitta.files.recordings import Listed
from antpitta.files.remote import Location, RemotePath
from antpitta.scores.events import find_events

LEAST, GAP = 0.3, 0.6  # seconds: the shortest event, the longest pause inside one
Tick = Callable[[int, float], None]  # files done, and seconds of sound in them


def hear_archive(choir: Choir, files: Iterable[Listed], journal: Journal, tick: Tick) -> None:
    """Hear all that the journal does not have, and keep each recording there at once."""
    stamps: dict[Location, tuple[int, int]] = {}

    def missing() -> Iterator[Listed]:
        for file in files:
            stamp = stamp_of(file.path)  # before it is read: a later change is heard the next time
            if journal.has(file.path, stamp):
                tick(1, 0.0)
            else:
                stamps[file.path] = stamp
                yield file

    for one in listen_to(choir, missing()):
        entry = entry_of(choir, one, stamps.pop(one.file.path))
        journal.keep(entry)
        tick(1, entry.seconds)


def stamp_of(path: Location) -> tuple[int, int]:
    """By what a file is known to be the same: its size, and when it was last changed."""
    if isinstance(path, RemotePath):
        return path.stamp  # the listing told
    try:
        told = path.stat()
    except OSError:
        return GONE
    return told.st_size, told.st_mtime_ns


def entry_of(choir: Choir, one: Listened, stamp: tuple[int, int]) -> Entry:
    """What the journal keeps of it."""
    if one.recording is None or one.scores is None:
        never_came = one.recording is None and isinstance(one.file.path, RemotePath)
        return Entry(one.file.path, GONE if never_came else stamp, reason_of(one))
    recording, began = one.recording, one.recording.began
    events = tuple(_event_row(recording, event) for event in _events(choir, one.scores))
    when = None if began is None else began.isoformat()
    return Entry(
        *(one.file.path, stamp, reason_of(one), recording.duration, recording.site, when),
        *(one.presence, events),
    )


def reason_of(one: Listened) -> str:
    """What is wrong with it, under the name that it was asked for by: a copy has another."""
    if one.recording is None:
        return one.reason
    return one.reason.replace(str(one.recording.path), str(one.file.path))


def _events(choir: Choir, scores: Scores) -> list[Event]:
    bundle = choir.bundle
    thresholds = {name: bundle.thresholds.get(name, 0.5) for name in bundle.species}
    return find_events(scores, thresholds, bands=bundle.bands, least=LEAST, gap=GAP, smooth=1)


def _event_row(recording: Recording, event: Event) -> EventRow:
    top = min(event.high, recording.sample_rate / 2)
    stop = min(event.stop, recording.duration)
    span = (round(event.start, 3), round(stop, 3), round(event.low, 1), round(top, 1))
    return (*span, event.label, round(event.score, 6), event.source)
