"""Evaluation of tables against ground truth, whoever wrote the names in them."""

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from antpitta import api
from antpitta.core.errors import UserError

SCORES = "recording_id,Coqui,s11\na,0.9,0.1\nb,0.2,0.8\nNA,0.3,0.4\nnull,0.5,0.6\n"


@pytest.fixture
def evaluate(tmp_path):
    def run(truth, scores=SCORES):
        (tmp_path / "scores.csv").write_bytes(scores.encode())
        (tmp_path / "truth.csv").write_bytes(truth.encode())
        return api.evaluate(tmp_path / "scores.csv", tmp_path / "truth.csv")

    return run


def test_species_and_recordings_are_matched_by_the_rule_of_names(evaluate):
    same = evaluate("recording_id,Coqui,s11\na,1,0\nb,0,1\n")
    other = evaluate("recording_id,COQUI ,11\na.wav,1,0\nB.flac,0,1\n")
    assert other.lwlrap == same.lwlrap == 1.0
    assert other.notes == same.notes == ("2 scored recordings are not in the ground truth",)


@pytest.mark.parametrize("blank", ["", " ", "NA", "nan"])
def test_blank_cells_of_the_truth_are_unknown(evaluate, blank):
    result = evaluate(f"recording_id,Coqui,s11\na,1,{blank}\nb,0,1\n")
    assert result.per_species.loc[result.per_species.species == "s11", "present"].item() == 1
    assert "1 cells of the ground truth are blank: unknown, not absent" in result.notes


def test_recordings_called_na_and_null_are_recordings(evaluate):
    assert evaluate("recording_id,Coqui\nNA,1\nnull,0\n").notes[0].startswith("2 scored recordings")


@pytest.mark.parametrize(
    ("truth", "code", "named"),
    [
        ("recording_id\na\n", "E_NO_TRUTH", "truth.csv"),
        ("recording_id,Coqui\n", "E_NO_TRUTH", "truth.csv"),
        ("recording_id,Coqui\na,\n", "E_NO_TRUTH", "truth.csv"),
        ("recording_id,Coqui\nzzz,1\n", "E_SCORES_MISSING", "scores.csv: lacks the recordings zzz"),
        ("recording_id,Coqui\na,1\na.wav,0\n", "E_SCORE_TABLE", "truth.csv"),
        ("recording_id,Coqui,coqui\na,1,1\n", "E_SCORE_TABLE", "truth.csv"),
        ("recording_id,Coqui\n,1\n", "E_SCORE_TABLE", "truth.csv"),
        ("recording_id,Coqui\na,yes\n", "E_SCORE_VALUE", "truth.csv"),
    ],
)
def test_truth_that_cannot_be_used_is_refused_by_name(evaluate, truth, code, named):
    with pytest.raises(UserError) as error:
        evaluate(truth)
    assert error.value.code == code
    assert named in error.value.what


def test_what_does_not_exist_is_named_first(tmp_path):
    (tmp_path / "scores.csv").write_text(SCORES)
    for scores, truth, missing in (
        ("nosuch", None, "nosuch"),
        ("nosuch", "neither", "nosuch"),
        ("scores.csv", "neither", "neither"),
    ):
        with pytest.raises(UserError) as error:
            api.evaluate(tmp_path / scores, None if truth is None else tmp_path / truth)
        assert error.value.code == "E_NO_FILE"
        assert missing in error.value.what


def test_line_ends_of_an_old_mac_are_line_ends(evaluate):
    assert evaluate("recording_id,Coqui,s11\ra,1,0\rb,0,1\r").lwlrap == 1.0


# ---- events

IDS = ("siteA/dawn", "siteB/dawn", "noon")


@pytest.fixture
def prediction(tmp_path):
    """What predict wrote of three recordings, two of them with one stem: a call in each."""
    out = tmp_path / "out"
    out.mkdir()
    presence = "".join(f"{id},0.9,0.9\n" for id in IDS)
    (out / "presence.csv").write_text(f"recording_id,Coqui,NA\n{presence}")
    rows = [
        (f"audio/{id}.wav", 1.0, 2.0, 0.0, 8000.0, species, 0.9, "run/pseudo", "")
        for id in IDS
        for species in ("Coqui", "NA")
    ]
    columns = ["file", "start_time", "end_time", "low_freq", "high_freq", "species", "score"]
    events = pd.DataFrame(rows, columns=[*columns, "model", "verdict"])
    for name in ("site", "clock_time"):  # columns of later versions
        events[name] = ""
    events.to_csv(out / "events.csv", index=False)
    return out


@pytest.fixture
def count_matches(tmp_path, prediction):
    def count(name_of, species=("Coqui", "NA")):
        rows = [f"{name_of(id)},1.0,2.0,{label}\n" for id in IDS for label in species]
        table = tmp_path / "calls.csv"
        table.write_text("recording,start_time,end_time,species\n" + "".join(rows))
        metrics = api.evaluate_events(prediction, table)
        return tuple(int(n) for n in metrics.iloc[-1][["tp", "fp", "fn"]]), metrics

    return count


@pytest.mark.parametrize(
    "name_of",
    [
        lambda id: id,
        lambda id: f"audio/{id}.wav",
        lambda id: f"D:\\season\\{id}.flac".replace("/", "\\"),
        lambda id: id.upper(),
    ],
)
def test_calls_of_one_stem_are_matched_by_their_folder(count_matches, name_of):
    assert count_matches(name_of, ("COQUI", "NA"))[0] == (6, 0, 0)


def test_calls_that_may_lie_in_two_recordings_are_refused(count_matches):
    with pytest.raises(UserError) as error:
        count_matches(lambda id: id.rpartition("/")[2])
    assert error.value.code == "E_AMBIGUOUS_RECORDING"
    assert "calls.csv:2" in error.value.what


def test_calls_outside_the_prediction_are_reported(count_matches):
    counts, metrics = count_matches(lambda id: id.replace("noon", "midnight"))
    assert counts == (4, 2, 0)
    assert [finding.row for finding in metrics.attrs["findings"]] == [6]


def test_absent_calls_are_no_calls(tmp_path, prediction):
    (tmp_path / "noon.selections.txt").write_text("Begin Time (s)\tEnd Time (s)\tSpecies\n")
    metrics = api.evaluate_events(prediction, tmp_path / "noon.selections.txt")
    assert metrics.iloc[-1][["tp", "fp", "fn"]].tolist() == [0, 6, 0]


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", '"', "file,start_time\nx,y\n"])
def test_damaged_table_of_events_is_refused(prediction, content):
    (prediction / "events.csv").write_text(content)
    with pytest.raises(UserError) as error:
        api.evaluate_events(prediction, prediction / "presence.csv")
    assert error.value.code == "E_EVENT_TABLE"


@pytest.mark.parametrize("journalled", [True, False])
def test_clips_as_truth_last_as_long_as_their_sound(tmp_path, monkeypatch, prediction, journalled):
    for id in IDS:
        path = tmp_path / "clips" / "Coqui" / f"{id.replace('/', '_')}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, np.zeros(8000 * 3), 8000)
    names = {f"audio/{id}.wav": f"clips/Coqui/{id.replace('/', '_')}.wav" for id in IDS}
    for table in ("events.csv", "presence.csv"):
        text = (prediction / table).read_text()
        for id in IDS:
            text = text.replace(f"audio/{id}.wav", names[f"audio/{id}.wav"])
            text = text.replace(f"{id},0.9", f"{id.replace('/', '_')},0.9")
        (prediction / table).write_text(text)
    monkeypatch.chdir(tmp_path)
    if journalled:
        lengths = dict.fromkeys(names.values(), 3.0)
        monkeypatch.setattr("antpitta.api.evaluation.read_durations", lambda folder: lengths)
    metrics = api.evaluate_events(prediction, tmp_path / "clips").set_index("species")
    assert metrics.loc["Coqui", ["tp", "fp", "fn"]].tolist() == [3, 0, 0]
    assert metrics.attrs["findings"] == ()


def test_call_without_an_end_in_a_file_that_is_not_here_is_reported(tmp_path, prediction):
    text = f"recording,start_time,end_time,species\n{IDS[1]},1,inf,Coqui\n"
    (tmp_path / "calls.csv").write_text(text + f"{IDS[0]},1,2,Coqui\n")
    findings = api.evaluate_events(prediction, tmp_path / "calls.csv").attrs["findings"]
    assert [finding.row for finding in findings if finding.serious] == [2]
