"""The commands: what they print, what they write, and how they end."""

import shutil
import sys

import pandas as pd
import pytest

from antpitta import api
from antpitta.cli import main


@pytest.fixture
def antpitta(monkeypatch, capsys):
    """Run a command line; gives its exit code and what it printed."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["antpitta", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return run


def test_a_mistake_is_one_line_with_its_remedy_and_ends_with_2(antpitta, tmp_path):
    code, _, err = antpitta("train", "--audio", tmp_path / "nowhere", "-o", tmp_path / "run")
    assert code == 2
    assert err.count("\n") == 1
    assert "nowhere" in err
    assert ";" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "nowhere", "nothing", "-o", "out"], "is no model"),
        (["evaluate", "nowhere.csv", "--truth", "x.csv"], "no such file or run"),
        (["train", "-o", "run"], "no recordings"),
        (["check", "nowhere"], "nowhere"),
    ],
)
def test_every_command_refuses_what_is_not_there(antpitta, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = antpitta(*words)
    assert code == 2
    assert said in err


@pytest.mark.parametrize(
    ("verb", "words"),
    [("train", ["train", "data", "-o", "run"]), ("predict_to", ["predict", "m", "a", "-o", "out"])],
)
def test_what_is_stopped_by_hand_says_how_to_go_on(antpitta, monkeypatch, verb, words):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "open_data", lambda *_, **__: None)
    monkeypatch.setattr(api, verb, stopped)
    code, out, err = antpitta(*words)
    assert code == 130
    assert out == "stopped; the same command with --resume goes on from here\n"
    assert err == ""


def test_check_ends_with_1_where_a_finding_is_serious(antpitta, scapes, tmp_path):
    assert antpitta("check", scapes)[0] == 0
    bad = tmp_path / "bad.csv"
    table = pd.read_csv(scapes / "train_tp.csv")
    table.loc[2, ["t_min", "t_max"]] = [5.0, 4.0]
    table.to_csv(bad, index=False)
    code, out, _ = antpitta(
        "check", "--audio", scapes / "train", "--present", bad, "-o", tmp_path / "s.svg"
    )
    assert code == 1
    assert "bad.csv:4" in out.replace("\n", "")
    assert (tmp_path / "s.svg").is_file()


def test_train_says_what_it_does_and_where_the_model_is(antpitta, scapes, recipe, tmp_path):
    words = ["--recipe", recipe, "--set", "stages.crops.epochs=1", "-o", tmp_path / "run"]
    code, out, _ = antpitta("train", scapes, *words)
    assert code == 0
    assert "12 recordings, 8 species" in out
    assert "out of fold" in out
    assert str(tmp_path / "run" / "model") in out
    code, _, err = antpitta("train", scapes, *words)
    assert code == 2
    assert "--resume" in err


def test_rows_without_audio_are_counted_and_not_fatal(antpitta, scapes, recipe, tmp_path):
    audio = tmp_path / "audio"
    shutil.copytree(scapes / "train", audio)
    (audio / "train0003.flac").unlink()
    tables = ["--present", scapes / "train_tp.csv", "--absent", scapes / "train_fp.csv"]
    words = ["--recipe", recipe, "-o", tmp_path / "run"]
    code, out, _ = antpitta("train", "--audio", audio, *tables, *words)
    assert code == 0
    assert "rows name recordings that are not here" in out
    code, out, _ = antpitta("evaluate", tmp_path / "run")
    assert code == 0
    assert "pseudo-c2" in out


def test_predict_then_evaluate_with_calls_in_time(antpitta, run, scapes, tmp_path):
    code, out, _ = antpitta("predict", run.model, scapes / "test", "-o", tmp_path / "out")
    assert code == 0
    assert "4 recordings" in out
    code, out, _ = antpitta(
        "evaluate",
        tmp_path / "out",
        "--truth",
        scapes / "test_truth.csv",
        "--events",
        scapes / "test_events.csv",
    )
    assert code == 0
    assert "presence.csv" in out
    assert "event F1" in out


def test_predict_ends_with_1_where_a_file_was_left_out(antpitta, run, scapes, tmp_path):
    archive = tmp_path / "archive"
    shutil.copytree(scapes / "test", archive)
    (archive / "zero.wav").touch()
    code, out, _ = antpitta("predict", run.path, archive, "-o", tmp_path / "out")
    assert code == 1
    assert "quarantine.csv" in out.replace("\n", "")


def test_ensemble_prints_members_and_blend(antpitta, run, scapes, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    code, out, _ = antpitta(
        "ensemble", run.path, tmp_path / "copy", "-o", tmp_path / "both", "--method", "auc"
    )
    assert code == 0
    assert "copy" in out
    assert (tmp_path / "both" / "bundle.json").is_file()


def test_members_are_weighed_by_hand(antpitta, run, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    code, _, _ = antpitta(
        *("ensemble", run.path, tmp_path / "copy", "-o", tmp_path / "both"),
        *("--method", "extremized", "--weight", "1", "--weight", "2"),
    )
    assert code == 0
    assert "weight 2" in (tmp_path / "both" / "MODEL_CARD.md").read_text()


def test_init_then_check(antpitta, scapes, tmp_path):
    code, out, _ = antpitta(
        "init", tmp_path, "--audio", scapes / "train", "--present", scapes / "train_tp.csv"
    )
    assert code == 0
    assert "antpitta.toml" in out
    assert antpitta("check", tmp_path, "--no-sound")[0] == 0


def test_simulate_from_clips(antpitta, scapes, tmp_path):
    import numpy as np
    import soundfile as sf

    rng = np.random.default_rng(1)
    for name, pitch in (("low", 900), ("high", 2600)):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for i in range(3):
            time = np.arange(16_000) / 16_000
            call = np.sin(2 * np.pi * pitch * time) * (np.sin(2 * np.pi * 6 * time) > 0)
            sf.write(tmp_path / "clips" / name / f"{i}.wav", 0.5 * call, 16_000)
    (tmp_path / "beds").mkdir()
    for i in range(3):
        sf.write(tmp_path / "beds" / f"{i}.wav", 0.01 * rng.standard_normal(64_000), 16_000)
    code, out, _ = antpitta(
        "simulate", tmp_path / "clips", tmp_path / "beds", "-o", tmp_path / "data",
        "--train", 4, "--test", 2, "--seconds", 8, "--rate", 16_000,
    )  # fmt: skip
    assert code == 0
    assert "4 training and 2 test recordings" in out
    assert antpitta("check", tmp_path / "data")[0] in (0, 1)


def test_the_demonstration_tells_each_stage_against_the_whole_truth(tmp_path):
    plan = api.SimulationConfig(
        train=9, test=4, seconds=6.0, sample_rate=16_000, present=4, absent=6, seed=3
    )
    quick = tuple(f"stages.{name}.epochs=1" for name in ("unknown_as_absent", "masked", "pseudo"))
    shown = api.demo(tmp_path / "demo", plan=plan, changes=quick)
    assert [one.source for one in shown.reports] == ["unknown_as_absent", "masked", "pseudo"]
    assert (shown.run.path / "report.html").is_file()
    assert (shown.found / "events.csv").is_file()
    with pytest.raises(Exception, match="is not empty"):
        api.demo(tmp_path / "demo", plan=plan)
