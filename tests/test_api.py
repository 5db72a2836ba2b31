"""The functions of the library, on a small simulated data set and a tiny network."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import antpitta as ap
from antpitta import api
from antpitta.api import Progress, predict_to
from antpitta.core.errors import UserError
from antpitta.core.types import Classes
from antpitta.files.bundle import read_bundle
from antpitta.files.own_files import load_tensors
from antpitta.files.runs import read_scores
from antpitta.scores.prevalence import prevalence_or_mean


def test_no_function_has_the_name_of_a_module_that_would_take_its_place():
    modules = {path.stem for path in Path(api.__file__).parent.glob("*.py")}
    assert not modules & set(api.__all__)


def test_run_folder_holds_the_promised_files(run):
    names = {path.name for path in run.path.iterdir()}
    promised = {"config.json", "folds.csv", "log.csv", "oof_scores.parquet", "report.json"}
    assert promised | {"report.html", "stages", "model"} <= names
    stages = {path.name for path in (run.path / "stages").iterdir()}
    assert stages == {"crops", "masked", "pseudo", "pseudo-c2"}
    log = pd.read_csv(run.path / "log.csv")
    assert len(log) == 2 * (2 + 2 + 1 + 1)  # folds x epochs of the stages
    suffixes = {path.suffix for path in run.path.rglob("*")}
    assert not suffixes & {".pt", ".pth", ".pkl", ".checkpoint"}


def test_no_recording_is_scored_by_a_model_that_was_trained_on_it(run):
    folds = pd.read_csv(run.path / "folds.csv").set_index("recording")["fold"]
    for path in run.path.glob("stages/*/oof_scores.parquet"):
        scored = pd.read_parquet(path)[["recording", "source"]].drop_duplicates()
        assert sorted(scored["recording"]) == sorted(folds.index)
        for recording, source in scored.itertuples(index=False):
            assert source.endswith(f"fold{folds[recording]}")


def test_pseudo_labels_come_from_the_fold_that_held_the_recording_out(run):
    folds = pd.read_csv(run.path / "folds.csv").set_index("recording")["fold"]
    for stage, teacher in (("pseudo", "masked"), ("pseudo-c2", "pseudo")):
        table = pd.read_csv(run.path / "stages" / stage / "pseudo.csv")
        for recording, source in table[["recording", "source"]].itertuples(index=False):
            assert source == f"first/{teacher}/fold{folds[recording]}"


def test_report_has_each_stage_and_cycle(run):
    evaluation = ap.evaluate(run.path)
    assert sources(evaluation) == ["crops", "masked", "pseudo", "pseudo-c2"]
    assert len(evaluation.per_species) == 8
    page = (run.path / "report.html").read_text()
    assert "pseudo-c2" in page
    assert f"{evaluation.macro_auc:.3f}" in page


def test_run_is_evaluated_against_ground_truth(run, simulated):
    evaluation = ap.evaluate(run.path, simulated / "train_truth.csv")
    assert sources(evaluation) == ["crops", "masked", "pseudo", "pseudo-c2"]
    assert all(report.recordings == 12 for report in evaluation.reports)


def test_resumed_run_ends_with_the_same_weights(run, simulated, recipe, tmp_path):
    class Killed(Exception):
        pass

    epochs = 0

    def update(task, done, total, loss):
        nonlocal epochs
        epochs += "fold" in task
        if epochs == 6:  # in the middle of the second stage
            raise Killed

    data, out = ap.open_data(simulated), tmp_path / "first"
    with pytest.raises(Killed):
        ap.train(data, recipe=str(recipe), out=out, progress=Progress(lambda text: None, update))
    with pytest.raises(UserError) as error:
        ap.train(data, recipe=str(recipe), out=out)
    assert "--resume" in error.value.remedy
    resumed = ap.train(data, recipe=str(recipe), out=out, resume=True)
    for path in sorted(run.path.glob("stages/*/fold*.safetensors")):
        state = load_tensors(resumed.path / path.relative_to(run.path))[0]
        for name, tensor in load_tensors(path)[0].items():
            assert np.array_equal(tensor.numpy(), state[name].numpy()), (path, name)


def test_resume_with_another_recipe_is_refused(run, simulated, recipe):
    with pytest.raises(UserError, match="recipe"):
        ap.train(ap.open_data(simulated), str(recipe), run.path, changes=("seed=9",), resume=True)


def test_predict_writes_tables_and_quarantines_unreadable_files(run, simulated, tmp_path):
    archive = tmp_path / "archive"
    shutil.copytree(simulated / "test", archive)
    (archive / "broken.wav").write_bytes(b"RIFF....WAVE")
    (archive / "empty.flac").touch()
    prediction = predict_to(run.model, [archive], tmp_path / "out", formats=("csv", "parquet"))
    table = pd.read_csv(tmp_path / "out" / "presence.csv")
    assert list(table.columns) == ["recording_id", *(f"s{i}" for i in range(8))]
    assert list(table["recording_id"]) == [f"test{number:04d}" for number in range(4)]
    assert table.drop(columns="recording_id").to_numpy().min() > 0
    events = pd.read_csv(tmp_path / "out" / "events.csv")
    expected = [
        "file",
        "site",
        "start_time",
        "end_time",
        "clock_time",
        "low_freq",
        "high_freq",
        "species",
        "score",
        "model",
        "support",
        "verdict",
    ]
    assert list(events.columns) == expected
    assert len(pd.read_parquet(tmp_path / "out" / "events.parquet")) == len(events)
    quarantined = pd.read_csv(tmp_path / "out" / "quarantine.csv")["file"]
    assert sorted(Path(file).name for file in quarantined) == ["broken.wav", "empty.flac"]
    summary = json.loads((tmp_path / "out" / "run.json").read_text())
    assert summary["counts"] == {
        "recordings": 4,
        "events": len(prediction.events),
        "quarantined": 2,
    }
    assert summary["digest"] == read_bundle(run.model).digest


def test_predict_returns_framewise_scores(run, simulated):
    table = ap.predict(run.model, simulated / "test")
    assert table.index.names == ["file", "start_time", "end_time"]
    assert table.shape[1] == 8
    frames = table.index.to_frame()
    assert np.allclose(frames["end_time"] - frames["start_time"], 32 * 8.0 / 401)


def test_long_recording_scores_like_its_segments(run, simulated, tmp_path):
    waves = [sf.read(path)[0] for path in sorted((simulated / "test").glob("*.flac"))]
    minute = np.tile(np.concatenate(waves), 2)[: 60 * 16_000]
    for name, wave in (("short", minute), ("long", np.concatenate([minute, minute[::-1]]))):
        (tmp_path / name).mkdir()
        sf.write(tmp_path / name / f"{name}.wav", wave, 16_000)
    short, long = (ap.predict(run.model, tmp_path / name).to_numpy() for name in ("short", "long"))
    assert np.allclose(short[:90], long[:90], atol=1e-5)


def test_prevalence_rescales_presence(run, simulated, tmp_path):
    (tmp_path / "p.csv").write_text("species,prevalence\ns0,0.9\n")
    plain = predict_to(run.model, [simulated / "test"], tmp_path / "a").presence
    rescaled = predict_to(
        run.model, [simulated / "test"], tmp_path / "b", prevalence=tmp_path / "p.csv"
    ).presence
    assert rescaled["s0"].mean() == pytest.approx(0.9, abs=1e-3)
    assert np.array_equal(rescaled["s1"], plain["s1"])


def test_run_estimates_the_prevalence_of_each_species(run, simulated, tmp_path):
    table = pd.read_csv(run.path / "prevalence.csv")
    scores = read_scores(run.path / "oof_scores.parquet")
    clipwise = np.array([score.value.max(axis=0) for score in scores])
    boxes = ap.open_data(simulated).dataset.annotations
    recordings = [score.recording for score in scores]
    prevalence = prevalence_or_mean(clipwise, recordings, boxes, scores[0].classes)
    assert tuple(table["species"]) == scores[0].classes.names
    np.testing.assert_allclose(table["prevalence"], prevalence, atol=1e-6)
    predict_to(run.model, [simulated / "test"], tmp_path, prevalence=run.path / "prevalence.csv")
    presence = pd.read_csv(tmp_path / "presence.csv").drop(columns="recording_id")
    np.testing.assert_allclose(presence.mean(), prevalence, atol=1e-4)


def test_ensemble_of_two_runs_predicts(run, simulated, recipe, tmp_path):
    other = ap.train(ap.open_data(simulated), str(recipe), tmp_path / "second", changes=("seed=2",))
    for method in ("mean", "extremized", "rank", "aligned", "auc", "fit"):
        blended = ap.ensemble([run.path, other.path], tmp_path / method, method=method)
        assert sources(blended) == ["first", "second", method]
        card = (tmp_path / method / "MODEL_CARD.md").read_text()
        rows = card.partition("## Thresholds")[2].partition("## Limits")[0].count("\n| ")
        assert rows == len(read_bundle(tmp_path / method).species) + 2
        scores = ap.predict(tmp_path / method, simulated / "test")
        assert scores.shape[1] == 8
        assert np.isfinite(scores.to_numpy()).all()
        oof = pd.read_csv(tmp_path / method / "oof_blended.csv").set_index("recording_id")
        assert set(oof.index) == set(pd.read_csv(run.path / "folds.csv")["recording"])
        blend, first, second = (
            pd.read_csv(folder / "prevalence.csv").set_index("species")["prevalence"]
            for folder in (tmp_path / method, run.path, other.path)
        )
        odds = (first / (1 - first) * second / (1 - second)) ** 0.5  # the geometric mean
        np.testing.assert_allclose(blend, (odds / (1 + odds))[blend.index], atol=1e-5)
        if method == "mean":
            members = [
                {score.recording: score.value.max(axis=0) for score in read_scores(path)}
                for path in (run.path / "oof_scores.parquet", other.path / "oof_scores.parquet")
            ]
            means = [np.mean([member[name] for member in members], axis=0) for name in oof.index]
            np.testing.assert_allclose(oof.to_numpy(), means, atol=1e-5)


def test_ensemble_with_a_run_without_prevalence_estimates_its_own(run, simulated, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(run.path, tmp_path / name)
    (tmp_path / "b" / "prevalence.csv").unlink()
    ap.ensemble([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    oof = pd.read_csv(tmp_path / "out" / "oof_blended.csv").set_index("recording_id")
    boxes = ap.open_data(simulated).dataset.annotations
    expected = prevalence_or_mean(
        oof.to_numpy(), list(oof.index), boxes, Classes(tuple(oof.columns))
    )
    prevalence = pd.read_csv(tmp_path / "out" / "prevalence.csv")["prevalence"]
    np.testing.assert_allclose(prevalence, expected, atol=1e-4)


def test_ensemble_with_one_run_twice_is_refused(run, tmp_path):
    with pytest.raises(UserError) as error:
        ap.ensemble([run.path, run.path / "." / "model" / ".."], tmp_path / "out")
    assert error.value.code == "E_ENSEMBLE_MEMBERS"


def test_ensemble_replaces_nothing_but_an_unchanged_ensemble(run, simulated, tmp_path):
    for name in ("a", "b", "other"):
        shutil.copytree(run.path, tmp_path / name)
    members = [tmp_path / "a", tmp_path / "b"]
    table = tmp_path / "oof.csv"
    out = tmp_path / "out"
    ap.ensemble(members, out)
    ap.ensemble(members, out, method="rank")  # its own
    assert read_bundle(out).provenance["method"] == "rank"
    shutil.copy(out / "oof_blended.csv", table)
    places = [members[0], members[1] / "model", tmp_path / "other" / "model", tmp_path, table]
    for place in places:
        before = content_of(place)
        for combined in (members, [members[0], table]):
            with pytest.raises(UserError) as error:
                ap.ensemble(combined, place)
            code = "E_OUTPUT_NOT_WRITABLE" if place == table else "E_OUTPUT_EDITED"
            assert error.value.code == code
        assert content_of(place) == before
    (out / "my_notes").write_text("mine")
    with pytest.raises(UserError) as error:
        ap.ensemble(members, out)
    assert error.value.code == "E_OUTPUT_EDITED"
    assert (out / "my_notes").read_text() == "mine"
    assert read_bundle(out).provenance["method"] == "rank"


def content_of(path):
    """The content of a file, or of all files below a folder."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {file: file.read_bytes() for file in files if file.is_file()}


def test_table_of_scores_can_be_a_member(run, simulated, tmp_path):
    folds = pd.read_csv(run.path / "folds.csv")
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.random((len(folds), 7)), columns=[f"s{number}" for number in range(7)])
    table.insert(0, "recording_id", folds["recording"])
    table.to_csv(tmp_path / "theirs.csv", index=False)
    blended = ap.ensemble([run.path, tmp_path / "theirs.csv"], tmp_path / "out", method="auc")
    assert not blended.can_predict
    assert any("s7" in note for note in blended.notes)
    oof = pd.read_csv(tmp_path / "out" / "oof_blended.csv").set_index("recording_id")
    boxes = ap.open_data(simulated).dataset.annotations
    expected = prevalence_or_mean(
        oof.to_numpy(), list(oof.index), boxes, Classes(tuple(oof.columns))
    )
    prevalence = pd.read_csv(tmp_path / "out" / "prevalence.csv")["prevalence"]
    np.testing.assert_allclose(prevalence, expected, atol=1e-4)
    members = [tmp_path / "theirs.csv", run.path]  # the table first: weights follow the members
    blended = ap.ensemble(members, tmp_path / "weighted", weights=[1, 3])
    weight = dict(zip(blended.blend.members, blended.blend.weights[:, 0], strict=True))
    assert weight == {"theirs": 0.25, run.path.name: 0.75}
    with pytest.raises(UserError) as error:
        ap.ensemble(members, tmp_path / "out", weights=[1, 2, 3])
    assert error.value.code == "E_ENSEMBLE_WEIGHTS"
    for wrong in (-2, float("inf")):
        with pytest.raises(UserError):
            ap.ensemble(members, tmp_path / "out", weights=[1, wrong])


def test_model_holds_no_pickle_and_a_card(run):
    bundle = read_bundle(run.model)
    assert bundle.species == tuple(f"s{number}" for number in range(8))
    suffixes = {path.suffix for path in run.model.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors", ".xml", ".bin", ".md"}
    card = (run.model / "MODEL_CARD.md").read_text()
    assert "antpitta predict" in card
    assert "full inference, int8" in card


def test_check_draws_the_labels(simulated, tmp_path):
    data = ap.open_data(simulated)
    checked = ap.check(data, picture=tmp_path / "labels.png")
    assert (tmp_path / "labels.png").read_bytes()[:4] == b"\x89PNG"
    assert checked.supervision.present.sum() > 0
    (tmp_path / "labels.png").write_text("mine")
    with pytest.raises(UserError) as error:
        ap.check(data, picture=tmp_path / "labels.png")
    assert error.value.code == "E_PICTURE_EXISTS"
    assert (tmp_path / "labels.png").read_text() == "mine"
    with pytest.raises(UserError) as error:
        ap.check(data, picture=tmp_path / "labels.gif")
    assert error.value.code == "E_PICTURE_FORMAT"


def test_initialized_data_set_can_be_opened(simulated, tmp_path):
    path = ap.init(
        tmp_path,
        audio=simulated / "train",
        present=simulated / "train_tp.csv",
        absent=simulated / "train_fp.csv",
    )
    assert len(ap.open_data(path).dataset.recordings) == 12
    with pytest.raises(UserError) as error:
        ap.init(tmp_path, audio=simulated / "train")
    assert error.value.code == "E_DATA_EXISTS"


def test_init_refuses_what_check_refuses_and_writes_nothing(simulated, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    good = {"audio": simulated / "train", "present": simulated / "train_tp.csv"}
    cases = (
        ("d", {**good, "audio": tmp_path / "nowhere"}, "E_NO_FILE"),
        ("d", {**good, "audio": tmp_path / "empty"}, "E_NO_AUDIO"),
        ("d", {**good, "present": tmp_path / "nowhere.csv"}, "E_NO_FILE"),
        ("d", {"audio": simulated / "train"}, "E_NO_ANNOTATIONS"),
        ("d", {**good, "sites": simulated / "train_tp.csv"}, "E_MISSING_COLUMN"),
        ("d", {**good, "present": tmp_path / "file"}, "E_TABLE_EMPTY"),
        ("file", good, "E_OUTPUT_NOT_WRITABLE"),
        ("/proc/nowhere", good, "E_OUTPUT_NOT_WRITABLE"),
    )
    for folder, options, code in cases:
        with pytest.raises(UserError) as error:
            ap.init(tmp_path / folder, **options)
        assert error.value.code == code
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("name", ["d\x7fel", "[red]", "[", 'a"b', "a\nb"])
def test_init_with_an_odd_path_writes_what_can_be_read(simulated, tmp_path, name):
    (tmp_path / name).symlink_to(simulated)
    path = ap.init(
        tmp_path / "d" / name,
        audio=tmp_path / name / "train",
        present=tmp_path / name / "train_tp.csv",
    )
    assert len(ap.open_data(path).dataset.recordings) == 12


def test_init_with_a_path_that_is_no_text_is_refused(simulated, tmp_path):
    odd = tmp_path / "b\udcffd"
    odd.mkdir()
    (odd / "train_tp.csv").write_bytes((simulated / "train_tp.csv").read_bytes())
    with pytest.raises(UserError) as error:
        ap.init(tmp_path, audio=simulated / "train", present=odd / "train_tp.csv")
    assert error.value.code == "E_BAD_PATH"
    assert not (tmp_path / "antpitta.toml").exists()


def test_data_set_is_the_working_directory_by_default(simulated, tmp_path, monkeypatch):
    monkeypatch.chdir(simulated)
    assert len(ap.open_data().dataset.recordings) == 12
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        ap.open_data()
    assert error.value.code == "E_DATA_MISSING"


def test_data_set_that_is_given_twice_or_not_at_all_is_refused(simulated):
    with pytest.raises(UserError) as error:
        ap.open_data(simulated, audio=simulated / "train")
    assert error.value.code == "E_DATA_TWICE"
    with pytest.raises(UserError) as error:
        ap.open_data(present=simulated / "train_tp.csv")
    assert error.value.code == "E_DATA_MISSING"


def test_results_have_short_representations(run, simulated, tmp_path):
    data = ap.open_data(simulated)
    results = (
        run,
        run.run_report,
        run.run_report.stages[0],
        run.reports[0],
        ap.check(data, sound=False),
        ap.evaluate(run),
        predict_to(run.model, [simulated / "test"], tmp_path / "out"),
        ap.evaluate(tmp_path / "out", simulated / "test_truth.csv"),
    )
    for result in results:
        assert len(repr(result)) < 500, type(result)
        assert "\n" not in repr(result), type(result)


def test_speed_is_measured_in_every_precision_of_the_model(run, simulated):
    result = ap.bench([simulated / "test"], model=run.model, minutes=1)
    assert result.minutes == pytest.approx(8 * 8.0 / 60, abs=0.01)  # 8 recordings of 8 s
    assert result.table["precision"].iloc[0] == "float32"
    assert set(result.table["precision"]) <= {"float32", "bfloat16", "int8"}
    assert (result.table[["speed", "day", "first"]] > 0).all(axis=None)
    np.testing.assert_allclose(result.table["speed"] * result.table["day"], 24 * 3600)


def sources(result):
    return [report.source for report in result.reports]
