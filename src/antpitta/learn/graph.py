"""Forward and backward of a batch; on a GPU recorded once, as a CUDA graph, and replayed.

A small network asks for hundreds of short kernels a batch, and a host needs longer to ask for
them than a GPU to run them. A recording holds them all: to replay it, the host copies a batch
into the tensors that were recorded, and asks once. It runs the same kernels, so scores stay what
they are without it; they, and the gradients they add to, lie where they lay when it was made.

What goes into a recording has one shape and asks the host for nothing: a batch of another size
(an epoch's last), and a batch that is judged by its boxes, are run as they come.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from antpitta.core.config import Stage
from antpitta.learn.lanes import SINGLE_FILE
from antpitta.learn.ready import Ready, loss_of
from antpitta.net.sed import SedNet

WARM = 3  # runs before a recording: cuDNN and the compiler choose their kernels in them


@dataclass
class Pass:
    """Forward and backward of the batches of one model."""

    net: SedNet
    model: Any  # the net, as ``fabric`` wraps it
    stage: Stage
    weights: Tensor | None  # (classes,)
    fabric: Fabric
    compiled: bool = False  # the network is, for the size of the first batch
    recorded: bool = True  # where that can be done
    size: int | None = None  # of the first batch
    kept: "_Recording | None" = field(default=None, repr=False)

    def __call__(self, ready: Ready, share: float, *, stepping: bool) -> Tensor:
        """The loss of a batch; its gradient, divided by ``share``, is added to the weights' own.

        ``stepping`` says that a step of the optimizer follows.
        """
        if self.size is None:
            self.size = ready.windows
        usual = ready.windows == self.size
        if usual and self.kept is None and self._records(ready):
            with SINGLE_FILE:
                self.kept = _Recording(self, ready)
        if usual and self.kept is not None:
            return self.kept(ready, share)
        odd = self.compiled and not usual
        with self.fabric.no_backward_sync(self.model, enabled=not stepping), _running(eager=odd):
            return self.run(ready, share)

    def run(self, ready: Ready, share: float | Tensor) -> Tensor:
        """The same, without any recording."""
        loss = loss_of(self.model, ready, self.stage, self.weights)
        with SINGLE_FILE:  # fabric marks the backward pass of its whole process
            self.fabric.backward(loss / share)
        return loss.detach()

    def clear(self, optimizer: Any) -> None:
        """Forget all gradients; a recording keeps their places."""
        optimizer.zero_grad(set_to_none=self.kept is None)

    def _records(self, ready: Ready) -> bool:
        lone = self.fabric.device.type == "cuda" and self.fabric.world_size == 1
        plain = ready.pixels is not None and ready.focus is None and not self.net.smooths
        return self.recorded and lone and plain


class _Recording:
    """One CUDA graph, and the tensors it reads and writes."""

    def __init__(self, owner: Pass, ready: Ready) -> None:
        self.inputs: list[Tensor] = []
        self.ready = ready.each(self._keep)
        self.share = torch.ones((), device=owner.fabric.device)
        self.graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        state = [buffer.clone() for buffer in owner.net.buffers()]
        drawn = torch.cuda.get_rng_state(owner.fabric.device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                owner.run(self.ready, self.share)
        with torch.cuda.graph(self.graph, stream=side, capture_error_mode="thread_local"):
            self.loss = owner.run(self.ready, self.share)
        # What the runs before it left behind: statistics, gradients, random numbers drawn.
        with torch.no_grad():
            for buffer, before in zip(owner.net.buffers(), state, strict=True):
                buffer.copy_(before)
        for weight in owner.net.parameters():
            if weight.grad is not None:
                weight.grad.zero_()
        torch.cuda.set_rng_state(drawn, owner.fabric.device)

    def _keep(self, tensor: Tensor) -> Tensor:
        self.inputs.append(tensor.clone())
        return self.inputs[-1]

    def __call__(self, ready: Ready, share: float) -> Tensor:
        places = iter(self.inputs)
        ready.each(lambda tensor: next(places).copy_(tensor))
        self.share.fill_(share)
        self.graph.replay()
        return self.loss


@contextmanager
def _running(*, eager: bool) -> Iterator[None]:
    """A compiled network, run as it was written: compiling anew for a rest would take longer."""
    if not eager:
        yield
        return
    with SINGLE_FILE, torch.compiler.set_stance("force_eager"):
        yield
