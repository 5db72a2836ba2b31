"""A whole small run: what it writes, killed and resumed, and scores that are out of fold."""

import shutil
from dataclasses import replace
from itertools import count

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from antpitta.api import run_report
from antpitta.core.config import parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.files.own_files import load_tensors
from antpitta.files.runs import (
    RunFolder,
    read_scores,
    read_windows,
    write_scores,
    write_windows,
)
from antpitta.files.texts import write_json
from antpitta.train import checkpoints, stages
from antpitta.train.out_of_fold import held_out_lwlrap, match_folds, score_recordings
from antpitta.train.stages import RunMonitor, load_net, run_stages, weights_path

DURATIONS = [2.0, 2.0, 5.0, 2.0, 0.7, 2.0]  # as in conftest
STAGES = ("crops", "masked", "pseudo", "pseudo-c2")
WINDOWS = "oof_windows.parquet"


SILENT = Progress(lambda text: None, lambda *progress: None)


class Killed(BaseException):
    """Like a signal: nothing in between catches it."""


def files_of(run):
    root = run.folder.path
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def weights_of(run):
    return {
        (place, fold): load_tensors(run.folder.path / "stages" / place / f"fold{fold}.safetensors")[
            0
        ]
        for place in STAGES
        for fold in (0, 1)
    }


def assert_equal(run, other):
    weights, other_weights = weights_of(run), weights_of(other)
    for place, state in weights.items():
        for name, value in state.items():
            assert value.equal(other_weights[place][name]), f"{place}: {name}"
    for place in STAGES:
        tables = [
            pd.read_parquet(each.folder.path / "stages" / place / "oof_scores.parquet").drop(
                columns="source"
            )
            for each in (run, other)
        ]
        pd.testing.assert_frame_equal(*tables)


def test_a_run_writes_these_files_and_no_pickle(finished_run):
    expected = [".antpitta.json", "log.csv"]
    for place in STAGES:
        expected += [f"stages/{place}/fold{k}.safetensors" for k in (0, 1)]
        expected += [f"stages/{place}/oof_{what}.parquet" for what in ("scores", "windows")]
    expected += [f"stages/{place}/pseudo.csv" for place in ("pseudo", "pseudo-c2")]
    assert files_of(finished_run) == sorted(expected)
    for name in files_of(finished_run):
        first = (finished_run.folder.path / name).read_bytes()[:4]
        assert not first.startswith((b"\x80", b"PK")), f"{name} looks like a pickle"


def test_every_recording_is_scored_by_the_fold_that_held_it_out(finished_run):
    fold = {f"r{i}": int(k) for i, k in enumerate(finished_run.plan.folds)}
    for place in STAGES:
        table = pd.read_parquet(finished_run.folder.path / "stages" / place / "oof_scores.parquet")
        assert list(table["recording"].drop_duplicates()) == [f"r{i}" for i in range(6)]
        for recording, rows in table.groupby("recording"):
            assert set(rows["source"]) == {f"first/{place}/fold{fold[recording]}"}


def test_out_of_fold_scores_are_those_of_the_saved_weights(finished_run):
    path = finished_run.folder.path / "stages" / "pseudo-c2" / "oof_scores.parquet"
    stored = {scores.recording: scores for scores in read_scores(path)}
    for fold in (0, 1):
        arguments = (
            load_net(finished_run, "pseudo", 2, fold),
            finished_run.plan.training_data,
            finished_run.plan.recipe.windows,
        )
        held_out = np.flatnonzero(finished_run.plan.folds == fold)
        for scores in score_recordings(*arguments, held_out, "again", finished_run.compute.fabric):
            np.testing.assert_array_equal(scores.value, stored[scores.recording].value)
            seconds = DURATIONS[int(scores.recording[1:])]
            assert scores.grid.end >= seconds
            assert scores.grid.seconds(scores.grid.frames - 1) < seconds


def test_held_out_recordings_do_not_change_the_weights(finished_run, tmp_path, staged_recipe):
    """With other features and boxes in one fold, the models that hold it out do not change."""
    training_data = finished_run.plan.training_data
    outside = np.flatnonzero(finished_run.plan.folds == 0)
    pixels = training_data.features.pixels.clone()
    for segment in training_data.segments_of(outside):
        start = int(training_data.features.offsets[segment])
        pixels[start : start + int(training_data.features.lengths[segment])] = 77
    features = replace(training_data.features, pixels=pixels)
    value = training_data.labels.value.copy()
    value[training_data.windows_of(outside)] = 1
    labels = replace(training_data.labels, value=value)
    changed = replace(training_data, features=features, labels=labels)
    first_two = staged_recipe.model_copy(update={"stages": staged_recipe.stages[:2]})
    plan = replace(finished_run.plan, recipe=first_two, training_data=changed)
    run = replace(finished_run, plan=plan, folder=RunFolder(tmp_path / "other"))
    run_stages(run)
    for stage in ("crops", "masked"):
        same = [
            all(
                value.equal(load_tensors(weights_path(run, stage, 1, fold))[0][name])
                for name, value in load_tensors(weights_path(finished_run, stage, 1, fold))[
                    0
                ].items()
            )
            for fold in (0, 1)
        ]
        assert same == [True, False]


def test_each_stage_starts_from_the_stage_of_init_from(finished_run):
    for place in STAGES:
        for fold in (0, 1):
            path = finished_run.folder.path / "stages" / place / f"fold{fold}.safetensors"
            note = load_tensors(path)[1]
            assert note["stage"] == place.removesuffix("-c2")
            assert note["from"] == ("random" if place == "crops" else "stage crops")


def test_a_fold_starts_from_the_same_fold_of_its_initial_stage(finished_run, tmp_path, monkeypatch):
    started = {}

    def fit(net, task, *arguments):
        started[task.seed[1:]] = {k: v.clone() for k, v in net.state_dict().items()}

    monkeypatch.setattr(stages, "fit", fit)
    for place in ("masked", "pseudo", "pseudo-c2"):
        (tmp_path / "run" / "stages" / place).mkdir(parents=True)
    for place in ("crops", "masked"):
        shutil.copytree(
            finished_run.folder.path / "stages" / place,
            tmp_path / "run" / "stages" / place,
            dirs_exist_ok=True,
        )
    run_stages(replace(finished_run, folder=RunFolder(tmp_path / "run")))
    assert sorted(started) == [(3, c, k) for c in (1, 2) for k in (0, 1)]
    for (_, _, fold), state in started.items():
        expected = load_tensors(weights_path(finished_run, "crops", 1, fold))[0]
        assert all(value.equal(expected[name]) for name, value in state.items())


def test_every_epoch_is_logged_once(finished_run):
    log = finished_run.folder.read_log()
    keys = [tuple(row) for row in log[["stage", "cycle", "fold", "epoch"]].to_numpy()]
    assert len(set(keys)) == len(keys) == 2 * (2 + 2 + 1 + 1)
    assert np.isfinite(log["loss"]).all()


def test_two_runs_with_one_seed_end_with_equal_weights_and_scores(finished_run, tmp_path, make_run):
    run = make_run(tmp_path / "second")
    run_stages(run)
    assert_equal(run, finished_run)


def test_the_seconds_of_each_part_of_a_stage_are_logged(tmp_path, make_run, finished_run):
    seconds = {}

    def log_seconds(stage, cycle, part, duration):
        seconds[stage, cycle, part] = duration

    shutil.copytree(finished_run.folder.path, tmp_path / "first")
    run = make_run(tmp_path / "first")
    run_stages(replace(run, monitor=RunMonitor(SILENT, log_seconds=log_seconds)))
    places = [("crops", 1), ("masked", 1), ("pseudo", 1), ("pseudo", 2)]
    assert set(seconds) == {
        (*place, part) for place in places for part in ("pseudo_labels", "train", "score")
    }
    assert all(duration >= 0 for duration in seconds.values())


def test_finished_parts_are_not_run_again(finished_run, monkeypatch):
    before = {
        name: (finished_run.folder.path / name).stat().st_mtime_ns
        for name in files_of(finished_run)
        if not name.endswith(("pseudo.csv", ".antpitta.json"))
    }
    monkeypatch.setattr(stages, "fit", None)
    run_stages(finished_run)
    after = {name: (finished_run.folder.path / name).stat().st_mtime_ns for name in before}
    assert before == after


def test_a_run_without_its_last_files_ends_the_same(finished_run, tmp_path, make_run):
    shutil.copytree(finished_run.folder.path, tmp_path / "first")
    for name in ("pseudo-c2/fold1.safetensors", "pseudo-c2/oof_scores.parquet"):
        (tmp_path / "first" / "stages" / name).unlink()
    run = make_run(tmp_path / "first")
    run_stages(run)
    assert_equal(run, finished_run)
    assert files_of(run) == files_of(finished_run)


@pytest.mark.parametrize("last", [1, 2, 3, 6, 9, 11])
def test_a_run_killed_after_any_epoch_ends_the_same(
    finished_run, tmp_path, make_run, last, monkeypatch
):
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)  # else short epochs have none
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


@pytest.mark.parametrize("call", ["save_tensors", "write_scores", "make_pseudo_labels"])
def test_a_run_killed_while_writing_ends_the_same(
    finished_run, tmp_path, make_run, monkeypatch, call
):
    calls, write = count(1), getattr(stages, call)

    def killed(*arguments):
        if next(calls) == 2:
            raise Killed
        return write(*arguments)

    monkeypatch.setattr(stages, call, killed)
    with pytest.raises(Killed):
        run_stages(make_run(tmp_path / "first"))
    monkeypatch.undo()
    run = make_run(tmp_path / "first")
    run_stages(run)
    assert_equal(run, finished_run)


def test_a_run_killed_while_logging_has_every_epoch_in_its_log(tmp_path, make_run, monkeypatch):
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


# ---- pseudo-labels


def test_pseudo_labels_come_from_the_teacher_stage_and_then_from_the_cycle_before(
    finished_run, tmp_path, monkeypatch
):
    sources, make_pseudo_labels = [], stages.make_pseudo_labels

    def watched(training_data, members, pseudo):
        (rows,) = members.values()
        sources.append({row.scores.source.rpartition("/")[0] for row in rows})
        for row in rows:
            fold = int(row.scores.source[-1])
            expected = {f"r{i}" for i in np.flatnonzero(finished_run.plan.folds != fold)}
            assert row.trained_on == expected
            assert row.scores.recording not in row.trained_on
        return make_pseudo_labels(training_data, members, pseudo)

    monkeypatch.setattr(stages, "make_pseudo_labels", watched)
    monkeypatch.setattr(stages, "fit", None)
    run_stages(finished_run)
    assert sources == [{"first/masked"}, {"first/pseudo"}]


def test_every_pseudo_label_names_its_model(finished_run):
    fold = {f"r{i}": int(k) for i, k in enumerate(finished_run.plan.folds)}
    for place, teacher in (("pseudo", "masked"), ("pseudo-c2", "pseudo")):
        table = pd.read_csv(finished_run.folder.path / "stages" / place / "pseudo.csv")
        assert len(table)
        for row in table.itertuples():
            assert row.source == f"first/{teacher}/fold{fold[row.recording]}"
            assert row.score >= 0.5


def test_a_message_counts_the_pseudo_labels_of_each_cycle(finished_run, messages):
    first = messages[:2]  # other tests continue this run, and their messages follow
    for text, stage, source in zip(
        first, ("pseudo", "pseudo-c2"), ("masked", "pseudo"), strict=True
    ):
        table = pd.read_csv(finished_run.folder.path / "stages" / stage / "pseudo.csv")
        assert f" {len(table)} " in text
        assert f" {source};" in text


def test_scores_of_a_model_that_trained_on_the_recording_are_refused(finished_run, tmp_path):
    shutil.copytree(finished_run.folder.path, tmp_path / "first")
    shutil.rmtree(tmp_path / "first" / "stages" / "pseudo")
    path = tmp_path / "first" / "stages" / "masked" / "oof_scores.parquet"
    swapped = [
        replace(score, source=score.source[:-1] + str(1 - int(score.source[-1])))
        for score in read_scores(path)
    ]
    write_scores(swapped, path)
    with pytest.raises(ValueError, match="trained on it and cannot label it"):
        run_stages(replace(finished_run, folder=RunFolder(tmp_path / "first")))


def other_run(path, finished_run, folds, source="second/masked/fold{}", species=None, leave_out=()):
    """A finished run on the same recordings, with its own folds."""
    path.mkdir()
    rows = "".join(f"r{i},,{k}\n" for i, k in enumerate(folds))
    (path / "folds.csv").write_text("recording,site,fold\n" + rows)
    scores = read_scores(finished_run.folder.path / "stages" / "masked" / "oof_scores.parquet")
    write_scores(
        [
            replace(
                score,
                value=np.full_like(score.value, 0.99),
                source=source.format(folds[int(score.recording[1:])]),
            )
            for score in scores
            if score.recording not in leave_out
        ],
        path / "oof_scores.parquet",
    )
    return RunFolder(path)


def restart(finished_run, tmp_path, *members):
    """The run again, before its pseudo stage."""
    for place in ("crops", "masked"):
        shutil.copytree(
            finished_run.folder.path / "stages" / place, tmp_path / "first" / "stages" / place
        )
    plan = replace(finished_run.plan, members=members)
    return replace(finished_run, plan=plan, folder=RunFolder(tmp_path / "first"))


def test_another_run_joins_with_folds_of_its_own(finished_run, tmp_path):
    folds = 1 - finished_run.plan.folds  # each recording held out by the other fold
    member = other_run(tmp_path / "second", finished_run, folds)
    np.testing.assert_array_equal(
        match_folds(finished_run.plan.training_data.dataset, member), folds
    )
    run = restart(finished_run, tmp_path, member)
    run_stages(run)
    table = pd.read_csv(run.folder.path / "stages" / "pseudo" / "pseudo.csv")
    alone = pd.read_csv(finished_run.folder.path / "stages" / "pseudo" / "pseudo.csv")
    assert len(table) > len(alone)  # its 0.99 lifts the mean over the threshold
    for row in table.itertuples():
        own, other = row.source.split(" + ")
        i = int(row.recording[1:])
        assert own == f"first/masked/fold{finished_run.plan.folds[i]}"
        assert other == f"second/masked/fold{folds[i]}"


def test_two_members_with_one_folder_name_are_both_used(finished_run, tmp_path, monkeypatch):
    members = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        members.append(other_run(tmp_path / place / "first", finished_run, finished_run.plan.folds))
    monkeypatch.setattr(stages, "fit", lambda *arguments: None)
    run = restart(finished_run, tmp_path, *members)
    run_stages(run)
    table = pd.read_csv(run.folder.path / "stages" / "pseudo" / "pseudo.csv")
    assert set(table["source"].str.count(r" \+ ")) == {2}


def test_a_member_that_trained_on_what_it_scores_is_refused(finished_run, tmp_path):
    member = other_run(tmp_path / "second", finished_run, finished_run.plan.folds)
    text = (member.path / "folds.csv").read_text()
    swapped = text.replace(",0\n", ",x\n").replace(",1\n", ",0\n").replace(",x\n", ",1\n")
    (member.path / "folds.csv").write_text(swapped)
    with pytest.raises(ValueError, match="trained on it"):
        run_stages(restart(finished_run, tmp_path, member))


def test_a_member_without_some_recordings_is_an_error(finished_run, tmp_path):
    member = other_run(
        tmp_path / "second", finished_run, finished_run.plan.folds, leave_out=("r1",)
    )
    with pytest.raises(UserError, match="r1") as error:
        run_stages(restart(finished_run, tmp_path, member))
    assert error.value.code == "E_OTHER_DATA"


def test_a_member_with_other_species_is_an_error(finished_run, tmp_path):
    member = other_run(tmp_path / "second", finished_run, finished_run.plan.folds)
    path = member.path / "oof_scores.parquet"
    table = pq.read_table(path)
    names = ["z" if name == "a" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names), path, write_page_checksum=True)
    with pytest.raises(UserError, match="second") as error:
        run_stages(restart(finished_run, tmp_path, member))
    assert error.value.code == "E_OTHER_DATA"


def test_a_member_that_does_not_exist_is_an_error(finished_run, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        run_stages(restart(finished_run, tmp_path, RunFolder(tmp_path / "nowhere")))


# ---- clipwise scores, and the best epoch


@pytest.fixture(scope="module")
def exact_run(make_run, tmp_path_factory):
    """The run as the recipe rfcx would have it: clipwise pseudo-labels and the best epochs."""
    run = make_run(tmp_path_factory.mktemp("exact") / "first")
    table = run.plan.recipe.model_dump()
    for stage in table["stages"]:
        stage |= {"keep": "best", "epochs": 3}
    table["stages"][1]["sample"] = "verdicts"
    table["stages"][2]["pseudo"] |= {"scores": "clipwise", "cycles": 1, "threshold": 0.5}
    table["windows"]["padding"] = "mean"
    recipe = parse_recipe(table, "exact")
    data = replace(
        run.plan.training_data,
        features=replace(run.plan.training_data.features, marks_padding=True),
    )
    run = replace(run, plan=replace(run.plan, recipe=recipe, training_data=data))
    config = {"recipe": recipe.model_dump(mode="json"), "data": ""}
    write_json(config, run.folder.path / "config.json")
    ids = [recording.id for recording in data.dataset.recordings]
    run.folder.write_folds(pd.DataFrame({"recording": ids, "site": "", "fold": run.plan.folds}))
    run_stages(run)
    return run


def test_clipwise_logits_are_those_of_the_saved_weights(exact_run):
    data, folder = exact_run.plan.training_data, exact_run.folder
    for score in read_windows(folder.stage("masked") / "oof_windows.parquet"):
        fold = int(score.source[-1])
        recording = int(score.recording[1:])
        assert exact_run.plan.folds[recording] == fold
        windows = data.windows_of(np.array([recording]))
        times = [data.window_times(int(window)) for window in windows]
        np.testing.assert_allclose(np.stack([score.start, score.stop], axis=1), times)
        net, index = load_net(exact_run, "masked", 1, fold).eval(), data.windows.take(windows)
        with torch.inference_mode():
            logits = net(data.features.gather(index), inside=data.features.inside(index)).clipwise
        np.testing.assert_allclose(score.logit, logits, rtol=0, atol=1e-4)


def test_pseudo_labels_come_from_clipwise_scores(exact_run):
    folder = exact_run.folder
    probability = np.concatenate(
        [1 / (1 + np.exp(-s.logit)) for s in read_windows(folder.stage("masked") / WINDOWS)]
    )
    table = pd.read_csv(folder.stage("pseudo") / "pseudo.csv")
    unlabelled = exact_run.plan.training_data.labels.weight == 0
    expected = np.sort(probability[unlabelled & (probability >= 0.5)])
    np.testing.assert_allclose(np.sort(table["score"]), expected, atol=1e-5)


def test_the_weights_of_the_best_epoch_are_kept(exact_run):
    log = exact_run.folder.read_log()
    assert log["lwlrap"].between(0, 1).all()
    data = exact_run.plan.training_data
    for stage in ("crops", "masked", "pseudo"):
        for fold in (0, 1):
            rows = log[(log["stage"] == stage) & (log["fold"] == fold)]
            held_out = np.flatnonzero(exact_run.plan.folds == fold)
            value = held_out_lwlrap(
                load_net(exact_run, stage, 1, fold),
                data,
                exact_run.plan.recipe.windows,
                held_out,
                exact_run.compute.fabric,
            )
            assert value == pytest.approx(rows["lwlrap"].max(), abs=1e-6)


def ship(exact_run, path, stage):
    """A copy of the run that is finished, with the model of this stage."""
    shutil.copytree(exact_run.folder.path, path)
    reports = [{"name": stage, "description": "", "report": {}}]
    RunFolder(path).write_report({"model": stage, "stages": reports, "left_out": []}, "")
    return RunFolder(path)


@pytest.mark.parametrize("shipped", ["masked", "pseudo"])
def test_clipwise_scores_of_another_runs_model_join(exact_run, tmp_path, shipped):
    run = restart(exact_run, tmp_path, ship(exact_run, tmp_path / "second", shipped))
    run_stages(run)
    table = pd.read_csv(run.folder.path / "stages" / "pseudo" / "pseudo.csv")
    sources = table["source"].str.split(" + ", regex=False)
    assert len(table)
    assert set(sources.str[1].str.rpartition("/")[0]) == {f"first/{shipped}"}


def test_clipwise_scores_of_an_unfinished_run_are_an_error(exact_run, tmp_path):
    with pytest.raises(UserError) as error:
        run_stages(restart(exact_run, tmp_path, exact_run.folder))
    assert error.value.code == "E_RUN_UNFINISHED"


def test_clipwise_scores_of_other_windows_are_an_error(exact_run, tmp_path):
    ship(exact_run, tmp_path / "second", "pseudo")
    path = tmp_path / "second" / "stages" / "pseudo" / WINDOWS
    moved = [replace(score, start=score.start + 0.1) for score in read_windows(path)]
    write_windows(moved, path)
    with pytest.raises(UserError, match="other windows") as error:
        run_stages(restart(exact_run, tmp_path, RunFolder(tmp_path / "second")))
    assert error.value.code == "E_OTHER_DATA"


def test_the_report_says_that_the_best_epochs_were_chosen_on_the_fold(exact_run, finished_run):
    for run, is_best in ((exact_run, True), (finished_run, False)):
        stage = run.plan.recipe.stages[0]
        result, _ = run_report._stage_result(run.plan.training_data.dataset, stage, 1, run.folder)
        assert (run_report.BEST_EPOCH in result.description) == is_best
