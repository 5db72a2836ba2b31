"""What a soundscape is laid over: noise, weather, insects, and strangers that are no species.

The strangers matter most. Each is made to be mistaken for one of the invented species - a
trill at another rate, a sweep that falls, a whistle that does not waver, a rustle, a click -
so that an absent box has something in it to be wrong about, and a band alone tells nothing.

A place keeps its character (colour of the noise, pitch of the insects), so that soundscapes
of one place resemble each other and those of the test side are places never heard before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from antpitta.sound.filters import bandpass, fade, spectrum, to_unit
from antpitta.sound.species_sources import SIDES
from antpitta.sound.synthetic_species import Draw, draw_individual, notes, ratchet, whistle

Floats = NDArray[np.float32]
BackgroundSource = Callable[
    [np.random.Generator, int], Floats
]  # (rng, samples): that many, unit RMS
Source = Callable[[np.random.Generator, int], Floats]  # the same, but may give fewer samples

PLACES = {"train": 6, "test": 4}  # of a demonstration
SEAM = 0.25  # seconds over which two stretches of a short source are blended


@dataclass(frozen=True)
class Ambience:
    """What one recorder hears all year round."""

    exponent: float  # of the noise: 0 white, 1 pink, 2 brown
    wind: float  # RMS beside the noise's 1
    rain: float  # RMS of the rain when it rains
    insects: tuple[float, ...]  # Hz
    strangers: float  # a second


def draw_ambience(rng: np.random.Generator) -> Ambience:
    """A new place."""
    return Ambience(
        exponent=float(rng.uniform(0.8, 1.5)),
        wind=float(rng.uniform(0.3, 2.0)),
        rain=float(rng.uniform(0.1, 0.5)),
        insects=tuple(float(f) for f in rng.uniform(3800, 7600, rng.integers(0, 3))),
        strangers=float(rng.uniform(0.2, 0.45)),
    )


def coloured_noise(
    rng: np.random.Generator, seconds: float, sample_rate: int, exponent: float
) -> Floats:
    """Noise whose power falls as 1/f to the ``exponent``, flat below 50 Hz; unit RMS."""
    samples = round(seconds * sample_rate)
    size = fft.next_fast_len(samples, real=True)
    frequency = fft.rfftfreq(size, 1 / sample_rate)
    gain = (np.maximum(frequency, 50.0) ** (-exponent / 2)).astype(np.float32)
    white = rng.standard_normal(size, dtype=np.float32)
    return to_unit(fft.irfft(fft.rfft(white) * gain, size)[:samples])


def draw_background(
    rng: np.random.Generator, seconds: float, sample_rate: int, where: Ambience
) -> Floats:
    """One stretch of sound at a place, with its strangers; unit RMS."""
    samples = round(seconds * sample_rate)
    wave = coloured_noise(rng, seconds, sample_rate, where.exponent)
    gusts = _slow(rng, samples, sample_rate, 0.3)
    wave += where.wind * gusts * coloured_noise(rng, seconds, sample_rate, 3.0)
    if rng.random() < 0.25:
        wave += where.rain * _rain(rng, samples, sample_rate)
    for pitch in where.insects:
        if rng.random() < 0.6:
            floor = spectrum(wave, sample_rate).floor(pitch - 150, pitch + 150)
            loud = floor * 10 ** (rng.uniform(0, 12) / 20)
            wave += loud * _insects(rng, samples, sample_rate, pitch)
    _add_strangers(wave, rng, sample_rate, rng.poisson(where.strangers * seconds))
    return to_unit(wave)


def demo_backgrounds(sample_rate: int, side: str, seed: int) -> tuple[BackgroundSource, ...]:
    """The places of a demonstration; the two sides share none."""
    rng = np.random.default_rng([seed, SIDES.index(side), 1000])
    return tuple(partial(_lay, draw_ambience(rng), sample_rate) for _ in range(PLACES[side]))


def background_source(sources: Sequence[Source], sample_rate: int) -> BackgroundSource:
    """Real backgrounds as one bed: a stretch of one, and half the time another softly over it."""
    if not sources:
        raise ValueError("no background to lay a soundscape over")

    def lay(rng: np.random.Generator, samples: int) -> Floats:
        wave = _filled(sources[int(rng.integers(len(sources)))], rng, samples, sample_rate)
        if rng.random() < 0.5:
            other = sources[int(rng.integers(len(sources)))]
            wave = wave + 0.5 * _filled(other, rng, samples, sample_rate)
        return to_unit(wave)

    return lay


def _lay(where: Ambience, sample_rate: int, rng: np.random.Generator, samples: int) -> Floats:
    return draw_background(rng, samples / sample_rate, sample_rate, where)


def _filled(source: Source, rng: np.random.Generator, samples: int, sample_rate: int) -> Floats:
    """Stretches of one source, blended end to end until they last; unit RMS."""
    seam = int(SEAM * sample_rate)
    wave = to_unit(source(rng, samples))
    while len(wave) < samples:
        more = to_unit(source(rng, samples))
        over = min(seam, len(wave) // 2, len(more) // 2)
        if over == 0:
            raise ValueError("a background gave no sound")
        turn = np.linspace(0, np.pi / 2, over, dtype=np.float32)
        blend = wave[-over:] * np.cos(turn) + more[:over] * np.sin(turn)
        wave = np.concatenate([wave[:-over], blend, more[over:]])
    return wave[:samples]


def _slow(rng: np.random.Generator, samples: int, sample_rate: int, knots: float) -> Floats:
    """A wandering loudness about 1, with ``knots`` turning points a second."""
    count = max(4, round(samples / sample_rate * knots) + 2)
    level = np.exp(rng.normal(0, 0.6, count))
    return np.interp(np.linspace(0, count - 1, samples), np.arange(count), level).astype(np.float32)


def _rain(rng: np.random.Generator, samples: int, sample_rate: int) -> Floats:
    """Drops on leaves: showers of short bursts, each over a band of its own."""
    drops = np.zeros(samples, np.float32)
    count = rng.poisson(samples / sample_rate * 60)
    drops[rng.integers(0, samples, count)] = rng.lognormal(0, 0.8, count)
    size = int(0.01 * sample_rate)
    splash = rng.standard_normal(size) * np.exp(-np.arange(size) / (0.002 * sample_rate))
    out = np.convolve(drops, splash.astype(np.float32))[:samples]
    return to_unit(np.asarray(out * _slow(rng, samples, sample_rate, 0.5), dtype=np.float32))


def _insects(rng: np.random.Generator, samples: int, sample_rate: int, pitch: float) -> Floats:
    """A steady hum about 200 Hz wide, slowly swelling."""
    width = rng.uniform(60, 180)
    white = rng.standard_normal(samples, dtype=np.float32)
    top = min(pitch + width, sample_rate / 2)
    hum = bandpass(white, min(pitch, top - 100) - width, top, sample_rate)
    return to_unit(hum * _slow(rng, samples, sample_rate, 0.2))


def _add_strangers(wave: Floats, rng: np.random.Generator, sample_rate: int, count: int) -> None:
    """Adds ``count`` sounds to ``wave`` that no species makes, 3 to 18 dB over their band."""
    heard = spectrum(wave, sample_rate)
    for _ in range(count):
        low, high, draw = _stranger(rng)
        sound = to_unit(fade(draw(draw_individual(rng), rng, sample_rate), 0.003, sample_rate))
        sound = sound[: len(wave)]
        at = int(rng.integers(0, len(wave) - len(sound) + 1))
        loud = heard.floor(low, high) * 10 ** (rng.uniform(3, 18) / 20)
        wave[at : at + len(sound)] += loud * sound


def _stranger(rng: np.random.Generator) -> tuple[float, float, Draw]:
    """The band and the sketch of one sound that is not any of the species."""

    def pick(*among: float) -> float:
        return float(rng.choice(among)) * float(rng.uniform(0.93, 1.07))

    match int(rng.integers(8)):
        case 0:  # the sweeps' band, but falling
            high = pick(1900, 2700)
            low = float(rng.uniform(0.5, 0.7)) * high
            draw = notes(high, low, 1, 1, pick(0.5, 0.9), (0.15,))
        case 1:  # a whistle that holds its pitch
            pitch = pick(1500, 2200, 3200, 4600, 6500)
            low, high = pitch - 200, pitch + 200
            draw = whistle(pitch, 0.004, 3, pick(0.5, 1.0, 1.5))
        case 2:  # the trills' band: too slow, or too fast
            low, rate = pick(3100), pick(3.5, 28)
            high = 1.1 * low
            draw = notes(low, high, round(1.2 * rate), rate, 0.4 / rate)
        case 3:  # a rustle: noise without a beat
            low = pick(1500, 2500, 4000)
            high = min(2.2 * low, 7500)
            draw = ratchet(low, high, 200, 200, pick(0.3, 0.7))
        case 4:  # clicks
            low, high = pick(500, 1000, 2500), 7500
            draw = ratchet(low, high, pick(1, 3), pick(2, 5), pick(0.2, 1.0))
        case 5:  # a low moan that falls, in the hoot's band
            top = pick(600, 800)
            low, high = 300, 2 * top
            draw = notes(top, 0.6 * top, 1, 1, pick(0.6, 1.0), (0.6, 0.3))
        case 6:  # high notes that rise instead of falling
            low = pick(5900, 6300)
            high = low + 1000
            draw = notes(low, high, 3, pick(4, 9), 0.08)
        case _:  # a whistle that wavers, but slower or faster than the species
            pitch = pick(4000, 4600, 5200)
            low, high = 0.93 * pitch, 1.07 * pitch
            draw = whistle(pitch, 0.05, pick(2.5, 16), pick(0.7, 1.2))
    return low, high, draw
