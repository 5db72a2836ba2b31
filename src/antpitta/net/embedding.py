"""A trained network that somebody brings, asked for its vectors of a recording.

What is asked for may be any tensor inside the network (networks.py), because many networks end in
their own species (which are worth having where they are ours too); where it is a map, the bands
apart that a network's last layers give up, its time becomes the frames'.

A network that was opened is for one thread; :class:`Embedder` keeps one for each that comes.
"""

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antpitta.core.drawings import Embedding
from antpitta.core.errors import UserMistake
from antpitta.net.networks import Ask, Wave, open_network


class NoVector(UserMistake):
    """The network gave something that is no number."""


class Embedder:
    """Waves of an image to its vectors; may be called from several threads.

    Raises UserMistake for a file that is no such network, one that takes another length of
    sound, a tensor that it does not have, or one that is no vector.
    """

    def __init__(self, embedding: Embedding, path: Path, threads: int = 1) -> None:
        self.embedding = embedding
        self.path = path
        self.threads = threads
        self.samples = round(embedding.seconds * embedding.sample_rate)
        self._own = threading.local()
        noise = np.random.default_rng(0).random(self.samples, dtype=np.float32)
        self.width = sum(cells.shape[1] for cells in self._hear(noise))

    def draw(self, wave: Wave, frames: int) -> NDArray[np.float16]:
        """The vectors (frames, width) of an image; only a short one is filled up with silence.

        Frames near an end whose stretch is moved back inside share one vector, if a vector has no
        time. What is no number, or none of half precision, comes as it is, infinite or NaN.
        """
        edges = np.arange(frames + 1) * (len(wave) / frames)
        wave = np.pad(wave, (0, max(0, self.samples - len(wave))))
        first = np.arange(0, frames, self.embedding.together)
        middle = (edges[first] + edges[[*first[1:], frames]]) / 2
        start = np.rint(middle - self.samples / 2).astype(np.int64)
        start = start.clip(0, len(wave) - self.samples)
        distinct, which = np.unique(start, return_inverse=True)
        found = [self._hear(wave[at : at + self.samples]) for at in distinct]
        run = which.repeat(self.embedding.together)[:frames]
        spans = np.stack([edges[:-1], edges[1:]], axis=1) - distinct[run, None]
        vectors = [
            np.concatenate([_mean(cells, span / self.samples) for cells in found[i]])
            for i, span in zip(run, spans, strict=True)
        ]
        with np.errstate(over="ignore"):
            half: NDArray[np.float16] = np.stack(vectors).astype(np.float16)
        return half

    def _hear(self, wave: Wave) -> list[NDArray[np.float32]]:
        """What the network gives of a stretch: each tensor as (cells, width)."""
        names, tensors = self.embedding.outputs, self._ask(wave)
        cells = [self._cells(*one) for one in zip(names, tensors, strict=False)]
        if (known := self.embedding.known) is not None:  # their tensor is the last one asked for
            cells.append(self._logits(tensors[-1], known))
        return cells

    def _logits(
        self, tensor: NDArray[np.float32], known: tuple[tuple[int, ...], ...]
    ) -> NDArray[np.float32]:
        """The network's own logit of each species, the highest of its classes: (1, species)."""
        if tensor.size != self.embedding.classes:
            raise UserMistake(
                f"{self.path}: its first output is of the shape {tensor.shape}, and the labels "
                f"name {self.embedding.classes} classes; give its own labels as embedding.labels, "
                "or null"
            )
        logits = tensor.reshape(-1)
        own = [max((logits[place] for place in places), default=0.0) for places in known]
        return np.array([own], dtype=np.float32)

    def _cells(self, name: str | None, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        axis, shape = self.embedding.time_axis, tensor.shape
        if sum(size != 1 for size in shape) == 1:  # a vector is one cell, whatever its axes
            return tensor.reshape(1, -1)
        said = f"{self.path}: its output {name or 'the first'} is of the shape"
        if axis is None:
            raise UserMistake(
                f"{said} {shape}, no vector; name another tensor as embedding.output, or the axis "
                "along which its time goes as embedding.time_axis"
            )
        if axis >= tensor.ndim or shape[0] != 1:
            raise UserMistake(
                f"{said} {shape}, not one stretch with an axis {axis} for time; set another "
                "embedding.time_axis or embedding.output"
            )
        cells: NDArray[np.float32] = np.moveaxis(tensor, axis, 0).reshape(shape[axis], -1)
        return cells

    def _ask(self, wave: Wave) -> list[NDArray[np.float32]]:
        ask: Ask | None = getattr(self._own, "ask", None)
        if ask is None:
            own = () if self.embedding.known is None else (None,)
            outputs = (*self.embedding.outputs, *own)
            ask = self._own.ask = open_network(self.path, self.samples, outputs, self.threads)
        return ask(wave)


def _mean(cells: NDArray[np.float32], span: NDArray[np.float64]) -> NDArray[np.float32]:
    """The mean over a span (start, stop), in shares of the stretch that the cells part evenly."""
    share = np.diff((np.arange(len(cells) + 1) / len(cells)).clip(*span))
    if len(cells) == 1 or not share.any():  # a vector, or a recording of no length
        mean: NDArray[np.float32] = cells[0]
    else:
        mean = share @ cells / share.sum()
    return mean
