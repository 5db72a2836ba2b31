"""Archives behind URLs: S3 played by moto on loopback, and fsspec's own memory."""

import gc
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pytest
import soundfile as sf

import antpitta as ap
from antpitta.api import predict_each, predict_to
from antpitta.core.errors import UserError
from antpitta.files import remote
from antpitta.files.audio import UnreadableAudio
from antpitta.files.recordings import list_files, open_file
from antpitta.files.remote import RemotePath, check_writable, fetch, list_objects, location_of

pytest.importorskip("moto.server", reason="moto is not installed")
pytest.importorskip("s3fs", reason="the extra remote is not installed")
import fsspec
from botocore.exceptions import ClientError, NoCredentialsError

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def archive(fill_archive, tmp_path_factory):
    """Eight recordings at two sites, one of them broken, one cut short; and what is none."""
    home = fill_archive(tmp_path_factory.mktemp("archive") / "2025", 8, 2, cut=True)
    (home / "site0" / "odd.m4a").write_bytes(b"x")
    (home / "site0" / "._r2.wav").write_bytes(b"x")
    (home / "notes.txt").write_text("x")
    return home


@pytest.fixture(scope="module")
def bucket(s3, archive):
    s3.mkdir("season")
    s3.put(str(archive), "season/2025", recursive=True)
    s3.pipe_file("season/20251/stranger.wav", b"x")  # begins alike, and is another folder
    return "s3://season/2025"


def answering(monkeypatch, get):
    """Lets the store answer like that when a file is asked for."""
    store, _ = remote._store("s3://season")
    plain = store.get_file
    monkeypatch.setattr(store, "get_file", lambda key, path: get(plain, key, path))


def copies():
    return {path.name for path in Path(tempfile.gettempdir()).glob("antpitta-*")}


def test_an_archive_on_s3_gives_the_tables_of_the_same_archive_here(
    run, archive, bucket, whole, differing, tmp_path
):
    before = copies()
    predict_to(run.model, [bucket], tmp_path)
    assert not differing(tmp_path, whole, here=archive, there=bucket)
    gc.collect()
    assert copies() == before


def test_ids_and_sites_are_those_of_the_same_folder_here(archive, bucket):
    here, odd = list_files([archive])
    there, odd_there = list_files([location_of(bucket)])
    assert [(one.id, one.folder) for one in there] == [(one.id, one.folder) for one in here]
    assert len(odd) == len(odd_there) == 1
    assert odd_there[0].file == f"{bucket}/site0/odd.m4a"
    one = location_of(f"{bucket}/site1/r3_20250101_030000.wav")
    [single] = list_files([one])[0]
    assert (single.id, single.path) == ("r3_20250101_030000", one)
    assert len(list_files([location_of(bucket), one])[0]) == len(there)  # each once


def test_a_recording_is_fetched_when_opened_and_gone_with_it(archive, bucket):
    before = copies()
    listed = next(one for one in list_files([location_of(bucket)])[0] if one.id.startswith("r3"))
    recording = open_file(listed)
    assert recording.recorded_at.hour == 3
    assert recording.path.read_bytes() == next(archive.rglob("r3*")).read_bytes()
    assert len(copies() - before) == 1
    del recording
    gc.collect()
    assert copies() == before


def test_what_changed_there_is_heard_again_and_nothing_else(
    run, archive, bucket, s3, tmp_path, opened
):
    s3.put(str(archive), "season/mine", recursive=True)
    predict_to(run.model, ["s3://season/mine"], tmp_path)
    first = list_files([location_of("s3://season/mine")])[0]
    assert all(-1 < part < 2**63 for one in first for part in one.path.stamp)
    s3.put(str(next(archive.rglob("r4*"))), "season/mine/site1/r3_20250101_030000.wav")
    opened.clear()
    predict_to(run.model, ["s3://season/mine"], tmp_path, resume=True)
    # what could not be opened there is looked for again: it may have been the way
    assert sorted(opened) == ["r0_20250101_000000", "r3_20250101_030000"]
    table = pd.read_csv(tmp_path / "presence.csv").set_index("recording_id")
    again, other = (next(id for id in table.index if id.startswith(name)) for name in ("r3", "r4"))
    assert (table.loc[again] == table.loc[other]).all()


def test_what_vanishes_or_is_closed_under_way_is_quarantined(
    run, bucket, s3, tmp_path, monkeypatch
):
    from antpitta.files.bundle import read_bundle
    from antpitta.predict.journal import GONE, Journal
    from antpitta.predict.pipeline import predict_archive
    from antpitta.predict.predictor import Predictor

    s3.copy("season/2025", "season/shrinking", recursive=True)
    files = list_files([location_of("s3://season/shrinking")])[0]
    s3.rm(files[3].path.url)

    def guarded(plain, key, path):
        if "r5" in key:
            error = {"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}
            raise PermissionError("Access Denied") from ClientError(error, "GetObject")
        plain(key, path)

    answering(monkeypatch, guarded)
    with Journal(tmp_path, {}, resume=False) as journal:
        predict_archive(Predictor(read_bundle(run.model)), files, journal, lambda *told: None)
        kept = {one.path.name[:2]: one for one in journal.read(file.path for file in files)}
    assert len(kept) == 8
    assert f"{files[3].path}: is gone" in kept["r3"].reason
    assert "may not be read (Access Denied)" in kept["r5"].reason
    assert kept["r3"].stamp == kept["r5"].stamp == GONE  # --resume looks again


@pytest.mark.parametrize(
    "trouble",
    [
        ConnectionError("Connection refused"),
        NoCredentialsError(),
        OSError(28, "No space left on device"),
    ],
)
def test_what_every_later_file_would_meet_stops_the_run(
    run, bucket, s3, tmp_path, monkeypatch, trouble
):
    def fails(plain, key, path):
        raise trouble

    answering(monkeypatch, fails)
    with pytest.raises(UserError, match="s3://season/2025") as said:
        predict_to(run.model, [bucket], tmp_path)
    assert "\n" not in str(said.value)


def test_a_session_that_ran_out_stops_the_run_and_a_closed_object_does_not(bucket, s3, monkeypatch):
    def fails(code):
        def get(plain, key, path):
            raise PermissionError("no") from ClientError({"Error": {"Code": code}}, "GetObject")

        answering(monkeypatch, get)

    place = list_files([location_of(bucket)])[0][2].path
    fails("ExpiredToken")
    with pytest.raises(UserError, match="check the credentials"):
        fetch(place)
    fails("InvalidObjectState")  # deep frozen
    with pytest.raises(UnreadableAudio, match="may not be read"):
        fetch(place)


def test_half_an_object_is_never_taken_for_a_short_recording(bucket, s3, monkeypatch):
    place = list_files([location_of(bucket)])[0][2].path
    answering(monkeypatch, lambda plain, key, path: Path(path).write_bytes(b"RIFF"))
    with pytest.raises(UserError, match="broke off after 4 bytes"):
        fetch(place)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://nobucket/x", "no such bucket"),
        ("s3://season/nothing", "no such bucket, folder or object"),
        ("s3://season/2025/site9", "no such bucket, folder or object"),
        ("nonsense://x/y", "give a folder, or s3:// or gs://"),
    ],
)
def test_an_address_that_is_wrong_is_the_users_mistake(bucket, url, said):
    with pytest.raises(UserError, match=said) as mistake:
        list_files([location_of(url)])
    assert str(mistake.value).startswith(url)
    assert "\n" not in str(mistake.value)


def test_a_folder_without_sound_is_the_users_mistake(bucket, s3):
    s3.pipe_file("season/texts/a.txt", b"x")
    with pytest.raises(UserError, match="holds no recordings"):
        list_files([location_of("s3://season/texts")])


def test_nobody_listening_there_is_one_line(bucket, s3, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(type(s3), "retries", 1)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        with pytest.raises(UserError, match=r"cannot be read .*check the network") as said:
            list_files([location_of(bucket)])
        assert "\n" not in str(said.value)
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_tables_are_put_into_the_store_and_gone_on_with(
    run, archive, bucket, s3, whole, differing, tmp_path
):
    found = predict_to(run.model, [bucket], "s3://season/found")
    there = sorted(key.rsplit("/", 1)[1] for key in s3.find("season/found"))
    assert there == ["events.csv", "presence.csv", "quarantine.csv", "run.json"]
    s3.get("season/found", str(tmp_path / "found"), recursive=True)
    assert not differing(tmp_path / "found", whole, here=archive, there=bucket)
    assert found.counts.recordings == len(found.presence) == 7
    asked = []
    predict_to(
        *(run.model, [bucket], "s3://season/found/"),
        resume=True,
        progress=lambda done, total, speed: asked.append(speed),
    )
    assert asked == [0] * 8  # nothing was heard again


def test_where_nothing_can_be_put_is_said_before_anything_is_heard(run, bucket):
    with pytest.raises(UserError, match="s3://nobucket/out"):
        predict_to(run.model, [bucket], "s3://nobucket/out")


def test_any_store_of_fsspec_will_do(run, archive, whole, differing, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.put(str(archive), "/2025", recursive=True)
    predict_to(run.model, ["memory://2025"], tmp_path)
    assert not differing(tmp_path, whole, here=archive, there="memory://2025")
    check_writable(RemotePath("memory://2025/out"))
    assert not memory.exists("/2025/out/.antpitta")
    tables = list(predict_each(run.model, "memory://2025/site1"))
    assert len(tables) == 4
    scores = ap.predict(run.model, "memory://2025/site0")
    assert scores.attrs["quarantine"][1][0] == "memory://2025/site0/r0_20250101_000000.wav"
    assert "memory://2025/site0/r0" in scores.attrs["quarantine"][1][1]


def test_keys_are_taken_as_they_are():
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/odd/a b/ä#1%20?.wav", b"RIFF")
    [(place, below)] = list_objects(RemotePath("memory://odd"))
    assert below == "a b/ä#1%20?.wav"
    assert place.name == "ä#1%20?.wav"
    assert fetch(place).read_bytes() == b"RIFF"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("s3://b/x", RemotePath("s3://b/x")),
        (Path("s3://b/x"), RemotePath("s3://b/x")),  # pathlib makes it s3:/b/x
        ("GS://b/x", RemotePath("gs://b/x")),
        ("file:///tmp/x", Path("/tmp/x")),
        ("recordings", Path("recordings")),
        ("/a/s3:/b", Path("/a/s3:/b")),
        ("C:/sound", Path("C:/sound")),
        (RemotePath("s3://b"), RemotePath("s3://b")),
    ],
)
def test_urls_are_told_from_paths(given, meant):
    assert location_of(given) == meant


def test_a_folder_that_is_called_like_a_url_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:" / "b").mkdir(parents=True)
    assert location_of(Path("s3:/b")) == Path("s3:/b")


def test_without_the_extra_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"pip install 'antpitta\[remote\]'"):
        list_files([location_of("gs://bucket/x")])


def test_a_remote_path_is_as_much_of_a_path_as_tables_need():
    place = RemotePath("s3://b/site1/x.WAV", (3, 4))
    assert (place.name, place.suffix, str(place)) == ("x.WAV", ".WAV", "s3://b/site1/x.WAV")
    assert (place.parent.name, str(place.parent.parent)) == ("site1", "s3://b")
    assert place == RemotePath("s3://b/site1/x.WAV", (5, 6))


def test_what_is_wrong_with_a_copy_is_said_of_the_object(run, scapes, tmp_path):
    wave, rate = sf.read(next((scapes / "test").iterdir()))
    whole = tmp_path / "torn.flac"
    sf.write(whole, wave, rate)
    torn = whole.read_bytes()
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/torn/torn.flac", torn[:9000] + bytes(len(torn) - 9000))
    memory.pipe_file("/torn/head.flac", torn[:90])
    found = predict_to(run.model, ["memory://torn"], tmp_path / "out")
    reasons = dict(found.quarantine.values)
    assert set(reasons) == {"memory://torn/torn.flac", "memory://torn/head.flac"}
    for file, reason in reasons.items():
        assert file in reason
        assert tempfile.gettempdir() not in reason
