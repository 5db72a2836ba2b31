"""The queue's store: candidates, draws, events that are only added, and what is agreed."""

import math
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import pandas as pd
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from antpitta.core.errors import UserError
from antpitta.files.queue import DATABASE, connect
from antpitta.review.store import Store

REVIEWERS, VERDICTS = 8, 200


def table(count=10, **changes):
    rows = [
        {
            "recording_id": f"r{i % 3}",
            "recording_digest": f"d{i % 3}",
            "start_time": float(i),
            "end_time": i + 2.5,
            "low_freq": 100.0,
            "high_freq": None if i % 2 else 5000.0,
            "species": "coqui" if i % 2 else "wren",
            "score": i / 10,
            "source": "predict",
            "source_digest": "m",
            "site": f"site{i % 3}",
            "recorded_at": f"2021-03-0{1 + i % 3}T2{i % 3}:06:07",
        }
        for i in range(count)
    ]
    return pd.DataFrame(rows).assign(**changes)


@pytest.fixture
def queue(tmp_path):
    with Store.open(tmp_path / "queue", create=True) as store:
        store.add_candidates(table())
        yield store


@pytest.fixture
def ann(queue):
    return queue.add_reviewer("ann")


def draw_all(store, purpose="teach", **more):
    return store.create_draw(
        purpose, "all", 0, [{"candidate": row["candidate"], **more} for row in store.candidates()]
    )


def verdict(item, word="present", **more):
    place = {"region": item["region"], "species": item["species"]}
    return {"uuid": str(uuid4()), "kind": "verdict", "verdict": word, **place, **more}


def retract(target):
    return {"uuid": str(uuid4()), "kind": "retract", "target_uuid": target}


def code_of(call, *arguments, **keywords):
    with pytest.raises(UserError) as error:
        call(*arguments, **keywords)
    return error.value.code


def test_candidates_twice_are_known_and_keep_their_merged_detections(queue):
    merged = table(2, detections=[[(0.0, 1.0, 0.3), (1.5, 2.5, 0.4)], [(1.0, 3.5, 0.1)]])
    assert queue.add_candidates(table()) == {
        "added": 0, "known": 10, "recordings": 3, "species": 2, "verdicts": 0
    }  # fmt: skip
    assert queue.add_candidates(merged.assign(source_digest="n"))["added"] == 2
    assert len(list(queue.candidates())) == 12
    regions = {row["region"] for row in queue.candidates()}
    assert len(regions) == 10  # one region for one box


def test_species_in_another_spelling_is_the_same_one(queue):
    queue.add_candidates(table(2, species=["COQUI", "7"]))
    assert queue.species() == ["s7", "coqui", "wren"]
    assert queue.add_species("Wren ") == "wren"
    assert code_of(queue.add_species, "*") == "E_SPECIES_NAME"


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"end_time": 0.0}, "E_BAD_BOX"), ({"low_freq": 9e9}, "E_BAD_BOX")],
)
def test_candidates_with_an_impossible_box_are_refused_as_a_whole(queue, changes, code):
    bad = table(3).assign(source_digest="bad")
    bad.loc[2, list(changes)] = list(changes.values())
    assert code_of(queue.add_candidates, bad) == code
    assert len(list(queue.candidates())) == 10
    assert code_of(queue.add_candidates, bad.drop(columns="site")) == "E_CANDIDATE_TABLE"


def test_items_of_a_draw_come_in_pages_with_filters(queue, ann):
    draw = draw_all(queue)
    first = queue.draw_items(draw, limit=4)
    rest = queue.draw_items(draw, after=first[-1]["position"])
    assert [item["position"] for item in first + rest] == list(range(10))
    assert first[0]["high_freq"] == 5000.0
    assert first[1]["high_freq"] is None

    def count(**filters):
        return len(queue.draw_items(draw, filters=filters))

    assert count(species="WREN") == 5
    assert count(site="site1") == 3
    assert count(score_from=0.3, score_to=0.5) == 3
    assert count(date_from="2021-03-02", date_to="2021-03-02") == 3
    assert count(hour_from=22, hour_to=3) == 3
    queue.append_events([verdict(item) for item in first], ann)
    assert (count(state="open", reviewer=ann), count(state="done", reviewer=ann)) == (6, 4)
    bob = queue.add_reviewer("bob")
    assert count(state="open", reviewer=bob) == 10
    assert code_of(count, colour="red") == "E_OPTION"
    assert code_of(queue.draw_items, 99) == "E_NO_DRAW"


def test_items_of_an_audit_hide_scores_sources_and_strata(queue):
    draw = draw_all(queue, "audit", stratum="0.0-0.5", inclusion_p=0.5)
    hidden = {"score", "source", "stratum", "inclusion_p", "disagreement"}
    assert not hidden & set(queue.draw_items(draw)[0])
    assert len(queue.draw_items(draw, filters={"score_from": 0.5})) == 10
    assert hidden <= set(queue.draw_items(draw_all(queue))[0])
    assert {row["inclusion_p"] for row in queue.audit_rows()} == {0.5}


def test_second_copy_of_an_event_is_acknowledged_and_changes_nothing(queue, ann):
    item = queue.draw_items(draw_all(queue))[0]
    event = verdict(item)
    for _ in range(2):
        assert queue.append_events([event], ann) == [event["uuid"]]
    with pytest.raises(UserError) as error:
        queue.append_events([{**event, "verdict": "absent"}], ann)
    assert error.value.code == "E_REVIEW_EVENT"
    assert [row["verdict"] for row in queue.current()] == ["present"]


def test_retraction_brings_the_verdict_before_back(queue, ann):
    one, two, *_ = queue.draw_items(draw_all(queue))
    before, after = verdict(one), verdict(one, "absent")
    queue.append_events([before, after], ann)
    assert [row["verdict"] for row in queue.current()] == ["absent"]
    queue.append_events([retract(after["uuid"])], ann)
    assert [row["verdict"] for row in queue.current()] == ["present"]
    batch = str(uuid4())
    page = [verdict(item, "absent", batch_uuid=batch) for item in (one, two)]
    queue.append_events(page, ann)
    assert [row["verdict"] for row in queue.current()] == ["absent", "absent"]
    queue.append_events([retract(batch)], ann)
    assert [row["uuid"] for row in queue.current()] == [before["uuid"]]


def test_nobody_retracts_the_verdict_of_another_reviewer(queue, ann):
    event = verdict(queue.draw_items(draw_all(queue))[0])
    queue.append_events([event], ann)
    queue.append_events([retract(event["uuid"])], queue.add_reviewer("bob"))
    assert len(list(queue.current())) == 1


def test_moved_edge_makes_a_child_whose_verdict_replaces_the_reviewers_earlier_one(queue, ann):
    item = queue.draw_items(draw_all(queue))[0]
    queue.append_events([verdict(item)], ann)
    child = queue.child_region(item["region"], 0.25, 2.0, 200.0, None)
    assert queue.child_region(child, 0.25, 2.0, 200.0, None) == child
    assert queue.region(child)["parent"] == item["region"]
    queue.append_events([verdict({**item, "region": child})], ann)
    (row,) = queue.export_rows()
    assert (row["start_time"], row["end_time"], row["high_freq"]) == (0.25, 2.0, None)
    own = queue.draw_items(1, filters={"reviewer": ann})[0]["own_verdict"]
    assert (own["verdict"], own["region"]) == ("present", child)
    assert queue.region(item["region"])["end_time"] == item["end_time"]
    assert code_of(queue.child_region, child, 2.0, 1.0, 0.0, None) == "E_BAD_BOX"
    assert code_of(queue.region, 999) == "E_NO_REGION"


@pytest.mark.parametrize(
    ("words", "verdict_of_all", "status"),
    [
        (("present", "present"), "present", "unanimous"),
        (("absent",), "absent", "unanimous"),
        (("present", "absent"), None, "conflict"),
        (("present", "unsure"), None, "conflict"),
        (("unsure",), None, "unsure"),
    ],
)
def test_agreed_is_what_all_reviewers_gave(queue, words, verdict_of_all, status):
    item = queue.draw_items(draw_all(queue))[0]
    for i, word in enumerate(words):
        queue.append_events([verdict(item, word)], queue.add_reviewer(f"reviewer {i}"))
    (row,) = queue.agreed()
    assert (row["verdict"], row["status"], row["reviewers"]) == (
        *(verdict_of_all, status, len(words)),
    )
    assert len(list(queue.conflicts())) == (status == "conflict")


def test_expert_resolves_a_conflict_and_a_reviewer_cannot(queue, ann):
    item = queue.draw_items(draw_all(queue))[0]
    queue.append_events([verdict(item)], ann)
    queue.append_events([verdict(item, "absent")], queue.add_reviewer("bob"))
    (conflict,) = queue.conflicts()
    assert [row["verdict"] for row in conflict["verdicts"]] == ["present", "absent"]
    resolve = {**verdict(item, "absent"), "kind": "resolve"}
    assert code_of(queue.append_events, [resolve], ann) == "E_REVIEW_ROLE"
    expert = queue.add_reviewer("eve", "expert")
    assert queue.add_reviewer("eve") == expert  # and stays one
    queue.append_events([resolve], expert)
    assert not list(queue.conflicts())
    (row,) = queue.agreed()
    assert (row["verdict"], row["status"]) == ("absent", "resolved")
    queue.append_events([retract(resolve["uuid"])], expert)
    assert len(list(queue.conflicts())) == 1


def test_nothing_else_calls_here_holds_for_the_species_of_that_moment(queue, ann):
    item = queue.draw_items(draw_all(queue))[0]
    every = {**item, "species": "*"}
    queue.append_events([verdict(item), verdict(every, "absent")], ann)
    queue.add_species("nightjar")
    rows = {row["species"]: row["verdict"] for row in queue.export_rows()}
    assert rows == {"wren": "present", "coqui": "absent"}
    assert code_of(queue.append_events, [verdict(every)], ann) == "E_REVIEW_EVENT"


def test_verdicts_of_an_audit_are_no_labels_until_it_is_released(queue, ann):
    draw = draw_all(queue, "audit", stratum="all", inclusion_p=1.0)
    queue.append_events([verdict(queue.draw_items(draw)[0])], ann)
    (row,) = queue.export_rows()
    assert (row["verdict"], row["held_verdict"], row["status"]) == ("", "present", "audit")
    assert [row["verdict"] for row in queue.audit_rows()][:2] == ["present", None]
    queue.release_draw(draw)
    (row,) = queue.export_rows()
    assert (row["verdict"], row["status"]) == ("present", "unanimous")


def test_progress_counts_each_species(queue, ann):
    items = queue.draw_items(draw_all(queue))
    queue.append_events([verdict(items[0]), verdict(items[2], "absent")], ann)
    queue.append_events([verdict(items[4], "unsure")], ann)
    wren = queue.progress()[1]
    assert wren == {
        "species": "wren", "candidates": 5, "present": 1, "absent": 1, "unsure": 1, "conflict": 0,
        "open": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"uuid": "x"},
        {"kind": "delete"},
        {"region": None},
        {"region": 999},
        {"species": "unheard of"},
        {"verdict": "maybe"},
        {"verdict": None},
        {"ms": -1},
        {"score_shown": math.inf},
        {"reason": "x" * 1000},
        {"reason": "\0"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_wrong_event_is_refused_with_all_of_its_list(queue, ann, change):
    items = queue.draw_items(draw_all(queue))
    good, bad = verdict(items[0]), {**verdict(items[1]), **change}
    assert code_of(queue.append_events, [good, bad], ann) == "E_REVIEW_EVENT"
    assert not list(queue.current())
    assert code_of(queue.append_events, [good], 99) == "E_NO_REVIEWER"


def test_verdicts_are_there_after_the_queue_is_opened_again(queue, ann, tmp_path):
    item = queue.draw_items(draw_all(queue))[0]
    queue.append_events([verdict(item, ms=1500, score_shown=0.5)], ann)
    with Store.open(tmp_path / "queue") as again:
        (row,) = again.current()
    assert (row["ms"], row["score_shown"]) == (1500, 0.5)


def test_folder_without_a_queue_is_refused_and_not_touched(tmp_path):
    assert code_of(Store.open, tmp_path / "none") == "E_NO_QUEUE"
    assert not (tmp_path / "none").exists()
    (tmp_path / "mine.txt").write_text("mine")
    assert code_of(Store.open, tmp_path, create=True) == "E_OUT_NOT_EMPTY"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / DATABASE).write_text("this is no database, but a note of mine")
    assert code_of(Store.open, tmp_path / "bad") == "E_QUEUE_DAMAGED"
    sqlite3.connect(tmp_path / "other.sqlite").executescript("CREATE TABLE mine (x)")
    shutil.move(tmp_path / "other.sqlite", tmp_path / "bad" / DATABASE)
    assert code_of(Store.open, tmp_path / "bad", create=True) == "E_QUEUE_DAMAGED"


@pytest.mark.parametrize("url", ["nonsense://x", "postgresql://127.0.0.1:1/none"])
def test_database_that_cannot_be_used_is_one_message_without_a_password(url):
    with pytest.raises(UserError) as error:
        Store.open(url.replace("//", "//me:secret@", 1), create=True)
    assert error.value.code in ("E_QUEUE_URL", "E_QUEUE_UNREACHABLE")
    assert "secret" not in str(error.value)


def test_queue_that_lacks_a_part_is_damaged_and_a_full_disk_is_named(queue):
    def fill():
        with connect(queue._engine, writes=True) as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1")
            connection.exec_driver_sql("CREATE TABLE large (x)")

    with pytest.raises(UserError) as error:
        fill()
    assert (error.value.code, error.value.remedy) == ("E_QUEUE_UNREACHABLE", "free disk space")
    with connect(queue._engine, writes=True) as connection:
        connection.exec_driver_sql("DROP VIEW agreed")
    assert code_of(lambda: list(queue.agreed())) == "E_QUEUE_DAMAGED"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_database_in_memory_is_refused(url):
    assert code_of(Store.open, url, create=True) == "E_QUEUE_URL"


@pytest.fixture(scope="module")
def postgres_server():
    """The URL of a fresh PostgreSQL server, which listens on a socket in its own folder only."""
    initdb = shutil.which("initdb") or next(
        iter(sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))), None
    )
    if initdb is None:
        pytest.skip("PostgreSQL's initdb is not installed")
    programs = Path(initdb).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a short path: that of a socket is limited
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        user = "nobody"
        shutil.chown(folder, user)
    options = ["-D", folder / "data", "-A", "trust", "-U", "antpitta", "--no-sync"]
    subprocess.run([programs / "initdb", *options], user=user, check=True, capture_output=True)
    options = ["-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([programs / "postgres", *options], user=user, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not (folder / ".s.PGSQL.5432").exists():
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail((folder / "log").read_text())
            time.sleep(0.1)
        yield f"postgresql+psycopg://antpitta@/postgres?host={folder}"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder)


@pytest.fixture
def postgres(postgres_server):
    """The URL of an empty database of the server."""
    name = f"queue_{uuid4().hex}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return postgres_server.replace("+psycopg", "").replace("/postgres?", f"/{name}?")


def judge(address, name, start):
    """One reviewer, who sends every list of verdicts twice."""
    with Store.open(address) as store:
        reviewer = store.add_reviewer(name)
        items = store.draw_items(1, limit=VERDICTS)
        start.wait()
        for i in range(0, VERDICTS, 5):
            events = [verdict(item) for item in items[i : i + 5]]
            for _ in range(2):
                assert store.append_events(events, reviewer) == [each["uuid"] for each in events]
    return VERDICTS


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_verdicts_of_eight_reviewers_at_once_are_stored_once_each(kind, tmp_path, request):
    address = tmp_path / "queue" if kind == "sqlite" else request.getfixturevalue("postgres")
    with Store.open(address, create=True) as store:
        store.add_candidates(table(VERDICTS))
        draw_all(store)
        start = Barrier(REVIEWERS)
        with ThreadPoolExecutor(REVIEWERS) as pool:
            names = [f"reviewer {i}" for i in range(REVIEWERS)]
            stored = list(pool.map(lambda name: judge(address, name, start), names))
        rows = list(store.current())
        assert sum(stored) == len(rows) == REVIEWERS * VERDICTS
        assert len({row["uuid"] for row in rows}) == len(rows)
        agreed = list(store.agreed())
        assert {(row["reviewers"], row["status"]) for row in agreed} == {(REVIEWERS, "unanimous")}
        assert len(list(store.export_rows())) == VERDICTS


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_database_refuses_to_change_what_a_reviewer_did_and_where(kind, tmp_path, request):
    address = tmp_path / "queue" if kind == "sqlite" else request.getfixturevalue("postgres")
    with Store.open(address, create=True) as store:
        store.add_candidates(table(2))
        draw_all(store)
        store.append_events([verdict(store.draw_items(1)[0])], store.add_reviewer("ann"))
        kept = list(store.current())
        for statement in (
            "UPDATE event SET verdict = 'absent'",
            "DELETE FROM event",
            'UPDATE region SET "end" = 99',
            "DELETE FROM region WHERE parent IS NOT NULL OR parent IS NULL",
        ):
            with (
                pytest.raises(DBAPIError, match="never changed"),
                store._engine.connect().execution_options(writes=True) as connection,
                connection.begin(),
            ):
                connection.exec_driver_sql(statement)
        assert list(store.current()) == kept


def test_postgres_gives_the_same_views_as_sqlite(postgres, queue):
    exports = []
    with Store.open(postgres, create=True) as store:
        for each in (queue, store):
            each.add_candidates(table(6, source_digest="same"))
            draw = each.create_draw(
                "teach", "all", 0,
                [{"candidate": row["candidate"]} for row in each.candidates()
                 if row["source_digest"] == "same"],
            )  # fmt: skip
            ann, bob = each.add_reviewer("ann"), each.add_reviewer("bob")
            items = each.draw_items(draw)
            undone = verdict(items[1])
            events = [verdict(items[0]), undone, verdict(items[2], "unsure"), verdict(items[3])]
            each.append_events([*events, retract(undone["uuid"])], ann)
            each.append_events([verdict(items[3], "absent")], bob)
            each.append_events([verdict({**items[4], "species": "*"}, "absent")], bob)
            names = ("recording", "start_time", "high_freq", "species", "verdict", "status")
            exports.append([tuple(row[name] for name in names) for row in each.export_rows()])
    assert exports[0] == exports[1]
    assert len(exports[0]) == 5
    assert [row[-1] for row in exports[0]].count("conflict") == 1
