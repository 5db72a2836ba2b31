"""Examples searched in whole archives: every sound file once, from the disk to its matches.

- A file is divided into segments as a model divides it, and its features are what a model sees.
  Each segment goes on for the length of the longest template, so that a call across a border is
  matched as a whole.
- One thread computes one file at a time and holds one segment of it, so that memory does not grow
  with the archive. Files are returned in their order.
- A file that cannot be read is returned with the reason, and the search continues.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.core.features import MelConfig
from antpitta.core.types import Event, Recording
from antpitta.files.audio import UnreadableAudio, file_errors, read_or_silence
from antpitta.files.audio_gaps import displacement_notes, truncation_notes
from antpitta.files.recordings import ListedFile, open_file
from antpitta.model.embedding import NoEmbeddingError
from antpitta.model.features import FeatureArray, FeatureExtractor, ReadAudio
from antpitta.search.matching import Matcher, Peaks, Template
from antpitta.search.similarity import embed_recording
from antpitta.search.templates import frame_grid


@dataclass(frozen=True)
class FileMatches:
    """What was found in one file.

    Parameters
    ----------
    file : as listed
    recording : None if the file cannot be opened
    best : (species,), the highest score, 0 where none is above it
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
    extractor : of the features that the templates were cut from
    threshold : the lowest score of a match
    most : matches of a recording and species
    """

    matcher: Matcher
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
                notes = [*displacement_notes(recording), *truncation_notes(recording)]
                best, events = self._find_in(recording, notes)
        except (UnreadableAudio, NoEmbeddingError) as error:
            return FileMatches(file, None, nothing, (), str(error))
        text = "; ".join(dict.fromkeys(notes))
        reason = f"{recording.path}: {text}; searched as far as it can be read" if text else ""
        return FileMatches(file, recording, best, events, reason)

    def _find_in(
        self, recording: Recording, notes: list[str]
    ) -> tuple[NDArray[np.float32], tuple[Event, ...]]:
        best = np.zeros(len(self.matcher.species), dtype=np.float32)
        parts: list[Peaks] = []
        for first, features in self._segments(recording, notes):
            # At each border one of a species may be a part of the neighbour's.
            peaks, highest = self.matcher.find(features, self.threshold, self.most + 2)
            parts.append(peaks.shift(first))
            np.maximum(best, highest, out=best)
        templates, seconds = self.matcher.templates, self._seconds(recording)
        events = [
            _event(recording, templates[i], seconds, frame, score)
            for i, frame, score in self.matcher.keep_best(parts, self.most).rows()
        ]
        return best, tuple(sorted(events, key=lambda event: (event.start, event.label)))

    def _segments(
        self, recording: Recording, notes: list[str]
    ) -> Iterator[tuple[int, FeatureArray]]:
        """The first frame of each segment, and the features from there on."""
        config, longest = self.extractor.config, self.matcher.longest
        read = _tolerant_reader(notes)
        if isinstance(config, MelConfig):
            hop = config.hop_length / config.sample_rate
            for start, end in config.segments(recording.duration):
                stop = min(end + longest * hop, recording.duration)
                features = self.extractor.extract_segment(recording, start, stop, read)
                yield round(start / hop), features
        else:
            vectors, first = embed_recording(recording, self.extractor, read, notes), 0
            for start, stop in config.segments(recording.duration):
                frames = config.n_frames(stop - start)
                yield first, vectors[first : first + frames + longest]
                first += frames

    def _seconds(self, recording: Recording) -> Callable[[int], float]:
        """A function from a frame of a recording to its start."""
        config = self.extractor.config
        if isinstance(config, MelConfig):
            return frame_grid(config, 0.0, 1).seconds
        grids = [config.time_grid(*bounds) for bounds in config.segments(recording.duration)]
        starts = [grid.seconds(i) for grid in grids for i in range(grid.frames)]
        return [*starts, recording.duration].__getitem__


def _event(
    recording: Recording,
    template: Template,
    seconds: Callable[[int], float],
    frame: int,
    score: float,
) -> Event:
    """A match as a detection."""
    start = max(0.0, seconds(frame))
    stop = min(seconds(frame + len(template.pixels)), recording.duration)
    band = (template.box.low, min(template.box.high, recording.sample_rate / 2))
    return Event(recording.id, start, stop, template.box.label, score, template.name, *band)


def _tolerant_reader(notes: list[str]) -> ReadAudio:
    """A reader that gives silence for what does not decode, and notes it."""

    def read(recording: Recording, start: float, stop: float, rate: int) -> NDArray[np.float32]:
        return read_or_silence(recording, start, stop, rate, notes)

    return read
