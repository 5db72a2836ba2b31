"""The machine: streams, signals, memory, bad values of options and of Python arguments."""

import errno
import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer

import antpitta as ap
from antpitta import api
from antpitta.cli import app, process
from antpitta.core.errors import UserError

COMMANDS = typer.main.get_command(app).commands
VERBS = [
    name for name in api.__all__ if inspect.isfunction(getattr(api, name)) or name in ap.__all__
]
HIDDEN = "PYTHONUTF8", "PYTHONIOENCODING"


def shell(command, timeout=60, **environment):
    """Run a shell command in which ``$A`` is antpitta; exit code, output and errors."""
    done = subprocess.run(
        ["bash", "-c", command.replace("$A", f"{sys.executable} -m antpitta")],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=timeout,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in out + err
    return done.returncode, out, err


@pytest.mark.parametrize(
    ("streams", "code"),
    [
        (">&-", 0),
        (">&- 2>&- <&-", 0),
        ("2>/dev/full", 0),
        (">/dev/full", 1),
        (">/dev/full 2>&1", 1),
        ("| head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", 0),
    ],
)
def test_stream_that_takes_nothing_loses_no_work(streams, code):
    assert shell(f"$A settings quick {streams}")[0] == code


def test_full_standard_output_is_one_line():
    _, _, err = shell("$A --version >/dev/full")
    assert err.count("\n") == 1
    assert "[E_STDOUT]" in err


def test_predict_with_closed_streams_writes_its_tables(run, simulated, tmp_path):
    code, _, _ = shell(f"$A predict {run.model} {simulated}/test -o {tmp_path}/out >&- 2>&- <&-")
    assert code == 0
    assert (tmp_path / "out" / "presence.csv").is_file()


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_character_that_the_terminal_lacks_is_escaped(environment, tmp_path):
    name = "\U0001f438.toml"
    code, _, err = shell(f"cd {tmp_path}; $A settings {name}", **environment)
    assert code == 2
    assert "\\U0001f438" in err or "\\udcf0\\udc9f" in err or "frog" not in err


@pytest.mark.parametrize("environment", [{"COLUMNS": "1"}, {"COLUMNS": "100000"}, {"TERM": "dumb"}])
def test_any_terminal_shows_the_help(environment):
    assert shell("$A predict -h", **environment)[0] == 0


def test_output_file_drops_what_cannot_be_written_and_keeps_the_error():
    class Full(process.OutputFile):
        pass

    file = Full(os.open("/dev/full", os.O_WRONLY), "w")
    assert file.write(b"text") == 4
    assert file.error.errno == errno.ENOSPC
    file.close()


SLEEPER = """if True:
    import sys, time
    from antpitta import cli
    def command(**_):
        print("ready", flush=True)
        try:
            time.sleep(30)
        finally:
            time.sleep(0.3)
    cli.run_app(lambda: command)
"""


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGINT] * 2, 130),
        ([signal.SIGINT] * 10, 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGHUP, signal.SIGINT], 129),
    ],
)
def test_signals_end_with_one_line_and_their_exit_code(signals, code):
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout.readline() == b"ready\n"
        for number in signals:
            running.send_signal(number)
            time.sleep(0.02)
        err = running.stderr.read().decode()
        assert running.wait(20) == code
    assert err == "antpitta: interrupted. [E_INTERRUPTED]\n"


def test_thread_that_never_ends_does_not_keep_an_interrupted_process():
    code = SLEEPER.replace("time.sleep(0.3)", "time.sleep(60)")
    code = code.replace("cli.run_app", "cli.process.GRACE = 0.2; cli.run_app")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        assert running.stderr.read() == b"antpitta: interrupted. [E_INTERRUPTED]\n"


@pytest.mark.parametrize("megabytes", [300, 700, 1500])
@pytest.mark.parametrize("command", ["predict m a -o out", "train data -o run"])
def test_little_address_space_is_refused_before_any_work(command, megabytes, tmp_path):
    code, _, err = shell(f"cd {tmp_path}; ulimit -v {megabytes}000; $A {command}")
    assert code == 2
    assert "[E_MEMORY]" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        RuntimeError("Exception from src/core: std::bad_alloc"),
        ImportError("x.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_lack_of_memory_anywhere_is_one_line(antpitta, monkeypatch, error):
    def fail(*_, **__):
        try:
            raise error
        except Exception as cause:
            raise ValueError("what a library makes of it") from cause

    monkeypatch.setattr(api, "init", fail)
    code, _, err = antpitta("init")
    assert code == 2
    assert "[E_MEMORY]" in err


@pytest.mark.parametrize(
    "words",
    [["check", ""], ["predict", "m", "a", "-o", " "], ["train", "--out="], ["settings", "--set="]],
)
def test_empty_argument_is_refused(antpitta, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = antpitta(*words)
    assert code == 2
    assert "empty" in err


NUMERIC = [
    (name, parameter.opts[0])
    for name, command in COMMANDS.items()
    for parameter in command.params
    if any(number in str(parameter.type_descriptor.annotation) for number in ("int", "float"))
]
NEEDED = {
    "predict": ["no", "no", "-o", "out"],
    "simulate": ["no", "no", "-o", "out"],
    "ensemble": ["no", "-o", "out"],
}


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf", "-1", "1e999", "x", "9" * 400, "0x10", "1,5"]
)
@pytest.mark.parametrize(("command", "option"), NUMERIC)
def test_number_that_is_none_or_out_of_range_is_refused(
    antpitta, tmp_path, monkeypatch, command, option, value
):
    monkeypatch.chdir(tmp_path)
    code, _, err = antpitta(command, *NEEDED.get(command, []), option, value)
    assert code == 2, err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


JUNK = [
    "",
    "\0",
    -1,
    1.5,
    float("nan"),
    [None],
    [""],
    object(),
    np.int64(-3),
    [1, 2],
    "a" * 5000,
    10**5000,
    lambda: 0,
]


def _arguments():
    for name in VERBS:
        for parameter in inspect.signature(getattr(api, name)).parameters.values():
            yield name, parameter.name


@pytest.mark.parametrize(("name", "argument"), list(_arguments()))
def test_wrong_argument_of_a_function_is_a_user_error(monkeypatch, tmp_path, name, argument):
    monkeypatch.chdir(tmp_path)
    function = getattr(api, name)
    parameters = inspect.signature(function).parameters.values()
    for junk in JUNK:
        values = {
            parameter.name: str(tmp_path / "no")
            for parameter in parameters
            if parameter.default is parameter.empty and parameter.name != "audio"
        }
        if name == "settings":
            values["recipe"] = "no"
        if name in ("demo", "simulate_callers", "bench"):  # never begun
            values["out" if name != "bench" else "model"] = ""
        if name == "predict_to":
            values["audio"] = "no"
        several = argument == "audio" and name in ("predict", "predict_each")
        positional = (values.pop("model"), junk) if several else ()
        named = values if several else {**values, argument: junk}
        with pytest.raises(UserError):
            list(function(*positional, **named))


@pytest.mark.parametrize("name", VERBS)
def test_unknown_or_missing_argument_is_a_user_error(name):
    with pytest.raises(UserError) as error:
        getattr(api, name)(no_such_argument=1)
    assert error.value.code == "E_OPTION"


def test_single_values_and_paths_stand_for_lists_and_data_sets(run, simulated, tmp_path):
    audio = str(simulated / "test")
    written = api.predict_to(run, audio, tmp_path / "out", formats="csv,raven", workers=np.int64(1))
    assert written.counts.recordings == 4
    files = sorted(Path(audio).iterdir())
    scores = ap.predict(run.model, audio)
    assert scores.equals(ap.predict(run.model, *map(str, files)))
    with pytest.raises(UserError, match=r"audio is 5, "):
        ap.predict(run.model, audio, 5)
    generated = (path for path in Path(audio).iterdir())
    assert api.predict_to(run.model, generated, tmp_path / "two").counts.recordings == 4
    assert ap.check(str(simulated), sound=False).summary.startswith("12 recordings")
    with pytest.raises(UserError) as error:
        ap.train(simulated, changes="nosuch=1", out=tmp_path / "run")
    assert error.value.code in ("E_SET", "E_UNKNOWN_SETTING")
    with pytest.raises(UserError) as error:
        ap.predict(run.model)
    assert error.value.code == "E_NO_AUDIO"


@pytest.mark.parametrize(
    "settings",
    [
        {"train": 0},
        {"train": 1.5},
        {"train": 10**9},
        {"seconds": float("nan")},
        {"seconds": 1e9},
        {"seconds": 80_000},
        {"sample_rate": 10**8},
        {"sample_rate": 0},
        {"seed": -1},
        {"seed": "x"},
        {"present": None},
        {"min_snr": float("nan")},
        {"max_prevalence": float("inf")},
    ],
)
def test_simulation_that_cannot_be_is_refused(settings):
    with pytest.raises(UserError) as error:
        api.SimulationConfig(**settings)
    assert error.value.code == "E_SIMULATION_SETTING"


def test_large_seed_is_a_seed():
    assert api.SimulationConfig(seed=10**30).seed == 10**30


def test_log_of_an_unforeseen_error_holds_any_character(antpitta, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("a bug \udcff")

    monkeypatch.setattr(api, "init", fail)
    code, _, err = antpitta("init")
    assert code == 3
    log = Path(err.split("log ")[1].split(". [E_")[0])
    assert "\\udcff" in log.read_text()
    log.unlink()
