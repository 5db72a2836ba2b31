"""An archive on one machine: every recording heard once, and none lost without a word.

What is heard goes into the journal, recording by recording, and the tables are written from there
(archive/tables.py). A file that cannot be read is kept with its reason, and the rest goes on.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from antpitta.archive.choir import Choir
from antpitta.archive.journal import GONE, Entry, EventRow, Journal
from antpitta.core.types import Event, Recording, Scores
from antpitta.files.audio import TAIL, UnreadableAudio, read
from antpitta.files.recordings import Listed, open_file
from antpitta.files.remote import Place, RemotePath
from antpitta.files.riff import read_riff
from antpitta.net.drawing import Read
from antpitta.net.embedding import NoVector
from antpitta.scores.events import find_events

LEAST, GAP = 0.3, 0.6  # seconds: the shortest event, the longest pause inside one
Tick = Callable[[int, float], None]  # files done, and seconds of sound in them


@dataclass(frozen=True)
class Listened:
    """One file: heard or not, and what is wrong with it."""

    file: Listed
    recording: Recording | None = None
    presence: NDArray[np.float32] | None = None  # (classes,)
    scores: Scores | None = None
    reason: str = ""


def listen_to(choir: Choir, files: Iterable[Listed]) -> Iterator[Listened]:
    """Hear each file in turn; what cannot be read comes back with its reason."""
    for file in files:
        recording = None
        try:
            recording = open_file(file)
            notes = _cut_short(recording)
            presence, scores = choir.listen(recording, partial(_reader, notes))
            reason = f"{file.path}: {'; '.join(notes)}; heard as far as it goes" if notes else ""
            yield Listened(file, recording, presence, scores, reason)
        except (UnreadableAudio, OSError, NoVector) as trouble:
            yield Listened(file, recording, reason=str(trouble))


def hear_archive(choir: Choir, files: Iterable[Listed], journal: Journal, tick: Tick) -> None:
    """Hear all that the journal does not have, and keep each recording there at once."""
    for file in files:
        stamp = stamp_of(file.path)  # before it is read: a later change is heard the next time
        if journal.has(file.path, stamp):
            tick(1, 0.0)
            continue
        for one in listen_to(choir, [file]):
            entry = entry_of(choir, one, stamp)
            journal.keep(entry)
            tick(1, entry.seconds)


def stamp_of(path: Place) -> tuple[int, int]:
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


def _cut_short(recording: Recording) -> list[str]:
    """What a WAV's header promises and the file does not hold: the decoder does not tell."""
    gone = read_riff(recording.path).gone(recording.duration)
    return [f"is cut short: {gone:.1f} s are gone from its end"] if gone > TAIL else []


def _reader(notes: list[str], sample_rate: int) -> Read:
    """Reads on behind a break as silence, so that what came before it is not lost."""

    def reading(recording: Recording, start: float, stop: float) -> NDArray[np.float32]:
        told: list[str] = []
        try:
            sound = read(recording, start, stop, sample_rate, told)
        except UnreadableAudio:
            if not start:  # nothing of it was heard
                raise
            told.append(f"does not decode from {start:.2f} s on")
            sound = np.zeros(0, dtype=np.float32)
        if not any(one.startswith(("is cut short", "does not decode")) for one in notes):
            notes.extend(one for one in told if one not in notes)
        return sound

    return reading
