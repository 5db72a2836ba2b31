"""Audits of a queue from the command line: estimates, tables for occupancy, and what is refused."""

import json
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from antpitta import api
from antpitta.core.errors import UserError
from antpitta.predict.journal import Journal, JournalEntry
from antpitta.predict.tables import COLUMNS
from antpitta.review.store import Store

MODEL, NEXT = "m" * 32, "n" * 32
SITES, NIGHTS, EACH = 8, 5, 4  # detections in each recording but the last night's


def detections(model=MODEL, shift=0.0, nights=NIGHTS - 1):
    """Rows of events.csv; no detection is in the last night."""
    rows = []
    for site in range(SITES):
        for night in range(nights):
            for i in range(EACH):
                number = (site * nights + night) * EACH + i
                score = 0.3 + 0.6 * (number * 37 % 128) / 128
                place = (f"/season/site{site}_2025060{night + 1}_050000.wav", f"site{site}")
                start = 10.0 * i + shift
                box = (start, start + 3, "", 1000.0, 4000.0)
                rows.append((*place, *box, "wren", score, model, "supported", ""))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_prediction(folder, events, digest, nights=NIGHTS):
    """The folder that predict leaves: its journal, table and note."""
    with Journal(folder, {"digest": digest}, resume=False) as journal:
        for site in range(SITES):
            for night in range(nights):
                journal.add(
                    JournalEntry(
                        Path(f"/season/site{site}_2025060{night + 1}_050000.wav"), (1, 1),
                        duration=60.0, site=f"site{site}" if site else None,
                        recorded_at=f"2025-06-0{night + 1}T05:00:00",
                        presence=np.zeros(1, np.float32),
                    )
                )  # fmt: skip
        journal.finish()
    events.to_csv(folder / "events.csv", index=False)
    (folder / "run.json").write_text(json.dumps({"digest": digest}))
    return folder


def is_call(candidate):
    return candidate["score"] >= 0.55 or candidate["score"] < 0.31


@pytest.fixture
def queue(tmp_path):
    """A queue with an audit of two strata, and a verdict on each of its items."""
    events = detections()
    names = events["file"].map(lambda file: Path(file).stem)
    table = events.assign(
        recording_id=names, recording_digest="d" + names, source="predict", source_digest=MODEL
    )
    with Store.open(tmp_path / "queue", create=True) as store:
        store.add_candidates(table.assign(recorded_at="2025-06-01T05:00:00"))
        rows = sorted(store.candidates(), key=lambda row: row["score"])
        items, rng = [], np.random.default_rng(0)
        for name, own in (("low", rows[:64]), ("high", rows[64:])):
            for i in rng.choice(64, 24, replace=False):
                part = {"candidate": own[i]["candidate"], "stratum": name}
                items.append({**part, "inclusion_p": 24 / 64})
        store.create_draw("audit", "strata of the score", 0, items, model_digest=MODEL)
        chosen = {item["candidate"] for item in items}
        events = [
            {
                "uuid": str(uuid.uuid4()), "kind": "verdict", "region": row["region"],
                "species": "wren", "verdict": "present" if is_call(row) else "absent",
            }
            for row in rows if row["candidate"] in chosen
        ]  # fmt: skip
        store.append_events(events, store.add_reviewer("ada"))
    return tmp_path / "queue"


@pytest.fixture
def predicted(tmp_path):
    return write_prediction(tmp_path / "out", detections(), MODEL)


def test_evaluate_of_a_queue_prints_a_sentence_and_writes_its_tables(antpitta, queue, tmp_path):
    code, printed, _ = antpitta("evaluate", queue, "--expect-precision", 0.95, "-o", tmp_path / "e")
    assert code == 0
    row = pd.read_csv(tmp_path / "e" / "thresholds.csv").iloc[0]
    assert 0.5 < row["threshold"] <= 0.56
    assert row["precision"] >= 0.95
    assert row["precision_low"] < 0.95
    assert row["candidates"] == 128
    assert f"wren: {row['threshold']:.3g} gives {100 * row['precision']:.0f} %" in printed
    assert "check" in printed.split("gives")[1]
    curve = pd.read_csv(tmp_path / "e" / "curves.csv")
    assert len(curve) == 48
    assert not (tmp_path / "e" / "site_days.csv").exists()


def test_thresholds_are_applied_to_the_prediction_and_days_without_a_call_are_kept(
    queue, predicted, tmp_path
):
    result = api.evaluate_audits(queue, 0.95, predicted=predicted, out=tmp_path / "e")
    limit = result.thresholds["threshold"].iloc[0]
    events = detections()
    events = events[(events["score"] >= limit) & (events["site"] != "site0")]
    table = pd.read_csv(tmp_path / "e" / "site_days.csv")
    assert len(table) == (SITES - 1) * NIGHTS  # the first site is not known
    assert table["detections"].sum() == len(events)
    assert not table.loc[table["day"] == "2025-06-05", "present"].any()
    histories = pd.read_csv(tmp_path / "e" / "histories.csv")
    assert histories.columns[2:].tolist() == [f"2025-06-0{i}" for i in range(1, 6)]
    occupancy = pd.read_csv(tmp_path / "e" / "occupancy.csv").iloc[0]
    assert occupancy["sites"] == SITES - 1
    assert result.notes == ("5 recordings have no known site or no known time",)


def test_species_with_few_verdicts_is_in_no_occupancy_table(queue, predicted, tmp_path):
    with Store.open(queue) as store:
        own = list(store.current())[4:]
        retractions = [
            {"uuid": str(uuid.uuid4()), "kind": "retract", "target_uuid": row["uuid"]}
            for row in own
        ]
        store.append_events(retractions, store.add_reviewer("ada"))
    result = api.evaluate_audits(queue, 0.1, predicted=predicted, out=tmp_path / "e")
    assert result.sentences == {"wren": "too few verdicts for a threshold (4); check 1 more"}
    assert result.thresholds["threshold"].isna().all()
    assert len(result.occupancy) == len(result.site_days) == len(result.histories) == 0
    assert pd.read_csv(tmp_path / "e" / "thresholds.csv")["threshold"].isna().all()


def test_deployments_give_sites_to_recordings_without_one(queue, predicted, tmp_path):
    rows = [f"site{i},1.5,2.5" for i in range(1, SITES)] + ["season,1.5,2.5"]
    table = tmp_path / "sites.csv"
    table.write_text("\n".join(["site,latitude,longitude", *rows]) + "\n")
    result = api.evaluate_audits(queue, predicted=predicted, deployments=table)
    assert result.notes == ()
    assert "season" in set(result.site_days["site"])


def test_prediction_of_other_recordings_is_refused(antpitta, queue, tmp_path):
    fewer = write_prediction(tmp_path / "few", detections(nights=2), MODEL, nights=2)
    code, _, printed = antpitta("evaluate", queue, "--predicted", fewer, "-o", tmp_path / "e")
    assert code == 2
    assert "[E_AUDIT_RECORDINGS]" in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "e").exists()


def test_next_model_scores_the_audited_candidates_anew(queue, tmp_path):
    # It finds the same sounds half a second later, and its scores are turned around.
    events = detections(NEXT, shift=0.5)
    turned = events.assign(score=1.2 - events["score"])
    out = write_prediction(tmp_path / "next", turned, NEXT)
    row = api.evaluate_audits(queue, 0.95, predicted=out).thresholds.iloc[0]
    assert row["model"] == NEXT
    assert not row["reached"] or row["threshold"] > 0.88  # only its highest scores are calls again
    same = write_prediction(tmp_path / "same", events, NEXT)
    again = api.evaluate_audits(queue, 0.95, predicted=same).thresholds.iloc[0]
    assert again["threshold"] == api.evaluate_audits(queue, 0.95).thresholds["threshold"].iloc[0]


def test_next_model_that_lacks_a_detection_has_missed_calls(queue, tmp_path):
    events = detections(NEXT)
    out = write_prediction(tmp_path / "next", events[events["score"] >= 0.7], NEXT)
    result = api.evaluate_audits(queue, 0.95, predicted=out)
    row = result.thresholds.iloc[0]
    assert 0 < row["threshold"] < 0.71
    assert row["missed"] > 20
    assert row["recall"] < 0.75


def test_detections_of_the_next_model_beside_all_candidates_refuse_the_species(
    antpitta, queue, tmp_path
):
    events = detections(NEXT)
    moved = events["score"].rank() <= 32
    events.loc[moved, ["start_time", "end_time"]] += 5.0
    out = write_prediction(tmp_path / "next", events, NEXT)
    code, printed, _ = antpitta("evaluate", queue, "--predicted", out)
    assert code == 1
    assert "25 % of the detections of another model touch no audited candidate" in printed


def test_next_model_is_refused_once_the_audit_may_have_trained_it(queue, tmp_path):
    out = write_prediction(tmp_path / "next", detections(NEXT), NEXT)
    with Store.open(queue) as store:
        store.release_draw(1)
    with pytest.raises(UserError) as error:
        api.evaluate_audits(queue, predicted=out)
    assert error.value.code == "E_AUDIT_MODEL"


def test_prediction_without_its_journal_is_refused(queue, predicted):
    (predicted / "journal.sqlite").unlink()
    with pytest.raises(UserError) as error:
        api.evaluate_audits(queue, predicted=predicted)
    assert error.value.code == "E_NO_JOURNAL"


def test_tables_that_a_user_edited_are_not_replaced(queue, tmp_path):
    api.evaluate_audits(queue, out=tmp_path / "e")
    api.evaluate_audits(queue, out=tmp_path / "e")
    (tmp_path / "e" / "thresholds.csv").write_text("mine\n")
    with pytest.raises(UserError) as error:
        api.evaluate_audits(queue, out=tmp_path / "e")
    assert error.value.code == "E_OUTPUT_EDITED"
    assert (tmp_path / "e" / "thresholds.csv").read_text() == "mine\n"


def test_options_of_a_queue_and_of_scores_exclude_each_other(antpitta, queue, tmp_path):
    (tmp_path / "t.csv").write_text("recording_id,wren\na,1\n")
    for words in ((queue, "--truth", tmp_path / "t.csv"), (tmp_path / "t.csv", "-o", tmp_path)):
        code, _, printed = antpitta("evaluate", *words)
        assert code == 2
        assert "[E_OPTION]" in printed
    code, _, printed = antpitta("evaluate", queue, "--expect-precision", 1.5)
    assert (code, "[E_OPTION]" in printed) == (2, True)


def test_queue_without_an_audit_is_refused(antpitta, tmp_path):
    Store.open(tmp_path / "queue", create=True).close()
    code, _, printed = antpitta("evaluate", tmp_path / "queue")
    assert (code, "[E_NO_AUDIT]" in printed) == (2, True)


def test_audit_of_what_a_trained_model_predicted_gives_tables_of_its_recordings(
    antpitta, run, fill_archive, tmp_path
):
    archive = fill_archive(tmp_path / "season", 12, 3)
    assert antpitta("predict", run.model, archive, "-o", tmp_path / "out")[0] == 1  # one is broken
    events = pd.read_csv(tmp_path / "out" / "events.csv", dtype={"site": str})
    names = events["file"].map(lambda file: Path(file).stem)
    digest = json.loads((tmp_path / "out" / "run.json").read_text())["digest"]
    table = events.assign(recording_id=names, recording_digest=names, source="predict")
    table = table.assign(source_digest=digest, recorded_at=events["clock_time"])
    with Store.open(tmp_path / "queue", create=True) as store:
        store.add_candidates(table)
        rows = list(store.candidates())
        items = [{"candidate": row["candidate"], "inclusion_p": 1.0} for row in rows]
        store.create_draw("audit", "all", 0, items, model_digest=digest)
        verdicts = [
            {
                "uuid": str(uuid.uuid4()), "kind": "verdict", "region": row["region"],
                "species": row["species"], "verdict": "present",
            }
            for row in rows
        ]  # fmt: skip
        store.append_events(verdicts, store.add_reviewer("ada"))
    words = ("evaluate", tmp_path / "queue", "--predicted", tmp_path / "out", "-o", tmp_path / "e")
    code, printed, error = antpitta(*words)
    assert (code, error) == (0, "")
    days = pd.read_csv(tmp_path / "e" / "site_days.csv")
    assert len(events) > 0
    assert set(days["species"]) == set(events["species"])
    assert days["detections"].sum() == len(events)  # all are calls, so all are above the threshold
    by_species = days.groupby("species")["recordings"].sum()
    assert set(by_species) == {11}  # without the broken one
    assert printed.count("gives 100 %") == events["species"].nunique()
