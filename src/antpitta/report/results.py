"""The content of the report page and the model card.

A :class:`RunReport` holds results only, no paths and no models, so that a test or a script can make
one by hand from any scores. Whatever is missing is empty, and the page states that it is missing.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from antpitta.core.thresholds import SpeciesThreshold
from antpitta.scores.bootstrap import Interval
from antpitta.scores.evaluate import Report
from antpitta.scores.learning_curve import MEAN
from antpitta.sound.targets import Supervision


@dataclass(frozen=True)
class StageResult:
    """One stage of training, and the metrics of its models.

    Attributes
    ----------
    name : the stage's name, with its cycle after the first
    description : what the stage does, in a line
    report : metrics out of fold, on labelled cells
    truth : metrics on test recordings against complete ground truth, None if there is none
    """

    name: str
    description: str
    report: Report = field(repr=False)
    truth: Report | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Example:
    """One labelled box with the sound around it.

    Attributes
    ----------
    title : the first words of the caption
    recording, species : what the box belongs to
    start, stop : seconds in the recording
    low, high : Hz; an infinite ``high`` is the top of the picture
    score : the model's, out of fold
    present : the verdict of the expert
    spectrogram : (frames, bands), in any unit that grows with loudness
    image_start, image_stop : seconds in the recording
    frequencies : (bands,), Hz, rising
    group : the heading that it is shown under; empty: derived from verdict and score
    """

    title: str
    recording: str
    species: str
    start: float
    stop: float
    low: float
    high: float
    score: float
    present: bool
    spectrogram: np.ndarray = field(repr=False)
    image_start: float
    image_stop: float
    frequencies: np.ndarray = field(repr=False)
    group: str = ""

    def __post_init__(self) -> None:
        if self.spectrogram.ndim != 2 or not self.spectrogram.size:
            raise ValueError(f"{self.recording}: the image has the shape {self.spectrogram.shape}")
        if self.frequencies.shape != self.spectrogram.shape[1:]:
            shapes = (
                f"{self.frequencies.shape} frequencies for an image of {self.spectrogram.shape}"
            )
            raise ValueError(f"{self.recording}: {shapes}")
        if not (self.start < self.stop and self.image_start < self.image_stop):
            raise ValueError(f"{self.recording}: empty or reversed box: {self.title}")


@dataclass(frozen=True)
class LearningCurve:
    """The models of all rounds of review, on the verdicts of the last one.

    Attributes
    ----------
    table : as from :func:`antpitta.scores.learning_curve.learning_curve`
    differences : of the last two models in macro AP, by the kind of verdicts: all, audit
    notes : about rounds that are missing
    """

    table: pd.DataFrame = field(repr=False)
    differences: dict[str, Interval]
    notes: tuple[str, ...] = ()

    def sentences(self) -> tuple[str, ...]:
        """Whether the last model is better than the one before, for each kind of verdicts."""
        lines = []
        for kind, difference in self.differences.items():
            own = self.table[(self.table["verdicts"] == kind) & (self.table["species"] == MEAN)]
            last = own.iloc[-1]
            count = int(last["present"] + last["absent"])
            verdicts = f"{count:,} verdict{'s' if count != 1 else ''}"
            verdicts += "" if kind == "all" else " of audits"
            lines.append(f"On {verdicts}: {_compare(float(last['ap']), difference)}.")
        return tuple(lines)


def _compare(value: float, difference: Interval) -> str:
    if not np.isfinite(value):
        return "no species has present and absent ones, so models cannot be compared"
    text = f"macro AP {value:.3f}"
    if not np.isfinite(difference.value):
        return text
    text = f"{text}, {difference.value:+.3f} against the model before"
    if not np.isfinite(difference.low):
        return text
    interval = f"95 % interval {difference.low:+.3f} to {difference.high:+.3f}"
    if difference.low > 0:
        return f"{text} ({interval}): better by more than the noise"
    if difference.high < 0:
        return f"{text} ({interval}): worse by more than the noise"
    return f"{text} ({interval}): no difference beyond the noise"


@dataclass(frozen=True)
class RunReport:
    """Everything that the report page and the model card show of a run.

    Attributes
    ----------
    title, subtitle : the head of the page
    stages : in the order of training
    shipped : the name of the stage whose models are the model; empty for the last one
    choice : why it is that stage, a sentence
    warnings : what the model is not good at, a line each
    thresholds : of each species, and what they rest on
    supervision : labelled frames of each recording and species
    examples : labelled boxes to look at
    log : one row an epoch: ``stage``, ``fold``, ``epoch``, ``loss``, ``seconds``
    pseudo : pseudo-labels: ``cycle``, ``species``, then counts, one row a pair
    settings, provenance : names and values of two tables
    left_out : findings about the data
    needs : a sentence about a file that the model needs and does not hold
    rounds : the learning curve of a run that ``round`` made, None for another one
    """

    title: str = "An antpitta run"
    subtitle: str = ""
    stages: tuple[StageResult, ...] = ()
    shipped: str = ""
    choice: str = ""
    warnings: tuple[str, ...] = ()
    thresholds: dict[str, SpeciesThreshold] = field(default_factory=dict)
    supervision: Supervision | None = None
    examples: tuple[Example, ...] = ()
    log: pd.DataFrame | None = None
    pseudo: pd.DataFrame | None = None
    settings: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    needs: str = ""
    rounds: LearningCurve | None = None

    @property
    def final(self) -> StageResult | None:
        """The stage whose models are the model; None before any was evaluated."""
        last = self.stages[-1] if self.stages else None
        return next((stage for stage in self.stages if stage.name == self.shipped), last)

    def __repr__(self) -> str:
        stages = ", ".join(stage.name for stage in self.stages) or "none"
        return f"RunReport({self.title!r}; stages: {stages}; {len(self.examples)} examples)"
