"""Sound to features: spectrograms, or the vectors of an embedding model.

A recording may be a spectrogram that another program computed (files/spectrograms.py). Its features
come from these decibels by the rules that apply to our own.

Training and prediction use the same :class:`FeatureExtractor`; this is the only module that knows
both kinds. :func:`stitch_segments` goes the other way: it joins the scores of a recording's
segments on one time grid.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.features import FeatureConfig, explain_dump_mismatch
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Recording
from antpitta.model.embedding import EmbeddingModel, NoEmbeddingError

Floats = NDArray[np.float32]
Wave = NDArray[np.float32]  # (samples,)
FeatureArray = NDArray[Any]  # (frames, width): uint8 of a spectrogram, float16 of an embedding
BACKGROUND_QUANTILE = 0.1  # of the frames of a short sound
BACKGROUND_BANDS = 33  # mel bands around a band
# Start and stop in seconds, sample rate. A spectrogram gives decibels (frames, bands) instead.
ReadAudio = Callable[[Recording, float, float, int], Wave]


@dataclass(frozen=True)
class FeatureExtractor:
    """Computes the features of recordings; threads may share one.

    Parameters
    ----------
    config : settings of the spectrogram or of the embedding
    width : values per frame: mel bands, or the size of an embedding
    compute : from the wave of a segment, its number of frames and its sample rate to features
        (frames, width)
    convert : from the decibels (frames, bands) of a segment to features (frames, width); None where
        features need sound
    """

    config: FeatureConfig
    width: int
    compute: Callable[[Wave, int, int], FeatureArray]
    convert: Callable[[Floats], FeatureArray] | None = None

    def extract_all(self, recording: Recording, read: ReadAudio) -> FeatureArray:
        """Compute the features of a recording, segment by segment.

        Returns
        -------
        (frames, width): those of all segments, concatenated.
        """
        segments = self.config.segments(recording.duration)
        return np.concatenate(
            [self.extract_segment(recording, start, stop, read) for start, stop in segments]
        )

    def extract_segment(
        self, recording: Recording, start: float, stop: float, read: ReadAudio
    ) -> FeatureArray:
        """Compute the features of one segment.

        Parameters
        ----------
        start, stop : seconds in the recording
        read : reads the sound; where it gives less than its header says, silence is appended

        Returns
        -------
        (frames, width)

        Raises
        ------
        NoEmbeddingError
            E_EMBEDDING_NOT_FINITE where an embedding model returns values that are not finite.
        """
        rate = self.config.read_rate(recording.sample_rate)
        if recording.spectrogram is not None:
            assert self.convert is not None, "check_input was not called"
            return self.convert(read(recording, start, stop, rate))
        samples = round((stop - start) * rate)
        wave = read(recording, start, stop, rate)[:samples]
        if len(wave) < samples:
            wave = np.pad(wave, (0, samples - len(wave)))
        features = self.compute(wave, self.config.n_frames(stop - start), rate)
        finite = np.isfinite(features).all(axis=1)
        if not finite.all():
            seconds = start + int(finite.argmin()) * (stop - start) / len(features)
            raise NoEmbeddingError(
                "E_EMBEDDING_NOT_FINITE",
                f"{recording.path}: the embedding model returns a value that is not finite, or "
                f"beyond 65504, at {seconds:.1f} s",
                "leave the recording out, or set another embedding.output",
            )
        return features


def build_feature_extractor(recipe: Recipe, model: Path | None = None) -> FeatureExtractor:
    """Build the feature extractor of a recipe.

    Parameters
    ----------
    recipe : the recipe
    model : the file of its embedding model, for a recipe that has one

    Returns
    -------
    The extractor that training and prediction use.

    Raises
    ------
    UserError
        As :class:`~antpitta.model.embedding.EmbeddingModel`.
    """
    if recipe.embedding is None:
        from antpitta.sound.mel import LogMel, dump_features, mel_features

        config = recipe.features
        log_mel = cache(partial(LogMel, config))  # one per sample rate

        def compute(wave: Wave, frames: int, rate: int) -> FeatureArray:
            return mel_features(wave, log_mel(rate), frames)

        convert = partial(dump_features, config=config)
        return FeatureExtractor(config, config.n_mels, compute, convert)
    if model is None:
        raise ValueError("the recipe has an embedding, and no file of its model is given")
    embedder = EmbeddingModel(recipe.embedding, model)
    return FeatureExtractor(
        recipe.embedding, embedder.width, lambda wave, frames, _: embedder.embed(wave, frames)
    )


def check_input(recipe: Recipe, *, spectrograms: bool) -> None:
    """Check that a recipe can use the recordings as they are.

    Parameters
    ----------
    recipe : the recipe
    spectrograms : whether recordings are spectrograms that another program computed

    Raises
    ------
    UserError
        E_SPECTROGRAM_SETTINGS where the features of the recipe cannot be made of these.
    """
    if not spectrograms:
        return
    if recipe.embedding is not None:
        raise UserError(
            "E_SPECTROGRAM_SETTINGS",
            f"recipe {recipe.name}: its embedding model needs sound, not spectrograms",
            "leave --spectrograms out, or use another recipe, such as rfcx",
        )
    if mismatch := explain_dump_mismatch(recipe.features):
        raise UserError(
            "E_SPECTROGRAM_SETTINGS",
            f"recipe {recipe.name}: its features are not those of the spectrograms: {mismatch}",
            "set features as the spectrograms have them, or leave --spectrograms out",
        )


def append_background(pixels: FeatureArray, frames: int) -> FeatureArray:
    """Continue the spectrogram of a short sound by its background.

    A band's level in the quietest frames is its background, unless the sound fills the band all
    the time: then the neighbouring bands show the background, by their median.

    Parameters
    ----------
    pixels : (frames, bands), uint8
    frames : of the result

    Returns
    -------
    (frames, bands): the sound, then frames of its background.
    """
    quiet = np.quantile(pixels, BACKGROUND_QUANTILE, axis=0)
    half_width = BACKGROUND_BANDS // 2
    padded = np.pad(quiet, half_width, mode="reflect" if len(quiet) > half_width else "edge")
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half_width + 1), axis=1)
    background = np.minimum(quiet, around).round().astype(pixels.dtype)
    if pixels.any():  # frames of nothing but 0 are padding, not background
        background = np.maximum(background, 1)
    rest = np.broadcast_to(background, (max(0, frames - len(pixels)), len(background)))
    return np.concatenate([pixels, rest])


def score_grid(segment: TimeGrid, frames_per_row: int) -> TimeGrid:
    """Return the time grid of a segment's scores.

    Parameters
    ----------
    segment : the grid of its frames
    frames_per_row : frames per row of scores; the last row may have fewer

    Returns
    -------
    The times of the rows.
    """
    rows = -(-segment.frames // frames_per_row)
    return TimeGrid(hop=segment.hop * frames_per_row, frames=rows, start=segment.start)


def stitch_segments(
    parts: list[Floats], grids: list[TimeGrid], frames_per_row: int
) -> tuple[Floats, TimeGrid]:
    """Join the scores of a recording's segments on one grid.

    Each row goes to the row of the grid in which its middle lies; where two meet at the border of
    segments, the higher score wins. A row is at most half a row away from its time. The rows of a
    segment can be slightly longer than those of the grid and skip one of them: that row takes the
    scores of the segment at its middle, because a 0 there would split an event.

    Parameters
    ----------
    parts : (rows, classes) of each segment
    grids : the frames of each segment
    frames_per_row : frames per row of scores

    Returns
    -------
    scores : (rows, classes)
    grid : the times of the rows
    """
    hop = grids[0].hop * frames_per_row
    rows = max(-int(-(grids[-1].end - 1e-9) // hop), 1)
    scores = np.zeros((rows, parts[0].shape[1]), dtype=np.float32)
    empty = np.ones(rows, dtype=bool)
    starts = []
    for part, segment in zip(parts, grids, strict=True):
        grid = score_grid(segment, frames_per_row)
        start = grid.start + np.arange(len(part)) * grid.hop
        middle = (start + np.minimum(start + grid.hop, segment.end)) / 2
        row = np.minimum((middle / hop + 1e-9).astype(np.int64), rows - 1)
        np.maximum.at(scores, row, part)
        empty[row] = False
        starts.append(start)
    middles = (np.flatnonzero(empty) + 0.5) * hop
    source = np.searchsorted(np.concatenate(starts), middles, side="right") - 1
    scores[empty] = np.concatenate(parts)[source]
    return scores, TimeGrid(hop=hop, frames=rows)
