"""Logits over steps of time: averaged over a class's length, held against boxes."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from antpitta.core.config import Network


class Logits(NamedTuple):  # fabric walks a model's output, and cannot walk frozen dataclasses
    """What the head says of a batch of windows."""

    clipwise: Tensor  # (batch, classes)
    framewise: Tensor  # (batch, steps, classes); a step is ``stride`` frames
    sharp: Tensor  # the same before they were averaged over steps


def steps_of(network: Network, stride: int) -> tuple[int, ...] | None:
    """The steps that each class's framewise logits are averaged over."""
    if network.spans == "boxes":
        raise ValueError("the boxes' lengths were not filled in")
    return network.spans and tuple(max(1, round(span / stride)) for span in network.spans)


def cover(focus: Tensor, steps: int, stride: int) -> Tensor:
    """The share of each step in the span of each row of ``focus`` (rows, 3): (rows, steps).

    A row names a window and a span of its frames. Shares add up to 1, to 0 where the span is empty.
    """
    edges = torch.arange(steps + 1, device=focus.device) * stride
    frames = torch.minimum(focus[:, 2:], edges[1:]) - torch.maximum(focus[:, 1:2], edges[:-1])
    frames = frames.clamp_min(0).float()
    return frames / frames.sum(dim=1, keepdim=True).clamp_min(1)


def focused(logits: Logits, focus: Tensor, stride: int) -> Tensor:
    """One logit a row of ``focus`` (see :func:`cover`) and class.

    It is the mean over the span, of logits that are not averaged yet, since that mean is what the
    averaged ones are at a call's middle; and the highest averaged one where the span is empty.
    """
    shares = cover(focus, logits.sharp.shape[1], stride).to(logits.sharp.dtype)
    mean = (logits.sharp[focus[:, 0]] * shares[:, :, None]).sum(dim=1)
    highest = logits.framewise.amax(dim=1)[focus[:, 0]]
    return torch.where(focus[:, 2:] > focus[:, 1:2], mean, highest)


def sounding(seen: Tensor) -> Tensor:
    """The steps (batch, 1, steps) that are no padding; all of a window that is nothing else."""
    heard = (seen != 0).any(dim=1, keepdim=True)
    return heard | ~heard.any(dim=2, keepdim=True)


def smooth(logits: Tensor, steps: tuple[int, ...], sound: Tensor | None = None) -> Tensor:
    """The mean over so many steps around each, of those there are: (batch, classes, steps).

    ``steps`` is one number for all classes, or one for each.
    """
    sizes = torch.tensor(steps, device=logits.device)
    before = (int(sizes.max()) - 1) // 2
    after = int(sizes.max()) // 2
    place = torch.arange(-before, after + 1, device=logits.device)
    own = (place >= -((sizes - 1) // 2)[:, None]) & (place <= (sizes // 2)[:, None])
    kernel = own.to(logits.dtype).expand(logits.shape[1], -1)[:, None]  # (classes, 1, places)
    ones = torch.ones_like(logits[:1]) if sound is None else sound.expand(logits.shape)
    ones = ones.to(logits.dtype)
    pad = nn.functional.pad
    total = nn.functional.conv1d(pad(logits * ones, (before, after)), kernel, groups=len(kernel))
    share = nn.functional.conv1d(pad(ones, (before, after)), kernel, groups=len(kernel))
    return total / share.clamp_min(1e-9)
