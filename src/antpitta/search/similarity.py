"""Similar sounds: an exact search over embeddings by the cosine of their angles.

:class:`SimilarityMatcher` searches archives by example boxes, :func:`most_similar` any file of
vectors. A million vectors of 1,024 numbers are 2 GB in float16. They stay in their memory-mapped
file and are compared a block at a time, so that a search needs little memory and no index; it takes
as long as reading the file once. Products are float32: a cosine is then accurate to about 1e-3,
which is what float16 holds.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from antpitta.core.types import Recording
from antpitta.files.cache import cached_features
from antpitta.model.features import FeatureArray, FeatureExtractor, ReadAudio
from antpitta.search.matching import Features, Matcher

Floats = NDArray[np.floating]
BLOCK = 16_384  # vectors


def normalize(vectors: Floats) -> NDArray[np.float32]:
    """Scale vectors to length 1; one of zeros stays.

    Parameters
    ----------
    vectors : (vectors, values)

    Returns
    -------
    (vectors, values)
    """
    values = np.asarray(vectors, dtype=np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    return values / np.where(length > 0, length, 1).astype(np.float32)[:, None]


def most_similar(
    vectors: Floats, queries: Floats, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the vectors with the smallest angles to some queries.

    Parameters
    ----------
    vectors : (vectors, values), such as a memory map of float16
    queries : (queries, values)
    count : vectors for each query

    Returns
    -------
    index : (queries, found), from the most similar on; equal ones in their order. ``found`` is
        ``count``, or the number of vectors if that is smaller.
    cosine : (queries, found)
    """
    queries = normalize(queries)
    count = min(count, len(vectors))
    index = np.zeros((len(queries), 0), dtype=np.int64)
    cosine = np.zeros((len(queries), 0), dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):
        block = queries @ normalize(vectors[start : start + BLOCK]).T
        rows = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        cosine, index = np.hstack([cosine, block]), np.hstack([index, rows])
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
        cosine = np.take_along_axis(cosine, order, axis=1)
        index = np.take_along_axis(index, order, axis=1)
    return index, cosine


class SimilarityMatcher(Matcher):
    """Compares the mean vector in a box with that of as many frames anywhere else, by cosine."""

    def correlate(self, features: Features) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Compare each example with the vectors of a sound.

        Parameters
        ----------
        features : (frames, values)

        Yields
        ------
        The index of an example, and the cosine (positions,) with the frames from each one on.
        Examples longer than the sound are left out.
        """
        means: dict[int, NDArray[np.float32]] = {}
        for i, template in enumerate(self.templates):
            length = len(template.pixels)
            if length > len(features):
                continue
            if length not in means:
                means[length] = normalize(_moving_means(features, length))
            [example] = normalize(_moving_means(template.pixels, length))
            yield i, (means[length] @ example).astype(np.float64)


def _moving_means(vectors: Floats, length: int) -> NDArray[np.float64]:
    """The means of ``length`` vectors from each on, (positions, values)."""
    sums = np.cumsum(vectors, axis=0, dtype=np.float64)
    sums[length:] = sums[length:] - sums[:-length]
    means: NDArray[np.float64] = sums[length - 1 :] / length
    return means


def embed_recording(
    recording: Recording, extractor: FeatureExtractor, read: ReadAudio, notes: list[str]
) -> FeatureArray:
    """The vectors of a recording, from the cache that training and prediction use, too.

    Parameters
    ----------
    recording : which one
    extractor : of embeddings
    read : reads the sound, and adds to ``notes`` what is wrong with it
    notes : of this recording

    Returns
    -------
    (frames, values) of all segments
    """

    def embed(missing: Recording, own: list[str]) -> FeatureArray:
        known = len(notes)
        vectors = extractor.extract_all(missing, read)
        own += notes[known:]
        return vectors

    [vectors] = cached_features([recording], extractor.config.digest, embed, notes=notes)
    return vectors
