"""The training loop: resumed training, learning rates, accumulated batches and CUDA graphs."""

import math
from contextlib import nullcontext
from copy import deepcopy
from types import SimpleNamespace

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
from antpitta.train.batches import epoch_batches, prepare_batch
from antpitta.train.data import TrainTask, compute_class_weights
from antpitta.train.loop import TrainStep, batch_loss, fit, lr_at

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
    stages=(Stage(name="first"),),
)
BOXES = [
    *(Annotation(f"r{i}", 0.2, 0.9, "abc"[i % 3], i % 2 == 0) for i in range(7)),
    *(Annotation(f"r{i}", 1.0, 1.4, "a") for i in range(3)),
]


class MemoryStore:
    """Keeps all checkpoints in memory."""

    def __init__(self):
        self.saved = []

    def load(self):
        return self.saved[-1] if self.saved else None

    def save(self, epoch, state):
        self.saved.append((epoch, {key: value.clone() for key, value in state.items()}))

    def explain_damage(self):
        return nullcontext()


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


def make_stage(**settings):
    """A stage with mixup of inputs and feature maps, masks, class weights and accumulation."""
    return Stage(
        **{
            "name": "first",
            "batch_size": 2,
            "grad_accum_steps": 3,
            "epochs": 3,
            "cosine_t_max": 2,
            "lr": 1e-2,
            "mixup": 0.3,
            "manifold_mixup": 0.3,
            "loss": LossConfig(class_weights=True),
            **settings,
        }
    )


def pseudo_labels(training_data):
    unlabelled = training_data.labels.weight == 0
    weight = (unlabelled & (np.random.default_rng(0).random(unlabelled.shape) < 0.3)) * 1.0
    return Targets(weight.astype(np.float32), weight.astype(np.float32))


def train(net, stage, training_data, fabric, store=None, seed=(1, 2, 3), results=None, n=7):
    task = TrainTask(stage, np.arange(n), pseudo_labels(training_data), seed)
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


def equal(net, other):
    state = other.state_dict()
    return all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("sample", ["recordings", "known", "crops"])
def test_training_killed_after_any_epoch_ends_with_equal_weights(
    training_data, fabric, first_net, tmp_path, sample
):
    stage = make_stage(sample=sample)
    store = MemoryStore()
    uninterrupted = train(first_net, stage, training_data, fabric, store)
    assert [epoch for epoch, _ in store.saved] == [1, 2, 3]
    assert not equal(uninterrupted, first_net)
    for epoch, state in store.saved:
        torch.manual_seed(99)  # the random numbers of a new process must not matter
        file = CheckpointFile(tmp_path / f"{epoch}.checkpoint")
        file.save(epoch, state)
        other = SedNet(RECIPE.backbone, RECIPE.head, 3)
        other.backbone = torch.nn.Sequential(other.backbone, torch.nn.Dropout(0.3))
        resumed = train(other, stage, training_data, fabric, file)
        assert equal(resumed, uninterrupted), f"killed after epoch {epoch}"
        assert file.load()[0] == 3


def test_training_killed_inside_an_epoch_runs_it_again(
    training_data, fabric, first_net, monkeypatch
):
    stage = make_stage()
    uninterrupted = train(first_net, stage, training_data, fabric)
    store, calls, prepare = MemoryStore(), [], loop.prepare_batch

    def fail_in_the_second_epoch(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return prepare(*arguments)

    monkeypatch.setattr(loop, "prepare_batch", fail_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(first_net, stage, training_data, fabric, store)
    assert [epoch for epoch, _ in store.saved] == [1]
    monkeypatch.undo()
    assert equal(train(first_net, stage, training_data, fabric, store), uninterrupted)


def test_equal_seeds_give_equal_weights_and_others_do_not(training_data, fabric, first_net):
    stage = make_stage(epochs=1)
    net = train(first_net, stage, training_data, fabric)
    assert equal(net, train(first_net, stage, training_data, fabric))
    assert not equal(net, train(first_net, stage, training_data, fabric, seed=(1, 2, 4)))


def test_other_recordings_do_not_change_the_weights(training_data, fabric, first_net):
    stage = make_stage(epochs=1)
    nets = []
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
        nets.append(net)
    assert equal(*nets)


def test_every_epoch_reports_its_windows_loss_and_learning_rate(training_data, fabric, first_net):
    results = []
    train(first_net, make_stage(), training_data, fabric, results=results)
    assert [result.epoch for result in results] == [1, 2, 3]
    assert all(result.windows == 7 * 4 for result in results)  # at frames 0, 48, 96 and 144 of 201
    assert all(np.isfinite(result.loss) for result in results)
    assert [result.steps for result in results] == [1, 1, 1]  # three batches are one step
    # Batches of 2, 2 and 3 recordings: the last one of an epoch begins at 2/3 of it.
    assert [result.lr for result in results] == pytest.approx(
        [lr_at(make_stage(), epoch + 2 / 3) for epoch in range(3)]
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
    # Present boxes: "a" in r0 (two), r1, r2 and r6; "b" in r4; "c" in r2.
    np.testing.assert_allclose(compute_class_weights(training_data.dataset), [1, 5, 5])


def test_a_class_without_present_boxes_has_weight_1(make_training_data):
    boxes = [Annotation("r0", 0.2, 0.9, "a"), Annotation("r0", 0.2, 0.9, "b", present=False)]
    few = make_training_data(RECIPE, [2.0], [boxes[0], *boxes])
    np.testing.assert_allclose(compute_class_weights(few.dataset), [1, 1, 1])
    absent_only = make_training_data(RECIPE, [2.0], boxes[1:])
    np.testing.assert_allclose(compute_class_weights(absent_only.dataset), [1, 1, 1])


@pytest.mark.parametrize("sample", ["known", "crops"])
def test_a_stage_without_boxes_is_an_error(make_training_data, fabric, first_net, sample):
    unlabelled = make_training_data(RECIPE, [2.0] * 3, [])
    stage = Stage(name="first", sample=sample)
    task = TrainTask(stage, np.arange(3), None, (1,))
    with pytest.raises(UserError, match="stage first") as error:
        fit(deepcopy(first_net), task, unlabelled, fabric, MemoryStore(), [].append)
    assert error.value.code == "E_NO_BOXES"


@pytest.mark.parametrize(
    ("grad_accum_steps", "groups"), [(3, [[0]]), (2, [[0], [1, 2]]), (1, [[0], [1], [2]])]
)
def test_the_optimizer_steps_after_the_first_batch_and_then_along_sums(
    training_data, fabric, first_net, grad_accum_steps, groups
):
    # Batches of 2, 2 and 3 recordings, with a learning rate that does not change the weights.
    stage = make_stage(epochs=1, grad_accum_steps=grad_accum_steps, lr=1e-12)
    step_gradients = []

    def keep_gradients(optimizer, args, kwargs):
        groups = optimizer.param_groups
        step_gradients.append([p.grad.clone() for group in groups for p in group["params"]])

    handle = register_optimizer_step_pre_hook(keep_gradients)
    train(first_net, stage, training_data, fabric)
    handle.remove()
    assert len(step_gradients) == len(groups)

    net = deepcopy(first_net).train()
    task = TrainTask(stage, np.arange(7), pseudo_labels(training_data), (1, 2, 3))
    rng = np.random.default_rng([1, 2, 3, 0])
    torch.manual_seed(int(rng.integers(2**31)))
    batches = epoch_batches(stage, training_data, task.recordings, task.pseudo_labels, rng)
    weights = compute_class_weights(training_data.dataset)
    gradients = []
    for batch in batches:
        device_batch = prepare_batch(batch, training_data, stage, rng, fabric.device)
        loss = batch_loss(net, device_batch, stage, weights)
        gradients.append(torch.autograd.grad(loss, list(net.parameters())))
    for actual, group in zip(step_gradients, groups, strict=True):
        by_weight = zip(*(gradients[i] for i in group), strict=True)
        for gradient, parts in zip(actual, by_weight, strict=True):
            torch.testing.assert_close(gradient, sum(parts), atol=1e-5, rtol=1e-3)


def test_the_best_epoch_is_kept_also_after_a_kill(training_data, fabric, first_net, tmp_path):
    stage = make_stage(epochs=4)
    task = TrainTask(stage, np.arange(7), None, (1, 2, 3))
    values = {1: 0.2, 2: 0.7, 3: 0.7, 4: 0.5}

    def train_with(store, net, first=1):
        epochs, kept, results = iter(range(first, 5)), [], []

        def validate(net):
            kept.append({key: value.clone() for key, value in net.state_dict().items()})
            return values[next(epochs)]

        fit(net, task, training_data, fabric, store, results.append, validate)
        return kept, results

    store, net = MemoryStore(), deepcopy(first_net)
    kept, results = train_with(store, net)
    assert [result.lwlrap for result in results] == [0.2, 0.7, 0.7, 0.5]
    assert all(torch.equal(value, kept[1][key]) for key, value in net.state_dict().items())
    for epoch, state in store.saved[:3]:
        file = CheckpointFile(tmp_path / f"{epoch}.checkpoint")
        file.save(epoch, state)
        resumed = deepcopy(first_net)
        train_with(file, resumed, epoch + 1)
        assert equal(resumed, net), f"killed after epoch {epoch}"


def test_a_loss_that_is_not_finite_stops_training(training_data, fabric, first_net):
    net = deepcopy(first_net)
    with torch.no_grad():
        net.head.class_conv.weight.fill_(float("nan"))
    store = MemoryStore()
    with pytest.raises(FloatingPointError, match=r"nan in epoch 1"):
        train(net, make_stage(), training_data, fabric, store)
    assert store.saved == []


def test_training_halves_the_loss(training_data, fabric, first_net):
    results = []
    stage = Stage(name="first", batch_size=4, epochs=12, lr=3e-3, sample="known")
    net = deepcopy(first_net)
    task = TrainTask(stage, np.arange(7), None, (1,))
    fit(net, task, training_data, fabric, MemoryStore(), results.append)
    assert results[-1].loss < 0.5 * results[0].loss


def test_bfloat16_trains_on_mixed_windows(training_data, first_net):
    bfloat16 = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    results = []
    net = train(first_net, make_stage(), training_data, bfloat16, results=results)
    float32_results = []
    float32 = Fabric(accelerator="cpu", devices=1)
    train(first_net, make_stage(), training_data, float32, results=float32_results)
    assert {value.dtype for value in net.parameters()} == {torch.float32}
    assert results[0].loss == pytest.approx(float32_results[0].loss, rel=0.05)
    assert results[0].loss != float32_results[0].loss


def test_a_compiled_network_runs_a_batch_of_another_size_without_compiling(
    training_data, fabric, first_net, monkeypatch
):
    sizes, stances = [], []
    monkeypatch.setattr(
        torch.compiler, "set_stance", lambda stance: (stances.append(stance), nullcontext())[1]
    )
    prepare = loop.prepare_batch

    def prepare_and_count(batch, *arguments):
        sizes.append(len(batch.windows))
        return prepare(batch, *arguments)

    monkeypatch.setattr(loop, "prepare_batch", prepare_and_count)
    task = TrainTask(make_stage(epochs=1), np.arange(7), None, (1,), compiled=True)
    fit(deepcopy(first_net), task, training_data, fabric, MemoryStore(), [].append)
    assert sizes == [8, 8, 12]
    assert stances == ["force_eager"]


# ---- CUDA graphs


def test_no_graph_is_captured_without_a_gpu(training_data, fabric, first_net):
    stage, rng = make_stage(), np.random.default_rng(1)
    pseudo = pseudo_labels(training_data)
    batch = epoch_batches(stage, training_data, np.arange(6), pseudo, rng)[0]
    device_batch = prepare_batch(batch, training_data, stage, rng, fabric.device)
    net = deepcopy(first_net)
    step = TrainStep(net, fabric.setup_module(net), stage, None, fabric)
    first_loss = step(device_batch, stepping=True)
    assert step.captured is None
    assert not first_loss.requires_grad
    n_gradients = len([p.grad for p in net.parameters() if p.grad is not None])
    for p in net.parameters():
        p.grad = None
    loss = step(device_batch, stepping=True)
    torch.testing.assert_close(first_loss, loss, rtol=0.5, atol=0)  # dropout
    assert n_gradients == len([p for p in net.parameters() if p.grad is not None]) > 0


class FakeGraph:
    """Stands in for a CUDA graph: a replay runs the last captured step again."""

    def __init__(self):
        self.runs = []

    def replay(self):
        step, batch, loss = self.runs[-1]
        loss.copy_(FORWARD_BACKWARD(step, batch))


FORWARD_BACKWARD = TrainStep.forward_backward


@pytest.fixture
def fake_graphs(monkeypatch):
    """The graphs that a CPU captures as a GPU would."""
    graphs = []

    def make_graph():
        graphs.append(FakeGraph())
        return graphs[-1]

    def run_and_keep(step, batch):
        loss = FORWARD_BACKWARD(step, batch)
        if graphs and step.captured is None:  # while a graph is captured
            graphs[-1].runs.append((step, batch, loss))
        return loss

    fakes = {
        "CUDAGraph": make_graph,
        "Stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
        "current_stream": lambda: None,
        "stream": lambda stream: nullcontext(),
        "graph": lambda *arguments, **keywords: nullcontext(),
        "get_rng_state": lambda device: torch.get_rng_state(),
        "set_rng_state": lambda state, device: torch.set_rng_state(state),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(TrainStep, "forward_backward", run_and_keep)
    monkeypatch.setattr(TrainStep, "_can_capture", lambda step, batch: True)
    return graphs


@pytest.mark.parametrize("sample", ["known", "crops"])
def test_capturing_a_graph_changes_no_loss_and_no_weight(
    training_data, fabric, first_net, sample, request
):
    stage = make_stage(sample=sample, grad_accum_steps=2, epochs=2)
    expected_results, results = [], []
    expected = train(first_net, stage, training_data, fabric, results=expected_results, n=6)
    graphs = request.getfixturevalue("fake_graphs")
    net = train(first_net, stage, training_data, fabric, results=results, n=6)
    assert equal(net, expected)
    assert [result.loss for result in results] == [result.loss for result in expected_results]
    assert len(graphs) == 1
    assert len(graphs[0].runs) == loop.WARM_UP_RUNS + 1
    assert not equal(net, first_net)


on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def gpu_fabric(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    return Fabric(accelerator="cuda", devices=1, precision="bf16-mixed")


@on_gpu
@pytest.mark.parametrize("sample", ["recordings", "known", "crops"])
def test_replayed_graphs_give_the_weights_of_direct_runs(
    training_data, gpu_fabric, first_net, monkeypatch, sample
):
    stage, nets, losses = make_stage(sample=sample, grad_accum_steps=2, epochs=2), [], []
    for can_capture in (True, True, False):
        if not can_capture:
            monkeypatch.setattr(TrainStep, "_can_capture", lambda step, batch: False)
        results = []
        nets.append(train(first_net, stage, training_data, gpu_fabric, results=results, n=6))
        losses.append([result.loss for result in results])
    assert equal(nets[0], nets[1])
    assert equal(nets[0], nets[2])
    assert losses[0] == losses[1] == losses[2]
    assert not equal(nets[0].cpu(), first_net)


@on_gpu
def test_losses_on_boxes_are_trained_without_a_graph(training_data, gpu_fabric, first_net):
    stage, results = make_stage(loss={"on": "boxes", "reduction": "balanced"}, epochs=2), []
    train(first_net, stage, training_data, gpu_fabric, results=results)
    assert len(results) == 2
    assert np.isfinite(results[-1].loss)
