"""Archives on Google's store, played by an emulator on loopback; S3 is in test_remote.py."""

import os

import pytest

from antpitta.api import predict_to
from antpitta.core.errors import UserError
from antpitta.files import remote
from antpitta.files.audio import UnreadableAudio
from antpitta.files.recordings import list_files, open_file
from antpitta.files.remote import fetch, location_of

# The emulator has no gRPC, which gcsfs asks what kind of bucket it is; it looks when it is loaded.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
fsspec = pytest.importorskip("fsspec", reason="the extra remote is not installed")
pytest.importorskip("gcsfs", reason="the extra remote is not installed")
emulator = pytest.importorskip("gcp_storage_emulator.server", reason="it is not installed")

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def gs():
    """The store on loopback; the environment leads there and nowhere else."""
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
    gs.pipe_file("season/20251/stranger.wav", b"x")  # begins alike, and is another folder
    return "gs://season/2025"


def test_an_archive_gives_the_tables_of_the_same_archive_here(
    run, archive, bucket, gs, whole, differing, tmp_path
):
    found = predict_to(run.model, [bucket], "gs://season/found")
    there = sorted(key.rsplit("/", 1)[1] for key in gs.find("season/found"))
    assert there == ["events.csv", "presence.csv", "quarantine.csv", "run.json"]
    gs.get("season/found", str(tmp_path / "found"), recursive=True)
    assert not differing(tmp_path / "found", whole, here=archive, there=bucket)
    assert found.counts.recordings == 7
    asked = []
    predict_to(
        *(run.model, [bucket], "gs://season/found"),
        resume=True,
        progress=lambda done, total, speed: asked.append(speed),
    )
    assert asked == [0] * 8  # nothing was heard again


def test_what_changed_there_is_heard_again(run, archive, bucket, gs, tmp_path, opened):
    gs.copy("season/2025", "season/mine", recursive=True)
    predict_to(run.model, ["gs://season/mine"], tmp_path)
    gs.put(str(next(archive.rglob("r4*"))), "season/mine/site1/r3_20250101_030000.wav")
    opened.clear()
    predict_to(run.model, ["gs://season/mine"], tmp_path, resume=True)
    # what could not be opened there is looked for again: it may have been the way
    assert sorted(opened) == ["r0_20250101_000000", "r3_20250101_030000"]


def test_one_object_that_is_gone_or_closed_is_its_own_trouble(bucket, gs, monkeypatch):
    gs.copy("season/2025", "season/shrinking", recursive=True)
    files = list_files([location_of("gs://season/shrinking")])[0]
    gs.rm(files[3].path.url)
    with pytest.raises(UnreadableAudio, match=r"r3.*is gone"):
        open_file(files[3])

    def forbidden(key, path):
        raise OSError(f"Forbidden: {key}\nsomebody does not have storage.objects.get access")

    store, _ = remote._store(bucket)
    monkeypatch.setattr(store, "get_file", forbidden)
    with pytest.raises(UnreadableAudio, match=r"may not be read \(Forbidden: .* somebody") as said:
        fetch(files[4].path)
    assert "\n" not in str(said.value)


def test_who_is_not_known_there_is_told_of_googles_keys(bucket, monkeypatch):
    class NotKnown(Exception):
        code = 401

    def unknown(key, path):
        raise NotKnown("Anonymous caller, 401")

    place = list_files([location_of(bucket)])[0][2].path
    store, _ = remote._store(bucket)
    monkeypatch.setattr(store, "get_file", unknown)
    with pytest.raises(UserError, match=r"check the credentials \(GOOGLE_APPLI"):
        fetch(place)


@pytest.mark.parametrize("url", ["gs://nobucket/x", "gs://season/nothing", "gs://season/2025/no"])
def test_an_address_that_is_wrong_is_the_users_mistake(bucket, url):
    with pytest.raises(UserError, match="no such bucket, folder or object") as mistake:
        list_files([location_of(url)])
    assert str(mistake.value).startswith(url)
    assert "\n" not in str(mistake.value)


def test_where_nothing_can_be_put_is_said_before_anything_is_heard(run, bucket):
    with pytest.raises(UserError, match="gs://nobucket/out"):
        predict_to(run.model, [bucket], "gs://nobucket/out")
