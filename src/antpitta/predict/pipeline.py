"""An archive on one machine: every sound file once, from the disk to its row in the tables.

The path of a file, in the order in which it is read:

1. ``files/recordings.py`` lists the files and opens one: its header, site and time.
2. ``predict/pipeline.py`` (here) hands its segments to threads and collects their scores.
3. ``predict/predictor.py`` computes a segment by all models and merges segments and models.
4. ``files/audio.py`` decodes the segment, mono and at the sample rate of the features; or
   ``files/spectrograms.py`` reads it from a spectrogram that another program computed.
5. ``model/features.py`` turns sound into features, ...
6. ``sound/mel.py`` ... which are log-mel spectrograms unless an embedding model computes them.
7. ``model/inference.py`` runs the networks of all folds on the features.
8. ``scores/events.py`` finds events in the framewise scores.
9. ``predict/journal.py`` stores presence and events of the file.
10. ``predict/tables.py`` writes the file's row in presence.csv, and its events in events.csv.

On its way a file is wrapped four times: ``ListedFile`` (found in a folder), ``Segment`` (what one
thread computes), ``FileResult`` (opened, then scored), ``JournalEntry`` (stored).

- One thread computes one segment at a time, from decoding to scores. While one thread waits for
  the disk, another computes.
- Segments start a little ahead of the file that is returned next, and files are returned in their
  order. So the results do not depend on the number of threads.
- A file that cannot be read is stored with the reason, and the run continues.
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
from antpitta.files.audio import UnreadableAudio, file_errors
from antpitta.files.audio_gaps import displacement_notes, truncation_notes
from antpitta.files.recordings import ListedFile, open_file
from antpitta.files.remote import Location, RemotePath
from antpitta.files.texts import utf8_text
from antpitta.model.embedding import NoEmbeddingError
from antpitta.predict.journal import GONE, EventRow, Journal, JournalEntry, Stamp
from antpitta.predict.predictor import FoldScores, Predictor, Segment
from antpitta.predict.reading import TolerantReader
from antpitta.scores.events import find_events

Item = TypeVar("Item")
Result = TypeVar("Result")

QUEUED_SEGMENTS = 3  # per thread
FILE_ERRORS = (UnreadableAudio, NoEmbeddingError)  # of one file; others end the run
END_NOTES = ("is cut short", "does not decode")  # only the first such note of a file is kept
MIN_EVENT, MAX_GAP = 0.3, 0.6  # seconds: the shortest event, the longest pause inside one


@dataclass
class FileResult:
    """One file: opened, then computed segment by segment, then complete.

    Parameters
    ----------
    file : as listed
    recording : None if the file cannot be opened
    segments : of the recording; each thread fills the same index of the three lists below
    segment_scores, segment_notes, segment_errors : of each segment; "" for no error
    notes : what is wrong with a file that can be read in part
    presence : (classes,), None if the file could not be read
    scores : framewise, None if the file could not be read
    reason : why there are no scores, or only scores of a part; "" if nothing is wrong
    """

    file: ListedFile
    recording: Recording | None = None
    segments: tuple[Segment, ...] = ()
    segment_scores: list[list[FoldScores]] = field(default_factory=list)
    segment_notes: list[list[str]] = field(default_factory=list)
    segment_errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    presence: NDArray[np.float32] | None = None
    scores: Scores | None = None
    reason: str = ""


def cpu_count() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def predict_files(predictor: Predictor, files: Iterable[ListedFile]) -> Iterator[FileResult]:
    """Compute the scores of files, several segments at a time.

    Parameters
    ----------
    predictor : its ``inference.workers`` is the number of threads
    files : read lazily, a little ahead

    Yields
    ------
    The files in their order. Files that cannot be read have no scores, but a reason.
    """
    threads = thread_count(predictor)
    with predictor.session(), ThreadPoolExecutor(threads) as pool:
        try:
            opened = _map_ahead(pool, partial(_open, predictor), files, threads + 1)
            tasks = ((result, i) for _, result in opened for i in range(len(result.segments) or 1))
            work = partial(_predict_segment, predictor)
            queued = QUEUED_SEGMENTS * threads
            for (result, i), _ in _map_ahead(pool, work, tasks, queued):
                if i + 1 >= len(result.segments):
                    yield _complete(predictor, result)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def thread_count(predictor: Predictor) -> int:
    """The number of threads for a predictor's ``inference.workers``.

    Where networks compute in threads of their own and use all cores, one more thread reads files
    and computes features while the others wait for the networks.

    Parameters
    ----------
    predictor : loaded

    Returns
    -------
    ``workers``, or one more.
    """
    workers = predictor.inference.workers
    own_threads = all(model.backend.uses_own_threads for model in predictor.models)
    return workers + (own_threads and workers >= cpu_count())


def _open(predictor: Predictor, file: ListedFile) -> FileResult:
    try:
        recording = open_file(file)
        with file_errors(recording.path, OSError):
            segments = tuple(predictor.segments(recording))
            notes = [*displacement_notes(recording), *truncation_notes(recording)]
    except FILE_ERRORS as error:
        return FileResult(file, reason=str(error))
    result = FileResult(file, recording, segments, notes=notes)
    result.segment_scores = [[] for _ in segments]
    result.segment_notes = [[] for _ in segments]
    result.segment_errors = ["" for _ in segments]
    return result


def _predict_segment(predictor: Predictor, task: tuple[FileResult, int]) -> None:
    """Fill in one segment, unless an earlier one has failed: the first failure is reported."""
    result, i = task
    if result.recording is None or any(result.segment_errors[:i]):
        return
    try:
        read_segment = TolerantReader(result.segment_notes[i])
        with file_errors(result.recording.path, OSError):
            result.segment_scores[i] = predictor.predict(
                result.recording, result.segments[i], read_segment
            )
    except FILE_ERRORS as error:
        result.segment_errors[i] = str(error)


def _complete(predictor: Predictor, result: FileResult) -> FileResult:
    """Merge the segments of a file and release their scores."""
    if result.recording is None:
        return result
    if errors := [error for error in result.segment_errors if error]:
        return FileResult(result.file, result.recording, reason=errors[0])
    presence, scores = predictor.merge(result.recording, result.segments, result.segment_scores)
    notes = "; ".join(_distinct_notes(result))
    reason = f"{result.file.path}: {notes}; scored as far as it can be read" if notes else ""
    return FileResult(
        result.file, result.recording, presence=presence, scores=scores, reason=reason
    )


def _distinct_notes(result: FileResult) -> list[str]:
    notes = list(result.notes)
    for note in (note for segment in result.segment_notes for note in segment):
        repeated_end = note.startswith(END_NOTES) and any(n.startswith(END_NOTES) for n in notes)
        if not repeated_end and note not in notes:
            notes.append(note)
    return notes


def _map_ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[Item], Result],
    items: Iterable[Item],
    depth: int,
) -> Iterator[tuple[Item, Result]]:
    """Each item with the result of ``work``, in order; at most ``depth`` are in progress."""
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(work, item)))
        if len(waiting) >= depth:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def predict_archive(
    predictor: Predictor,
    files: Iterable[ListedFile],
    journal: Journal,
    count: Callable[[int, float], None],
) -> None:
    """Compute every file that the journal does not have, and store each as soon as it is done.

    Parameters
    ----------
    predictor : its digest belongs to the journal's key
    files : the archive
    journal : open
    count : called with (files done, seconds of sound in them) since the last call
    """
    stamps: dict[Location, Stamp] = {}

    def missing() -> Iterator[ListedFile]:
        for file in files:
            # Taken before the file is read: the next run notices a later change.
            stamp = file_stamp(file.source)
            if journal.has(file.path, stamp):
                count(1, 0.0)
            else:
                stamps[file.path] = stamp
                yield file

    for result in predict_files(predictor, missing()):
        entry = journal_entry(predictor, result, stamps.pop(result.file.path))
        journal.add(entry)
        count(1, entry.duration)


def file_stamp(path: Location) -> Stamp:
    """What a version of a file is recognised by.

    Parameters
    ----------
    path : of a file, or of an object in a store

    Returns
    -------
    Size in bytes and time of the last change in nanoseconds; :data:`GONE` if it does not exist.
    """
    if isinstance(path, RemotePath):
        return path.stamp  # known from the listing
    try:
        status = path.stat()
    except OSError:
        return GONE
    return status.st_size, status.st_mtime_ns % (1 << 63)  # SQLite holds no more: the year 2262


def journal_entry(predictor: Predictor, result: FileResult, stamp: Stamp) -> JournalEntry:
    """What the journal stores of a file: presence and events, no framewise scores.

    Parameters
    ----------
    predictor : gives thresholds and bands
    result : complete
    stamp : of the file before it was read

    Returns
    -------
    The entry.
    """
    path, recording = result.file.path, result.recording
    if recording is None or result.scores is None:
        not_fetched = recording is None and isinstance(path, RemotePath)
        return JournalEntry(path, GONE if not_fetched else stamp, failure_reason(result))
    recorded_at = None if recording.recorded_at is None else recording.recorded_at.isoformat()
    return JournalEntry(
        *(path, stamp, failure_reason(result), recording.duration, recording.site, recorded_at),
        presence=result.presence,
        events=tuple(_event_row(recording, event) for event in _events(predictor, result.scores)),
    )


def failure_reason(result: FileResult) -> str:
    """The reason under the name that the user gave the file; a fetched copy has another name.

    Parameters
    ----------
    result : complete

    Returns
    -------
    ``result.reason`` with the path of ``result.file``.
    """
    if result.recording is None:
        return utf8_text(result.reason)
    reason = result.reason.replace(str(result.recording.path), str(result.file.path))
    return utf8_text(reason)


def _events(predictor: Predictor, scores: Scores) -> list[Event]:
    detection = predictor.detection
    return find_events(
        scores,
        detection.thresholds,
        bands=predictor.bundle.bands,
        min_duration=MIN_EVENT,
        max_gap=MAX_GAP,
        top=detection.top,
    )


def _event_row(recording: Recording, event: Event) -> EventRow:
    high = min(event.high, recording.sample_rate / 2)
    stop = min(event.stop, recording.duration)
    box = (round(event.start, 3), round(stop, 3), round(event.low, 1), round(high, 1))
    return (*box, event.label, round(event.score, 6), event.source)
