"""What the page and the card tell: the nouns that a run hands over once it is done.

A run_report holds results, never paths or models, so that it can be made by hand, in a test or
from somebody else's scores. Whatever is missing is empty, and the page says that it is.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from antpitta.scores.evaluate import Report
from antpitta.sound.targets import Supervision


@dataclass(frozen=True)
class StageResult:
    """One stage of training, and how well its models did."""

    name: str
    says: str  # one line: what this stage does
    report: Report  # out of fold, over the cells that a listener judged
    truth: Report | None = None  # against whole truth, where somebody has it


@dataclass(frozen=True)
class Example:
    """One judged box with the sound around it."""

    title: str
    recording: str
    species: str
    start: float
    stop: float
    low: float
    high: float  # infinite: up to the top of the picture
    score: float
    present: bool  # what the listener said
    image: np.ndarray  # (frames, bands), any unit that grows with loudness
    image_start: float
    image_stop: float
    frequencies: np.ndarray  # (bands,), rising
    group: str = ""  # the heading it is shown under; empty: from verdict and score

    def __post_init__(self) -> None:
        if self.image.ndim != 2 or not self.image.size:
            raise ValueError(f"{self.recording}: the image is {self.image.shape}")
        if self.frequencies.shape != self.image.shape[1:]:
            bands = f"{self.frequencies.shape} frequencies for an image of {self.image.shape}"
            raise ValueError(f"{self.recording}: {bands}")
        if not (self.start < self.stop and self.image_start < self.image_stop):
            raise ValueError(f"{self.recording}: empty or reversed box: {self.title}")


@dataclass(frozen=True)
class RunReport:
    """A run, as it is told to people."""

    title: str = "An antpitta run"
    subtitle: str = ""
    stages: tuple[StageResult, ...] = ()  # in the order of training; the last is the model
    supervision: Supervision | None = None
    examples: tuple[Example, ...] = ()
    log: pd.DataFrame | None = None  # stage, fold, epoch, loss, lr, seconds
    pseudo: pd.DataFrame | None = None  # cycle, species, then counts, one row a pair
    settings: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    needs: str = ""  # the file that the model needs and does not hold, in a sentence

    @property
    def final(self) -> StageResult | None:
        """The stage whose models are the model; None before any was evaluated."""
        return self.stages[-1] if self.stages else None
