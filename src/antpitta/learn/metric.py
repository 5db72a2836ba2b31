"""Boxes as rows of a frozen body's features, and the metric in which a head learns from them."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from antpitta.learn.batches import box_batch
from antpitta.learn.material import Material
from antpitta.net.losses import CellTargets
from antpitta.net.sed import SedNet
from antpitta.net.steps import cover
from antpitta.net.wccn import Metric


def box_rows(
    net: SedNet, seen: Tensor, material: Material, recordings: np.ndarray
) -> tuple[Tensor, CellTargets]:
    """A row of features (inputs,) and of targets (classes,) for every box of these recordings."""
    device = net.classify.weight.device
    rows, value, weight = [], [], []
    for window in material.windows_of(recordings):
        batch = box_batch(material, np.array([window]), None)
        if batch.focus is None or not len(batch.focus):
            continue
        features = seen[int(window)].to(device).float()  # (inputs, steps)
        shares = cover(torch.from_numpy(batch.focus).to(device), features.shape[1], net.stride)
        rows.append(shares @ features.T)
        value.append(batch.heard.value)
        weight.append(batch.heard.weight)
    if not rows:
        return torch.zeros(0), CellTargets(torch.zeros(0), torch.zeros(0))
    told = (torch.from_numpy(np.concatenate(part)).to(device) for part in (value, weight))
    return torch.cat(rows), CellTargets(*told)


@contextmanager
def learning(net: SedNet, rows: Tensor, heard: CellTargets) -> Iterator[None]:
    """Inside, the settled ``net`` learns in the metric of these boxes, if it is to have one."""
    present = (heard.value > 0.5) & (heard.weight > 0)
    share = net.network.wccn
    with torch.no_grad():
        metric = (
            Metric.of_boxes(net.levelled(rows), present, share) if share and len(rows) else None
        )
        if metric is not None:
            net.classify.weight.copy_(metric.back(net.classify.weight))
    net.metric = metric
    yield
    net.metric = None
    with torch.no_grad():
        if metric is not None:
            net.classify.weight.copy_(metric.turn(net.classify.weight))
