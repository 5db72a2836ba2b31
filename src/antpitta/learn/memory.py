"""Freed memory is kept for the next step, not given back to the system and asked for again.

A step on a CPU takes and frees tensors of many MB each. By its defaults glibc hands every one of
them back to the system, which fills all its pages with zeros before it lends them again: up to a
third of a training run went into that. Elsewhere than on glibc nothing is changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL

TRIM, MAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
KEPT = 2**31 - 1  # bytes, the most that mallopt takes
USUAL = 32 << 20  # bytes: the highest that glibc's own, moving threshold comes to


@contextmanager
def memory_kept() -> Iterator[None]:
    """While this lasts, what is freed stays with the process; at the end it goes back."""
    heap = _glibc()
    if heap is None:
        yield
        return
    _set_thresholds(heap, KEPT, KEPT)
    try:
        yield
    finally:
        _set_thresholds(heap, USUAL, 2 * USUAL)
        heap.malloc_trim(0)


def _set_thresholds(heap: CDLL, mapped: int, trimmed: int) -> None:
    heap.mallopt(MAP, mapped)
    heap.mallopt(TRIM, trimmed)


def _glibc() -> CDLL | None:
    """The C library this process runs on, where it is glibc."""
    try:
        own = CDLL(None)
    except TypeError:  # Windows has no library that is everybody's
        return None
    return own if hasattr(own, "gnu_get_libc_version") else None
