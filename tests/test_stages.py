"""A whole tiny run, killed and resumed, with nobody ever scoring what it learned from."""

import shutil
from dataclasses import replace
from itertools import count

import numpy as np
import pandas as pd
import pytest

from antpitta.core.progress import Progress
from antpitta.files.runs import RunFolder, load_tensors, read_scores
from antpitta.train import checkpoints as keepers
from antpitta.train import stages as room
from antpitta.train.out_of_fold import score_recordings
from antpitta.train.stages import load_net, run_stages, weights_path

DURATIONS = [2.0, 2.0, 5.0, 2.0, 0.7, 2.0]  # as in conftest
PLACES = ("crops", "masked", "pseudo", "pseudo-c2")


class Killed(BaseException):
    """As by a signal: nothing in between catches it."""


def files_of(run):
    root = run.folder.path
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def weights_of(run):
    return {
        (place, fold): load_tensors(run.folder.path / "stages" / place / f"fold{fold}.safetensors")[
            0
        ]
        for place in PLACES
        for fold in (0, 1)
    }


def assert_equal(run, other):
    one, two = weights_of(run), weights_of(other)
    for place, state in one.items():
        for name, value in state.items():
            assert value.equal(two[place][name]), f"{place}: {name}"
    for place in PLACES:
        tables = [
            pd.read_parquet(each.folder.path / "stages" / place / "oof_scores.parquet").drop(
                columns="source"
            )
            for each in (run, other)
        ]
        pd.testing.assert_frame_equal(*tables)


def test_a_run_leaves_these_files_and_no_pickle(finished_run):
    wanted = ["log.csv"]
    for place in PLACES:
        wanted += [f"stages/{place}/fold{k}.safetensors" for k in (0, 1)]
        wanted += [f"stages/{place}/oof_scores.parquet"]
    wanted += [f"stages/{place}/pseudo.csv" for place in ("pseudo", "pseudo-c2")]
    assert files_of(finished_run) == sorted(wanted)
    for name in files_of(finished_run):
        first = (finished_run.folder.path / name).read_bytes()[:4]
        assert not first.startswith((b"\x80", b"PK")), f"{name} looks like a pickle"


def test_every_row_was_scored_by_the_fold_that_held_its_recording_out(finished_run):
    fold = {f"r{i}": int(k) for i, k in enumerate(finished_run.plan.folds)}
    for place in PLACES:
        table = pd.read_parquet(finished_run.folder.path / "stages" / place / "oof_scores.parquet")
        assert list(table["recording"].drop_duplicates()) == [f"r{i}" for i in range(6)]
        for recording, rows in table.groupby("recording"):
            assert set(rows["source"]) == {f"first/{place}/fold{fold[recording]}"}


def test_out_of_fold_scores_are_those_of_the_saved_weights(finished_run):
    path = finished_run.folder.path / "stages" / "pseudo-c2" / "oof_scores.parquet"
    kept = {one.recording: one for one in read_scores(path)}
    for fold in (0, 1):
        given = load_net(finished_run, "pseudo", 2, fold), finished_run.plan.training_data, finished_run.plan.recipe.windows
        held_out = np.flatnonzero(finished_run.plan.folds == fold)
        for one in score_recordings(*given, held_out, "again", finished_run.compute.fabric):
            np.testing.assert_array_equal(one.value, kept[one.recording].value)
            seconds = DURATIONS[int(one.recording[1:])]
            assert one.grid.end >= seconds
            assert one.grid.seconds(one.grid.frames - 1) < seconds


def test_the_held_out_recordings_leave_no_trace_in_the_weights(finished_run, tmp_path, staged_recipe):
    """Other pixels and other boxes in one fold: the models that hold it out must not change."""
    training_data = finished_run.plan.training_data
    outside = np.flatnonzero(finished_run.plan.folds == 0)
    pixels = training_data.features.pixels.clone()
    for image in training_data.segments_of(outside):
        start = int(training_data.features.offsets[image])
        pixels[start : start + int(training_data.features.lengths[image])] = 77
    features = replace(training_data.features, pixels=pixels)
    value = training_data.labels.value.copy()
    value[training_data.windows_of(outside)] = 1
    labels = replace(training_data.labels, value=value)
    changed = replace(training_data, features=features, labels=labels)
    first_two = staged_recipe.model_copy(update={"stages": staged_recipe.stages[:2]})
    run = replace(
        finished_run, recipe=first_two, training_data=changed, folder=RunFolder(tmp_path / "other")
    )
    run_stages(run)
    for stage in ("crops", "masked"):
        same = [
            all(
                value.equal(load_tensors(weights_path(run, stage, 1, fold))[0][name])
                for name, value in load_tensors(weights_path(finished_run, stage, 1, fold))[0].items()
            )
            for fold in (0, 1)
        ]
        assert same == [True, False]


def test_each_stage_starts_from_the_weights_it_names(finished_run):
    for place in PLACES:
        for fold in (0, 1):
            path = finished_run.folder.path / "stages" / place / f"fold{fold}.safetensors"
            note = load_tensors(path)[1]
            assert note["stage"] == place.removesuffix("-c2")
            assert note["from"] == ("random" if place == "crops" else "stage crops")


def test_stages_without_an_epoch_keep_the_weights_of_their_start(finished_run, tmp_path, monkeypatch):
    """What a fold's model starts from is the same fold's model of the start stage."""
    started = {}

    def fit(net, task, *given):
        started[task.seed[1:]] = {k: v.clone() for k, v in net.state_dict().items()}

    monkeypatch.setattr(room, "fit", fit)
    for place in ("masked", "pseudo", "pseudo-c2"):
        (tmp_path / "run" / "stages" / place).mkdir(parents=True)
    for place in ("crops", "masked"):
        shutil.copytree(
            finished_run.folder.path / "stages" / place,
            tmp_path / "run" / "stages" / place,
            dirs_exist_ok=True,
        )
    run_stages(replace(finished_run, folder=RunFolder(tmp_path / "run")))
    assert sorted(started) == [(2, c, k) for c in (1, 2) for k in (0, 1)]
    for (_, _, fold), state in started.items():
        wanted = load_tensors(weights_path(finished_run, "crops", 1, fold))[0]
        assert all(value.equal(wanted[name]) for name, value in state.items())


def test_every_epoch_is_logged_once(finished_run):
    log = finished_run.folder.read_log()
    keys = [tuple(row) for row in log[["stage", "cycle", "fold", "epoch"]].to_numpy()]
    assert len(set(keys)) == len(keys) == 2 * (2 + 2 + 1 + 1)
    assert np.isfinite(log["loss"]).all()


def test_two_runs_with_one_seed_end_with_equal_weights_and_scores(finished_run, tmp_path, make_run):
    run = make_run(tmp_path / "second")
    run_stages(run)
    assert_equal(run, finished_run)


def test_the_clock_is_told_what_each_part_of_a_stage_took(tmp_path, make_run, finished_run):
    told = {}
    shutil.copytree(finished_run.folder.path, tmp_path / "first")
    run = make_run(tmp_path / "first")
    run_stages(replace(run, clock=lambda *spent: told.update({spent[:3]: spent[3]})))
    places = [("crops", 1), ("masked", 1), ("pseudo", 1), ("pseudo", 2)]
    assert set(told) == {(*place, what) for place in places for what in ("teach", "train", "score")}
    assert all(seconds >= 0 for seconds in told.values())


def test_what_is_finished_is_not_done_again(finished_run, monkeypatch):
    before = {
        name: (finished_run.folder.path / name).stat().st_mtime_ns
        for name in files_of(finished_run)
        if not name.endswith("pseudo.csv")
    }
    monkeypatch.setattr(room, "fit", None)
    run_stages(finished_run)
    after = {name: (finished_run.folder.path / name).stat().st_mtime_ns for name in before}
    assert before == after


def test_a_run_whose_last_files_are_gone_ends_the_same(finished_run, tmp_path, make_run):
    shutil.copytree(finished_run.folder.path, tmp_path / "first")
    for name in ("pseudo-c2/fold1.safetensors", "pseudo-c2/oof_scores.parquet"):
        (tmp_path / "first" / "stages" / name).unlink()
    run = make_run(tmp_path / "first")
    run_stages(run)
    assert_equal(run, finished_run)
    assert files_of(run) == files_of(finished_run)


@pytest.mark.parametrize("last", [1, 2, 3, 6, 9, 11])
def test_a_run_killed_after_any_epoch_ends_the_same(finished_run, tmp_path, make_run, last, monkeypatch):
    monkeypatch.setattr(keepers, "PATIENCE", 0.0)  # tiny epochs are not worth a checkpoint else
    ticks = count(1)

    def tick(what, epoch, epochs, loss):
        if next(ticks) == last:
            raise Killed

    progress = Progress(lambda text: None, tick)
    with pytest.raises(Killed):
        run_stages(make_run(tmp_path / "first", progress))
    run = make_run(tmp_path / "first")
    run_stages(run)
    assert_equal(run, finished_run)
    assert files_of(run) == files_of(finished_run)
    assert len(run.folder.read_log()) == 12


@pytest.mark.parametrize("call", ["save_tensors", "write_scores", "write_csv"])
def test_a_run_killed_while_it_writes_ends_the_same(finished_run, tmp_path, make_run, monkeypatch, call):
    calls, write = count(1), getattr(room, call)

    def killed(*given):
        if next(calls) == 2:
            raise Killed
        return write(*given)

    monkeypatch.setattr(room, call, killed)
    with pytest.raises(Killed):
        run_stages(make_run(tmp_path / "first"))
    monkeypatch.undo()
    run = make_run(tmp_path / "first")
    run_stages(run)
    assert_equal(run, finished_run)


def test_a_log_loses_no_epoch_to_a_kill_between_two_writes(tmp_path, make_run, monkeypatch):
    calls, log = count(1), RunFolder.log

    def killed(self, rows):
        if next(calls) == 2:
            raise Killed
        log(self, rows)

    monkeypatch.setattr(RunFolder, "log", killed)
    with pytest.raises(Killed):
        run_stages(make_run(tmp_path / "first"))
    monkeypatch.undo()
    run = make_run(tmp_path / "first")
    run_stages(run)
    assert len(run.folder.read_log()) == 12
