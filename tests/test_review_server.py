"""The HTTP contract of the review page, over a real queue and real sound."""

import csv
import io
import json
import uuid

import numpy as np
import pytest
import soundfile as sf
from PIL import Image
from starlette.testclient import TestClient

from antpitta.files.recipes import read_recipe
from antpitta.files.recordings import find_recordings
from antpitta.review.library import AudioLibrary
from antpitta.review.media import RegionPainter
from antpitta.review.security import Access, SignedIn
from antpitta.review.server import ReviewPage, create_app
from antpitta.review.store import Store
from tests.review_queue import make_queue

ORIGIN = "http://127.0.0.1:8765"


@pytest.fixture(params=["teach"])
def page(simulated, tmp_path, request):
    store = Store.open(make_queue(tmp_path / "queue", simulated, purpose=request.param))
    painter = RegionPainter(read_recipe("quick"))
    yield ReviewPage(store, AudioLibrary([simulated]), painter, Access(8765), "queue")
    store.close()


class Browser:
    """One reviewer's requests."""

    def __init__(self, page, name="ana", role="reviewer"):
        self.id = page.store.add_reviewer(name, role)
        self.client = TestClient(create_app(page), base_url=ORIGIN)
        self.client.get(page.access.grant(SignedIn(self.id, name, role)))
        self.session = self.get("/api/session")
        self.client.headers["x-antpitta-key"] = self.session["key"]

    def get(self, path, **parameters):
        answer = self.client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, *events, status=200):
        answer = self.client.post("/api/events", json={"events": events})
        assert answer.status_code == status, answer.text
        return answer.json()

    def items(self, **filters):
        return self.get("/api/draws/1/items", **filters)


def verdict(item, word="present", **more):
    event = {"uuid": str(uuid.uuid4()), "kind": "verdict", "verdict": word}
    return event | {"region": item["region"], "species": item["species"]} | more


@pytest.fixture
def ana(page):
    return Browser(page)


def test_other_act_under_a_known_uuid_is_refused_and_never_acknowledged(ana, page):
    item = ana.items()[0]
    event = verdict(item)
    for _ in range(2):
        assert ana.post(event) == {"acknowledged": [event["uuid"]]}
    bob = Browser(page, "bob")
    for browser, other in ((ana, {**event, "verdict": "absent"}), (bob, event)):
        answer = browser.post(other, status=400)
        assert (answer["code"], "another event" in answer["message"]) == ("E_REVIEW_EVENT", True)
    second = verdict(item)
    ana.post(second, {**second, "verdict": "unsure"}, status=400)
    assert [row["uuid"] for row in page.store.current()] == [event["uuid"]]


def test_species_with_a_slash_in_its_name_has_a_threshold_of_its_own(ana):
    assert ana.client.post("/api/species", json={"name": "major/minor"}).status_code == 200
    answer = ana.client.get("/api/species/major%2Fminor/threshold", params={"precision": 1})
    assert answer.json()["code"] == "E_NO_AUDIT"


def test_names_with_a_null_character_are_refused(ana):
    assert ana.client.post("/api/species", json={"name": "a\0b"}).json()["code"] == "E_SPECIES_NAME"
    for path in ("/api/draws/1/items", "/api/references"):
        assert ana.client.get(path, params={"species": "a\0b"}).status_code == 422


def test_items_come_page_by_page_in_the_order_of_the_draw(ana):
    first = ana.items(limit=10)
    second = ana.items(limit=100, after=first[-1]["position"])
    assert [item["position"] for item in first + second] == list(range(24))
    assert {len(item) for item in first + second} == {len(first[0])}
    assert first[0]["own_verdict"] is None


def test_items_are_filtered_by_species_site_hour_and_state(ana):
    everything = ana.items()
    wrens = ana.items(species="wren")
    assert [item["species"] for item in wrens] == ["wren"] * 8
    sites = [item["site"] for item in ana.items(site="site1")]
    assert sites == ["site1"] * 12
    early = ana.items(hour_from=0, hour_to=1)
    assert 0 < len(early) < len(everything)
    assert {item["recorded_at"][11:13] for item in early} == {"00", "01"}
    high = ana.items(score_from=0.5)
    assert {item["score"] >= 0.5 for item in high} == {True}
    ana.post(verdict(everything[0]))
    assert [item["position"] for item in ana.items(state="open")] == list(range(1, 24))
    assert [item["position"] for item in ana.items(state="done")] == [0]
    counts = [ana.get("/api/draws/1/count", state=state) for state in ("open", "done")]
    assert counts == [23, 1]
    choices = ana.get("/api/draws/1/choices")
    assert (choices["sites"], choices["disagreement"]) == (["site0", "site1"], False)


@pytest.mark.parametrize("page", ["audit"], indirect=True)
def test_items_of_an_audit_hide_scores(ana):
    for item in ana.items(score_from=0.99):  # nor does a filter give them away
        assert not {"score", "stratum", "inclusion_p", "source"} & set(item)
    assert len(ana.items(score_from=0.99)) == 24


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "hour_from=24", "date_from=x", "state=other", "score_from=x"]
)
def test_filter_that_cannot_be_used_is_refused(ana, query):
    answer = ana.client.get(f"/api/draws/1/items?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "E_REQUEST")


def test_unknown_draw_is_not_found(ana):
    assert ana.client.get("/api/draws/7/items").json()["code"] == "E_NO_DRAW"


def test_verdicts_are_stored_once_however_often_they_are_sent(page, ana):
    events = [verdict(item) for item in ana.items(limit=5)]
    expected = {"acknowledged": [event["uuid"] for event in events]}
    assert ana.post(*events) == expected
    assert (
        ana.post(*events, verdict(ana.items()[7], "absent"))["acknowledged"][:5]
        == (expected["acknowledged"])
    )
    assert [row["verdict"] for row in page.store.current()] == ["present"] * 5 + ["absent"]


def test_retraction_of_a_batch_takes_all_of_it_back_also_in_another_browser(page, ana):
    batch = str(uuid.uuid4())
    items = ana.items(limit=6)
    ana.post(*(verdict(item, batch_uuid=batch) for item in items[:5]), verdict(items[5], "absent"))
    again = Browser(page)  # nothing of the first is in its storage
    latest = again.get("/api/latest")
    again.post({"uuid": str(uuid.uuid4()), "kind": "retract", "target_uuid": latest["target"]})
    assert again.get("/api/latest") == {"target": batch, "verdicts": 5}
    again.post({"uuid": str(uuid.uuid4()), "kind": "retract", "target_uuid": batch})
    assert list(page.store.current()) == []
    assert again.get("/api/latest") == {}


def test_moved_edges_are_a_child_region_and_come_back_with_the_item(page, ana):
    item = ana.items()[0]
    box = [item["start_time"] + 0.1, item["end_time"], 500.0, None]
    event = verdict(item, box=box)
    ana.post(event)
    ana.post(event)
    own = ana.items()[0]["own_verdict"]
    child = page.store.region(own["region"])
    assert own["box"] == box
    assert child["parent"] == item["region"]
    assert [row["region"] for row in page.store.current()] == [own["region"]]
    # the picture of the candidate stays where it was
    assert ana.items()[0]["start_time"] == item["start_time"]


def test_other_species_is_two_rows_with_one_key(page, ana):
    item, batch = ana.items()[0], str(uuid.uuid4())
    ana.client.post("/api/species", json={"name": "owl"})
    assert "owl" in ana.get("/api/species")["species"]
    ana.post(
        verdict(item, "absent", batch_uuid=batch, reason="other species"),
        verdict(item | {"species": "owl"}, "present", batch_uuid=batch),
    )
    rows = {row["species"]: row for row in page.store.current()}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        item["species"]: "absent",
        "owl": "present",
    }
    assert {row["batch_uuid"] for row in rows.values()} == {batch}


@pytest.mark.parametrize("view", ["full", "model"])
def test_picture_is_of_the_size_and_range_that_is_asked_for(ana, view):
    item = ana.items()[3]
    path = f"/api/regions/{item['region']}/picture.png"
    query = {"view": view, "margin": 0.5, "width": 400, "height": 200, "scale": 2}
    answer = ana.client.get(path, params=query)
    picture = Image.open(io.BytesIO(answer.content))
    start, stop, low, high, mel = json.loads(answer.headers["x-axes"])
    assert (picture.format, picture.size) == ("PNG", (800, 400))
    assert start == pytest.approx(max(0, item["start_time"] - 0.5), abs=1e-3)
    assert stop == pytest.approx(item["end_time"] + 0.5, abs=1e-3)
    assert (low, high, mel) == ((20, 16_000, True) if view == "model" else (0, 8000, False))


def test_sound_is_that_of_the_picture_sample_by_sample(ana, simulated):
    item = ana.items()[3]
    axes = ana.client.get(f"/api/regions/{item['region']}/picture.png?margin=0.5").headers["x-axes"]
    answer = ana.client.get(f"/api/regions/{item['region']}/sound.wav?margin=0.5")
    wave, rate = sf.read(io.BytesIO(answer.content), dtype="int16")
    recordings = find_recordings([simulated]).recordings
    path = next(r.path for r in recordings if r.id == item["recording_id"])
    whole, own_rate = sf.read(path, dtype="int16")
    start, stop = (round(seconds * rate) for seconds in json.loads(axes)[:2])
    assert rate == own_rate
    assert json.loads(answer.headers["x-times"]) == json.loads(axes)[:2]
    assert np.abs(wave.astype(int) - whole[start:stop]).max() <= 1
    slow, slow_rate = sf.read(
        io.BytesIO(
            ana.client.get(
                f"/api/regions/{item['region']}/sound.wav?margin=0.5&slow=2&band=1000-4000"
            ).content
        )
    )
    assert (len(slow), slow_rate) == (len(wave), rate // 2)  # fmt: skip


def test_missing_recording_is_an_error_of_its_own_items_only(page, tmp_path, simulated):
    (tmp_path / "audio").mkdir()
    ana = Browser(page)
    items = ana.items()
    kept = next(item for item in items if item["recording_id"] != items[0]["recording_id"])
    recordings = find_recordings([simulated]).recordings
    path = next(r.path for r in recordings if r.id == kept["recording_id"])
    (tmp_path / "audio" / path.name).write_bytes(path.read_bytes())
    few = ReviewPage(page.store, AudioLibrary([tmp_path / "audio"]), page.painter, page.access, "q")
    ana = Browser(few)
    missing = ana.client.get(f"/api/regions/{items[0]['region']}/picture.png")
    assert (missing.status_code, missing.json()["code"]) == (404, "E_AUDIO_MISSING")
    assert ana.client.get(f"/api/regions/{kept['region']}/picture.png").status_code == 200


def test_reference_calls_are_those_agreed_present_of_other_draws_than_audits(page, ana, simulated):
    wrens = ana.items(species="wren")
    ana.post(verdict(wrens[0]), verdict(wrens[1], "absent"), verdict(wrens[2]))
    references = ana.get("/api/references", species="wren")
    assert [each["region"] for each in references] == [wrens[2]["region"], wrens[0]["region"]]
    assert references[0]["start_time"] == wrens[2]["start_time"]
    page.store.create_draw("audit", "random", 1, [{"candidate": wrens[2]["candidate"]}])
    references = ana.get("/api/references", species="wren")
    assert [each["region"] for each in references] == [wrens[0]["region"]]


def test_conflict_is_resolved_by_an_expert_only(page, ana):
    ben, eva = Browser(page, "ben"), Browser(page, "eva", "expert")
    item = ana.items()[0]
    ana.post(verdict(item, "present"))
    ben.post(verdict(item, "absent", reason="noise"))
    assert ben.items()[0]["own_verdict"]["verdict"] == "absent"  # nobody sees another's
    (conflict,) = eva.get("/api/conflicts")
    assert [(v["reviewer"], v["verdict"]) for v in conflict["verdicts"]] == [
        ("ana", "present"),
        ("ben", "absent"),
    ]
    resolution = verdict(item, "present") | {"kind": "resolve"}
    assert ana.post(resolution, status=403)["code"] == "E_REVIEW_ROLE"
    eva.post(resolution)
    assert eva.get("/api/conflicts") == []
    assert [row["verdict"] for row in page.store.agreed()] == ["present"]


def test_second_review_is_blind_and_its_agreement_is_told(page, ana):
    items = ana.items(species="wren")
    ana.post(*(verdict(item, "present" if i < 4 else "absent") for i, item in enumerate(items)))
    ben = Browser(page, "ben")
    second = ben.items(state="second")
    assert [item["position"] for item in second] == [item["position"] for item in items]
    assert {item["own_verdict"] for item in second} == {None}
    ben.post(*(verdict(item, "present" if i < 3 else "absent") for i, item in enumerate(second)))
    assert ben.items(state="second") == []
    by_species = {row["species"]: row for row in ben.get("/api/agreement")}
    assert by_species["*"] == by_species["wren"] | {"species": "*"}
    row = by_species["wren"]
    assert (row["reviewers"], row["both"], row["agreement"]) == (["ana", "ben"], 8, 7 / 8)
    assert (row["agreement_present"], row["agreement_absent"]) == (6 / 7, 8 / 9)
    assert row["kappa"] == pytest.approx(0.75)  # (7/8 - 1/2) / (1 - 1/2)


@pytest.mark.parametrize("page", ["audit"], indirect=True)
def test_threshold_of_an_audit_has_its_sentence(page, ana):
    ana.post(*(verdict(item, "present") for item in ana.items(species="wren")))
    answer = ana.get("/api/species/wren/threshold", precision=0.9)
    assert answer["judged"] == 8
    assert answer["sentence"].startswith(f"{answer['threshold']:.3g} gives 100 %, ")


def test_export_has_the_rows_of_the_database_and_reads_as_a_table(page, ana):
    ana.post(
        *(verdict(item, "present" if i % 2 else "absent") for i, item in enumerate(ana.items()))
    )
    answer = ana.client.get("/api/export.csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == len(list(page.store.export_rows())) == 24
    assert {row["verdict"] for row in rows} == {"present", "absent"}
    assert "<b>frog</b>" in {row["species"] for row in rows}
    assert answer.headers["content-disposition"] == 'attachment; filename="verdicts.csv"'


def test_what_needs_an_option_says_which(ana):
    answer = ana.client.post("/api/rounds", json={})
    assert (answer.status_code, answer.json()["code"]) == (400, "E_REVIEW_PART")
    assert ana.client.get("/api/species/wren/threshold").json()["code"] == "E_NO_AUDIT"
    assert ana.session["can_start_round"] is False
