"""The nouns of the house: every room speaks of sound in these types and no others.

Times are seconds on the recording's own clock, frequencies are Hz, and every interval is
half-open: ``start <= t < stop``. All types are frozen, and none of them opens a file.
"""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from antpitta.core.timegrid import TimeGrid

EVERY_CLASS = "*"  # the label of a statement about all classes at once


@dataclass(frozen=True)
class Recording:
    """One audio file, probed but not read."""

    id: str
    path: Path
    sample_rate: int
    samples: int
    channels: int = 1
    site: str | None = None  # recorder or place: folds never split a site
    recorded_at: datetime | None = None

    @property
    def duration(self) -> float:
        return self.samples / self.sample_rate


@dataclass(frozen=True)
class Annotation:
    """One statement of a listener: this class is, or is not, in this stretch of sound.

    ``present=False`` is knowledge too. What no annotation covers is unknown, not absent.
    """

    recording: str
    start: float
    stop: float
    label: str
    present: bool = True
    low: float = 0.0
    high: float = float("inf")
    source: str = "human"  # or "review:<name>"; a model never writes here
    songtype: str = ""  # which of the class's sounds; carried along, never a class of its own
    score: float | None = None  # what the matcher that proposed the box gave it

    def __post_init__(self) -> None:
        if not (0 <= self.start < self.stop and 0 <= self.low < self.high):
            raise ValueError(f"{self.recording}: empty or reversed box: {self}")
        if self.present and self.label == EVERY_CLASS:
            raise ValueError(f"{self.recording}: every class present at once: {self}")


@dataclass(frozen=True)
class Classes:
    """The classes, in the order of the columns."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"a class is named twice: {self.names}")

    def __len__(self) -> int:
        return len(self.names)

    def columns(self, label: str) -> list[int]:
        """The columns that ``label`` speaks of: one, all, or none of ours."""
        return [i for i, name in enumerate(self.names) if label in (name, EVERY_CLASS)]


@dataclass(frozen=True)
class Dataset:
    """What a run learns from: sound, what listeners said of it, and the classes."""

    recordings: tuple[Recording, ...]
    annotations: tuple[Annotation, ...]  # each names one of the recordings
    classes: Classes  # from every row of the tables, rows whose sound is missing included
    # class -> what else it is called
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = {r.id for r in self.recordings}
        if len(ids) != len(self.recordings):
            raise ValueError("two recordings have one id")
        if strangers := {said.recording for said in self.annotations} - ids:
            raise ValueError(f"annotations of unknown recordings: {sorted(strangers)[:3]}")


@dataclass(frozen=True)
class Targets:
    """What to learn, and how far to trust it; both arrays are (frames, classes).

    ``weight`` 0 is unknown: the loss never sees the cell. A listener's word weighs 1,
    a pseudo label weighs what the teacher's confidence earns it.
    """

    value: np.ndarray
    weight: np.ndarray

    def __post_init__(self) -> None:
        if self.value.shape != self.weight.shape:
            raise ValueError(f"value {self.value.shape} is not weight {self.weight.shape}")


@dataclass(frozen=True)
class Scores:
    """What one model, or one ensemble, heard in one recording."""

    recording: str
    grid: TimeGrid
    classes: Classes
    value: np.ndarray  # (frames, classes), probabilities
    source: str  # the run or the ensemble that scored it

    def __post_init__(self) -> None:
        if self.value.shape != (self.grid.frames, len(self.classes)):
            raise ValueError(f"{self.recording}: scores {self.value.shape} do not fit the grid")


@dataclass(frozen=True)
class Event:
    """One sound found: what the archive's table and the review page are made of."""

    recording: str
    start: float
    stop: float
    label: str
    score: float
    source: str
    low: float = 0.0
    high: float = float("inf")
