"""A batch run from a recording, as a GPU does, is the batch run as it comes."""

from contextlib import nullcontext
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from antpitta.core.stages import Stage
from antpitta.core.types import Targets
from antpitta.model.network import SedNet
from antpitta.train import loop as graph
from antpitta.train import loop as room
from antpitta.train.batches import epoch_batches, prepare_batch
from antpitta.train.data import TrainTask
from antpitta.train.loop import fit

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


class Nowhere:
    """Keeps no checkpoint."""

    def load(self):
        return None

    def save(self, epoch, state):
        pass


@pytest.fixture(scope="module")
def pseudo_labels(staged_data):
    weight = (staged_data.labels.weight == 0).astype(np.float32)
    return Targets(weight * 0.7, weight)


@pytest.fixture(scope="module")
def first_net(staged_recipe):
    torch.manual_seed(3)
    net = SedNet(staged_recipe.backbone, staged_recipe.head, 3, bands=32)
    net.backbone = torch.nn.Sequential(net.backbone, torch.nn.Dropout(0.3))
    return net


def stage(**more):
    return Stage(
        name="one",
        batch_size=2,
        grad_accum_steps=2,
        epochs=2,
        lr=1e-2,
        mixup=0.3,
        manifold_mixup=0.3,
        **more,
    )


def test_what_a_batch_is_made_of_is_named_in_one_order(staged_data, pseudo_labels):
    rng = np.random.default_rng(1)
    known = stage(sample="known")  # so many windows a batch
    batches = epoch_batches(known, staged_data, np.arange(6), pseudo_labels, rng)
    one, two = (
        prepare_batch(batch, staged_data, stage(), rng, torch.device("cpu"))
        for batch in batches[:2]
    )
    kept = []
    copy = one.map_tensors(lambda tensor: kept.append(tensor.clone()) or kept[-1])
    assert copy.n_windows == len(one.pixels) == one.n_windows
    assert copy.pixels is kept[0]
    assert len(kept) == 1 + 2 + 2 + 4  # pixels, two mixes, and the two words of cells
    places = iter(kept)
    two.map_tensors(lambda tensor: next(places).copy_(tensor))
    assert torch.equal(copy.pixels, two.pixels)
    assert torch.equal(copy.manifold_mixup.partner, two.manifold_mixup.partner)
    assert torch.equal(copy.targets[1].weight, two.targets[1].weight)
    assert not torch.equal(copy.pixels, one.pixels)


def test_nothing_is_recorded_without_a_gpu(staged_data, pseudo_labels, first_net):
    rng = np.random.default_rng(1)
    batch = epoch_batches(stage(), staged_data, np.arange(6), pseudo_labels, rng)[0]
    ready = prepare_batch(batch, staged_data, stage(), rng, torch.device("cpu"))
    fabric = Fabric(accelerator="cpu", devices=1)
    net = deepcopy(first_net)
    run = graph.TrainStep(net, fabric.setup_module(net), stage(), None, fabric)
    loss = run(ready, 2.0, stepping=True)
    assert run.captured is None
    assert not loss.requires_grad
    half = [p.grad.clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = None
    torch.testing.assert_close(loss, run(ready, 1.0, stepping=True), rtol=0.5, atol=0)  # dropout
    assert len(half) == len([p for p in net.parameters() if p.grad is not None])


class Replayed:
    """Stands in for a CUDA graph: what was run last while it was recorded is run again."""

    def __init__(self):
        self.runs = []

    def replay(self):
        run, ready, share, loss = self.runs[-1]
        loss.copy_(run(ready, share))


@pytest.fixture
def played(monkeypatch):
    """Recordings on a CPU, made as on a GPU."""
    made, run = [], graph.TrainStep.forward_backward

    def graph_of():
        made.append(Replayed())
        return made[-1]

    def watched(self, ready, share):
        loss = run(self, ready, share)
        if made and torch.is_tensor(share):  # of a recording
            made[-1].runs.append((lambda *given: run(self, *given), ready, share, loss))
        return loss

    fakes = {
        "CUDAGraph": graph_of,
        "Stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
        "current_stream": lambda: None,
        "stream": lambda side: nullcontext(),
        "graph": lambda *given, **more: nullcontext(),
        "get_rng_state": lambda device: torch.get_rng_state(),
        "set_rng_state": lambda state, device: torch.set_rng_state(state),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(graph.TrainStep, "forward_backward", watched)
    monkeypatch.setattr(graph.TrainStep, "_can_capture", lambda self, ready: True)
    return made


def trained(net, task, training_data, fabric):
    net, said = deepcopy(net), []
    fit(net, task, training_data, fabric, Nowhere(), said.append)
    return net.state_dict(), [progress.loss for progress in said]


def alike(one, two):
    return one[1] == two[1] and all(torch.equal(one[0][key], two[0][key]) for key in one[0])


@pytest.mark.parametrize("sample", ["known", "crops"])
def test_making_a_recording_leaves_no_trace(staged_data, pseudo_labels, first_net, sample, request):
    fabric = Fabric(accelerator="cpu", devices=1)
    task = TrainTask(stage(sample=sample), np.arange(6), pseudo_labels, (1, 2, 3))
    wanted = trained(first_net, task, staged_data, fabric)
    played = request.getfixturevalue("played")
    found = trained(first_net, task, staged_data, fabric)
    assert alike(found, wanted)
    assert len(played) == 1
    assert len(played[0].runs) == graph.WARM_UP_RUNS + 1
    assert not torch.equal(found[0]["head.class_conv.weight"], first_net.head.class_conv.weight)


@on_gpu
@pytest.mark.parametrize("sample", ["recordings", "known", "crops"])
def test_recorded_batches_teach_what_batches_do_that_are_run_as_they_come(
    staged_data, pseudo_labels, first_net, monkeypatch, sample
):
    fabric = Fabric(accelerator="cuda", devices=1, precision="bf16-mixed")
    torch.backends.cudnn.deterministic = True
    task = TrainTask(stage(sample=sample), np.arange(6), pseudo_labels, (1, 2, 3))
    one, two = (trained(first_net, task, staged_data, fabric) for _ in range(2))
    monkeypatch.setattr(graph.TrainStep, "_can_capture", lambda run, ready: False)
    assert alike(one, two)
    assert alike(one, trained(first_net, task, staged_data, fabric))
    assert not torch.equal(one[0]["head.class_conv.weight"].cpu(), first_net.head.class_conv.weight)


@on_gpu
def test_boxes_are_run_as_they_come(staged_data, pseudo_labels, first_net):
    fabric = Fabric(accelerator="cuda", devices=1, precision="bf16-mixed")
    one = stage(loss={"on": "boxes", "reduction": "balanced"})
    said = []
    task = TrainTask(one, np.arange(6), pseudo_labels, (1, 2, 3))
    fit(deepcopy(first_net), task, staged_data, fabric, Nowhere(), said.append)
    assert len(said) == 2
    assert np.isfinite(said[-1].loss)
    assert room.TrainStep is graph.TrainStep
