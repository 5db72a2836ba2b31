"""Running trained networks over one recording, whatever engine does the arithmetic."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.core.config import Recipe
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Classes, Recording
from antpitta.net.scan import join, scan, scan_batch, unit_of
from antpitta.net.sed import SedNet
from antpitta.sound.logmel import LogMel, picture
from antpitta.sound.windows import Pictures

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Heard:
    """What the folds of one model heard in a recording."""

    presence: Floats  # (classes,), the mean over folds of each fold's highest score
    value: Floats  # (rows, classes), the mean over folds, framewise
    grid: TimeGrid


class Listener:
    """The folds of one model, ready to listen: image by image, so a day fits in memory."""

    def __init__(self, recipe: Recipe, classes: Classes, states: list[dict[str, Tensor]]) -> None:
        self.recipe = recipe
        self.classes = classes
        self.mel = LogMel(recipe.front)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.nets = [self._net(state) for state in states]
        windows = recipe.windows
        self.unit = unit_of(self.nets[0].stride, windows.frames, windows.scan_overlap)

    def _net(self, state: dict[str, Tensor]) -> SedNet:
        net = SedNet(
            self.recipe.network,
            len(self.classes),
            bands=self.recipe.front.bands,
            empty=True,
        )
        net.load_state_dict(state)
        return net.eval().to(self.device)

    def listen(
        self,
        recording: Recording,
        read: Callable[[Recording, float, float], NDArray[np.float32]],
    ) -> Heard:
        """Score a recording; ``read`` gives a stretch of it at the front's sample rate.

        Sound that ends before its header says so is filled up with silence.
        """
        front = self.recipe.front
        parts: list[list[Floats]] = [[] for _ in self.nets]
        grids = []
        for start, stop in front.images_of(recording.duration):
            need = round((stop - start) * front.sample_rate)
            wave = read(recording, start, stop)[:need]
            seen = picture(np.pad(wave, (0, need - len(wave))), self.mel)
            for net, found in zip(self.nets, parts, strict=True):
                found.append(self._scan(net, seen))
            grids.append(front.grid_of(start, stop))
        presence = np.mean([np.max([p.max(axis=0) for p in own], axis=0) for own in parts], axis=0)
        means = [np.mean(of_image, axis=0) for of_image in zip(*parts, strict=True)]
        value, grid = join(means, grids, self.unit)
        return Heard(presence.astype(np.float32), value, grid)

    def _scan(self, net: SedNet, seen: NDArray[np.uint8]) -> Floats:
        windows = self.recipe.windows
        pixels = torch.from_numpy(seen).to(self.device)
        pictures = Pictures(pixels, np.array([len(seen)], dtype=np.int64))
        images = np.array([0], dtype=np.int64)
        batch = scan_batch(windows.frames)
        return scan(net, pictures, images, windows.frames, windows.scan_overlap, batch)[0]
