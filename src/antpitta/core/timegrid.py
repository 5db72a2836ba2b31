"""The only place where seconds become frames, and frames become seconds."""

from dataclasses import dataclass
from math import ceil, floor


@dataclass(frozen=True)
class TimeGrid:
    """A row of equal frames: frame ``i`` spans ``start + i*hop`` to ``start + (i+1)*hop``."""

    hop: float  # seconds per frame
    frames: int
    start: float = 0.0  # seconds, on the recording's own clock

    def frames_by_centre(self, start: float, stop: float) -> slice:
        """The frames whose centre lies in the half-open interval ``[start, stop)``.

        An interval too short to cover a centre still gets the frame it falls in,
        so that no event is lost to a coarse grid. Outside the grid the slice is empty.

        >>> TimeGrid(hop=0.5, frames=8).rows(1.0, 2.0)
        slice(2, 4, None)
        >>> TimeGrid(hop=0.5, frames=8).rows(1.05, 1.10)
        slice(2, 3, None)
        """
        first, last = self._first_centre_from(start), self._first_centre_from(stop)
        if first == last:
            first = int(((start + stop) / 2 - self.start) // self.hop)
            last = first + 1
        return slice(min(max(first, 0), self.frames), min(max(last, 0), self.frames))

    def overlapping_frames(self, start: float, stop: float) -> slice:
        """The frames from the one that holds ``start`` up to the one that holds ``stop``.

        The recipe's own rule, ``int(frames * t / duration)`` at both ends: coarser than
        :meth:`rows`, and kept because its counts of cells depend on it.

        >>> TimeGrid(hop=60 / 3751, frames=3751).overlapping_frames(44.544, 45.1307)
        slice(2784, 2821, None)
        """
        first, last = (
            floor((t - self.start) / self.hop + 1e-9) for t in (start, min(stop, self.end))
        )
        return slice(min(max(first, 0), self.frames), min(max(last, first + 1, 0), self.frames))

    @property
    def end(self) -> float:
        """Where the grid ends, in seconds."""
        return self.seconds(self.frames)

    def seconds(self, row: int) -> float:
        """When frame ``row`` begins; ``seconds(frames)`` is where the grid ends."""
        return self.start + row * self.hop

    def _first_centre_from(self, time: float) -> int:
        # 0.07 / 0.02 is 3.5000000000000004 in floating point: without the rounding, an
        # edge that lies on a centre moves by a frame.
        return ceil(round((time - self.start) / self.hop - 0.5, 9))
