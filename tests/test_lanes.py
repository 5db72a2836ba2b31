"""Folds side by side: the same files as one after another, and one mistake ends all."""

import threading
import time
from dataclasses import replace

import pytest
import torch

from antpitta.core.errors import UserMistake
from antpitta.files.runs import load_tensors
from antpitta.learn.engine import Engine, build_fabric
from antpitta.learn.lanes import Lanes
from antpitta.learn.stages import draws, run_stages
from antpitta.net.sed import SedNet


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_job_is_done_once_and_told_in_order(count):
    busy, most, lock, lanes_seen = set(), [], threading.Lock(), set()

    def work(job, lane):
        with lock:
            assert lane not in busy
            busy.add(lane)
            lanes_seen.add(lane)
            most.append(len(busy))
        time.sleep(0.01)
        with lock:
            busy.discard(lane)
        return 10 * job

    assert Lanes(count).each(range(6), work) == [0, 10, 20, 30, 40, 50]
    assert max(most) == min(count, 6)
    assert lanes_seen <= set(range(count))


def test_a_mistake_in_one_lane_ends_the_others_and_is_the_one_that_is_told():
    lanes, ended, begun = Lanes(2), [], threading.Event()

    def work(job, lane):
        if job == 1:
            begun.wait(5)
            raise UserMistake("this one")
        begun.set()
        while True:
            try:
                lanes.check()
            except Exception:
                ended.append(job)
                raise
            time.sleep(0.001)

    with pytest.raises(UserMistake, match="this one"):
        lanes.each(range(4), work)
    assert ended == [0]  # and the last two never began


def test_folds_in_two_lanes_leave_the_same_files(done, plan_run, tmp_path):
    run = replace(plan_run(tmp_path / "two"), lanes=Lanes(2))
    run_stages(run)
    kept = sorted(p.relative_to(done.folder.path) for p in done.folder.path.glob("stages/*/*"))
    assert len(kept) > 8
    assert kept == sorted(p.relative_to(tmp_path / "two") for p in tmp_path.glob("two/stages/*/*"))
    for path in kept:
        if path.suffix == ".safetensors":
            two, one = (load_tensors(home / path) for home in (tmp_path / "two", done.folder.path))
            assert two[1] == one[1]
            assert all(torch.equal(value, two[0][key]) for key, value in one[0].items())
        elif path.suffix == ".csv":
            assert (tmp_path / "two" / path).read_bytes() == (done.folder.path / path).read_bytes()
    log, wanted = (folder.read_log() for folder in (run.folder, done.folder))
    key = ["stage", "cycle", "fold", "epoch"]
    shown = [*key, "loss", "rate", "windows"]
    log, wanted = (one.sort_values(key)[shown].reset_index(drop=True) for one in (log, wanted))
    assert log.equals(wanted)


def test_a_network_that_drops_units_is_refused(plan_run, tmp_path, staged_recipe):
    net = SedNet(staged_recipe.network, 3, bands=32)
    assert not draws(net)
    net.body = torch.nn.Sequential(net.body, torch.nn.Dropout(0.3))
    assert draws(net)
    run = replace(plan_run(tmp_path / "drops"), lanes=Lanes(2))
    run.mould.net = net
    with pytest.raises(UserMistake, match=r"drops units at random.*leave --lanes out"):
        run_stages(run)


def test_lanes_that_cannot_be_are_refused():
    with pytest.raises(UserMistake, match="lanes 0"):
        build_fabric(Engine(lanes=0))
    with pytest.raises(UserMistake, match="several lanes go with one device"):
        build_fabric(Engine(lanes=2, devices=2))
