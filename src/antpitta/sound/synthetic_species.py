"""Eight synthetic species for a demonstration without a download.

No real animal is imitated. The species are made from three kinds of sound (notes that glide, a
whistle with vibrato, a ratchet of noise bursts), and some are easily confused with each other:

- amber-trill and brass-trill share a band and differ only in the rate of their notes;
- copper-sweep and dusk-sweep share a shape and overlap in band;
- granite-ratchet covers the trills' band, and fern-whistle lies where insects are loud.

Individuals differ in pitch, tempo, length and tone; the calls of one individual differ far less.
All species lie below 7.6 kHz, so a sample rate of 16 kHz holds them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from antpitta.core.errors import UserError
from antpitta.sound.filters import bandpass, fade_seconds, to_unit_rms
from antpitta.sound.species_sources import SPLITS, SpeciesSource, SpeciesTemplate

Floats = NDArray[np.float32]

FADE = 0.01  # seconds
INDIVIDUALS = {"train": 6, "test": 4}  # of each species of the demonstration


@dataclass(frozen=True)
class Individual:
    """One individual, as factors on the properties of its species' call.

    Parameters
    ----------
    pitch : on every frequency
    tempo : on every rate
    length : share of the notes that it uses, at most 1
    bend : exponent of a glide; above 1 the pitch stays near the start for longer
    tone : on the amplitude of the overtones
    """

    pitch: float = 1.0
    tempo: float = 1.0
    length: float = 1.0
    bend: float = 1.0
    tone: float = 1.0

    def vary(self, rng: np.random.Generator) -> "Individual":
        """The same individual in one call: no two of its calls are equal."""
        return Individual(
            pitch=self.pitch * _factor(rng, 0.004),
            tempo=self.tempo * _factor(rng, 0.01),
            length=min(1.0, self.length * _factor(rng, 0.05)),
            bend=self.bend,
            tone=self.tone,
        )


# (individual, rng, sample rate) -> the samples of one call
Synthesizer = Callable[[Individual, np.random.Generator, int], Floats]


@dataclass(frozen=True)
class SyntheticSpecies(SpeciesTemplate):
    """A synthetic species: its template, and the function that synthesizes its call."""

    synthesize: Synthesizer


def draw_individual(rng: np.random.Generator) -> Individual:
    """A random individual.

    Parameters
    ----------
    rng : source of all random choices

    Returns
    -------
    individual : unlike any other
    """
    return Individual(
        pitch=_factor(rng, 0.02),
        tempo=_factor(rng, 0.03),
        length=float(rng.uniform(0.7, 1.0)),
        bend=float(rng.uniform(0.7, 1.4)),
        tone=float(rng.uniform(0.5, 1.2)),
    )


def synthesize_call(
    species: SyntheticSpecies, individual: Individual, rng: np.random.Generator, sample_rate: int
) -> Floats:
    """One call of one individual: unit RMS, faded at both ends, shorter than the template.

    Parameters
    ----------
    species : whose call to synthesize
    individual : which of its individuals calls
    rng : source of all random choices
    sample_rate : Hz

    Returns
    -------
    wave : (samples,)
    """
    wave = species.synthesize(individual.vary(rng), rng, sample_rate)
    return to_unit_rms(fade_seconds(wave, FADE, sample_rate))


def notes(
    begin: float,
    end: float,
    count: int,
    per_second: float,
    width: float,
    overtones: tuple[float, ...] = (),
) -> Synthesizer:
    """A row of notes that glide in pitch.

    Parameters
    ----------
    begin, end : Hz
    count : notes
    per_second : notes per second
    width : seconds of one note
    overtones : amplitudes of the second, third ... partial beside 1 for the first; partials above
        the Nyquist frequency are left out

    Returns
    -------
    synthesizer : of one call
    """

    def synthesize(who: Individual, rng: np.random.Generator, sample_rate: int) -> Floats:
        n_notes = max(1, round(count * who.length)) if count > 1 else 1
        # A single note is shortened itself; a row of notes has fewer of them.
        seconds = width / who.tempo * (who.length if count == 1 else 1.0)
        period = 1 / (per_second * who.tempo)
        out = np.zeros(int(((n_notes - 1) * period + seconds) * sample_rate) + 1, np.float32)
        for i in range(n_notes):
            glide = np.linspace(0, 1, int(seconds * sample_rate), dtype=np.float32) ** who.bend
            pitch = who.pitch * (begin + (end - begin) * glide) * _factor(rng, 0.002)
            note = _partials(pitch, (1.0, *(who.tone * a for a in overtones)), sample_rate)
            swell = 0.6 + 0.4 * np.sin(np.pi * (i + 1) / (n_notes + 1))
            start = int(i * period * sample_rate)
            faded = fade_seconds(note, 0.2 * seconds, sample_rate)
            out[start : start + len(note)] += swell * faded
        return out

    return synthesize


def whistle(pitch: float, depth: float, per_second: float, seconds: float) -> Synthesizer:
    """A tone with vibrato.

    Parameters
    ----------
    pitch : Hz
    depth : share of the pitch
    per_second : vibrato cycles per second
    seconds : length

    Returns
    -------
    synthesizer : of one call
    """

    def synthesize(who: Individual, rng: np.random.Generator, sample_rate: int) -> Floats:
        time = np.arange(int(seconds * who.length * sample_rate), dtype=np.float32) / sample_rate
        phase = 2 * np.pi * (per_second * who.tempo * time + rng.random())
        line = (who.pitch * pitch * (1 + depth * np.sin(phase))).astype(np.float32)
        return fade_seconds(_partials(line, (1.0,), sample_rate), 0.1, sample_rate)

    return synthesize


def ratchet(low: float, high: float, slow: float, fast: float, seconds: float) -> Synthesizer:
    """Bursts of noise that follow each other faster and faster.

    Parameters
    ----------
    low, high : Hz
    slow, fast : bursts per second at the start and at the end
    seconds : length

    Returns
    -------
    synthesizer : of one call
    """

    def synthesize(who: Individual, rng: np.random.Generator, sample_rate: int) -> Floats:
        samples = int(seconds * who.length * sample_rate)
        rate = who.tempo * np.linspace(slow, fast, samples)
        phase = np.cumsum(rate) / sample_rate % 1
        burst = np.exp(-phase / rate / 0.012)  # each decays within 12 ms
        noise = (rng.standard_normal(samples) * burst).astype(np.float32)
        return bandpass(noise, low * who.pitch, high * who.pitch, sample_rate)

    return synthesize


SYNTHETIC_SPECIES: tuple[SyntheticSpecies, ...] = (
    SyntheticSpecies("amber-trill", 2800, 3700, 1.7, notes(3050, 3400, 10, 7, 0.055)),
    SyntheticSpecies("brass-trill", 2800, 3700, 1.7, notes(3050, 3400, 18, 13, 0.035)),
    SyntheticSpecies("copper-sweep", 1000, 2100, 1.2, notes(1150, 1900, 1, 1, 0.9, (0.15,))),
    SyntheticSpecies("dusk-sweep", 1450, 3000, 1.2, notes(1650, 2700, 1, 1, 0.9, (0.15,))),
    SyntheticSpecies("ember-hoot", 400, 1600, 1.9, notes(480, 440, 4, 2.5, 0.28, (0.7, 0.4))),
    SyntheticSpecies("fern-whistle", 4000, 5300, 1.6, whistle(4600, 0.07, 7, 1.4)),
    SyntheticSpecies("granite-ratchet", 2200, 5400, 1.2, ratchet(2300, 5200, 11, 26, 1.0)),
    SyntheticSpecies("hail-tink", 5500, 7600, 0.9, notes(7100, 6000, 4, 6, 0.09)),
)


def demo_species(sample_rate: int, split: str, seed: int) -> tuple[SpeciesSource, ...]:
    """The synthetic species, with individuals of one of the two splits.

    Parameters
    ----------
    sample_rate : Hz
    split : one of :data:`antpitta.sound.species_sources.SPLITS`
    seed : of all random choices

    Returns
    -------
    sources : one for each species

    Raises
    ------
    UserError
        E_SIMULATION_RATE where the sample rate cannot hold a species.
    """
    highest = max(species.high for species in SYNTHETIC_SPECIES)
    if sample_rate < 2 * highest:
        raise UserError(
            "E_SIMULATION_RATE",
            f"a sample rate of {sample_rate} Hz cannot hold calls of up to {highest:g} Hz",
            "use 16000 or more",
        )
    sources = []
    for number, species in enumerate(SYNTHETIC_SPECIES):
        rng = np.random.default_rng([seed, SPLITS.index(split), number])
        individuals = tuple(
            partial(_render, species, draw_individual(rng), sample_rate)
            for _ in range(INDIVIDUALS[split])
        )
        sources.append(
            SpeciesSource(species.name, species.low, species.high, species.duration, individuals)
        )
    return tuple(sources)


def _render(
    species: SyntheticSpecies, individual: Individual, sample_rate: int, rng: np.random.Generator
) -> Floats:
    return synthesize_call(species, individual, rng, sample_rate)


def _factor(rng: np.random.Generator, spread: float) -> float:
    """A random factor near 1, at most two and a half standard deviations away."""
    return float(np.exp(spread * np.clip(rng.standard_normal(), -2.5, 2.5)))


def _partials(pitch: Floats, amplitudes: tuple[float, ...], sample_rate: int) -> Floats:
    """A tone that follows ``pitch`` (samples,), with partials at its whole multiples."""
    phase = 2 * np.pi * np.cumsum(pitch, dtype=np.float64) / sample_rate
    out = np.zeros(len(pitch), np.float32)
    highest = float(pitch.max()) if len(pitch) else 0.0
    for number, amplitude in enumerate(amplitudes, start=1):
        if number * highest < sample_rate / 2:
            out += amplitude * np.sin(number * phase).astype(np.float32)
    return out
