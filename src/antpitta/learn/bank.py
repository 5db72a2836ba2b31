"""What a frozen body sees of the training windows, kept, so that an epoch takes a moment.

A body that does not learn sees the same in every epoch, fold and stage. Whoever asks is known by
the body's own weights, so that another body never gets these features.
"""

import hashlib

import torch
from torch import Tensor

from antpitta.core.stages import Stage
from antpitta.learn.material import Material
from antpitta.net.folding import folded
from antpitta.net.sed import SedNet

LIMIT = 4 << 30  # bytes; beyond it features are worked out anew each time
BATCH_FRAMES = 8192  # at once through the body


class Bank:
    """The features of one body at a time: (windows, inputs, steps), float16."""

    def __init__(self) -> None:
        self.key = ""
        self.seen: Tensor | None = None

    def of(self, net: SedNet, stage: Stage, material: Material) -> Tensor | None:
        """The features of all training windows; None where they differ from epoch to epoch."""
        changing = stage.masks.chance or stage.mixup or stage.sample == "crops"
        if not net.network.frozen or changing:
            return None
        key = _digest(net)
        if key != self.key:
            self.key, self.seen = key, _see(net, material)
        return self.seen


def _digest(net: SedNet) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for value in net.body.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def _see(net: SedNet, material: Material) -> Tensor | None:
    net = folded(net.eval())
    cuts, found = material.cuts, []
    size = max(1, BATCH_FRAMES // cuts.frames)
    device = next(net.parameters()).device
    for first in range(0, len(cuts), size):
        rows = torch.arange(first, min(first + size, len(cuts))).numpy()
        seen = net.see(material.pictures.gather(cuts.take(rows)).to(device)).half()
        if seen[0].nbytes * len(cuts) > LIMIT:
            return None
        found.append(seen)
    return torch.cat(found).clone()
