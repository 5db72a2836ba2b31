"""What is kept of a model between epochs, and how often it is written.

A checkpoint holds the network and the optimizer as named tensors: with it the next epoch gives
the same weights as in a run that was never stopped. The loop does not know that stores write to
a disk (files/runs.py does).
"""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from antpitta.model.network import SedNet

State = dict[str, Tensor]
SECONDS_BETWEEN = 20.0  # between two checkpoints of one model: what a kill costs at most


class CheckpointStore(Protocol):
    """Where the checkpoints of one model are kept."""

    def load(self) -> tuple[int, State] | None:
        """The number of finished epochs and the state, or None without a checkpoint."""

    def save(self, epoch: int, state: State) -> None:
        """Replace the checkpoint by this one."""

    def explain_damage(self) -> AbstractContextManager[None]:
        """A context in which every failure is that of a damaged checkpoint."""


@dataclass
class ThrottledStore:
    """Saves only now and then: after every short epoch, writing would cost more than training.

    Parameters
    ----------
    store
        Where checkpoints are kept.
    saved : seconds
        When the last one was saved, on the monotonic clock.
    """

    store: CheckpointStore
    saved: float = field(default_factory=time.monotonic)

    def load(self) -> tuple[int, State] | None:
        """The number of finished epochs and the state, or None without a checkpoint."""
        return self.store.load()

    def save(self, epoch: int, state: State) -> None:
        """Save, or skip it: an epoch that is lost is run again and gives the same weights."""
        if time.monotonic() - self.saved >= SECONDS_BETWEEN:
            self.store.save(epoch, state)
            self.saved = time.monotonic()

    def explain_damage(self) -> AbstractContextManager[None]:
        """A context in which every failure is that of a damaged checkpoint."""
        return self.store.explain_damage()


@dataclass(frozen=True)
class ReadOnlyStore:
    """Reads a checkpoint that another process writes."""

    store: CheckpointStore

    def load(self) -> tuple[int, State] | None:
        """The number of finished epochs and the state, or None without a checkpoint."""
        return self.store.load()

    def save(self, epoch: int, state: State) -> None:
        """Do nothing: the main process saves."""

    def explain_damage(self) -> AbstractContextManager[None]:
        """A context in which every failure is that of a damaged checkpoint."""
        return self.store.explain_damage()


def resume(net: SedNet, optimizer: torch.optim.Adam, store: CheckpointStore) -> int:
    """Restore the last checkpoint, if there is one.

    Parameters
    ----------
    net, optimizer
        Changed in place.
    store
        Where checkpoints are kept.

    Returns
    -------
    epochs
        The number of finished epochs; 0 without a checkpoint.
    """
    checkpoint = store.load()
    if checkpoint is None:
        return 0
    epochs, state = checkpoint
    with store.explain_damage():
        restore(net, optimizer, state)
    return epochs


def capture(net: SedNet, optimizer: torch.optim.Adam) -> State:
    """Collect what the next epoch needs as named tensors; a frozen backbone is left out.

    Parameters
    ----------
    net, optimizer
        The network, and the optimizer of its trainable weights.

    Returns
    -------
    state
        Tensors by name: ``net.`` with the network's own names, and ``adam.`` with the number of a
        weight and the name of a moment. They share memory with the network and the optimizer.
    """
    fixed = ("backbone.",) if net.backbone_config.frozen else ()
    state = {
        f"net.{name}": value
        for name, value in net.state_dict().items()
        if not name.startswith(fixed)
    }
    for i, slots in optimizer.state_dict()["state"].items():
        state |= {f"adam.{i}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    return state


def restore(net: SedNet, optimizer: torch.optim.Adam, state: State) -> None:
    """Load what :func:`capture` returned.

    Parameters
    ----------
    net, optimizer
        Changed in place.
    state
        The named tensors; those of a frozen backbone may be missing.
    """
    weights = {k[4:]: v for k, v in state.items() if k.startswith("net.")}
    net.load_state_dict(weights, strict=not net.backbone_config.frozen)
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith("adam."):
            _, i, slot = key.split(".")
            slots.setdefault(int(i), {})[slot] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
