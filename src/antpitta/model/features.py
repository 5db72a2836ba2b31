"""From a stretch of sound to the rows of numbers that a recipe's network takes.

The only place that knows both ways, the spectrogram and the embedding: training and prediction
draw with the same pen.

The scores of a recording's images, joined on one grid of the recording's own clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antpitta.core.config import Recipe
from antpitta.core.features import FeatureConfig
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Recording
from antpitta.model.embedding import EmbeddingModel, NoEmbeddingError

Wave = NDArray[np.float32]
FeatureArray = NDArray[Any]  # (frames, width): uint8 of a spectrogram, float16 of an embedding
Read = Callable[[Recording, float, float, int], Wave]  # from, to, in seconds; at a sample rate


@dataclass(frozen=True)
class FeatureExtractor:
    """Draws the images of recordings; may be shared by threads."""

    drawing: FeatureConfig
    width: int
    draw: Callable[
        [Wave, int, int], FeatureArray
    ]  # of a whole image's wave, so many frames, its rate

    def whole(self, recording: Recording, read: Read) -> FeatureArray:
        """The picture of a recording: its images end to end, (frames, width)."""
        images = self.drawing.segments(recording.duration)
        return np.concatenate([self.image(recording, *cut, read) for cut in images])

    def image(self, recording: Recording, start: float, stop: float, read: Read) -> FeatureArray:
        """One image of what ``read`` gives, at the rate that the drawing asks for.

        Sound that ends before its header says it does is filled up with silence. Raises NoVector
        where the network of an embedding gives what is no number.
        """
        rate = self.drawing.read_rate(recording.sample_rate)
        need = round((stop - start) * rate)
        wave = read(recording, start, stop, rate)[:need]
        if len(wave) < need:
            wave = np.pad(wave, (0, need - len(wave)))
        found = self.draw(wave, self.drawing.n_frames(stop - start), rate)
        sound = np.isfinite(found).all(axis=1)
        if not sound.all():
            at = start + int(sound.argmin()) * (stop - start) / len(found)
            raise NoEmbeddingError(
                "E_EMBEDDING_NOT_FINITE",
                f"{recording.path}: the embedding model returns a value that is not finite, or "
                f"beyond 65504, at {at:.1f} s",
                "leave the recording out, or set another embedding.output",
            )
        return found


def build_feature_extractor(recipe: Recipe, network: Path | None = None) -> FeatureExtractor:
    """The pen of a recipe; ``network`` is the file of its embedding, if it has one.

    Raises UserError as :class:`EmbeddingModel` does.
    """
    if recipe.embedding is None:
        from antpitta.sound.mel import LogMel, mel_features

        front = recipe.features
        mel_at = cache(partial(LogMel, front))

        def draw(wave: Wave, frames: int, rate: int) -> FeatureArray:
            return mel_features(wave, mel_at(rate), frames)

        return FeatureExtractor(front, front.n_mels, draw)
    if network is None:
        raise ValueError("the file of the embedding's network was not handed in")
    embedder = EmbeddingModel(recipe.embedding, network)
    return FeatureExtractor(
        recipe.embedding, embedder.width, lambda wave, frames, _: embedder.draw(wave, frames)
    )


Floats = NDArray[np.float32]


def score_grid(image: TimeGrid, unit: int) -> TimeGrid:
    """The rows of the scores of one image: ``unit`` frames each, the last perhaps cut short."""
    rows = -(-image.frames // unit)
    return TimeGrid(hop=image.hop * unit, frames=rows, start=image.start)


def stitch_segments(
    parts: list[Floats], grids: list[TimeGrid], unit: int
) -> tuple[Floats, TimeGrid]:
    """The scores of a recording's images, laid on one grid.

    Every row goes where its middle lies, and the higher wins where two meet at a seam; rows at
    a seam are at most half a row away from where they were heard. An image's rows can be a
    little longer than the grid's and leave one of them out: it takes what was heard in its own
    middle, because a 0 there would cut an event in two.
    """
    hop = grids[0].hop * unit
    rows = max(-int(-(grids[-1].end - 1e-9) // hop), 1)
    whole = np.zeros((rows, parts[0].shape[1]), dtype=np.float32)
    empty = np.ones(rows, dtype=bool)
    starts = []
    for part, image in zip(parts, grids, strict=True):
        grid = score_grid(image, unit)
        start = grid.start + np.arange(len(part)) * grid.hop
        middle = (start + np.minimum(start + grid.hop, image.end)) / 2
        place = np.minimum((middle / hop + 1e-9).astype(np.int64), rows - 1)
        np.maximum.at(whole, place, part)
        empty[place] = False
        starts.append(start)
    middles = (np.flatnonzero(empty) + 0.5) * hop
    holder = np.searchsorted(np.concatenate(starts), middles, side="right") - 1
    whole[empty] = np.concatenate(parts)[holder]
    return whole, TimeGrid(hop=hop, frames=rows)
