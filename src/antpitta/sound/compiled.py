"""Power in bands by ``_bandpower.c``: what it is told, and for which frames it is there."""

import ctypes
from functools import cache
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
from numpy.ctypeslib import ndpointer
from numpy.typing import NDArray

LONGEST = 1 << 16  # samples of a frame
LANES = 16  # frames at once

Floats = NDArray[np.float32]


class _Plan(ctypes.Structure):
    """A transform's constants: ``plan`` of ``_bandpower.c``, field for field."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("n", "hop", "bins", "bands")),
        *((name, ctypes.c_int) for name in ("columns", "leaf", "depth")),
        *((name, ctypes.c_void_p) for name in ("radix", "places", "window", "twiddles")),
        *((name, ctypes.c_void_p) for name in ("turns", "first", "weights")),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The library of ``_bandpower.c``, where it was compiled."""
    spec = find_spec("antpitta.sound._bandpower")
    if spec is None or spec.origin is None:
        return None
    found = ctypes.CDLL(spec.origin)
    wave, power = (ndpointer(np.float32, ndim, flags="C") for ndim in (1, 2))
    found.antpitta_band_power.argtypes = (ctypes.POINTER(_Plan), wave, ctypes.c_int64, power)
    return found


class Compiled:
    """Of frames of 2^a 3^b samples that are a whole number of even hops."""

    def __init__(self, plan: _Plan, arrays: tuple[NDArray[Any], ...], found: ctypes.CDLL) -> None:
        self._plan, self._arrays = plan, arrays  # the plan points at them
        self._find = found.antpitta_band_power

    @classmethod
    def of(cls, window: Floats, hop: int, triangles: Floats) -> Self | None:
        """As :func:`antpitta.sound.bandpower.band_power`; None where there is no way."""
        found, n = library(), len(window)
        passes, owners = passes_of(n // 2), owners_of(triangles)
        if not (found and passes and owners) or hop % 2 or n % hop or n > LONGEST:
            return None
        leaf, *radix = passes
        columns, order = LANES + n // hop, _order(leaf, radix)
        arrays = (
            np.array(radix, dtype=np.int32),
            (2 * order % hop * columns + 2 * order // hop).astype(np.int32),
            window.reshape(-1, 2)[order].astype(np.float32),
            _twiddles(leaf, radix),
            _turned(np.arange(n // 4 + 1) / n),
            owners[0],
            (owners[1] / 4).astype(np.float32),  # the library doubles what it squares
        )
        bands, bins = triangles.shape
        places = (array.ctypes.data for array in arrays)
        return cls(_Plan(n, hop, bins, bands, columns, leaf, len(radix), *places), arrays, found)

    def __call__(self, wave: Floats, power: Floats) -> None:
        need = (len(power) - 1) * self._plan.hop + self._plan.n if len(power) else 0
        if len(wave) < need or power.shape[1] != self._plan.bands:
            raise ValueError(f"{power.shape} takes {need} samples and {self._plan.bands} bands")
        wave = np.ascontiguousarray(wave, dtype=np.float32)
        if self._find(self._plan, wave, len(power), power):
            raise MemoryError(f"no memory for transforms of {self._plan.n} samples")


def passes_of(count: int) -> tuple[int, ...] | None:
    """How a transform of ``count`` complex values is built: its leaves' size, then each radix.

    None where ``count`` is not 2^a 3^b, or too small for a pass over leaves.

    >>> passes_of(1024), passes_of(1536), passes_of(1000)
    ((4, 4, 4, 4, 4), (8, 4, 4, 4, 3), None)
    """
    threes = 0
    while count and count % 3 == 0:
        count, threes = count // 3, threes + 1
    twos = count.bit_length() - 1
    if count != 1 << max(twos, 0) or twos < 2:
        return None
    leaf = 8 if twos % 2 else 4
    passes = (leaf, *[4] * ((twos - 2) // 2), *[3] * threes)
    return passes if len(passes) > 1 else None


def owners_of(triangles: Floats) -> tuple[NDArray[np.int32], Floats] | None:
    """The first of each bin's two neighbouring bands, (bins,), and what both take, (bins, 2).

    None where a bin belongs to others as well.
    """
    bins = triangles.shape[1]
    first = np.argmax(triangles != 0, axis=0)
    padded = np.vstack([triangles, np.zeros((1, bins), dtype=np.float32)])
    weights = np.stack([padded[first + i, np.arange(bins)] for i in range(2)], axis=1)
    whole = np.count_nonzero(weights) == np.count_nonzero(triangles)
    return (first.astype(np.int32), weights) if whole else None


def _order(leaf: int, radix: list[int]) -> NDArray[np.int64]:
    """Which value each leaf takes where: neighbours in a leaf are what its passes leave apart."""
    order = np.arange(leaf)
    for r in radix:
        order = (order * r + np.arange(r)[:, None]).ravel()
    return order


def _twiddles(leaf: int, radix: list[int]) -> Floats:
    """What each pass turns its parts by before they are combined, one pass after the other."""
    sizes = leaf * np.cumprod(radix)
    parts = [
        np.outer(np.arange(size // r), np.arange(1, r))
        for size, r in zip(sizes, radix, strict=True)
    ]
    return np.concatenate([_turned(part / size) for part, size in zip(parts, sizes, strict=True)])


def _turned(turns: NDArray[np.float64]) -> Floats:
    """Real and imaginary parts, one after the other, of 1 turned back so many times."""
    turned: Floats = np.exp(-2j * np.pi * turns.ravel()).astype(np.complex64).view(np.float32)
    return turned
