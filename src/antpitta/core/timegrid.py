"""The only place where seconds become frames, and frames become seconds."""

from dataclasses import dataclass
from math import ceil, floor, ulp


@dataclass(frozen=True)
class TimeGrid:
    """Equal frames: frame ``i`` spans ``start + i * hop`` to ``start + (i + 1) * hop``."""

    hop: float  # seconds per frame
    frames: int
    start: float = 0.0  # seconds from the start of the recording

    def frames_by_centre(self, start: float, stop: float) -> slice:
        """The frames whose centre is in the half-open interval ``[start, stop)``.

        An interval without a centre gets the frame it falls in, so that a coarse grid loses no
        event. Outside the grid the slice is empty.

        Parameters
        ----------
        start, stop : seconds

        Examples
        --------
        >>> TimeGrid(hop=0.5, frames=8).frames_by_centre(1.0, 2.0)
        slice(2, 4, None)
        >>> TimeGrid(hop=0.5, frames=8).frames_by_centre(1.05, 1.10)
        slice(2, 3, None)
        """
        first, last = self._first_centre_from(start), self._first_centre_from(stop)
        if first == last:
            first = int(((start + stop) / 2 - self.start) // self.hop)
            last = first + 1
        return slice(min(max(first, 0), self.frames), min(max(last, 0), self.frames))

    def overlapping_frames(self, start: float, stop: float) -> slice:
        """The frames from the one that holds ``start`` up to the one that holds ``stop``.

        The rule of the competition's code, ``int(frames * t / duration)`` at both ends. It is
        coarser than :meth:`frames_by_centre`, and its counts of cells depend on it.

        Parameters
        ----------
        start, stop : seconds

        Examples
        --------
        >>> TimeGrid(hop=60 / 3751, frames=3751).overlapping_frames(44.544, 45.1307)
        slice(2784, 2821, None)
        """
        # Far from 0 a time is known to some units in its last place only.
        slack = 1e-9 + 4 * ulp(self.end) / self.hop
        first, last = (
            floor((time - self.start) / self.hop + slack) for time in (start, min(stop, self.end))
        )
        return slice(min(max(first, 0), self.frames), min(max(last, first + 1, 0), self.frames))

    @property
    def end(self) -> float:
        """The end of the last frame, seconds."""
        return self.seconds(self.frames)

    def seconds(self, frame: int) -> float:
        """The start of a frame, seconds; ``seconds(frames)`` is the end of the grid."""
        return self.start + frame * self.hop

    def _first_centre_from(self, time: float) -> int:
        # 0.07 / 0.02 is 3.5000000000000004 in floating point: without the rounding, an
        # edge that lies on a centre moves by a frame.
        return ceil(round((time - self.start) / self.hop - 0.5, 9))
