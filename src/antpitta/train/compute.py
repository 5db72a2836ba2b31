"""How training computes: devices and precision, compiled networks, parallel folds, memory.

* Several devices are several processes, started by spawning (Fabric's ``ddp_spawn``). Its ``ddp``
  would start the user's own command or script once more for each device: every copy would read
  the data and claim the run's folder, and a notebook or a test cannot be started twice. Here the
  command stays one process, which prepares and reports; the spawned processes only train.
* Equal seeds give equal scores on one machine, because cuDNN uses deterministic kernels.
  ``cudnn_benchmark`` lets cuDNN time all its kernels first. That can be faster, but two runs then
  differ in the last digits.
* Parallel folds run in threads, on a GPU each with a CUDA stream of its own. One fold's short
  kernels leave a large GPU half empty. Folds share nothing but the features, so each gives the
  result that it gives alone. What exists once in a process (torch's random numbers, the compiler,
  the capture of CUDA graphs, the run's log) is used under ``PROCESS_LOCK``.
* Freed memory is kept for the next step. A step on a CPU allocates and frees tensors of many MB.
  By default glibc returns each of them to the system, which fills the pages with zeros before it
  hands them out again: up to a third of the training time. Nothing changes on other C libraries.
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
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}  # Fabric's names


@dataclass(frozen=True)
class ComputeConfig:
    """What a run computes on.

    Parameters
    ----------
    device
        ``auto``, ``cpu`` or ``cuda``.
    devices
        The number of devices; each has a process.
    precision
        ``float32``, ``bfloat16``, or ``auto``: bfloat16 on GPUs that support it. With ``float32``
        GPUs do not shorten numbers to TF32 either.
    compile
        Compile the backbone with ``torch.compile``; one device only.
    cudnn_benchmark
        Let cuDNN time its kernels before it chooses.
    parallel_folds
        The number of folds trained at a time; one device only.
    """

    device: str = "auto"
    devices: int = 1
    precision: str = "auto"
    compile: bool = False
    cudnn_benchmark: bool = False
    parallel_folds: int = 1


# ---- devices and precision


def build_fabric(compute: ComputeConfig) -> Fabric:
    """Check the configuration and set up its devices.

    Parameters
    ----------
    compute
        The configuration.

    Returns
    -------
    fabric
        Not launched yet: several devices get their processes in :func:`run_on_devices`.

    Raises
    ------
    UserError
        ``E_PRECISION`` for an unknown precision, ``E_DEVICES`` for no device or more GPUs than
        there are, ``E_PARALLEL_FOLDS`` for no fold at a time, ``E_ONE_DEVICE`` for compilation or
        parallel folds on several devices, ``E_DEVICE`` for a device that is unknown or missing.
    """
    _check_options(compute)
    cuda = torch.cuda.is_available() and compute.device in ("auto", "cuda", "gpu")
    if compute.device in ("cuda", "gpu") and not cuda:
        raise UserError(
            "E_DEVICE", f"--device {compute.device}: no such GPU is available", "use cpu or auto"
        )
    if cuda and compute.devices > (count := torch.cuda.device_count()):
        raise UserError(
            "E_DEVICES",
            f"--devices {compute.devices}: {count} GPUs are available",
            f"use --devices {count}",
        )
    try:
        return Fabric(
            accelerator=compute.device,
            devices=compute.devices,
            strategy="auto" if compute.devices == 1 else DDPStrategy(start_method="spawn"),
            precision=PRECISIONS[_resolve_precision(compute.precision, cuda=cuda)],  # type: ignore[arg-type]
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(
            "E_DEVICE", f"--device {compute.device}: {error}", "use cpu, cuda or auto"
        ) from None


def _check_options(compute: ComputeConfig) -> None:
    if compute.precision not in ("auto", *PRECISIONS):
        known = ", ".join(("auto", *PRECISIONS))
        raise UserError(
            "E_PRECISION", f"--precision {compute.precision} is unknown", f"use one of {known}"
        )
    if compute.devices < 1:
        raise UserError("E_DEVICES", f"--devices {compute.devices} is too few", "use 1 or more")
    if compute.parallel_folds < 1:
        raise UserError(
            "E_PARALLEL_FOLDS",
            f"--parallel-folds {compute.parallel_folds} is too few",
            "use 1 or more",
        )
    if compute.devices > 1 and (compute.compile or compute.parallel_folds > 1):
        option = "--compile" if compute.compile else "--parallel-folds"
        raise UserError(
            "E_ONE_DEVICE",
            f"{option} works on one device, and --devices is {compute.devices}",
            f"remove {option} or --devices",
        )


def _resolve_precision(precision: str, *, cuda: bool) -> str:
    """``float32`` or ``bfloat16``, where ``auto`` is bfloat16 on GPUs that support it."""
    if precision != "auto":
        return precision
    return "bfloat16" if cuda and torch.cuda.is_bf16_supported(False) else "float32"


def configure_cuda(compute: ComputeConfig, device: torch.device) -> None:
    """Set this process's switches for a GPU; on a CPU nothing changes.

    Parameters
    ----------
    compute
        The configuration.
    device
        The device of this process.
    """
    if device.type == "cuda":
        exact = compute.precision == "float32"  # else TF32, where bfloat16 is not used anyway
        torch.set_float32_matmul_precision("highest" if exact else "high")
        torch.backends.cudnn.allow_tf32 = not exact
        torch.backends.cudnn.benchmark = compute.cudnn_benchmark
        torch.backends.cudnn.deterministic = not compute.cudnn_benchmark


# ---- several devices are several processes


def run_on_devices(
    compute: ComputeConfig,
    fabric: Fabric,
    progress: Progress,
    work: Callable[..., T],
    *arguments: Any,
) -> T:
    """Call ``work(fabric, progress, *arguments)`` in this process or in one for each device.

    Parameters
    ----------
    compute, fabric
        The configuration, and what :func:`build_fabric` made of it.
    progress
        Receives the progress of the main process.
    work
        The function; for several devices it is pickled.
    arguments
        Its other arguments; for several devices they are pickled too. A script that asks for
        several devices keeps its own work below ``if __name__ == "__main__"``.

    Returns
    -------
    T
        What the main process returned.

    Raises
    ------
    UserError
        As ``work`` does, in whichever process.
    """
    if compute.devices == 1:
        configure_cuda(compute, fabric.device)
        return work(fabric, progress, *arguments)
    with _progress_relay(progress) as (queue, relay):
        try:
            # As a partial: Fabric walks arguments, and cannot walk frozen dataclasses.
            run: Callable[..., T] = _run_in_process
            result = fabric.launch(
                partial(run, compute=compute, queue=queue, work=work, arguments=arguments)
            )
        except ProcessRaisedException:
            queue.put(None)  # the user error was put before it
            relay.wait()
            if relay.user_error is not None:
                raise UserError(*relay.user_error) from None
            raise
    return cast(T, result)


def _run_in_process(
    fabric: Fabric, compute: ComputeConfig, queue: Any, work: Callable[..., T], arguments: Any
) -> T:
    """The work of one process; only the main process reports progress."""
    configure_cuda(compute, fabric.device)
    logging.getLogger("torch.nn.parallel").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch.nn.parallel")
    silent = Progress(lambda text: None, lambda *progress: None)
    progress = _queue_progress(queue) if fabric.is_global_zero else silent
    try:
        return work(fabric, progress, *arguments)
    except UserError as error:
        queue.put(("user_error", error.code, error.what, error.remedy))
        raise


def _queue_progress(queue: Any) -> Progress:
    return Progress(
        lambda text: queue.put(("message", text)),
        lambda *progress: queue.put(("update", *progress)),
    )


class _ProgressRelay(Thread):
    """Passes on the progress of other processes, until the queue gives None."""

    def __init__(self, queue: Any, progress: Progress) -> None:
        super().__init__(daemon=True)
        self.queue, self.progress = queue, progress
        self.user_error: tuple[str, str, str] | None = None

    def run(self) -> None:
        while (item := self.queue.get()) is not None:
            method, *arguments = item
            if method == "user_error":
                self.user_error = self.user_error or tuple(arguments)
            else:
                getattr(self.progress, method)(*arguments)

    def wait(self) -> None:
        self.join(10)


@contextmanager
def _progress_relay(progress: Progress) -> Any:
    queue = processes.get_context("spawn").SimpleQueue()
    relay = _ProgressRelay(queue, progress)
    relay.start()
    try:
        yield queue, relay
    finally:
        queue.put(None)
        relay.wait()


# ---- compiled networks


@dataclass
class CompiledModel:
    """One compiled network that every fold's weights are loaded into: it is compiled once."""

    net: SedNet | None = field(default=None, repr=False)

    def load(self, net: SedNet) -> SedNet:
        """The compiled network, with the weights of ``net``."""
        if self.net is None:
            net.backbone.compile(dynamic=False)
            net.prepare = torch.compile(net.prepare, dynamic=False)  # type: ignore[method-assign]
            self.net = net
        else:
            self.net.load_state_dict(net.state_dict())
            self.net.origin = net.origin
        return self.net


def compiled_models(compute: ComputeConfig) -> tuple[CompiledModel, ...]:
    """Make a compiled network for each fold that is trained at a time.

    Parameters
    ----------
    compute
        The configuration.

    Returns
    -------
    models : (parallel folds,)
        Empty without compilation. A network is compiled when it is first loaded.
    """
    return tuple(CompiledModel() for _ in range(compute.parallel_folds)) if compute.compile else ()


# ---- parallel folds

PROCESS_LOCK = RLock()


class _OtherFoldFailed(Exception):
    """Raised in a fold because another one failed."""


@dataclass
class ParallelFolds:
    """Runs a number of folds at a time, each in a thread.

    Parameters
    ----------
    count
        The number of folds at a time.
    device
        The device; on a GPU each thread has a CUDA stream.
    stop_event
        Set when a fold fails.
    """

    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stop_event: Event = field(default_factory=Event, repr=False)

    def raise_if_stopped(self) -> None:
        """End this fold if another one failed; folds call this regularly."""
        if self.stop_event.is_set():
            raise _OtherFoldFailed

    def map(self, work: Callable[[int, int], T], folds: Sequence[int]) -> list[T]:
        """Call ``work(fold, worker)`` for all folds.

        Parameters
        ----------
        work
            Its second argument is the number of the thread, below ``count``.
        folds
            The folds, in the order of the results.

        Returns
        -------
        list
            The results, in the order of ``folds``.

        Raises
        ------
        Exception
            The first exception of a fold, after all running folds have ended.
        """
        if self.count == 1:
            return [work(fold, 0) for fold in folds]
        self.stop_event.clear()
        free: SimpleQueue[int] = SimpleQueue()
        for worker in range(self.count):
            free.put(worker)
        streams = [self._stream() for _ in range(self.count)]

        def run(fold: int) -> T:
            self.raise_if_stopped()
            worker = free.get()
            try:
                with streams[worker]:
                    return work(fold, worker)
            except BaseException:
                self.stop_event.set()
                raise
            finally:
                free.put(worker)

        with ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(run, fold) for fold in folds]
            try:
                return [future.result() for future in futures]
            except BaseException as error:
                self.stop_event.set()
                pool.shutdown(cancel_futures=True)
                raise _root_error(futures, error) from None

    def _stream(self) -> AbstractContextManager[None]:
        if self.device.type != "cuda":
            return nullcontext()
        torch.cuda.synchronize(self.device)
        stream: AbstractContextManager[None] = torch.cuda.stream(torch.cuda.Stream(self.device))  # type: ignore[no-untyped-call]
        return stream


def _root_error(futures: Sequence[Future[Any]], error: BaseException) -> BaseException:
    """The error that stopped the folds, and not that of a fold which was stopped by it."""
    if not isinstance(error, _OtherFoldFailed):
        return error
    ended = (future for future in futures if future.done() and not future.cancelled())
    errors = (future.exception() for future in ended)
    return next((e for e in errors if e and not isinstance(e, _OtherFoldFailed)), error)


# ---- memory

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
KEEP_ALL = 2**31 - 1  # bytes, the most that mallopt takes
GLIBC_MAX = 32 << 20  # bytes: the highest that glibc's own, dynamic threshold gets


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Inside, freed memory stays with the process; at the end it goes back to the system."""
    libc = _glibc()
    if libc is None:
        yield
        return
    _set_thresholds(libc, KEEP_ALL, KEEP_ALL)
    try:
        yield
    finally:
        _set_thresholds(libc, GLIBC_MAX, 2 * GLIBC_MAX)
        libc.malloc_trim(0)


def _set_thresholds(libc: CDLL, mmap: int, trim: int) -> None:
    libc.mallopt(MMAP_THRESHOLD, mmap)
    libc.mallopt(TRIM_THRESHOLD, trim)


def _glibc() -> CDLL | None:
    """The C library of this process, if it is glibc."""
    try:
        libc = CDLL(None)
    except TypeError:  # Windows has no library that all processes share
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
