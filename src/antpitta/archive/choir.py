"""One model or many that listen together: a bundle's folds, or an ensemble's members, blended.

A recording is heard in pieces, an image each, which threads may hear at the same time: so a
recorder's whole day keeps all cores busy as a thousand short files do.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from antpitta.archive.engines import open_engine
from antpitta.core.config import parse_recipe
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Recording, Scores
from antpitta.files.bundle import Bundle
from antpitta.files.cache import cached_pictures
from antpitta.files.embedding import find_network
from antpitta.net.drawing import Pen, Picture, Read, make_pen
from antpitta.net.engines import Hearing
from antpitta.net.runtime import Cut, Heard, Listener, Parts, listen_together

if TYPE_CHECKING:
    from antpitta.scores.blend import Blend

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class KeptPen(Pen):
    """A pen whose drawings are kept on the disk, as training keeps them.

    For embeddings: they take a hundred times longer than what comes after them, and the next
    round's model asks for the same ones.
    """

    last: Any = field(default_factory=threading.local)  # each thread's recording at hand

    def image(self, recording: Recording, start: float, stop: float, read: Read) -> Picture:
        """Cut from the whole recording's drawing, made where the cache has none."""
        images = self.drawing.images_of(recording.duration)
        path: Path | None = getattr(self.last, "path", None)
        if path != recording.path:
            plain = Pen(self.drawing, self.width, self.draw)
            [self.last.drawn] = cached_pictures(
                [recording], self.drawing.digest, lambda one: plain.whole(one, read)
            )
            self.last.path = recording.path
        frames = [self.drawing.frames_of(b - a) for a, b in images]
        first = sum(frames[: images.index((start, stop))])
        return np.array(self.last.drawn[first : first + self.drawing.frames_of(stop - start)])


@dataclass(frozen=True)
class Piece:
    """What one thread hears at once: some images of a recording, by the listeners of one pen."""

    listeners: tuple[int, ...]
    cuts: tuple[Cut, ...]


class Choir:
    """All listeners of a bundle, ready; every score is signed with the bundle's name.

    Members that draw alike share a pen, and with it the work of drawing. Raises UserMistake
    where the model has no network for the ``hearing`` asked for.
    """

    def __init__(self, bundle: Bundle, hearing: Hearing | None = None) -> None:
        self.hearing = hearing or Hearing()
        self.bundle = bundle
        self.classes = bundle.classes
        self.blend = _blend_of(bundle)
        pens: dict[str, Pen] = {}
        self.listeners = []
        for part in bundle.parts() or [bundle]:
            recipe = parse_recipe(part.recipe, str(part.path))
            key = recipe.drawing.digest
            if key not in pens:
                network = find_network(recipe.embedding) if recipe.embedding else None
                pen = make_pen(recipe, network)
                pens[key] = KeptPen(pen.drawing, pen.width, pen.draw) if network else pen
            engine = open_engine(part, recipe, self.hearing, pens[key].width)
            self.listeners.append(Listener(pens[key], engine))

    def pieces(self, recording: Recording) -> list[Piece]:
        """What there is to hear in a recording, in parts that may be heard at the same time."""
        found = []
        for pen in {id(one.pen): one.pen for one in self.listeners}.values():
            mine = tuple(i for i, one in enumerate(self.listeners) if one.pen is pen)
            cuts = pen.drawing.images_of(recording.duration)
            if isinstance(pen, KeptPen):  # it draws the whole recording for any image of it
                found.append(Piece(mine, tuple(cuts)))
            else:
                found += [Piece(mine, (cut,)) for cut in cuts]
        return found

    def hear(self, recording: Recording, piece: Piece, read: Read) -> list[Parts]:
        """What each listener of the piece hears in it."""
        together = [self.listeners[i] for i in piece.listeners]
        return listen_together(together, recording, piece.cuts, read)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, each thread that hears computes by itself."""
        with ExitStack() as stack:
            for one in self.listeners:
                stack.enter_context(one.engine.listening())
            yield

    def gather(
        self, recording: Recording, pieces: Sequence[Piece], found: Sequence[list[Parts]]
    ) -> tuple[Floats, Scores]:
        """The recording's presence (classes,), and its framewise scores.

        Members may differ in their grids; the finest is the ensemble's.
        """
        parts: list[Parts] = [[] for _ in self.listeners]
        cuts: list[list[Cut]] = [[] for _ in self.listeners]
        for piece, of_piece in zip(pieces, found, strict=True):
            for i, mine in zip(piece.listeners, of_piece, strict=True):
                parts[i] += mine
                cuts[i] += piece.cuts
        told = zip(self.listeners, parts, cuts, strict=True)
        heard = [one.gather(mine, of_mine) for one, mine, of_mine in told]
        grid = min((one.grid for one in heard), key=lambda grid: grid.hop)
        presence = self._blend([one.presence[None] for one in heard])[0]
        value = self._blend([_on_grid(one, grid) for one in heard])
        return presence, Scores(recording.id, grid, self.classes, value, self.bundle.name)

    def _blend(self, values: list[Floats]) -> Floats:
        if self.blend is None:
            return values[0]
        from antpitta.scores.members import Member  # with its Blend, above

        named = zip(self.bundle.members, values, strict=True)
        return self.blend.apply([Member(name, value) for name, value in named]).astype(np.float32)


def _blend_of(bundle: Bundle) -> "Blend | None":
    if not bundle.members:
        return None
    from antpitta.scores.blend import Blend  # pandas takes a while to load

    return Blend.from_json(bundle.blend)


def _on_grid(heard: Heard, grid: TimeGrid) -> Floats:
    """The member's rows at the middles of the ``grid``'s rows."""
    middle = (np.arange(grid.frames) + 0.5) * grid.hop
    row = np.clip((middle / heard.grid.hop).astype(np.int64), 0, len(heard.value) - 1)
    taken: Floats = heard.value[row]
    return taken
