"""Eight invented species, as pure synthesis: the voices of a demonstration without a download.

Nothing here imitates a real animal. The species are drawn from three sketches - notes that
glide, a whistle that wavers, a ratchet of noise - and made to be mistaken for one another:

- amber-trill and brass-trill share a band and differ only in how fast the notes follow;
- copper-sweep and dusk-sweep share a shape and overlap in band;
- granite-ratchet covers the trills' band, fern-whistle lies where insects hum.

Individuals differ in pitch, tempo, length and tone as siblings do; a single individual wavers
far less from call to call. All lie below 7.6 kHz, so that 16 kHz sound holds every species.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from antpitta.core.errors import UserError
from antpitta.sound.filters import bandpass, fade, to_unit
from antpitta.sound.species_sources import SIDES, SpeciesSource, SpeciesTemplate

Floats = NDArray[np.float32]

FADE = 0.01  # seconds
INDIVIDUALS = {"train": 6, "test": 4}  # of a demonstration species


@dataclass(frozen=True)
class Individual:
    """What makes one individual: factors on a species' pitch, tempo, length and tone."""

    pitch: float = 1.0  # on every frequency
    tempo: float = 1.0  # on every rate
    length: float = 1.0  # share of the notes that it sings, at most 1
    bend: float = 1.0  # how a glide is curved; above 1 it stays low for longer
    tone: float = 1.0  # on the strength of the overtones

    def once(self, rng: np.random.Generator) -> "Individual":
        """The same individual in one of its calls: no two are alike."""
        return Individual(
            pitch=self.pitch * _near(rng, 0.004),
            tempo=self.tempo * _near(rng, 0.01),
            length=min(1.0, self.length * _near(rng, 0.05)),
            bend=self.bend,
            tone=self.tone,
        )


Draw = Callable[[Individual, np.random.Generator, int], Floats]  # (singer, rng, sample_rate)


@dataclass(frozen=True)
class SyntheticSpecies(SpeciesTemplate):
    """An invented species: its template, and how its call is drawn."""

    draw: Draw


def draw_individual(rng: np.random.Generator) -> Individual:
    """A new individual."""
    return Individual(
        pitch=_near(rng, 0.02),
        tempo=_near(rng, 0.03),
        length=float(rng.uniform(0.7, 1.0)),
        bend=float(rng.uniform(0.7, 1.4)),
        tone=float(rng.uniform(0.5, 1.2)),
    )


def call(
    caller: SyntheticSpecies, who: Individual, rng: np.random.Generator, sample_rate: int
) -> Floats:
    """One call of one individual, unit RMS, faded at both ends, shorter than the template."""
    wave = caller.draw(who.once(rng), rng, sample_rate)
    return to_unit(fade(wave, FADE, sample_rate))


def notes(
    begin: float,
    end: float,
    count: int,
    per_second: float,
    width: float,
    overtones: tuple[float, ...] = (),
) -> Draw:
    """Notes of ``width`` seconds that glide from ``begin`` to ``end`` Hz.

    ``overtones`` are the amplitudes of the second, third ... partial beside 1 for the first;
    partials above Nyquist are left out.
    """

    def draw(who: Individual, rng: np.random.Generator, sample_rate: int) -> Floats:
        sung = max(1, round(count * who.length)) if count > 1 else 1
        # A lone note is stretched by what shortens a row of them.
        lasts = width / who.tempo * (who.length if count == 1 else 1.0)
        period = 1 / (per_second * who.tempo)
        out = np.zeros(int(((sung - 1) * period + lasts) * sample_rate) + 1, np.float32)
        for i in range(sung):
            glide = np.linspace(0, 1, int(lasts * sample_rate), dtype=np.float32) ** who.bend
            pitch = who.pitch * (begin + (end - begin) * glide) * _near(rng, 0.002)
            note = _partials(pitch, (1.0, *(who.tone * a for a in overtones)), sample_rate)
            swell = 0.6 + 0.4 * np.sin(np.pi * (i + 1) / (sung + 1))
            at = int(i * period * sample_rate)
            out[at : at + len(note)] += swell * fade(note, 0.2 * lasts, sample_rate)
        return out

    return draw


def whistle(pitch: float, depth: float, per_second: float, seconds: float) -> Draw:
    """A tone of ``pitch`` Hz that wavers by the share ``depth``, ``per_second`` times."""

    def draw(who: Individual, rng: np.random.Generator, sample_rate: int) -> Floats:
        time = np.arange(int(seconds * who.length * sample_rate), dtype=np.float32) / sample_rate
        turn = 2 * np.pi * (per_second * who.tempo * time + rng.random())
        line = (who.pitch * pitch * (1 + depth * np.sin(turn))).astype(np.float32)
        return fade(_partials(line, (1.0,), sample_rate), 0.1, sample_rate)

    return draw


def ratchet(low: float, high: float, slow: float, fast: float, seconds: float) -> Draw:
    """Bursts of noise between ``low`` and ``high`` Hz, from ``slow`` to ``fast`` a second."""

    def draw(who: Individual, rng: np.random.Generator, sample_rate: int) -> Floats:
        samples = int(seconds * who.length * sample_rate)
        rate = who.tempo * np.linspace(slow, fast, samples)
        phase = np.cumsum(rate) / sample_rate % 1
        burst = np.exp(-phase / rate / 0.012)  # each dies away within 12 ms
        noise = (rng.standard_normal(samples) * burst).astype(np.float32)
        return bandpass(noise, low * who.pitch, high * who.pitch, sample_rate)

    return draw


CALLERS: tuple[SyntheticSpecies, ...] = (
    SyntheticSpecies("amber-trill", 2800, 3700, 1.7, notes(3050, 3400, 10, 7, 0.055)),
    SyntheticSpecies("brass-trill", 2800, 3700, 1.7, notes(3050, 3400, 18, 13, 0.035)),
    SyntheticSpecies("copper-sweep", 1000, 2100, 1.2, notes(1150, 1900, 1, 1, 0.9, (0.15,))),
    SyntheticSpecies("dusk-sweep", 1450, 3000, 1.2, notes(1650, 2700, 1, 1, 0.9, (0.15,))),
    SyntheticSpecies("ember-hoot", 400, 1600, 1.9, notes(480, 440, 4, 2.5, 0.28, (0.7, 0.4))),
    SyntheticSpecies("fern-whistle", 4000, 5300, 1.6, whistle(4600, 0.07, 7, 1.4)),
    SyntheticSpecies("granite-ratchet", 2200, 5400, 1.2, ratchet(2300, 5200, 11, 26, 1.0)),
    SyntheticSpecies("hail-tink", 5500, 7600, 0.9, notes(7100, 6000, 4, 6, 0.09)),
)


def demo_species(sample_rate: int, side: str, seed: int) -> tuple[SpeciesSource, ...]:
    """The invented species, each sung by individuals that the other side never hears.

    Raises UserError where the sample rate cannot hold a species.
    """
    top = max(caller.high for caller in CALLERS)
    if sample_rate < 2 * top:
        raise UserError(
            "E_TODO",
            f"sample rate {sample_rate} cannot hold calls up to {top:g} Hz",
            "take 16000 or more",
        )
    voices = []
    for number, caller in enumerate(CALLERS):
        rng = np.random.default_rng([seed, SIDES.index(side), number])
        singers = tuple(
            partial(_sing, caller, draw_individual(rng), sample_rate)
            for _ in range(INDIVIDUALS[side])
        )
        voices.append(SpeciesSource(caller.name, caller.low, caller.high, caller.duration, singers))
    return tuple(voices)


def _sing(
    caller: SyntheticSpecies, who: Individual, sample_rate: int, rng: np.random.Generator
) -> Floats:
    return call(caller, who, rng, sample_rate)


def _near(rng: np.random.Generator, spread: float) -> float:
    """A factor about 1; never further than two and a half times its usual deviation."""
    return float(np.exp(spread * np.clip(rng.standard_normal(), -2.5, 2.5)))


def _partials(pitch: Floats, strengths: tuple[float, ...], sample_rate: int) -> Floats:
    """A tone that follows ``pitch`` (samples,), with partials at its whole multiples."""
    phase = 2 * np.pi * np.cumsum(pitch, dtype=np.float64) / sample_rate
    out = np.zeros(len(pitch), np.float32)
    top = float(pitch.max()) if len(pitch) else 0.0
    for number, strength in enumerate(strengths, start=1):
        if number * top < sample_rate / 2:
            out += strength * np.sin(number * phase).astype(np.float32)
    return out
