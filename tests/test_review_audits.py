"""Audits of a real queue: what counts as their sample, and what is refused."""

import json
import uuid

import numpy as np
import pandas as pd
import pytest

from antpitta.core.errors import UserError
from antpitta.review.audits import read_audits, species_threshold
from antpitta.review.store import Store

MODEL = "m" * 32


def candidates(species="wren", model=MODEL, recordings=60, each=5, start=0):
    rows = []
    for i in range(recordings * each):
        recording, number = divmod(i, each)
        score = 0.5 + i / 1000 if i % 5 == 0 else i / 1000
        rows.append(
            {
                "recording_id": f"r{start + recording}",
                "recording_digest": f"d{start + recording}",
                "start_time": 10.0 * number,
                "end_time": 10.0 * number + 3,
                "low_freq": 1000.0,
                "high_freq": 4000.0,
                "species": species,
                "score": score,
                "source": "predict",
                "source_digest": model,
                "site": f"s{recording % 12}",
                "recorded_at": "2025-06-01T05:00:00",
            }
        )
    return pd.DataFrame(rows)


def is_call(row):
    """What the reviewer of these tests hears: nine of ten high ones, one of eight low ones."""
    number = int(row["recording_id"][1:]) * 5 + round(row["start_time"] / 10)
    return number % 10 != 0 or number % 100 == 0 if row["score"] >= 0.5 else number % 8 == 1


def draw(store, rng, high=30, low=30, species="wren", model=MODEL):
    """Draw an audit of two strata."""
    rows = [row for row in store.candidates(species) if row["source_digest"] == model]
    items = []
    for name, count in (("high", high), ("low", low)):
        own = [row for row in rows if (row["score"] >= 0.5) == (name == "high")]
        for i in rng.choice(len(own), count, replace=False):
            part = {"stratum": name, "inclusion_p": count / len(own)}
            items.append({"candidate": own[i]["candidate"], **part})
    store.create_draw("audit", "strata of the score", 0, items, model_digest=model)
    return {item["candidate"] for item in items}


def judge(store, chosen, reviewer=None, verdict=None):
    reviewer = reviewer or store.add_reviewer("ada")
    rows = [row for row in store.candidates() if row["candidate"] in chosen]
    for part in range(0, len(rows), 500):
        store.append_events(
            [
                {
                    "uuid": str(uuid.uuid4()),
                    "kind": "verdict",
                    "region": row["region"],
                    "species": row["species"],
                    "verdict": verdict or ("present" if is_call(row) else "absent"),
                }
                for row in rows[part : part + 500]
            ],
            reviewer,
        )


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "queue", create=True) as store:
        store.add_candidates(candidates())
        yield store


def test_items_of_an_audit_stand_for_their_strata(store):
    judge(store, draw(store, np.random.default_rng(0)))
    audits = read_audits(store)
    assert audits.refused == {}
    items = audits.of_species("WREN")
    assert len(items) == 60
    assert items.groupby("stratum")["inclusion_p"].first().to_dict() == {
        "high": pytest.approx(0.5),
        "low": pytest.approx(30 / 240),
    }
    answer = species_threshold(store, "wren", 0.6)
    low, high = answer["precision"][1:]
    assert answer["judged"] == 60
    assert 0 < low <= answer["precision"][0] <= high <= 1
    assert answer["sentence"].startswith(f"{answer['threshold']:.3g} gives")


def test_few_verdicts_give_no_threshold_in_json(store):
    chosen = draw(store, np.random.default_rng(0))
    judge(store, set(sorted(chosen)[:2]))
    answer = species_threshold(store, "wren", 0.6)
    json.dumps(answer, allow_nan=False)
    assert (answer["threshold"], answer["reached"], answer["more"]) == (None, False, 3)
    assert answer["sentence"] == "too few verdicts for a threshold (2); check 3 more"


def test_second_draw_of_the_same_strata_is_pooled_and_no_candidate_counts_twice(store):
    rng = np.random.default_rng(1)
    first, second = draw(store, rng), draw(store, rng, high=20, low=60)
    judge(store, first | second)
    items = read_audits(store).of_species("wren")
    assert set(items["candidate"]) == first | second
    assert len(items) == len(first | second) < 140
    assert (1 / items["inclusion_p"]).sum() == pytest.approx(300)
    every = [row for row in store.candidates() if row["source_digest"] == MODEL]
    calls = sum(map(is_call, every))
    estimate, low, high = species_threshold(store, "wren", 0.9)["prevalence"]
    assert low <= calls / 300 <= high
    assert estimate == pytest.approx(calls / 300, abs=0.1)


def test_audit_of_an_earlier_model_does_not_count(store):
    judge(store, draw(store, np.random.default_rng(2)))
    store.add_candidates(candidates(model="n" * 32))
    later = draw(store, np.random.default_rng(3), high=10, low=10, model="n" * 32)
    items = read_audits(store).items
    assert set(items["candidate"]) == later
    assert set(items["model"]) == {"n" * 32}


def test_candidates_of_another_season_refuse_the_audit_of_the_first(store):
    judge(store, draw(store, np.random.default_rng(4)))
    store.add_candidates(candidates(recordings=2, start=100))
    assert "300 candidates" in read_audits(store).refused["wren"]
    with pytest.raises(UserError) as error:
        species_threshold(store, "wren", 0.9)
    assert error.value.code == "E_AUDIT_RECORDINGS"


def test_unsure_verdicts_and_conflicts_are_unknown(store):
    chosen = sorted(draw(store, np.random.default_rng(5)))
    judge(store, set(chosen))
    judge(store, set(chosen[:5]), verdict="unsure")
    judge(store, set(chosen[5:15]), store.add_reviewer("ben"), "present")
    judge(store, set(chosen[5:15]), store.add_reviewer("cy"), "absent")
    answer = species_threshold(store, "wren", 0.9)
    assert (answer["judged"], answer["unjudged"]) == (45, 15)


def test_queue_without_an_audit_or_without_verdicts_has_no_threshold(store):
    for _ in range(2):
        with pytest.raises(UserError) as error:
            species_threshold(store, "wren", 0.9)
        assert error.value.code == "E_NO_AUDIT"
        draw(store, np.random.default_rng(6))
    with pytest.raises(UserError) as error:
        species_threshold(store, "wren", 1.5)
    assert error.value.code == "E_OPTION"


def test_verdicts_of_a_released_audit_are_marked(store):
    judge(store, draw(store, np.random.default_rng(7)))
    assert not read_audits(store).items["released"].any()
    store.release_draw(store.draws()[0]["id"])
    assert read_audits(store).items["released"].all()


def test_released_audit_of_an_earlier_model_marks_only_an_audit_of_the_same_sounds(store):
    judge(store, draw(store, np.random.default_rng(8)))
    store.release_draw(store.draws()[0]["id"])
    store.add_candidates(candidates(model="n" * 32, start=100))
    draw(store, np.random.default_rng(9), model="n" * 32)
    assert not read_audits(store).items["released"].any()
    store.add_candidates(candidates(model="o" * 32))
    draw(store, np.random.default_rng(10), model="o" * 32)
    assert read_audits(store).items["released"].all()
