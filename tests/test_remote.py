"""Remote archives: S3, emulated by moto on this machine, and fsspec's memory store."""

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
    """Eight recordings at two sites, one damaged, one cut short; and files of other kinds."""
    home = fill_archive(tmp_path_factory.mktemp("archive") / "2025", 8, 2, cut=True)
    (home / "site0" / "odd.m4a").write_bytes(b"x")
    (home / "site0" / "._r2.wav").write_bytes(b"x")
    (home / "notes.txt").write_text("x")
    return home


@pytest.fixture(scope="module")
def bucket(s3, archive):
    s3.mkdir("season")
    s3.put(str(archive), "season/2025", recursive=True)
    s3.pipe_file("season/20251/stranger.wav", b"x")  # a folder whose name begins the same
    return "s3://season/2025"


def replace_download(monkeypatch, download):
    """Make the store download with ``download(original, key, path)``."""
    store, _ = remote._open_store("s3://season")
    original = store.get_file
    monkeypatch.setattr(store, "get_file", lambda key, path: download(original, key, path))


@pytest.fixture
def temporary_copies(tmp_path_factory, monkeypatch):
    """A function that lists the downloaded copies of this test."""
    folder = tmp_path_factory.mktemp("downloads")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return lambda: {path.name for path in folder.glob("antpitta-*")}


def test_archive_on_s3_gives_the_tables_of_the_same_local_archive(
    run, archive, bucket, whole, differing, tmp_path, temporary_copies
):
    predict_to(run.model, [bucket], tmp_path)
    assert not differing(tmp_path, whole, here=archive, there=bucket)
    gc.collect()
    assert not temporary_copies()


def test_ids_and_sites_are_those_of_the_same_local_folder(archive, bucket):
    local, local_findings = list_files([archive])
    remotes, findings = list_files([location_of(bucket)])
    assert [(file.id, file.folder) for file in remotes] == [
        (file.id, file.folder) for file in local
    ]
    assert len(local_findings) == len(findings) == 1
    assert findings[0].file == f"{bucket}/site0/odd.m4a"
    location = location_of(f"{bucket}/site1/r3_20250101_030000.wav")
    [single] = list_files([location])[0]
    assert (single.id, single.path) == ("r3_20250101_030000", location)
    assert len(list_files([location_of(bucket), location])[0]) == len(remotes)  # each once


def test_recording_is_downloaded_when_opened_and_deleted_with_it(archive, bucket, temporary_copies):
    listed = next(file for file in list_files([location_of(bucket)])[0] if file.id.startswith("r3"))
    recording = open_file(listed)
    assert recording.recorded_at.hour == 3
    assert recording.path.read_bytes() == next(archive.rglob("r3*")).read_bytes()
    assert len(temporary_copies()) == 1
    del recording
    gc.collect()
    assert not temporary_copies()


def test_changed_object_is_predicted_anew_and_no_other(run, archive, bucket, s3, tmp_path, opened):
    s3.put(str(archive), "season/mine", recursive=True)
    predict_to(run.model, ["s3://season/mine"], tmp_path)
    first = list_files([location_of("s3://season/mine")])[0]
    assert all(-1 < part < 2**63 for file in first for part in file.path.stamp)
    s3.put(str(next(archive.rglob("r4*"))), "season/mine/site1/r3_20250101_030000.wav")
    opened.clear()
    predict_to(run.model, ["s3://season/mine"], tmp_path, resume=True)
    # a file that could not be opened is tried again: the network may have failed
    assert sorted(opened) == ["r0_20250101_000000", "r3_20250101_030000"]
    table = pd.read_csv(tmp_path / "presence.csv").set_index("recording_id")
    changed, other = (next(id for id in table.index if id.startswith(r)) for r in ("r3", "r4"))
    assert (table.loc[changed] == table.loc[other]).all()


def test_object_that_vanishes_or_is_forbidden_is_quarantined(
    run, bucket, s3, tmp_path, monkeypatch
):
    from antpitta.files.bundle import read_bundle
    from antpitta.predict.journal import GONE, Journal
    from antpitta.predict.pipeline import predict_archive
    from antpitta.predict.predictor import Predictor

    s3.copy("season/2025", "season/shrinking", recursive=True)
    files = list_files([location_of("s3://season/shrinking")])[0]
    s3.rm(files[3].path.url)

    def forbid_r5(original, key, path):
        if "r5" in key:
            error = {"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}
            raise PermissionError("Access Denied") from ClientError(error, "GetObject")
        original(key, path)

    replace_download(monkeypatch, forbid_r5)
    with Journal(tmp_path, {}, resume=False) as journal:
        predict_archive(Predictor(read_bundle(run.model)), files, journal, lambda *done: None)
        entries = {entry.path.name[:2]: entry for entry in journal.read(f.path for f in files)}
    assert len(entries) == 8
    assert entries["r3"].reason.startswith(f"{files[3].path}: ")
    assert "Access Denied" in entries["r5"].reason
    assert entries["r3"].stamp == entries["r5"].stamp == GONE  # --resume tries them again


@pytest.mark.parametrize(
    "cause",
    [
        ConnectionError("Connection refused"),
        NoCredentialsError(),
        OSError(28, "No space left on device"),
    ],
)
def test_error_that_concerns_every_file_stops_the_run(
    run, bucket, s3, tmp_path, monkeypatch, cause
):
    def fail(original, key, path):
        raise cause

    replace_download(monkeypatch, fail)
    with pytest.raises(UserError) as error:
        predict_to(run.model, [bucket], tmp_path)
    assert error.value.code in ("E_REMOTE_UNREACHABLE", "E_REMOTE_CREDENTIALS")
    assert error.value.what.startswith("s3://season/2025")
    assert "\n" not in str(error.value)


def test_expired_session_stops_the_run_and_an_archived_object_does_not(bucket, s3, monkeypatch):
    def fail_with(code):
        def download(original, key, path):
            raise PermissionError("no") from ClientError({"Error": {"Code": code}}, "GetObject")

        replace_download(monkeypatch, download)

    remote_path = list_files([location_of(bucket)])[0][2].path
    fail_with("ExpiredToken")
    with pytest.raises(UserError) as error:
        fetch(remote_path)
    assert error.value.code == "E_REMOTE_CREDENTIALS"
    fail_with("InvalidObjectState")  # in cold storage
    with pytest.raises(UnreadableAudio, match=str(remote_path)):
        fetch(remote_path)


def test_incomplete_download_is_never_taken_for_a_short_recording(bucket, s3, monkeypatch):
    remote_path = list_files([location_of(bucket)])[0][2].path
    half = lambda original, key, path: Path(path).write_bytes(b"RIFF")  # noqa: E731
    replace_download(monkeypatch, half)
    with pytest.raises(UserError, match="4 bytes") as error:
        fetch(remote_path)
    assert error.value.code == "E_REMOTE_UNREACHABLE"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("s3://nobucket/x", "E_REMOTE_MISSING"),
        ("s3://season/nothing", "E_REMOTE_MISSING"),
        ("s3://season/2025/site9", "E_REMOTE_MISSING"),
        ("nonsense://x/y", "E_REMOTE_SCHEME"),
    ],
)
def test_wrong_address_is_an_error(bucket, url, code):
    with pytest.raises(UserError) as error:
        list_files([location_of(url)])
    assert error.value.code == code
    assert error.value.what.startswith(url)
    assert "\n" not in str(error.value)


def test_folder_without_recordings_is_an_error(bucket, s3):
    s3.pipe_file("season/texts/a.txt", b"x")
    with pytest.raises(UserError) as error:
        list_files([location_of("s3://season/texts")])
    assert error.value.code == "E_NO_AUDIO"


def test_unreachable_store_is_an_error_of_one_line(bucket, s3, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(type(s3), "retries", 1)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        with pytest.raises(UserError) as error:
            list_files([location_of(bucket)])
        assert error.value.code == "E_REMOTE_UNREACHABLE"
        assert "\n" not in str(error.value)
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_tables_are_uploaded_and_resumed_from_the_store(
    run, archive, bucket, s3, whole, differing, tmp_path
):
    prediction = predict_to(run.model, [bucket], "s3://season/found")
    uploaded = sorted(key.rsplit("/", 1)[1] for key in s3.find("season/found"))
    tables = ["events.csv", "presence.csv", "quarantine.csv", "run.json"]
    assert uploaded == [".antpitta.json", *tables]
    s3.get("season/found", str(tmp_path / "found"), recursive=True)
    assert not differing(tmp_path / "found", whole, here=archive, there=bucket)
    assert prediction.counts.recordings == len(prediction.presence) == 7
    speeds = []
    predict_to(
        *(run.model, [bucket], "s3://season/found/"),
        resume=True,
        progress=lambda done, total, speed: speeds.append(speed),
    )
    assert speeds == [0] * 8  # nothing was predicted again


def test_output_that_cannot_be_written_is_an_error_before_prediction(run, bucket):
    with pytest.raises(UserError) as error:
        predict_to(run.model, [bucket], "s3://nobucket/out")
    assert error.value.what.startswith("s3://nobucket/out")


def test_every_store_of_fsspec_can_be_read(run, archive, whole, differing, tmp_path):
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


def test_keys_with_special_characters_are_read():
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/odd/a b/ä#1%20?.wav", b"RIFF")
    [(remote_path, key)] = list_objects(RemotePath("memory://odd"))
    assert key == "a b/ä#1%20?.wav"
    assert remote_path.name == "ä#1%20?.wav"
    assert fetch(remote_path).read_bytes() == b"RIFF"


@pytest.mark.parametrize(
    ("root", "location"),
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
def test_urls_and_paths_are_distinguished(root, location):
    assert location_of(root) == location


def test_existing_folder_named_like_a_url_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:" / "b").mkdir(parents=True)
    assert location_of(Path("s3:/b")) == Path("s3:/b")


def test_missing_extra_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError) as error:
        list_files([location_of("gs://bucket/x")])
    assert error.value.code == "E_REMOTE_EXTRA"
    assert "antpitta[remote]" in error.value.remedy


def test_remote_path_has_name_suffix_and_parent_and_ignores_its_stamp():
    path = RemotePath("s3://b/site1/x.WAV", (3, 4))
    assert (path.name, path.suffix, str(path)) == ("x.WAV", ".WAV", "s3://b/site1/x.WAV")
    assert (path.parent.name, str(path.parent.parent)) == ("site1", "s3://b")
    assert path == RemotePath("s3://b/site1/x.WAV", (5, 6))


def test_reason_of_a_damaged_copy_names_the_object(run, simulated, tmp_path):
    wave, rate = sf.read(next((simulated / "test").iterdir()))
    whole = tmp_path / "torn.flac"
    sf.write(whole, wave, rate)
    torn = whole.read_bytes()
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/torn/torn.flac", torn[:9000] + bytes(len(torn) - 9000))
    memory.pipe_file("/torn/head.flac", torn[:90])
    prediction = predict_to(run.model, ["memory://torn"], tmp_path / "out")
    reasons = dict(prediction.quarantine.values)
    assert set(reasons) == {"memory://torn/torn.flac", "memory://torn/head.flac"}
    for file, reason in reasons.items():
        assert file in reason
        assert tempfile.gettempdir() not in reason


def test_object_that_a_user_edited_or_added_is_not_replaced(run, archive):
    memory = fsspec.filesystem("memory")
    audio = [archive / "site1"]

    def contents():
        return {path: memory.cat_file(path) for path in memory.find("/edits/out")}

    predict_to(run.model, audio, "memory://edits/out", formats="csv,audacity")
    assert memory.exists("/edits/out/.antpitta.json")
    tracks = memory.glob("/edits/out/audacity/**/*.txt")
    assert tracks
    predict_to(run.model, audio, "memory://edits/out")  # ours: replaced, and what is no more, gone
    assert not memory.exists(tracks[0])
    for name, formats in (("events.csv", "csv"), ("events.parquet", "parquet")):
        before = contents()
        memory.pipe_file(f"/edits/out/{name}", b"mine")
        for resume in (True, False):
            with pytest.raises(UserError) as error:
                predict_to(run.model, audio, "memory://edits/out", formats=formats, resume=resume)
            assert error.value.code == "E_OUTPUT_EDITED"
            assert name in error.value.what
        after = contents()
        assert after.pop(f"/edits/out/{name}") == b"mine"
        before.pop(f"/edits/out/{name}", None)
        assert after == before
        memory.rm(f"/edits/out/{name}")
