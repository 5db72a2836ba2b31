"""Devices, precision, compiled networks, parallel folds and memory."""

import pickle
import resource
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch.multiprocessing.spawn import ProcessRaisedException

import antpitta as ap
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.files.own_files import load_tensors
from antpitta.files.runs import read_scores
from antpitta.model.network import SedNet
from antpitta.train import compute, training
from antpitta.train.compute import (
    CompiledModel,
    ComputeConfig,
    ParallelFolds,
    build_fabric,
    keep_freed_memory,
    run_on_devices,
)
from antpitta.train.stages import run_stages, uses_dropout

# ---- options


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"precision": "8-bit"}, "E_PRECISION"),
        ({"devices": 0}, "E_DEVICES"),
        ({"device": "cuda", "devices": 99}, "E_DEVICE"),
        ({"device": "abacus"}, "E_DEVICE"),
        ({"devices": 2, "compile": True}, "E_ONE_DEVICE"),
        ({"parallel_folds": 0}, "E_PARALLEL_FOLDS"),
        ({"parallel_folds": 2, "devices": 2}, "E_ONE_DEVICE"),
    ],
)
def test_an_option_that_cannot_be_met_is_an_error(options, code):
    if "cuda" in options.values() and torch.cuda.is_available():
        code = "E_DEVICES"
    with pytest.raises(UserError) as error:
        build_fabric(ComputeConfig(**options))
    assert error.value.code == code


@pytest.mark.parametrize("options", [{"parallel_folds": 0}, {"devices": 0}, {"precision": "8"}])
def test_a_wrong_option_leaves_no_run_folder(simulated, tmp_path, options):
    with pytest.raises(UserError):
        ap.train(ap.open_data(simulated), "quick", tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_cpu_computes_in_float32_unless_asked():
    fabric = build_fabric(ComputeConfig(device="cpu"))
    assert fabric.strategy.precision.precision == "32-true"
    fabric = build_fabric(ComputeConfig(device="cpu", precision="bfloat16"))
    assert fabric.strategy.precision.precision == "bf16-mixed"


# ---- two real processes

CASES = ("head", "whole", "seed2")  # a frozen backbone; a trained one; the same with another seed
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from antpitta.core.progress import Progress
from antpitta.core.types import Annotation, Classes, Dataset, Recording
from antpitta.files.recipes import read_recipe
from antpitta.files.runs import RunFolder
from antpitta.train.compute import ComputeConfig, build_fabric, run_on_devices
from antpitta.train.out_of_fold import assign_folds
from antpitta.train.training import train_on_features

FROZEN = ("backbone.frozen=true", "head.frequency_pooling=none", "stages.crops.mixup=0",
          "stages.pseudo.manifold_mixup=0", "stages.masked.loss.on=boxes", "stages.masked.lr=0.01")
WHOLE = ("backbone.name=test_resnet", "stages.crops.epochs=4", "stages.crops.mixup=0",
         "stages.pseudo.manifold_mixup=0")

def work(fabric, progress, recipe, out):
    recordings = tuple(Recording(f"r{i}", Path(f"r{i}"), 16000, 64000) for i in range(12))
    boxes = tuple(Annotation(f"r{i}", 0.5 + i % 3, 1.2 + i % 3, "abc"[(i + k) % 3], k == 0)
                  for i in range(12) for k in (0, 1))
    dataset = Dataset(recordings, boxes, Classes(("a", "b", "c")))
    rng = np.random.default_rng(0)
    features = [rng.integers(0, 90, (201, 32), dtype=np.uint8) for _ in recordings]
    for box in boxes:
        if box.present:  # each species has a band of its own
            low, first = 8 + 8 * "abc".index(box.label), int(box.start * 50)
            features[int(box.recording[1:])][first : first + 35, low : low + 6] += 150
    for name, changes in (("head", FROZEN), ("whole", WHOLE), ("seed2", (*WHOLE, "seed=2"))):
        changed, folder = read_recipe(recipe, changes), RunFolder(Path(out) / name)
        folds = assign_folds(dataset, 2, 1)
        train_on_features(
            fabric, progress, dataset, changed, folds, features, folder, ComputeConfig()
        )
    progress.message("done")

if __name__ == "__main__":
    recipe, out, devices = sys.argv[1:]
    config = ComputeConfig("cpu", int(devices))
    progress = Progress(print, lambda *progress: None)
    run_on_devices(config, build_fabric(config), progress, work, recipe, out)
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, recipe):
    """The folders of the same runs, trained by one process and by two."""
    folder = tmp_path_factory.mktemp("devices")
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    folders = {}
    for devices in (1, 2):
        folders[devices] = folder / str(devices)
        command = [sys.executable, script, recipe, folders[devices], devices]
        process = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert process.returncode == 0, process.stderr
        assert process.stdout.count("done") == 1
    return folders


def read_stage_scores(folder, case, stage):
    return read_scores(folder / case / "stages" / stage / "oof_scores.parquet")


@pytest.mark.parametrize("stage", ["crops", "masked", "pseudo", "pseudo-c2"])
def test_two_processes_train_the_head_of_a_frozen_backbone_like_one(outputs, stage):
    path = Path("head") / "stages" / stage / "fold0.safetensors"
    single, double = (load_tensors(outputs[devices] / path)[0] for devices in (1, 2))
    assert float(single["head.class_conv.weight"].abs().max()) > 1e-3
    for name, value in single.items():
        torch.testing.assert_close(double[name], value, rtol=0, atol=1e-5)
    scores = (read_stage_scores(outputs[devices], "head", stage) for devices in (1, 2))
    for a, b in zip(*scores, strict=True):
        assert a.recording == b.recording
        assert a.source.rpartition("/")[2] == b.source.rpartition("/")[2]
        np.testing.assert_allclose(b.value, a.value, atol=1e-5)


@pytest.mark.parametrize("stage", ["crops", "masked", "pseudo-c2"])
def test_two_processes_train_a_whole_network_to_the_same_scores_within_noise(outputs, stage):
    single, double, other_seed = (
        np.concatenate([s.value for s in read_stage_scores(outputs[devices], case, stage)])
        for devices, case in ((1, "whole"), (2, "whole"), (1, "seed2"))
    )
    difference = np.abs(single - double).mean()
    assert difference > 0  # batch norm sees other windows, so the scores are not equal
    assert difference < 0.4 * np.abs(single - other_seed).mean()  # four windows a process
    assert np.corrcoef(single.ravel(), double.ravel())[0, 1] > 0.95


def test_only_the_main_process_writes(outputs):
    files = {
        n: sorted(
            str(p.relative_to(outputs[n])) for p in outputs[n].rglob("*") if "events" not in str(p)
        )
        for n in (1, 2)
    }
    assert files[1] == files[2]
    for case in CASES:
        single, double = ((outputs[n] / case / "log.csv").read_text().splitlines() for n in (1, 2))
        assert len(single) == len(double)
        assert [row.split(",")[:4] for row in single] == [row.split(",")[:4] for row in double]


# ---- what the main process gets from the others

SILENT = Progress(lambda text: None, lambda *progress: None)


class InProcessFabric(Fabric):
    """Launches in this very process, and fails as another process does."""

    def launch(self, function):
        try:
            return function(self)
        except Exception as error:
            raise ProcessRaisedException(repr(error), 0, 0) from None


def test_progress_and_user_errors_of_other_processes_are_passed_on():
    received = []
    progress = Progress(received.append, lambda name, done, *more: received.append((name, done)))

    def work(fabric, progress, fail):
        progress.message("started")
        progress.update("fold", 1, 2, 0.5)
        if fail:
            raise UserError("E_NO_BOXES", "a table is missing", "add it")
        return 5

    config = ComputeConfig(device="cpu", devices=2)
    fabric = InProcessFabric(accelerator="cpu", devices=1)
    assert run_on_devices(config, fabric, progress, work, False) == 5
    assert received == ["started", ("fold", 1)]
    with pytest.raises(UserError) as error:
        run_on_devices(config, fabric, progress, work, True)
    assert error.value.args == ("E_NO_BOXES", "a table is missing", "add it")


def test_other_errors_of_a_process_are_not_user_errors():
    def work(fabric, progress):
        raise RuntimeError("a bug")

    config = ComputeConfig(device="cpu", devices=2)
    fabric = InProcessFabric(accelerator="cpu", devices=1)
    with pytest.raises(ProcessRaisedException, match="a bug"):
        run_on_devices(config, fabric, SILENT, work)


class PicklingFabric(InProcessFabric):
    """Sends all arguments through a pickle, as to another process."""

    def launch(self, function):
        arguments = pickle.loads(pickle.dumps(function.keywords["arguments"]))
        return super().launch(
            partial(function.func, **{**function.keywords, "arguments": arguments})
        )


def test_other_processes_find_the_features_in_the_cache(
    simulated, recipe, tmp_path, monkeypatch, run
):
    fabric = PicklingFabric(accelerator="cpu", devices=1)
    monkeypatch.setattr(training, "build_fabric", lambda config: fabric)
    result = ap.train(
        ap.open_data(simulated), str(recipe), tmp_path / "two", device="cpu", devices=2
    )
    scores = (read_scores(each.path / "oof_scores.parquet") for each in (result, run))
    for double, single in zip(*scores, strict=True):
        np.testing.assert_array_equal(double.value, single.value)


# ---- compiled networks


def test_a_model_is_compiled_once_and_takes_the_next_weights(staged_recipe, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compiled.append(self))
    monkeypatch.setattr(torch, "compile", lambda call, **how: call)
    first, second = (
        SedNet(staged_recipe.backbone, staged_recipe.head, 3, bands=32) for _ in range(2)
    )
    model = CompiledModel()
    assert model.load(first) is first
    assert model.load(second) is first
    assert len(compiled) == 1
    assert torch.equal(first.head.class_conv.weight, second.head.class_conv.weight)
    assert set(first.state_dict()) == set(second.state_dict())


# ---- parallel folds


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_fold_is_run_once_and_results_keep_their_order(count):
    busy, busy_counts, lock, workers = set(), [], threading.Lock(), set()
    together = threading.Barrier(min(count, 6))  # waits until so many folds run at a time

    def work(fold, worker):
        with lock:
            assert worker not in busy
            busy.add(worker)
            workers.add(worker)
            busy_counts.append(len(busy))
        together.wait(30)
        with lock:
            busy.discard(worker)
        return 10 * fold

    assert ParallelFolds(count).map(work, range(6)) == [0, 10, 20, 30, 40, 50]
    assert max(busy_counts) == min(count, 6)
    assert workers <= set(range(count))


def test_an_error_in_one_fold_stops_the_others_and_is_raised():
    parallel_folds, stopped, started = ParallelFolds(2), [], threading.Event()

    def work(fold, worker):
        if fold == 1:
            started.wait(5)
            raise UserError("E_NO_BOXES", "fold 1")
        started.set()
        while True:
            try:
                parallel_folds.raise_if_stopped()
            except Exception:
                stopped.append(fold)
                raise
            time.sleep(0.001)

    with pytest.raises(UserError) as error:
        parallel_folds.map(work, range(4))
    assert error.value.what == "fold 1"
    assert stopped == [0]  # and the last two never started


def run_in_parallel(run):
    return replace(run, compute=replace(run.compute, parallel_folds=ParallelFolds(2)))


def test_parallel_folds_write_the_same_files(finished_run, make_run, tmp_path):
    expected = finished_run.folder.path
    folder = tmp_path / expected.name
    run = run_in_parallel(make_run(folder))
    run_stages(run)
    paths = sorted(path.relative_to(expected) for path in expected.glob("stages/*/*"))
    assert len(paths) > 8
    assert paths == sorted(path.relative_to(folder) for path in folder.glob("stages/*/*"))
    for path in paths:
        if path.suffix == ".safetensors":
            weights, metadata = load_tensors(folder / path)
            expected_weights, expected_metadata = load_tensors(expected / path)
            assert metadata == expected_metadata
            assert all(torch.equal(value, weights[k]) for k, value in expected_weights.items())
        else:
            assert (folder / path).read_bytes() == (expected / path).read_bytes()
    columns = ["stage", "cycle", "fold", "epoch", "loss", "lr", "windows"]
    logs = [
        each.read_log()[columns].sort_values(columns[:4]).reset_index(drop=True)
        for each in (run.folder, finished_run.folder)
    ]
    assert logs[0].equals(logs[1])


def test_parallel_folds_of_a_network_with_dropout_are_an_error(make_run, tmp_path, staged_recipe):
    net = SedNet(staged_recipe.backbone, staged_recipe.head, 3, bands=32)
    assert not uses_dropout(net)
    net.backbone = torch.nn.Sequential(net.backbone, torch.nn.Dropout(0.3))
    assert uses_dropout(net)
    run = run_in_parallel(make_run(tmp_path / "dropout"))
    run.compute.template.net = net
    with pytest.raises(UserError) as error:
        run_stages(run)
    assert error.value.code == "E_DROPOUT"


# ---- memory

LARGE = 20_000_000  # numbers: 80 MB, far above any threshold that glibc sets by itself
PAGES = LARGE * 4 // resource.getpagesize()
TIMES = 20


def count_page_faults(size=LARGE):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        torch.ones(size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_pages():
    """Pages of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(compute._glibc() is None, reason="the C library is not glibc")
def test_freed_memory_is_used_again_and_given_back_at_the_end():
    with keep_freed_memory():
        assert count_page_faults() < TIMES / 3 * PAGES
        kept = resident_pages()
    assert resident_pages() < kept - 0.9 * PAGES
    # Too large for any gap that was left in the heap: every page is new, every time.
    assert count_page_faults(6 * LARGE) > (TIMES - 1) * 6 * PAGES


def test_on_another_c_library_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(compute, "_glibc", lambda: None)
    with keep_freed_memory():
        assert torch.ones(3).sum() == 3
