"""An archive on a Ray cluster of two nodes on this machine, one of which dies half-way."""

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
from antpitta.predict import cluster as actors
from antpitta.predict import cluster as archive_cluster
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
        own = Cluster()
        try:
            size = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
            quick = {"health_check_period_ms": 300, "health_check_failure_threshold": 3}
            own.add_node(**size, include_dashboard=False, _system_config=quick)
            own.second = own.add_node(**size)
            own.size = size
            yield own
        finally:
            ray.shutdown()
            own.shutdown()


@pytest.fixture(scope="module")
def archive(fill_archive, tmp_path_factory):
    """24 short recordings, one of them broken, one cut short."""
    return fill_archive(tmp_path_factory.mktemp("archive"), 24, 3, cut=True)


def worker(monkeypatch, name):
    import ray_child

    monkeypatch.setattr(archive_cluster, "PredictionWorker", getattr(ray_child, name))


def test_a_node_that_dies_half_way_costs_nothing_but_what_it_had_in_hand(
    run, archive, whole, differing, tmp_path, nodes, monkeypatch
):
    worker(monkeypatch, "Slow")
    log = Path(os.environ["ANTPITTA_TEST_LOG"])
    kept = []

    def tick(done, total, speed):
        kept.append(done)
        pids = {line.split()[0] for line in log.read_text().splitlines()}
        if nodes.second is not None and done >= 6 and len(pids) == 2:
            nodes.remove_node(nodes.second, allow_graceful=False)
            nodes.second = None

    try:
        found = predict_to(
            *(run.model, [archive], tmp_path / "out"),
            formats=BOTH,
            executor="ray",
            address=nodes.address,
            tick=tick,
        )
        assert nodes.second is None, "no node was killed"
    finally:
        if nodes.second is None:
            nodes.second = nodes.add_node(**nodes.size)
    assert not differing(tmp_path / "out", whole)
    assert kept == list(range(1, 25))  # nothing lost, nothing twice
    assert found.counts.recordings == 23
    begun = [line.split()[1] for line in log.read_text().splitlines()]
    assert len(set(begun)) == 24
    assert len(begun) <= 24 + 2 * 3  # two blocks of three files were with the dead worker


def test_a_file_that_kills_its_reader_is_quarantined_alone(
    run, archive, whole, differing, tmp_path, nodes, monkeypatch
):
    worker(monkeypatch, "Poisoned")
    found = predict_to(
        run.model, [archive], tmp_path / "out", executor="ray", address=nodes.address, workers=2
    )
    named = found.quarantine.set_index("file")["reason"]
    assert len(named) == 3
    assert "killed its reader" in named[str(next(archive.rglob("r05*")))]
    assert found.counts.recordings == 22
    monkeypatch.undo()
    again = predict_to(
        *(run.model, [archive], tmp_path / "out"),
        formats=BOTH,
        resume=True,
    )
    assert again.counts.recordings == 23
    assert not differing(tmp_path / "out", whole)


class Told:
    """A register that others write in as well."""

    def __init__(self, before):
        self.own, self.before = actors.AttemptRegister(), before

    def __call__(self, verb, what):
        return (getattr(self.own, verb)(what) or 0) + self.before.get(what, 0)


def batch(files):
    rows = [actors.file_to_row(i, file, file_stamp(file.path)) for i, file in enumerate(files)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def hearer(run, before, monkeypatch):
    own = actors.PredictionWorker(
        bundle_to_bytes(read_bundle(run.model)), None, Predictor, version("antpitta")
    )
    monkeypatch.setattr(ray, "get", lambda parcel: parcel)
    own._tell = Told(before)
    return own


def test_a_block_done_again_leaves_out_only_the_file_that_killed_thrice(run, archive, monkeypatch):
    own = hearer(run, {"block 0": 3, "file 1": 2, "file 2": 1}, monkeypatch)
    files = list_files([archive])[0][3:6]
    came = [actors.unpack_entry(one) for one in own(batch(files))["entry"]]
    assert [bool(one.reason) for one in came] == [False, True, False]
    assert came[1].stamp == GONE  # --resume tries it again
    assert came[0].stamp == file_stamp(files[0].path)
    assert own._tell.own.begun == {"file 1": 1}


@pytest.mark.parametrize(
    ("trouble", "error", "said"),
    [
        (
            UserError("E_TODO", "s3://b/x: no network", "wait"),
            UserError,
            "s3://b/x: no network; wait",
        ),
        (ZeroDivisionError("x"), RuntimeError, "Traceback.*ZeroDivisionError"),
    ],
)
def test_what_would_be_every_files_trouble_comes_back_as_an_answer(
    run, archive, monkeypatch, trouble, error, said
):
    def fails(rows):
        raise trouble

    own = hearer(run, {}, monkeypatch)
    own._hear = fails
    [answer] = own(batch(list_files([archive])[0][:1]))["entry"]
    with pytest.raises(error, match=f"(?s){said}"):
        actors.unpack_entry(answer)


def test_workers_of_another_version_are_refused(run, archive, monkeypatch):
    own = hearer(run, {}, monkeypatch)
    own.wrote = "0.0.1"
    [answer] = own(batch(list_files([archive])[0][:1]))["entry"]
    with pytest.raises(UserError, match=r"not 0.0.1; install one version everywhere"):
        actors.unpack_entry(answer)


def test_a_node_without_the_archive_is_told_from_a_file_that_is_gone(archive, tmp_path):
    file = list_files([archive])[0][3]
    lost = JournalEntry(file.path, file_stamp(file.path), f"{file.path}: No such file or directory")
    with Journal(tmp_path, {}, resume=False) as journal:
        with pytest.raises(UserError, match="is there, but a worker does not see it; mount"):
            archive_cluster._keep(file, lost, journal, lambda *told: None)
        gone = ListedFile("x", tmp_path / "x.wav")
        lost = replace(lost, path=gone.path)
        archive_cluster._keep(gone, lost, journal, lambda *told: None)
        assert [one.path for one in journal.read(iter([file.path, gone.path]))] == [gone.path]


def test_a_run_begun_on_one_machine_goes_on_on_many(
    run, archive, differing, tmp_path, nodes, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # paths that workers do not share are named as they were given
    shutil.copytree(archive, "archive")
    last = Path("archive") / "site2" / "r23_20250101_230000.wav"
    last.rename("r23")
    predict_to(run.model, ["archive"], "out", formats=BOTH)
    Path("r23").rename(last)
    (tmp_path / last).with_name("text.wav").write_text("no sound")
    asked = []

    def noting(ray, rows, *more):
        asked.extend(Path(row["path"]).name for row in rows)
        return heard(ray, rows, *more)

    heard = archive_cluster._heard
    monkeypatch.setattr(archive_cluster, "_heard", noting)
    predict_to(run.model, ["archive"], "out", formats=BOTH, executor="ray", resume=True,
               address=nodes.address)  # fmt: skip
    assert sorted(asked) == [last.name, "text.wav"]
    predict_to(run.model, ["archive"], "local", formats=BOTH)
    assert not differing(Path("out"), Path("local"))
    told = Path("out/quarantine.csv").read_text()
    assert "archive/site2/text.wav" in told
    assert str(tmp_path) not in told


def test_workers_fetch_from_s3_what_the_driver_lists_there(
    run, archive, whole, differing, nodes, s3, tmp_path
):
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


def test_a_finished_archive_starts_no_cluster(run, archive, tmp_path, monkeypatch):
    predict_to(run.model, [archive], tmp_path)
    monkeypatch.setattr(archive_cluster, "ray_session", None)
    predict_to(run.model, [archive], tmp_path, executor="ray", resume=True)


def test_a_parcel_is_the_same_model(run, tmp_path):
    bundle = read_bundle(run.model)
    there = bundle_from_bytes(bundle_to_bytes(bundle), tmp_path)
    assert there.digest == bundle.digest
    assert bundle_to_bytes(there) == bundle_to_bytes(bundle)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"engine": "spark"}, "choose from local, ray"),
        ({"address": "auto"}, "add --executor ray"),
        ({"engine": "ray", "workers": 0}, "give 1 or more"),
    ],
)
def test_what_cannot_be_asked_for_is_the_users_mistake(run, archive, tmp_path, asked, said):
    with pytest.raises(UserError, match=said):
        predict_to(run.model, [archive], tmp_path, **asked)


def test_without_ray_the_remedy_is_named(run, archive, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'antpitta\[ray\]'"):
        predict_to(run.model, [archive], tmp_path, executor="ray")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://localhost:1", "auto"])
def test_a_cluster_that_is_not_there_is_one_line_at_once(
    run, archive, tmp_path, monkeypatch, address
):
    def fails(**asked):
        assert asked["address"] == "auto"  # Ray itself would take minutes over the others
        raise ConnectionError("nobody\nthere")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(UserError, match="no Ray cluster can be reached") as said:
        predict_to(run.model, [archive], tmp_path, executor="ray", address=address)
    assert "\n" not in str(said.value)


def test_importing_antpitta_imports_no_ray():
    code = "import sys, antpitta, antpitta.cli; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
