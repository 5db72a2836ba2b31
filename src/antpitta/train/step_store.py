"""Where features of a frozen backbone are kept: rows of boxes, sums, and steps of windows."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antpitta.model.network import SedNet
from antpitta.model.normalizer import StepSums
from antpitta.sound.windows import join_ranges

Ints = NDArray[np.int64]

MAX_MEMORY = 1 << 30  # bytes of features of all steps; more go to a file


class StepStore:
    """The features (inputs, steps) of many windows in float16, in memory or in a file.

    Parameters
    ----------
    steps : (windows,), the steps of each window
    inputs : features per step
    device : where features are put
    folder : of the file
    """

    def __init__(self, steps: Ints, inputs: int, device: torch.device, folder: Path | None) -> None:
        self.steps, self.inputs, self.device = steps, inputs, device
        self._edges = inputs * np.concatenate([[0], np.cumsum(steps)])
        size = int(self._edges[-1])
        self._file: BinaryIO | None = None
        self._lock = Lock()
        if 2 * size <= MAX_MEMORY:
            self._memory = torch.zeros(size, dtype=torch.float16, device=device)
        else:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def write(self, window: int, features: Tensor) -> None:
        """Keep the features (inputs, steps) of a window."""
        first, end = self._edges[window : window + 2]
        if self._file is None:
            self._memory[first:end] = features.flatten()
            return
        with self._lock:
            self._file.seek(2 * first)
            self._file.write(features.cpu().contiguous().numpy().data)

    def _read(self, window: int) -> Tensor:
        first, end = self._edges[window : window + 2]
        if self._file is None:
            return self._memory[first:end].view(self.inputs, -1)
        values = np.empty((self.inputs, (end - first) // self.inputs), dtype=np.float16)
        with self._lock:
            self._file.seek(2 * first)
            self._file.readinto(values.data)  # type: ignore[attr-defined]
        return torch.from_numpy(values)

    def gather(self, windows: Ints) -> Tensor:
        """The features of some windows, 0 after the end of the shorter ones.

        Returns
        -------
        features : (windows, inputs, steps), float32
        """
        longest = int(self.steps[windows].max(initial=1))
        shape = (len(windows), self.inputs, longest)
        gathered = torch.zeros(shape, dtype=torch.float32, device=self.device)
        for row, window in zip(gathered, windows, strict=True):
            row[:, : self.steps[window]] = self._read(int(window))
        return gathered


@dataclass(frozen=True)
class BackboneFeatures:
    """What a frozen backbone makes of all training windows.

    Parameters
    ----------
    store : the features of all steps
    box_rows : (boxes, inputs), the mean of the features over each box, window by window
    box_offsets : (windows + 1,), where the boxes of each window begin
    sums : of the steps of each window, for the normalizer
    """

    store: StepStore
    box_rows: Tensor
    box_offsets: Ints
    sums: StepSums

    def rows_of(self, windows: Ints) -> Tensor:
        """The rows (boxes, inputs) of all boxes in some windows, in the order of the windows."""
        first, count = self.box_offsets[windows], np.diff(self.box_offsets)[windows]
        rows = join_ranges(first, count)
        return self.box_rows[torch.from_numpy(rows).to(self.box_rows.device)]

    def fit_normalizer(self, net: SedNet, windows: Ints) -> None:
        """Fit the head's normalizer to the steps of these windows."""
        net.head.fit_normalizer(self.sums.take(windows))
