"""Soundscapes with complete ground truth, and the boxes that validated template matching gives.

The simulation has the properties that make real soundscapes hard:

- A few species call almost everywhere and most are rare. How many recordings hold a species
  is fixed, not random, so a small simulation never loses a species.
- The distance of an individual sets how loud it is. All its calls in one recording come from
  one place; the further away it is, the duller they are and the more echo they have.
- The signal-to-noise ratio is measured in the species' own band, against the median level there.
- Calls come in series. Calls of one species never overlap, so every event is one call.

The training and the test split share the settings, but neither backgrounds nor individuals: the
caller of :func:`simulate` passes those of the split. Each recording has a random generator of its
own, so it does not depend on the others.

The boxes are those that remain once an expert has validated the matches. The matcher slides a
species' template over every recording and proposes what is loud in its band. The expert answers
present or absent for each proposal, and everything else stays unknown. Three properties follow:

- Loud calls are proposed more often, so present boxes come from near individuals.
- An absent box holds some sound (another species, a distractor, a gust), because silence is
  never proposed.
- All boxes of a species are as long and as wide as its template.
"""

import numbers
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import uniform_filter1d

from antpitta.core.arguments import show_value
from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.sound.ambience import BackgroundSource
from antpitta.sound.filters import spectrum, to_unit_rms
from antpitta.sound.species_sources import SPLITS, SpeciesSource

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

ECHOES = 5  # reflections of a distant call
MIN_PAUSE = 0.15  # seconds between two calls of one species
LIMITS = {
    "train": (1, 100_000),
    "test": (0, 100_000),
    "seconds": (0.5, 86_400.0),
    "sample_rate": (1_000, 1_000_000),
    "present": (0, 1_000_000),
    "absent": (0, 1_000_000),
    "seed": (0, 2**128),
    "min_snr": (-200, 200.0),
    "max_snr": (-200, 200.0),
}
MAX_SAMPLES = 2**27  # of a recording: 47 minutes at 48 kHz
PEAK = 0.98  # of full scale; a louder recording is scaled down, never clipped


@dataclass(frozen=True)
class SimulationConfig:
    """How much to simulate, how rare the species are, and how loud.

    Parameters
    ----------
    train, test : number of recordings of each split
    seconds : length of a recording
    sample_rate : Hz
    present, absent : boxes per species, at most
    seed : of all random choices
    max_prevalence, min_prevalence : share of recordings with the most common and the rarest species
    min_snr, max_snr : dB over the median level of the species' band, of the furthest and the
        nearest individual

    Raises
    ------
    UserError
        E_SIMULATION_SETTING for values that contradict each other.
    """

    train: int = 60
    test: int = 40
    seconds: float = 30.0
    sample_rate: int = 24_000
    present: int = 8
    absent: int = 40
    seed: int = 1
    max_prevalence: float = 0.9
    min_prevalence: float = 0.08
    min_snr: float = -4.0
    max_snr: float = 14.0

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = number = getattr(self, name)
            kind = numbers.Integral if isinstance(high, int) else numbers.Real
            if not isinstance(value, kind) or not low <= number <= high:
                self._refuse(
                    f"with {name} {show_value(value)}", f"use a number from {low:g} to {high:g}"
                )
        if self.seconds * self.sample_rate > MAX_SAMPLES:
            self._refuse("so long recordings", f"use at most {MAX_SAMPLES // self.sample_rate} s")
        if not 0 < self.min_prevalence <= self.max_prevalence <= 1:
            self._refuse(
                f"prevalences from {self.min_prevalence:g} to {self.max_prevalence:g}",
                "use rising shares above 0 and up to 1",
            )
        if self.min_snr > self.max_snr:
            what = f"signal-to-noise ratios from {self.min_snr:g} to {self.max_snr:g} dB"
            self._refuse(what, "exchange the two")

    def recordings(self, split: str) -> int:
        """The number of recordings of a split."""
        return (self.train, self.test)[SPLITS.index(split)]

    def _refuse(self, what: str, remedy: str) -> None:
        raise UserError("E_SIMULATION_SETTING", f"cannot simulate {what}", remedy)


@dataclass(frozen=True)
class PlacedCall:
    """One call in a soundscape.

    Parameters
    ----------
    start, stop : seconds; without the echo
    snr : dB over the median level of the species' band
    individual : place among the individuals of the species
    """

    species: SpeciesSource
    start: float
    stop: float
    snr: float
    individual: int


@dataclass(frozen=True)
class Scene:
    """What is kept of a soundscape once its sound is written.

    Parameters
    ----------
    seconds : length of the recording
    contrast : (species, frames), level over the median of the species' band, dB
    step : seconds from frame to frame
    """

    recording: str
    seconds: float
    calls: tuple[PlacedCall, ...]
    contrast: NDArray[np.float16]
    step: float

    @property
    def truth(self) -> list[Annotation]:
        """One present box for every call."""
        return [
            Annotation(
                recording=self.recording,
                start=call.start,
                stop=call.stop,
                label=call.species.name,
                low=call.species.low,
                high=call.species.high,
                source="simulated",
            )
            for call in self.calls
        ]


@dataclass(frozen=True)
class Soundscape:
    """The sound (samples,) of one recording, and its scene."""

    wave: Floats
    scene: Scene


def draw_prevalences(config: SimulationConfig, n_species: int) -> NDArray[np.float64]:
    """The share of recordings that holds each species: geometric steps, in random order.

    Parameters
    ----------
    config : range of the prevalences, and the seed
    n_species : number of species

    Returns
    -------
    prevalences : (species,)
    """
    rng = np.random.default_rng([config.seed, 2])
    return rng.permutation(np.geomspace(config.max_prevalence, config.min_prevalence, n_species))


def assign_species(config: SimulationConfig, split: str, n_species: int) -> Bools:
    """Which species call in which recording, (recordings, species); each in two at least.

    Parameters
    ----------
    config : number of recordings, prevalences and the seed
    split : one of :data:`antpitta.sound.species_sources.SPLITS`
    n_species : number of species

    Returns
    -------
    present : (recordings, species)
    """
    rng = np.random.default_rng([config.seed, SPLITS.index(split), 3])
    recordings = config.recordings(split)
    present = np.zeros((recordings, n_species), dtype=bool)
    for column, share in enumerate(draw_prevalences(config, n_species)):
        count = min(recordings, max(2, round(share * recordings)))
        present[rng.permutation(recordings)[:count], column] = True
    return present


def simulate(
    config: SimulationConfig,
    split: str,
    species: Sequence[SpeciesSource],
    backgrounds: Sequence[BackgroundSource],
) -> Iterator[Soundscape]:
    """The soundscapes of one split, named ``train0000``, ``train0001`` ...

    Parameters
    ----------
    config : what to simulate
    split : one of :data:`antpitta.sound.species_sources.SPLITS`
    species : the sources of the split
    backgrounds : the sources of the split; each recording has one

    Yields
    ------
    soundscapes : one at a time

    Raises
    ------
    UserError
        E_SIMULATION_INPUT without species or backgrounds, E_SIMULATION_SETTING where a call does
        not fit into a recording, E_SIMULATION_RATE where the sample rate cannot hold it.
    """
    _check(config, species, backgrounds)
    for number, present in enumerate(assign_species(config, split, len(species))):
        rng = np.random.default_rng([config.seed, SPLITS.index(split), 4, number])
        background = backgrounds[int(rng.integers(len(backgrounds)))]
        name = f"{split}{number:04d}"
        yield simulate_soundscape(name, config, species, present, background, rng)


def simulate_soundscape(
    recording: str,
    config: SimulationConfig,
    species: Sequence[SpeciesSource],
    present: Bools,
    background: BackgroundSource,
    rng: np.random.Generator,
) -> Soundscape:
    """One recording in which exactly the ``present`` (species,) call.

    Parameters
    ----------
    recording : its name
    config : what to simulate
    species : the sources of all species
    present : (species,), which of them call
    background : the source of its background
    rng : source of all random choices

    Returns
    -------
    soundscape : its sound and its scene
    """
    samples = round(config.seconds * config.sample_rate)
    wave = background(rng, samples) * np.float32(10 ** (rng.uniform(-42, -30) / 20))
    quiet = spectrum(wave, config.sample_rate)
    calls: list[PlacedCall] = []
    for source, calls_here in zip(species, present, strict=True):
        if calls_here:
            level = quiet.median_level(source.low, source.high)
            calls += _add_series(wave, source, config, level, rng)
    wave *= np.float32(min(1.0, PEAK / max(float(np.abs(wave).max()), 1e-9)))
    contrast, step = _contrast(wave, species, config.sample_rate)
    calls.sort(key=lambda call: call.start)
    return Soundscape(wave, Scene(recording, config.seconds, tuple(calls), contrast, step))


def _add_series(
    wave: Floats,
    source: SpeciesSource,
    config: SimulationConfig,
    level: float,
    rng: np.random.Generator,
) -> list[PlacedCall]:
    """Add calls of one or more individuals of a species to ``wave``; one call at least."""
    calls: list[PlacedCall] = []
    for _ in range(1 + rng.poisson(0.4)):
        individual = int(rng.integers(len(source.individuals)))
        distance = float(rng.random())  # 0 is next to the microphone
        mean_snr = config.max_snr + distance * (config.min_snr - config.max_snr)
        count = int(rng.integers(1, 6))
        period = source.duration * rng.uniform(1.2, 3.0)
        start = rng.uniform(0, max(config.seconds - source.duration, 0))
        for _ in range(count):
            sound = source.individuals[individual](rng)
            snr = mean_snr + float(rng.normal(0, 1))
            first = int(start * config.sample_rate)
            begin, end = (i / config.sample_rate for i in (first, first + len(sound)))
            start += period * rng.uniform(0.8, 1.25)
            if end > config.seconds:
                break
            if any(begin < c.stop + MIN_PAUSE and c.start < end + MIN_PAUSE for c in calls):
                continue
            distant = _at_distance(sound, distance, config.sample_rate, rng)
            distant = distant[: len(wave) - first]  # an echo may outlast the recording
            wave[first : first + len(distant)] += np.float32(level * 10 ** (snr / 20)) * distant
            calls.append(PlacedCall(source, begin, end, snr, individual))
    return calls


def _at_distance(
    sound: Floats, distance: float, sample_rate: int, rng: np.random.Generator
) -> Floats:
    """A call as it arrives from a distance (0 to 1): duller, with echo, longer than ``sound``.

    The direct sound keeps an RMS of 1, so the signal-to-noise ratio keeps its meaning.
    """
    size = fft.next_fast_len(len(sound), real=True)
    absorbed = 10 ** (-distance * 1.5 * fft.rfftfreq(size, 1 / sample_rate) / 1000 / 20)
    dull = fft.rfft(sound, size) * absorbed.astype(np.float32)
    direct = to_unit_rms(fft.irfft(dull, size)[: len(sound)].astype(np.float32))
    lags = np.sort(rng.uniform(0.015, 0.16, ECHOES))
    out = np.pad(direct, (0, int(0.17 * sample_rate)))
    for lag in lags:
        strength = 0.5 * distance * np.exp(-lag / 0.08) * rng.choice((-1, 1))
        begin = int(lag * sample_rate)
        out[begin : begin + len(direct)] += np.float32(strength) * direct
    return out


def _contrast(
    wave: Floats, species: Sequence[SpeciesSource], sample_rate: int
) -> tuple[NDArray[np.float16], float]:
    """The level of each band over its own median in time, dB: (species, frames), and the step."""
    bins = spectrum(wave, sample_rate)
    rows = [bins.band(s.low, s.high) / bins.median_level(s.low, s.high) ** 2 for s in species]
    return (10 * np.log10(np.maximum(np.stack(rows), 1e-6))).astype(np.float16), bins.step


def _check(
    config: SimulationConfig,
    species: Sequence[SpeciesSource],
    backgrounds: Sequence[BackgroundSource],
) -> None:
    if not species or not backgrounds:
        raise UserError(
            "E_SIMULATION_INPUT",
            f"{len(species)} species and {len(backgrounds)} backgrounds to simulate",
            "add at least one of each",
        )
    for source in species:
        if source.duration > config.seconds:
            raise UserError(
                "E_SIMULATION_SETTING",
                f"{source.name}: calls of {source.duration:g} s do not fit into recordings of "
                f"{config.seconds:g} s",
                "make the recordings longer",
            )
        if source.high > config.sample_rate / 2:
            raise UserError(
                "E_SIMULATION_RATE",
                f"{source.name}: a sample rate of {config.sample_rate} Hz cannot hold calls of "
                f"up to {source.high:g} Hz",
                "raise the sample rate",
            )


# The level, in dB, at which half of the calls are matched, and the slope of the logistic curve.
HALF_MATCHED, SLOPE = 4.0, 3.0
CLEAR_BEFORE, CLEAR_AFTER = 0.1, 0.3  # seconds around a call without an absent box
MIN_CONTRAST = 1.0  # dB over the band's median; quieter sound is never proposed
MAX_MATCHES = 6  # false matches of one species in one recording


def simulate_validation(
    scenes: Sequence[Scene],
    species: Sequence[SpeciesSource],
    rng: np.random.Generator,
    present_per_species: int,
    absent_per_species: int,
) -> list[Annotation]:
    """Present and absent boxes of every species, at most as many as asked for.

    A present box encloses a call of its species, and an absent one overlaps none. The boxes
    are in the order of the species, present before absent, then in the order of the recordings.

    Parameters
    ----------
    scenes : of all recordings
    species : whose boxes to simulate, in the order of ``Scene.contrast``
    rng : source of all random choices
    present_per_species : number of boxes, at most
    absent_per_species : number of boxes, at most

    Returns
    -------
    boxes : of all species
    """
    boxes: list[Annotation] = []
    for column, source in enumerate(species):
        boxes += _present_boxes(scenes, source, rng, present_per_species)
        boxes += _absent_boxes(scenes, column, source, rng, absent_per_species)
    return boxes


def _present_boxes(
    scenes: Sequence[Scene], source: SpeciesSource, rng: np.random.Generator, count: int
) -> list[Annotation]:
    calls = [
        (scene, call)
        for scene in scenes
        for call in scene.calls
        if call.species.name == source.name
    ]
    if not calls or not count:
        return []
    weight = np.array([1 / (1 + np.exp(-(call.snr - HALF_MATCHED) / SLOPE)) for _, call in calls])
    share = weight / weight.sum()
    chosen = rng.choice(len(calls), min(count, len(calls)), replace=False, p=share)
    boxes = []
    for scene, call in (calls[i] for i in sorted(chosen)):
        start = _enclosing_start(call, source.duration, scene.seconds, rng)
        boxes.append(_box(scene, source, start, present=True))
    return boxes


def _enclosing_start(
    call: PlacedCall, duration: float, seconds: float, rng: np.random.Generator
) -> float:
    """Where a box of the template's length begins that encloses the call, seldom centred."""
    earliest, latest = max(0.0, call.stop - duration), min(call.start, seconds - duration)
    centred = (call.start + call.stop - duration) / 2
    return float(np.clip(centred + rng.normal(0, 0.05), earliest, latest))


def _absent_boxes(
    scenes: Sequence[Scene],
    column: int,
    source: SpeciesSource,
    rng: np.random.Generator,
    count: int,
) -> list[Annotation]:
    """A random choice of the loudest false matches, which are three times as many."""
    matches = [
        (level, number, start)
        for number, scene in enumerate(scenes)
        for level, start in _false_matches(scene, column, source)
    ]
    matches.sort(key=lambda match: -match[0])
    pool = matches[: 3 * count]
    chosen = rng.permutation(len(pool))[:count]
    places = sorted((pool[i][1], pool[i][2]) for i in chosen)
    return [_box(scenes[number], source, start, present=False) for number, start in places]


def _false_matches(scene: Scene, column: int, source: SpeciesSource) -> list[tuple[float, float]]:
    """(dB, start) of the loudest stretches without a call of the species; none overlap."""
    length = max(1, round(source.duration / scene.step))
    last = int((scene.seconds - source.duration) / scene.step)  # the last start that fits
    contrast: NDArray[np.float32] = scene.contrast[column].astype(np.float32)
    # The mean of dB, not of power: a click is short, and does not match a long template.
    level = uniform_filter1d(contrast, length, mode="constant", origin=-(length // 2))[: last + 1]
    for call in scene.calls:
        if call.species.name == source.name:
            first = int((call.start - CLEAR_BEFORE - source.duration) / scene.step)
            level[max(0, first) : int((call.stop + CLEAR_AFTER) / scene.step) + 2] = -np.inf
    matches: list[tuple[float, float]] = []
    while len(matches) < MAX_MATCHES and len(level) and level.max() >= MIN_CONTRAST:
        start = int(level.argmax())
        matches.append((float(level[start]), start * scene.step))
        level[max(0, start - length) : start + length] = -np.inf
    return matches


def _box(scene: Scene, source: SpeciesSource, start: float, *, present: bool) -> Annotation:
    stop = min(start + source.duration, scene.seconds)
    return Annotation(
        recording=scene.recording,
        start=round(start, 4),
        stop=round(stop, 4),
        label=source.name,
        present=present,
        low=source.low,
        high=source.high,
        source="simulated",
        songtype="1",
    )
