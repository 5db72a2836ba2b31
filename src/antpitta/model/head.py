"""The head of a network: features over time in, class logits over time out.

:class:`SedHead` runs its parts in this order:

0. With ``layers = "dense"``, a dense layer mixes the inputs (:class:`DenseLayer`).
1. The normalizer brings every input to mean 0 and variance 1. With a frozen backbone its
   statistics are computed once, over all training windows (:meth:`SedHead.fit_normalizer`), and
   then folded into the weights of the convolutions.
2. A 1x1 convolution gives class logits per step. The band mask removes the inputs that lie
   outside the frequency band of a class.
3. For an embedding model that already classifies our species, its own logits, times a factor, are
   added to the head's, in training and in prediction. The head then learns what the model lacks. A
   species that the model does not know has the logit 0. A factor alone keeps the scale on which the
   model's species compare, which a scaling by species would lose.
4. Each class's logits are averaged over the steps around each step (:func:`smooth_logits`).
5. A second convolution and a softmax over time give the attention. The clipwise logit is the mean
   of the framewise logits weighted by it. With ``scores = "clipwise"``, it is the score of all
   steps in prediction.

With an embedding model, frames in which all inputs are 0 are padding. They take no part in
statistics, smoothing or attention.

References
----------
.. [1] Kong et al., PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern
   Recognition, 2020: the attention head of "Cnn14_DecisionLevelAtt".
"""

from collections.abc import Iterable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from antpitta.core.config import HeadConfig
from antpitta.model.normalizer import (
    MaskedBatchNorm1d,
    StepSums,
    fit_masked_norm,
    norm_coefficients,
)

DENSE_DROPOUT = 0.5
PADDING_LOGIT = -20.0  # the framewise logit of padding


class Logits(NamedTuple):  # Fabric walks through a model's output, and cannot walk dataclasses
    """The logits of a batch of windows."""

    clipwise: Tensor  # (batch, classes)
    framewise: Tensor  # (batch, steps, classes); a step is ``stride`` frames
    unsmoothed: Tensor  # (batch, steps, classes), framewise before they are averaged over steps


def smoothing_steps(config: HeadConfig, stride: int) -> tuple[int, ...]:
    """Convert ``smoothing_frames`` to steps.

    Parameters
    ----------
    config : ``smoothing_frames`` must be numbers, not "boxes"
    stride : frames per step

    Returns
    -------
    One number for all classes, or one for each.
    """
    if config.smoothing_frames == "boxes":
        raise ValueError('smoothing_frames is "boxes": fill in the numbers first')
    frames = config.smoothing_frames
    frames_per_class = frames if isinstance(frames, tuple) else (frames,)
    return tuple(max(1, round(count / stride)) for count in frames_per_class)


def box_step_shares(box_spans: Tensor, steps: int, stride: int) -> Tensor:
    """Compute how much each step contributes to each span of frames.

    Parameters
    ----------
    box_spans : (rows, 3): window, first frame, end frame
    steps : steps of a window
    stride : frames per step

    Returns
    -------
    (rows, steps): the shares of a row add up to 1, or to 0 for an empty span.
    """
    edges = torch.arange(steps + 1, device=box_spans.device) * stride
    frames = torch.minimum(box_spans[:, 2:], edges[1:]) - torch.maximum(
        box_spans[:, 1:2], edges[:-1]
    )
    frames = frames.clamp_min(0).float()
    return frames / frames.sum(dim=1, keepdim=True).clamp_min(1)


def box_logits(logits: Logits, box_spans: Tensor, stride: int) -> Tensor:
    """Reduce framewise logits to one logit per span and class.

    A span's logit is the mean of the unsmoothed logits over it: smoothing over a box's length has
    the same value at the middle of the box. An empty span stands for the whole window and takes
    the highest smoothed logit.

    Parameters
    ----------
    logits : of a batch of windows
    box_spans : (rows, 3): window, first frame, end frame
    stride : frames per step

    Returns
    -------
    (rows, classes)
    """
    shares = box_step_shares(box_spans, logits.unsmoothed.shape[1], stride).to(
        logits.unsmoothed.dtype
    )
    mean = (logits.unsmoothed[box_spans[:, 0]] * shares[:, :, None]).sum(dim=1)
    highest = logits.framewise.amax(dim=1)[box_spans[:, 0]]
    return torch.where(box_spans[:, 2:] > box_spans[:, 1:2], mean, highest)


def valid_mask(features: Tensor) -> Tensor:
    """Mark the steps that are not padding.

    Parameters
    ----------
    features : (batch, inputs, steps)

    Returns
    -------
    (batch, 1, steps), bool; all True for a window that is nothing but padding.
    """
    nonzero = (features != 0).any(dim=1, keepdim=True)
    return nonzero | ~nonzero.any(dim=2, keepdim=True)


def smooth_logits(logits: Tensor, steps: tuple[int, ...], valid: Tensor | None = None) -> Tensor:
    """Average logits over time, with a window of its own length for each class.

    Parameters
    ----------
    logits : (batch, classes, steps)
    steps : the length of the window: one number for all classes, or one for each
    valid : (batch, 1, steps), bool: the steps that count; None for all

    Returns
    -------
    (batch, classes, steps): near the ends the mean over the steps that exist.
    """
    sizes = torch.tensor(steps, device=logits.device)
    before = (int(sizes.max()) - 1) // 2
    after = int(sizes.max()) // 2
    offset = torch.arange(-before, after + 1, device=logits.device)
    inside = (offset >= -((sizes - 1) // 2)[:, None]) & (offset <= (sizes // 2)[:, None])
    kernel = inside.to(logits.dtype).expand(logits.shape[1], -1)[:, None]  # (classes, 1, offsets)
    ones = torch.ones_like(logits[:1]) if valid is None else valid.expand(logits.shape)
    ones = ones.to(logits.dtype)
    pad = nn.functional.pad
    total = nn.functional.conv1d(pad(logits * ones, (before, after)), kernel, groups=len(kernel))
    count = nn.functional.conv1d(pad(ones, (before, after)), kernel, groups=len(kernel))
    return total / count.clamp_min(1e-9)


def zero_shot_mask(inputs: int, classes: int) -> Tensor:
    """Mask the embedding model's own logits, which are the last inputs, one per class.

    Parameters
    ----------
    inputs : channels of the features
    classes : number of classes

    Returns
    -------
    (classes, inputs, 1): 1 for the inputs that the head uses, else 0.
    """
    mask = torch.ones(classes, inputs, 1)
    mask[:, inputs - classes :] = 0
    return mask


def class_band_mask(config: HeadConfig, maps: Iterable[tuple[int, int]], bands: int) -> Tensor:
    """Mask the inputs that lie outside the frequency band of each class.

    Parameters
    ----------
    config : ``class_band_limits`` must be numbers, not "boxes"
    maps : channels and height of each feature map, in the order of the inputs
    bands : mel bands of the spectrogram

    Returns
    -------
    (classes, inputs, 1): 1 for the inputs whose band overlaps that of the class, else 0.
    """
    if config.class_band_limits is None or config.class_band_limits == "boxes":
        raise ValueError('class_band_limits is "boxes": fill in the numbers first')
    edges = [
        (i / height, (i + 1) / height)
        for channels, height in maps
        for i in [*range(height)] * channels
    ]
    low, high = bands * torch.tensor(edges).T
    first, end = torch.tensor(config.class_band_limits).T[:, :, None]
    overlaps: Tensor = (low < end) & (high > first)
    return overlaps[:, :, None].float()


class DenseLayer(nn.Module):
    """The sum of maximum and mean over 3 steps, a dense layer with ReLU, and dropout around it.

    Parameters
    ----------
    inputs : channels of the features, before and after
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(DENSE_DROPOUT)
        self.dense = nn.Conv1d(inputs, inputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Mix features (batch, inputs, steps); steps beyond the ends count as 0 in the mean."""
        highest = nn.functional.max_pool1d(features, 3, stride=1, padding=1)
        mean = nn.functional.avg_pool1d(features, 3, stride=1, padding=1)
        mixed: Tensor = self.dropout(self.dense(self.dropout(highest + mean)).relu())
        return mixed


class SedHead(nn.Module):
    """Normalizer, class convolution, own logits of an embedding model, smoothing and attention.

    With x the normalized inputs at step t, w and v the weights of class c, and z the class logits:
    ``z[c, t] = w[c] . x[t] (+ bias)``, ``framewise = smooth(z)``,
    ``clipwise[c] = sum_t softmax_t(v[c] . x[t]) * framewise[c, t]``.

    Parameters
    ----------
    config : settings ``[head]`` of the recipe
    inputs : channels of the features
    classes : number of classes
    stride : frames per step
    is_embedding : the features are vectors of an embedding model: they are always normalized, and
        steps of nothing but 0 are padding
    has_zero_shot : the last ``classes`` inputs are the embedding model's own logits
    band_mask : (classes, inputs, 1), see :func:`class_band_mask`
    """

    band_mask: Tensor | None  # (classes, inputs, 1): 1 for the inputs of a class, else 0
    prior_shift: Tensor | None  # (classes,), added to the logits; see scores/prevalence.py

    def __init__(
        self,
        config: HeadConfig,
        inputs: int,
        classes: int,
        stride: int,
        *,
        is_embedding: bool = False,
        has_zero_shot: bool = False,
        band_mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.is_embedding = is_embedding
        self.steps = smoothing_steps(config, stride)
        self.normalizer_fitted = False
        normalizes = config.background_subtraction != 0 or is_embedding
        norm = MaskedBatchNorm1d(inputs) if is_embedding else nn.BatchNorm1d(inputs, affine=False)
        self.normalizer = norm if normalizes else nn.Identity()
        is_dense = config.layers == "dense"
        self.dense = DenseLayer(inputs) if is_dense else None
        self.class_conv = nn.Conv1d(inputs, classes, 1, bias=normalizes or is_dense)
        self.attention_conv = nn.Conv1d(inputs, classes, 1, bias=is_dense)
        self.zero_shot_weight = config.zero_shot_weight if has_zero_shot else 0.0
        shift = torch.zeros(classes) if normalizes else None
        self.register_buffer("prior_shift", shift)
        if band_mask is None and has_zero_shot:
            band_mask = zero_shot_mask(inputs, classes)
        self.register_buffer("band_mask", band_mask, persistent=False)

    @property
    def smooths(self) -> bool:
        """Whether logits are averaged over more than one step."""
        return any(count != 1 for count in self.steps)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; a fitted normalizer keeps its statistics."""
        super().train(mode)
        if self.normalizer_fitted:
            self.normalizer.eval()
        return self

    def forward(
        self, features: Tensor, box_rows: Tensor | None = None, *, has_padding: bool = False
    ) -> Logits:
        """Turn features into logits.

        In float32 at least: half precision has three digits, which is too few to rank by.

        Parameters
        ----------
        features : (batch, inputs, steps)
        box_rows : (boxes, inputs), features of boxes: their logits come first among the clipwise
            ones
        has_padding : steps of nothing but 0 are padding, as they always are with an embedding
        """
        with torch.autocast(features.device.type, enabled=False):
            dtype = torch.promote_types(features.dtype, torch.float32)
            logits = self._forward(features.to(dtype), has_padding=has_padding)
            if box_rows is None:
                return logits
            clipwise = torch.cat([self.classify_rows(box_rows.to(dtype)), logits.clipwise])
            return logits._replace(clipwise=clipwise)

    def _forward(self, features: Tensor, *, has_padding: bool) -> Logits:
        if self.dense is not None:
            features = self.dense(features)
        unsmoothed = self._class_logits(features)
        valid = valid_mask(features) if self.is_embedding or has_padding else None
        framewise = self._smooth(unsmoothed, valid)
        if valid is not None:
            framewise = framewise.masked_fill(~valid, PADDING_LOGIT)
        by_step = framewise.transpose(1, 2), unsmoothed.transpose(1, 2)
        if not self.attention_conv.weight.requires_grad:  # not trained: the loss is framewise
            return Logits(framewise.amax(dim=2), *by_step)
        attention = self._convolve(self.attention_conv, features)
        if valid is not None:
            attention = attention.masked_fill(~valid, -torch.inf)
        elif self.dense is not None:
            attention = attention.tanh()
        clipwise = (framewise * attention.softmax(dim=2)).sum(dim=2)
        if self.config.scores == "clipwise" and not self.training:
            by_step = clipwise[:, None].expand_as(by_step[0]), by_step[1]
        return Logits(clipwise, *by_step)

    @torch.no_grad()
    def fit_normalizer(self, sums: StepSums) -> None:
        """Compute the normalizer's statistics once, and keep them from now on.

        Parameters
        ----------
        sums : of the features of a frozen backbone, of all training windows
        """
        if isinstance(self.normalizer, nn.BatchNorm1d):
            fit_masked_norm(self.normalizer, sums)
            self.normalizer_fitted = True

    def classify_rows(self, rows: Tensor) -> Tensor:
        """Return class logits (rows, classes) of features (rows, inputs), such as box means."""
        return self._class_logits(rows[:, :, None])[:, :, 0]

    def classify_rows_of_classes(self, rows: Tensor) -> Tensor:
        """Return the logit of each class for rows of its own, with a fitted normalizer.

        Parameters
        ----------
        rows : (classes, rows, inputs)

        Returns
        -------
        (classes, rows)
        """
        assert isinstance(self.normalizer, nn.BatchNorm1d)
        weight, bias = self._fold(self.class_conv, self.normalizer)
        logits = torch.bmm(rows, weight[:, :, None])[:, :, 0] + bias[:, None]
        if self.zero_shot_weight:
            own = rows[:, :, -len(rows) :].diagonal(dim1=0, dim2=2).T
            logits = logits + self.zero_shot_weight * own
        if self.prior_shift is not None:
            logits = logits + self.prior_shift[:, None]
        return logits

    def _smooth(self, logits: Tensor, valid: Tensor | None) -> Tensor:
        """Average (batch, classes, steps) over each class's steps."""
        return smooth_logits(logits, self.steps, valid) if self.smooths else logits

    def _class_logits(self, features: Tensor) -> Tensor:
        """Class logits (batch, classes, steps) of features, before they are smoothed."""
        logits = self._convolve(self.class_conv, features)
        if self.zero_shot_weight:
            logits = logits + self.zero_shot_weight * features[:, -logits.shape[1] :]
        if self.prior_shift is not None:
            logits = logits + self.prior_shift[:, None]
        return logits

    def _convolve(self, layer: nn.Conv1d, features: Tensor) -> Tensor:
        """Apply ``layer`` to normalized features; fixed statistics are folded into its weights."""
        if not isinstance(self.normalizer, nn.BatchNorm1d) or self.normalizer.training:
            normalized = self.normalizer(features)
            if self.band_mask is not None:
                return nn.functional.conv1d(normalized, layer.weight * self.band_mask, layer.bias)
            logits: Tensor = layer(normalized)  # the layer itself, so that its hooks are called
            return logits
        weight, bias = self._fold(layer, self.normalizer)
        return torch.matmul(weight, features) + bias[:, None]

    def _fold(self, layer: nn.Conv1d, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
        """Weight (classes, inputs) and bias (classes,) of ``layer`` on features as they are."""
        mean, factor = norm_coefficients(norm)
        masked = layer.weight if self.band_mask is None else layer.weight * self.band_mask
        weight = masked[:, :, 0] * factor
        shift = (weight * mean).sum(dim=1)
        return weight, -shift if layer.bias is None else layer.bias - shift
