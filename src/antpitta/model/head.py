"""Logits over steps of time: averaged over a class's length, held against boxes.

Levelling: every input of a head brought to mean 0 and variance 1 before it is weighed.

Features that never change need no statistics of every batch: they are settled once, by all of a
fold's training windows. Padding, steps of nothing but 0, has no part in it.

Which inputs a class's head sees: (classes, inputs, 1), 1 where it does, else 0.

A network's own word of our species, beside what a head has learnt of them.

A dozen boxes are the calls of a few animals, and a head on them knows those animals. A network
that has a class of its own for the species has heard many others, and was taught none of ours.
The two err apart, so their logits are averaged, the network's stretched to the spread of the
head's. How well each tells the boxes apart has no say: boxes hold the head's own animals.

The folds of a frozen backbone: many heads on one body, which need be run only once.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from antpitta.core.config import HeadConfig


class Logits(NamedTuple):  # fabric walks a model's output, and cannot walk frozen dataclasses
    """What the head says of a batch of windows."""

    clipwise: Tensor  # (batch, classes)
    framewise: Tensor  # (batch, steps, classes); a step is ``stride`` frames
    sharp: Tensor  # the same before they were averaged over steps


def smoothing_steps(head: HeadConfig, stride: int) -> tuple[int, ...]:
    """The steps that each class's framewise logits are averaged over."""
    if head.smoothing_frames == "boxes":
        raise ValueError("the boxes' lengths were not filled in")
    frames = head.smoothing_frames
    each = frames if isinstance(frames, tuple) else (frames,)
    return tuple(max(1, round(count / stride)) for count in each)


def box_step_shares(focus: Tensor, steps: int, stride: int) -> Tensor:
    """The share of each step in the span of each row of ``focus`` (rows, 3): (rows, steps).

    A row names a window and a span of its frames. Shares add up to 1, to 0 where the span is empty.
    """
    edges = torch.arange(steps + 1, device=focus.device) * stride
    frames = torch.minimum(focus[:, 2:], edges[1:]) - torch.maximum(focus[:, 1:2], edges[:-1])
    frames = frames.clamp_min(0).float()
    return frames / frames.sum(dim=1, keepdim=True).clamp_min(1)


def box_logits(logits: Logits, focus: Tensor, stride: int) -> Tensor:
    """One logit a row of ``focus`` (see :func:`box_step_shares`) and class.

    It is the mean over the span, of logits that are not averaged yet, since that mean is what the
    averaged ones are at a call's middle; and the highest averaged one where the span is empty.
    """
    shares = box_step_shares(focus, logits.sharp.shape[1], stride).to(logits.sharp.dtype)
    mean = (logits.sharp[focus[:, 0]] * shares[:, :, None]).sum(dim=1)
    highest = logits.framewise.amax(dim=1)[focus[:, 0]]
    return torch.where(focus[:, 2:] > focus[:, 1:2], mean, highest)


def valid_mask(seen: Tensor) -> Tensor:
    """The steps (batch, 1, steps) that are no padding; all of a window that is nothing else."""
    labels = (seen != 0).any(dim=1, keepdim=True)
    return labels | ~labels.any(dim=2, keepdim=True)


def smooth_logits(logits: Tensor, steps: tuple[int, ...], sound: Tensor | None = None) -> Tensor:
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


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """Batch norm (batch, inputs, steps) over the steps of sound: padding moves nothing, stays 0."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, affine=False)

    def forward(self, seen: Tensor) -> Tensor:
        """The steps of nothing but 0 are padding."""
        steps = seen.transpose(1, 2)
        sound = (steps != 0).any(dim=2)
        levelled = torch.zeros_like(steps)
        rows = steps[sound]
        if self.training and len(rows) < 2:  # one step has no deviation
            rows = nn.functional.batch_norm(rows, self.running_mean, self.running_var, eps=self.eps)
        else:
            rows = super().forward(rows)
        levelled[sound] = rows.to(levelled.dtype)
        return levelled.transpose(1, 2)


def fit_masked_norm(level: nn.BatchNorm1d, seen: Iterator[Tensor]) -> None:
    """Give ``level`` the statistics of these features (batch, inputs, steps), for good."""
    count = 0
    total = square = torch.zeros((), dtype=torch.float64)
    for part in seen:
        steps = part.transpose(1, 2).float()
        steps = steps[(steps != 0).any(dim=2)]
        count += len(steps)
        total = total.to(steps.device) + steps.double().sum(0)
        square = square.to(steps.device) + steps.double().square().sum(0)
    mean = total / max(1, count)
    var = square / max(1, count) - mean.square()
    assert level.running_mean is not None
    assert level.running_var is not None
    level.running_mean.copy_(mean)
    level.running_var.copy_(var.clamp_min(0))
    level.eval()


def norm_coefficients(level: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """What is taken off each input, and what the rest is multiplied by: (inputs,) each."""
    assert level.running_mean is not None
    assert level.running_var is not None
    return level.running_mean, (level.running_var + level.eps).rsqrt()


def zero_shot_mask(inputs: int, classes: int) -> Tensor:
    """All but the last inputs, which are a network's own logits, one a class."""
    reach = torch.ones(classes, inputs, 1)
    reach[:, inputs - classes :] = 0
    return reach


def class_band_mask(head: HeadConfig, maps: Iterable[tuple[int, int]], bands: int) -> Tensor:
    """The inputs from heights that lie in the class's band.

    ``maps`` are the channels and heights of the feature maps of a picture of ``bands``.
    """
    if head.class_band_limits is None or head.class_band_limits == "boxes":
        raise ValueError("the boxes' bands were not filled in")
    edges = [(i / high, (i + 1) / high) for depth, high in maps for i in [*range(high)] * depth]
    low, high = bands * torch.tensor(edges).T
    first, end = torch.tensor(head.class_band_limits).T[:, :, None]
    near: Tensor = (low < end) & (high > first)
    return near[:, :, None].float()


LEAST = 1e-4  # of the spread of levelled logits: below it, the network has no such class


class ZeroShotBlend(nn.Module):
    """``trust`` is the network's share in the mean; classes that it lacks keep the head's logit."""

    scale: Tensor  # (classes,), of its levelled logits; 0 where it has no such class
    middle: Tensor  # (classes,), what they are laid around: the mean of the head's

    def __init__(self, classes: int, trust: float) -> None:
        super().__init__()
        self.trust = trust
        for name in ("scale", "middle"):
            self.register_buffer(name, torch.zeros(classes))

    def forward(self, head: Tensor, own: Tensor) -> Tensor:
        """Both (batch, classes, steps)."""
        scale, middle = self.scale[:, None], self.middle[:, None]
        share = self.trust * (scale > 0)
        return (1 - share) * head + share * (own * scale + middle)

    def stretch(self, head: Tensor, own: Tensor) -> None:
        """Take the spread from these logits (steps, classes) of the same sound."""
        spread = own.std(dim=0, correction=0)
        scale = head.std(dim=0, correction=0) / spread.clamp_min(LEAST)
        self.scale.copy_(torch.where(spread > LEAST, scale, 0.0))
        self.middle.copy_(head.mean(dim=0) - own.mean(dim=0) * self.scale)
