"""Rounds: verdicts of a queue train the next model and judge the models of all rounds."""

import json
import shutil
import uuid

import numpy as np
import pandas as pd
import pytest

import antpitta as ap
from antpitta import api
from antpitta.api import rounds
from antpitta.api.round_scores import JudgedRecording, find_rounds, score_verdicts
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Classes, Scores
from antpitta.files.audio import content_key
from antpitta.files.bundle import read_bundle
from antpitta.files.recordings import find_recordings
from antpitta.files.runs import RunFolder
from antpitta.review.audits import species_threshold
from antpitta.review.rounds import round_verdicts
from antpitta.review.store import Store
from antpitta.scores.learning_curve import align_scores
from antpitta.train import training

NEW = "heron"  # a species that the first model does not know


def calls(simulated):
    """Every call of the test recordings: recording, species, start, end, low, high."""
    table = pd.read_csv(simulated / "test_events.csv")
    names = ["recording_id", "t_min", "t_max", "f_min", "f_max"]
    return [(f"s{row.species_id}", *(getattr(row, name) for name in names))
            for row in table.itertuples()]  # fmt: skip


def make_queue(folder, simulated, audio):
    """Candidates of all calls, and of the same seconds under the name of another species."""
    recordings = {own.id: own for own in find_recordings([audio]).recordings}
    rows = []
    for i, (species, name, start, end, low, high) in enumerate(calls(simulated)):
        for label in (species, f"s{(int(species[1:]) + 4) % 8}", NEW)[: 3 if i < 4 else 2]:
            rows.append(
                {
                    "recording_id": name, "recording_digest": content_key(recordings[name].path),
                    "start_time": start, "end_time": end, "low_freq": low, "high_freq": high,
                    "species": label, "score": 0.5, "source": "predict", "source_digest": "m" * 32,
                    "site": None, "recorded_at": None, "path": str(recordings[name].path),
                }
            )  # fmt: skip
    with Store.open(folder, create=True) as store:
        store.add_candidates(pd.DataFrame(rows))
    return folder


def judge(queue, simulated, reviewer="ada", keep=lambda row: True, verdict=None):
    """A verdict on candidates, true ones where none is given."""
    truth = {(species, name, start) for species, name, start, *_ in calls(simulated)}
    with Store.open(queue) as store:
        own = store.add_reviewer(reviewer)
        events = [
            {
                "uuid": str(uuid.uuid4()), "kind": "verdict", "region": row["region"],
                "species": row["species"], "verdict": verdict or (
                    "present" if row["species"] == NEW
                    or (row["species"], row["recording_id"], row["start_time"]) in truth
                    else "absent"
                ),
            }
            for row in store.candidates() if keep(row)
        ]  # fmt: skip
        store.append_events(events, own)
    return len(events)


@pytest.fixture(scope="module")
def audio(simulated):
    return simulated / "test"


@pytest.fixture(scope="module")
def queue(tmp_path_factory, simulated, audio):
    """A queue whose candidates all have the true verdict, but for three in test0003."""
    queue = make_queue(tmp_path_factory.mktemp("round") / "queue", simulated, audio)
    judge(queue, simulated, keep=lambda row: row["recording_id"] != "test0003")
    with Store.open(queue) as store:
        rows = [row for row in store.candidates() if row["recording_id"] == "test0003"]
        audited, unsure, conflict = rows[0], rows[2], rows[4]
        item = {"candidate": audited["candidate"], "stratum": "a", "inclusion_p": 0.5}
        store.create_draw("audit", "test", 0, [item], model_digest="m" * 32)
    for row, verdicts in (
        (audited, [None]),
        (unsure, ["unsure"]),
        (conflict, ["present", "absent"]),
    ):
        for reviewer, verdict in zip(("ada", "bo"), verdicts, strict=False):
            judge(queue, simulated, reviewer, verdict=verdict,
                  keep=lambda own, row=row: own["candidate"] == row["candidate"])  # fmt: skip
    return queue


@pytest.fixture(scope="module")
def second(run, queue, tmp_path_factory, low_thresholds):
    """The first round after ``train``."""
    with low_thresholds():
        return ap.round(run.path, queue, tmp_path_factory.mktemp("round") / "second")


def test_round_trains_on_agreed_verdicts_beside_the_tables_of_the_run(second, run, queue):
    before, after = RunFolder(run.path).cells(), RunFolder(second.path).cells()
    table = pd.read_csv(second.path / "verdicts.csv")
    assert set(table["verdict"].dropna()) == {"present", "absent"}
    assert second.trained == table["verdict"].notna().sum()
    assert len(after) == len(before) + second.trained
    added = after[~after["recording"].isin(before["recording"])]
    assert set(added["recording"]) == {"test0000", "test0001", "test0002"}
    row = table.iloc[0]
    box = added[(added["start"] == row["start_time"]) & (added["species"] == row["species"])]
    assert box[["stop", "low", "high"]].iloc[0].tolist() == [
        row["end_time"], row["low_freq"], row["high_freq"]
    ]  # fmt: skip
    assert NEW in set(after["species"])
    assert NEW in read_bundle(second.model).species


def test_audits_judge_and_do_not_train_and_what_is_unknown_does_neither(second):
    table = pd.read_csv(second.path / "verdicts.csv")
    (held,) = table[table["held_verdict"].notna()].to_dict("records")
    assert held["recording"] == "test0003"
    assert pd.isna(held["verdict"])
    assert second.judging == second.trained + 1
    assert set(table.loc[table["recording"] == "test0003", "status"]) == {"audit"}
    assert "test0003" in RunFolder(second.path).folds()  # it is scored out of fold as well
    audit = second.curve[second.curve["verdicts"] == "audit"]
    assert audit["present"].sum() + audit["absent"].sum() == 4  # a species and the mean, twice


def test_verdicts_are_scored_by_one_network_and_by_the_one_that_held_the_recording_out(
    run, simulated, audio
):
    folder, silent = RunFolder(run.path), Progress(lambda text: None, lambda *words: None)
    classes = Classes(read_bundle(run.model).species)
    new = find_recordings([audio]).recordings[0]
    by_network = [
        score_verdicts(folder, [JudgedRecording(new, digest, new.id, True)], classes, silent)[0]
        for digest in ("00", "01", "02")
    ]
    first, second, third = (own.value for own in by_network)
    assert np.array_equal(first, third)  # of two folds
    assert not np.allclose(first, second)
    both = ap.predict(run.model, new.path)
    assert np.allclose((first + second) / 2, both.to_numpy(), atol=1e-3)
    old = find_recordings([simulated / "train"]).recordings[0]
    (scores,) = score_verdicts(folder, [JudgedRecording(old, "00", "x", False)], classes, silent)
    (held_out,) = (own for own in folder.scores() if own.recording == old.id)
    assert np.array_equal(scores.value, held_out.value)


def test_model_that_does_not_know_a_species_scores_it_alike():
    grid = TimeGrid(hop=1.0, frames=3)
    scores = Scores("r", grid, Classes(("Wren", "s2")), np.arange(6.0).reshape(3, 2), "m")
    aligned = align_scores(scores, Classes(("heron", "s2", "wren")), not_learnable=["s2"])
    assert aligned.value.tolist() == [[0, 0, 0], [0, 0, 2], [0, 0, 4]]


def test_curve_has_both_models_on_the_same_verdicts_and_chance_for_an_unknown_species(second, run):
    curve = pd.read_csv(second.path / "learning_curve.csv")
    every = curve[curve["verdicts"] == "all"]
    mean = every[every["species"] == "*"].set_index("round")
    assert mean.index.tolist() == [0, 1]
    assert mean["run"].tolist() == [run.path.name, second.path.name]
    assert (
        mean.loc[0, ["present", "absent"]].tolist() == mean.loc[1, ["present", "absent"]].tolist()
    )
    assert mean.loc[1, "trained_present"] > mean.loc[0, "trained_present"]
    new = every[every["species"] == NEW].set_index("round")
    assert new["trained_present"].tolist() == [0, 4]
    own = every[every["species"] == "s1"].set_index("round")
    assert own["ap"].notna().all()
    assert "macro AP" in second.sentences[0]
    assert "against the model before" in second.sentences[0]


def test_runs_that_were_moved_together_are_found_again(second, run, tmp_path):
    for path in (run.path, second.path):
        shutil.copytree(path / "model", tmp_path / path.name / "model")
        for name in ("round.json", "report.json", "config.json"):
            if (path / name).is_file():
                shutil.copy(path / name, tmp_path / path.name)
    note = json.loads((second.path / "round.json").read_text())
    note["run"] = f"/gone/{run.path.name}"
    (tmp_path / second.path.name / "round.json").write_text(json.dumps(note))
    runs, notes = find_rounds(RunFolder(tmp_path / second.path.name))
    assert [(number, own.path.name) for number, own in runs] == [(0, "first"), (1, "second")]
    assert notes == []
    (tmp_path / run.path.name / "model" / "bundle.json").unlink()
    runs, notes = find_rounds(RunFolder(tmp_path / second.path.name))
    assert [number for number, _ in runs] == [1]
    assert len(notes) == 1


def test_report_draws_the_curve(second):
    page = (second.path / "report.html").read_text()
    assert "Rounds of review" in page
    assert second.sentences[0] in page
    report = json.loads((second.path / "report.json").read_text())
    assert report["rounds"] == list(second.sentences)


def test_command_without_new_verdicts_is_refused_and_with_one_makes_the_next_round(
    second, queue, simulated, antpitta, tmp_path, low_thresholds
):
    words = ("round", second.path, queue, "-o", tmp_path / "third")
    code, _, error = antpitta(*words)
    assert (code, "[E_NO_VERDICTS]" in error) == (2, True)
    assert not (tmp_path / "third").exists()
    judge(queue, simulated, "cy", keep=lambda row: row["recording_id"] == "test0003")
    with low_thresholds():
        code, printed, _ = antpitta(*words)
    assert code == 0
    curve = pd.read_csv(tmp_path / "third" / "learning_curve.csv")
    mean = curve[(curve["species"] == "*") & (curve["verdicts"] == "all")]
    assert mean["round"].tolist() == [0, 1, 2]
    assert mean["run"].tolist()[1:] == ["second", "third"]
    assert str(tmp_path / "third" / "report.html") in printed
    assert "macro AP" in printed


def test_released_audit_trains_the_next_model(run, queue, tmp_path, monkeypatch, simulated):
    copy = shutil.copytree(queue, tmp_path / "queue")
    with pytest.raises(UserError) as error:
        ap.round(run.path, copy, tmp_path / "run2", release=[7])
    assert error.value.code == "E_NO_DRAW"
    opened = []
    monkeypatch.setattr(rounds, "train", lambda data, *words, **options: opened.append(data) or 1)
    monkeypatch.setattr(rounds, "_judge", lambda data, result, progress: data)
    held = ap.round(run.path, queue, tmp_path / "run2")
    free = ap.round(run.path, copy, tmp_path / "run3", release=[1])
    assert (held.table["held_verdict"] != "").sum() >= 1
    assert (free.table["held_verdict"] != "").sum() == 0
    counts = [len(data.dataset.annotations) for data in opened]
    assert counts[1] - counts[0] == (held.table["held_verdict"] != "").sum()


def test_other_candidates_of_an_audited_sound_do_not_train():
    place = {"recording_digest": "d", "low_freq": 0.0, "high_freq": None, "recording": "r"}
    rows = [
        {**place, "species": species, "start_time": start, "end_time": start + 2.0,
         "verdict": verdict, "held_verdict": held}
        for species, start, verdict, held in (
            ("wren", 1.0, "", "present"), ("Wren", 2.5, "present", ""),
            ("wren", 3.0, "absent", ""), ("robin", 1.0, "absent", ""),
        )
    ]  # fmt: skip
    table = round_verdicts(rows)
    assert table["verdict"].tolist() == ["", "", "absent", "absent"]
    assert table["held_verdict"].tolist() == ["present", "present", "", ""]


def test_resumed_round_keeps_the_verdicts_that_it_began_with(
    run, queue, simulated, tmp_path, monkeypatch
):
    class Stopped(Exception):
        pass

    def stop(*arguments):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_stages", stop)
        with pytest.raises(Stopped):
            ap.round(run.path, queue, tmp_path / "run2")
    before = (tmp_path / "run2" / "verdicts.csv").read_bytes()
    with Store.open(queue) as store:
        row = next(iter(store.candidates()))
        store.add_species("late")
        store.append_events(
            [{"uuid": str(uuid.uuid4()), "kind": "verdict", "region": row["region"],
              "species": "late", "verdict": "present"}],
            store.add_reviewer("ada"),
        )  # fmt: skip
    with pytest.raises(UserError) as error:
        ap.round(run.path, queue, tmp_path / "run2")
    assert error.value.code == "E_RUN_EXISTS"
    result = ap.round(run.path, queue, tmp_path / "run2", resume=True)
    assert (tmp_path / "run2" / "verdicts.csv").read_bytes() == before
    assert "late" not in set(result.curve["species"])


def test_verdicts_without_their_recording_are_left_out_and_reported(
    run, simulated, audio, tmp_path, low_thresholds
):
    queue = make_queue(tmp_path / "queue", simulated, audio)
    judge(queue, simulated)
    (tmp_path / "here").mkdir()
    for name in ("test0000", "test0001"):
        (tmp_path / "here" / f"{name}.flac").write_bytes((audio / f"{name}.flac").read_bytes())
    with low_thresholds():
        result = ap.round(run.path, queue, tmp_path / "run2", audio=tmp_path / "here")
    assert [finding.code for finding in result.findings] == ["W_NO_AUDIO"]
    assert set(pd.read_csv(result.path / "verdicts.csv")["recording"]) == {"test0000", "test0001"}


def test_audit_of_a_model_is_scored_anew_by_the_next_one_or_refused(
    run, simulated, audio, tmp_path, low_thresholds
):
    queue = tmp_path / "queue"
    api.predict_to(run.model, [audio], tmp_path / "out", threshold=0.05)
    ap.candidates(tmp_path / "out", queue, audio=audio, audit=2, teach=10)
    with Store.open(queue) as store:
        held = {row["candidate"] for row in store.audit_rows()}
        asked = {item["candidate"] for item in store.draw_items(2, limit=100)}
    assert len(asked) > 2
    assert not held & asked
    judge(queue, simulated, keep=lambda row: row["candidate"] in held | asked)
    with low_thresholds():
        result = ap.round(run.path, queue, tmp_path / "second")
    assert result.judging - result.trained >= len(held)
    assert not set(zip(*held_places(queue, held), strict=True)) & set(
        RunFolder(result.path)
        .cells()[["recording", "species", "start"]]
        .itertuples(index=False, name=None)
    )
    api.predict_to(result.model, [audio], tmp_path / "out2", threshold=0.2)
    before = api.evaluate_audits(queue, 0.5, predicted=tmp_path / "out")
    after = api.evaluate_audits(queue, 0.5, predicted=tmp_path / "out2")
    digest = read_bundle(result.model).digest
    assert set(before.thresholds["model"]) == {read_bundle(run.model).digest}
    assert set(after.thresholds["model"]) == {digest}
    assert len(after.thresholds) + len(after.refused) == len(before.thresholds)
    with Store.open(queue) as store:
        species = before.thresholds["species"].iloc[0]
        assert species_threshold(store, species, 0.5)["model"] != digest
        with pytest.raises(UserError) as error:
            species_threshold(store, species, 0.5, {read_bundle(run.model).digest})
        assert error.value.code == "E_AUDIT_MODEL"
        store.release_draw(1)
    with pytest.raises(UserError) as error:
        api.evaluate_audits(queue, 0.5, predicted=tmp_path / "out2")
    assert error.value.code == "E_AUDIT_MODEL"


def held_places(queue, held):
    with Store.open(queue) as store:
        rows = [row for row in store.audit_rows() if row["candidate"] in held]
    return ([row[name] for row in rows] for name in ("recording_id", "species", "start_time"))


def test_round_is_refused_before_anything_is_written(run, simulated, audio, tmp_path):
    queue = make_queue(tmp_path / "queue", simulated, audio)
    out = tmp_path / "run2"
    with pytest.raises(UserError) as error:
        ap.round(run.path, queue, out)
    assert error.value.code == "E_NO_VERDICTS"
    with pytest.raises(UserError) as error:
        ap.round(tmp_path, queue, out)
    assert error.value.code == "E_NO_RUN"
    judge(queue, simulated)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "other.flac").write_bytes((audio / "test0000.flac").read_bytes())
    with pytest.raises(UserError) as error:
        ap.round(run.path, queue, out, audio=tmp_path / "empty")
    assert error.value.code == "E_NO_MATCHING_AUDIO"
    assert not out.exists()
