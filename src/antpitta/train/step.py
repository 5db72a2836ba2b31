"""Forward and backward of a batch; on a GPU recorded once, as a CUDA graph, and replayed.

A small network asks for hundreds of short kernels a batch, and a host needs longer to ask for
them than a GPU to run them. A recording holds them all: to replay it, the host copies a batch
into the tensors that were recorded, and asks once. It runs the same kernels, so scores stay what
they are without it; they, and the gradients they add to, lie where they lay when it was made.

What goes into a recording has one shape and asks the host for nothing: a batch of another size
(an epoch's last), and a batch that is judged by its boxes, are run as they come. A recording
keeps the memory of a batch for itself, so none is made where there is no room for two.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from antpitta.core.stages import Stage
from antpitta.model.network import SedNet
from antpitta.train.compute import PROCESS_LOCK
from antpitta.train.device_batch import DeviceBatch, batch_loss

WARM = 3  # runs before a recording: cuDNN and the compiler choose their kernels in them


@dataclass
class TrainStep:
    """Forward and backward of the batches of one model."""

    net: SedNet
    model: Any  # the net, as ``fabric`` wraps it
    stage: Stage
    class_weights: Tensor | None  # (classes,)
    fabric: Fabric
    compiled: bool = False  # the network is, for the size of the first batch
    n_windows: int | None = None  # of the first batch
    captured: "CapturedGraph | None" = field(default=None, repr=False)

    def __call__(self, ready: DeviceBatch, share: float, *, stepping: bool) -> Tensor:
        """The loss of a batch; its gradient, divided by ``share``, is added to the weights' own.

        ``stepping`` says that a step of the optimizer follows.
        """
        begun, self.n_windows = self.n_windows is not None, self.n_windows or ready.n_windows
        usual = ready.n_windows == self.n_windows
        if begun and usual and self.captured is None and self._can_capture(ready):
            with PROCESS_LOCK:
                self.captured = CapturedGraph(self, ready)
        if usual and self.captured is not None:
            return self.captured(ready, share)
        odd = self.compiled and not usual
        with self.fabric.no_backward_sync(self.model, enabled=not stepping), _running(eager=odd):
            return self.forward_backward(ready, share)

    def forward_backward(self, ready: DeviceBatch, share: float | Tensor) -> Tensor:
        """The same, without any recording."""
        loss = batch_loss(self.model, ready, self.stage, self.class_weights)
        with PROCESS_LOCK:  # fabric marks the backward pass of its whole process
            self.fabric.backward(loss / share)
        return loss.detach()

    def zero_grad(self, optimizer: Any) -> None:
        """Forget all gradients; a recording keeps their places."""
        optimizer.zero_grad(set_to_none=self.captured is None)

    def _can_capture(self, ready: DeviceBatch) -> bool:
        device = self.fabric.device
        lone = device.type == "cuda" and self.fabric.world_size == 1
        plain = ready.pixels is not None and ready.box_spans is None and not self.net.head.smooths
        return lone and plain and _room_for_two(device)


def _room_for_two(device: torch.device) -> bool:
    """Whether twice what was needed so far fits on the GPU."""
    whole = torch.cuda.get_device_properties(device).total_memory
    return 2 * torch.cuda.max_memory_allocated(device) <= whole


class CapturedGraph:
    """One CUDA graph, and the tensors it reads and writes."""

    def __init__(self, owner: TrainStep, ready: DeviceBatch) -> None:
        self.inputs: list[Tensor] = []
        self.ready = ready.map_tensors(self._keep)
        self.share = torch.ones((), device=owner.fabric.device)
        self.graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        state = [(one, one.clone()) for one in owner.net.buffers()]
        weights = list(owner.net.parameters())
        sums = [None if one.grad is None else one.grad.clone() for one in weights]
        drawn = torch.cuda.get_rng_state(owner.fabric.device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                owner.forward_backward(self.ready, self.share)
        with torch.cuda.graph(self.graph, stream=side, capture_error_mode="thread_local"):
            self.loss = owner.forward_backward(self.ready, self.share)
        # As if those runs had not been: statistics, gradients, random numbers drawn.
        with torch.no_grad():
            for buffer, was in state:
                buffer.copy_(was)
            for weight, before in zip(weights, sums, strict=True):
                if weight.grad is not None:
                    weight.grad.copy_(torch.zeros_like(weight) if before is None else before)
        torch.cuda.set_rng_state(drawn, owner.fabric.device)

    def _keep(self, tensor: Tensor) -> Tensor:
        self.inputs.append(tensor.clone())
        return self.inputs[-1]

    def __call__(self, ready: DeviceBatch, share: float) -> Tensor:
        places = iter(self.inputs)
        ready.map_tensors(lambda tensor: next(places).copy_(tensor))
        self.share.fill_(share)
        self.graph.replay()
        return self.loss


@contextmanager
def _running(*, eager: bool) -> Iterator[None]:
    """A compiled network, run as it was written: compiling anew for a rest would take longer."""
    if not eager:
        yield
        return
    with PROCESS_LOCK, torch.compiler.set_stance("force_eager"):
        yield
