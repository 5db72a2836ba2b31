"""Who keeps checkpoints while a model is trained; learn/ does not know that it is on a disk."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

State = dict[str, Tensor]


class CheckpointStore(Protocol):
    """Where checkpoints go."""

    def load(self) -> tuple[int, State] | None:
        """Epochs done and the state, or None where nothing is kept."""

    def save(self, epoch: int, state: State) -> None:
        """Keep this one instead of what was kept before."""


PATIENCE = 20.0  # seconds between two checkpoints of one model: what a kill costs at most


@dataclass
class ThrottledStore:
    """Keeps a checkpoint now and then only: written after each short epoch, they cost more."""

    store: CheckpointStore
    saved: float = field(default_factory=time.monotonic)

    def load(self) -> tuple[int, State] | None:
        """What was kept last."""
        return self.store.load()

    def save(self, epoch: int, state: State) -> None:
        """Keep this one, or leave it: an epoch that is lost is run again, and ends the same."""
        if time.monotonic() - self.saved >= PATIENCE:
            self.store.save(epoch, state)
            self.saved = time.monotonic()


@dataclass(frozen=True)
class ReadOnlyStore:
    """Of a checkpoint that another process keeps."""

    store: CheckpointStore

    def load(self) -> tuple[int, State] | None:
        """What was kept last."""
        return self.store.load()

    def save(self, epoch: int, state: State) -> None:
        """The first process does."""
