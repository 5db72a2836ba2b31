"""Where sound resembles the box of an example call: what all measures share, and templates.

A :class:`Matcher` compares examples with the features of a sound, finds the peaks of each and
keeps the best ones. Two measures exist: :class:`TemplateMatcher` here, for spectrograms, and
:class:`~antpitta.search.similarity.SimilarityMatcher` for embeddings.

The score of a template is the normalised cross-correlation: Pearson's correlation between the
pixels of the template and those under it, from -1 to 1, 0 where the pixels are constant. The
template moves in time only, because a box has its own band. The gain of a recorder and the scaling
of a segment change nothing (Lewis, "Fast Normalized Cross-Correlation", 1995; OpenCV's
TM_CCOEFF_NORMED).

- A segment's bands are transformed once for all templates. A template adds one multiplication a
  band and one inverse transform; its own spectra are kept.
- The sums under a template are differences of cumulative sums of whole numbers: they are exact,
  and templates of one band share them.
- The mean of each band is subtracted before the transform and its share added again afterwards:
  float32 is then accurate to about 1e-6.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from antpitta.core.types import Annotation

Features = NDArray[Any]  # (frames, bands) of a spectrogram, (frames, values) of an embedding
Pixels = NDArray[np.uint8]  # (frames, bands)
Floats = NDArray[np.float64]
SHARED_OVERLAP = 0.5  # of the shorter of two matches: above it they are one call
TRANSFORM_STEP = 512  # frames: sounds of similar lengths share the spectra of templates


@dataclass(frozen=True)
class Template:
    """The features of an example call.

    Parameters
    ----------
    name : unique
    box : around the call; its frequencies are those of the spectrogram at most
    pixels : (frames, bands) of the spectrogram in the box, or the vectors (frames, values) in it
    first_band : the lowest of its bands
    """

    name: str
    box: Annotation
    pixels: Features
    first_band: int = 0

    @property
    def bands(self) -> slice:
        """Its bands in the spectrogram."""
        return slice(self.first_band, self.first_band + self.pixels.shape[1])


@dataclass(frozen=True)
class Peaks:
    """Matches: positions where the correlation is highest nearby, as arrays of one length.

    Parameters
    ----------
    template : index of the template
    frame : the first frame under the template
    score : the correlation
    """

    template: NDArray[np.int64]
    frame: NDArray[np.int64]
    score: Floats

    def rows(self) -> Iterator[tuple[int, int, float]]:
        """The template, the frame and the score of each."""
        return zip(self.template.tolist(), self.frame.tolist(), self.score.tolist(), strict=True)

    def select(self, rows: NDArray[np.int64]) -> "Peaks":
        """Some of the matches, in the order of ``rows``."""
        return Peaks(self.template[rows], self.frame[rows], self.score[rows])

    def shift(self, frames: int) -> "Peaks":
        """The same matches, some frames later."""
        return Peaks(self.template, self.frame + frames, self.score)


class Matcher(ABC):
    """Finds sounds that resemble templates; threads may share one object.

    Parameters
    ----------
    templates : all of the same kind of features
    """

    def __init__(self, templates: Sequence[Template]) -> None:
        self.templates = tuple(templates)
        self.longest = max(len(template.pixels) for template in templates)
        self.species = tuple(dict.fromkeys(template.box.label for template in templates))
        column = {name: i for i, name in enumerate(self.species)}
        self.column = np.array([column[template.box.label] for template in templates])
        self.frames = np.array([len(template.pixels) for template in templates])

    @abstractmethod
    def correlate(self, features: Features) -> Iterator[tuple[int, Floats]]:
        """Compare each template with the features of a sound.

        Parameters
        ----------
        features : (frames, bands or values)

        Yields
        ------
        The index of a template, and how much it resembles (positions,) the features from each
        frame on, from -1 to 1. Templates longer than the sound are left out.
        """

    def find(
        self, features: Features, threshold: float, most: int
    ) -> tuple[Peaks, NDArray[np.float32]]:
        """Find the best matches in a sound, each call once.

        Parameters
        ----------
        features : (frames, bands or values)
        threshold : the lowest score
        most : matches of a species

        Returns
        -------
        peaks : from the highest score down
        best : (species,), the highest score, 0 where none is above it
        """
        best = np.zeros(len(self.species), dtype=np.float32)
        parts = []
        for i, correlation in self.correlate(features):
            frames = find_peaks(correlation, threshold)
            parts.append(Peaks(np.full(len(frames), i), frames, correlation[frames]))
            best[self.column[i]] = max(best[self.column[i]], correlation.max())
        return self.keep_best(parts, most), best

    def keep_best(self, parts: Iterable[Peaks], most: int) -> Peaks:
        """The best matches of each species among several lists; of one call only the best.

        Two matches of one species are one call where they share more than
        :data:`SHARED_OVERLAP` of the shorter.

        Parameters
        ----------
        parts : matches on one axis of frames
        most : matches of a species

        Returns
        -------
        Peaks
            From the highest score down, equal ones from the first frame on.
        """
        peaks = _concatenate(parts)
        peaks = peaks.select(np.lexsort((peaks.template, peaks.frame, -peaks.score)))
        species, length = self.column[peaks.template], self.frames[peaks.template]
        kept = [np.zeros(0, np.int64)]
        for column in np.unique(species):
            rows = np.flatnonzero(species == column)
            kept.append(rows[_distinct(peaks.frame[rows], length[rows], most)])
        return peaks.select(np.sort(np.concatenate(kept)))


class TemplateMatcher(Matcher):
    """Correlates templates with spectrograms; threads may share one object.

    Parameters
    ----------
    templates : all of one spectrogram's settings; none is constant
    """

    def __init__(self, templates: Sequence[Template]) -> None:
        super().__init__(templates)
        self._centred = [centre(template.pixels) for template in templates]
        self._norm = [float(np.sqrt(np.square(pixels).sum())) for pixels in self._centred]
        self._spectra = lru_cache(maxsize=4)(self._transform_templates)

    def correlate(self, features: Pixels) -> Iterator[tuple[int, Floats]]:
        """Correlate each template with a spectrogram.

        Parameters
        ----------
        features : (frames, bands)

        Yields
        ------
        The index of a template, and its correlation (positions,) with the pixels from each frame
        on. Templates longer than the spectrogram are left out.
        """
        frames = len(features)
        size = fft.next_fast_len(-(-frames // TRANSFORM_STEP) * TRANSFORM_STEP, real=True)
        rows = np.ascontiguousarray(features.T).astype(np.float32)  # (bands, frames)
        means = rows.mean(axis=1, dtype=np.float64)
        rows -= means[:, None].astype(np.float32)
        spectrum = fft.rfft(rows, size, axis=1)
        sums = _WindowSums(features)
        for i, (template, conjugate) in enumerate(
            zip(self.templates, self._spectra(size), strict=True)
        ):
            length, positions = self.frames[i], frames - self.frames[i] + 1
            if positions < 1:
                continue
            product = np.multiply(conjugate, spectrum[template.bands]).sum(axis=0)
            numerator = fft.irfft(product, size)[:positions].astype(np.float64)
            numerator += means[template.bands] @ self._centred[i].sum(axis=0)
            spread = sums.spread(template.bands, length)
            scale = self._norm[i] * np.sqrt(spread)
            yield i, np.divide(numerator, scale, out=np.zeros(positions), where=spread > 0)

    def _transform_templates(self, size: int) -> list[NDArray[np.complex64]]:
        """The conjugate spectra of all templates, (bands, bins) each."""
        return [
            fft.rfft(np.ascontiguousarray(pixels.T).astype(np.float32), size, axis=1).conj()
            for pixels in self._centred
        ]


class _WindowSums:
    """Sums of the pixels under a template at every position, shared by templates of one band."""

    def __init__(self, pixels: Pixels) -> None:
        values = pixels.astype(np.int32)
        self._by_band = [
            np.cumsum(np.pad(part, ((0, 0), (1, 0))), axis=1) for part in (values, values * values)
        ]
        self._by_frame: dict[tuple[int, int], list[NDArray[np.int64]]] = {}

    def spread(self, bands: slice, length: int) -> Floats:
        """The sum of squared deviations from the mean, (positions,)."""
        sums = self._by_frame.get((bands.start, bands.stop))
        if sums is None:
            sums = [
                np.cumsum(
                    np.pad(part[:, bands.stop] - part[:, bands.start], (1, 0)), dtype=np.int64
                )
                for part in self._by_band
            ]
            self._by_frame[bands.start, bands.stop] = sums
        total, squares = (part[length:] - part[:-length] for part in sums)
        count = length * (bands.stop - bands.start)
        squared_deviations: Floats = (count * squares - total * total) / count  # ints: exact
        return squared_deviations


def centre(pixels: Pixels) -> Floats:
    """The pixels of a template less their mean.

    Parameters
    ----------
    pixels : (frames, bands)

    Returns
    -------
    (frames, bands)
    """
    centred: Floats = pixels - pixels.mean(dtype=np.float64)
    return centred


def find_peaks(values: Floats, threshold: float) -> NDArray[np.int64]:
    """The positions that are higher than the one before and not lower than the one after.

    Parameters
    ----------
    values : (positions,)
    threshold : the lowest value of a peak

    Returns
    -------
    Positions in their order; the ends can be peaks.
    """
    padded = np.pad(values, 1, constant_values=-np.inf)
    is_peak = (values > padded[:-2]) & (values >= padded[2:]) & (values >= threshold)
    return np.flatnonzero(is_peak)


def _concatenate(parts: Iterable[Peaks]) -> Peaks:
    lists = [Peaks(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)), *parts]
    return Peaks(
        np.concatenate([part.template for part in lists]),
        np.concatenate([part.frame for part in lists]),
        np.concatenate([part.score for part in lists]),
    )


def _distinct(frame: NDArray[np.int64], length: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The first matches in order that share too little with an earlier one, at most ``most``."""
    kept: list[int] = []
    for i, (start, frames) in enumerate(zip(frame, length, strict=True)):
        earlier = np.array(kept, dtype=np.int64)
        stop = np.minimum(start + frames, frame[earlier] + length[earlier])
        shared = stop - np.maximum(start, frame[earlier])
        if not np.any(shared > SHARED_OVERLAP * np.minimum(frames, length[earlier])):
            kept.append(i)
            if len(kept) == most:
                break
    return np.array(kept, dtype=np.int64)
