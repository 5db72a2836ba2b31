"""Folds side by side on one device: each in a thread, on a GPU each on a stream of its own.

A fold's short kernels leave a big GPU half empty, and while its scores are written the GPU would
wait. Folds share nothing but the pictures, so each comes out as it would alone.

What a process has only once (its random numbers, its compiler, the recording of graphs, the
files of a run) is used under ``SINGLE_FILE``.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event, RLock
from typing import Any, TypeVar

import torch

T = TypeVar("T")
SINGLE_FILE = RLock()


class _Stopped(Exception):
    """Another lane failed."""


@dataclass
class Lanes:
    """So many folds at a time."""

    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stop: Event = field(default_factory=Event, repr=False)

    def check(self) -> None:
        """To be called now and then by what runs in a lane: it ends there if another failed."""
        if self.stop.is_set():
            raise _Stopped

    def each(self, jobs: Sequence[int], work: Callable[[int, int], T]) -> list[T]:
        """``work(job, lane)`` of all jobs, in their order. The first mistake is raised, once all
        that was begun has ended.
        """
        if self.count == 1:
            return [work(job, 0) for job in jobs]
        self.stop.clear()
        free: SimpleQueue[int] = SimpleQueue()
        for lane in range(self.count):
            free.put(lane)
        streams = [self._stream() for _ in range(self.count)]

        def run(job: int) -> T:
            self.check()
            lane = free.get()
            try:
                with streams[lane]:
                    return work(job, lane)
            except BaseException:
                self.stop.set()
                raise
            finally:
                free.put(lane)

        with ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(run, job) for job in jobs]
            try:
                return [future.result() for future in futures]
            except BaseException as error:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise _first(futures, error) from None

    def _stream(self) -> AbstractContextManager[None]:
        if self.device.type != "cuda":
            return nullcontext()
        torch.cuda.synchronize(self.device)
        stream: AbstractContextManager[None] = torch.cuda.stream(torch.cuda.Stream(self.device))  # type: ignore[no-untyped-call]
        return stream


def _first(futures: Sequence[Future[Any]], error: BaseException) -> BaseException:
    """The mistake itself, and not that of a lane which ended because of it."""
    if not isinstance(error, _Stopped):
        return error
    told = (one.exception() for one in futures if one.done() and not one.cancelled())
    return next((one for one in told if one and not isinstance(one, _Stopped)), error)
