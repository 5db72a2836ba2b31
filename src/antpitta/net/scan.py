"""Running a network over pictures of any length, window by window.

Prediction uses framewise probabilities and windows that overlap; where several windows cover a
moment the highest wins, so that a call cut by one window's edge is taken from the other.
"""

from collections.abc import Callable
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray

from antpitta.core.timegrid import TimeGrid
from antpitta.net.sed import SedNet
from antpitta.sound.windows import Cuts, Pictures, starts_of

Floats = NDArray[np.float32]
SCAN_FRAMES = 1 << 14  # at once: enough to keep a processor busy, few enough for any memory


def unit_of(stride: int, frames: int, overlap: int) -> int:
    """The frames of one row of the scores: the coarsest that every window's steps fall on.

    >>> unit_of(32, 512, 256)
    32
    """
    return gcd(stride, frames - overlap)


def scan_batch(frames: int) -> int:
    """How many windows of so many frames go through the network at once."""
    return max(1, SCAN_FRAMES // frames)


def score_grid(image: TimeGrid, unit: int) -> TimeGrid:
    """The rows of the scores of one image: ``unit`` frames each, the last perhaps cut short."""
    rows = -(-image.frames // unit)
    return TimeGrid(hop=image.hop * unit, frames=rows, start=image.start)


@torch.inference_mode()
def scan(
    net: SedNet,
    pictures: Pictures,
    images: NDArray[np.int64],
    frames: int,
    overlap: int,
    batch: int,
    tick: Callable[[int], None] = lambda done: None,
) -> list[Floats]:
    """Framewise probabilities of these ``images``: (rows, classes) each, on :func:`score_grid`.

    ``tick`` is told how many images are done since the last call.
    """
    net.eval()
    unit = unit_of(net.stride, frames, overlap)
    found: list[Floats] = []
    group: list[int] = []
    held = 0
    for image in images:
        starts = starts_of(int(pictures.lengths[image]), frames, overlap)
        if group and held + len(starts) > batch:
            found += _scan_group(net, pictures, group, frames, overlap, unit)
            tick(len(group))
            group, held = [], 0
        group.append(int(image))
        held += len(starts)
    if group:
        found += _scan_group(net, pictures, group, frames, overlap, unit)
        tick(len(group))
    return found


def _scan_group(
    net: SedNet, pictures: Pictures, group: list[int], frames: int, overlap: int, unit: int
) -> list[Floats]:
    starts = [starts_of(int(pictures.lengths[image]), frames, overlap) for image in group]
    cuts = Cuts(
        np.repeat(np.array(group, dtype=np.int64), [len(s) for s in starts]),
        np.array([s for some in starts for s in some], dtype=np.int64),
        frames,
    )
    logits = net(pictures.gather(cuts)).framewise
    chance = torch.sigmoid(logits.float()).cpu().numpy()  # (windows, steps, classes)
    chance = np.repeat(chance, net.stride // unit, axis=1)
    found, at = [], 0
    for image, some in zip(group, starts, strict=True):
        rows = -(-int(pictures.lengths[image]) // unit)
        whole = np.zeros((rows, chance.shape[2]), dtype=np.float32)
        for start in some:
            first = start // unit
            part = whole[first : first + chance.shape[1]]
            np.maximum(part, chance[at, : len(part)], out=part)
            at += 1
        found.append(whole)
    return found


def join(parts: list[Floats], grids: list[TimeGrid], unit: int) -> tuple[Floats, TimeGrid]:
    """The scores of a recording's images, laid on one grid of the recording's own clock.

    Every row goes where its middle lies, and the higher wins where two meet at a seam; rows at
    a seam are at most half a row away from where they were heard. An image's rows can be a
    little longer than the grid's and leave one of them out: it takes what was heard in its own
    middle, because a 0 there would cut an event in two.
    """
    hop = grids[0].hop * unit
    rows = max(-int(-(grids[-1].end - 1e-9) // hop), 1)
    whole = np.zeros((rows, parts[0].shape[1]), dtype=np.float32)
    empty = np.ones(rows, dtype=bool)
    starts = []
    for part, image in zip(parts, grids, strict=True):
        grid = score_grid(image, unit)
        start = grid.start + np.arange(len(part)) * grid.hop
        middle = (start + np.minimum(start + grid.hop, image.end)) / 2
        place = np.minimum((middle / hop + 1e-9).astype(np.int64), rows - 1)
        np.maximum.at(whole, place, part)
        empty[place] = False
        starts.append(start)
    middles = (np.flatnonzero(empty) + 0.5) * hop
    holder = np.searchsorted(np.concatenate(starts), middles, side="right") - 1
    whole[empty] = np.concatenate(parts)[holder]
    return whole, TimeGrid(hop=hop, frames=rows)
