"""Trained networks in PyTorch: on GPUs, where nothing was exported, and as the exact mode.

Apart from engines.py because PyTorch's backbones take seconds to load, which OpenVINO's users
need not wait for.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.config import Recipe, Windows
from antpitta.net.engines import filled
from antpitta.net.folding import folded
from antpitta.net.heads import Heads, one_body
from antpitta.net.scan import scan, scan_batch, unit_of
from antpitta.net.sed import SedNet
from antpitta.sound.windows import Pictures

Floats = NDArray[np.float32]
Picture = NDArray[Any]


class Torch:
    """The networks of one model; ``windows`` is how to cut images, None for as a whole.

    ``whole`` are the frames of the recipe's images; ``half`` computes in bfloat16 what bears it.
    """

    aside = False

    def __init__(
        self,
        nets: Sequence[SedNet],
        whole: int,
        windows: Windows | None = None,
        *,
        half: bool = False,
    ) -> None:
        self.whole, self.windows, self.half = whole, windows, half
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        ready = [net.eval().to(self.device) for net in nets]
        one = one_body(ready)  # which then is run, and folded, once
        self.nets = [folded(ready[0]), *ready[1:]] if one else [folded(net) for net in ready]
        self._run: list[SedNet | Heads] = [Heads(self.nets)] if one else list(self.nets)
        self.unit = self.nets[0].stride
        if windows is not None:
            self.unit = unit_of(self.unit, windows.frames, windows.scan_overlap)

    def hear(self, seen: Picture) -> list[Floats]:
        """Framewise probabilities of an image (frames, bands): (rows, classes) of each network."""
        heard = [self._heard(net, seen) for net in self._run]
        return np.split(heard[0], len(self.nets), axis=1) if len(heard) == 1 else heard

    @contextmanager
    def listening(self) -> Iterator[None]:
        """No sum is split: its last digits, and so the tables, would depend on how many cores."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _heard(self, net: SedNet | Heads, seen: Picture) -> Floats:
        pixels = torch.from_numpy(np.ascontiguousarray(seen)).to(self.device)
        pictures = Pictures(pixels, np.array([len(seen)], dtype=np.int64))
        frames, overlap = filled(len(seen), self.whole, net.stride), 0
        if self.windows is not None:
            frames, overlap = self.windows.frames, self.windows.scan_overlap
        only = np.array([0], dtype=np.int64)
        batch = scan_batch(frames, self.device.type)
        return scan(net, pictures, only, frames, overlap, batch, precision=self._precision)[0]

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext()


def build_nets(
    recipe: Recipe, states: Sequence[dict[str, Tensor]], classes: int, width: int
) -> list[SedNet]:
    """The trained networks of a recipe from their weights, ready to score.

    Raises RuntimeError for weights of another network.
    """
    nets = []
    for state in states:
        net = SedNet(recipe.network, classes, bands=width, known=recipe.knows, empty=True)
        net.load_state_dict(state)
        nets.append(net.eval())
    return nets
