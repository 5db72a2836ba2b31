"""One process or several: the same loss, the same head, the same mistakes."""

import pickle
import subprocess
import sys
import textwrap
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch.multiprocessing.spawn import ProcessRaisedException

import antpitta as ap
from antpitta.core.errors import UserError
from antpitta.core.stages import LossConfig, Stage
from antpitta.core.types import Targets
from antpitta.files.runs import load_tensors, read_scores
from antpitta.model.network import SedNet
from antpitta.train import checkpoints as keepers
from antpitta.train import training as room
from antpitta.train.batches import (
    SINGLE_PROCESS,
    ProcessRank,
    epoch_batches,
    prepare_batch,
    split_windows,
)
from antpitta.train.checkpoints import ReadOnlyStore, ThrottledStore
from antpitta.train.compute import (
    CompiledModel,
    ComputeConfig,
    Progress,
    build_fabric,
    run_on_devices,
)
from antpitta.train.loop import batch_loss

# ---- the loss of the parts is the loss of the whole


@pytest.fixture(scope="module")
def net(staged_recipe):
    torch.manual_seed(3)
    return SedNet(
        staged_recipe.backbone, staged_recipe.head, 3, bands=32
    ).eval()  # eval: batch norm sees no neighbours


def lesson(training_data):
    rng = np.random.default_rng(0)
    weight = (
        (training_data.labels.weight == 0) & (rng.random(training_data.labels.weight.shape) < 0.3)
    ) * 1.0
    return Targets(rng.random(weight.shape).astype(np.float32), weight.astype(np.float32))


def gradients(net, batch, training_data, stage, place):
    twin = deepcopy(net)
    rng, device = np.random.default_rng(7), torch.device("cpu")
    loss = batch_loss(
        twin, prepare_batch(batch, training_data, stage, rng, device, place=place), stage, None
    )
    loss.backward()
    return loss.detach(), [p.grad for p in twin.parameters() if p.grad is not None]


LOSSES = [
    LossConfig(),
    LossConfig(reduction="sum"),
    LossConfig(reduction="balanced", focal_gamma=1.0),
    LossConfig(reduction="mean", unlabelled_target=0.1),
    LossConfig(reduction="mean", unknown="absent"),
    LossConfig(on="boxes", reduction="balanced"),
]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_mean_gradient_of_all_parts_is_that_of_the_whole_batch(staged_data, net, loss, world):
    stage = Stage(name="one", batch_size=6, loss=loss)
    recordings = np.arange(6)
    rng = np.random.default_rng(1)
    (batch,) = epoch_batches(stage, staged_data, recordings, lesson(staged_data), rng)
    whole, wanted = gradients(net, batch, staged_data, stage, SINGLE_PROCESS)
    parts = [
        gradients(net, batch, staged_data, stage, ProcessRank(rank, world)) for rank in range(world)
    ]
    assert sum(part[0] for part in parts) / world == pytest.approx(float(whole), rel=1e-5)
    assert not torch.allclose(parts[0][0], whole, rtol=1e-3)  # else the test says nothing
    for one, several in zip(wanted, zip(*(part[1] for part in parts), strict=True), strict=True):
        torch.testing.assert_close(sum(several) / world, one, rtol=1e-3, atol=1e-5)


def test_parts_share_out_every_window_once_and_leave_a_small_batch_whole():
    for size in range(1, 30):
        for world in (1, 2, 3, 8):
            parts = split_windows(size, ProcessRank(0, world))
            assert np.concatenate([np.arange(size)[p] for p in parts]).tolist() == list(range(size))
            assert len(parts) == (world if size >= 2 * world else 1)
            assert len(parts) == 1 or min(p.stop - p.start for p in parts) >= 2


def test_a_batch_too_small_to_share_counts_once(staged_data, net):
    stage = Stage(name="one", sample="known", batch_size=2)
    batch = epoch_batches(stage, staged_data, np.arange(6), None, np.random.default_rng(1))[0]
    whole = gradients(net, batch, staged_data, stage, SINGLE_PROCESS)
    for rank in range(2):
        found = gradients(net, batch, staged_data, stage, ProcessRank(rank, 2))
        assert found[0] == whole[0]


def test_all_parts_show_the_same_masks_and_mix_within_themselves(staged_data):
    stage = Stage(name="one", batch_size=6, mixup=0.3, manifold_mixup=0.3)
    (batch,) = epoch_batches(stage, staged_data, np.arange(6), None, np.random.default_rng(1))
    off = stage.model_copy(update={"mixup": 0.0, "manifold_mixup": 0.0})
    device = torch.device("cpu")
    parts = [
        prepare_batch(
            batch, staged_data, stage, np.random.default_rng(5), device, None, ProcessRank(r, 2)
        )
        for r in (0, 1)
    ]
    whole = prepare_batch(batch, staged_data, off, np.random.default_rng(5), device)
    assert torch.equal(torch.cat([part.pixels for part in parts]), whole.pixels)
    assert (whole.pixels == 0).any()
    for part in parts:
        for mix in (part.mixup, part.manifold_mixup):
            assert sorted(mix.partner.tolist()) == list(range(len(part.pixels)))
        assert part.loss_scale == 2
    for one, two in zip(parts[0].global_targets, parts[1].global_targets, strict=True):
        assert (one is None and two is None) or torch.equal(one.weight, two.weight)


# ---- two real processes

CASES = ("head", "whole", "other")  # a frozen backbone; a fine-tuned one; with another seed
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from antpitta.core.types import Annotation, Classes, Dataset, Recording
from antpitta.files.recipes import read_recipe
from antpitta.files.runs import RunFolder
from antpitta.train.compute import ComputeConfig, Progress, build_fabric, run_on_devices
from antpitta.train.out_of_fold import assign_folds
from antpitta.train.training import train_on_features

FROZEN = ("backbone.frozen=true", "head.frequency_pooling=none", "stages.crops.mixup=0",
          "stages.pseudo.manifold_mixup=0", "stages.masked.loss.on=boxes", "stages.masked.lr=0.01")
FINE = ("backbone.name=test_resnet", "stages.crops.epochs=6", "stages.crops.mixup=0",
        "stages.pseudo.manifold_mixup=0")

def work(fabric, progress, recipe, out):
    recordings = tuple(Recording(f"r{i}", Path(f"r{i}"), 16000, 64000) for i in range(12))
    boxes = tuple(Annotation(f"r{i}", 0.5 + i % 3, 1.2 + i % 3, "abc"[(i + k) % 3], k == 0)
                  for i in range(12) for k in (0, 1))
    data = Dataset(recordings, boxes, Classes(("a", "b", "c")))
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 90, (201, 32), dtype=np.uint8) for _ in recordings]
    for said in boxes:
        if said.present:  # a band of its own for each species
            low, first = 8 + 8 * "abc".index(said.label), int(said.start * 50)
            drawn[int(said.recording[1:])][first : first + 35, low : low + 6] += 150
    for name, changes in (("head", FROZEN), ("whole", FINE), ("other", (*FINE, "seed=2"))):
        chosen = read_recipe(recipe, changes)
        folder = RunFolder(Path(out) / name)
        folds = assign_folds(data, 2, 1)
        train_on_features(fabric, progress, (data, chosen, folds, []), folder, drawn, ComputeConfig())
    progress.message("done")

if __name__ == "__main__":
    recipe, out, devices = sys.argv[1:]
    engine = ComputeConfig("cpu", int(devices))
    said = Progress(print, lambda *progress: None)
    run_on_devices(engine, build_fabric(engine), said, work, recipe, out)
"""


@pytest.fixture(scope="module")
def twice(tmp_path_factory, recipe):
    """The same two runs by one process and by two."""
    home = tmp_path_factory.mktemp("devices")
    script = home / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    found = {}
    for devices in (1, 2):
        command = [sys.executable, str(script), str(recipe), str(home / str(devices)), str(devices)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("done") == 1
        found[devices] = home / str(devices)
    return found


def scores(home, case, stage):
    return read_scores(home / case / "stages" / stage / "oof_scores.parquet")


@pytest.mark.parametrize("stage", ["crops", "masked", "pseudo", "pseudo-c2"])
def test_two_processes_train_the_head_of_a_frozen_backbone_as_one_does(twice, stage):
    path = Path("head") / "stages" / stage / "fold0.safetensors"
    one, two = (load_tensors(twice[devices] / path)[0] for devices in (1, 2))
    assert float(one["head.class_conv.weight"].abs().max()) > 1e-3
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
    for a, b in zip(*(scores(twice[n], "head", stage) for n in (1, 2)), strict=True):
        assert (a.recording, a.source.rpartition("/")[2]) == (
            b.recording,
            b.source.rpartition("/")[2],
        )
        np.testing.assert_allclose(b.value, a.value, atol=1e-5)


@pytest.mark.parametrize("stage", ["crops", "masked", "pseudo-c2"])
def test_two_processes_fine_tune_to_the_same_scores_within_noise(twice, stage):
    one, two, other = (
        np.concatenate([s.value for s in scores(twice[n], case, stage)])
        for n, case in ((1, "whole"), (2, "whole"), (1, "other"))
    )
    apart = np.abs(one - two).mean()
    assert apart > 0  # batch norm has other neighbours, so equal it is not
    assert apart < 0.3 * np.abs(one - other).mean()  # the noise of a seed
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.95


def test_only_one_process_writes(twice):
    files = {
        n: sorted(
            str(p.relative_to(twice[n])) for p in twice[n].rglob("*") if "events" not in str(p)
        )
        for n in (1, 2)
    }
    assert files[1] == files[2]
    for case in CASES:
        one, two = ((twice[n] / case / "log.csv").read_text().splitlines() for n in (1, 2))
        assert len(one) == len(two)
        assert [row.split(",")[:4] for row in one] == [row.split(",")[:4] for row in two]


# ---- mistakes, and what a process passes on

SILENT = Progress(lambda text: None, lambda *progress: None)


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        (ComputeConfig(precision="8-bit"), "take one of auto, 32-true, bf16-mixed"),
        (ComputeConfig(devices=0), "at least one"),
        (ComputeConfig(device="cuda", devices=99), "GPU"),
        (ComputeConfig(device="abacus"), "take cpu, cuda or auto"),
        (ComputeConfig(devices=2, compile=True), "one device"),
    ],
)
def test_an_engine_that_is_not_there_is_a_mistake(engine, says):
    with pytest.raises(UserError, match=says):
        build_fabric(engine)


def test_a_cpu_computes_in_single_precision_unless_asked(monkeypatch):
    fabric = build_fabric(ComputeConfig(device="cpu"))
    assert fabric.strategy.precision.precision == "32-true"
    fabric = build_fabric(ComputeConfig(device="cpu", precision="bfloat16"))
    assert fabric.strategy.precision.precision == "bf16-mixed"


class Elsewhere(Fabric):
    """Launches in this very process, and dies as a process does."""

    def launch(self, function):
        try:
            return function(self)
        except Exception as error:
            raise ProcessRaisedException(repr(error), 0, 0) from None


def test_what_a_process_says_is_heard_and_its_mistake_comes_out_as_such():
    labels = []
    progress = Progress(labels.append, lambda what, done, total, loss: labels.append((what, done)))

    def work(fabric, progress, fail):
        progress.say("begun")
        progress.tick("one", 1, 2, 0.5)
        if fail:
            raise UserError("E_TODO", "a table is missing", "give it")
        return 5

    engine = ComputeConfig(device="cpu", devices=2)
    fabric = Elsewhere(accelerator="cpu", devices=1)
    assert run_on_devices(engine, fabric, progress, work, False) == 5
    assert labels == ["begun", ("one", 1)]
    with pytest.raises(UserError, match="a table is missing; give it"):
        run_on_devices(engine, fabric, progress, work, True)

    def breaks(fabric, progress):
        raise RuntimeError("a bug")

    with pytest.raises(ProcessRaisedException, match="a bug"):
        run_on_devices(engine, fabric, SILENT, breaks)


class Posted(Elsewhere):
    """Sends what is given through a pickle, as to another process."""

    def launch(self, function):
        given = pickle.loads(pickle.dumps(function.keywords["given"]))
        return super().launch(partial(function.func, **{**function.keywords, "given": given}))


def test_the_command_posts_its_work_and_finds_the_pictures_in_the_cache(
    simulated, recipe, tmp_path, monkeypatch, run
):
    monkeypatch.setattr(room, "build_fabric", lambda engine: Posted(accelerator="cpu", devices=1))
    found = ap.train(
        ap.open_data(simulated), str(recipe), tmp_path / "posted", device="cpu", devices=2
    )
    for one, two in zip(
        *(read_scores(each.path / "oof_scores.parquet") for each in (found, run)), strict=True
    ):
        np.testing.assert_array_equal(one.value, two.value)


def test_checkpoints_are_kept_now_and_then_and_by_one_process_only(monkeypatch):
    kept = []

    class Keeper:
        def load(self):
            return kept[-1] if kept else None

        def save(self, epoch, state):
            kept.append((epoch, state))

    now = [100.0]
    monkeypatch.setattr(keepers.time, "monotonic", lambda: now[0])
    patient = ThrottledStore(Keeper(), now[0])
    for epoch in range(1, 8):
        now[0] += 6.0  # patience is 20
        patient.save(epoch, {})
    assert [epoch for epoch, _ in kept] == [4]
    assert patient.load() == (4, {})
    reader = ReadOnlyStore(patient)
    reader.save(9, {})
    assert reader.load() == (4, {})


def test_a_shell_is_compiled_once_and_takes_the_next_weights(staged_recipe, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compiled.append(self))
    monkeypatch.setattr(torch, "compile", lambda call, **how: call)
    one, two = (SedNet(staged_recipe.backbone, staged_recipe.head, 3, bands=32) for _ in range(2))
    shell = CompiledModel()
    taken = shell.load(one)
    assert taken is one
    assert shell.load(two) is one
    assert len(compiled) == 1
    assert torch.equal(one.head.class_conv.weight, two.head.class_conv.weight)
    assert set(one.state_dict()) == set(two.state_dict())
