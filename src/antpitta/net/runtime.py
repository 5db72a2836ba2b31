"""Running trained networks over one recording, whatever engine does the arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.config import Recipe
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Classes, Recording
from antpitta.net.drawing import Pen, Picture, Read, make_pen
from antpitta.net.heads import Heads, one_body
from antpitta.net.scan import join, scan, scan_batch, unit_of
from antpitta.net.sed import SedNet
from antpitta.sound.windows import Pictures

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Heard:
    """What the folds of one model heard in a recording."""

    presence: Floats  # (classes,), the mean over folds of each fold's highest score
    value: Floats  # (rows, classes), the mean over folds, framewise
    grid: TimeGrid


class Listener:
    """The folds of one model, ready to listen: image by image, so a day fits in memory.

    A recipe with an embedding needs a ``pen``, which knows the file of its network.
    """

    def __init__(
        self,
        recipe: Recipe,
        classes: Classes,
        states: list[dict[str, Tensor]],
        pen: Pen | None = None,
    ) -> None:
        self.recipe = recipe
        self.classes = classes
        self.pen = pen or make_pen(recipe)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.nets = [self._net(state) for state in states]
        self.heads = Heads(self.nets) if one_body(self.nets) else None
        windows = recipe.windows
        self.unit = unit_of(self.nets[0].stride, windows.frames, windows.scan_overlap)

    def _net(self, state: dict[str, Tensor]) -> SedNet:
        net = SedNet(
            self.recipe.network,
            len(self.classes),
            bands=self.pen.width,
            empty=True,
        )
        net.load_state_dict(state)
        return net.eval().to(self.device)

    def listen(self, recording: Recording, read: Read) -> Heard:
        """Score a recording; ``read`` gives a stretch of it at the drawing's sample rate."""
        return listen_together([self], recording, read)[0]

    def scan(self, seen: Picture) -> list[Floats]:
        """What each net hears in one image: (rows, classes)."""
        if self.heads is not None:
            return np.split(self._scan(self.heads, seen), len(self.nets), axis=1)
        return [self._scan(net, seen) for net in self.nets]

    def gather(self, parts: list[list[Floats]], grids: list[TimeGrid]) -> Heard:
        """One recording of what :meth:`scan` gave of its images, and their grids."""
        own = list(zip(*parts, strict=True))  # of each net, its images
        presence = np.mean([np.max([p.max(axis=0) for p in one], axis=0) for one in own], axis=0)
        means = [np.mean(of_image, axis=0) for of_image in parts]
        value, grid = join(means, grids, self.unit)
        return Heard(presence.astype(np.float32), value, grid)

    def _scan(self, net: SedNet | Heads, seen: Picture) -> Floats:
        windows = self.recipe.windows
        pixels = torch.from_numpy(seen).to(self.device)
        pictures = Pictures(pixels, np.array([len(seen)], dtype=np.int64))
        images = np.array([0], dtype=np.int64)
        batch = scan_batch(windows.frames)
        return scan(net, pictures, images, windows.frames, windows.scan_overlap, batch)[0]


def listen_together(listeners: Sequence[Listener], recording: Recording, read: Read) -> list[Heard]:
    """What each of the ``listeners`` hears; they share a pen, so the sound is drawn once."""
    pen = listeners[0].pen
    parts: list[list[list[Floats]]] = [[] for _ in listeners]
    grids = []
    for start, stop in pen.drawing.images_of(recording.duration):
        seen = pen.image(recording, start, stop, read)
        for listener, found in zip(listeners, parts, strict=True):
            found.append(listener.scan(seen))
        grids.append(pen.drawing.grid_of(start, stop))
    return [one.gather(found, grids) for one, found in zip(listeners, parts, strict=True)]
