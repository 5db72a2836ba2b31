"""Memory that is kept: no page is asked of the system twice, and all goes back at the end."""

import resource
from pathlib import Path

import pytest
import torch

from antpitta.train import compute as memory
from antpitta.train.compute import keep_freed_memory

LARGE = 20_000_000  # numbers: 80 MB, far above any threshold that glibc comes to by itself
PAGES = LARGE * 4 // resource.getpagesize()
TIMES = 20


def faults(size=LARGE):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        torch.ones(size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident():
    """Pages of this process that lie in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc")
def test_what_is_freed_is_used_again_and_given_back_at_the_end():
    with keep_freed_memory():
        assert faults() < TIMES / 3 * PAGES
        kept = resident()
    assert resident() < kept - 0.9 * PAGES
    # Too large for any hole that was left in the heap: every page, every time.
    assert faults(6 * LARGE) > (TIMES - 1) * 6 * PAGES


def test_nothing_is_changed_where_the_library_is_another(monkeypatch):
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with keep_freed_memory():
        assert torch.ones(3).sum() == 3
