"""One run: what its stages share, its networks, and where they are kept."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from antpitta.core.config import Recipe
from antpitta.core.stages import Stage
from antpitta.core.voice import Voice
from antpitta.files.runs import RunFolder, load_tensors
from antpitta.learn.bank import Bank
from antpitta.learn.engine import Shell
from antpitta.learn.lanes import SINGLE_FILE, Lanes
from antpitta.learn.material import Material
from antpitta.net.sed import SedNet
from antpitta.net.stem import learning_grey

Ints = NDArray[np.int64]


@dataclass
class Mould:
    """A network that copies are made of: quicker than to build each from nothing."""

    net: SedNet | None = None

    def cast(self, build: Callable[[], SedNet]) -> SedNet:
        """A copy; the first time it is built."""
        with SINGLE_FILE:
            if self.net is None:
                self.net = build()
        return deepcopy(self.net)


@dataclass(frozen=True)
class Run:
    """Everything that the stages of one run share."""

    recipe: Recipe
    material: Material
    folds: Ints  # (recordings,)
    folder: RunFolder
    fabric: Fabric
    voice: Voice
    members: tuple[RunFolder, ...] = ()  # other runs, whose scores may join in teaching
    record: Callable[[dict[str, Any]], None] = lambda row: None  # each epoch, for TensorBoard
    bank: Bank = field(default_factory=Bank)
    shells: tuple[Shell, ...] = ()  # where networks are compiled, one a lane
    lanes: Lanes = field(default_factory=Lanes)
    mould: Mould = field(default_factory=Mould)
    clock: Callable[[str, int, str, float], None] = lambda *spent: None  # stage, cycle, on, seconds

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.fabric.is_global_zero)

    @contextmanager
    def timed(self, stage: Stage, cycle: int, what: str) -> Iterator[None]:
        """Tell the clock how long something took."""
        began = time.perf_counter()
        yield
        self.clock(stage.name, cycle, what, time.perf_counter() - began)

    @property
    def source(self) -> str:
        """What this run's scores are signed with."""
        return self.folder.path.name


def draws(net: SedNet) -> bool:
    """Whether the network draws random numbers as it learns."""
    rates = ("p", "drop_prob", "drop_rate")
    return any(
        isinstance(rate := getattr(layer, name, 0), float) and rate > 0
        for layer in net.modules()
        for name in rates
    )


def cycles_of(stage: Stage) -> int:
    """How often the stage is trained: once, or as often as its labels are renewed."""
    return stage.pseudo.cycles if stage.pseudo else 1


def weights_path(run: Run, stage: str, cycle: int, fold: int) -> Path:
    """Where a fold's model of a stage is kept."""
    return run.folder.stage(stage, cycle) / f"fold{fold}.safetensors"


def last_cycle(recipe: Recipe, name: str) -> int:
    """The cycle of a stage that later stages build on."""
    return next(cycles_of(stage) for stage in recipe.stages if stage.name == name)


def build_net(run: Run, *, empty: bool = False) -> SedNet:
    """The run's network before it learns; ``empty`` leaves the backbone's weights random."""
    classes, bands = len(run.material.dataset.classes), run.material.pictures.pixels.shape[1]
    net = SedNet(run.recipe.network, classes, bands=bands, known=run.recipe.knows, empty=empty)
    on_gpu = run.fabric.device.type == "cuda"
    return learning_grey(net, run.recipe.windows.frames, bands) if on_gpu else net


def load_net(run: Run, stage: str, cycle: int, fold: int) -> SedNet:
    """A fold's trained model, on the run's device."""
    net = run.mould.cast(lambda: build_net(run, empty=True))
    net.load_state_dict(load_tensors(weights_path(run, stage, cycle, fold))[0])
    device: torch.device = run.fabric.device
    return net.to(device)
