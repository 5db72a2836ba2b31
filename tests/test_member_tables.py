"""Tables of scores of any model as members of pseudo-labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import antpitta as ap
from antpitta.core.errors import UserError
from antpitta.core.types import Annotation, Classes, Dataset, Recording
from antpitta.files.recipes import read_recipe
from antpitta.train import stages
from antpitta.train.member_tables import read_member_table
from antpitta.train.pseudo import window_scores
from antpitta.train.training import read_members
from tests.test_stages import restart

RATE = 1000
DATASET = Dataset(
    tuple(Recording(f"r{i}", Path(f"audio/r{i}.wav"), RATE, 10 * RATE) for i in range(4)),
    (Annotation("r0", 1, 2, "s1"),),
    Classes(("s1", "wren")),
)


def write(folder, table, name="table.csv"):
    """Write a table; a frame or its text."""
    path = folder / name
    if isinstance(table, str):
        path.write_text(table)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return path


def clips(**columns):
    """A table with a row for each recording."""
    table = {"recording": [f"r{i}" for i in range(4)], "s1": [0.1, 0.2, 0.3, 0.4], "wren": 0.5}
    return pd.DataFrame({**table, **columns})


def stretches(**columns):
    """A table with two rows for each recording."""
    rows = [
        (f"r{i}", 5 * half, 5 * half + 5, i / 10 + half / 2) for i in range(4) for half in (0, 1)
    ]
    table = pd.DataFrame(rows, columns=["recording", "start_time", "end_time", "s1"])
    return table.assign(wren=0.5, **columns)


def read(path, dataset=DATASET, *, unproven=False):
    return {
        row.scores.recording: row
        for row in read_member_table(path, dataset, unproven=unproven).scores
    }


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_fold_proves_that_a_model_trained_on_the_other_folds_only(tmp_path, name):
    rows = read(write(tmp_path, clips(fold=[0, 1, 1, 2]), name))
    assert rows["r0"].trained_on == {"r1", "r2", "r3"}
    assert rows["r1"].trained_on == rows["r2"].trained_on == {"r0", "r3"}
    assert [row.scores.source for row in rows.values()] == [f"{name}/fold{i}" for i in (0, 1, 1, 2)]
    np.testing.assert_array_equal(rows["r2"].scores.value, [[0.3, 0.5]])


def test_trained_on_names_the_recordings_and_empty_means_none(tmp_path):
    lists = ["r1; r2.wav", "", "elsewhere;audio/r0.wav", None]
    rows = read(write(tmp_path, clips(trained_on=lists)))
    assert [set(row.trained_on) for row in rows.values()] == [{"r1", "r2"}, set(), {"r0"}, set()]


def test_names_of_recordings_and_species_are_found_by_the_rules_of_names(tmp_path):
    table = clips(fold=[0, 1, 0, 1], other=9, source=3).rename(
        columns={"recording": "recording_id", "s1": "1", "wren": "WREN"}
    )
    table["recording_id"] = ["R0", "x/r1.WAV", "r2.flac", "r3"]
    extra = pd.DataFrame([{"recording_id": "elsewhere", "1": 7, "WREN": "x"}])
    rows = read(write(tmp_path, pd.concat([table.iloc[::-1], extra])))
    assert list(rows) == ["r0", "r1", "r2", "r3"]
    np.testing.assert_array_equal(rows["r1"].scores.value, [[0.2, 0.5]])


def test_unproven_table_needs_the_word_of_the_user(tmp_path):
    path = write(tmp_path, clips())
    with pytest.raises(UserError) as error:
        read(path)
    assert error.value.code == "E_MEMBER_UNPROVEN"
    assert "pseudo.unproven_members" in error.value.remedy
    rows = read(path, unproven=True)
    assert not rows["r0"].trained_on
    assert rows["r0"].scores.source == "table.csv (unproven)"


@pytest.mark.parametrize("unproven", [False, True])
@pytest.mark.parametrize(
    ("table", "value"),
    [
        (clips(trained_on=["r1", "r1", "", ""]), ":3"),  # r1 scored by a model that saw it
        (clips(trained_on=["", "", "", "r0;R3.wav"]), ":5"),
        (clips(fold=[0, 1, None, 1]), ":4"),
        (clips(fold=[0, 0, 0, 0]), "one fold"),
        (stretches(fold=[0, 1, *[1] * 6]), "r0"),  # one recording in two folds
        (clips(fold=[0, 1, 0, 1], trained_on=["", "", "r2", ""]), ":4"),
    ],
)
def test_table_that_shows_the_contrary_is_refused_in_any_case(tmp_path, table, value, unproven):
    with pytest.raises(UserError) as error:
        read(write(tmp_path, table), unproven=unproven)
    assert error.value.code == "E_MEMBER_UNPROVEN"
    assert value in error.value.what


@pytest.mark.parametrize(
    ("table", "code", "value"),
    [
        (clips(fold=[0, 1, 0, 1]).iloc[:3], "E_OTHER_DATA", "r3"),
        (clips(fold=[0, 1, 0, 1]).drop(columns="wren"), "E_OTHER_DATA", "wren"),
        (clips(fold=[0, 1, 0, 1], s1=[0, 1, 1.2, 0]), "E_SCORE_VALUE", ":4"),
        (clips(fold=[0, 1, 0, 1], s1=[0, -0.1, 1, 0]), "E_SCORE_VALUE", ":3"),
        (clips(fold=[0, 1, 0, 1], s1=[0, 1, None, 0]), "E_SCORE_VALUE", ":4"),
        (clips(fold=[0, 1, 0, 1], s1=["a", 1, 0, 0]), "E_SCORE_VALUE", ":2: 'a' for s1"),
        (clips(fold=[0, 1, 0, 1]).iloc[[0, 0, 1, 2, 3]], "E_MEMBER_TABLE", "r0"),
        (clips(fold=0).rename(columns={"recording": "id"}), "E_MISSING_COLUMN", "'recording'"),
        (clips(fold=[0, 1, 0, 1], start_time=0), "E_MISSING_COLUMN", "'end_time'"),
        (stretches(fold=0).assign(end_time=0), "E_MEMBER_TABLE", ":2"),
        (stretches(fold=0).assign(start_time=-1), "E_MEMBER_TABLE", ":2"),
        (stretches(fold=0).assign(end_time="x"), "E_MEMBER_TABLE", ":2"),
        (stretches(trained_on="").iloc[[0, 0, *range(1, 8)]], "E_MEMBER_TABLE", "r0"),
        (stretches(trained_on="").iloc[[0, *range(2, 8)]], "E_MEMBER_TABLE", "r0 from 5 s for 5 s"),
        (stretches(trained_on="").iloc[1:], "E_MEMBER_TABLE", "r0 from 0 s for 5 s"),
        ("recording,s1\n", "E_OTHER_DATA", "r0"),
        ("", "E_TABLE_EMPTY", "table.csv"),
        ("recording,s1,s1,wren\n", "E_DUPLICATE_COLUMN", "s1"),
    ],
)  # fmt: skip
def test_table_that_cannot_be_used_is_refused(tmp_path, table, code, value):
    with pytest.raises(UserError) as error:
        read(write(tmp_path, table))
    assert error.value.code == code
    assert value in error.value.what


def test_gap_in_a_recording_is_refused_and_a_short_rest_is_not(tmp_path):
    table = stretches(trained_on="")
    table["end_time"] = table["end_time"].replace(10, 7)  # the last 3 s have no row
    assert len(read(write(tmp_path, table))) == 4
    table["end_time"] = table["end_time"].replace(7, 5.5)
    table["start_time"] = table["start_time"].replace(0, 3)
    with pytest.raises(UserError) as error:
        read(write(tmp_path, table))
    assert error.value.code == "E_MEMBER_TABLE"
    assert "r0 from 0 s for 3 s" in error.value.what


def test_missing_or_damaged_table_is_refused(tmp_path):
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 no table PAR1")
    for name, code in (
        ("no.csv", "E_CANNOT_READ"),
        ("no.parquet", "E_CANNOT_READ"),
        ("damaged.parquet", "E_FILE_DAMAGED"),
    ):
        with pytest.raises(UserError) as error:
            read(tmp_path / name)
        assert error.value.code == code


def test_window_has_the_scores_of_the_rows_whose_middle_lies_in_it(staged_data, tmp_path):
    recordings = staged_data.dataset.recordings
    table = pd.DataFrame(
        [
            {"recording": r.id, "start_time": t, "end_time": t + 0.2, "a": t / 10, "b": 0, "c": 1}
            for r in recordings
            for t in np.arange(0, r.duration - 1e-9, 0.2).round(3)
        ]
    ).assign(trained_on="")
    member = read_member_table(write(tmp_path, table), staged_data.dataset, unproven=False)
    scores = window_scores(staged_data, {"table": list(member.scores)})
    for window, (a, b, c) in enumerate(scores[0]):
        start, stop = staged_data.window_times(window)
        middles = np.arange(0.1, 10, 0.2).round(3)
        owner = staged_data.recording_index[staged_data.windows.segment[window]]
        middles = middles[(middles >= start) & (middles < stop)]
        middles = middles[middles < recordings[owner].duration + 0.1]
        assert a == pytest.approx((middles.max() - 0.1) / 10)
        assert (b, c) == (0, 1)


def test_score_of_a_recording_counts_for_all_of_its_windows(staged_data, tmp_path):
    ids = [recording.id for recording in staged_data.dataset.recordings]
    table = pd.DataFrame(
        {"recording": ids, "a": np.arange(6) / 10, "b": 0, "c": 1, "fold": [0, 1] * 3}
    )
    member = read_member_table(write(tmp_path, table), staged_data.dataset, unproven=False)
    scores = window_scores(staged_data, {"table": list(member.scores)})[0]
    owner = staged_data.recording_index[staged_data.windows.segment]
    np.testing.assert_array_equal(scores[:, 0], owner / 10)


def test_window_longer_than_its_rows_or_shorter_has_the_nearest_score(staged_data, tmp_path):
    ids = [recording.id for recording in staged_data.dataset.recordings]
    rows = [(id, 0.0, 5.0, 0.25) for id in ids]
    table = pd.DataFrame(rows, columns=["recording", "start_time", "end_time", "a"])
    member = read_member_table(
        *(write(tmp_path, table.assign(b=0, c=0, trained_on="")), staged_data.dataset),
        unproven=False,
    )
    scores = window_scores(staged_data, {"table": list(member.scores)})[0]
    assert set(scores[:, 0]) == {0.25}


def test_table_joins_the_run_in_its_pseudo_labels(finished_run, tmp_path, monkeypatch):
    dataset = finished_run.plan.training_data.dataset
    ids = [recording.id for recording in dataset.recordings]
    table = pd.DataFrame({"recording": ids, "a": 0.99, "b": 0.99, "c": 0.99, "fold": [0, 1] * 3})
    member = read_member_table(write(tmp_path, table), dataset, unproven=False)
    monkeypatch.setattr(stages, "fit", lambda *arguments: None)
    run = restart(finished_run, tmp_path, member)
    stages.run_stages(run)
    pseudo = pd.read_csv(run.folder.path / "stages" / "pseudo" / "pseudo.csv")
    folds = dict(zip(ids, [0, 1] * 3, strict=True))
    assert len(pseudo)
    for row in pseudo.itertuples():
        assert row.source.split(" + ")[1] == f"table.csv/fold{folds[row.recording]}"


def test_table_that_a_model_saw_never_labels(finished_run, tmp_path):
    dataset = finished_run.plan.training_data.dataset
    ids = [recording.id for recording in dataset.recordings]
    table = pd.DataFrame({"recording": ids, "a": 0.9, "b": 0.9, "c": 0.9, "trained_on": ""})
    member = read_member_table(write(tmp_path, table), dataset, unproven=False)
    rows = [replace(row, trained_on=frozenset(ids)) for row in member.scores]
    with pytest.raises(ValueError, match="trained on it and cannot label it"):
        window_scores(finished_run.plan.training_data, {"table": rows})


def test_members_are_checked_before_a_run_begins(simulated, recipe, tmp_path):
    table = write(tmp_path, "recording,s0\n")
    change = f"stages.pseudo.pseudo.members={[str(table)]}".replace("'", '"')
    with pytest.raises(UserError) as error:
        ap.train(simulated, str(recipe), tmp_path / "run", changes=(change,))
    assert error.value.code == "E_OTHER_DATA"
    assert not (tmp_path / "run").exists()


def test_members_of_a_recipe_are_runs_and_tables(run, tmp_path):
    table = write(tmp_path, clips(fold=[0, 1, 0, 1]))
    change = f"stages.pseudo.pseudo.members={[str(run.path), str(table)]}".replace("'", '"')
    members = read_members(DATASET, read_recipe("rfcx", (change,)))
    assert [str(member.path) for member in members] == [str(run.path), str(table)]
