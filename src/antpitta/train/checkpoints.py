"""What is kept of a model between epochs, and how often it is written.

A checkpoint holds the network and the optimizer as named tensors: with it the next epoch gives
the same weights as in a run that was never stopped. The loop does not know that stores write to
a disk (files/runs.py does).
"""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import inf, isnan
from typing import Protocol

import torch
from torch import Tensor

from antpitta.model.network import SedNet

State = dict[str, Tensor]
BEST = "best"  # the value of the best epoch, and the prefix of its weights
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


@dataclass
class BestWeights:
    """The weights of the best epoch so far; empty where no epoch was measured.

    Parameters
    ----------
    value
        What was measured; higher is better.
    weights
        The network's weights, but for those of a frozen backbone.
    """

    value: float = -inf
    weights: State = field(default_factory=dict, repr=False)

    def offer(self, net: SedNet, value: float) -> None:
        """Keep a copy of the network's weights if it is better; of equal epochs the first stays.

        An epoch that cannot be measured (NaN) replaces the one before.
        """
        if isnan(value) or not value <= self.value:
            self.value = value
            self.weights = {name: tensor.clone() for name, tensor in _trained(net).items()}

    def load_into(self, net: SedNet) -> None:
        """Load the weights, if there are any."""
        if self.weights:
            net.load_state_dict(self.weights, strict=not net.backbone_config.frozen)


def resume(
    net: SedNet, optimizer: torch.optim.Adam, store: CheckpointStore, best: BestWeights
) -> int:
    """Restore the last checkpoint, if there is one.

    Parameters
    ----------
    net, optimizer, best
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
        if BEST in state:
            best.value = float(state[BEST])
            best.weights = _without_prefix(state, f"{BEST}.")
    return epochs


def capture(net: SedNet, optimizer: torch.optim.Adam, best: BestWeights | None = None) -> State:
    """Collect what the next epoch needs as named tensors; a frozen backbone is left out.

    Parameters
    ----------
    net, optimizer
        The network, and the optimizer of its trainable weights.
    best
        The weights of the best epoch so far.

    Returns
    -------
    state
        Tensors by name: ``net.`` with the network's own names, ``best.`` the same, and ``adam.``
        with the number of a weight and the name of a moment. They share memory with their source.
    """
    state = {f"net.{name}": value for name, value in _trained(net).items()}
    if best is not None and best.weights:
        state[BEST] = torch.tensor(best.value, dtype=torch.float64)
        state |= {f"{BEST}.{name}": value for name, value in best.weights.items()}
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
    weights = _without_prefix(state, "net.")
    net.load_state_dict(weights, strict=not net.backbone_config.frozen)
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith("adam."):
            _, i, slot = key.split(".")
            slots.setdefault(int(i), {})[slot] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _trained(net: SedNet) -> State:
    """The network's weights; a frozen backbone is left out."""
    fixed = ("backbone.",) if net.backbone_config.frozen else ()
    return {k: v.detach() for k, v in net.state_dict().items() if not k.startswith(fixed)}


def _without_prefix(state: State, prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
