"""The background of a soundscape: noise, weather, insects, and distractors that are no species.

The distractors matter most. Each resembles one of the synthetic species (a trill at another rate,
a sweep that falls, a whistle without vibrato, a rustle, a click), so that an absent box holds
something that could be confused with a call, and the band alone does not tell them apart.

A site keeps its character (colour of the noise, pitch of the insects). Soundscapes of one site
resemble each other, and the sites of the test split are not in the training split.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from antpitta.sound.filters import bandpass, fade_seconds, spectrum, to_unit_rms
from antpitta.sound.species_sources import SPLITS
from antpitta.sound.synthetic_species import Synthesizer, draw_individual, notes, ratchet, whistle

Floats = NDArray[np.float32]
# (rng, samples) -> that many samples, unit RMS
BackgroundSource = Callable[[np.random.Generator, int], Floats]
# the same, but there may be fewer samples, at any level
ClipSource = Callable[[np.random.Generator, int], Floats]

SITES = {"train": 6, "test": 4}  # of the demonstration
CROSSFADE = 0.25  # seconds over which two stretches of a short clip are blended


@dataclass(frozen=True)
class Ambience:
    """The background sound of one site.

    Parameters
    ----------
    exponent : of the noise: 0 white, 1 pink, 2 brown
    wind : RMS beside the noise's 1
    rain : RMS of the rain while it rains
    insects : Hz, one value for each insect
    distractors : sounds per second
    """

    exponent: float
    wind: float
    rain: float
    insects: tuple[float, ...]
    distractors: float


def draw_ambience(rng: np.random.Generator) -> Ambience:
    """A random site.

    Parameters
    ----------
    rng : source of all random choices

    Returns
    -------
    ambience : of a new site
    """
    return Ambience(
        exponent=float(rng.uniform(0.8, 1.5)),
        wind=float(rng.uniform(0.3, 2.0)),
        rain=float(rng.uniform(0.1, 0.5)),
        insects=tuple(float(f) for f in rng.uniform(3800, 7600, rng.integers(0, 3))),
        distractors=float(rng.uniform(0.2, 0.45)),
    )


def coloured_noise(
    rng: np.random.Generator, seconds: float, sample_rate: int, exponent: float
) -> Floats:
    """Noise with a power of 1/f to the ``exponent``, flat below 50 Hz; unit RMS, (samples,).

    Parameters
    ----------
    rng : source of all random choices
    seconds : length
    sample_rate : Hz
    exponent : 0 white, 1 pink, 2 brown

    Returns
    -------
    wave : (samples,), unit RMS
    """
    samples = round(seconds * sample_rate)
    size = fft.next_fast_len(samples, real=True)
    frequency = fft.rfftfreq(size, 1 / sample_rate)
    gain = (np.maximum(frequency, 50.0) ** (-exponent / 2)).astype(np.float32)
    white = rng.standard_normal(size, dtype=np.float32)
    return to_unit_rms(fft.irfft(fft.rfft(white) * gain, size)[:samples])


def draw_background(
    rng: np.random.Generator, seconds: float, sample_rate: int, ambience: Ambience
) -> Floats:
    """A stretch of sound at a site, with its distractors; unit RMS, (samples,).

    Parameters
    ----------
    rng : source of all random choices
    seconds : length
    sample_rate : Hz
    ambience : of the site

    Returns
    -------
    wave : (samples,), unit RMS
    """
    samples = round(seconds * sample_rate)
    wave = coloured_noise(rng, seconds, sample_rate, ambience.exponent)
    gusts = _loudness(rng, samples, sample_rate, 0.3)
    wave += ambience.wind * gusts * coloured_noise(rng, seconds, sample_rate, 3.0)
    if rng.random() < 0.25:
        wave += ambience.rain * _rain(rng, samples, sample_rate)
    for pitch in ambience.insects:
        if rng.random() < 0.6:
            level = spectrum(wave, sample_rate).median_level(pitch - 150, pitch + 150)
            gain = level * 10 ** (rng.uniform(0, 12) / 20)
            wave += gain * _insects(rng, samples, sample_rate, pitch)
    _add_distractors(wave, rng, sample_rate, rng.poisson(ambience.distractors * seconds))
    return to_unit_rms(wave)


def demo_backgrounds(sample_rate: int, split: str, seed: int) -> tuple[BackgroundSource, ...]:
    """The sites of the demonstration; the two splits share none.

    Parameters
    ----------
    sample_rate : Hz
    split : one of :data:`antpitta.sound.species_sources.SPLITS`
    seed : of all random choices

    Returns
    -------
    sources : one for each site
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), 1000])
    return tuple(
        partial(_render_site, draw_ambience(rng), sample_rate) for _ in range(SITES[split])
    )


def background_source(clips: Sequence[ClipSource], sample_rate: int) -> BackgroundSource:
    """Real backgrounds as one source: a stretch of one, half the time with a second one at half
    its level.

    Parameters
    ----------
    clips : one source of sound for each real background
    sample_rate : Hz

    Returns
    -------
    source : renders backgrounds of any length
    """
    if not clips:
        raise ValueError("a background source without clips")

    def render(rng: np.random.Generator, samples: int) -> Floats:
        wave = _fill(clips[int(rng.integers(len(clips)))], rng, samples, sample_rate)
        if rng.random() < 0.5:
            second = clips[int(rng.integers(len(clips)))]
            wave = wave + 0.5 * _fill(second, rng, samples, sample_rate)
        return to_unit_rms(wave)

    return render


def _render_site(
    ambience: Ambience, sample_rate: int, rng: np.random.Generator, samples: int
) -> Floats:
    return draw_background(rng, samples / sample_rate, sample_rate, ambience)


def _fill(clip: ClipSource, rng: np.random.Generator, samples: int, sample_rate: int) -> Floats:
    """Stretches of one clip, blended end to end until they are long enough; unit RMS."""
    wave = to_unit_rms(clip(rng, samples))
    while len(wave) < samples:
        following = to_unit_rms(clip(rng, samples))
        overlap = min(int(CROSSFADE * sample_rate), len(wave) // 2, len(following) // 2)
        if overlap == 0:
            raise ValueError("a background clip without sound")
        phase = np.linspace(0, np.pi / 2, overlap, dtype=np.float32)
        blend = wave[-overlap:] * np.cos(phase) + following[:overlap] * np.sin(phase)
        wave = np.concatenate([wave[:-overlap], blend, following[overlap:]])
    return wave[:samples]


def _loudness(rng: np.random.Generator, samples: int, sample_rate: int, knots: float) -> Floats:
    """A loudness that varies around 1, with ``knots`` turning points per second."""
    count = max(4, round(samples / sample_rate * knots) + 2)
    level = np.exp(rng.normal(0, 0.6, count))
    return np.interp(np.linspace(0, count - 1, samples), np.arange(count), level).astype(np.float32)


def _rain(rng: np.random.Generator, samples: int, sample_rate: int) -> Floats:
    """Drops on leaves: many short bursts of noise, in showers."""
    drops = np.zeros(samples, np.float32)
    count = rng.poisson(samples / sample_rate * 60)
    drops[rng.integers(0, samples, count)] = rng.lognormal(0, 0.8, count)
    size = int(0.01 * sample_rate)
    splash = rng.standard_normal(size) * np.exp(-np.arange(size) / (0.002 * sample_rate))
    out = np.convolve(drops, splash.astype(np.float32))[:samples]
    return to_unit_rms(
        np.asarray(out * _loudness(rng, samples, sample_rate, 0.5), dtype=np.float32)
    )


def _insects(rng: np.random.Generator, samples: int, sample_rate: int, pitch: float) -> Floats:
    """A hum about 200 Hz wide whose loudness varies slowly."""
    width = rng.uniform(60, 180)
    white = rng.standard_normal(samples, dtype=np.float32)
    top = min(pitch + width, sample_rate / 2)
    hum = bandpass(white, min(pitch, top - 100) - width, top, sample_rate)
    return to_unit_rms(hum * _loudness(rng, samples, sample_rate, 0.2))


def _add_distractors(wave: Floats, rng: np.random.Generator, sample_rate: int, count: int) -> None:
    """Add ``count`` sounds that no species makes to ``wave``, 3 to 18 dB above their band."""
    bins = spectrum(wave, sample_rate)
    for _ in range(count):
        low, high, synthesize = _distractor(rng)
        sound = synthesize(draw_individual(rng), rng, sample_rate)
        sound = to_unit_rms(fade_seconds(sound, 0.003, sample_rate))[: len(wave)]
        start = int(rng.integers(0, len(wave) - len(sound) + 1))
        gain = bins.median_level(low, high) * 10 ** (rng.uniform(3, 18) / 20)
        wave[start : start + len(sound)] += gain * sound


def _distractor(rng: np.random.Generator) -> tuple[float, float, Synthesizer]:
    """The band of one sound that is none of the species, and the function that makes it."""

    def choose(*values: float) -> float:
        return float(rng.choice(values)) * float(rng.uniform(0.93, 1.07))

    match int(rng.integers(8)):
        case 0:  # the sweeps' band, but falling
            high = choose(1900, 2700)
            low = float(rng.uniform(0.5, 0.7)) * high
            synthesize = notes(high, low, 1, 1, choose(0.5, 0.9), (0.15,))
        case 1:  # a whistle without vibrato
            pitch = choose(1500, 2200, 3200, 4600, 6500)
            low, high = pitch - 200, pitch + 200
            synthesize = whistle(pitch, 0.004, 3, choose(0.5, 1.0, 1.5))
        case 2:  # the trills' band: too slow, or too fast
            low, rate = choose(3100), choose(3.5, 28)
            high = 1.1 * low
            synthesize = notes(low, high, round(1.2 * rate), rate, 0.4 / rate)
        case 3:  # a rustle: noise without a rhythm
            low = choose(1500, 2500, 4000)
            high = min(2.2 * low, 7500)
            synthesize = ratchet(low, high, 200, 200, choose(0.3, 0.7))
        case 4:  # clicks
            low, high = choose(500, 1000, 2500), 7500
            synthesize = ratchet(low, high, choose(1, 3), choose(2, 5), choose(0.2, 1.0))
        case 5:  # a low moan that falls, in the hoot's band
            top = choose(600, 800)
            low, high = 300, 2 * top
            synthesize = notes(top, 0.6 * top, 1, 1, choose(0.6, 1.0), (0.6, 0.3))
        case 6:  # high notes that rise instead of falling
            low = choose(5900, 6300)
            high = low + 1000
            synthesize = notes(low, high, 3, choose(4, 9), 0.08)
        case _:  # a whistle with a slower or faster vibrato than the species
            pitch = choose(4000, 4600, 5200)
            low, high = 0.93 * pitch, 1.07 * pitch
            synthesize = whistle(pitch, 0.05, choose(2.5, 16), choose(0.7, 1.2))
    return low, high, synthesize
