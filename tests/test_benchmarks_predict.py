"""The benchmark of predict times whole processes over the same files."""

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from antpitta.core.errors import UserError
from benchmarks import plain_script
from benchmarks.predict import PRECISIONS, PREPARING, benchmark_predict, describe_limit

RATE = 16_000


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    home = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for i in range(2):
        sf.write(home / f"{i}.flac", rng.normal(0, 0.1, 4 * RATE), RATE)
    return home


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def result(run, sounds, out):
    return benchmark_predict([sounds], run.model, files=4, rounds=1, out=out)


def test_every_way_is_timed_as_a_process(result, out):
    ways = result.table.set_index("way")
    names = {f"antpitta, {precision}" for precision in PRECISIONS} & set(ways.index)
    assert {"antpitta, float32", "antpitta, bfloat16"} <= names
    for way, row in ways.iterrows():
        assert row["files"] == (4 if way in names else 1)
        assert row["seconds"] > 0.5  # a process that loads what it needs
        assert row["speed"] == pytest.approx(4 * row["files"] / row["seconds"])
        assert 100 < row["megabytes"] < 4000
    pd.testing.assert_frame_equal(pd.read_csv(out / "predict.csv"), result.table)
    assert any("x real time" in line for line in result.lines)


def test_every_step_is_timed(result):
    steps = result.steps.set_index("step")["ms"]
    assert set(PREPARING) <= set(steps.index)
    assert (steps.drop("resample") > 0).all()
    assert steps["resample"] == 0  # these files are used at their own rate


def test_limit_is_the_longest_step():
    steps = pd.DataFrame({"step": [*PREPARING, "float32"], "ms": [0.0, 20.0, 10.0, 30.0, 60.0]})
    line = describe_limit(steps, "float32", 2)
    assert "network 50%" in line
    assert "limited by network" in line
    assert "1000 x real time" in line  # 2 x 60 s in 0.12 s
    steps.loc[1, "ms"] = 90.0
    assert "limited by decode" in describe_limit(steps, "float32", 2)


def test_plain_script_predicts_every_recording(run, sounds):
    highest = plain_script.predict_windows(run.model, sounds)
    assert sorted(highest) == ["0.flac", "1.flac"]
    assert all(len(row) == 8 and 0 <= min(row) <= max(row) <= 1 for row in highest.values())


def test_nothing_to_time_is_refused(run, sounds):
    with pytest.raises(UserError) as error:
        benchmark_predict([sounds], run.model, files=0)
    assert error.value.code == "E_BENCHMARK_EMPTY"
    with pytest.raises(UserError, match="nowhere"):
        benchmark_predict([sounds / "nowhere"], run.model, files=1, rounds=1)
