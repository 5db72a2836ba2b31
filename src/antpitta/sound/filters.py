"""Band-pass, fade, and the level of a frequency band over time, for simulated calls.

Edges of a band are raised cosines that lie inside it, so that nothing leaks out of the box that is
written for a call.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float32]

SILENCE = 1e-4  # RMS that an empty band counts as: a call must survive rounding to 16 bit


@dataclass(frozen=True)
class Spectrum:
    """The mean square of each frequency bin over time; the bins of a frame sum to the wave's.

    Parameters
    ----------
    power : (frames, bins)
    step : seconds from frame to frame
    bin_width : Hz
    """

    power: Floats
    step: float
    bin_width: float

    def band(self, low: float, high: float) -> Floats:
        """Mean square between ``low`` and ``high`` Hz, of one bin at least, (frames,)."""
        first = min(round(low / self.bin_width), self.power.shape[1] - 1)
        last = max(first + 1, round(high / self.bin_width))
        return np.asarray(self.power[:, first:last].sum(axis=1), dtype=np.float32)

    def median_level(self, low: float, high: float) -> float:
        """RMS of the band in the median frame: a few loud sounds do not change it."""
        return max(SILENCE, float(np.sqrt(np.median(self.band(low, high)))))


def spectrum(wave: Floats, sample_rate: int) -> Spectrum:
    """Frames of about 40 ms that overlap by half.

    Parameters
    ----------
    wave : (samples,); a wave shorter than one frame is padded
    sample_rate : Hz

    Returns
    -------
    spectrum : power over time and frequency
    """
    size = 2 ** max(4, round(np.log2(0.04 * sample_rate)))
    hop = size // 2
    if len(wave) < size:
        wave = np.pad(wave, (0, size - len(wave)))
    window = np.hanning(size).astype(np.float32)
    frames = sliding_window_view(wave, size)[::hop] * window
    power = np.abs(fft.rfft(frames, axis=1)) ** 2
    power *= 2 / (size * float((window**2).sum()))
    return Spectrum(power.astype(np.float32), hop / sample_rate, sample_rate / size)


def bandpass(wave: Floats, low: float, high: float, sample_rate: int) -> Floats:
    """Keep the sound between two frequencies, without a phase shift.

    Raised-cosine edges take a tenth of the band each.

    Parameters
    ----------
    wave : (samples,)
    low, high : Hz
    sample_rate : Hz

    Returns
    -------
    wave : (samples,)
    """
    size = fft.next_fast_len(len(wave), real=True)
    frequency = fft.rfftfreq(size, 1 / sample_rate)
    edge = 0.1 * (high - low)
    inside = np.clip(np.minimum(frequency - low, high - frequency) / edge, 0, 1)
    gain = (0.5 - 0.5 * np.cos(np.pi * inside)).astype(np.float32)
    return np.asarray(fft.irfft(fft.rfft(wave, size) * gain, size)[: len(wave)], dtype=np.float32)


def fade_seconds(wave: Floats, seconds: float, sample_rate: int) -> Floats:
    """A copy of the wave that rises from silence and falls to silence, in raised cosines.

    Parameters
    ----------
    wave : (samples,)
    seconds : length of each ramp, at most a quarter of the wave
    sample_rate : Hz

    Returns
    -------
    wave : (samples,)
    """
    samples = min(len(wave) // 4, int(seconds * sample_rate))
    rise = (0.5 - 0.5 * np.cos(np.pi * np.arange(samples) / max(samples, 1))).astype(np.float32)
    faded = wave.astype(np.float32)
    faded[:samples] *= rise
    faded[len(wave) - samples :] *= rise[::-1]
    return faded


def to_unit_rms(wave: Floats) -> Floats:
    """The wave scaled to an RMS of 1; silence stays silence.

    Parameters
    ----------
    wave : (samples,)

    Returns
    -------
    wave : (samples,)
    """
    level = float(np.sqrt(np.mean(wave.astype(np.float64) ** 2))) if len(wave) else 0.0
    return np.asarray(wave / level if level > 0 else wave, dtype=np.float32)
