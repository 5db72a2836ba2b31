"""Similar sounds: an exact search over embeddings by the cosine of their angles.

A million vectors of 1,024 numbers are 2 GB in float16. They stay in their memory-mapped file and
are compared a block at a time, so that a search needs little memory and no index; it takes as long
as reading the file once. Products are float32: a cosine is then accurate to about 1e-3, which is
what float16 holds.
"""

import numpy as np
from numpy.typing import NDArray

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
