"""What a run computes on: which device and how many, in which precision, compiled or not.

Several devices are several processes, started by spawning (Fabric's ``ddp_spawn``). Its ``ddp``
would start the user's own command or script once more for each device: every one of them would
read the data and claim the run's folder, and a notebook or a test cannot be started twice. So the
command itself stays one process, which prepares and reports; only the training is done by others.

Equal seeds give equal scores on one machine: cuDNN takes deterministic kernels. ``cudnn_benchmark`` lets it
time them first, which can be faster, and two runs then differ in the last digits.

Folds side by side on one device: each in a thread, on a GPU each on a stream of its own.

A fold's short kernels leave a big GPU half empty, and while its scores are written the GPU would
wait. Folds share nothing but the pictures, so each comes out as it would alone.

What a process has only once (its random numbers, its compiler, the recording of graphs, the
files of a run) is used under ``SINGLE_FILE``.

Freed memory is kept for the next step, not given back to the system and asked for again.

A step on a CPU takes and frees tensors of many MB each. By its defaults glibc hands every one of
them back to the system, which fills all its pages with zeros before it lends them again: up to a
third of a training run went into that. Elsewhere than on glibc nothing is changed.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from ctypes import CDLL
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Event, RLock, Thread
from typing import Any, TypeVar, cast

import torch
import torch.multiprocessing as processes
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessRaisedException

from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.model.network import SedNet

T = TypeVar("T")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class ComputeConfig:
    """What a run computes on."""

    device: str = "auto"
    devices: int = 1
    precision: str = "auto"  # bfloat16 on GPUs that have it, else float32
    compile: bool = False  # the backbone, by torch.compile; one process only
    cudnn_benchmark: bool = False  # cuDNN times its kernels before it chooses
    parallel_folds: int = 1  # folds at a time; one process only


@dataclass
class CompiledModel:
    """One compiled network, which every fold's weights are put into: it is compiled once."""

    net: SedNet | None = field(default=None, repr=False)

    def load(self, net: SedNet) -> SedNet:
        """``net`` compiled, or the compiled one with the weights of ``net``."""
        if self.net is None:
            net.backbone.compile(dynamic=False)
            net.prepare = torch.compile(net.prepare, dynamic=False)  # type: ignore[method-assign]
            self.net = net
        else:
            self.net.load_state_dict(net.state_dict())
            self.net.origin = net.origin
        return self.net


def compiled_models(compute: ComputeConfig) -> tuple[CompiledModel, ...]:
    """One for each lane, where networks are compiled."""
    return tuple(CompiledModel() for _ in range(compute.parallel_folds)) if compute.compile else ()


def build_fabric(compute: ComputeConfig) -> Fabric:
    """Raises UserError for a device, a number of them or a precision that is not there."""
    if compute.precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise UserError(
            "E_TODO", f"precision {compute.precision!r}: unknown", f"take one of {known}"
        )
    if compute.devices < 1:
        raise UserError(
            "E_TODO", f"devices {compute.devices}: at least one is needed", "give 1 or more"
        )
    if compute.compile and compute.devices > 1:
        raise UserError("E_TODO", "compiling goes with one device", "leave one of the two out")
    if compute.parallel_folds < 1:
        raise UserError(
            "E_TODO", f"lanes {compute.parallel_folds}: at least one is needed", "give 1 or more"
        )
    if compute.parallel_folds > 1 and compute.devices > 1:
        raise UserError("E_TODO", "several lanes go with one device", "leave one of the two out")
    cuda = torch.cuda.is_available() and compute.device in ("auto", "cuda", "gpu")
    if compute.device in ("cuda", "gpu") and not cuda:
        raise UserError(
            "E_TODO", f"device {compute.device}: there is no such GPU here", "take cpu or auto"
        )
    if cuda and compute.devices > torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(
            "E_TODO", f"devices {compute.devices}: there are {count} GPUs here", f"take {count}"
        )
    precision = compute.precision
    if precision == "auto":
        precision = "bfloat16" if cuda and torch.cuda.is_bf16_supported(False) else "float32"
    try:
        return Fabric(
            accelerator=compute.device,
            devices=compute.devices,
            strategy="auto" if compute.devices == 1 else DDPStrategy(start_method="spawn"),
            precision={"float32": "32-true", "bfloat16": "bf16-mixed"}[precision],  # type: ignore[arg-type]
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(
            "E_TODO", f"device {compute.device}: {error}", "take cpu, cuda or auto"
        ) from None


def warm_up(compute: ComputeConfig, device: torch.device) -> None:
    """Set this process' switches for a GPU; a CPU computes as it always did."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, in what is not bf16 anyway
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = compute.cudnn_benchmark
        torch.backends.cudnn.deterministic = not compute.cudnn_benchmark


def run_on_devices(
    compute: ComputeConfig,
    fabric: Fabric,
    progress: Progress,
    work: Callable[..., T],
    *given: Any,
) -> T:
    """Call ``work(fabric, voice, *given)`` here, or in as many processes as there are devices.

    Several processes need everything ``given`` to pickle, and a script that calls this to keep
    its own work below ``if __name__ == "__main__"``. What the first of them returns is returned.
    A UserError comes out as such.
    """
    if compute.devices == 1:
        warm_up(compute, fabric.device)
        return work(fabric, progress, *given)
    with _hearing(progress) as (queue, mistakes):
        try:
            # As a partial: fabric walks arguments, and cannot walk frozen dataclasses.
            join: Callable[..., T] = _join
            found = fabric.launch(
                partial(join, compute=compute, queue=queue, work=work, given=given)
            )
        except ProcessRaisedException:
            queue.put(None)  # the mistake was put before it
            mistakes.wait()
            if mistakes.text:
                raise UserError("E_TODO", mistakes.text) from None
            raise
    return cast(T, found)


def _join(
    fabric: Fabric, compute: ComputeConfig, queue: Any, work: Callable[..., T], given: Any
) -> T:
    """What each process does; only the first has a voice."""
    warm_up(compute, fabric.device)
    logging.getLogger("torch.nn.parallel").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch.nn.parallel")
    silent = Progress(lambda text: None, lambda what, done, total, loss: None)
    progress = _sending(queue) if fabric.is_global_zero else silent
    try:
        return work(fabric, progress, *given)
    except UserError as mistake:
        queue.put(("mistake", str(mistake)))
        raise


def _sending(queue: Any) -> Progress:
    return Progress(
        lambda text: queue.put(("message", text)),
        lambda *progress: queue.put(("update", *progress)),
    )


class _Listening(Thread):
    """Passes on what the processes say, until None is said."""

    def __init__(self, queue: Any, progress: Progress) -> None:
        super().__init__(daemon=True)
        self.queue, self.progress, self.text = queue, progress, ""

    def run(self) -> None:
        while (said := self.queue.get()) is not None:
            what, *more = said
            if what == "mistake":
                self.text = self.text or more[0]
            else:
                getattr(self.progress, what)(*more)

    def wait(self) -> None:
        self.join(10)


@contextmanager
def _hearing(progress: Progress) -> Any:
    queue = processes.get_context("spawn").SimpleQueue()
    thread = _Listening(queue, progress)
    thread.start()
    try:
        yield queue, thread
    finally:
        queue.put(None)
        thread.wait()


PROCESS_LOCK = RLock()


class _Stopped(Exception):
    """Another lane failed."""


@dataclass
class ParallelFolds:
    """So many folds at a time."""

    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stop_event: Event = field(default_factory=Event, repr=False)

    def raise_if_stopped(self) -> None:
        """To be called now and then by what runs in a lane: it ends there if another failed."""
        if self.stop_event.is_set():
            raise _Stopped

    def map(self, jobs: Sequence[int], work: Callable[[int, int], T]) -> list[T]:
        """``work(job, lane)`` of all jobs, in their order. The first mistake is raised, once all
        that was begun has ended.
        """
        if self.count == 1:
            return [work(job, 0) for job in jobs]
        self.stop_event.clear()
        free: SimpleQueue[int] = SimpleQueue()
        for lane in range(self.count):
            free.put(lane)
        streams = [self._stream() for _ in range(self.count)]

        def run(job: int) -> T:
            self.raise_if_stopped()
            lane = free.get()
            try:
                with streams[lane]:
                    return work(job, lane)
            except BaseException:
                self.stop_event.set()
                raise
            finally:
                free.put(lane)

        with ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(run, job) for job in jobs]
            try:
                return [future.result() for future in futures]
            except BaseException as error:
                self.stop_event.set()
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


TRIM, MAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
KEPT = 2**31 - 1  # bytes, the most that mallopt takes
USUAL = 32 << 20  # bytes: the highest that glibc's own, moving threshold comes to


@contextmanager
def keep_freed_memory() -> Iterator[None]:
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
