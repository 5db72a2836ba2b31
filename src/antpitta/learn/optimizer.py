"""A network and its optimizer: set up on a device, and what of both is kept between epochs."""

from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from antpitta.core.stages import Stage
from antpitta.learn.keepers import Keeper, State
from antpitta.net.sed import SedNet


def set_up(net: SedNet, stage: Stage, fabric: Fabric) -> tuple[Any, Any, torch.optim.Adam]:
    """The model and the optimizer as ``fabric`` wraps them, and the optimizer itself."""
    # Boxes are judged framewise, without the attention: DDP would wait for its gradient.
    net.attend.requires_grad_(stage.loss.on == "windows")
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        _share_statistics(net)
    learning = [one for one in net.parameters() if one.requires_grad]
    fused = fabric.device.type == "cuda" or None
    net.to(fabric.device)  # before the optimizer: a fused one must find its weights there
    optimizer = torch.optim.Adam(learning, lr=stage.rate, weight_decay=stage.decay, fused=fused)
    model, adam = fabric.setup(net, optimizer)
    return model, adam, optimizer


def _share_statistics(net: SedNet) -> None:
    import timm  # here: net/backbones.py must have been imported before it

    # timm's own, as torch's would lose the activation inside timm's batch norms
    convert: Callable[[nn.Module], Any] = vars(timm.layers)["convert_sync_batchnorm"]
    net.body = convert(net.body)
    if type(net.level) is nn.BatchNorm1d:
        net.level = convert(net.level)


def resume(net: SedNet, optimizer: torch.optim.Adam, keeper: Keeper) -> int:
    """Go on from what is kept; how many epochs that had seen."""
    kept = keeper.load()
    if kept is None:
        return 0
    done, state = kept
    restore(net, optimizer, state)
    return done


def capture(net: SedNet, optimizer: torch.optim.Adam) -> State:
    """All that the next epoch needs, as named tensors."""
    still = ("body.",) if net.network.frozen else ()
    state = {
        f"net.{name}": value
        for name, value in net.state_dict().items()
        if not name.startswith(still)
    }
    for i, slots in optimizer.state_dict()["state"].items():
        state |= {f"adam.{i}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    return state


def restore(net: SedNet, optimizer: torch.optim.Adam, state: State) -> None:
    """The inverse of :func:`capture`."""
    learnt = {k[4:]: v for k, v in state.items() if k.startswith("net.")}
    net.load_state_dict(learnt, strict=not net.network.frozen)
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith("adam."):
            _, i, slot = key.split(".")
            slots.setdefault(int(i), {})[slot] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
