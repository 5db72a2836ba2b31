"""The data types that all packages share.

Times are seconds from the start of the recording, frequencies are Hz, and every interval is
half-open: ``start <= t < stop``. All types are frozen, and none of them opens a file.
"""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from antpitta.core.timegrid import TimeGrid

EVERY_CLASS = "*"  # the label of an annotation of all classes at once


@dataclass(frozen=True)
class Recording:
    """One audio file or one spectrogram, probed but not read."""

    id: str
    path: Path
    sample_rate: int
    samples: int
    channels: int = 1
    site: str | None = None  # recorder or location; a site is never divided between folds
    recorded_at: datetime | None = None
    # What the header promises, where the file holds another number; 0 where it promises nothing.
    header_samples: int | None = None
    channel: int | None = None  # the one that is used, from 1; None: the mean of all
    inverted: tuple[int, ...] = ()  # channels that are inverted in this mean, from 1
    # Read instead of the sound (files/spectrograms.py); ``path`` is the sound where there is some.
    spectrogram: Path | None = None
    # Lost parts inside it, (start, stop) in seconds; None: not looked for (files/audio_gaps.py).
    gaps: tuple[tuple[float, float], ...] | None = None

    @property
    def source(self) -> Path:
        """The file that features are computed from."""
        return self.spectrogram or self.path

    @property
    def missing_seconds(self) -> float:
        """What the header promises and the file does not hold; below 0 where it holds more."""
        return ((self.header_samples or self.samples) - self.samples) / self.sample_rate

    @property
    def duration(self) -> float:
        """Length of the recording, seconds."""
        return self.samples / self.sample_rate

    @property
    def reading_key(self) -> str:
        """A key of how the file is read; "" for sound by the plain mean of its channels."""
        if self.spectrogram is not None:
            return "-decibels"
        if self.channel is not None:
            return f"-channel{self.channel}"
        return "".join(f"-inverted{channel}" for channel in self.inverted)


@dataclass(frozen=True, slots=True)
class Annotation:
    """One verdict of a person: this class is, or is not, in this part of a recording.

    What no annotation covers is unknown, not absent. ``label`` is a class or ``EVERY_CLASS``.
    """

    recording: str
    start: float
    stop: float
    label: str
    present: bool = True
    low: float = 0.0
    high: float = float("inf")
    source: str = "human"  # or "review:<name>"; a model never writes here
    songtype: str = ""  # which of the class's sounds; it is kept, but is no class of its own
    score: float | None = None  # of the program that proposed the box

    def __post_init__(self) -> None:
        if not (0 <= self.start < self.stop and 0 <= self.low < self.high):
            raise ValueError(f"{self.recording}: empty or reversed box: {self}")
        if self.present and self.label == EVERY_CLASS:
            raise ValueError(f"{self.recording}: every class present at once: {self}")


@dataclass(frozen=True)
class Classes:
    """The classes, in the order of the columns of targets and scores."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"a class is named twice: {self.names}")

    def __len__(self) -> int:
        return len(self.names)

    def columns(self, label: str) -> list[int]:
        """The columns of a label: one, all for ``EVERY_CLASS``, or none for an unknown label."""
        return [i for i, name in enumerate(self.names) if label in (name, EVERY_CLASS)]


@dataclass(frozen=True)
class Dataset:
    """What a run trains on: recordings, annotations and classes."""

    recordings: tuple[Recording, ...]
    annotations: tuple[Annotation, ...]  # each names one of the recordings
    classes: Classes  # of every row of the tables, rows without a recording included
    # class -> its other names
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = {recording.id for recording in self.recordings}
        if len(ids) != len(self.recordings):
            raise ValueError("two recordings have one id")
        if unknown := {annotation.recording for annotation in self.annotations} - ids:
            raise ValueError(f"annotations of unknown recordings: {sorted(unknown)[:3]}")

    def __repr__(self) -> str:
        present = sum(annotation.present for annotation in self.annotations)
        return (
            f"Dataset({len(self.recordings)} recordings, {len(self.classes)} classes, "
            f"{present} present and {len(self.annotations) - present} absent boxes)"
        )


@dataclass(frozen=True)
class Targets:
    """Targets of the loss and their weights.

    A cell of weight 0 is unknown: the loss does not use it. Labels of people weigh 1.
    """

    value: np.ndarray  # (frames, classes), 0 to 1
    weight: np.ndarray  # (frames, classes), from 0

    def __post_init__(self) -> None:
        if self.value.shape != self.weight.shape:
            raise ValueError(f"value {self.value.shape} is not weight {self.weight.shape}")

    def __repr__(self) -> str:
        known = np.count_nonzero(self.weight)
        return f"Targets({' x '.join(map(str, self.value.shape))} cells, {known} known)"


@dataclass(frozen=True)
class Scores:
    """The scores of one model, or of an ensemble, for one recording."""

    recording: str
    grid: TimeGrid
    classes: Classes
    value: np.ndarray  # (frames, classes), probabilities
    source: str  # the model or the ensemble

    def __post_init__(self) -> None:
        if self.value.shape != (self.grid.frames, len(self.classes)):
            raise ValueError(f"{self.recording}: scores {self.value.shape} do not fit the grid")

    def __repr__(self) -> str:
        frames, classes = self.value.shape
        return f"Scores({self.recording!r}: {frames} frames, {classes} classes, {self.source!r})"


@dataclass(frozen=True)
class WindowScores:
    """The clipwise scores of one model for the training windows of one recording."""

    recording: str
    start: np.ndarray  # (windows,), seconds
    stop: np.ndarray  # (windows,), seconds
    classes: Classes
    logit: np.ndarray  # (windows, classes), float32
    source: str  # the model

    def __post_init__(self) -> None:
        if self.logit.shape != (len(self.start), len(self.classes)):
            raise ValueError(f"{self.recording}: logits {self.logit.shape} do not fit the windows")


@dataclass(frozen=True)
class Event:
    """One detected sound: a row of the tables that predict writes."""

    recording: str
    start: float
    stop: float
    label: str
    score: float
    source: str
    low: float = 0.0
    high: float = float("inf")
