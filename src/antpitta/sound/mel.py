"""Sound to a log-mel spectrogram.

Frames are centred and the signal is reflected at its ends (60 s at 32 kHz with a hop length of
512 give 3751 frames). The mel scale and the filters are Slaney's, each filter of equal area, as
librosa computes them by default. Power becomes dB, and values more than ``top_db`` below the
loudest are clipped. Each segment is then scaled from its least to its greatest value to 0..255, so
the gain of a recorder has no effect.

SciPy computes the transform, so prediction does not load PyTorch. No sum is split among threads:
the same sound gives the same numbers under any load.

A recording whose sample rate differs from ``sample_rate`` is not resampled. Its frames last
equally long, and the attenuation that resampling would cause near the Nyquist frequency is
applied to the power, so that recorders of different rates give equal features.
"""

import threading

import numpy as np
import soxr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from antpitta.core.features import DUMP, MelConfig

LINEAR_HZ = 200 / 3  # Hz per mel below the break
BREAK_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27  # per mel above the break

Floats = NDArray[np.float32]


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's mel scale (Auditory Toolbox, 1998): linear to 1 kHz, logarithmic above.

    Parameters
    ----------
    hz : any shape

    Returns
    -------
    mel : the same shape
    """
    above = BREAK_HZ / LINEAR_HZ + np.log(np.maximum(hz, BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return np.where(hz < BREAK_HZ, hz / LINEAR_HZ, above)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of :func:`hz_to_mel`.

    Parameters
    ----------
    mel : any shape

    Returns
    -------
    hz : the same shape
    """
    at_break = BREAK_HZ / LINEAR_HZ
    return np.where(mel < at_break, mel * LINEAR_HZ, BREAK_HZ * np.exp(LOG_STEP * (mel - at_break)))


def band_edges(config: MelConfig) -> NDArray[np.float64]:
    """The corners of the mel filters in Hz, (n_mels + 2,).

    Filter ``i`` rises from edge ``i`` to edge ``i + 1`` and falls to edge ``i + 2``.

    Parameters
    ----------
    config : settings of the spectrogram

    Returns
    -------
    edges : (n_mels + 2,), Hz
    """
    low, high = hz_to_mel(np.array([config.fmin, config.fmax]))
    return mel_to_hz(np.linspace(low, high, config.n_mels + 2))


def mel_filters(config: MelConfig) -> NDArray[np.float64]:
    """The triangular mel filters, (n_mels, n_fft / 2 + 1), each of area 1 over Hz.

    Parameters
    ----------
    config : settings of the spectrogram

    Returns
    -------
    filters : (n_mels, n_fft / 2 + 1)
    """
    edges = band_edges(config)
    bins = np.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def resampling_gain(config: MelConfig, sample_rate: int) -> NDArray[np.float64]:
    """The factor by which resampling changes the power of each frequency bin.

    It is measured on an impulse, and includes that frames of equal length hold different numbers
    of samples at the two rates.

    Parameters
    ----------
    config : settings of the spectrogram
    sample_rate : Hz, of the recording; the target is that of ``config``

    Returns
    -------
    gain : (bins,), up to the lower of the two Nyquist frequencies
    """
    length = 4 * config.n_fft  # longer than the response of the resampler
    impulse = np.zeros(length * sample_rate // config.sample_rate, dtype=np.float32)
    impulse[len(impulse) // 2] = 1
    # The resampler and its quality are those of files/audio.py.
    response = soxr.resample(impulse, sample_rate, config.sample_rate, quality="HQ")
    bins = min(config.n_fft, config.n_fft * sample_rate // config.sample_rate) // 2 + 1
    frame = response[:length].reshape(4, config.n_fft).sum(axis=0, dtype=np.float64)
    power: NDArray[np.float64] = np.square(np.abs(np.fft.rfft(frame)[:bins]))
    return power


class LogMel:
    """A wave (samples,) to decibels (frames, n_mels); threads may share one object.

    Parameters
    ----------
    config : settings of the spectrogram
    sample_rate : Hz, of the waves: one that :meth:`MelConfig.read_rate` returns, by default that
        of ``config``
    """

    def __init__(self, config: MelConfig, sample_rate: int | None = None) -> None:
        sample_rate = sample_rate or config.sample_rate
        self.config = config
        self.n_fft = config.n_fft * sample_rate // config.sample_rate
        self.hop_length = config.hop_length * sample_rate // config.sample_rate
        filters = mel_filters(config)
        if sample_rate != config.sample_rate:
            gain = resampling_gain(config, sample_rate)
            filters = filters[:, : len(gain)] * gain
        bins = int(np.flatnonzero(filters.any(axis=0)).max(initial=0)) + 1
        phase = 2 * np.pi * np.arange(self.n_fft) / self.n_fft
        window = (0.5 - 0.5 * np.cos(phase)).astype(np.float32)
        self._band_power = BandPower(window, self.hop_length, filters[:, :bins].astype(np.float32))

    def __call__(self, wave: Floats, frames: int | None = None) -> Floats:
        """The spectrogram of a wave.

        Parameters
        ----------
        wave : (samples,)
        frames : number of frames; by default it follows from the samples, but rounding at this
            sample rate can give another number than at that of ``config``

        Returns
        -------
        decibels : (frames, n_mels)
        """
        frames = frames or len(wave) // self.hop_length + 1
        power = np.empty((frames, self.config.n_mels), dtype=np.float32)
        done = 0
        for part, count in self._parts(wave, frames):
            self._band_power(part, power[done : done + count])
            done += count
        np.maximum(power, 1e-10, out=power)
        decibels = np.multiply(np.log10(power, out=power), 10, out=power)
        return limit_range(decibels, self.config.top_db)

    def _parts(self, wave: Floats, frames: int) -> list[tuple[Floats, int]]:
        """The samples that the frames need, in up to three parts, and the frames of each part.

        Frames inside the wave are read in place; copying it would take a tenth of the time.
        """
        pad, samples, hop = self.n_fft // 2, len(wave), self.hop_length
        before, after = _padding(wave, pad, max(pad, (frames - 1) * hop + pad - samples))
        first = -(-pad // hop)
        last = min((samples - pad) // hop + 1, frames)
        if last <= first:
            return [(np.concatenate([before, wave, after]), frames)]
        head = np.concatenate([before, wave[: (first - 1) * hop + pad]])
        parts = [(head, first), (wave[first * hop - pad :], last - first)]
        if last < frames:
            parts.append((np.concatenate([wave[last * hop - pad :], after]), frames - last))
        return parts


def _padding(wave: Floats, before: int, after: int) -> tuple[Floats, Floats]:
    """The reflection of the wave at its two ends, or silence where it is too short."""
    if len(wave) <= max(before, after):
        return np.zeros(before, dtype=np.float32), np.zeros(after, dtype=np.float32)
    return wave[before:0:-1], wave[-2 : -after - 2 : -1]


def limit_range(decibels: Floats, top_db: float) -> Floats:
    """Raise what is more than ``top_db`` below the loudest value of a segment, in place.

    Parameters
    ----------
    decibels : (frames, n_mels)
    top_db : dB

    Returns
    -------
    decibels : the same array
    """
    np.maximum(decibels, decibels.max() - top_db, out=decibels)
    return decibels


def to_uint8(decibels: Floats) -> NDArray[np.uint8]:
    """Scale a segment (frames, n_mels) from its least and greatest value to 0..255.

    Standardising first, as the competition did, would change nothing. A constant segment
    becomes 0.

    Parameters
    ----------
    decibels : (frames, n_mels)

    Returns
    -------
    pixels : (frames, n_mels)
    """
    least = decibels.min()
    span = decibels.max() - least
    if not span > 1e-6:
        return np.zeros(decibels.shape, dtype=np.uint8)
    scaled = decibels - least
    scaled /= span
    scaled *= 255
    pixels: NDArray[np.uint8] = scaled.astype(np.uint8)
    return pixels


def mel_features(wave: Floats, mel: LogMel, frames: int | None = None) -> NDArray[np.uint8]:
    """The features of one segment, (frames, n_mels).

    Parameters
    ----------
    wave : (samples,), at the sample rate of ``mel``
    mel : the spectrogram to compute
    frames : as in :meth:`LogMel.__call__`

    Returns
    -------
    pixels : (frames, n_mels)
    """
    return to_uint8(mel(wave, frames))


def dump_features(decibels: Floats, config: MelConfig) -> NDArray[np.uint8]:
    """The features of one segment of a spectrogram that another program computed.

    They equal those that :func:`mel_features` makes of the same decibels.

    Parameters
    ----------
    decibels : (frames, n_mels), with the settings of :data:`~antpitta.core.features.DUMP`
    config : settings that fit these (:func:`~antpitta.core.features.explain_dump_mismatch`)

    Returns
    -------
    pixels : (frames, n_mels), at the hop length of ``config``
    """
    every = config.hop_length // DUMP.hop_length
    return to_uint8(limit_range(decibels[::every].copy(), config.top_db))


BLOCK = 64  # frames that SciPy transforms at once: they stay in the processor's cache


class BandPower:
    """The power of overlapping frames in bands of frequency; threads may share one object.

    Parameters
    ----------
    window : (n_fft,)
    hop_length : samples from frame to frame
    filters : (bands, bins), the share of each bin's power that a band takes, from 0 Hz on
    """

    def __init__(self, window: Floats, hop_length: int, filters: Floats) -> None:
        from scipy import fft, sparse  # slow to import

        self._window, self._hop_length = window, hop_length
        self._bins = filters.shape[1]
        # A bin belongs to two filters at most, and all other products would be 0.
        self._filters = sparse.csr_array(filters)
        self._transform = fft.rfft
        self._local = threading.local()

    def __call__(self, wave: Floats, power: Floats) -> None:
        """Write the power of the first frames of a wave into ``power`` (frames, bands)."""
        frames = sliding_window_view(wave, len(self._window))[:: self._hop_length][: len(power)]
        for first in range(0, len(power), BLOCK):
            block = slice(first, first + BLOCK)
            self._write_block(frames[block], power[block])

    def _write_block(self, frames: Floats, power: Floats) -> None:
        """Square the real and imaginary parts apart, and add the two when only bands are left.

        Bins are rows here, so a band is a sum of few rows.
        """
        windowed = np.multiply(frames, self._window, out=self._buffer()[: len(frames)])
        spectrum = self._transform(windowed.T, axis=0, overwrite_x=True)  # (bins, frames)
        parts = spectrum[: self._bins].view(np.float32)
        bands = self._filters @ np.square(parts, out=parts)  # (bands, twice the frames)
        power[:] = (bands[:, ::2] + bands[:, 1::2]).T

    def _buffer(self) -> Floats:
        """The frames of one thread; to allocate them for every block would be slow."""
        buffer: Floats | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = np.empty((BLOCK, len(self._window)), dtype=np.float32)
        return buffer
