"""An archive on a Ray cluster of two nodes on this machine, one of which is killed halfway."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from antpitta.api import predict_to
from antpitta.core.errors import UserError
from antpitta.files.bundle import bundle_from_bytes, bundle_to_bytes, read_bundle
from antpitta.files.recordings import ListedFile, list_files
from antpitta.predict import cluster
from antpitta.predict.journal import GONE, Journal, JournalEntry
from antpitta.predict.pipeline import file_stamp
from antpitta.predict.predictor import Predictor

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.timeout(300)
BOTH = ("csv", "parquet")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory, s3):
    """Two raylets, each with one processor; the second may be killed and added again."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        home = Path(__file__).parent
        patch.setenv("PYTHONPATH", f"{home.parent / 'src'}:{home}:{':'.join(sys.path)}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("ANTPITTA_TEST_LOG", str(tmp_path_factory.mktemp("log") / "log"))
        patch.syspath_prepend(home)
        patch.delenv("RAY_ADDRESS", raising=False)
        two_nodes = Cluster()
        try:
            size = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
            quick = {"health_check_period_ms": 300, "health_check_failure_threshold": 3}
            two_nodes.add_node(**size, include_dashboard=False, _system_config=quick)
            two_nodes.second = two_nodes.add_node(**size)
            two_nodes.size = size
            yield two_nodes
        finally:
            ray.shutdown()
            two_nodes.shutdown()


@pytest.fixture(scope="module")
def archive(fill_archive, tmp_path_factory):
    """24 short recordings, one of them broken, one cut short."""
    return fill_archive(tmp_path_factory.mktemp("archive"), 24, 3, cut=True)


def use_worker(monkeypatch, name):
    import ray_child

    monkeypatch.setattr(cluster, "PredictionWorker", getattr(ray_child, name))


def test_node_that_dies_halfway_loses_only_the_blocks_in_progress(
    run, archive, whole, differing, tmp_path, nodes, monkeypatch
):
    use_worker(monkeypatch, "SlowWorker")
    log = Path(os.environ["ANTPITTA_TEST_LOG"])
    reported = []

    def progress(done, total, speed):
        reported.append(done)
        pids = {line.split()[0] for line in log.read_text().splitlines()}
        if nodes.second is not None and done >= 6 and len(pids) == 2:
            nodes.remove_node(nodes.second, allow_graceful=False)
            nodes.second = None

    try:
        prediction = predict_to(
            *(run.model, [archive], tmp_path / "out"),
            formats=BOTH,
            executor="ray",
            address=nodes.address,
            progress=progress,
        )
        assert nodes.second is None, "no node was killed"
    finally:
        if nodes.second is None:
            nodes.second = nodes.add_node(**nodes.size)
    assert not differing(tmp_path / "out", whole)
    assert reported == list(range(1, 25))  # nothing lost, nothing twice
    assert prediction.counts.recordings == 23
    started = [line.split()[1] for line in log.read_text().splitlines()]
    assert len(set(started)) == 24
    assert len(started) <= 24 + 2 * 3  # two blocks of three files were with the dead worker


def test_file_that_kills_its_reader_is_quarantined_alone(
    run, archive, whole, differing, tmp_path, nodes, monkeypatch
):
    use_worker(monkeypatch, "KilledWorker")
    prediction = predict_to(
        run.model, [archive], tmp_path / "out", executor="ray", address=nodes.address, workers=2
    )
    files = prediction.quarantine["file"].tolist()
    assert len(files) == 3
    assert str(next(archive.rglob("r05*"))) in files
    assert prediction.counts.recordings == 22
    monkeypatch.undo()
    again = predict_to(
        *(run.model, [archive], tmp_path / "out"),
        formats=BOTH,
        resume=True,
    )
    assert again.counts.recordings == 23
    assert not differing(tmp_path / "out", whole)


class SharedRegister:
    """A register with the starts of earlier workers."""

    def __init__(self, earlier):
        self.register, self.earlier = cluster.AttemptRegister(), earlier

    def __call__(self, method, name):
        return (getattr(self.register, method)(name) or 0) + self.earlier.get(name, 0)


def batch(files):
    rows = [cluster.file_to_row(i, file, file_stamp(file.path)) for i, file in enumerate(files)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def make_worker(run, earlier, monkeypatch):
    worker = cluster.PredictionWorker(
        bundle_to_bytes(read_bundle(run.model)), None, Predictor, version("antpitta")
    )
    monkeypatch.setattr(ray, "get", lambda content: content)
    worker._ask_register = SharedRegister(earlier)
    return worker


def test_repeated_block_leaves_out_only_the_file_that_killed_three_workers(
    run, archive, monkeypatch
):
    worker = make_worker(run, {"block 0": 3, "file 1": 2, "file 2": 1}, monkeypatch)
    files = list_files([archive])[0][3:6]
    entries = [cluster.unpack_entry(packed) for packed in worker(batch(files))["entry"]]
    assert [bool(entry.reason) for entry in entries] == [False, True, False]
    assert entries[1].stamp == GONE  # --resume tries it again
    assert entries[0].stamp == file_stamp(files[0].path)
    assert worker._ask_register.register.started == {"file 1": 1}


@pytest.mark.parametrize(
    ("raised", "returned", "text"),
    [
        (UserError("E_CLUSTER_FAILED", "s3://b/x: no network", "wait"), UserError, "s3://b/x"),
        (ZeroDivisionError("x"), RuntimeError, "Traceback.*ZeroDivisionError"),
    ],
)
def test_error_that_ends_the_run_comes_back_from_a_worker(
    run, archive, monkeypatch, raised, returned, text
):
    def fails(rows):
        raise raised

    worker = make_worker(run, {}, monkeypatch)
    worker._predict = fails
    [answer] = worker(batch(list_files([archive])[0][:1]))["entry"]
    with pytest.raises(returned, match=f"(?s){text}") as error:
        cluster.unpack_entry(answer)
    assert getattr(error.value, "code", "") == getattr(raised, "code", "")


def test_worker_of_another_version_is_refused(run, archive, monkeypatch):
    worker = make_worker(run, {}, monkeypatch)
    worker.driver_version = "0.0.1"
    [answer] = worker(batch(list_files([archive])[0][:1]))["entry"]
    with pytest.raises(UserError, match=r"0\.0\.1") as error:
        cluster.unpack_entry(answer)
    assert error.value.code == "E_CLUSTER_VERSION"


def test_node_without_the_archive_is_distinguished_from_a_missing_file(archive, tmp_path):
    file = list_files([archive])[0][3]
    lost = JournalEntry(file.path, file_stamp(file.path), f"{file.path}: No such file or directory")
    with Journal(tmp_path, {}, resume=False) as journal:
        with pytest.raises(UserError) as error:
            cluster._store(file, lost, journal, lambda files, seconds: None)
        assert error.value.code == "E_ARCHIVE_NOT_SHARED"
        gone = ListedFile("x", tmp_path / "x.wav")
        lost = replace(lost, path=gone.path)
        cluster._store(gone, lost, journal, lambda files, seconds: None)
        assert [entry.path for entry in journal.read(iter([file.path, gone.path]))] == [gone.path]


def test_run_started_on_one_machine_continues_on_a_cluster(
    run, archive, differing, tmp_path, nodes, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # relative paths are reported as they were given
    shutil.copytree(archive, "archive")
    last = Path("archive") / "site2" / "r23_20250101_230000.wav"
    last.rename("r23")
    predict_to(run.model, ["archive"], "out", formats=BOTH)
    Path("r23").rename(last)
    (tmp_path / last).with_name("text.wav").write_text("no sound")
    requested = []

    def logged(ray, rows, *options):
        requested.extend(Path(row["path"]).name for row in rows)
        return predict_rows(ray, rows, *options)

    predict_rows = cluster._predict_rows
    monkeypatch.setattr(cluster, "_predict_rows", logged)
    predict_to(run.model, ["archive"], "out", formats=BOTH, executor="ray", resume=True,
               address=nodes.address)  # fmt: skip
    assert sorted(requested) == [last.name, "text.wav"]
    predict_to(run.model, ["archive"], "local", formats=BOTH)
    assert not differing(Path("out"), Path("local"))
    quarantine = Path("out/quarantine.csv").read_text()
    assert "archive/site2/text.wav" in quarantine
    assert str(tmp_path) not in quarantine


def test_workers_fetch_recordings_from_s3(run, archive, whole, differing, nodes, s3, tmp_path):
    s3.mkdir("meadow")
    s3.put(str(archive), "meadow/2025", recursive=True)
    predict_to(
        run.model,
        ["s3://meadow/2025"],
        tmp_path,
        formats=BOTH,
        executor="ray",
        address=nodes.address,
    )
    assert not differing(tmp_path, whole, here=archive, there="s3://meadow/2025")


def test_finished_archive_starts_no_cluster(run, archive, tmp_path, monkeypatch):
    predict_to(run.model, [archive], tmp_path)
    monkeypatch.setattr(cluster, "ray_session", None)
    predict_to(run.model, [archive], tmp_path, executor="ray", resume=True)


def test_bundle_from_bytes_is_the_same_model(run, tmp_path):
    bundle = read_bundle(run.model)
    there = bundle_from_bytes(bundle_to_bytes(bundle), tmp_path)
    assert there.digest == bundle.digest
    assert bundle_to_bytes(there) == bundle_to_bytes(bundle)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"executor": "spark"}, "spark"),
        ({"address": "auto"}, "auto"),
        ({"executor": "ray", "workers": 0}, "0"),
    ],
)
def test_option_that_is_unknown_or_excluded_is_a_user_error(run, archive, tmp_path, options, value):
    with pytest.raises(UserError, match=value) as error:
        predict_to(run.model, [archive], tmp_path, **options)
    assert error.value.code == "E_OPTION"


def test_executor_ray_without_ray_names_the_extra(run, archive, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"'antpitta\[ray\]'") as error:
        predict_to(run.model, [archive], tmp_path, executor="ray")
    assert error.value.code == "E_NEEDS_RAY_EXTRA"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://localhost:1", "auto"])
def test_cluster_that_does_not_answer_is_one_line_at_once(
    run, archive, tmp_path, monkeypatch, address
):
    def fails(**options):
        assert options["address"] == "auto"  # Ray itself would take minutes for the others
        raise ConnectionError("no\nanswer")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(UserError, match=address) as error:
        predict_to(run.model, [archive], tmp_path, executor="ray", address=address)
    assert error.value.code == "E_CLUSTER_UNREACHABLE"
    assert "\n" not in str(error.value)


def test_import_of_antpitta_does_not_import_ray():
    code = "import sys, antpitta, antpitta.cli; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
