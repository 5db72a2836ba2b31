"""Sound to picture: the log-mel spectrogram.

Decisions: frames are centred and the signal is reflected at its ends (60 s at 32 kHz, hop 512:
3751 frames); the mel scale and the triangles are Slaney's, each of equal area, as librosa draws
them by default; power becomes dB relative to the loudest cell, and what lies more than ``range``
below it is cut off. An image is standardised and then stretched from its least to its greatest
value over 0..255, so a recorder's gain drops out, and so does a microphone's slope only if the
network learns to look past it.

PyTorch is not asked, so that what predicts need not load it.

A wave whose rate differs from the front's is drawn as it is, by frames that last as long: what
resampling would have taken off it near the top of the band is taken off the power instead, so that
recorders of different rates draw alike.

The power in bands of frequency, of many overlapping frames.

A sum is never split among threads: the same sound gives the same numbers under any load.
"""

import threading
from collections.abc import Callable

import numpy as np
import soxr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from antpitta.core.features import MelConfig

LINEAR_HZ = 200 / 3  # Hz per mel, below the break
BREAK_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27  # per mel, above the break

Floats = NDArray[np.float32]


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's mel scale (Auditory Toolbox, 1998): linear to 1 kHz, logarithmic above."""
    above = BREAK_HZ / LINEAR_HZ + np.log(np.maximum(hz, BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return np.where(hz < BREAK_HZ, hz / LINEAR_HZ, above)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of :func:`hz_to_mel`."""
    at_break = BREAK_HZ / LINEAR_HZ
    return np.where(mel < at_break, mel * LINEAR_HZ, BREAK_HZ * np.exp(LOG_STEP * (mel - at_break)))


def band_edges(front: MelConfig) -> NDArray[np.float64]:
    """The corners of the triangles, in Hz: band ``i`` rises from edge i to i+1, falls to i+2."""
    low, high = hz_to_mel(np.array([front.fmin, front.fmax]))
    return mel_to_hz(np.linspace(low, high, front.n_mels + 2))


def mel_matrix(front: MelConfig) -> NDArray[np.float64]:
    """The triangles: (bands, n_fft / 2 + 1), each of area 1 over Hz."""
    edges = band_edges(front)
    bins = np.linspace(0, front.sample_rate / 2, front.n_fft // 2 + 1)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def resampled_power(front: MelConfig, rate: int) -> NDArray[np.float64]:
    """What resampling from ``rate`` to the front's leaves of the power in each bin, (bins,).

    The bins are those up to the lower of the two rates' middles. It is measured on an impulse, and
    counts that frames of the same length hold other numbers of samples.
    """
    length = 4 * front.n_fft  # of the resampled impulse, which rings for a shorter time
    impulse = np.zeros(length * rate // front.sample_rate, dtype=np.float32)
    impulse[len(impulse) // 2] = 1
    rung = soxr.resample(impulse, rate, front.sample_rate, quality="HQ")  # as files/audio.py does
    bins = min(front.n_fft, front.n_fft * rate // front.sample_rate) // 2 + 1
    folded = rung[:length].reshape(4, front.n_fft).sum(axis=0, dtype=np.float64)
    power: NDArray[np.float64] = np.square(np.abs(np.fft.rfft(folded)[:bins]))
    return power


class LogMel:
    """A wave (samples,) to decibels (frames, bands); may be shared by threads.

    Waves are at ``rate``, one that the front asks for (:meth:`MelConfig.read_rate`).
    """

    def __init__(self, front: MelConfig, rate: int | None = None) -> None:
        rate = rate or front.sample_rate
        self.front = front
        self.n_fft = front.n_fft * rate // front.sample_rate
        self.hop = front.hop_length * rate // front.sample_rate
        matrix = mel_matrix(front)
        if rate != front.sample_rate:
            left = resampled_power(front, rate)
            matrix = matrix[:, : len(left)] * left
        bins = int(np.flatnonzero(matrix.any(axis=0)).max(initial=0)) + 1
        turns = 2 * np.pi * np.arange(self.n_fft) / self.n_fft
        window = (0.5 - 0.5 * np.cos(turns)).astype(np.float32)
        self._power = band_power(window, self.hop, matrix[:, :bins].astype(np.float32))

    def __call__(self, wave: Floats, count: int | None = None) -> Floats:
        """``count`` frames, where rounding at this rate could give another number of them."""
        count = count or len(wave) // self.hop + 1
        power = np.empty((count, self.front.n_mels), dtype=np.float32)
        done = 0
        for stretch, frames in self._stretches(wave, count):
            self._power(stretch, power[done : done + frames])
            done += frames
        np.maximum(power, 1e-10, out=power)
        decibels = np.multiply(np.log10(power, out=power), 10, out=power)
        np.maximum(decibels, decibels.max() - self.front.top_db, out=decibels)
        return decibels

    def _stretches(self, wave: Floats, count: int) -> list[tuple[Floats, int]]:
        """What ``count`` frames are cut from, in a few runs of them, and how many of each.

        Frames inside the wave are read where it lies; to copy it would take a tenth of the time.
        """
        pad, samples = self.n_fft // 2, len(wave)
        start, end = _beyond(wave, pad, max(pad, (count - 1) * self.hop + pad - samples))
        first = -(-pad // self.hop)
        last = min((samples - pad) // self.hop + 1, count)
        if last <= first:
            return [(np.concatenate([start, wave, end]), count)]
        head = np.concatenate([start, wave[: (first - 1) * self.hop + pad]])
        found = [(head, first), (wave[first * self.hop - pad :], last - first)]
        if last < count:
            found.append((np.concatenate([wave[last * self.hop - pad :], end]), count - last))
        return found


def _beyond(wave: Floats, before: int, after: int) -> tuple[Floats, Floats]:
    """What is taken to lie around the wave: its reflection, or silence where it is too short."""
    if len(wave) <= max(before, after):
        return np.zeros(before, dtype=np.float32), np.zeros(after, dtype=np.float32)
    return wave[before:0:-1], wave[-2 : -after - 2 : -1]


def to_uint8(decibels: Floats) -> NDArray[np.uint8]:
    """Standardise and stretch an image over 0..255, as uint8; a silent image is all 0.

    The standardising drops out of the stretching, exactly; what is left is the stretch.
    """
    least = decibels.min()
    span = decibels.max() - least
    if not span > 1e-6:
        return np.zeros(decibels.shape, dtype=np.uint8)
    scaled = decibels - least
    scaled /= span
    scaled *= 255
    drawn: NDArray[np.uint8] = scaled.astype(np.uint8)
    return drawn


def mel_features(wave: Floats, mel: LogMel, count: int | None = None) -> NDArray[np.uint8]:
    """One image of a wave (samples,) at the rate of ``mel``: (frames, bands)."""
    return to_uint8(mel(wave, count))


FRAMES = 64  # that SciPy transforms at once: they stay in the processor's cache

BandPower = Callable[[Floats, Floats], None]


def band_power(window: Floats, hop: int, triangles: Floats) -> BandPower:
    """What writes the power of a wave's frames, ``hop`` samples apart, in bands.

    The window is (n_fft,), as long as a frame; ``triangles`` (bands, bins) say what a band takes of
    the power of each bin, from 0 Hz on. What comes back may be shared by threads, and is called
    with a wave of as many samples as its frames need and with where their power belongs, (frames,
    bands).
    """
    return BandPowerTransform(window, hop, triangles)


class BandPowerTransform:
    """For frames of any length; the triangles should be narrow."""

    def __init__(self, window: Floats, hop: int, triangles: Floats) -> None:
        from scipy import fft, sparse  # takes a while to load

        self._window, self._hop = window, hop
        self._bins = triangles.shape[1]
        # Each bin belongs to two triangles, all others would be products of 0.
        self._triangles = sparse.csr_array(triangles)
        self._transform = fft.rfft
        self._own = threading.local()

    def __call__(self, wave: Floats, power: Floats) -> None:
        frames = sliding_window_view(wave, len(self._window))[:: self._hop][: len(power)]
        for first in range(0, len(power), FRAMES):
            some = slice(first, first + FRAMES)
            self._few(frames[some], power[some])

    def _few(self, frames: Floats, power: Floats) -> None:
        """Bins come as rows, each of all frames' real and imaginary parts: a triangle is then a sum
        of few rows, and the two parts are added when only bands are left.
        """
        windowed = np.multiply(frames, self._window, out=self._room()[: len(frames)])
        spectrum = self._transform(windowed.T, axis=0, overwrite_x=True)  # (bins, frames)
        parts = spectrum[: self._bins].view(np.float32)
        found = self._triangles @ np.square(parts, out=parts)  # (bands, twice the frames)
        power[:] = (found[:, ::2] + found[:, 1::2]).T

    def _room(self) -> Floats:
        """A thread's own room for frames: fetched anew, it would cost more than it is used for."""
        room: Floats | None = getattr(self._own, "room", None)
        if room is None:
            room = self._own.room = np.empty((FRAMES, len(self._window)), dtype=np.float32)
        return room
