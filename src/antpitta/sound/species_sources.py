"""Who sings in a simulated soundscape: a species' template, and the individuals that sing it.

Real clips and invented callers stand behind one type, :class:`EpochResult`, so that the simulator
cannot tell them apart. Three things are decided here:

- A template is what template matching would use: one band and one length per species. It is
  longer than the longest call by a margin, so that a box of its size can enclose any call.
- An individual is a clip. Training and test individuals are never the same; a species with
  one clip gives its first part to one side and its last to the other.
- A stretch that is much quieter than the loudest of its clip is never sung: it may hold
  nothing, and the truth would then name a call that nobody can hear.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from antpitta.core.errors import UserError
from antpitta.sound.filters import bandpass, fade, spectrum, to_unit

Floats = NDArray[np.float32]
RenderCall = Callable[[np.random.Generator], Floats]  # one call: unit RMS, faded at both ends

SIDES = ("train", "test")
LOWEST = 150.0  # Hz; below it clips hold wind and handling, hardly ever a call
KIN = 0.15  # by which the pitch of individuals may differ; further off, a clip holds other sound
NARROWEST, ROOM = 300.0, 100.0  # Hz: of a band, and left free on either side of it
MARGIN = 0.1  # seconds by which a template is longer than the longest call
FADE = 0.04  # seconds
SHORTEST, LONGEST = 0.4, 4.0  # seconds of a call taken from a clip
JOINED = 0.25  # seconds; a shorter gap does not break a call in two
QUIETEST = 0.1  # of the loudest stretch's energy
STRETCHES = 6  # taken from one clip


@dataclass(frozen=True)
class SpeciesTemplate:
    """What a species' boxes have in common; all are as wide and as long as the template."""

    name: str
    low: float
    high: float
    duration: float


@dataclass(frozen=True)
class SpeciesSource(SpeciesTemplate):
    """A species that can be heard: its template, and one ``Sing`` per individual.

    A call is shorter than ``duration`` and holds its energy between ``low`` and ``high``.
    """

    singers: tuple[RenderCall, ...]

    def __post_init__(self) -> None:
        if not self.singers:
            raise ValueError(f"{self.name}: nobody sings")
        if not (0 <= self.low < self.high and self.duration > 0):
            raise ValueError(f"{self.name}: empty or reversed template")


def species_template(name: str, clips: Sequence[Floats], sample_rate: int) -> SpeciesTemplate:
    """The band that holds what rises above the clips' own medians, and how long it lasts.

    A clip's band leaves out 5 % of that energy at either end, and its length is that of the
    loudest unbroken stretch; the template takes the medians, the edges moved out by their median
    deviation: individuals of another pitch fit in, and one odd clip cannot widen it.
    Raises UserError where no clip holds any sound.
    """
    edges = [edge for clip in clips if (edge := _edges(clip, sample_rate)) is not None]
    if not edges:
        raise UserError(
            "E_TODO", f"{name}: no clip holds any sound above {LOWEST:g} Hz", "add another clip"
        )
    middle = np.median(edges, axis=0)
    spread = np.minimum(np.median(np.abs(edges - middle), axis=0), KIN * middle)
    low, high = float(middle[0] - spread[0]), float(middle[1] + spread[1])
    extra = max(0.0, NARROWEST - (high - low)) / 2 + ROOM
    low, high = max(LOWEST - 50, low - extra), min(sample_rate / 2, high + extra)
    lengths = [_loudest_length(clip, low, high, sample_rate) for clip in clips if clip.any()]
    length = float(np.clip(np.median(lengths), SHORTEST, LONGEST))
    return SpeciesTemplate(name, round(low, 1), round(high, 1), round(length + 2 * MARGIN, 2))


def species_sources(
    clips: Mapping[str, Sequence[Floats]], sample_rate: int, rng: np.random.Generator
) -> dict[str, tuple[SpeciesSource, ...]]:
    """Voices for each side of :data:`SIDES`, the same species in the same order.

    About a third of a species' clips, but at least one, sing on the test side.
    Raises UserError where a side would have nothing to sing.
    """
    sides: dict[str, tuple[SpeciesSource, ...]] = dict.fromkeys(SIDES, ())
    for name, waves in clips.items():
        template = species_template(name, waves, sample_rate)
        for side, chosen in zip(SIDES, _split(waves, sample_rate, rng), strict=True):
            singers = tuple(
                sing
                for wave in chosen
                if (sing := _singer(wave, template, sample_rate)) is not None
            )
            if not singers:
                raise UserError(
                    "E_TODO",
                    f"{name}: the clips of its {side} side are silent in {template.low:g} to {template.high:g} Hz",
                    "add another clip",
                )
            progress = SpeciesSource(name, template.low, template.high, template.duration, singers)
            sides[side] = (*sides[side], progress)
    return sides


def _edges(clip: Floats, sample_rate: int) -> tuple[float, float] | None:
    """The band of what rises above twice each bin's own median; None for a silent clip."""
    heard = spectrum(clip, sample_rate)
    power = heard.power.astype(np.float64)
    power[:, : int(np.ceil(LOWEST / heard.bin_width))] = 0
    above = np.clip(power - 2 * np.median(power, axis=0), 0, None).sum(axis=0)
    if above.sum() <= 0.01 * power.sum():  # a call that fills its clip is the median itself
        above = power.sum(axis=0)
    if above.sum() <= 0:
        return None
    share = np.cumsum(above) / above.sum()
    low, high = np.searchsorted(share, [0.05, 0.95])
    return float(low * heard.bin_width), float(high * heard.bin_width)


def _loudest_length(clip: Floats, low: float, high: float, sample_rate: int) -> float:
    """Seconds around the loudest moment that stay well above the clip's median level."""
    heard = spectrum(clip, sample_rate)
    level = uniform_filter1d(heard.band(low, high), max(1, round(JOINED / heard.step)))
    floor, peak = np.median(level), level.max()
    quiet = np.flatnonzero(level < floor + 0.1 * (peak - floor))
    at = int(level.argmax())
    before, after = quiet[quiet < at], quiet[quiet > at]
    begin = before[-1] + 1 if len(before) else 0
    end = after[0] if len(after) else len(level)
    return float((end - begin) * heard.step)


def _split(
    waves: Sequence[Floats], sample_rate: int, rng: np.random.Generator
) -> tuple[list[Floats], list[Floats]]:
    """(train, test): whole clips, or the two ends of the only one."""
    if len(waves) == 1:
        cut, gap = int(len(waves[0]) * 0.6), sample_rate // 10
        return [waves[0][: cut - gap // 2]], [waves[0][cut + gap // 2 :]]
    order = [int(i) for i in rng.permutation(len(waves))]
    tested = max(1, len(waves) // 3)
    return [waves[i] for i in order[tested:]], [waves[i] for i in order[:tested]]


def _singer(wave: Floats, template: SpeciesTemplate, sample_rate: int) -> RenderCall | None:
    """One individual: any of the loudest stretches of its clip; None if the clip is silent."""
    longest = int((template.duration - 2 * MARGIN) * sample_rate)
    if not len(wave):
        return None
    clean = bandpass(wave, template.low, template.high, sample_rate)
    stretches = tuple(
        to_unit(fade(clean[at : at + longest], FADE, sample_rate))
        for at in _loudest(clean, longest)
    )
    if not stretches:
        return None

    def sing(rng: np.random.Generator) -> Floats:
        return stretches[int(rng.integers(len(stretches)))]

    return sing


def _loudest(wave: Floats, length: int) -> list[int]:
    """Where the loudest stretches begin; no two of them overlap."""
    if not wave.any():
        return []
    if len(wave) <= length:
        return [0]
    sums = np.cumsum(np.concatenate([[0.0], wave.astype(np.float64) ** 2]))
    energy = sums[length:] - sums[:-length]
    least = QUIETEST * energy.max()
    starts: list[int] = []
    while len(starts) < STRETCHES and energy.max() >= least > 0:
        at = int(energy.argmax())
        starts.append(at)
        energy[max(0, at - length) : at + length] = 0
    return starts
