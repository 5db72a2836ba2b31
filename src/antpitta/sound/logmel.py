"""Sound to picture: the log-mel spectrogram.

Decisions: frames are centred and the signal is reflected at its ends (60 s at 32 kHz, hop 512:
3751 frames); the mel scale and the triangles are Slaney's, each of equal area, as librosa draws
them by default; power becomes dB relative to the loudest cell, and what lies more than ``range``
below it is cut off. An image is standardised and then stretched from its least to its greatest
value over 0..255, so a recorder's gain drops out, and so does a microphone's slope only if the
network learns to look past it.

A wave whose rate differs from the front's is drawn as it is, by frames that last as long: what
resampling would have taken off it near the top of the band is taken off the power instead, so that
recorders of different rates draw alike.
"""

from itertools import pairwise

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.drawings import Front

LINEAR_HZ = 200 / 3  # Hz per mel, below the break
BREAK_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27  # per mel, above the break
FRAMES = 128  # transformed at once: they stay in the processor's cache
BLOCKS = 8  # of bands, each of which few bins matter to


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's mel scale (Auditory Toolbox, 1998): linear to 1 kHz, logarithmic above."""
    above = BREAK_HZ / LINEAR_HZ + np.log(np.maximum(hz, BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return np.where(hz < BREAK_HZ, hz / LINEAR_HZ, above)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of :func:`hz_to_mel`."""
    at_break = BREAK_HZ / LINEAR_HZ
    return np.where(mel < at_break, mel * LINEAR_HZ, BREAK_HZ * np.exp(LOG_STEP * (mel - at_break)))


def band_edges(front: Front) -> NDArray[np.float64]:
    """The corners of the triangles, in Hz: band ``i`` rises from edge i to i+1, falls to i+2."""
    low, high = hz_to_mel(np.array([front.low, front.high]))
    return mel_to_hz(np.linspace(low, high, front.bands + 2))


def mel_matrix(front: Front) -> NDArray[np.float64]:
    """The triangles: (bands, n_fft / 2 + 1), each of area 1 over Hz."""
    edges = band_edges(front)
    bins = np.linspace(0, front.sample_rate / 2, front.n_fft // 2 + 1)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def resampled_power(front: Front, rate: int) -> NDArray[np.float64]:
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
    """Waves (batch, samples) to decibels (batch, frames, bands); may be shared by threads.

    Waves are at ``rate``, one that the front asks for (:meth:`Front.rate_for`).
    """

    def __init__(self, front: Front, rate: int | None = None) -> None:
        rate = rate or front.sample_rate
        self.front = front
        self.n_fft = front.n_fft * rate // front.sample_rate
        self.hop = front.hop * rate // front.sample_rate
        self.window = torch.hann_window(self.n_fft)
        matrix = mel_matrix(front)
        if rate != front.sample_rate:
            left = resampled_power(front, rate)
            matrix = matrix[:, : len(left)] * left
        self.bins = int(np.flatnonzero(matrix.any(axis=0)).max(initial=0)) + 1
        self.blocks = _blocks(matrix)

    def __call__(self, waves: Tensor, count: int | None = None) -> Tensor:
        """``count`` frames, where rounding at this rate could give another number of them."""
        count = count or waves.shape[-1] // self.hop + 1
        power = torch.stack([self._power_of(wave, count) for wave in waves])
        decibels = power.clamp_min_(1e-10).log10_().mul_(10)
        loudest = decibels.amax(dim=(1, 2), keepdim=True)
        return torch.maximum(decibels, loudest - self.front.range)

    def _power_of(self, wave: Tensor, count: int) -> Tensor:
        """The power in each band, (count, bands).

        Frames inside the wave are read where it lies; to copy it would take a tenth of the time.
        """
        pad, samples = self.n_fft // 2, len(wave)
        start, end = _beyond(wave, pad, max(pad, (count - 1) * self.hop + pad - samples))
        first = -(-pad // self.hop)
        last = min((samples - pad) // self.hop + 1, count)
        if last <= first:
            return self._power(self._frames(torch.cat([start, wave, end]))[:count])
        head = torch.cat([start, wave[: (first - 1) * self.hop + pad]])
        inside = wave[first * self.hop - pad :]
        parts = [self._frames(head), self._frames(inside)[: last - first]]
        if last < count:
            tail = torch.cat([wave[last * self.hop - pad :], end])
            parts.append(self._frames(tail)[: count - last])
        return torch.cat([self._power(part) for part in parts])

    def _frames(self, wave: Tensor) -> Tensor:
        return wave.unfold(0, self.n_fft, self.hop)

    def _power(self, frames: Tensor) -> Tensor:
        found = []
        for some in torch.split(frames, FRAMES):
            parts = torch.view_as_real(torch.fft.rfft(some * self.window))[:, : self.bins]
            squares = parts.square_().flatten(1)  # of the real and the imaginary part of each bin
            of_blocks = [squares[:, low:high] @ block for low, high, block in self.blocks]
            found.append(torch.cat(of_blocks, dim=1))
        return torch.cat(found)


def _beyond(wave: Tensor, before: int, after: int) -> tuple[Tensor, Tensor]:
    """What is taken to lie around the wave: its reflection, or silence where it is too short."""
    if len(wave) <= max(before, after):
        return wave.new_zeros(before), wave.new_zeros(after)
    return wave[1 : before + 1].flip(0), wave[-after - 1 : -1].flip(0)


def _blocks(matrix: NDArray[np.float64]) -> list[tuple[int, int, Tensor]]:
    """The triangles (bands, bins), some bands at a time: first, last, and (last - first, bands).

    Each bin counts twice, with its real and its imaginary part. Triangles are narrow: all bands
    at once would be a product of mostly zeros.
    """
    found = []
    edges = np.linspace(0, len(matrix), min(BLOCKS, len(matrix)) + 1).astype(int)
    for first, last in pairwise(edges):
        own = np.flatnonzero(matrix[first:last].any(axis=0))
        low, high = (int(own[0]), int(own[-1]) + 1) if len(own) else (0, 1)
        block = np.repeat(matrix[first:last, low:high].T, 2, axis=0).astype(np.float32)
        found.append((2 * low, 2 * high, torch.from_numpy(block)))
    return found


def to_bytes(decibels: Tensor) -> Tensor:
    """Standardise and stretch each image over 0..255, as uint8; a silent image is all 0.

    The standardising drops out of the stretching, exactly; what is left is the stretch.
    """
    least = decibels.amin(dim=(1, 2), keepdim=True)
    span = decibels.amax(dim=(1, 2), keepdim=True) - least
    scaled = (decibels - least) / span.clamp_min(1e-6) * 255
    return torch.where(span > 1e-6, scaled, torch.zeros_like(scaled)).to(torch.uint8)


def picture(wave: NDArray[np.float32], mel: LogMel, count: int | None = None) -> NDArray[np.uint8]:
    """One image of a wave (samples,) at the rate of ``mel``: (frames, bands)."""
    with torch.inference_mode():
        found: NDArray[np.uint8] = to_bytes(mel(torch.from_numpy(wave)[None], count))[0].numpy()
    return found
