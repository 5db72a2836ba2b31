"""How prediction reads sound that may be damaged."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.core.types import Recording
from antpitta.files.audio import UnreadableAudio
from antpitta.files.spectrograms import read_input


@dataclass(frozen=True)
class TolerantReader:
    """A reader that returns no sound behind damage, so that what came before it is not lost.

    Parameters
    ----------
    notes : of what is wrong with the sound, added while it is read
    """

    notes: list[str]

    def __call__(
        self, recording: Recording, start: float, stop: float, sample_rate: int
    ) -> NDArray[np.float32]:
        """Read from ``start`` to ``stop`` (s); the result is (samples,) at ``sample_rate`` (Hz)."""
        try:
            return read_input(recording, start, stop, sample_rate, self.notes)
        except UnreadableAudio:
            if not start or recording.spectrogram:  # nothing of the file can be used
                raise
            self.notes.append(f"does not decode from {start:.2f} s on")
            return np.zeros(0, dtype=np.float32)
