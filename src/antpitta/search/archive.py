"""Template matching over whole archives: every sound file once, from the disk to its matches.

- A file is divided into segments as a model divides it. Each is read on for the length of the
  longest template, so that a call across a border is matched as a whole. Its spectrogram is the
  picture that a model sees.
- One thread computes one file at a time and holds one segment of it, so that memory does not grow
  with the archive. Files are returned in their order.
- A file that cannot be read is returned with the reason, and the search continues.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.core.features import MelConfig
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Event, Recording
from antpitta.files.audio import UnreadableAudio, file_errors, read_or_silence
from antpitta.files.audio_gaps import displacement_notes
from antpitta.files.recordings import ListedFile, open_file
from antpitta.model.features import FeatureExtractor, ReadAudio
from antpitta.search.matching import Peaks, Template, TemplateMatcher
from antpitta.search.templates import frame_grid


@dataclass(frozen=True)
class FileMatches:
    """What was found in one file.

    Parameters
    ----------
    file : as listed
    recording : None if the file cannot be opened
    best : (species,), the highest correlation, 0 where none is above it
    events : the matches, from the first on
    reason : why there are none, or only those of a part; "" if nothing is wrong
    """

    file: ListedFile
    recording: Recording | None
    best: NDArray[np.float32]
    events: tuple[Event, ...]
    reason: str = ""


@dataclass(frozen=True)
class ArchiveMatcher:
    """Finds templates in files; threads may share one object.

    Parameters
    ----------
    matcher : of the templates
    extractor : of the spectrograms that the templates were cut from
    threshold : the lowest correlation of a match
    most : matches of a recording and species
    """

    matcher: TemplateMatcher
    extractor: FeatureExtractor
    threshold: float
    most: int

    def find_all(self, files: Iterable[ListedFile], workers: int) -> Iterator[FileMatches]:
        """Find the templates in files, several files at a time.

        Parameters
        ----------
        files : read lazily, a little ahead
        workers : threads

        Yields
        ------
        The files in their order.
        """
        waiting: deque[Future[FileMatches]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for file in files:
                    waiting.append(pool.submit(self.find, file))
                    if len(waiting) > 2 * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def find(self, file: ListedFile) -> FileMatches:
        """Find the templates in one file.

        Parameters
        ----------
        file : as listed

        Returns
        -------
        FileMatches
            With a reason where the file or a part of it cannot be read.
        """
        nothing = np.zeros(len(self.matcher.species), dtype=np.float32)
        try:
            recording = open_file(file)
            with file_errors(recording.path, OSError):
                notes = displacement_notes(recording)
                best, events = self._find_in(recording, _tolerant_reader(notes))
        except UnreadableAudio as error:
            return FileMatches(file, None, nothing, (), str(error))
        text = "; ".join(dict.fromkeys(notes))
        reason = f"{recording.path}: {text}; searched as far as it can be read" if text else ""
        return FileMatches(file, recording, best, events, reason)

    def _find_in(
        self, recording: Recording, read: ReadAudio
    ) -> tuple[NDArray[np.float32], tuple[Event, ...]]:
        config, matcher = self.extractor.config, self.matcher
        assert isinstance(config, MelConfig)
        hop = config.hop_length / config.sample_rate
        best = np.zeros(len(matcher.species), dtype=np.float32)
        parts: list[Peaks] = []
        for start, end in config.segments(recording.duration):
            stop = min(end + matcher.longest * hop, recording.duration)
            pixels = self.extractor.extract_segment(recording, start, stop, read)
            # At each border one of a species may be a part of the neighbour's.
            peaks, highest = matcher.find(pixels, self.threshold, self.most + 2)
            parts.append(peaks.shift(round(start / hop)))
            np.maximum(best, highest, out=best)
        grid = frame_grid(config, 0.0, round(recording.duration / hop) + 1)
        rows = matcher.keep_best(parts, self.most).rows()
        events = [
            _event(recording, matcher.templates[i], grid, frame, score) for i, frame, score in rows
        ]
        return best, tuple(sorted(events, key=lambda event: (event.start, event.label)))


def _event(
    recording: Recording, template: Template, grid: TimeGrid, frame: int, score: float
) -> Event:
    """A match as a detection."""
    start = max(0.0, grid.seconds(frame))
    stop = min(grid.seconds(frame + len(template.pixels)), recording.duration)
    band = (template.box.low, min(template.box.high, recording.sample_rate / 2))
    return Event(recording.id, start, stop, template.box.label, score, template.name, *band)


def _tolerant_reader(notes: list[str]) -> ReadAudio:
    """A reader that gives silence for what does not decode, and notes it."""

    def read(recording: Recording, start: float, stop: float, rate: int) -> NDArray[np.float32]:
        return read_or_silence(recording, start, stop, rate, notes)

    return read
