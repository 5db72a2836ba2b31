"""From the competition's folder to submission.csv."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

import antpitta as ap
from antpitta.api import predict_to
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
    made = predict_to(run.model, competition / "test", tmp_path / "out", submission=sample)
    assert made.filled == ("gone", "lost")
    table = made.submission
    mean = table.iloc[1:3, 1:].mean()
    np.testing.assert_allclose(table.iloc[[0, 3], 1:].to_numpy(), [mean, mean], rtol=1e-6)
    assert any("2 recordings are not in the sample" in note for note in made.notes)


def test_names_of_the_sample_are_found_by_the_rules_of_names(run, competition, tmp_path):
    sample = write_sample(
        tmp_path / "sample.csv", recordings=["TEST0001.flac", "test0000"], species=["7", "S0"]
    )
    made = predict_to(run.model, competition / "test", tmp_path / "out", submission=sample)
    assert made.filled == ()
    assert list(made.submission.columns) == ["recording_id", "7", "S0"]
    assert list(made.submission["recording_id"]) == ["TEST0001.flac", "test0000"]
    by_id = made.presence.set_index("recording_id")
    expected = by_id.loc[["test0001", "test0000"], ["s7", "s0"]].to_numpy()
    np.testing.assert_array_equal(made.submission[["7", "S0"]].to_numpy(), expected)


def test_scores_of_a_submission_are_those_of_presence_when_rescaled(run, competition, tmp_path):
    made = predict_to(
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
        predict_to(run.model, competition / "test", out, submission=sample)
    assert error.value.code == code
    assert value in error.value.what
    assert not out.exists()


def test_sample_of_unreadable_recordings_only_gives_no_submission(run, competition, tmp_path):
    sample = write_sample(tmp_path / "sample.csv", recordings=["broken", "gone"])
    with pytest.raises(UserError) as error:
        predict_to(run.model, competition / "test", tmp_path / "out", submission=sample)
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
        predict_to(*words, tmp_path / "own", submission=sample)
    assert error.value.code == "E_OUTPUT_EDITED"
    predict_to(*words, tmp_path / "own")  # it is not asked for: it is not in the way
    assert (tmp_path / "own" / "submission.csv").read_text() == "mine"

    predict_to(*words, tmp_path / "out", submission=sample)
    assert "submission.csv" in json.loads((tmp_path / "out" / MANIFEST).read_text())["files"]
    made = predict_to(*words, tmp_path / "out", resume=True)
    assert not (tmp_path / "out" / "submission.csv").exists()
    assert len(made.submission) == 0


def test_submission_is_uploaded(run, competition, tmp_path, s3):
    s3.mkdir("rfcx")
    made = predict_to(
        *(run.model, competition / "test", "s3://rfcx/out"),
        submission=competition / "sample_submission.csv",
    )
    with s3.open("rfcx/out/submission.csv") as file:
        assert read(file).equals(read(made.path / "submission.csv"))


# ---- ensembles of submissions

IDS = [f"r{i}" for i in range(700)]


@pytest.fixture
def submissions(tmp_path):
    """Three submissions of 700 recordings; the second has other orders, the third other ids."""
    rng = np.random.default_rng(0)
    first, second, third = (
        rng.beta(0.3, 1, (700, 3)).clip(0.001, 0.999).round(6) for _ in range(3)
    )
    pd.DataFrame({"recording_id": IDS, **dict(zip("cab", first.T, strict=True))}).to_csv(
        tmp_path / "first.csv", index=False
    )
    table = pd.DataFrame(
        {"a": second[:, 1], "b": second[:, 2], "recording_id": IDS, "C": second[:, 0]}
    )
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "second.csv", index=False)
    upper = [name.upper() for name in IDS]
    pd.DataFrame({"recording_id": upper, **dict(zip("cab", third.T, strict=True))}).to_csv(
        tmp_path / "third.csv", index=False
    )
    return [tmp_path / f"{name}.csv" for name in ("first", "second", "third")], (
        first,
        second,
        third,
    )


def logits(scores):
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    return np.log(clipped / (1 - clipped))


def aligned(arrays, weights):
    """Logits with the first one's mean and deviation, averaged."""
    own = [logits(scores) for scores in arrays]
    moved = [(z - z.mean()) / z.std() * own[0].std() + own[0].mean() for z in own]
    return 1 / (1 + np.exp(-np.average(moved, axis=0, weights=weights)))


METHODS = {
    "mean": lambda arrays, weights: np.average(arrays, axis=0, weights=weights),
    "rank": lambda arrays, weights: np.average(
        [(rankdata(scores, axis=0) - 0.5) / 700 for scores in arrays], axis=0, weights=weights
    ),
    "aligned": aligned,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weights", [None, [1, 2, 0.5]])
def test_submissions_become_one_with_the_rows_and_columns_of_the_first(
    antpitta, submissions, tmp_path, method, weights
):
    paths, arrays = submissions
    words = [part for weight in weights or () for part in ("--weight", weight)]
    code, printed, err = antpitta(
        "ensemble", *paths, "-o", tmp_path / "out", "--method", method, *words
    )
    assert code == 0, err
    assert "submission.csv" in printed
    table = read(tmp_path / "out" / "submission.csv")
    assert list(table.columns) == ["recording_id", "c", "a", "b"]
    assert list(table["recording_id"]) == IDS
    expected = METHODS[method](arrays, weights)
    np.testing.assert_allclose(table.iloc[:, 1:].to_numpy(), expected, rtol=1e-5, atol=1e-9)


def test_submissions_with_other_rows_and_columns_are_refused_in_one_message(submissions, tmp_path):
    paths, _ = submissions
    table = read(paths[0]).rename(columns={"c": "wren"})
    table.loc[5, "recording_id"] = "other"
    table.drop(index=7).to_csv(tmp_path / "differs.csv", index=False)
    with pytest.raises(UserError) as error:
        ap.ensemble([paths[0], tmp_path / "differs.csv"], tmp_path / "out")
    assert error.value.code == "E_ENSEMBLE_MEMBERS"
    assert all(name in error.value.what for name in ("r5, r7 (2)", "other (1)", "wren", "c (1)"))
    assert not (tmp_path / "out" / "submission.csv").exists()


@pytest.mark.parametrize(
    ("change", "options", "code"),
    [
        (lambda table: table, {"method": "auc"}, "E_ENSEMBLE_METHOD"),
        (lambda table: table, {"method": "fit"}, "E_ENSEMBLE_METHOD"),
        (lambda table: table, {"weights": [1]}, "E_ENSEMBLE_WEIGHTS"),
        (lambda table: table, {"weights": [0, 0]}, "E_ENSEMBLE_WEIGHTS"),
        (lambda table: table, {"weights": [1, -1]}, "E_ENSEMBLE_WEIGHTS"),
        (lambda table: table.rename(columns={"recording_id": "id"}), {}, "E_SCORE_TABLE"),
        (lambda table: table.replace({"a": {table["a"][3]: 1.5}}), {}, "E_SCORE_VALUE"),
        (lambda table: table.replace({"a": {table["a"][3]: "x"}}), {}, "E_SCORE_VALUE"),
        (lambda table: table.replace({"a": {table["a"][3]: None}}), {}, "E_SCORE_VALUE"),
        (lambda table: table.iloc[[0, *range(700)]], {}, "E_SCORE_TABLE"),
        (lambda table: table.iloc[:0], {}, "E_ENSEMBLE_MEMBERS"),
    ],
)
def test_submissions_that_cannot_be_combined_are_refused(
    submissions, tmp_path, change, options, code
):
    paths, _ = submissions
    change(read(paths[0]).astype({"a": object})).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(UserError) as error:
        ap.ensemble([paths[0], tmp_path / "other.csv"], tmp_path / "out", **options)
    assert error.value.code == code


def test_submission_twice_or_missing_is_refused(submissions, tmp_path):
    paths, _ = submissions
    for members, code in (
        ([paths[0], paths[0]], "E_ENSEMBLE_MEMBERS"),
        ([paths[0], tmp_path / "no.csv"], "E_CANNOT_READ"),
    ):
        with pytest.raises(UserError) as error:
            ap.ensemble(members, tmp_path / "out")
        assert error.value.code == code


def test_folders_of_predict_are_members_by_their_submissions(run, competition, tmp_path):
    sample = competition / "sample_submission.csv"
    for name in ("a", "b"):
        predict_to(run.model, competition / "test", tmp_path / name, submission=sample)
    made = ap.ensemble([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert made.reports == ()
    assert not made.can_predict
    table = read(made.submission)
    alone = read(tmp_path / "a" / "submission.csv")
    pd.testing.assert_frame_equal(table, alone, check_exact=False, rtol=1e-6)
    assert json.loads((tmp_path / "out" / "ensemble.json").read_text())["weights"] == [0.5, 0.5]
