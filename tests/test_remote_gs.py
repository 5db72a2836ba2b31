"""Archives in Google Cloud Storage, emulated on this machine; S3 is in test_remote.py."""

import os

import pytest

from antpitta.api import predict_to
from antpitta.core.errors import UserError
from antpitta.files import remote
from antpitta.files.audio import UnreadableAudio
from antpitta.files.recordings import list_files, open_file
from antpitta.files.remote import fetch, location_of

# The emulator has no gRPC, which gcsfs would use; gcsfs reads this variable on import.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
fsspec = pytest.importorskip("fsspec", reason="the extra remote is not installed")
pytest.importorskip("gcsfs", reason="the extra remote is not installed")
emulator = pytest.importorskip("gcp_storage_emulator.server", reason="it is not installed")

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def gs():
    """The emulated store; the environment points to it only."""
    kind = fsspec.get_filesystem_class("gs")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    port = server._api._httpd.server_port
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        patch.setenv("FSSPEC_GS_TOKEN", "anon")
        fsspec.config.set_conf_env(fsspec.config.conf)
        kind.clear_instance_cache()
        yield fsspec.filesystem("gs")
        kind.clear_instance_cache()
        fsspec.config.conf.pop("gs")
    server.stop()


@pytest.fixture(scope="module")
def archive(fill_archive, tmp_path_factory):
    return fill_archive(tmp_path_factory.mktemp("archive") / "2025", 8, 2, cut=True)


@pytest.fixture(scope="module")
def bucket(gs, archive):
    gs.mkdir("season")
    gs.put(str(archive), "season/2025", recursive=True)
    gs.pipe_file("season/20251/stranger.wav", b"x")  # a folder whose name begins the same
    return "gs://season/2025"


def test_archive_gives_the_tables_of_the_same_local_archive(
    run, archive, bucket, gs, whole, differing, tmp_path
):
    prediction = predict_to(run.model, [bucket], "gs://season/found")
    uploaded = sorted(key.rsplit("/", 1)[1] for key in gs.find("season/found"))
    tables = ["events.csv", "presence.csv", "quarantine.csv", "run.json"]
    assert uploaded == [".antpitta.json", *tables]
    gs.get("season/found", str(tmp_path / "found"), recursive=True)
    assert not differing(tmp_path / "found", whole, here=archive, there=bucket)
    assert prediction.counts.recordings == 7
    speeds = []
    predict_to(
        *(run.model, [bucket], "gs://season/found"),
        resume=True,
        progress=lambda done, total, speed: speeds.append(speed),
    )
    assert speeds == [0] * 8  # nothing was predicted again


def test_changed_object_is_predicted_anew(run, archive, bucket, gs, tmp_path, opened):
    gs.copy("season/2025", "season/mine", recursive=True)
    predict_to(run.model, ["gs://season/mine"], tmp_path)
    gs.put(str(next(archive.rglob("r4*"))), "season/mine/site1/r3_20250101_030000.wav")
    opened.clear()
    predict_to(run.model, ["gs://season/mine"], tmp_path, resume=True)
    # a file that could not be opened is tried again: the network may have failed
    assert sorted(opened) == ["r0_20250101_000000", "r3_20250101_030000"]


def test_object_that_is_gone_or_forbidden_is_unreadable_audio(bucket, gs, monkeypatch):
    gs.copy("season/2025", "season/shrinking", recursive=True)
    files = list_files([location_of("gs://season/shrinking")])[0]
    gs.rm(files[3].path.url)
    with pytest.raises(UnreadableAudio, match="r3"):
        open_file(files[3])

    def forbidden(key, path):
        raise OSError(f"Forbidden: {key}\nsomebody does not have storage.objects.get access")

    store, _ = remote._open_store(bucket)
    monkeypatch.setattr(store, "get_file", forbidden)
    with pytest.raises(UnreadableAudio, match=r"Forbidden: .* somebody") as error:
        fetch(files[4].path)
    assert "\n" not in str(error.value)


def test_unknown_caller_is_an_error_that_names_googles_credentials(bucket, monkeypatch):
    class UnknownCaller(Exception):
        code = 401

    def refuse(key, path):
        raise UnknownCaller("Anonymous caller, 401")

    remote_path = list_files([location_of(bucket)])[0][2].path
    store, _ = remote._open_store(bucket)
    monkeypatch.setattr(store, "get_file", refuse)
    with pytest.raises(UserError) as error:
        fetch(remote_path)
    assert error.value.code == "E_REMOTE_CREDENTIALS"
    assert "GOOGLE_APPLICATION_CREDENTIALS" in error.value.remedy


@pytest.mark.parametrize("url", ["gs://nobucket/x", "gs://season/nothing", "gs://season/2025/no"])
def test_wrong_address_is_an_error(bucket, url):
    with pytest.raises(UserError) as error:
        list_files([location_of(url)])
    assert error.value.code == "E_REMOTE_MISSING"
    assert error.value.what.startswith(url)
    assert "\n" not in str(error.value)


def test_output_that_cannot_be_written_is_an_error_before_prediction(run, bucket):
    with pytest.raises(UserError) as error:
        predict_to(run.model, [bucket], "gs://nobucket/out")
    assert error.value.what.startswith("gs://nobucket/out")
