"""Files heard one after the other, by about as many threads as there are cores.

A thread hears one piece of a recording at a time, from the disk to the scores: while one waits
for the disk or decodes, another computes. Pieces are begun a little ahead of the file that is
told next, and told in the order of the files, so what comes out does not depend on the threads.

An archive on one machine: every recording heard once, and none lost without a word.

What is heard goes into the journal, recording by recording, and the tables are written from there
(predict/tables.py). A file that cannot be read is kept with its reason, and the rest goes on.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from antpitta.core.types import Event, Recording, Scores
from antpitta.files.audio import TAIL, UnreadableAudio, read
from antpitta.files.recordings import ListedFile, open_file
from antpitta.files.remote import Location, RemotePath
from antpitta.files.wav_chunks import read_wav_chunks
from antpitta.model.embedding import NoEmbeddingError
from antpitta.model.features import ReadAudio
from antpitta.predict.journal import GONE, EventRow, Journal, JournalEntry
from antpitta.predict.predictor import Parts, Predictor, Segment
from antpitta.scores.events import find_events

Given = TypeVar("Given")
Found = TypeVar("Found")

AHEAD = 3  # pieces under way, for each thread
BROKEN = (UnreadableAudio, OSError, NoEmbeddingError)
ENDS = ("is cut short", "does not decode")  # notes of which the first of a file is enough


@dataclass(frozen=True)
class FileResult:
    """One file: heard or not, and what is wrong with it."""

    file: ListedFile
    recording: Recording | None = None
    presence: NDArray[np.float32] | None = None  # (classes,)
    scores: Scores | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Opened:
    """A file whose header was read, and what its pieces gave so far."""

    file: ListedFile
    recording: Recording | None = None
    pieces: tuple[Segment, ...] = ()
    notes: list[str] = field(default_factory=list)
    found: list[list[Parts]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Task:
    opened: _Opened
    piece: Segment | None  # None: the file cannot be opened
    last: bool = True


@dataclass(frozen=True)
class _Outcome:
    parts: list[Parts] | None = None
    notes: tuple[str, ...] = ()
    trouble: str = ""


def cpu_count() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def predict_files(choir: Predictor, files: Iterable[ListedFile]) -> Iterator[FileResult]:
    """Hear each file, in their order; what cannot be read comes back with its reason."""
    threads = threads_for(choir)
    with choir.listening(), ThreadPoolExecutor(threads) as pool:
        try:
            opened_ahead = _ahead(pool, partial(_open, choir), files, threads + 1)
            tasks = (task for _, opened in opened_ahead for task in _tasks(opened))
            for task, outcome in _ahead(pool, partial(_hear, choir), tasks, AHEAD * threads):
                _note(task.opened, outcome)
                if task.last:
                    yield _told(choir, task.opened)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def threads_for(choir: Predictor) -> int:
    """As many as were asked for; and one more where all cores are at work for networks that compute
    in threads of their own: who waits for them leaves a core to who still reads or draws.
    """
    workers = choir.hearing.workers
    aside = all(one.engine.uses_own_threads for one in choir.listeners)
    return workers + (aside and workers >= cpu_count())


def _open(choir: Predictor, file: ListedFile) -> _Opened:
    try:
        recording = open_file(file)
        return _Opened(file, recording, tuple(choir.pieces(recording)), _cut_short(recording))
    except BROKEN as trouble:
        return _Opened(file, troubles=[str(trouble)])


def _tasks(opened: _Opened) -> Iterator[_Task]:
    for piece in opened.pieces:
        yield _Task(opened, piece, piece is opened.pieces[-1])
    if not opened.pieces:
        yield _Task(opened, None)


def _hear(choir: Predictor, task: _Task) -> _Outcome:
    opened, notes = task.opened, list[str]()
    if task.piece is None or opened.recording is None or opened.troubles:
        return _Outcome()
    try:
        parts = choir.hear(opened.recording, task.piece, _reader(notes))
        return _Outcome(parts, tuple(notes))
    except BROKEN as trouble:
        return _Outcome(trouble=str(trouble))


def _note(opened: _Opened, outcome: _Outcome) -> None:
    if outcome.trouble:
        opened.troubles.append(outcome.trouble)
    if outcome.parts is not None:
        opened.found.append(outcome.parts)
    for note in outcome.notes:
        ended = note.startswith(ENDS) and any(one.startswith(ENDS) for one in opened.notes)
        if not ended and note not in opened.notes:
            opened.notes.append(note)


def _told(choir: Predictor, opened: _Opened) -> FileResult:
    if opened.recording is None or opened.troubles:
        return FileResult(opened.file, opened.recording, reason=opened.troubles[0])
    presence, scores = choir.gather(opened.recording, opened.pieces, opened.found)
    notes = "; ".join(opened.notes)
    reason = f"{opened.file.path}: {notes}; heard as far as it goes" if notes else ""
    return FileResult(opened.file, opened.recording, presence, scores, reason)


def _ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[Given], Found],
    items: Iterable[Given],
    depth: int,
) -> Iterator[tuple[Given, Found]]:
    """Each item with what ``work`` gives of it, in order; at most ``depth`` are under way."""
    waiting: deque[tuple[Given, Future[Found]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(work, item)))
        if len(waiting) >= depth:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def _cut_short(recording: Recording) -> list[str]:
    """What a WAV's header promises and the file does not hold: the decoder does not tell."""
    gone = read_wav_chunks(recording.path).missing_seconds(recording.duration)
    return [f"is cut short: {gone:.1f} s are gone from its end"] if gone > TAIL else []


def _reader(notes: list[str]) -> ReadAudio:
    """Reads on behind a break as silence, so that what came before it is not lost."""

    def reading(
        recording: Recording, start: float, stop: float, sample_rate: int
    ) -> NDArray[np.float32]:
        try:
            return read(recording, start, stop, sample_rate, notes)
        except UnreadableAudio:
            if not start:  # nothing of it was heard
                raise
            notes.append(f"does not decode from {start:.2f} s on")
            return np.zeros(0, dtype=np.float32)

    return reading


LEAST, GAP = 0.3, 0.6  # seconds: the shortest event, the longest pause inside one
Tick = Callable[[int, float], None]  # files done, and seconds of sound in them


def predict_archive(
    choir: Predictor, files: Iterable[ListedFile], journal: Journal, tick: Tick
) -> None:
    """Hear all that the journal does not have, and keep each recording there at once."""
    stamps: dict[Location, tuple[int, int]] = {}

    def missing() -> Iterator[ListedFile]:
        for file in files:
            stamp = file_stamp(
                file.path
            )  # before it is read: a later change is heard the next time
            if journal.has(file.path, stamp):
                tick(1, 0.0)
            else:
                stamps[file.path] = stamp
                yield file

    for one in predict_files(choir, missing()):
        entry = journal_entry(choir, one, stamps.pop(one.file.path))
        journal.keep(entry)
        tick(1, entry.seconds)


def file_stamp(path: Location) -> tuple[int, int]:
    """By what a file is known to be the same: its size, and when it was last changed."""
    if isinstance(path, RemotePath):
        return path.stamp  # the listing told
    try:
        told = path.stat()
    except OSError:
        return GONE
    return told.st_size, told.st_mtime_ns


def journal_entry(choir: Predictor, one: FileResult, stamp: tuple[int, int]) -> JournalEntry:
    """What the journal keeps of it."""
    if one.recording is None or one.scores is None:
        never_came = one.recording is None and isinstance(one.file.path, RemotePath)
        return JournalEntry(one.file.path, GONE if never_came else stamp, failure_reason(one))
    recording, began = one.recording, one.recording.recorded_at
    events = tuple(_event_row(recording, event) for event in _events(choir, one.scores))
    when = None if began is None else began.isoformat()
    return JournalEntry(
        *(one.file.path, stamp, failure_reason(one), recording.duration, recording.site, when),
        *(one.presence, events),
    )


def failure_reason(one: FileResult) -> str:
    """What is wrong with it, under the name that it was asked for by: a copy has another."""
    if one.recording is None:
        return one.reason
    return one.reason.replace(str(one.recording.path), str(one.file.path))


def _events(choir: Predictor, scores: Scores) -> list[Event]:
    bundle = choir.bundle
    thresholds = {name: bundle.thresholds.get(name, 0.5) for name in bundle.species}
    return find_events(scores, thresholds, bands=bundle.bands, least=LEAST, gap=GAP, smooth=1)


def _event_row(recording: Recording, event: Event) -> EventRow:
    top = min(event.high, recording.sample_rate / 2)
    stop = min(event.stop, recording.duration)
    span = (round(event.start, 3), round(stop, 3), round(event.low, 1), round(top, 1))
    return (*span, event.label, round(event.score, 6), event.source)
