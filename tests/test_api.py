"""The verbs, on a small simulated data set and a tiny network."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import antpitta as ap
from antpitta.api import predict_to
from antpitta.core.errors import UserError
from antpitta.core.types import Classes
from antpitta.files.bundle import read_bundle
from antpitta.files.runs import load_tensors, read_scores
from antpitta.scores.prevalence import prevalence_per_member


def test_a_run_leaves_what_the_house_promises(run):
    names = {path.name for path in run.path.iterdir()}
    promised = {"config.json", "folds.csv", "log.csv", "oof_scores.parquet", "report.json"}
    assert promised | {"report.html", "stages", "model"} <= names
    stages = {path.name for path in (run.path / "stages").iterdir()}
    assert stages == {"crops", "masked", "pseudo", "pseudo-c2"}
    log = pd.read_csv(run.path / "log.csv")
    assert len(log) == 2 * (2 + 2 + 1 + 1)  # folds x epochs of the stages
    assert not [
        p for p in run.path.rglob("*") if p.suffix in (".pt", ".pth", ".pkl", ".checkpoint")
    ]


def test_no_recording_is_scored_by_a_model_that_trained_on_it(run):
    folds = pd.read_csv(run.path / "folds.csv").set_index("recording")["fold"]
    for path in run.path.glob("stages/*/oof_scores.parquet"):
        scored = pd.read_parquet(path)[["recording", "source"]].drop_duplicates()
        assert sorted(scored["recording"]) == sorted(folds.index)
        for recording, source in scored.itertuples(index=False):
            assert source.endswith(f"fold{folds[recording]}")


def test_pseudo_labels_name_the_fold_that_never_saw_the_recording(run):
    folds = pd.read_csv(run.path / "folds.csv").set_index("recording")["fold"]
    for stage, teacher in (("pseudo", "masked"), ("pseudo-c2", "pseudo")):
        table = pd.read_csv(run.path / "stages" / stage / "pseudo.csv")
        for recording, source in table[["recording", "source"]].itertuples(index=False):
            assert source == f"first/{teacher}/fold{folds[recording]}"


def test_the_report_tells_each_stage_and_cycle(run):
    report = ap.evaluate(run.path)
    assert [one.source for one in report.reports] == ["crops", "masked", "pseudo", "pseudo-c2"]
    assert len(report.per_species) == 8
    page = (run.path / "report.html").read_text()
    assert "pseudo-c2" in page
    assert f"{report.reports[-1].macro_auc.value:.3f}" in page


def test_evaluate_holds_a_run_against_whole_truth(run, scapes):
    found = ap.evaluate(run.path, scapes / "train_truth.csv")
    assert [one.source for one in found.reports] == ["crops", "masked", "pseudo", "pseudo-c2"]
    assert all(one.recordings == 12 for one in found.reports)


def test_resume_goes_on_after_a_kill_and_ends_with_the_same_weights(run, scapes, recipe, tmp_path):
    class Killed(Exception):
        pass

    ticks = 0

    def tick(what, done, total, loss):
        nonlocal ticks
        ticks += "fold" in what
        if ticks == 6:  # in the middle of the second stage
            raise Killed

    from antpitta.api import Progress

    data, out = ap.open_data(scapes), tmp_path / "first"
    with pytest.raises(Killed):
        ap.train(data, recipe=str(recipe), out=out, progress=Progress(lambda text: None, tick))
    with pytest.raises(UserError, match="--resume"):
        ap.train(data, recipe=str(recipe), out=out)
    again = ap.train(data, recipe=str(recipe), out=out, resume=True)
    for path in sorted(run.path.glob("stages/*/fold*.safetensors")):
        ours = load_tensors(again.path / path.relative_to(run.path))[0]
        for name, value in load_tensors(path)[0].items():
            assert np.array_equal(value.numpy(), ours[name].numpy()), (path, name)


def test_resume_refuses_another_recipe(run, scapes, recipe):
    with pytest.raises(UserError, match="another recipe"):
        ap.train(ap.open_data(scapes), str(recipe), run.path, changes=("seed=9",), resume=True)


def test_predict_writes_the_competition_layout_and_quarantines_the_rest(run, scapes, tmp_path):
    from antpitta.api import predict_to

    archive = tmp_path / "archive"
    shutil.copytree(scapes / "test", archive)
    (archive / "broken.wav").write_bytes(b"RIFF....WAVE")
    (archive / "empty.flac").touch()
    found = predict_to(run.model, [archive], tmp_path / "out", formats=("csv", "parquet"))
    table = pd.read_csv(tmp_path / "out" / "presence.csv")
    assert list(table.columns) == ["recording_id", *(f"s{i}" for i in range(8))]
    assert list(table["recording_id"]) == [f"test{i:04d}" for i in range(4)]
    assert table.drop(columns="recording_id").to_numpy().min() > 0
    events = pd.read_csv(tmp_path / "out" / "events.csv")
    expected = [
        "file",
        "start_time",
        "end_time",
        "low_freq",
        "high_freq",
        "species",
        "score",
        "model",
    ]
    assert list(events.columns) == expected
    assert len(pd.read_parquet(tmp_path / "out" / "events.parquet")) == len(events)
    assert sorted(
        pd.read_csv(tmp_path / "out" / "quarantine.csv")["file"].map(
            lambda name: name.rpartition("/")[2]
        )
    ) == ["broken.wav", "empty.flac"]
    note = json.loads((tmp_path / "out" / "run.json").read_text())
    assert note["counts"] == {"recordings": 4, "events": len(found.events), "quarantined": 2}
    assert note["digest"] == read_bundle(run.model).digest


def test_predict_returns_framewise_scores_whose_maximum_folds_agree_on(run, scapes):
    table = ap.predict(run.model, scapes / "test")
    assert table.index.names == ["file", "start_time", "end_time"]
    assert table.shape[1] == 8
    spans = table.index.to_frame()
    assert np.allclose(spans["end_time"] - spans["start_time"], 32 * 8.0 / 401)


def test_a_long_recording_scores_as_its_minutes_do(run, scapes, tmp_path):
    waves = [sf.read(path)[0] for path in sorted((scapes / "test").glob("*.flac"))]
    minute = np.tile(np.concatenate(waves), 2)[: 60 * 16_000]
    for name, wave in (("one", minute), ("two", np.concatenate([minute, minute[::-1]]))):
        (tmp_path / name).mkdir()
        sf.write(tmp_path / name / f"{name}.wav", wave, 16_000)
    one, two = (ap.predict(run.model, tmp_path / name).to_numpy() for name in ("one", "two"))
    assert np.allclose(one[:90], two[:90], atol=1e-5)


def test_prevalences_move_the_odds(run, scapes, tmp_path):
    (tmp_path / "p.csv").write_text("species,prevalence\ns0,0.9\n")
    plain = predict_to(run.model, [scapes / "test"], tmp_path / "a").presence
    moved = predict_to(
        run.model, [scapes / "test"], tmp_path / "b", prevalence=tmp_path / "p.csv"
    ).presence
    assert moved["s0"].mean() == pytest.approx(0.9, abs=1e-3)
    assert np.array_equal(moved["s1"], plain["s1"])


def test_a_run_says_how_often_it_believes_each_species_is_there(run, scapes, tmp_path):
    table = pd.read_csv(run.path / "prevalence.csv")
    scores = read_scores(run.path / "oof_scores.parquet")
    highest = np.array([one.value.max(axis=0) for one in scores])
    said = ap.open_data(scapes).dataset.annotations
    share = prevalence_per_member(
        highest, [one.recording for one in scores], said, scores[0].classes
    )
    assert tuple(table["species"]) == scores[0].classes.names
    np.testing.assert_allclose(table["prevalence"], share, atol=1e-6)
    assert not np.allclose(share, highest.mean(axis=0), atol=0.01)
    predict_to(run.model, [scapes / "test"], tmp_path, prevalence=run.path / "prevalence.csv")
    found = pd.read_csv(tmp_path / "presence.csv").drop(columns="recording_id")
    np.testing.assert_allclose(found.mean(), share, atol=1e-4)


def test_an_ensemble_of_two_runs_listens(run, scapes, recipe, tmp_path):
    other = ap.train(ap.open_data(scapes), str(recipe), tmp_path / "second", changes=("seed=2",))
    for method in ("mean", "extremized", "rank", "auc", "fit"):
        blended = ap.ensemble([run.path, other.path], tmp_path / method, method=method)
        assert [one.source for one in blended.reports] == ["first", "second", method]
        heard = ap.predict(tmp_path / method, scapes / "test")
        assert heard.shape[1] == 8
        assert np.isfinite(heard.to_numpy()).all()
        oof = pd.read_csv(tmp_path / method / "oof_blended.csv").set_index("recording_id")
        assert set(oof.index) == set(pd.read_csv(run.path / "folds.csv")["recording"])
        share = pd.read_csv(tmp_path / method / "prevalence.csv").set_index("species")["prevalence"]
        own = [
            pd.read_csv(one / "prevalence.csv").set_index("species")["prevalence"]
            for one in (run.path, other.path)
        ]
        odds = (own[0] / (1 - own[0]) * own[1] / (1 - own[1])) ** 0.5  # the geometric mean
        np.testing.assert_allclose(share, (odds / (1 + odds))[share.index], atol=1e-5)
        if method == "mean":
            members = [read_scores(one / "oof_scores.parquet") for one in (run.path, other.path)]
            highest = [{one.recording: one.value.max(axis=0) for one in own} for own in members]
            wanted = [np.mean([own[name] for own in highest], axis=0) for name in oof.index]
            np.testing.assert_allclose(oof.to_numpy(), wanted, atol=1e-5)


def test_an_ensemble_with_a_run_that_believes_nothing_asks_its_own_scores(run, scapes, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(run.path, tmp_path / name)
    (tmp_path / "b" / "prevalence.csv").unlink()
    ap.ensemble([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    oof = pd.read_csv(tmp_path / "out" / "oof_blended.csv").set_index("recording_id")
    said = ap.open_data(scapes).dataset.annotations
    wanted = prevalence_per_member(
        oof.to_numpy(), list(oof.index), said, Classes(tuple(oof.columns))
    )
    share = pd.read_csv(tmp_path / "out" / "prevalence.csv")["prevalence"]
    np.testing.assert_allclose(share, wanted, atol=1e-4)


def test_the_same_run_twice_is_no_ensemble(run, tmp_path):
    with pytest.raises(UserError, match=r"first: is named twice; name each member once"):
        ap.ensemble([run.path, run.path / "." / "model" / ".."], tmp_path / "out")


def test_a_table_of_scores_can_be_a_member(run, scapes, tmp_path):
    folds = pd.read_csv(run.path / "folds.csv")
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.random((len(folds), 7)), columns=[f"s{i}" for i in range(7)])
    table.insert(0, "recording_id", folds["recording"])
    table.to_csv(tmp_path / "theirs.csv", index=False)
    blended = ap.ensemble([run.path, tmp_path / "theirs.csv"], tmp_path / "out", method="auc")
    assert not blended.listens
    assert any("does not know s7" in note for note in blended.notes)
    oof = pd.read_csv(tmp_path / "out" / "oof_blended.csv").set_index("recording_id")
    said = ap.open_data(scapes).dataset.annotations
    wanted = prevalence_per_member(
        oof.to_numpy(), list(oof.index), said, Classes(tuple(oof.columns))
    )
    share = pd.read_csv(tmp_path / "out" / "prevalence.csv")["prevalence"]
    np.testing.assert_allclose(share, wanted, atol=1e-4)
    members = [tmp_path / "theirs.csv", run.path]  # a table before a run: weights go along
    blended = ap.ensemble(members, tmp_path / "weighted", weights=[1, 3])
    weight = dict(zip(blended.blend.members, blended.blend.weights[:, 0], strict=True))
    assert weight == {"theirs": 0.25, run.path.name: 0.75}
    with pytest.raises(UserError, match="3 weights for 2 members"):
        ap.ensemble(members, tmp_path / "out", weights=[1, 2, 3])
    with pytest.raises(UserError, match="not negative"):
        ap.ensemble(members, tmp_path / "out", weights=[1, -2])
    with pytest.raises(UserError, match="finite"):
        ap.ensemble(members, tmp_path / "out", weights=[1, float("inf")])


def test_the_bundle_holds_no_pickle_and_a_card(run):
    bundle = read_bundle(run.model)
    assert bundle.species == tuple(f"s{i}" for i in range(8))
    suffixes = {path.suffix for path in run.model.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors", ".xml", ".bin", ".md"}
    card = (run.model / "MODEL_CARD.md").read_text()
    assert "antpitta predict" in card
    assert "full inference, int8" in card


def test_check_draws_what_supervises_what(scapes, tmp_path):
    found = ap.check(ap.open_data(scapes), picture=tmp_path / "sup.png")
    assert (tmp_path / "sup.png").read_bytes()[:4] == b"\x89PNG"
    assert found.supervision.present.sum() > 0


def test_init_writes_a_data_set_that_opens(scapes, tmp_path):
    path = ap.init(
        tmp_path,
        audio=scapes / "train",
        present=scapes / "train_tp.csv",
        absent=scapes / "train_fp.csv",
    )
    assert len(ap.open_data(path).dataset.recordings) == 12
    with pytest.raises(UserError, match="is there already"):
        ap.init(tmp_path, audio=scapes / "train")
