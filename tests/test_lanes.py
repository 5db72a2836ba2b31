"""Folds side by side: the same files as one after another, and one mistake ends all."""

import threading
import time

import pytest
import torch

import antpitta as ap
from antpitta.core.errors import UserError
from antpitta.files.runs import load_tensors
from antpitta.model.network import SedNet
from antpitta.train.compute import ComputeConfig, ParallelFolds, build_fabric
from antpitta.train.stages import run_stages, uses_dropout


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_job_is_done_once_and_told_in_order(count):
    busy, most, lock, lanes_seen = set(), [], threading.Lock(), set()
    together = threading.Barrier(min(count, 6))  # so many are at work at once, or none goes on

    def work(job, lane):
        with lock:
            assert lane not in busy
            busy.add(lane)
            lanes_seen.add(lane)
            most.append(len(busy))
        together.wait(30)
        with lock:
            busy.discard(lane)
        return 10 * job

    assert ParallelFolds(count).map(range(6), work) == [0, 10, 20, 30, 40, 50]
    assert max(most) == min(count, 6)
    assert lanes_seen <= set(range(count))


def test_a_mistake_in_one_lane_ends_the_others_and_is_the_one_that_is_told():
    parallel_folds, ended, begun = ParallelFolds(2), [], threading.Event()

    def work(job, lane):
        if job == 1:
            begun.wait(5)
            raise UserError("E_TODO", "this one")
        begun.set()
        while True:
            try:
                parallel_folds.raise_if_stopped()
            except Exception:
                ended.append(job)
                raise
            time.sleep(0.001)

    with pytest.raises(UserError, match="this one"):
        parallel_folds.map(range(4), work)
    assert ended == [0]  # and the last two never began


def test_folds_in_two_lanes_leave_the_same_files(finished_run, make_run, tmp_path):
    wanted, home = finished_run.folder.path, tmp_path / finished_run.folder.path.name
    run = with_parallel_folds(make_run(home))
    run_stages(run)
    kept = sorted(path.relative_to(wanted) for path in wanted.glob("stages/*/*"))
    assert len(kept) > 8
    assert kept == sorted(path.relative_to(home) for path in home.glob("stages/*/*"))
    for path in kept:
        if path.suffix == ".safetensors":
            (two, its), (one, note) = (load_tensors(folder / path) for folder in (home, wanted))
            assert its == note
            assert all(torch.equal(value, two[key]) for key, value in one.items())
        else:
            assert (home / path).read_bytes() == (wanted / path).read_bytes()
    shown = ["stage", "cycle", "fold", "epoch", "loss", "rate", "windows"]
    logs = [
        folder.read_log()[shown].sort_values(shown[:4])
        for folder in (run.folder, finished_run.folder)
    ]
    assert logs[0].reset_index(drop=True).equals(logs[1].reset_index(drop=True))


def test_a_network_that_drops_units_is_refused(make_run, tmp_path, staged_recipe):
    net = SedNet(staged_recipe.backbone, staged_recipe.head, 3, bands=32)
    assert not uses_dropout(net)
    net.backbone = torch.nn.Sequential(net.backbone, torch.nn.Dropout(0.3))
    assert uses_dropout(net)
    run = with_parallel_folds(make_run(tmp_path / "drops"))
    run.compute.template.net = net
    with pytest.raises(UserError, match=r"drops units at random.*leave --parallel-folds out"):
        run_stages(run)


def test_lanes_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="lanes 0"):
        build_fabric(ComputeConfig(parallel_folds=0))
    with pytest.raises(UserError, match="several lanes go with one device"):
        build_fabric(ComputeConfig(parallel_folds=2, devices=2))


@pytest.mark.parametrize("wrong", [{"parallel_folds": 0}, {"devices": 0}, {"precision": "8"}])
def test_a_wrong_way_to_compute_leaves_the_folder_free(simulated, tmp_path, wrong):
    with pytest.raises(UserError):
        ap.train(ap.open_data(simulated), "quick", tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()
