"""Who teaches whom: in a whole run, each label comes from models that never saw the recording."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from antpitta.core.errors import UserError
from antpitta.files.runs import RunFolder, read_scores, write_scores
from antpitta.train import stages as room
from antpitta.train.out_of_fold import match_folds
from antpitta.train.stages import run_stages


def test_the_first_cycle_is_taught_by_the_teacher_and_the_second_by_the_first(
    finished_run, tmp_path, monkeypatch
):
    taught_by, teach = [], room.make_pseudo_labels

    def watched(training_data, members, pseudo):
        (rows,) = members.values()
        taught_by.append({row.scores.source.rpartition("/")[0] for row in rows})
        for row in rows:
            fold = int(row.scores.source[-1])
            wanted = {f"r{i}" for i in np.flatnonzero(finished_run.plan.folds != fold)}
            assert row.trained_on == wanted
            assert row.scores.recording not in row.trained_on
        return teach(training_data, members, pseudo)

    monkeypatch.setattr(room, "make_pseudo_labels", watched)
    monkeypatch.setattr(room, "fit", None)
    run_stages(finished_run)
    assert taught_by == [{"first/masked"}, {"first/pseudo"}]


def test_the_labels_name_the_models_that_made_them(finished_run):
    fold = {f"r{i}": int(k) for i, k in enumerate(finished_run.plan.folds)}
    for place, teacher in (("pseudo", "masked"), ("pseudo-c2", "pseudo")):
        table = pd.read_csv(finished_run.folder.path / "stages" / place / "pseudo.csv")
        assert len(table)
        for row in table.itertuples():
            assert row.source == f"first/{teacher}/fold{fold[row.recording]}"
            assert row.score >= 0.5


def test_what_was_taught_is_said(finished_run, messages):
    assert len(messages) >= 2
    assert "taught by masked, out of fold" in messages[0]
    assert "taught by taught, out of fold" in messages[1]


def test_scores_by_a_model_that_trained_on_the_recording_stop_the_run(finished_run, tmp_path):
    shutil.copytree(finished_run.folder.path, tmp_path / "first")
    shutil.rmtree(tmp_path / "first" / "stages" / "pseudo")
    path = tmp_path / "first" / "stages" / "masked" / "oof_scores.parquet"
    swapped = [
        replace(one, source=one.source[:-1] + str(1 - int(one.source[-1])))
        for one in read_scores(path)
    ]
    write_scores(swapped, path)
    with pytest.raises(ValueError, match="trained on it and cannot label it"):
        run_stages(replace(finished_run, folder=RunFolder(tmp_path / "first")))


def other_run(path, finished_run, folds, source="second/masked/fold{}", species=None, leave_out=()):
    """A finished run on the same recordings, with its own folds."""
    path.mkdir()
    rows = "".join(f"r{i},,{k}\n" for i, k in enumerate(folds))
    (path / "folds.csv").write_text("recording,site,fold\n" + rows)
    labels = read_scores(finished_run.folder.path / "stages" / "masked" / "oof_scores.parquet")
    write_scores(
        [
            replace(
                one,
                value=np.full_like(one.value, 0.99),
                source=source.format(folds[int(one.recording[1:])]),
            )
            for one in labels
            if one.recording not in leave_out
        ],
        path / "oof_scores.parquet",
    )
    return RunFolder(path)


def fresh(finished_run, tmp_path, *members):
    """The run again, before its taught stage."""
    for place in ("crops", "masked"):
        shutil.copytree(finished_run.folder.path / "stages" / place, tmp_path / "first" / "stages" / place)
    return replace(finished_run, folder=RunFolder(tmp_path / "first"), members=members)


def test_another_run_may_help_to_teach_with_folds_of_its_own(finished_run, tmp_path):
    folds = 1 - finished_run.plan.folds  # each recording held out by the other fold
    helper = other_run(tmp_path / "second", finished_run, folds)
    np.testing.assert_array_equal(match_folds(finished_run.plan.training_data.dataset, helper), folds)
    run = fresh(finished_run, tmp_path, helper)
    run_stages(run)
    table = pd.read_csv(run.folder.path / "stages" / "pseudo" / "pseudo.csv")
    alone = pd.read_csv(finished_run.folder.path / "stages" / "pseudo" / "pseudo.csv")
    assert len(table) > len(alone)  # its 0.99 lifts the mean over the threshold
    for row in table.itertuples():
        mine, other = row.source.split(" + ")
        i = int(row.recording[1:])
        assert mine == f"first/masked/fold{finished_run.plan.folds[i]}"
        assert other == f"second/masked/fold{folds[i]}"


def test_two_helpers_of_one_folder_name_both_have_a_say(finished_run, tmp_path, monkeypatch):
    helpers = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        helpers.append(other_run(tmp_path / place / "first", finished_run, finished_run.plan.folds))
    monkeypatch.setattr(room, "fit", lambda *given: None)
    run = fresh(finished_run, tmp_path, *helpers)
    run_stages(run)
    table = pd.read_csv(run.folder.path / "stages" / "pseudo" / "pseudo.csv")
    assert set(table["source"].str.count(r" \+ ")) == {2}


def test_another_run_that_trained_on_what_it_scores_is_refused(finished_run, tmp_path):
    helper = other_run(tmp_path / "second", finished_run, finished_run.plan.folds)
    text = (helper.path / "folds.csv").read_text()
    swapped = text.replace(",0\n", ",x\n").replace(",1\n", ",0\n").replace(",x\n", ",1\n")
    (helper.path / "folds.csv").write_text(swapped)
    with pytest.raises(ValueError, match="trained on it"):
        run_stages(fresh(finished_run, tmp_path, helper))


def test_another_run_without_some_of_the_recordings_is_the_users_mistake(finished_run, tmp_path):
    helper = other_run(tmp_path / "second", finished_run, finished_run.plan.folds, leave_out=("r1",))
    with pytest.raises(UserError, match=r"second.*r1"):
        run_stages(fresh(finished_run, tmp_path, helper))


def test_another_run_of_other_species_is_the_users_mistake(finished_run, tmp_path):
    helper = other_run(tmp_path / "second", finished_run, finished_run.plan.folds)
    path = helper.path / "oof_scores.parquet"
    pd.read_parquet(path).rename(columns={"a": "z"}).to_parquet(path)
    with pytest.raises(UserError, match=r"second.*species"):
        run_stages(fresh(finished_run, tmp_path, helper))


def test_another_run_that_is_not_there_is_the_users_mistake(finished_run, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        run_stages(fresh(finished_run, tmp_path, RunFolder(tmp_path / "nowhere")))
