"""Rounds that the review page starts: a process of their own, one at a time."""

import shutil
import time

import pytest

from antpitta import api
from antpitta.api import round_process
from antpitta.api.round_process import RoundProcess, latest_round
from antpitta.core.errors import UserError
from antpitta.files.bundle import read_bundle
from antpitta.files.runs import RunFolder
from tests.test_round import judge, make_queue

LONGEST = 900  # seconds


@pytest.fixture
def own_run(run, tmp_path):
    return shutil.copytree(run.path, tmp_path / "runs" / "first")


@pytest.fixture
def queue(simulated, tmp_path):
    return make_queue(tmp_path / "queue", simulated, simulated / "test")


def wait(rounds, until):
    end = time.monotonic() + LONGEST
    while not until(rounds.status()):
        assert time.monotonic() < end, rounds.status()
        time.sleep(0.1)
    return rounds.status()


def test_round_of_the_page_is_stopped_with_the_server_and_continued(own_run, queue, simulated):
    judge(queue, simulated)
    rounds = RoundProcess(own_run, queue, [simulated / "test"])
    idle = {"state": "idle", "message": "The next round begins with first."}
    assert rounds.status() == idle
    assert rounds.superseded() == frozenset()
    assert rounds.start()["state"] == "running"
    with pytest.raises(UserError) as error:
        rounds.start()
    assert error.value.code == "E_ROUND_RUNNING"
    out = own_run.parent / "first-2"
    wait(rounds, lambda status: (out / "folds.csv").is_file())
    rounds.stop()
    stopped = wait(rounds, lambda status: status["state"] != "running")
    assert stopped["state"] == "failed"
    kept = (out / "verdicts.csv").read_bytes()
    again = RoundProcess(own_run, queue, [simulated / "test"])
    again.start()
    done = wait(again, lambda status: status["state"] != "running")
    assert done["state"] == "done", done
    assert "macro AP" in done["message"]
    assert str(out / "report.html") in done["message"]
    assert (out / "verdicts.csv").read_bytes() == kept
    assert again.superseded() == {read_bundle(own_run).digest}
    assert latest_round(own_run) == out
    assert round_process._next_folder(out) == (own_run.parent / "first-3", False)


def test_round_that_fails_says_why_in_one_line(own_run, queue, tmp_path):
    rounds = RoundProcess(own_run, queue, [])
    rounds.start()
    status = wait(rounds, lambda status: status["state"] != "running")
    assert status["state"] == "failed"
    assert "no verdict of this queue is agreed on" in status["message"]
    assert "\n" not in status["message"]
    assert not (own_run.parent / "first-2").exists()


def test_run_without_rounds_is_its_own_latest(own_run):
    (own_run.parent / "first-9").mkdir()  # somebody else's
    assert latest_round(own_run) == own_run
    assert RunFolder(own_run).round_number() == 0


def test_page_of_a_run_can_start_rounds_and_that_of_a_model_cannot(own_run, queue, simulated):
    for model, can in ((own_run, True), (own_run / "model", False), (None, False)):
        server = api.review(queue, simulated / "test", model=model, port=0)
        assert (server._rounds is not None) is can
        server.stop()
        server.serve()  # ends at once, and closes what it opened
