"""Listening to one recording, image by image, whatever engine does the arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Recording
from antpitta.net.drawing import Pen, Read
from antpitta.net.engines import Engine
from antpitta.net.seams import join

Floats = NDArray[np.float32]
Cut = tuple[float, float]  # seconds in the recording
Parts = list[list[Floats]]  # of each image, of each network: (rows, classes)


@dataclass(frozen=True)
class Heard:
    """What the folds of one model heard in a recording."""

    presence: Floats  # (classes,), the mean over folds of each fold's highest score
    value: Floats  # (rows, classes), the mean over folds, framewise
    grid: TimeGrid


@dataclass(frozen=True)
class Listener:
    """The folds of one model, ready to listen: image by image, so a day fits in memory."""

    pen: Pen
    engine: Engine

    def gather(self, parts: Parts, cuts: Sequence[Cut]) -> Heard:
        """One recording of what was heard in its images."""
        own = list(zip(*parts, strict=True))  # of each net, its images
        presence = np.mean([np.max([p.max(axis=0) for p in one], axis=0) for one in own], axis=0)
        means: list[Floats] = [np.mean(of_image, axis=0) for of_image in parts]
        grids = [self.pen.drawing.grid_of(*cut) for cut in cuts]
        value, grid = join(means, grids, self.engine.unit)
        return Heard(presence.astype(np.float32), value, grid)


def listen_together(
    listeners: Sequence[Listener], recording: Recording, cuts: Sequence[Cut], read: Read
) -> list[Parts]:
    """What each of the ``listeners`` hears in some images of a recording.

    They share a pen, so the sound is drawn once.
    """
    parts: list[Parts] = [[] for _ in listeners]
    for start, stop in cuts:
        seen = listeners[0].pen.image(recording, start, stop, read)
        for listener, found in zip(listeners, parts, strict=True):
            found.append(listener.engine.hear(seen))
    return parts
