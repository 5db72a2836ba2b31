"""From the competition's folder to submission.csv."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import antpitta as ap
from antpitta.core.errors import UserError
from antpitta.files.manifest import MANIFEST

SPECIES = [f"s{i}" for i in range(8)]


@pytest.fixture(scope="module")
def competition(simulated, tmp_path_factory):
    """A folder laid out as the competition's, with a recording that cannot be read."""
    folder = tmp_path_factory.mktemp("competition") / "rfcx"
    for name in ("train", "test"):
        shutil.copytree(simulated / name, folder / name)
    for name in ("train_tp.csv", "train_fp.csv"):
        shutil.copy(simulated / name, folder)
    (folder / "test" / "broken.flac").write_bytes(b"fLaC no sound")
    write_sample(folder / "sample_submission.csv")
    return folder


def write_sample(path, *, recordings=("test0003", "broken", "test0001"), species=None):
    """A sample whose species are in another order than the model's."""
    columns = dict.fromkeys(SPECIES[::-1] if species is None else species, 0)
    pd.DataFrame({"recording_id": list(recordings), **columns}).to_csv(path, index=False)
    return path


def read(path):
    return pd.read_csv(path, dtype={"recording_id": str})


def test_competition_folder_leads_to_a_submission_by_commands(
    antpitta, competition, recipe, tmp_path
):
    run, out = tmp_path / "run", tmp_path / "out"
    settings = [f"--set=stages.{name}.epochs=1" for name in ("crops", "masked", "pseudo")]
    settings += ["--set=stages.pseudo.pseudo.cycles=1"]
    code, _, err = antpitta("train", competition, "-o", run, "--recipe", recipe, *settings)
    assert code == 0, err
    assert set(read(run / "folds.csv")["recording"]) == {f"train{i:04}" for i in range(12)}

    sample = competition / "sample_submission.csv"
    words = ("predict", run / "model", competition / "test", "--submission", sample, "-o", out)
    code, printed, _ = antpitta(*words)
    assert code == 1
    assert "broken" in printed
    table, presence = read(out / "submission.csv"), read(out / "presence.csv")
    assert list(table.columns) == ["recording_id", *SPECIES[::-1]]
    assert list(table["recording_id"]) == ["test0003", "broken", "test0001"]
    by_id = presence.set_index("recording_id")[SPECIES[::-1]]
    scored = by_id.loc[["test0003", "test0001"]].to_numpy()
    np.testing.assert_array_equal(table.iloc[[0, 2], 1:].to_numpy(), scored)
    np.testing.assert_allclose(table.iloc[1, 1:].to_numpy(float), scored.mean(axis=0), rtol=1e-6)
    noted = json.loads((out / "run.json").read_text())["submission"]
    assert noted == {"sample": str(sample), "filled": ["broken"]}

    before = (out / "submission.csv").read_bytes()
    assert antpitta(*words, "--resume")[0] == 1
    assert (out / "submission.csv").read_bytes() == before


def test_competition_folder_is_known_as_the_current_folder_and_without_test(
    antpitta, competition, tmp_path, monkeypatch
):
    for name in ("train", "train_tp.csv", "train_fp.csv"):
        (tmp_path / name).symlink_to(competition / name)
    monkeypatch.chdir(tmp_path)
    code, printed, _ = antpitta("check", "--no-sound")
    assert code == 0
    assert "12 recordings, 8 species" in printed


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        (("train", "train_tp.csv"), ("train_fp.csv",)),
        (("train", "train_fp.csv", "test"), ("train_tp.csv",)),
        (("train_tp.csv", "train_fp.csv"), ("the folder train",)),
        (("train_fp.csv",), ("the folder train", "train_tp.csv")),
        (("train", "test", "sample_submission.csv"), ("train_tp.csv", "train_fp.csv")),
    ],
)
def test_half_of_the_layout_names_what_is_missing(competition, tmp_path, there, missing):
    for name in there:
        (tmp_path / name).symlink_to(competition / name)
    with pytest.raises(UserError) as error:
        ap.open_data(tmp_path)
    assert error.value.code == "E_HALF_LAYOUT"
    assert error.value.what.endswith(f"without {' and '.join(missing)}")


def test_recordings_that_are_not_there_get_the_means_of_the_others(run, competition, tmp_path):
    ids = ["gone", "test0000", "test0002", "lost"]
    sample = write_sample(tmp_path / "sample.csv", recordings=ids)
    made = ap.predict_to(run.model, competition / "test", tmp_path / "out", submission=sample)
    assert made.filled == ("gone", "lost")
    table = made.submission
    mean = table.iloc[1:3, 1:].mean()
    np.testing.assert_allclose(table.iloc[[0, 3], 1:].to_numpy(), [mean, mean], rtol=1e-6)
    assert any("2 recordings are not in the sample" in note for note in made.notes)


def test_names_of_the_sample_are_found_by_the_rules_of_names(run, competition, tmp_path):
    sample = write_sample(
        tmp_path / "sample.csv", recordings=["TEST0001.flac", "test0000"], species=["7", "S0"]
    )
    made = ap.predict_to(run.model, competition / "test", tmp_path / "out", submission=sample)
    assert made.filled == ()
    assert list(made.submission.columns) == ["recording_id", "7", "S0"]
    assert list(made.submission["recording_id"]) == ["TEST0001.flac", "test0000"]
    by_id = made.presence.set_index("recording_id")
    expected = by_id.loc[["test0001", "test0000"], ["s7", "s0"]].to_numpy()
    np.testing.assert_array_equal(made.submission[["7", "S0"]].to_numpy(), expected)


def test_scores_of_a_submission_are_those_of_presence_when_rescaled(run, competition, tmp_path):
    made = ap.predict_to(
        *(run.model, competition / "test", tmp_path / "out"),
        prevalence=run.path / "prevalence.csv",
        submission=write_sample(tmp_path / "sample.csv", recordings=["test0002"]),
    )
    scores = made.presence.set_index("recording_id").loc["test0002", SPECIES[::-1]]
    np.testing.assert_array_equal(made.submission.iloc[0, 1:].to_numpy(float), scores.to_numpy())


@pytest.mark.parametrize(
    ("text", "code", "value"),
    [
        ("recording_id,s0,s99,wren\ntest0000,0,0,0\n", "E_SCORES_MISSING", "s99, wren"),
        ("recording_id,s0\ntest0000,0\ntest0000,0\n", "E_SCORE_TABLE", "test0000"),
        ("recording_id,s0,0\ntest0000,0,0\n", "E_SCORE_TABLE", "s0"),
        ("recording_id,s0,s0\ntest0000,0,0\n", "E_DUPLICATE_COLUMN", "s0"),
        ("id,s0\ntest0000,0\n", "E_SCORE_TABLE", "recording_id"),
        ("recording_id,s0\n", "E_SCORE_TABLE", "rows"),
        ("recording_id\ntest0000\n", "E_SCORE_TABLE", "species"),
        ("recording_id,s0\n,0\ntest0000,0\n", "E_SCORE_TABLE", "1 rows"),
        ("recording_id,s0\nelsewhere,0\n", "E_NO_MATCHING_AUDIO", "elsewhere"),
        ("recording_id,s0\ntest0000\n", "E_TABLE_ROW", ":2"),
        ("", "E_TABLE_EMPTY", "sample.csv"),
        (None, "E_CANNOT_READ", "sample.csv"),
    ],
)
def test_sample_that_cannot_be_filled_is_refused_before_anything_is_computed(
    run, competition, tmp_path, text, code, value
):
    sample, out = tmp_path / "sample.csv", tmp_path / "out"
    if text is not None:
        sample.write_text(text)
    with pytest.raises(UserError) as error:
        ap.predict_to(run.model, competition / "test", out, submission=sample)
    assert error.value.code == code
    assert value in error.value.what
    assert not out.exists()


def test_sample_of_unreadable_recordings_only_gives_no_submission(run, competition, tmp_path):
    sample = write_sample(tmp_path / "sample.csv", recordings=["broken", "gone"])
    with pytest.raises(UserError) as error:
        ap.predict_to(run.model, competition / "test", tmp_path / "out", submission=sample)
    assert error.value.code == "E_SCORES_MISSING"
    assert not (tmp_path / "out" / "submission.csv").exists()
    assert len(read(tmp_path / "out" / "presence.csv")) == 4


def test_submission_of_a_user_is_not_replaced_and_an_earlier_one_is_deleted(
    run, competition, tmp_path
):
    words, sample = (run.model, competition / "test"), competition / "sample_submission.csv"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "submission.csv").write_text("mine")
    with pytest.raises(UserError) as error:
        ap.predict_to(*words, tmp_path / "own", submission=sample)
    assert error.value.code == "E_OUTPUT_EDITED"
    ap.predict_to(*words, tmp_path / "own")  # it is not asked for: it is not in the way
    assert (tmp_path / "own" / "submission.csv").read_text() == "mine"

    ap.predict_to(*words, tmp_path / "out", submission=sample)
    assert "submission.csv" in json.loads((tmp_path / "out" / MANIFEST).read_text())["files"]
    made = ap.predict_to(*words, tmp_path / "out", resume=True)
    assert not (tmp_path / "out" / "submission.csv").exists()
    assert len(made.submission) == 0


def test_submission_is_uploaded(run, competition, tmp_path, s3):
    s3.mkdir("rfcx")
    made = ap.predict_to(
        *(run.model, competition / "test", "s3://rfcx/out"),
        submission=competition / "sample_submission.csv",
    )
    with s3.open("rfcx/out/submission.csv") as file:
        assert read(file).equals(read(made.path / "submission.csv"))
