"""The training loop: killed anywhere and resumed, it ends where it would have ended."""

import math
from contextlib import nullcontext
from copy import deepcopy

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch.optim.optimizer import register_optimizer_step_pre_hook

from antpitta.core.config import BackboneConfig, HeadConfig, Recipe, WindowConfig
from antpitta.core.errors import UserError
from antpitta.core.features import MelConfig
from antpitta.core.stages import LossConfig, Stage
from antpitta.core.types import Annotation, Targets
from antpitta.files.runs import CheckpointFile
from antpitta.model.network import SedNet
from antpitta.train import loop
from antpitta.train.batches import epoch_batches
from antpitta.train.data import TrainTask, compute_class_weights
from antpitta.train.loop import batch_loss, fit, lr_at

FEATURES = MelConfig(
    sample_rate=8000, n_fft=256, hop_length=80, n_mels=32, fmin=50, fmax=4000, segment=2.0
)
RECIPE = Recipe(
    name="tiny",
    description="tests",
    features=FEATURES,
    windows=WindowConfig(frames=64, overlap=16, inference_overlap=32),
    backbone=BackboneConfig(name="test_efficientnet", pretrained=False),
    head=HeadConfig(),
    stages=(Stage(name="one"),),
)
BOXES = [
    *(Annotation(f"r{i}", 0.2, 0.9, "abc"[i % 3], i % 2 == 0) for i in range(7)),
    *(Annotation(f"r{i}", 1.0, 1.4, "a") for i in range(3)),
]


class MemoryStore:
    """Keeps all checkpoints in memory."""

    def __init__(self, held=()):
        self.saved = list(held)

    def load(self):
        return self.saved[-1] if self.saved else None

    def save(self, epoch, state):
        self.saved.append((epoch, {key: value.clone() for key, value in state.items()}))


@pytest.fixture(scope="module")
def training_data(make_training_data):
    return make_training_data(RECIPE, [2.0] * 7, BOXES)


@pytest.fixture(scope="module")
def fabric():
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture(scope="module")
def first_net():
    torch.manual_seed(0)
    net = SedNet(RECIPE.backbone, RECIPE.head, 3)
    net.backbone = torch.nn.Sequential(net.backbone, torch.nn.Dropout(0.3))
    return net


def everything_on(**more):
    """Mixup on both ends, masks, two accumulated batches of four, a rest of one, dropout."""
    return Stage(
        **{
            "name": "one",
            "batch_size": 2,
            "grad_accum_steps": 3,
            "epochs": 3,
            "cosine_t_max": 2,
            "lr": 1e-2,
            "mixup": 0.3,
            "manifold_mixup": 0.3,
            "loss": LossConfig(class_weights=True),
            **more,
        }
    )


def pseudo_labels(training_data):
    unlabelled = training_data.labels.weight == 0
    weight = (unlabelled & (np.random.default_rng(0).random(unlabelled.shape) < 0.3)) * 1.0
    return Targets(weight.astype(np.float32), weight.astype(np.float32))


def train(net, stage, training_data, fabric, store=None, seed=(1, 2, 3), results=None):
    task = TrainTask(stage, np.arange(7), pseudo_labels(training_data), seed)
    net = deepcopy(net)
    fit(
        net,
        task,
        training_data,
        fabric,
        store or MemoryStore(),
        ([] if results is None else results).append,
    )
    return net


def equal(one, two):
    states = one.state_dict(), two.state_dict()
    return all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("sample", ["recordings", "known", "crops"])
def test_training_killed_after_any_epoch_ends_with_equal_weights(
    training_data, fabric, first_net, tmp_path, sample
):
    stage = everything_on(sample=sample)
    store = MemoryStore()
    whole = train(first_net, stage, training_data, fabric, store)
    assert [epoch for epoch, _ in store.saved] == [1, 2, 3]
    assert not equal(whole, first_net)
    for epoch, state in store.saved:
        torch.manual_seed(99)  # what a new process draws must not matter
        file = CheckpointFile(tmp_path / f"{epoch}.checkpoint")
        file.save(epoch, state)
        other = SedNet(RECIPE.backbone, RECIPE.head, 3)
        other.backbone = torch.nn.Sequential(other.backbone, torch.nn.Dropout(0.3))
        resumed = train(other, stage, training_data, fabric, file)
        assert equal(resumed, whole), f"killed after epoch {epoch}"
        assert file.load()[0] == 3


def test_training_killed_inside_an_epoch_runs_it_again(
    training_data, fabric, first_net, monkeypatch
):
    stage = everything_on()
    whole = train(first_net, stage, training_data, fabric)
    store, calls, prepare = MemoryStore(), [], loop.prepare_batch

    def fails_in_the_second_epoch(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return prepare(*arguments)

    monkeypatch.setattr(loop, "prepare_batch", fails_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(first_net, stage, training_data, fabric, store)
    assert [epoch for epoch, _ in store.saved] == [1]
    monkeypatch.undo()
    assert equal(train(first_net, stage, training_data, fabric, store), whole)


def test_another_seed_gives_other_weights(training_data, fabric, first_net):
    stage = everything_on(epochs=1)
    one = train(first_net, stage, training_data, fabric)
    assert equal(one, train(first_net, stage, training_data, fabric))
    assert not equal(one, train(first_net, stage, training_data, fabric, seed=(1, 2, 4)))


def test_other_recordings_do_not_change_the_weights(training_data, fabric, first_net):
    stage = everything_on(epochs=1)
    found = []
    for shade in (0, 255):
        changed = deepcopy(training_data)
        offset = int(changed.features.offsets[6])
        changed.features.pixels[offset:] = shade
        net = deepcopy(first_net)
        fit(
            net,
            TrainTask(stage, np.arange(6), None, (1,)),
            changed,
            fabric,
            MemoryStore(),
            [].append,
        )
        found.append(net)
    assert equal(*found)


def test_every_epoch_reports_its_windows_loss_and_learning_rate(training_data, fabric, first_net):
    results = []
    train(first_net, everything_on(), training_data, fabric, results=results)
    assert [p.epoch for p in results] == [1, 2, 3]
    assert all(p.windows == 7 * 4 for p in results)  # 201 frames: windows at 0, 48, 96 and 144
    assert all(np.isfinite(p.loss) for p in results)
    assert [p.steps for p in results] == [1, 1, 1]  # three batches are one step
    # batches of 2, 2 and 3 recordings: the last of an epoch is at 2/3 of it
    assert [p.lr for p in results] == pytest.approx(
        [lr_at(everything_on(), epoch + 2 / 3) for epoch in range(3)]
    )


def test_the_learning_rate_follows_half_cosines():
    stage = Stage(name="s", lr=2e-3, epochs=50, cosine_t_max=10)
    for position in (0, 2.5, 5, 10, 12.5, 20, 37.25):
        expected = 2e-3 * (1 + math.cos(math.pi * position / 10)) / 2
        assert lr_at(stage, position) == pytest.approx(expected)
    assert lr_at(stage, 10) == pytest.approx(0)
    assert lr_at(stage, 20) == pytest.approx(2e-3)
    assert lr_at(Stage(name="s", lr=1.0, epochs=4), 2) == pytest.approx(0.5)


def test_the_learning_rate_equals_pytorchs_cosine_schedule():
    stage = Stage(name="s", lr=1e-3, epochs=6, cosine_t_max=3)
    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=3 * 5)
    for step in range(6 * 5):
        assert lr_at(stage, step / 5) == pytest.approx(adam.param_groups[0]["lr"], abs=1e-12)
        adam.step()
        schedule.step()


def test_the_weight_of_a_class_is_the_largest_count_over_its_own(training_data):
    task = TrainTask(everything_on(), np.array([0, 1, 2, 3, 4]), None, (1,))
    # presents among r0 to r4: "a" by r0 twice, r1, r2; "b" by r4; "c" by r2
    np.testing.assert_allclose(compute_class_weights(training_data, task), [1, 4, 4])


def test_a_class_without_present_boxes_has_weight_1(training_data):
    # among r1, r4 and r6: "a" by r1 and r6, "b" by r4, "c" by nobody
    task = TrainTask(everything_on(), np.array([1, 4, 6]), None, (1,))
    np.testing.assert_allclose(compute_class_weights(training_data, task), [1, 2, 1])
    nobody = TrainTask(everything_on(), np.array([3]), None, (1,))
    np.testing.assert_allclose(compute_class_weights(training_data, nobody), [1, 1, 1])


@pytest.mark.parametrize("sample", ["known", "crops"])
def test_a_stage_without_boxes_is_an_error(make_training_data, fabric, first_net, sample):
    bare = make_training_data(RECIPE, [2.0] * 3, [])
    stage = Stage(name="one", sample=sample)
    task = TrainTask(stage, np.arange(3), None, (1,))
    with pytest.raises(UserError, match="stage one") as error:
        fit(deepcopy(first_net), task, bare, fabric, MemoryStore(), [].append)
    assert error.value.code == "E_NO_BOXES"


@pytest.mark.parametrize(("accumulate", "steps"), [(3, 1), (2, 2), (1, 3)])
def test_accumulated_batches_step_as_one_along_their_mean_gradient(
    training_data, fabric, first_net, accumulate, steps
):
    # batches of 2, 2 and 3 recordings, at a rate that leaves the weights as they are
    stage = everything_on(epochs=1, grad_accum_steps=accumulate, lr=1e-12)
    taken = []

    def watch(optimizer, given, more):
        groups = optimizer.param_groups
        taken.append([p.grad.clone() for group in groups for p in group["params"]])

    handle = register_optimizer_step_pre_hook(watch)
    train(first_net, stage, training_data, fabric)
    handle.remove()
    assert len(taken) == steps

    twin = deepcopy(first_net).train()
    task = TrainTask(stage, np.arange(7), pseudo_labels(training_data), (1, 2, 3))
    rng = np.random.default_rng([1, 2, 3, 0])
    torch.manual_seed(int(rng.integers(2**31)))
    batches = epoch_batches(stage, training_data, task.recordings, task.pseudo_labels, rng)
    weights = compute_class_weights(training_data, task)
    gradients = []
    for batch in batches:
        ready = loop.prepare_batch(batch, training_data, stage, rng, fabric.device)
        loss = batch_loss(twin, ready, stage, weights)
        gradients.append(torch.autograd.grad(loss, list(twin.parameters())))
    for step, found in enumerate(taken):
        group = gradients[step * accumulate : (step + 1) * accumulate]
        for one, parts in zip(found, zip(*group, strict=True), strict=True):
            torch.testing.assert_close(one, sum(parts) / len(group), atol=1e-5, rtol=1e-3)


def test_a_loss_that_is_not_finite_stops_training(training_data, fabric, first_net):
    broken = deepcopy(first_net)
    with torch.no_grad():
        broken.head.class_conv.weight.fill_(float("nan"))
    store = MemoryStore()
    with pytest.raises(FloatingPointError, match="stage one: the loss became nan"):
        train(broken, everything_on(), training_data, fabric, store)
    assert store.saved == []


def test_training_halves_the_loss(training_data, fabric, first_net):
    results = []
    stage = Stage(name="one", batch_size=4, epochs=12, lr=3e-3, sample="known")
    net = deepcopy(first_net)
    task = TrainTask(stage, np.arange(7), None, (1,))
    fit(net, task, training_data, fabric, MemoryStore(), results.append)
    assert results[-1].loss < 0.5 * results[0].loss


def test_bfloat16_trains_on_mixed_windows(training_data, first_net):
    bfloat16 = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    results = []
    net = train(first_net, everything_on(), training_data, bfloat16, results=results)
    full = []
    train(
        first_net,
        everything_on(),
        training_data,
        Fabric(accelerator="cpu", devices=1),
        results=full,
    )
    assert {value.dtype for value in net.parameters()} == {torch.float32}
    assert results[0].loss == pytest.approx(full[0].loss, rel=0.05)
    assert results[0].loss != full[0].loss


def test_a_compiled_network_runs_an_odd_batch_without_compiling(
    training_data, fabric, first_net, monkeypatch
):
    sizes, stances = [], []
    monkeypatch.setattr(
        torch.compiler, "set_stance", lambda stance: (stances.append(stance), nullcontext())[1]
    )
    prepare = loop.prepare_batch

    def watched(batch, *arguments):
        sizes.append(len(batch.windows))
        return prepare(batch, *arguments)

    monkeypatch.setattr(loop, "prepare_batch", watched)
    task = TrainTask(everything_on(epochs=1), np.arange(7), None, (1,), compiled=True)
    fit(deepcopy(first_net), task, training_data, fabric, MemoryStore(), [].append)
    assert sizes == [8, 8, 12]
    assert stances == ["force_eager"]
