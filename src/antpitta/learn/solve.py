"""A head on a frozen body, taught by boxes alone: solved, not stepped towards.

Each box is then one row of numbers (the mean of the features over it), the logits are linear in
the head and the loss with its L2 is convex, so there is one best head. L-BFGS finds it in seconds,
and no rate, batch or number of epochs has a say in it.
"""

import time
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor

from antpitta.core.errors import UserMistake
from antpitta.learn.fit import Progress, Task, class_weights, nothing_to_learn, settle
from antpitta.learn.material import Material
from antpitta.learn.metric import box_rows, learning
from antpitta.net.losses import masked_loss
from antpitta.net.sed import SedNet

STEPS = 200  # at most; most heads need a third


def solve(
    net: SedNet,
    task: Task,
    material: Material,
    fabric: Fabric,
    report: Callable[[Progress], None],
) -> None:
    """The head that minimises the stage's loss over all training boxes, into ``net``."""
    began, stage = time.perf_counter(), task.stage
    net.to(fabric.device)
    if task.seen is None:
        raise UserMistake(
            f'stage {stage.name}: solver "lbfgs" needs a frozen backbone without masks or mixup, '
            'whose features fit in memory; set solver = "adam"'
        )
    own = material.windows_of(task.train)
    settle(net, task.seen, own, fabric.device)
    rows, heard = box_rows(net, task.seen, material, task.train)
    if not len(rows):
        raise nothing_to_learn(task)
    weights = class_weights(material, task).to(fabric.device) if stage.loss.balance else None
    head = [one for one in net.classify.parameters() if one.requires_grad]
    solver = torch.optim.LBFGS(head, max_iter=STEPS, line_search_fn="strong_wolfe")

    def value() -> Tensor:
        solver.zero_grad()
        logits = net.of_rows(rows)
        loss = masked_loss(logits, heard, None, stage.loss, weights)
        loss = loss + stage.decay / 2 * net.classify.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with learning(net, rows, heard):
        solver.step(value)  # type: ignore[no-untyped-call]
        loss = float(value().detach())
    steps = int(solver.state[head[0]]["n_iter"])
    seconds = time.perf_counter() - began
    report(Progress(1, loss, 0.0, len(own), seconds, steps))
