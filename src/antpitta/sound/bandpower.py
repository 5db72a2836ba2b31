"""The power in bands of frequency, of many overlapping frames.

Where there was a C compiler when antpitta was installed, ``_bandpower.c`` finds it, sixteen frames
at a time (sound/compiled.py); else, or for frames that it does not take, SciPy does, at three times
the cost. They agree to some millionths of the power. Neither lets a sum be split among threads: the
same sound gives the same numbers whoever else is at work.
"""

import threading
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from antpitta.sound.compiled import Compiled

FRAMES = 64  # that SciPy transforms at once: they stay in the processor's cache

Floats = NDArray[np.float32]
BandPower = Callable[[Floats, Floats], None]


def band_power(window: Floats, hop: int, triangles: Floats) -> BandPower:
    """What writes the power of a wave's frames, ``hop`` samples apart, in bands.

    The window is (n_fft,), as long as a frame; ``triangles`` (bands, bins) say what a band takes of
    the power of each bin, from 0 Hz on. What comes back may be shared by threads, and is called
    with a wave of as many samples as its frames need and with where their power belongs, (frames,
    bands).
    """
    return Compiled.of(window, hop, triangles) or ByScipy(window, hop, triangles)


class ByScipy:
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
