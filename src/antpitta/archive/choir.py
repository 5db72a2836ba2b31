"""One model or many that listen together: a bundle's folds, or an ensemble's members, blended."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from antpitta.core.config import parse_recipe
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Recording, Scores
from antpitta.files.bundle import Bundle
from antpitta.files.cache import cached_pictures
from antpitta.files.embedding import find_network
from antpitta.net.drawing import Pen, Picture, Read, make_pen
from antpitta.net.runtime import Heard, Listener, listen_together
from antpitta.scores.ensemble import Blend
from antpitta.scores.members import Member

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class KeptPen(Pen):
    """A pen whose drawings are kept on the disk, as training keeps them.

    For embeddings: they take a hundred times longer than what comes after them, and the next
    round's model asks for the same ones.
    """

    last: list[tuple[Path, Picture]] = field(default_factory=list)  # the recording at hand

    def image(self, recording: Recording, start: float, stop: float, read: Read) -> Picture:
        """Cut from the whole recording's drawing, made where the cache has none."""
        images = self.drawing.images_of(recording.duration)
        if not self.last or self.last[0][0] != recording.path:
            plain = Pen(self.drawing, self.width, self.draw)
            [found] = cached_pictures(
                [recording], self.drawing.digest, lambda one: plain.whole(one, read)
            )
            self.last[:] = [(recording.path, found)]
        frames = [self.drawing.frames_of(b - a) for a, b in images]
        first = sum(frames[: images.index((start, stop))])
        return np.array(self.last[0][1][first : first + self.drawing.frames_of(stop - start)])


class Choir:
    """All listeners of a bundle, ready; every score is signed with the bundle's name.

    Members that draw alike share a pen, and with it the work of drawing.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.classes = bundle.classes
        self.parts = bundle.parts() or [bundle]
        self.blend = Blend.from_json(bundle.blend) if bundle.members else None
        pens: dict[str, Pen] = {}
        self.listeners = []
        for part in self.parts:
            recipe = parse_recipe(part.recipe, str(part.path))
            key = recipe.drawing.digest
            if key not in pens:
                network = find_network(recipe.embedding) if recipe.embedding else None
                pen = make_pen(recipe, network, torch.get_num_threads())
                pens[key] = KeptPen(pen.drawing, pen.width, pen.draw) if network else pen
            self.listeners.append(Listener(recipe, part.classes, part.states(), pens[key]))

    def listen(self, recording: Recording, reader: Callable[[int], Read]) -> tuple[Floats, Scores]:
        """The recording's presence (classes,), and its framewise scores.

        ``reader`` makes the function that reads at a sample rate: members may differ in theirs,
        and in their grids; the finest is the ensemble's.
        """
        heard = self._hear(recording, reader)
        grid = min((one.grid for one in heard), key=lambda grid: grid.hop)
        presence = self._blend([one.presence[None] for one in heard])[0]
        value = self._blend([_on_grid(one, grid) for one in heard])
        signed = Scores(recording.id, grid, self.classes, value, self.bundle.name)
        return presence, signed

    def _hear(self, recording: Recording, reader: Callable[[int], Read]) -> list[Heard]:
        heard: dict[int, Heard] = {}
        for pen in {id(one.pen): one.pen for one in self.listeners}.values():
            mine = [i for i, one in enumerate(self.listeners) if one.pen is pen]
            together = [self.listeners[i] for i in mine]
            read = reader(pen.drawing.sample_rate)
            heard |= zip(mine, listen_together(together, recording, read), strict=True)
        return [heard[i] for i in range(len(self.listeners))]

    def _blend(self, values: list[Floats]) -> Floats:
        if self.blend is None:
            return values[0]
        named = zip(self.bundle.members, values, strict=True)
        return self.blend.apply([Member(name, value) for name, value in named]).astype(np.float32)


def _on_grid(heard: Heard, grid: TimeGrid) -> Floats:
    """The member's rows at the middles of the ``grid``'s rows."""
    middle = (np.arange(grid.frames) + 0.5) * grid.hop
    row = np.clip((middle / heard.grid.hop).astype(np.int64), 0, len(heard.value) - 1)
    taken: Floats = heard.value[row]
    return taken
