"""Archives whose run is killed and resumed, locked, out of disk space, or changed meanwhile."""

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
from antpitta.predict import pipeline
from antpitta.predict.detection import configure_detection
from antpitta.predict.journal import NAME, Journal
from antpitta.predict.pipeline import QUEUED_SEGMENTS, cpu_count, predict_archive
from antpitta.predict.predictor import Predictor

BOTH = ("csv", "parquet")
KILLS, KILLS_PER_RUN = 50, 10
THREADS = 2 + (cpu_count() <= 2)  # of two workers, see pipeline.thread_count
IN_PROGRESS = QUEUED_SEGMENTS * THREADS + THREADS + 1  # segments, and files being opened


@pytest.fixture(scope="module")
def archive(fill_archive, tmp_path_factory):
    """24 short recordings, one of them broken."""
    return fill_archive(tmp_path_factory.mktemp("archive"), 24, 3)


def test_tables_of_a_run_killed_at_random_and_resumed_are_those_of_one_run(
    run, archive, whole, differing, tmp_path, monkeypatch
):
    home = Path(__file__).parent
    monkeypatch.syspath_prepend(home)
    from archive_child import MODEL, predict_and_log

    monkeypatch.setenv(MODEL, str(run.model))
    # the fork server knows no other path
    monkeypatch.setenv("PYTHONPATH", f"{home.parent / 'src'}:{home}")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["archive_child"])

    def start(out, log):
        process = context.Process(target=predict_and_log, args=(run.model, archive, out, log))
        process.start()
        return process

    start(tmp_path / "warm", tmp_path / "warm.log").join()
    started = time.monotonic()
    start(tmp_path / "timed", tmp_path / "timed.log").join()
    duration = time.monotonic() - started
    rng, kills, resumed, rounds = random.Random(0), 0, 0, 0
    while kills < KILLS:
        rounds += 1
        limit, before = min(kills + KILLS_PER_RUN, KILLS), kills
        out, log = tmp_path / f"out{rounds}", tmp_path / f"log{rounds}"
        while True:
            process = start(out, log)
            process.join(rng.uniform(0.05, 0.9) * duration if kills < limit else None)
            if not process.is_alive():
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            resumed += 0 < stored_files(out) < 24
        assert process.exitcode == 0
        assert not differing(out, whole)
        started_files = len(log.read_text().splitlines())
        assert 24 <= started_files <= 24 + IN_PROGRESS * (kills - before)
        assert [path.name for path in out.glob(".*")] == [".antpitta.json"]
    assert resumed > KILLS / 10  # were killed with a part of the archive done


def stored_files(out):
    """How many files the journal of ``out`` has."""
    if not (out / NAME).exists():
        return 0
    with closing(sqlite3.connect(out / NAME)) as journal:
        query = "SELECT name FROM sqlite_master WHERE name = 'recordings'"
        if not journal.execute(query).fetchall():
            return 0
        return journal.execute("SELECT COUNT(*) FROM recordings").fetchone()[0]


def test_resumed_run_computes_only_new_and_changed_files(run, archive, tmp_path, monkeypatch):
    season, out, log = tmp_path / "archive", tmp_path / "out", tmp_path / "log"
    shutil.copytree(archive, season)
    predict_to(run.model, [season], out)
    changed = season / "site1" / "r04_20250101_040000.wav"
    wave, rate = sf.read(changed)
    sf.write(changed, -wave[::-1], rate)
    (season / "site0" / "r00_20250101_000000.wav").unlink()
    shutil.copy(changed, season / "new.wav")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from archive_child import predict_and_log

    monkeypatch.setattr(pipeline, "predict_files", pipeline.predict_files)
    predict_and_log(run.model, season, out, log)
    assert log.read_text().split() == ["new", "r04_20250101_040000"]
    table = pd.read_csv(out / "presence.csv").set_index("recording_id")
    assert len(table) == 24
    assert (table.loc["new"] == table.loc["r04_20250101_040000"]).all()
    assert not len(pd.read_csv(out / "quarantine.csv"))


def test_stopped_run_is_not_overwritten_without_being_asked(run, archive, tmp_path):
    digest = json.loads((run.model / "bundle.json").read_text())["digest"]
    key = {"digest": digest, "inference": "full", "precision": "float32"}
    key |= configure_detection(_bundle(run)).key
    with Journal(tmp_path, key, resume=False) as journal:
        predict_archive(Predictor(_bundle(run)), _files(archive)[:3], journal, ignore_count)
    with pytest.raises(UserError, match="3 recordings") as error:
        predict_to(run.model, [archive], tmp_path)
    assert error.value.code == "E_UNFINISHED_RUN"
    assert predict_to(run.model, [archive], tmp_path, resume=True).counts.recordings == 23
    assert predict_to(run.model, [archive], tmp_path).counts.recordings == 23  # was finished


def ignore_count(files, seconds):
    """A callback of predict_archive that does nothing."""


def _bundle(run):
    from antpitta.files.bundle import read_bundle

    return read_bundle(run.model)


def _files(archive):
    from antpitta.files.recordings import list_files

    return list_files([archive])[0]


def test_second_run_into_one_folder_is_refused(run, archive, tmp_path):
    with (
        Journal(tmp_path / "out", {"digest": "x"}, resume=False),
        pytest.raises(UserError) as error,
    ):
        predict_to(run.model, [archive], tmp_path / "out")
    assert error.value.code == "E_OUTPUT_LOCKED"


def test_journal_of_another_model_is_not_resumed(run, archive, tmp_path):
    with Journal(tmp_path, {"digest": "another"}, resume=False):
        pass
    with pytest.raises(UserError) as error:
        predict_to(run.model, [archive], tmp_path, resume=True)
    assert error.value.code == "E_RESUME_MISMATCH"


def test_file_that_is_no_journal_is_a_user_error(run, archive, tmp_path):
    (tmp_path / NAME).write_bytes(b"something else" * 99)
    with pytest.raises(UserError, match=NAME) as error:
        predict_to(run.model, [archive], tmp_path)
    assert error.value.code == "E_JOURNAL_DAMAGED"
    assert "\n" not in str(error.value)


def test_folder_that_cannot_be_made_is_a_user_error(run, archive, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/out.*\(Not a directory\)") as error:
        predict_to(run.model, [archive], tmp_path / "file" / "out")
    assert error.value.code == "E_OUTPUT_NOT_WRITABLE"


@pytest.mark.parametrize("limit", [30_000, 60_000])
def test_full_disk_stops_with_one_line_and_the_journal_intact(
    run, archive, whole, differing, tmp_path, limit
):
    script = "import sys; sys.argv[0] = 'antpitta'; from antpitta.cli import main; main()"
    command = [sys.executable, "-c", script, "predict", str(run.model), str(archive), "--format",
               "csv,parquet", "--resume", "-o", str(tmp_path / "out")]  # fmt: skip
    full = subprocess.run(
        command,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 2, full.stdout + full.stderr
    assert full.stderr.startswith("antpitta: ")
    assert full.stderr.count("\n") == 1
    predict_to(run.model, [archive], tmp_path / "out", formats=BOTH, resume=True)
    assert not differing(tmp_path / "out", whole)


def test_files_that_vanish_or_break_during_a_run_are_quarantined(run, archive, tmp_path):
    season = tmp_path / "archive"
    shutil.copytree(archive, season)
    files = _files(season)
    files[5].path.unlink()
    files[6].path.write_bytes(b"")
    tables = list(predict_each(run.model, season))
    assert sum(len(table) == 0 for table in tables) == 2
    with Journal(tmp_path / "out", {}, resume=False) as journal:
        predict_archive(Predictor(_bundle(run)), files, journal, ignore_count)
        entries = journal.read(file.path for file in files)
        reasons = {entry.path: entry.reason for entry in entries}
    assert "No such file" in reasons[files[5].path]
    assert "empty" in reasons[files[6].path]
    assert sum(map(bool, reasons.values())) == 3


def damaged(home, wave, rate):
    """40 damaged files of ten kinds."""
    home.mkdir()
    good, flac = home.parents[1] / "good.wav", home.parents[1] / "good.flac"
    sf.write(good, wave, rate)
    sf.write(flac, np.resize(wave, 70 * rate), rate)
    whole, packed = good.read_bytes(), flac.read_bytes()
    header = bytearray(whole[:44])

    def with_header_value(offset, value, size=2):
        changed = bytearray(header)
        changed[offset : offset + size] = value.to_bytes(size, "little")
        return bytes(changed) + whole[44:]

    kinds = {
        "empty.wav": b"",
        "header.wav": whole[:44],
        "half-header.wav": whole[:20],
        "cut.wav": whole[: len(whole) // 2],
        "cut.flac": packed[: len(packed) // 2],
        "text.flac": b"this is a letter, not a sound\n" * 30,
        "noise.mp3": np.random.default_rng(0).bytes(20_000),
        "no-channels.wav": with_header_value(22, 0),
        "rate.wav": with_header_value(24, 3_000_000_000, 4),
        "slow.wav": with_header_value(24, 3, 4),
    }
    for i in range(4):
        for name, value in kinds.items():
            (home / f"{i}-{name}").write_bytes(value)
    for name in ("0-no-channels.wav", "1-no-channels.wav"):
        broken = np.full(3 * rate, np.nan, dtype=np.float32)
        broken[: 2 * rate] = wave[: 2 * rate]
        sf.write(home / name, broken, rate, subtype="FLOAT")
    return sorted(home.iterdir())


def test_reason_that_every_segment_has_is_given_once(run, archive, tmp_path):
    wave, rate = sf.read(next(archive.rglob("r01*.wav")))
    long = np.resize(wave, 150 * rate).astype(np.float32)
    long[:: 30 * rate] = np.nan  # in each of its three segments
    sf.write(tmp_path / "long.wav", long, rate, subtype="FLOAT")
    prediction = predict_to(run.model, [tmp_path], tmp_path / "out")
    assert len(prediction.presence) == 1
    assert prediction.quarantine["reason"].item().count("not finite") == 1


def test_forty_damaged_files_are_quarantined_and_affect_no_other(run, archive, whole, tmp_path):
    season = tmp_path / "archive"
    shutil.copytree(archive, season)
    wave, rate = sf.read(next(archive.rglob("r01*.wav")))
    files = damaged(season / "broken", wave, rate)
    assert len(files) == 40
    prediction = predict_to(run.model, [season], tmp_path / "out")
    reasons = prediction.quarantine.set_index("file")["reason"]
    assert len(reasons) == 41  # and the one of the archive itself
    assert {str(path) for path in files} <= set(reasons.index)
    for name, value in {
        "0-empty.wav": "",
        "0-cut.wav": " 1.0 s ",  # missing at its end
        "0-cut.flac": "",
        "0-text.flac": "FLAC",
        "0-no-channels.wav": "not finite",
        "0-slow.wav": " 3 ",  # samples per second
    }.items():
        path = str(season / "broken" / name)
        assert reasons[path].startswith(f"{path}: "), name
        assert value in reasons[path], name
    table = prediction.presence.set_index("recording_id")
    before = pd.read_csv(whole / "presence.csv").set_index("recording_id")
    pd.testing.assert_frame_equal(table.loc[before.index], before)
    scored = {Path(id).name for id in set(table.index) - set(before.index)}
    cut = {f"{i}-cut.{kind}" for i in range(4) for kind in ("wav", "flac")}
    assert scored == cut | {"0-no-channels", "1-no-channels"}
