"""The commands: exit codes, errors, help, and what they write."""

import inspect
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import typer

from antpitta import api
from antpitta.cli import app
from antpitta.core.errors import CODES, UserError
from antpitta.review.store import Store

COMMANDS = typer.main.get_command(app).commands
FUNCTIONS = {"predict": api.predict_to}  # of the other commands: the function of the same name
OPTION_OF = {"changes": "set", "formats": "format", "weights": "weight", "queue": "out"}
OPTION_OF |= {"folder": "out", "reviewers": "reviewer", "experts": "expert"}
NOT_OPTIONS = {"progress", "tick", "export", "plan"}  # parameters of functions only
SIMULATION_PLAN = {"train", "test", "seconds", "sample_rate", "present", "absent", "seed"}
DATA_OPTIONS = {"audio", "present", "absent", "annotations", "sites", "names", "channel"}
DATA_OPTIONS |= {"spectrograms"}


def error_code(err):
    """The code of an error message, which is one line."""
    match = re.fullmatch(r"antpitta: .+\. \[(E_\w+)\]\n", err)
    assert match, err
    return match[1]


def test_error_is_one_line_with_a_code_and_exit_code_2(antpitta, tmp_path):
    code, _, err = antpitta("train", "--audio", tmp_path / "nowhere", "-o", tmp_path / "run")
    assert code == 2
    assert error_code(err) in CODES
    assert "nowhere" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate", "nowhere.csv", "--truth", "x.csv"], "E_NO_FILE"),
        (["evaluate", "nowhere.csv"], "E_NO_FILE"),
        (["train", "-o", "run"], "E_DATA_MISSING"),
        (["check", "data", "--audio", "x"], "E_DATA_TWICE"),
        (["bench", "--minutes", "0"], "E_BENCH_MINUTES"),
        (["train", "--no-such-option"], "E_USAGE"),
        (["no-such-command"], "E_USAGE"),
        (["predict"], "E_USAGE"),
    ],
)
def test_wrong_arguments_are_refused(antpitta, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    code, _, err = antpitta(*arguments)
    assert (code, error_code(err)) == (2, expected)


@pytest.mark.parametrize("arguments", [["predict", "no", "no", "-o", "out"], ["check", "nowhere"]])
def test_missing_files_are_refused(antpitta, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, _, err = antpitta(*arguments)
    assert code == 2
    assert error_code(err) in CODES


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [("train", ["train", "data", "-o", "run"]), ("predict_to", ["predict", "m", "a", "-o", "out"])],
)
def test_interrupted_long_work_can_be_resumed(antpitta, monkeypatch, verb, arguments):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "open_data", lambda *_, **__: None)
    monkeypatch.setattr(api, verb, interrupt)
    code, out, err = antpitta(*arguments)
    assert code == 130
    assert "--resume" in out
    assert err == ""


def test_interrupted_short_work_ends_with_130(antpitta, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "init", interrupt)
    code, _, err = antpitta("init")
    assert code == 130
    assert "Traceback" not in err


def test_unforeseen_error_is_one_line_and_its_log_has_the_traceback(antpitta, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(api, "init", fail)
    code, _, err = antpitta("init")
    assert (code, error_code(err)) == (3, "E_UNFORESEEN")
    log = Path(re.search(r"(/\S+\.log)", err)[1])
    text = log.read_text()
    log.unlink()
    assert "Traceback" in text
    assert "ZeroDivisionError: a bug" in text
    assert "['init']" in text


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(antpitta, command, option):
    code, out, _ = antpitta(command, option)
    assert code == 0
    assert f"antpitta {command}" in out.partition("Example")[2]


def test_version_is_printed(antpitta):
    code, out, _ = antpitta("--version")
    assert code == 0
    assert re.fullmatch(r"antpitta \d+\.\d+\.\d+\S*\n", out)


def test_completion_is_offered(antpitta):
    out = antpitta("-h")[1]
    assert "--install-completion" in out
    assert "--show-completion" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_a_command_are_the_parameters_of_its_function(command):
    function = FUNCTIONS.get(command) or getattr(api, command)
    parameters = set(inspect.signature(function).parameters) - NOT_OPTIONS
    if command == "simulate":
        parameters |= SIMULATION_PLAN
    if command in ("check", "train"):
        parameters |= DATA_OPTIONS
    options = {parameter.name for parameter in COMMANDS[command].params} - {"help"}
    if command == "evaluate":
        options -= {"species", "events"}  # printed by the command, by evaluate_events
        of_audits = set(inspect.signature(api.evaluate_audits).parameters) - {"queue"}
        assert of_audits <= options
        options -= of_audits
    if command == "settings":
        options -= {"markdown"}  # a way to print
    if command == "demo":
        parameters -= {"changes"}  # for tests, which need a shorter demo
    if command == "predict":
        options = {"formats" if name == "form" else name for name in options}
    assert options == parameters


@pytest.mark.parametrize("command", COMMANDS)
def test_long_options_carry_the_names_of_their_parameters(command):
    for parameter in COMMANDS[command].params:
        if parameter.param_type_name == "option" and parameter.name not in ("form", "help"):
            name = OPTION_OF.get(parameter.name, parameter.name).replace("_", "-")
            assert f"--{name}" in parameter.opts


def test_verbs_are_listed_and_every_command_has_one():
    import antpitta

    listed = {name for name in dir(antpitta) if not name.startswith("_")}
    assert listed == {*COMMANDS, "open_data"}


def test_check_with_a_serious_finding_ends_with_1(antpitta, simulated, tmp_path):
    assert antpitta("check", simulated)[0] == 0
    bad = tmp_path / "bad.csv"
    table = pd.read_csv(simulated / "train_tp.csv")
    table.loc[2, ["t_min", "t_max"]] = [5.0, 4.0]
    table.to_csv(bad, index=False)
    code, out, _ = antpitta(
        "check", "--audio", simulated / "train", "--present", bad, "-o", tmp_path / "s.svg"
    )
    assert code == 1
    assert "bad.csv:4" in out
    assert (tmp_path / "s.svg").is_file()


def test_train_prints_the_path_of_the_model(antpitta, simulated, recipe, tmp_path):
    arguments = ["--recipe", recipe, "--set", "stages.crops.epochs=1", "-o", tmp_path / "run"]
    code, out, _ = antpitta("train", simulated, *arguments)
    assert code == 0
    assert "12 recordings, 8 species" in out
    assert str(tmp_path / "run" / "model") in out
    code, _, err = antpitta("train", simulated, *arguments)
    assert code == 2
    assert "--resume" in err


def test_rows_without_audio_are_counted_and_not_fatal(antpitta, simulated, recipe, tmp_path):
    audio = tmp_path / "audio"
    shutil.copytree(simulated / "train", audio)
    (audio / "train0003.flac").unlink()
    rows = sum(
        (pd.read_csv(simulated / name)["recording_id"] == "train0003").sum()
        for name in ("train_tp.csv", "train_fp.csv")
    )
    tables = ["--present", simulated / "train_tp.csv", "--absent", simulated / "train_fp.csv"]
    arguments = ["--recipe", recipe, "-o", tmp_path / "run"]
    code, out, _ = antpitta("train", "--audio", audio, *tables, *arguments)
    assert code == 0
    assert f"{rows} of " in out
    code, out, _ = antpitta("evaluate", tmp_path / "run")
    assert code == 0
    assert "pseudo-c2" in out


def test_predictions_are_evaluated_with_events(antpitta, run, simulated, tmp_path):
    code, out, _ = antpitta("predict", run.model, simulated / "test", "-o", tmp_path / "out")
    assert code == 0
    assert "4 recordings" in out
    code, out, _ = antpitta(
        *("evaluate", tmp_path / "out", "--truth", simulated / "test_truth.csv"),
        *("--events", simulated / "test_events.csv"),
    )
    assert code == 0
    assert "presence.csv" in out
    assert "event F1" in out


def test_predict_with_an_unreadable_file_ends_with_1(antpitta, run, simulated, tmp_path):
    archive = tmp_path / "archive"
    shutil.copytree(simulated / "test", archive)
    (archive / "zero.wav").touch()
    code, out, _ = antpitta("predict", run.path, archive, "-o", tmp_path / "out")
    assert code == 1
    assert "quarantine.csv" in out


def test_ensemble_prints_its_members(antpitta, run, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    code, out, _ = antpitta(
        "ensemble", run.path, tmp_path / "copy", "-o", tmp_path / "both", "--method", "auc"
    )
    assert code == 0
    assert "copy" in out
    assert (tmp_path / "both" / "bundle.json").is_file()


def test_ensemble_weights_are_in_its_card(antpitta, run, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    code, _, _ = antpitta(
        *("ensemble", run.path, tmp_path / "copy", "-o", tmp_path / "both"),
        *("--method", "extremized", "--weight", "1", "--weight", "2"),
    )
    assert code == 0
    assert "weight 2" in (tmp_path / "both" / "MODEL_CARD.md").read_text()


def test_initialized_data_can_be_checked(antpitta, simulated, tmp_path):
    code, out, _ = antpitta(
        "init", tmp_path, "--audio", simulated / "train", "--present", simulated / "train_tp.csv"
    )
    assert code == 0
    assert "antpitta.toml" in out
    assert antpitta("check", tmp_path, "--no-sound")[0] == 0


def test_clips_and_backgrounds_are_simulated(antpitta, tmp_path):
    rng = np.random.default_rng(1)
    for name, pitch in (("low", 900), ("high", 2600)):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for number in range(3):
            time = np.arange(16_000) / 16_000
            call = np.sin(2 * np.pi * pitch * time) * (np.sin(2 * np.pi * 6 * time) > 0)
            sf.write(tmp_path / "clips" / name / f"{number}.wav", 0.5 * call, 16_000)
    (tmp_path / "backgrounds").mkdir()
    for number in range(3):
        noise = 0.01 * rng.standard_normal(64_000)
        sf.write(tmp_path / "backgrounds" / f"{number}.wav", noise, 16_000)
    code, out, _ = antpitta(
        "simulate", tmp_path / "clips", tmp_path / "backgrounds", "-o", tmp_path / "data",
        "--train", 4, "--test", 2, "--seconds", 8, "--sample-rate", 16_000,
    )  # fmt: skip
    assert code == 0
    assert "4 training and 2 test recordings" in out
    assert antpitta("check", tmp_path / "data")[0] in (0, 1)


def test_demo_evaluates_each_stage_and_ends_with_a_queue(tmp_path, low_thresholds):
    plan = api.SimulationConfig(
        train=9, test=4, seconds=6.0, sample_rate=16_000, present=4, absent=6, seed=3
    )
    short = tuple(f"stages.{name}.epochs=1" for name in ("unknown_as_absent", "masked", "pseudo"))
    with low_thresholds():
        result = api.demo(tmp_path / "demo", plan=plan, changes=short)
    stages = ["unknown_as_absent", "masked", "pseudo"]
    assert [report.source for report in result.reports] == stages
    assert [stage.truth for stage in result.run.run_report.stages] == list(result.reports)
    assert (result.run.path / "report.html").is_file()
    assert (result.predictions / "events.csv").is_file()
    with Store.open(result.queue) as store:
        (draw,) = store.draws()
        assert draw["purpose"] == "teach"
        assert draw["items"] >= 8
    with pytest.raises(UserError) as error:
        api.demo(tmp_path / "demo", plan=plan)
    assert error.value.code == "E_OUT_NOT_EMPTY"
