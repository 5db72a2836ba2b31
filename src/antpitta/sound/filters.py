"""Levels and filters of one band, for the simulator: power over time, band-pass, fades."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float32]

# RMS that an empty band counts as: a call over nothing must still survive rounding to 16 bit.
SILENCE = 1e-4


@dataclass(frozen=True)
class Spectrum:
    """Mean-square of each bin over time, scaled so that all bins of a frame sum to the wave's."""

    power: Floats  # (frames, bins)
    step: float  # seconds from frame to frame
    bin_width: float  # Hz

    def band(self, low: float, high: float) -> Floats:
        """Mean-square per frame between ``low`` and ``high``; at least one bin's. (frames,)"""
        first = min(round(low / self.bin_width), self.power.shape[1] - 1)
        last = max(first + 1, round(high / self.bin_width))
        return np.asarray(self.power[:, first:last].sum(axis=1), dtype=np.float32)

    def floor(self, low: float, high: float) -> float:
        """RMS of the band in a frame of middling loudness: a few loud sounds do not move it."""
        return max(SILENCE, float(np.sqrt(np.median(self.band(low, high)))))


def spectrum(wave: Floats, sample_rate: int) -> Spectrum:
    """Frames of about 40 ms, half overlapping; a wave shorter than one frame is padded."""
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
    """What lies between ``low`` and ``high``, with raised-cosine edges inside the band.

    The edges take a tenth of the band each, so that nothing leaks out of it.
    """
    size = fft.next_fast_len(len(wave), real=True)
    frequency = fft.rfftfreq(size, 1 / sample_rate)
    edge = 0.1 * (high - low)
    inside = np.clip(np.minimum(frequency - low, high - frequency) / edge, 0, 1)
    gain = (0.5 - 0.5 * np.cos(np.pi * inside)).astype(np.float32)
    return np.asarray(fft.irfft(fft.rfft(wave, size) * gain, size)[: len(wave)], dtype=np.float32)


def fade(wave: Floats, seconds: float, sample_rate: int) -> Floats:
    """A copy that rises from and falls to silence, over at most a quarter of its length each."""
    samples = min(len(wave) // 4, int(seconds * sample_rate))
    out = wave.astype(np.float32)
    if samples:
        ramp = (0.5 - 0.5 * np.cos(np.pi * np.arange(samples) / samples)).astype(np.float32)
        out[:samples] *= ramp
        out[-samples:] *= ramp[::-1]
    return out


def to_unit(wave: Floats) -> Floats:
    """Scaled to an RMS of 1; silence stays silence."""
    level = float(np.sqrt(np.mean(wave.astype(np.float64) ** 2))) if len(wave) else 0.0
    return np.asarray(wave / level if level > 0 else wave, dtype=np.float32)
