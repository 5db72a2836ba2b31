"""Journals, runs, caches and outputs that are damaged, edited, locked or cannot be written."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import antpitta as ap
from antpitta import api
from antpitta.core.errors import UserError
from antpitta.core.types import Recording
from antpitta.files import locks, texts
from antpitta.files.audio import UnreadableAudio, file_errors, probe
from antpitta.files.cache import cached_features
from antpitta.files.locks import LOCK, lock_folder
from antpitta.files.manifest import MANIFEST
from antpitta.files.own_files import load_tensors, read_parquet, save_tensors, write_parquet
from antpitta.files.runs import CheckpointFile, RunFolder
from antpitta.files.texts import write_json, write_text
from antpitta.predict.exports import read_events
from antpitta.predict.journal import NAME, Journal, JournalEntry, read_durations

KEY = {"digest": "x", "inference": "full", "precision": "float32"}


def code_of(function, *arguments, **options):
    """The code of the UserError, whose text is one line that names a path."""
    with pytest.raises(UserError) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    return error.value.code


# ---- the journal


def entry(name, species=3):
    events = ((0.0, 1.0, 100.0, 2000.0, "a", 0.5, "m"),)
    presence = np.linspace(0, 1, species, dtype=np.float32)
    return JournalEntry(Path(name), (10, 20), duration=2.0, presence=presence, events=events)


@pytest.fixture
def journal(tmp_path):
    """The folder of a journal with two entries of a stopped run."""
    with Journal(tmp_path, KEY, resume=False) as opened:
        opened.add(entry("a.wav"))
        opened.add(entry("b.wav"))
    return tmp_path


def open_journal(folder, key=KEY, resume=True):
    with Journal(folder, key, resume=resume) as opened:
        return list(opened.read([Path("a.wav"), Path("b.wav")]))


def test_journal_reads_back(journal):
    first, second = open_journal(journal)
    assert (first.path, first.events) == (Path("a.wav"), entry("a.wav").events)
    np.testing.assert_array_equal(second.presence, entry("b.wav").presence)


EDITS = {
    "events are no JSON": "UPDATE recordings SET events = '['",
    "events of another shape": "UPDATE recordings SET events = '[[1]]'",
    "presence of another length": "UPDATE recordings SET presence = x'0000'",
    "presence without a species": "UPDATE recordings SET presence = substr(presence, 5)",
    "presence is text": "UPDATE recordings SET presence = 'abc'",
    "another score": "UPDATE recordings SET presence = x'0000803f0000803f0000803f'",
    "another duration": "UPDATE recordings SET duration = 3",
    "a row of another file": "UPDATE recordings SET path = 'c.wav' WHERE path = 'a.wav'",
    "no checksum": "UPDATE recordings SET checksum = NULL",
    "a column more": "ALTER TABLE recordings ADD COLUMN zone TEXT",
    "a column less": "ALTER TABLE recordings DROP COLUMN site",
    "no table": "DROP TABLE recordings",
    "another table": "CREATE TABLE notes (text)",
    "a view": "DROP TABLE recordings; CREATE VIEW recordings AS SELECT 1",
    "a later version": "PRAGMA user_version = 99",
    "another application": "PRAGMA application_id = 5",
}


@pytest.mark.parametrize("how", EDITS)
def test_edited_journal_is_refused_and_kept(journal, how):
    with closing(sqlite3.connect(journal / NAME)) as database:
        database.executescript(EDITS[how])
    content = (journal / NAME).read_bytes()
    assert code_of(open_journal, journal) == "E_JOURNAL_DAMAGED"
    assert (journal / NAME).read_bytes() == content


def test_reading_durations_leaves_no_file_behind(journal):
    before = sorted(journal.iterdir())
    assert read_durations(journal) == {"a.wav": 2.0, "b.wav": 2.0}
    assert sorted(journal.iterdir()) == before


def test_journal_without_its_key_is_not_resumed(journal):
    with closing(sqlite3.connect(journal / NAME)) as database, database:
        database.execute("DELETE FROM run")
    assert code_of(open_journal, journal, KEY | {"digest": "y"}) == "E_JOURNAL_DAMAGED"


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("how", ["garbage", "cut", "flipped", "folder", "pipe", "link"])
def test_file_that_is_no_journal_is_refused(journal, how, resume):
    file = journal / NAME
    content = file.read_bytes()
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "pipe":
        os.mkfifo(file)
    elif how == "link":
        (journal / "other").write_bytes(content)
        file.symlink_to(journal / "other")
    else:
        flipped = content[:30] + bytes([content[30] ^ 255] * 200) + content[230:]
        damaged = {"garbage": b"\x07" * 5000, "cut": content[:5000], "flipped": flipped}[how]
        file.write_bytes(damaged)
    assert code_of(open_journal, journal, resume=resume) == "E_JOURNAL_DAMAGED"


def test_empty_journal_begins_anew(journal):
    (journal / NAME).write_bytes(b"")
    assert open_journal(journal) == []


def test_resume_with_other_audio_writes_its_tables_and_says_so(run, simulated, tmp_path):
    first, second = sorted((simulated / "test").iterdir())[:2]
    out = tmp_path / "out"
    assert api.predict_to(run.model, [first], out, threshold=0.3).notes == ()
    other = api.predict_to(run.model, [second], out, resume=True, threshold=0.3)
    assert list(other.presence["recording_id"]) == [second.stem]
    assert len(other.notes) == 1
    both = api.predict_to(run.model, [first, second], out, resume=True, threshold=0.3)
    assert len(both.presence) == 2
    assert both.notes == ()


def test_precision_that_is_not_there_leaves_a_finished_output(run, simulated, tmp_path):
    audio, out = sorted((simulated / "test").iterdir())[:1], tmp_path / "out"
    model = tmp_path / "model"
    shutil.copytree(run.model, model)
    api.predict_to(model, audio, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError) as error:
        api.predict_to(model, audio, out, precision="int8", inference="sliding")
    assert error.value.code in ("E_PRECISION_UNAVAILABLE", "E_OPTION")
    with closing(sqlite3.connect(out / NAME)) as database:
        assert database.execute("SELECT count(*) FROM recordings").fetchone() == (1,)
    assert {path.name for path in out.iterdir()} == set(before)
    api.predict_to(model, audio, out, resume=True)


# ---- files of a run


@pytest.fixture
def run_copy(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    return tmp_path / "run"


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) * 2 // 3],
    "garbage": lambda content: b"\xff\x00{[" * 99,
    "one bit": flip,
    "an object": lambda content: b"{}",
    "a list": lambda content: b"[]",
    "nested": lambda content: b"[" * 200_000,
}
MUST_CHANGE = ("report.json", "oof_cells.parquet", "oof_scores.parquet")
STAGE_FILES = ("stages/masked/fold0.safetensors", "stages/masked/oof_scores.parquet")


def make_other(path, kind):
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()


@pytest.mark.parametrize("how", [*DAMAGES, "pipe", "folder"])
def test_damaged_files_of_a_run_are_one_message(run_copy, tmp_path, how):
    folder = RunFolder(run_copy)
    use = {
        "config.json": folder.config,
        "report.json": lambda: ap.evaluate(run_copy),
        "oof_cells.parquet": lambda: api.ensemble([run_copy], tmp_path / "e1"),
        "oof_scores.parquet": lambda: api.ensemble([run_copy], tmp_path / "e2"),
        "folds.csv": folder.folds,
    }
    for name, read in use.items():
        file = run_copy / name
        content = file.read_bytes()
        if how in DAMAGES:
            if how == "one bit" and name == "config.json":
                continue  # a letter of a text: resuming compares it
            file.write_bytes(DAMAGES[how](content))
        else:
            make_other(file, how)
        assert code_of(read) == "E_FILE_DAMAGED", name
        if how == "folder":
            file.rmdir()
        file.unlink(missing_ok=True)
        file.write_bytes(content)
    assert not list(tmp_path.glob("e*"))


@pytest.mark.parametrize("how", [*DAMAGES, "pipe", "folder"])
@pytest.mark.parametrize("name", STAGE_FILES)
def test_damaged_file_of_a_stage_is_refused_before_anything_is_trained(run_copy, name, how):
    file = run_copy / name
    config = RunFolder(run_copy).config()
    if how in DAMAGES:
        file.write_bytes(DAMAGES[how](file.read_bytes()))
    else:
        make_other(file, how)
    assert code_of(RunFolder(run_copy).begin, config, resume=True) == "E_FILE_DAMAGED"


def test_damaged_log_is_refused_and_names_itself(run_copy):
    folder = RunFolder(run_copy)
    (run_copy / "log.csv").write_text("stage,loss\nmasked,abc\n")
    row = {"stage": "masked", "cycle": 1, "fold": 0, "epoch": 9, "loss": 0.1}
    assert code_of(folder.log, [row]) == "E_FILE_DAMAGED"
    assert code_of(folder.read_log) == "E_FILE_DAMAGED"


def test_checkpoint_of_another_shape_is_refused(tmp_path):
    file = CheckpointFile(tmp_path / "fold0.checkpoint")
    file.save(1, {"a": torch.ones(2)})
    assert file.load()[0] == 1
    save_tensors({"a": torch.ones(2)}, file.path)  # no epoch
    assert code_of(file.load) == "E_FILE_DAMAGED"
    file.path.write_bytes(b"")
    assert code_of(file.load) == "E_FILE_DAMAGED"
    file.path.unlink()
    file.path.mkdir()
    assert code_of(file.load) == "E_FILE_DAMAGED"


def test_every_flipped_bit_of_weights_is_found(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors({"a": torch.ones(4), "b": torch.zeros(2, 2)}, path, {"stage": "masked"})
    assert load_tensors(path)[1] == {"stage": "masked"}
    content = path.read_bytes()
    word = content.index(b"checksum")
    for i in range(len(content)):
        if content[i : i + 1] == b" " or word <= i < word + 8:
            continue  # a blank at the end of the header, or the name of the checksum
        path.write_bytes(content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :])
        assert code_of(load_tensors, path) == "E_FILE_DAMAGED"


def test_parquet_with_other_columns_or_types_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    table = pd.DataFrame({"recording": ["a"], "start_time": [0.0], "s0": [0.5]})
    write_parquet(table, path)
    assert list(read_parquet(path, ("recording", "start_time"))["s0"]) == [0.5]
    for other in (
        table.rename(columns={"start_time": "begin"}),
        table.assign(start_time=["x"]),
        table.assign(s0=[None]),
        table.assign(recording=[1]),
        table[["start_time", "recording", "s0"]],
    ):
        write_parquet(other, path)
        assert code_of(read_parquet, path, ("recording", "start_time")) == "E_FILE_DAMAGED"


# ---- the cache


@pytest.mark.parametrize(
    "how", ["zeros", "one bit", "fewer frames", "fewer bands", "cut", "folder", "pipe", "link"]
)
def test_damaged_cache_entry_is_made_anew_silently(tmp_path, how):
    audio = tmp_path / "a.wav"
    audio.write_bytes(b"abc")
    recordings = [Recording("a", audio, 8000, 8000)]
    values = np.arange(60, dtype=np.uint8).reshape(15, 4)

    def fetch():
        (features,) = cached_features(
            recordings, "mel", lambda recording, notes: values, folder=tmp_path / "cache"
        )
        return features

    fetch()
    (file,) = (tmp_path / "cache").rglob("*.npy")
    content = file.read_bytes()
    if how in ("fewer frames", "fewer bands"):
        np.save(file, values[:9] if how == "fewer frames" else values[:, :3])
    elif how in ("folder", "pipe"):
        make_other(file, how)
        if how == "folder":
            (file / "mine.txt").write_text("mine")
    elif how == "link":
        file.unlink()
        file.symlink_to(audio)
    else:
        damaged = {"zeros": content[:128] + bytes(len(content) - 128), "cut": content[:-9]}
        file.write_bytes(damaged.get(how, flip(content)))
    for _ in range(2):
        np.testing.assert_array_equal(fetch(), values)
    assert file.is_file()
    if how == "folder":
        assert [path.read_text() for path in (tmp_path / "cache").rglob("mine.txt")] == ["mine"]
    if how == "link":
        assert audio.read_bytes() == b"abc"


def test_cache_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"abc")
    (tmp_path / "file").write_text("")
    recordings = [Recording("a", tmp_path / "a.wav", 8000, 8000)]
    compute = lambda recording, notes: np.zeros((3, 4), np.uint8)  # noqa: E731
    for folder in (tmp_path / "file" / "cache", Path("/proc/nothing")):
        code = code_of(cached_features, recordings, "mel", compute, folder=folder)
        assert code == "E_CACHE_NOT_WRITABLE"


# ---- two commands at once


def test_folder_of_a_killed_command_is_taken_over(tmp_path):
    out = tmp_path / "out"
    code = (
        "import os, sys, pathlib; from antpitta.files.locks import lock_folder;"
        "context = lock_folder(pathlib.Path(sys.argv[1])); context.__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(out)], check=False)
    assert (out / LOCK).exists()
    with lock_folder(out):
        assert code_of(lock_folder(out).__enter__) == "E_OUTPUT_LOCKED"
    assert not out.exists() or not list(out.iterdir())


def test_command_of_another_machine_is_never_overruled(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(locks.socket, "gethostname", lambda: "node7")
        patch.setattr(locks, "_boot_id", lambda: "another")
        lock = locks._take_lock(tmp_path)
        lock.close()  # killed; the file stays
    with pytest.raises(UserError, match="node7") as error:
        lock_folder(tmp_path).__enter__()
    assert error.value.code == "E_OUTPUT_LOCKED"
    assert str(tmp_path / LOCK) in error.value.remedy
    (tmp_path / LOCK).unlink()
    with lock_folder(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"garbage" * 900, None])
def test_damaged_lock_is_one_message(tmp_path, content):
    if content is None:
        (tmp_path / LOCK).mkdir()
    else:
        (tmp_path / LOCK).write_bytes(content)
    code = code_of(lock_folder(tmp_path).__enter__)
    assert code in ("E_OUTPUT_LOCKED", "E_OUTPUT_NOT_WRITABLE")


def test_every_command_that_writes_a_folder_waits_for_its_lock(run, simulated, recipe, tmp_path):
    out = tmp_path / "out"
    data = ap.open_data(simulated)
    commands = [
        lambda: api.predict_to(run.model, [simulated / "test"], out),
        lambda: api.ensemble([run.path], out),
        lambda: ap.train(data, recipe=str(recipe), out=out),
        lambda: api.simulate_callers(out, replace=True),
        lambda: api.demo(out),
    ]
    with lock_folder(out):
        for command in commands:
            assert code_of(command) == "E_OUTPUT_LOCKED"
        assert [path.name for path in out.iterdir()] == [LOCK]


# ---- a user's files


def test_nothing_of_a_user_is_replaced(run, run_copy, simulated, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "my_notes").write_text("mine")
    ensemble = lambda folder: api.ensemble([run_copy], folder)  # noqa: E731
    predict = lambda folder: api.predict_to(run.model, [simulated / "test"], folder)  # noqa: E731
    before = {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}
    for function, folder, code in (
        (ensemble, out, "E_OUTPUT_EDITED"),
        (ensemble, run_copy, "E_OUTPUT_EDITED"),
        (ensemble, run_copy / "model", "E_OUTPUT_EDITED"),
        (predict, run_copy, "E_OUT_NOT_EMPTY"),
        (predict, run_copy / "model", "E_OUT_NOT_EMPTY"),
        (api.demo, out, "E_OUT_NOT_EMPTY"),
    ):
        assert code_of(function, folder) == code
    assert before == {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}
    assert [path.name for path in out.iterdir()] == ["my_notes"]


def test_evaluate_tells_of_the_run_where_scores_lie_beside_it(run_copy):
    expected = ap.evaluate(run_copy)
    (run_copy / "presence.csv").write_text("recording_id,s0\na,0.5\n")
    assert [r.source for r in ap.evaluate(run_copy).reports] == [r.source for r in expected.reports]


def test_manifest_names_no_file_outside_its_folder(run, simulated, tmp_path):
    audio, out = sorted((simulated / "test").iterdir())[:1], tmp_path / "out"
    api.predict_to(run.model, audio, out)
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    content = texts.read_json(out / MANIFEST)
    digest = content["files"]["run.json"]
    from antpitta.files.manifest import _digest

    content["files"] |= {"../victim.txt": [_digest(victim)], str(victim): [_digest(victim)]}
    content["files"]["gone.csv"] = digest
    write_json(content, out / MANIFEST)
    api.predict_to(run.model, audio, out)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("how", ["folder", "pipe", "later", "cut", "deleted"])
def test_output_whose_manifest_cannot_be_used_is_not_replaced(run, simulated, tmp_path, how):
    audio, out = sorted((simulated / "test").iterdir())[:1], tmp_path / "out"
    api.predict_to(run.model, audio, out)
    content = texts.read_json(out / MANIFEST)
    before = (out / "presence.csv").read_bytes()
    if how in ("folder", "pipe"):
        make_other(out / MANIFEST, how)
    elif how == "later":
        write_json(content | {"layout": 99}, out / MANIFEST)
    elif how == "cut":
        (out / MANIFEST).write_bytes((out / MANIFEST).read_bytes()[:50])
    else:
        (out / MANIFEST).unlink()
    assert code_of(api.predict_to, run.model, audio, out) == "E_OUTPUT_EDITED"
    assert (out / "presence.csv").read_bytes() == before


# ---- places that cannot be written


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_file_that_cannot_be_written_is_a_user_error(tmp_path, monkeypatch, number):
    def fail(self, *arguments, **options):
        raise OSError(number, os.strerror(number), str(self))

    (tmp_path / "a.txt").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", fail)
        assert code_of(write_text, "new", tmp_path / "a.txt") == "E_OUTPUT_NOT_WRITABLE"
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_places_that_cannot_be_written_are_user_errors(run, simulated, recipe, tmp_path):
    data = ap.open_data(simulated)
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing/here")):
        for command in (
            lambda out: api.predict_to(run.model, [simulated / "test"], out),
            lambda out: api.ensemble([run.path], out),
            lambda out: ap.train(data, recipe=str(recipe), out=out),
            api.simulate_callers,
            api.demo,
        ):
            assert code_of(command, folder) in ("E_OUTPUT_NOT_WRITABLE", "E_OUTPUT_EDITED")
    for picture in (tmp_path / "file" / "a.png", Path("/proc/nothing/a.png")):
        code = code_of(ap.check, data, sound=False, picture=picture)
        assert code == "E_OUTPUT_NOT_WRITABLE"
    (tmp_path / "a.png").mkdir()
    assert code_of(ap.check, data, picture=tmp_path / "a.png") == "E_PICTURE_EXISTS"
    assert (tmp_path / "file").read_text() == "mine"


def test_device_pipe_or_folder_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        assert code_of(write_text, "x", tmp_path / name) == "E_OUTPUT_NOT_WRITABLE"
    assert (tmp_path / "pipe").is_fifo()


# ---- what the machine lacks


@pytest.mark.parametrize("place", ["file", "below a file", "proc", "home is a file"])
def test_cache_that_cannot_be_written_is_refused_before_anything_is_written(
    simulated, recipe, tmp_path, monkeypatch, place
):
    (tmp_path / "file").write_text("mine")
    caches = {"file": tmp_path / "file", "below a file": tmp_path / "file/x", "proc": "/proc/x"}
    if place in caches:
        monkeypatch.setenv("ANTPITTA_CACHE", str(caches[place]))
    else:
        monkeypatch.delenv("ANTPITTA_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "file"))
    train = lambda out: ap.train(simulated, recipe=str(recipe), out=out)  # noqa: E731
    for command in (train, api.demo):
        assert code_of(command, tmp_path / "out") == "E_CACHE_NOT_WRITABLE"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC])
def test_what_the_machine_lacks_quarantines_no_recording(
    run, simulated, tmp_path, monkeypatch, number
):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    expected = "E_MEMORY" if number == errno.ENOMEM else "E_MACHINE"
    for place in ("_decode", "_decodes_anywhere", "measure_length"):
        with monkeypatch.context() as patch:
            patch.setattr(f"antpitta.files.audio.{place}", fail)
            code = code_of(api.predict_to, run.model, [simulated / "test"], tmp_path / "out")
            assert code == expected
            assert not list(tmp_path.iterdir())
            with pytest.raises(UserError):
                ap.check(simulated)
    with monkeypatch.context() as patch:  # weights are whole: nobody is to delete them
        patch.setattr(Path, "read_bytes", fail)
        weights = run.path / STAGE_FILES[0]
        assert code_of(load_tensors, weights) == expected


def test_recording_is_not_damaged_where_no_file_can_be_opened(simulated):
    resource = pytest.importorskip("resource")
    recording = sorted((simulated / "test").iterdir())[0]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, limits[1]))
        with suppress(OSError):  # until there are too many
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        code = code_of(probe, recording, "a")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for number in held:
            os.close(number)
    assert code == "E_MACHINE"
    assert probe(recording, "a").samples


def test_lack_of_memory_is_a_file_s_own_only_where_there_is_memory(tmp_path, monkeypatch):
    def decode():
        with file_errors(tmp_path / "a.wav"):
            raise MemoryError

    with pytest.raises(UnreadableAudio):
        decode()
    monkeypatch.setattr("antpitta.files.audio._has_memory", lambda: False)
    with pytest.raises(MemoryError):
        decode()


# ---- outputs that were edited, and commands that could not begin


def test_edited_pseudo_labels_are_kept(run_copy):
    folder = RunFolder(run_copy)
    labels = run_copy / "stages" / "pseudo" / "pseudo.csv"
    labels.write_text(labels.read_text() + "mine\n")
    assert code_of(folder.begin, folder.config(), resume=True) == "E_OUTPUT_EDITED"
    table = pd.DataFrame({"recording": ["a"]})
    assert code_of(folder.write_pseudo_labels, table, "pseudo", 1) == "E_OUTPUT_EDITED"
    assert labels.read_text().endswith("mine\n")


def test_prediction_that_cannot_begin_leaves_nothing(run, simulated, tmp_path):
    (tmp_path / "there").mkdir()
    for out in (tmp_path / "new" / "below", tmp_path / "there"):
        options = {"precision": "int8", "inference": "sliding"}
        assert code_of(api.predict_to, run.model, [simulated / "test"], out, **options) in (
            "E_PRECISION_UNAVAILABLE",
            "E_OPTION",
        )
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


NOT_A_TABLE = [how for how in DAMAGES if how != "one bit"]


@pytest.mark.parametrize("how", [*NOT_A_TABLE, "wrong types", "no rows of text"])
def test_damaged_table_of_events_is_one_message(run, simulated, tmp_path, how):
    out = tmp_path / "out"
    api.predict_to(run.model, [simulated / "test"], out, formats="parquet")
    file = out / "events.parquet"
    table = read_events(out)
    assert len(table)
    if how in DAMAGES:
        file.write_bytes(DAMAGES[how](file.read_bytes()))
    elif how == "wrong types":
        table.assign(start_time="soon").to_parquet(file)
    else:
        table.assign(species=1).to_parquet(file)
    assert code_of(read_events, out) == "E_EVENT_TABLE"
    assert code_of(read_events, file) == "E_EVENT_TABLE"
