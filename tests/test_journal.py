"""Whole archives: killed anywhere and gone on with, locked, full, changed under way."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from antpitta.api import predict_each, predict_to
from antpitta.core.errors import UserError
from antpitta.predict import pipeline as archive_predict
from antpitta.predict.journal import NAME, Journal
from antpitta.predict.pipeline import AHEAD, cpu_count

BOTH = ("csv", "parquet")
KILLS, A_RUN = 50, 10  # in all, and of one run at most
THREADS = 2 + (cpu_count() <= 2)  # as two workers have (predict/pipeline.py)
IN_FLIGHT = AHEAD * THREADS + THREADS + 1  # pieces, and files being opened


@pytest.fixture(scope="module")
def archive(fill_archive, tmp_path_factory):
    """24 short recordings, one of them broken."""
    return fill_archive(tmp_path_factory.mktemp("archive"), 24, 3)


def test_killed_at_random_and_gone_on_with_the_tables_are_those_of_one_run(
    run, archive, whole, differing, tmp_path, monkeypatch
):
    home = Path(__file__).parent
    monkeypatch.syspath_prepend(home)
    from archive_child import MODEL, listen

    monkeypatch.setenv(MODEL, str(run.model))
    # a server knows no other path
    monkeypatch.setenv("PYTHONPATH", f"{home.parent / 'src'}:{home}")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["archive_child"])

    def start(out, log):
        own = context.Process(target=listen, args=(run.model, archive, out, log))
        own.start()
        return own

    start(tmp_path / "warm", tmp_path / "warm.log").join()
    began = time.monotonic()
    start(tmp_path / "timed", tmp_path / "timed.log").join()
    lasting = time.monotonic() - began
    dice, kills, resumed, rounds = random.Random(0), 0, 0, 0
    while kills < KILLS:
        rounds += 1
        most, before = min(kills + A_RUN, KILLS), kills
        out, log = tmp_path / f"out{rounds}", tmp_path / f"log{rounds}"
        while True:
            own = start(out, log)
            own.join(dice.uniform(0.05, 0.9) * lasting if kills < most else None)
            if not own.is_alive():
                break
            os.kill(own.pid, signal.SIGKILL)
            own.join()
            kills += 1
            resumed += 0 < heard(out) < 24
        assert own.exitcode == 0
        assert not differing(out, whole)
        begun = len(log.read_text().splitlines())
        assert 24 <= begun <= 24 + IN_FLIGHT * (kills - before)
        assert not list(out.glob(".*"))
    assert resumed > KILLS / 10  # were killed with a part of the archive heard


def heard(out):
    """How many files the journal of ``out`` has."""
    if not (out / NAME).exists():
        return 0
    with closing(sqlite3.connect(out / NAME)) as journal:
        tables = journal.execute("SELECT name FROM sqlite_master WHERE name = 'heard'").fetchall()
        return journal.execute("SELECT COUNT(*) FROM heard").fetchone()[0] if tables else 0


def test_nothing_is_heard_twice_and_what_changed_is_heard_again(
    run, archive, tmp_path, monkeypatch
):
    mine, out, log = tmp_path / "archive", tmp_path / "out", tmp_path / "log"
    shutil.copytree(archive, mine)
    predict_to(run.model, [mine], out)
    changed = mine / "site1" / "r04_20250101_040000.wav"
    wave, rate = sf.read(changed)
    sf.write(changed, -wave[::-1], rate)
    (mine / "site0" / "r00_20250101_000000.wav").unlink()
    shutil.copy(changed, mine / "new.wav")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from archive_child import listen

    monkeypatch.setattr(archive_predict, "predict_files", archive_predict.predict_files)
    listen(run.model, mine, out, log)
    assert log.read_text().split() == ["new", "r04_20250101_040000"]
    table = pd.read_csv(out / "presence.csv").set_index("recording_id")
    assert len(table) == 24
    assert (table.loc["new"] == table.loc["r04_20250101_040000"]).all()
    assert not len(pd.read_csv(out / "quarantine.csv"))


def test_a_stopped_run_is_not_begun_anew_unasked(run, archive, tmp_path):
    digest = json.loads((run.model / "bundle.json").read_text())["digest"]
    key = {"digest": digest, "inference": "full", "precision": "auto"}
    with Journal(tmp_path, key, resume=False) as journal:
        archive_predict.predict_archive(
            *(
                archive_predict.Predictor(_bundle(run)),
                _files(archive)[:3],
                journal,
                lambda *told: None,
            )
        )
    with pytest.raises(UserError, match="stopped here after 3 recordings; add --resume"):
        predict_to(run.model, [archive], tmp_path)
    assert predict_to(run.model, [archive], tmp_path, resume=True).counts.recordings == 23
    assert predict_to(run.model, [archive], tmp_path).counts.recordings == 23  # was finished


def _bundle(run):
    from antpitta.files.bundle import read_bundle

    return read_bundle(run.model)


def _files(archive):
    from antpitta.files.recordings import list_files

    return list_files([archive])[0]


def test_a_second_run_into_one_folder_is_refused(run, archive, tmp_path):
    with (
        Journal(tmp_path / "out", {"digest": "x"}, resume=False),
        pytest.raises(UserError, match="another run is writing here"),
    ):
        predict_to(run.model, [archive], tmp_path / "out")


def test_another_models_journal_is_not_gone_on_with(run, archive, tmp_path):
    with Journal(tmp_path, {"digest": "another"}, resume=False):
        pass
    with pytest.raises(UserError, match="another model was at work here"):
        predict_to(run.model, [archive], tmp_path, resume=True)


def test_what_is_no_journal_is_the_users_mistake(run, archive, tmp_path):
    (tmp_path / NAME).write_bytes(b"something else" * 99)
    with pytest.raises(UserError, match="not a database") as said:
        predict_to(run.model, [archive], tmp_path)
    assert "\n" not in str(said.value)


def test_a_folder_that_cannot_be_made_is_the_users_mistake(run, archive, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/out/.*cannot be written \(Not a directory\)"):
        predict_to(run.model, [archive], tmp_path / "file" / "out")


@pytest.mark.parametrize("limit", [30_000, 60_000])
def test_a_full_disk_stops_with_a_line_and_the_journal_intact(
    run, archive, whole, differing, tmp_path, limit
):
    script = "import sys; sys.argv[0] = 'antpitta'; from antpitta.cli import main; main()"
    asked = [sys.executable, "-c", script, "predict", str(run.model), str(archive), "--format",
             "csv,parquet", "--resume", "-o", str(tmp_path / "out")]  # fmt: skip
    full = subprocess.run(
        asked,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 2, full.stdout + full.stderr
    assert "cannot be written" in full.stderr + full.stdout
    assert "Traceback" not in full.stderr
    predict_to(run.model, [archive], tmp_path / "out", formats=BOTH, resume=True)
    assert not differing(tmp_path / "out", whole)


def test_files_that_vanish_or_break_under_way_go_to_quarantine(run, archive, tmp_path):
    mine = tmp_path / "archive"
    shutil.copytree(archive, mine)
    files = _files(mine)
    files[5].path.unlink()
    files[6].path.write_bytes(b"")
    heard = list(predict_each(run.model, mine))
    assert sum(len(one) == 0 for one in heard) == 2
    with Journal(tmp_path / "out", {}, resume=False) as journal:
        choir = archive_predict.Predictor(_bundle(run))
        archive_predict.predict_archive(choir, files, journal, lambda *told: None)
        reasons = {one.path: one.reason for one in journal.read(file.path for file in files)}
    assert "No such file" in reasons[files[5].path]
    assert "empty" in reasons[files[6].path]
    assert sum(map(bool, reasons.values())) == 3


def damaged(home, wave, rate):
    """40 files of which none is whole, by what is wrong with them."""
    home.mkdir()
    good, flac = home.parents[1] / "good.wav", home.parents[1] / "good.flac"
    sf.write(good, wave, rate)
    sf.write(flac, np.resize(wave, 70 * rate), rate)
    whole, packed = good.read_bytes(), flac.read_bytes()
    header = bytearray(whole[:44])

    def claims(place, value, size=2):
        own = bytearray(header)
        own[place : place + size] = value.to_bytes(size, "little")
        return bytes(own) + whole[44:]

    kinds = {
        "empty.wav": b"",
        "header.wav": whole[:44],
        "half-header.wav": whole[:20],
        "cut.wav": whole[: len(whole) // 2],
        "cut.flac": packed[: len(packed) // 2],
        "text.flac": b"this is a letter, not a sound\n" * 30,
        "noise.mp3": np.random.default_rng(0).bytes(20_000),
        "no-channels.wav": claims(22, 0),
        "rate.wav": claims(24, 3_000_000_000, 4),
        "slow.wav": claims(24, 3, 4),
    }
    for i in range(4):
        for name, value in kinds.items():
            (home / f"{i}-{name}").write_bytes(value)
    for name in ("0-no-channels.wav", "1-no-channels.wav"):
        broken = np.full(3 * rate, np.nan, dtype=np.float32)
        broken[: 2 * rate] = wave[: 2 * rate]
        sf.write(home / name, broken, rate, subtype="FLOAT")
    return sorted(home.iterdir())


def test_what_is_wrong_with_every_minute_is_said_once(run, archive, tmp_path):
    wave, rate = sf.read(next(archive.rglob("r01*.wav")))
    long = np.resize(wave, 150 * rate).astype(np.float32)
    long[:: 30 * rate] = np.nan  # in each of its three images
    sf.write(tmp_path / "long.wav", long, rate, subtype="FLOAT")
    found = predict_to(run.model, [tmp_path], tmp_path / "out")
    assert len(found.presence) == 1
    assert found.quarantine["reason"].item().count("not finite") == 1


def test_forty_damaged_files_are_each_named_and_cost_nothing_else(run, archive, whole, tmp_path):
    mine = tmp_path / "archive"
    shutil.copytree(archive, mine)
    wave, rate = sf.read(next(archive.rglob("r01*.wav")))
    files = damaged(mine / "broken", wave, rate)
    assert len(files) == 40
    found = predict_to(run.model, [mine], tmp_path / "out")
    named = found.quarantine.set_index("file")["reason"]
    assert len(named) == 41  # and the one of the archive itself
    assert {str(path) for path in files} <= set(named.index)
    for name, said in {
        "0-empty.wav": "is empty",
        "0-cut.wav": "is cut short: 1.0 s are gone",
        "0-cut.flac": "heard as far as it goes",
        "0-text.flac": "is not FLAC",
        "0-no-channels.wav": "not finite",
        "0-slow.wav": "sample rate of 3 Hz",
    }.items():
        assert said in named[str(mine / "broken" / name)], name
    table = found.presence.set_index("recording_id")
    before = pd.read_csv(whole / "presence.csv").set_index("recording_id")
    pd.testing.assert_frame_equal(table.loc[before.index], before)
    heard = {Path(id).name for id in set(table.index) - set(before.index)}
    cut = {f"{i}-cut.{kind}" for i in range(4) for kind in ("wav", "flac")}
    assert heard == cut | {"0-no-channels", "1-no-channels"}
