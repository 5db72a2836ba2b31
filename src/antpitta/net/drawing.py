"""From a stretch of sound to the rows of numbers that a recipe's network takes.

The only place that knows both ways, the spectrogram and the embedding: training and prediction
draw with the same pen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antpitta.core.config import Recipe
from antpitta.core.drawings import Drawing
from antpitta.core.types import Recording
from antpitta.net.embedding import Embedder, NoVector

Wave = NDArray[np.float32]
Picture = NDArray[Any]  # (frames, width): uint8 of a spectrogram, float16 of an embedding
Read = Callable[[Recording, float, float, int], Wave]  # from, to, in seconds; at a sample rate


@dataclass(frozen=True)
class Pen:
    """Draws the images of recordings; may be shared by threads."""

    drawing: Drawing
    width: int
    draw: Callable[[Wave, int, int], Picture]  # of a whole image's wave, so many frames, its rate

    def whole(self, recording: Recording, read: Read) -> Picture:
        """The picture of a recording: its images end to end, (frames, width)."""
        images = self.drawing.images_of(recording.duration)
        return np.concatenate([self.image(recording, *cut, read) for cut in images])

    def image(self, recording: Recording, start: float, stop: float, read: Read) -> Picture:
        """One image of what ``read`` gives, at the rate that the drawing asks for.

        Sound that ends before its header says it does is filled up with silence. Raises NoVector
        where the network of an embedding gives what is no number.
        """
        rate = self.drawing.rate_for(recording.sample_rate)
        need = round((stop - start) * rate)
        wave = read(recording, start, stop, rate)[:need]
        if len(wave) < need:
            wave = np.pad(wave, (0, need - len(wave)))
        found = self.draw(wave, self.drawing.frames_of(stop - start), rate)
        sound = np.isfinite(found).all(axis=1)
        if not sound.all():
            at = start + int(sound.argmin()) * (stop - start) / len(found)
            raise NoVector(
                f"{recording.path}: the embedding network gives what is no number, or one beyond "
                f"65504, at {at:.1f} s; leave the recording out, or set another embedding.output"
            )
        return found


def make_pen(recipe: Recipe, network: Path | None = None) -> Pen:
    """The pen of a recipe; ``network`` is the file of its embedding, if it has one.

    Raises UserMistake as :class:`Embedder` does.
    """
    if recipe.embedding is None:
        from antpitta.sound.logmel import LogMel, picture  # SciPy takes a while to load

        front = recipe.front
        mel_at = cache(partial(LogMel, front))

        def draw(wave: Wave, frames: int, rate: int) -> Picture:
            return picture(wave, mel_at(rate), frames)

        return Pen(front, front.bands, draw)
    if network is None:
        raise ValueError("the file of the embedding's network was not handed in")
    embedder = Embedder(recipe.embedding, network)
    return Pen(
        recipe.embedding, embedder.width, lambda wave, frames, _: embedder.draw(wave, frames)
    )
