"""A batch run from a recording, as a GPU does, is the batch run as it comes."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

import antpitta.learn.fit as room
from antpitta.core.config import Stage
from antpitta.core.types import Targets
from antpitta.learn import graph
from antpitta.learn.batches import epoch_batches
from antpitta.learn.fit import Task, fit
from antpitta.learn.ready import lay_out
from antpitta.net.sed import SedNet

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


class Nowhere:
    """Keeps no checkpoint."""

    def load(self):
        return None

    def save(self, epoch, state):
        pass


@pytest.fixture(scope="module")
def taught(staged_material):
    weight = (staged_material.heard.weight == 0).astype(np.float32)
    return Targets(weight * 0.7, weight)


@pytest.fixture(scope="module")
def first_net(staged_recipe):
    torch.manual_seed(3)
    net = SedNet(staged_recipe.network, 3, bands=32)
    net.body = torch.nn.Sequential(net.body, torch.nn.Dropout(0.3))
    return net


def stage(**more):
    return Stage(
        name="one", batch=2, accumulate=2, epochs=2, rate=1e-2, mixup=0.3, last_mixup=0.3, **more
    )


def test_what_a_batch_is_made_of_is_named_in_one_order(staged_material, taught):
    rng = np.random.default_rng(1)
    known = stage(sample="known")  # so many windows a batch
    batches = epoch_batches(known, staged_material, np.arange(6), taught, rng)
    one, two = (
        lay_out(batch, staged_material, stage(), rng, torch.device("cpu")) for batch in batches[:2]
    )
    kept = []
    copy = one.each(lambda tensor: kept.append(tensor.clone()) or kept[-1])
    assert copy.windows == len(one.pixels) == one.windows
    assert copy.pixels is kept[0]
    assert len(kept) == 1 + 2 + 2 + 4  # pixels, two mixes, and the two words of cells
    places = iter(kept)
    two.each(lambda tensor: next(places).copy_(tensor))
    assert torch.equal(copy.pixels, two.pixels)
    assert torch.equal(copy.late.partner, two.late.partner)
    assert torch.equal(copy.told[1].weight, two.told[1].weight)
    assert not torch.equal(copy.pixels, one.pixels)


def test_nothing_is_recorded_without_a_gpu(staged_material, taught, first_net):
    rng = np.random.default_rng(1)
    batch = epoch_batches(stage(), staged_material, np.arange(6), taught, rng)[0]
    ready = lay_out(batch, staged_material, stage(), rng, torch.device("cpu"))
    fabric = Fabric(accelerator="cpu", devices=1)
    net = deepcopy(first_net)
    run = graph.Pass(net, fabric.setup_module(net), stage(), None, fabric)
    loss = run(ready, 2.0, stepping=True)
    assert run.kept is None
    assert not loss.requires_grad
    half = [p.grad.clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = None
    torch.testing.assert_close(loss, run(ready, 1.0, stepping=True), rtol=0.5, atol=0)  # dropout
    assert len(half) == len([p for p in net.parameters() if p.grad is not None])


@on_gpu
@pytest.mark.parametrize("sample", ["recordings", "known", "crops"])
def test_recorded_batches_teach_what_batches_do_that_are_run_as_they_come(
    staged_material, taught, first_net, monkeypatch, sample
):
    fabric = Fabric(accelerator="cuda", devices=1, precision="bf16-mixed")
    torch.backends.cudnn.deterministic = True
    recordings = np.arange(len(staged_material.dataset.recordings) - 1)  # an odd rest
    task = Task(stage(sample=sample), recordings, taught, (1, 2, 3))
    made, ends = [], []
    recording = graph._Recording
    monkeypatch.setattr(graph, "_Recording", lambda *given: made.append(1) or recording(*given))
    for recorded in (True, True, False):
        monkeypatch.setattr(graph.Pass, "_records", _only(recorded))
        net, said = deepcopy(first_net), []
        fit(net, task, staged_material, fabric, Nowhere(), said.append)
        ends.append((net.state_dict(), [progress.loss for progress in said]))
    assert len(made) == 2
    (one, losses), (two, _), (eager, wanted) = ends
    assert losses == wanted
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert all(torch.equal(value, eager[key]) for key, value in one.items())
    assert not torch.equal(one["classify.weight"], first_net.classify.weight)


def _only(recorded, records=graph.Pass._records):
    return lambda run, ready: recorded and records(run, ready)


@on_gpu
def test_boxes_are_run_as_they_come(staged_material, taught, first_net):
    fabric = Fabric(accelerator="cuda", devices=1, precision="bf16-mixed")
    one = stage(loss={"on": "boxes", "reduce": "both"})
    said = []
    task = Task(one, np.arange(6), taught, (1, 2, 3))
    fit(deepcopy(first_net), task, staged_material, fabric, Nowhere(), said.append)
    assert len(said) == 2
    assert np.isfinite(said[-1].loss)
    assert room.Pass is graph.Pass
