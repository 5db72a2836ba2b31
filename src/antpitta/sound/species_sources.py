"""The species of a simulated soundscape: their templates, and the individuals that call.

Real clips and synthetic species have one type, :class:`SpeciesSource`, so the simulator treats
them alike. Three decisions are made here:

- A template is what template matching would use: one band and one length per species. It is
  longer than the longest call by a margin, so that a box of its size can enclose any call.
- An individual is a clip. The training and the test split never share an individual; a species
  with one clip gives the first part of it to one split and the last part to the other.
- Stretches that are much quieter than the loudest of their clip are not used. They may hold no
  call, and the truth would then contain a call that nobody can hear.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from antpitta.core.errors import UserError
from antpitta.sound.filters import bandpass, fade_seconds, spectrum, to_unit_rms

Floats = NDArray[np.float32]
RenderCall = Callable[[np.random.Generator], Floats]  # one call: unit RMS, faded at both ends

SPLITS = ("train", "test")
LOWEST = 150.0  # Hz; below it clips hold wind and handling noise, hardly ever a call
MAX_PITCH_SPREAD = 0.15  # between individuals; a clip further away holds another sound
MIN_BANDWIDTH, BAND_MARGIN = 300.0, 100.0  # Hz; the margin is free on either side of a band
MARGIN = 0.1  # seconds by which a template is longer than the longest call, at each end
FADE = 0.04  # seconds
SHORTEST, LONGEST = 0.4, 4.0  # seconds of a call taken from a clip
MAX_PAUSE = 0.25  # seconds; a shorter pause does not split a call in two
MIN_ENERGY = 0.1  # of the loudest stretch's
MAX_STRETCHES = 6  # of one clip


@dataclass(frozen=True)
class SpeciesTemplate:
    """The size of all boxes of a species.

    Parameters
    ----------
    low, high : Hz
    duration : seconds
    """

    name: str
    low: float
    high: float
    duration: float


@dataclass(frozen=True)
class SpeciesSource(SpeciesTemplate):
    """A species that can call: its template, and one function per individual that renders a call.

    A call is shorter than ``duration`` and has its energy between ``low`` and ``high``.
    """

    individuals: tuple[RenderCall, ...]

    def __post_init__(self) -> None:
        if not self.individuals:
            raise ValueError(f"{self.name}: a species source without individuals")
        if not (0 <= self.low < self.high and self.duration > 0):
            raise ValueError(f"{self.name}: empty or reversed template")


def species_template(name: str, clips: Sequence[Floats], sample_rate: int) -> SpeciesTemplate:
    """Measure the band and the length of a species' calls.

    The band of a clip is that of the sound that rises above the clip's own median, without 5 % of
    its energy at either end; its length is that of the loudest unbroken stretch. The template has
    the medians of both, and its band is widened by the median deviation. So individuals of another
    pitch fit in, and one odd clip cannot widen it.

    Parameters
    ----------
    name : of the species
    clips : each (samples,)
    sample_rate : Hz

    Returns
    -------
    template : the size of its boxes

    Raises
    ------
    UserError
        E_SILENT_CLIPS where no clip holds any sound.
    """
    edges = [edge for clip in clips if (edge := _band_edges(clip, sample_rate)) is not None]
    if not edges:
        raise UserError(
            "E_SILENT_CLIPS",
            f"{name}: no clip holds any sound above {LOWEST:g} Hz",
            "add a clip in which the species calls",
        )
    median = np.median(edges, axis=0)
    spread = np.median(np.abs(edges - median), axis=0)
    spread = np.minimum(spread, MAX_PITCH_SPREAD * median)
    low, high = float(median[0] - spread[0]), float(median[1] + spread[1])
    extra = max(0.0, MIN_BANDWIDTH - (high - low)) / 2 + BAND_MARGIN
    low, high = max(LOWEST - 50, low - extra), min(sample_rate / 2, high + extra)
    lengths = [_call_length(clip, low, high, sample_rate) for clip in clips if clip.any()]
    length = float(np.clip(np.median(lengths), SHORTEST, LONGEST))
    return SpeciesTemplate(name, round(low, 1), round(high, 1), round(length + 2 * MARGIN, 2))


def species_sources(
    clips: Mapping[str, Sequence[Floats]], sample_rate: int, rng: np.random.Generator
) -> dict[str, tuple[SpeciesSource, ...]]:
    """The sources of both :data:`SPLITS`, the same species in the same order.

    About a third of a species' clips, but at least one, belongs to the test split.

    Parameters
    ----------
    clips : the clips of each species, each (samples,)
    sample_rate : Hz
    rng : source of all random choices

    Returns
    -------
    sources : of each split

    Raises
    ------
    UserError
        E_SILENT_CLIPS where a split of a species has no sound.
    """
    sources: dict[str, tuple[SpeciesSource, ...]] = dict.fromkeys(SPLITS, ())
    for name, waves in clips.items():
        template = species_template(name, waves, sample_rate)
        for split, chosen in zip(SPLITS, _split_clips(waves, sample_rate, rng), strict=True):
            individuals = tuple(
                render
                for wave in chosen
                if (render := _individual(wave, template, sample_rate)) is not None
            )
            if not individuals:
                raise UserError(
                    "E_SILENT_CLIPS",
                    f"{name}: the clips of the {split} split are silent between "
                    f"{template.low:g} and {template.high:g} Hz",
                    "add a clip in which the species calls",
                )
            source = SpeciesSource(
                name, template.low, template.high, template.duration, individuals
            )
            sources[split] = (*sources[split], source)
    return sources


def _band_edges(clip: Floats, sample_rate: int) -> tuple[float, float] | None:
    """The band of what rises above twice each bin's own median; None for a silent clip."""
    bins = spectrum(clip, sample_rate)
    power = bins.power.astype(np.float64)
    power[:, : int(np.ceil(LOWEST / bins.bin_width))] = 0
    above = np.clip(power - 2 * np.median(power, axis=0), 0, None).sum(axis=0)
    if above.sum() <= 0.01 * power.sum():  # a call that fills its clip is the median itself
        above = power.sum(axis=0)
    if above.sum() <= 0:
        return None
    share = np.cumsum(above) / above.sum()
    low, high = np.searchsorted(share, [0.05, 0.95])
    return float(low * bins.bin_width), float(high * bins.bin_width)


def _call_length(clip: Floats, low: float, high: float, sample_rate: int) -> float:
    """Seconds around the loudest moment that stay well above the clip's median level."""
    bins = spectrum(clip, sample_rate)
    level = uniform_filter1d(bins.band(low, high), max(1, round(MAX_PAUSE / bins.step)))
    median, peak = np.median(level), level.max()
    quiet = np.flatnonzero(level < median + 0.1 * (peak - median))
    loudest = int(level.argmax())
    before, after = quiet[quiet < loudest], quiet[quiet > loudest]
    begin = before[-1] + 1 if len(before) else 0
    end = after[0] if len(after) else len(level)
    return float((end - begin) * bins.step)


def _split_clips(
    waves: Sequence[Floats], sample_rate: int, rng: np.random.Generator
) -> tuple[list[Floats], list[Floats]]:
    """(train, test): whole clips, or the two ends of the only clip."""
    if len(waves) == 1:
        cut, gap = int(len(waves[0]) * 0.6), sample_rate // 10
        return [waves[0][: cut - gap // 2]], [waves[0][cut + gap // 2 :]]
    order = [int(i) for i in rng.permutation(len(waves))]
    n_test = max(1, len(waves) // 3)
    return [waves[i] for i in order[n_test:]], [waves[i] for i in order[:n_test]]


def _individual(wave: Floats, template: SpeciesTemplate, sample_rate: int) -> RenderCall | None:
    """One individual: a random one of its clip's loudest stretches; None for a silent clip."""
    longest = int((template.duration - 2 * MARGIN) * sample_rate)
    if not len(wave):
        return None
    filtered = bandpass(wave, template.low, template.high, sample_rate)
    stretches = tuple(
        to_unit_rms(fade_seconds(filtered[start : start + longest], FADE, sample_rate))
        for start in _loudest_starts(filtered, longest)
    )
    if not stretches:
        return None

    def render(rng: np.random.Generator) -> Floats:
        return stretches[int(rng.integers(len(stretches)))]

    return render


def _loudest_starts(wave: Floats, length: int) -> list[int]:
    """Where the loudest stretches begin; no two of them overlap."""
    if not wave.any():
        return []
    if len(wave) <= length:
        return [0]
    sums = np.cumsum(np.concatenate([[0.0], wave.astype(np.float64) ** 2]))
    energy = sums[length:] - sums[:-length]
    least = MIN_ENERGY * energy.max()
    starts: list[int] = []
    while len(starts) < MAX_STRETCHES and energy.max() >= least > 0:
        start = int(energy.argmax())
        starts.append(start)
        energy[max(0, start - length) : start + length] = 0
    return starts
