"""What a run computes on: which device and how many, in which precision, compiled or not.

Several devices are several processes, started by spawning (Fabric's ``ddp_spawn``). Its ``ddp``
would start the user's own command or script once more for each device: every one of them would
read the data and claim the run's folder, and a notebook or a test cannot be started twice. So the
command itself stays one process, which prepares and reports; only the training is done by others.

Equal seeds give equal scores on one machine: cuDNN takes deterministic kernels. ``tune`` lets it
time them first, which can be faster, and two runs then differ in the last digits.
"""

import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Thread
from typing import Any, TypeVar, cast

import torch
import torch.multiprocessing as processes
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessRaisedException

from antpitta.core.errors import UserMistake
from antpitta.core.voice import Voice
from antpitta.net.sed import SedNet

T = TypeVar("T")
PRECISIONS = ("auto", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class Engine:
    """What a run computes on."""

    device: str = "auto"
    devices: int = 1
    precision: str = "auto"  # bf16-mixed on GPUs that have it, else 32-true
    compile: bool = False  # the backbone, by torch.compile; one process only
    tune: bool = False  # cuDNN times its kernels before it chooses
    lanes: int = 1  # folds at a time; one process only


@dataclass
class Shell:
    """One compiled network, which every fold's weights are put into: it is compiled once."""

    net: SedNet | None = field(default=None, repr=False)

    def take(self, net: SedNet) -> SedNet:
        """``net`` compiled, or the compiled one with the weights of ``net``."""
        if self.net is None:
            net.body.compile(dynamic=False)
            net.prepare = torch.compile(net.prepare, dynamic=False)  # type: ignore[method-assign]
            self.net = net
        else:
            self.net.load_state_dict(net.state_dict())
            self.net.origin = net.origin
        return self.net


def shells_of(engine: Engine) -> tuple[Shell, ...]:
    """One for each lane, where networks are compiled."""
    return tuple(Shell() for _ in range(engine.lanes)) if engine.compile else ()


def build_fabric(engine: Engine) -> Fabric:
    """Raises UserMistake for a device, a number of them or a precision that is not there."""
    if engine.precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise UserMistake(f"precision {engine.precision!r}: unknown; take one of {known}")
    if engine.devices < 1:
        raise UserMistake(f"devices {engine.devices}: at least one is needed; give 1 or more")
    if engine.compile and engine.devices > 1:
        raise UserMistake("compiling goes with one device; leave one of the two out")
    if engine.lanes < 1:
        raise UserMistake(f"lanes {engine.lanes}: at least one is needed; give 1 or more")
    if engine.lanes > 1 and engine.devices > 1:
        raise UserMistake("several lanes go with one device; leave one of the two out")
    cuda = torch.cuda.is_available() and engine.device in ("auto", "cuda", "gpu")
    if engine.device in ("cuda", "gpu") and not cuda:
        raise UserMistake(f"device {engine.device}: there is no such GPU here; take cpu or auto")
    if cuda and engine.devices > torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserMistake(f"devices {engine.devices}: there are {count} GPUs here; take {count}")
    precision = engine.precision
    if precision == "auto":
        precision = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported(False) else "32-true"
    try:
        return Fabric(
            accelerator=engine.device,
            devices=engine.devices,
            strategy="auto" if engine.devices == 1 else DDPStrategy(start_method="spawn"),
            precision=precision,  # type: ignore[arg-type]
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserMistake(f"device {engine.device}: {error}; take cpu, cuda or auto") from None


def warm_up(engine: Engine, device: torch.device) -> None:
    """Set this process' switches for a GPU; a CPU computes as it always did."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, in what is not bf16 anyway
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = engine.tune
        torch.backends.cudnn.deterministic = not engine.tune


def work_on(
    engine: Engine,
    fabric: Fabric,
    voice: Voice,
    work: Callable[..., T],
    *given: Any,
) -> T:
    """Call ``work(fabric, voice, *given)`` here, or in as many processes as there are devices.

    Several processes need everything ``given`` to pickle, and a script that calls this to keep
    its own work below ``if __name__ == "__main__"``. What the first of them returns is returned.
    A UserMistake comes out as such.
    """
    if engine.devices == 1:
        warm_up(engine, fabric.device)
        return work(fabric, voice, *given)
    with _hearing(voice) as (queue, mistakes):
        try:
            # As a partial: fabric walks arguments, and cannot walk frozen dataclasses.
            join: Callable[..., T] = _join
            found = fabric.launch(partial(join, engine=engine, queue=queue, work=work, given=given))
        except ProcessRaisedException:
            queue.put(None)  # the mistake was put before it
            mistakes.wait()
            if mistakes.text:
                raise UserMistake(mistakes.text) from None
            raise
    return cast(T, found)


def _join(fabric: Fabric, engine: Engine, queue: Any, work: Callable[..., T], given: Any) -> T:
    """What each process does; only the first has a voice."""
    warm_up(engine, fabric.device)
    logging.getLogger("torch.nn.parallel").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch.nn.parallel")
    silent = Voice(lambda text: None, lambda what, done, total, loss: None)
    voice = _sending(queue) if fabric.is_global_zero else silent
    try:
        return work(fabric, voice, *given)
    except UserMistake as mistake:
        queue.put(("mistake", str(mistake)))
        raise


def _sending(queue: Any) -> Voice:
    return Voice(
        lambda text: queue.put(("say", text)), lambda *progress: queue.put(("tick", *progress))
    )


class _Listening(Thread):
    """Passes on what the processes say, until None is said."""

    def __init__(self, queue: Any, voice: Voice) -> None:
        super().__init__(daemon=True)
        self.queue, self.voice, self.text = queue, voice, ""

    def run(self) -> None:
        while (said := self.queue.get()) is not None:
            what, *more = said
            if what == "mistake":
                self.text = self.text or more[0]
            else:
                getattr(self.voice, what)(*more)

    def wait(self) -> None:
        self.join(10)


@contextmanager
def _hearing(voice: Voice) -> Any:
    queue = processes.get_context("spawn").SimpleQueue()
    thread = _Listening(queue, voice)
    thread.start()
    try:
        yield queue, thread
    finally:
        queue.put(None)
        thread.wait()
