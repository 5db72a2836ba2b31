"""bench predict times real processes over the same files, and says what limits them."""

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from benchmarks.steps import PREPARING, say_limit

from antpitta import api
from antpitta.core.errors import UserError
from benchmarks import plain
from benchmarks.predict import OURS

RATE = 16_000


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    home = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for i in range(2):
        sf.write(home / f"{i}.flac", rng.normal(0, 0.1, 4 * RATE), RATE)
    return home


@pytest.fixture(scope="module")
def found(run, sounds, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    return out, api.bench_predict([sounds], run.model, files=4, rounds=1, out=out)


def test_every_way_is_timed_as_a_process(found):
    out, bench = found
    table = bench.table.set_index("way")
    ours = [f"antpitta, {kind}" for kind in OURS if f"antpitta, {kind}" in table.index]
    assert {"antpitta, f32", "antpitta, bf16"} <= set(ours)
    for way, row in table.iterrows():
        assert row["files"] == (4 if way in ours else 1)
        assert row["seconds"] > 0.5  # a process that loads what it needs
        assert row["speed"] == pytest.approx(4 * row["files"] / row["seconds"])
        assert 100 < row["megabytes"] < 4000
    pd.testing.assert_frame_equal(pd.read_csv(out / "predict.csv"), bench.table)
    assert any("x real time" in line for line in bench.lines)


def test_steps_are_those_of_a_minute(found):
    _, bench = found
    steps = bench.steps.set_index("step")["ms"]
    assert set(PREPARING) <= set(steps.index)
    assert (steps.drop("resample") > 0).all()
    assert steps["resample"] == 0  # these are drawn at their own rate


def test_the_limit_is_the_sum_of_the_steps():
    steps = pd.DataFrame({"step": [*PREPARING, "float32"], "ms": [0.0, 20.0, 10.0, 30.0, 60.0]})
    line = say_limit(steps, "float32", 2)
    assert "network 50%" in line
    assert "the network limits it" in line
    assert "1000 x real time" in line  # 2 x 60 s in 0.12 s
    steps.loc[1, "ms"] = 90.0
    assert "decode limits it" in say_limit(steps, "float32", 2)


def test_the_plain_script_hears_the_recordings_windows(run, sounds):
    heard = plain.hear_windows(run.model, sounds)
    assert sorted(heard) == ["0.flac", "1.flac"]
    assert all(len(row) == 8 and 0 <= min(row) <= max(row) <= 1 for row in heard.values())


def test_nothing_to_time_is_the_users_mistake(run, sounds):
    with pytest.raises(UserError, match="nothing would be timed"):
        api.bench_predict([sounds], run.model, files=0)
    with pytest.raises(UserError, match="no such file or folder"):
        api.bench_predict([sounds / "nowhere"], run.model, files=1, rounds=1)
