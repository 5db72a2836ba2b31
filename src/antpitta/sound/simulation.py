"""Soundscapes whose whole truth is known, one at a time.

What makes them hard is what makes real ones hard, and is drawn here on purpose:

- A few species call almost everywhere and most are rare; how many recordings hold a species
  is fixed rather than drawn, so that a small simulation never loses a species altogether.
- A caller's distance, not the call, sets how loud it is: all calls of one individual in one
  recording come from one place, duller and with more echo the further it is.
- Signal-to-noise is measured in the species' own band, against a middling moment of it.
- Calls come in bouts. Calls of one species never overlap, so that every event is one call.

Training and test recordings share the plan, and neither beds nor individuals: the caller of
:func:`simulate` hands in those of the side. Recording ``i`` sounds the same however the other
recordings were made, and no random state outlives a recording.

The boxes that template matching leaves once an expert has looked through its matches.

The matcher slides a species' template over every recording and proposes what is loud in its
band. The expert says present where the species calls, absent where it does not, and is never
asked about anything else: all else stays unknown. Three things follow, and are kept:

- Loud calls are proposed more often, so present boxes come from near callers.
- An absent box holds something - another species, a stranger, a gust - because silence is
  never proposed.
- All boxes of a species are as long and as wide as its template.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import uniform_filter1d

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.sound.ambience import BackgroundSource
from antpitta.sound.filters import spectrum, to_unit
from antpitta.sound.species_sources import SIDES, SpeciesSource

Floats = NDArray[np.float32]

ECHOES = 5  # taps of a far caller's echo
CLOSEST = 0.15  # seconds of silence between two calls of one species
PEAK = 0.98  # of full scale; a louder recording is turned down, never clipped


@dataclass(frozen=True)
class Simulation:
    """The plan: how much to make, how rare the species, how far the callers."""

    train: int = 60  # recordings
    test: int = 40
    seconds: float = 30.0
    sample_rate: int = 24_000
    present: int = 8  # boxes a species, at most
    absent: int = 40
    seed: int = 1
    commonest: float = 0.9  # share of the recordings
    rarest: float = 0.08
    quietest: float = -4.0  # dB over the band's own level
    loudest: float = 14.0

    def __post_init__(self) -> None:
        if min(self.train, self.test) < 0 or self.train + self.test < 1:
            raise UserError("E_TODO", "a simulation without recordings", "ask for one or more")
        if self.seconds <= 0 or self.sample_rate <= 0 or min(self.present, self.absent) < 0:
            raise UserError(
                "E_TODO", "seconds, sample rate and box counts of a simulation are positive"
            )
        if not 0 < self.rarest <= self.commonest <= 1:
            raise UserError(
                "E_TODO", "the rarest species' share lies between 0 and the commonest's, 1"
            )
        if self.quietest > self.loudest:
            raise UserError("E_TODO", "the quietest caller is louder than the loudest", "swap them")

    def recordings(self, side: str) -> int:
        return (self.train, self.test)[SIDES.index(side)]


@dataclass(frozen=True)
class PlacedCall:
    """One call as it was placed; ``stop`` is where the call ends, its echo left out."""

    progress: SpeciesSource
    start: float
    stop: float
    snr: float  # dB over the level of the voice's band
    singer: int  # which of the voice's singers


@dataclass(frozen=True)
class Scene:
    """All that is kept of a soundscape once its sound is written."""

    recording: str
    seconds: float
    calls: tuple[PlacedCall, ...]
    contrast: NDArray[np.float16]  # (species, frames), dB over the band's own median
    step: float  # seconds from frame to frame

    @property
    def truth(self) -> list[Annotation]:
        """Every call, as a listener who misses nothing would box it."""
        return [
            Annotation(
                recording=self.recording,
                start=call.start,
                stop=call.stop,
                label=call.progress.name,
                low=call.progress.low,
                high=call.progress.high,
                source="simulated",
            )
            for call in self.calls
        ]


@dataclass(frozen=True)
class Soundscape:
    wave: Floats
    scene: Scene


def prevalences(plan: Simulation, species: int) -> NDArray[np.float64]:
    """The share of recordings that holds each species: geometric steps, in random order."""
    rng = np.random.default_rng([plan.seed, 2])
    return rng.permutation(np.geomspace(plan.commonest, plan.rarest, species))


def assign_species(plan: Simulation, side: str, species: int) -> NDArray[np.bool_]:
    """Which species sounds where: its share of the recordings, but at least two of them."""
    rng = np.random.default_rng([plan.seed, SIDES.index(side), 3])
    recordings = plan.recordings(side)
    sounds = np.zeros((recordings, species), dtype=bool)
    for column, share in enumerate(prevalences(plan, species)):
        count = min(recordings, max(2, round(share * recordings)))
        sounds[rng.permutation(recordings)[:count], column] = True
    return sounds


def simulate(
    plan: Simulation, side: str, voices: Sequence[SpeciesSource], beds: Sequence[BackgroundSource]
) -> Iterator[Soundscape]:
    """The soundscapes of one side, named ``train0000``, ``train0001`` ...

    Raises UserError where a template does not fit the recordings.
    """
    _check(plan, voices, beds)
    for number, sounds in enumerate(assign_species(plan, side, len(voices))):
        rng = np.random.default_rng([plan.seed, SIDES.index(side), 4, number])
        bed = beds[int(rng.integers(len(beds)))]
        yield simulate_soundscape(f"{side}{number:04d}", plan, voices, sounds, bed, rng)


def simulate_soundscape(
    recording: str,
    plan: Simulation,
    voices: Sequence[SpeciesSource],
    sounds: NDArray[np.bool_],
    bed: BackgroundSource,
    rng: np.random.Generator,
) -> Soundscape:
    """One recording in which exactly the voices marked in ``sounds`` (species,) call."""
    samples = round(plan.seconds * plan.sample_rate)
    wave = bed(rng, samples) * np.float32(10 ** (rng.uniform(-42, -30) / 20))
    quiet = spectrum(wave, plan.sample_rate)
    calls: list[PlacedCall] = []
    for progress, is_here in zip(voices, sounds, strict=True):
        if is_here:
            calls += _bouts(wave, progress, plan, quiet.floor(progress.low, progress.high), rng)
    wave *= np.float32(min(1.0, PEAK / max(float(np.abs(wave).max()), 1e-9)))
    contrast, step = _contrast(wave, voices, plan.sample_rate)
    calls.sort(key=lambda call: call.start)
    return Soundscape(wave, Scene(recording, plan.seconds, tuple(calls), contrast, step))


def _bouts(
    wave: Floats, progress: SpeciesSource, plan: Simulation, floor: float, rng: np.random.Generator
) -> list[PlacedCall]:
    """Lets one or more individuals of a species call into ``wave``; at least one call."""
    calls: list[PlacedCall] = []
    for _ in range(1 + rng.poisson(0.4)):
        singer = int(rng.integers(len(progress.singers)))
        distance = float(rng.random())  # 0 is next to the microphone
        loud = plan.loudest + distance * (plan.quietest - plan.loudest)
        count = int(rng.integers(1, 6))
        period = progress.duration * rng.uniform(1.2, 3.0)
        start = rng.uniform(0, max(plan.seconds - progress.duration, 0))
        for _ in range(count):
            sound = progress.singers[singer](rng)
            snr = loud + float(rng.normal(0, 1))
            at = int(start * plan.sample_rate)
            begin, end = at / plan.sample_rate, (at + len(sound)) / plan.sample_rate
            start += period * rng.uniform(0.8, 1.25)
            if end > plan.seconds:
                break
            if any(begin < c.stop + CLOSEST and c.start < end + CLOSEST for c in calls):
                continue
            _place(wave, at, _afar(sound, distance, plan.sample_rate, rng), floor, snr)
            calls.append(PlacedCall(progress, begin, end, snr, singer))
    return calls


def _place(wave: Floats, at: int, sound: Floats, floor: float, snr: float) -> None:
    sound = sound[: len(wave) - at]  # an echo may outlast the recording
    wave[at : at + len(sound)] += np.float32(floor * 10 ** (snr / 20)) * sound


def _afar(sound: Floats, distance: float, sample_rate: int, rng: np.random.Generator) -> Floats:
    """A call as it arrives: duller and with more echo the further; longer than ``sound``.

    The direct sound keeps an RMS of 1, so that a signal-to-noise ratio keeps its meaning.
    """
    size = fft.next_fast_len(len(sound), real=True)
    absorbed = 10 ** (-distance * 1.5 * fft.rfftfreq(size, 1 / sample_rate) / 1000 / 20)
    near = fft.rfft(sound, size) * absorbed.astype(np.float32)
    direct = to_unit(fft.irfft(near, size)[: len(sound)].astype(np.float32))
    lags = np.sort(rng.uniform(0.015, 0.16, ECHOES))
    out = np.pad(direct, (0, int(0.17 * sample_rate)))
    for lag in lags:
        strength = 0.5 * distance * np.exp(-lag / 0.08) * rng.choice((-1, 1))
        begin = int(lag * sample_rate)
        out[begin : begin + len(direct)] += np.float32(strength) * direct
    return out


def _contrast(
    wave: Floats, voices: Sequence[SpeciesSource], sample_rate: int
) -> tuple[NDArray[np.float16], float]:
    """How far each band stands out from its own median over time, in dB. (species, frames)"""
    heard = spectrum(wave, sample_rate)
    rows = [heard.band(v.low, v.high) / heard.floor(v.low, v.high) ** 2 for v in voices]
    return (10 * np.log10(np.maximum(np.stack(rows), 1e-6))).astype(np.float16), heard.step


def _check(
    plan: Simulation, voices: Sequence[SpeciesSource], beds: Sequence[BackgroundSource]
) -> None:
    if not voices or not beds:
        raise UserError("E_TODO", "a simulation needs species and backgrounds", "none were given")
    for progress in voices:
        if progress.duration > plan.seconds:
            raise UserError(
                "E_TODO",
                f"{progress.name}: calls of {progress.duration:g} s do not fit into recordings of {plan.seconds:g} s",
                "make these longer",
            )
        if progress.high > plan.sample_rate / 2:
            raise UserError(
                "E_TODO",
                f"{progress.name}: calls up to {progress.high:g} Hz do not fit a sample rate of {plan.sample_rate}",
                "raise it",
            )


HALF, SLOPE = 4.0, 3.0  # dB: a call this far over its band is matched every other time
CLEAR, ECHO = 0.1, 0.3  # seconds before and after a call that no absent box may touch
LEAST = 1.0  # dB over the band's median; what is quieter is never proposed
MATCHES = 6  # false matches that one recording may propose for one species


def simulate_validation(
    scenes: Sequence[Scene],
    voices: Sequence[SpeciesSource],
    rng: np.random.Generator,
    present_per_species: int,
    absent_per_species: int,
) -> list[Annotation]:
    """Present and absent boxes of every species, at most as many as asked for.

    A present box encloses a call of its species; an absent one meets none of them. The boxes
    come in the order of species, present before absent, then of recordings.
    """
    boxes: list[Annotation] = []
    for column, progress in enumerate(voices):
        boxes += _present(scenes, progress, rng, present_per_species)
        boxes += _absent(scenes, column, progress, rng, absent_per_species)
    return boxes


def _present(
    scenes: Sequence[Scene], progress: SpeciesSource, rng: np.random.Generator, count: int
) -> list[Annotation]:
    hits = [
        (scene, call)
        for scene in scenes
        for call in scene.calls
        if call.progress.name == progress.name
    ]
    if not hits or not count:
        return []
    weight = np.array([1 / (1 + np.exp(-(call.snr - HALF) / SLOPE)) for _, call in hits])
    share = weight / weight.sum()
    chosen = rng.choice(len(hits), min(count, len(hits)), replace=False, p=share)
    boxes = []
    for scene, call in (hits[i] for i in sorted(chosen)):
        start = _around(call, progress.duration, scene.seconds, rng)
        boxes.append(_box(scene, progress, start, present=True))
    return boxes


def _around(call: PlacedCall, duration: float, seconds: float, rng: np.random.Generator) -> float:
    """Where a box of the template's length begins that encloses the call, seldom exactly."""
    earliest, latest = max(0.0, call.stop - duration), min(call.start, seconds - duration)
    middle = (call.start + call.stop - duration) / 2
    return float(np.clip(middle + rng.normal(0, 0.05), earliest, latest))


def _absent(
    scenes: Sequence[Scene],
    column: int,
    progress: SpeciesSource,
    rng: np.random.Generator,
    count: int,
) -> list[Annotation]:
    """A draw from the loudest false matches, three times as many as are wanted."""
    matches = [
        (loud, number, start)
        for number, scene in enumerate(scenes)
        for loud, start in _false_matches(scene, column, progress)
    ]
    matches.sort(key=lambda match: -match[0])
    pool = matches[: 3 * count]
    chosen = rng.permutation(len(pool))[:count]
    found = sorted((pool[i][1], pool[i][2]) for i in chosen)
    return [_box(scenes[number], progress, start, present=False) for number, start in found]


def _false_matches(scene: Scene, column: int, progress: SpeciesSource) -> list[tuple[float, float]]:
    """(dB, start) of the loudest stretches that meet no call of the species, apart by a box."""
    length = max(1, round(progress.duration / scene.step))
    last = int((scene.seconds - progress.duration) / scene.step)  # the last start that fits
    loud: NDArray[np.float32] = scene.contrast[column].astype(np.float32)
    # The mean of dB, not of power: a click is short, and no match for a long template.
    level = uniform_filter1d(loud, length, mode="constant", origin=-(length // 2))[: last + 1]
    for call in scene.calls:
        if call.progress.name == progress.name:
            first = int((call.start - CLEAR - progress.duration) / scene.step)
            level[max(0, first) : int((call.stop + ECHO) / scene.step) + 2] = -np.inf
    found: list[tuple[float, float]] = []
    while len(found) < MATCHES and len(level) and level.max() >= LEAST:
        at = int(level.argmax())
        found.append((float(level[at]), at * scene.step))
        level[max(0, at - length) : at + length] = -np.inf
    return found


def _box(scene: Scene, progress: SpeciesSource, start: float, *, present: bool) -> Annotation:
    stop = min(start + progress.duration, scene.seconds)
    return Annotation(
        recording=scene.recording,
        start=round(start, 4),
        stop=round(stop, 4),
        label=progress.name,
        present=present,
        low=progress.low,
        high=progress.high,
        source="simulated",
        songtype="1",
    )
