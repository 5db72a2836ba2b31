"""What may not reach the review page does not reach it, and no answer gives anything away."""

import json
import logging
import re

import pytest
from starlette.testclient import TestClient

from antpitta.core.errors import UserError
from antpitta.core.types import EVERY_CLASS
from antpitta.files.recipes import read_recipe
from antpitta.review import security, server
from antpitta.review.library import AudioLibrary
from antpitta.review.media import RegionPainter
from antpitta.review.security import Access, SignedIn
from antpitta.review.server import ReviewPage, create_app
from antpitta.review.store import Store
from tests.review_queue import make_queue

ORIGIN = "http://127.0.0.1:8765"
PATHS = (
    *("/", "/static/app.js", "/api/session", "/api/draws", "/api/draws/1/items", "/api/species"),
    *("/api/regions/1/picture.png", "/api/regions/1/sound.wav", "/api/conflicts", "/api/progress"),
    *("/api/export.csv", "/api/rounds", "/api/species/wren/threshold", "/nothing"),
)


@pytest.fixture(scope="module")
def page(simulated, tmp_path_factory):
    store = Store.open(make_queue(tmp_path_factory.mktemp("queues") / "queue", simulated))
    access = Access(8765)
    access.grant(SignedIn(store.add_reviewer("ana"), "ana", "reviewer"))
    painter = RegionPainter(read_recipe("quick"))
    yield ReviewPage(store, AudioLibrary([simulated]), painter, access, "queue")
    store.close()


@pytest.fixture
def token(page):
    return next(iter(page.access.reviewers))


@pytest.fixture
def client(page, token):
    """A browser that has opened the address of the page."""
    client = TestClient(create_app(page), base_url=ORIGIN, raise_server_exceptions=False)
    assert client.get(f"/?token={token}").status_code == 200
    return client


@pytest.fixture
def headers(client):
    return {"x-antpitta-key": client.get("/api/session").json()["key"]}


def post(client, headers, body=None, **options):
    body = {"events": []} if body is None else body
    return client.post("/api/events", json=body, headers=headers, **options)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cookie", ["", "wrong", "antpitta-8765=", "antpitta-8765=wrong; x"])
def test_nothing_is_answered_without_the_token(page, path, cookie):
    client = TestClient(create_app(page), base_url=ORIGIN)
    answer = client.get(path, headers={"cookie": cookie} if cookie else {})
    assert (answer.status_code, answer.json()["code"]) == (401, "E_TOKEN")
    assert client.get(f"{path}?token=wrong").status_code == 401


def test_token_of_the_address_becomes_a_cookie_that_no_script_and_no_other_site_can_use(
    page, token
):
    client = TestClient(create_app(page), base_url=ORIGIN)
    cookie = client.get(f"/?token={token}").headers["set-cookie"]
    assert cookie == f"antpitta-8765={token}; Path=/; HttpOnly; SameSite=Strict"
    assert client.get("/api/session").json()["reviewer"] == "ana"
    # the token opens the page only: addresses of pictures and tables never hold it
    assert TestClient(create_app(page), base_url=ORIGIN).get(
        f"/api/session?token={token}"
    ).status_code == 401  # fmt: skip


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1", "127.0.0.1:80"])
def test_another_host_name_is_refused(client, host):
    answer = client.get("/api/session", headers={"host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "E_HOST")
    assert client.get("/api/session", headers={"host": "localhost:8765"}).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"x-antpitta-key": ""},
        {"x-antpitta-key": "0" * 64},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_post_without_the_key_or_from_another_site_is_refused(client, headers, change):
    answer = post(client, headers | change)
    assert (answer.status_code, answer.json()["code"]) == (403, "E_CSRF")
    assert post(client, headers | {"origin": ORIGIN}).status_code == 200


def test_key_of_one_reviewer_is_not_that_of_another(page, client, headers):
    address = page.access.grant(SignedIn(page.store.add_reviewer("ben"), "ben", "reviewer"))
    other = TestClient(create_app(page), base_url=ORIGIN)
    other.get(address)
    assert other.get("/api/session").json()["reviewer"] == "ben"
    assert post(other, headers).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
def test_post_that_a_form_could_send_is_refused(client, headers, kind):
    answer = client.post("/api/events", content="{}", headers=headers | {"content-type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(client, headers, method):
    assert client.request(method, "/api/events", headers=headers).status_code == 405


def test_large_bodies_are_refused_whatever_their_header_says(client, headers):
    assert post(client, headers, {"events": [], "x": "y" * security.MAX_BODY}).status_code == 413
    headers = headers | {"content-type": "application/json"}
    parts = (b"x" * 100_000 for _ in range(20))  # sent in parts, without a length
    assert client.post("/api/events", content=parts, headers=headers).status_code == 413


@pytest.mark.parametrize(
    "query",
    [
        "view=other", "margin=11", "margin=-1", "margin=nan", "margin=inf", "width=100000",
        "height=1", "scale=9", "width=x",
    ],
)  # fmt: skip
def test_sizes_of_pictures_are_bounded(client, query):
    answer = client.get(f"/api/regions/1/picture.png?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "E_REQUEST")


@pytest.mark.parametrize(
    "query", ["slow=0", "slow=21", "band=5", "band=5-1", "band=1e5-2e5", "band=-1-5", "margin=99"]
)
def test_parameters_of_sound_are_bounded(client, query):
    answer = client.get(f"/api/regions/1/sound.wav?{query}")
    assert (answer.status_code, answer.json()["code"]) in ((422, "E_REQUEST"), (400, "E_REQUEST"))


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py",
        "/static/%2e%2e%2f%2e%2e%2fcore%2ferrors.py", "/static/..%5cserver.py",
        "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/app.js%00.html", "/static/",
    ],
)  # fmt: skip
def test_no_address_leads_out_of_the_files_of_the_page(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "import" not in answer.text


@pytest.mark.parametrize("path", [*PATHS, "/api/regions/999999/picture.png"])
def test_every_answer_has_the_headers_that_keep_other_content_out(client, path):
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "eval" not in policy
    assert "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-frame-options"] == "DENY"
    assert (
        "no-store" in answer.headers["cache-control"]
        or "private" in answer.headers["cache-control"]
    )


def test_page_has_no_inline_script_style_or_foreign_address(client):
    text = client.get("/").text
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", text) == []
    for name in re.findall(r'"/static/([\w.]+)"', text):
        assert client.get(f"/static/{name}").status_code == 200


def test_unforeseen_error_is_one_sentence_without_a_trace(page, client, monkeypatch, caplog):
    def fail():
        raise RuntimeError("secret of the server")

    monkeypatch.setattr(page.store, "draws", fail)
    with caplog.at_level(logging.ERROR):
        answer = client.get("/api/draws")
    assert (answer.status_code, answer.json()["code"]) == (500, "E_UNFORESEEN")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "secret" in caplog.text  # the terminal of the server has it
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    "event",
    [
        {"kind": "verdict"}, {"uuid": "x"}, {"uuid": "0" * 32, "kind": "other"}, [], None, "text",
        {"uuid": "0" * 32, "kind": "verdict", "region": 1, "species": EVERY_CLASS,
         "verdict": "present"},
        {"uuid": "0" * 32, "kind": "verdict", "region": 1, "species": "wren", "verdict": "absent",
         "box": [5, 1, 0, 9]},
        {"uuid": "0" * 32, "kind": "verdict", "region": 1, "species": "wren", "verdict": "absent",
         "box": "x"},
        {"uuid": "0" * 32, "kind": "verdict", "region": "1 OR 1", "species": "wren",
         "verdict": "absent"},
        {"uuid": "0" * 32, "kind": "verdict", "region": 2**70, "species": "wren",
         "verdict": "absent"},
        {"uuid": "0" * 32, "kind": "verdict", "region": 2**70, "species": "wren",
         "verdict": "absent", "box": [0, 1, 0, 9]},
        {"uuid": "0" * 32, "kind": "verdict", "region": 1, "species": "wren", "verdict": "absent",
         "box": [0, float("inf"), 0, 9]},
        *({"uuid": "0" * 32, "kind": "verdict", "region": 1, "species": "wren",
           "verdict": "absent", "box": box}
          for box in (5, {}, [0, 10**400, 0, 9], [0, True, 0, 9])),
        {"uuid": "0" * 32, "kind": "verdict", "region": True, "species": "wren",
         "verdict": "absent"},
    ],
    ids=str,
)  # fmt: skip
def test_event_that_cannot_be_stored_is_refused_with_one_line(client, headers, event, page):
    headers = headers | {"content-type": "application/json"}
    answer = client.post("/api/events", content=json.dumps({"events": [event]}), headers=headers)
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] in ("E_REVIEW_EVENT", "E_REQUEST", "E_BAD_BOX", "E_NO_REGION")
    assert "\n" not in answer.json()["message"]
    assert list(page.store.current()) == []


@pytest.mark.parametrize("region", ["0", "-1", "999999", "9" * 30, "x", "1;drop table region"])
def test_region_that_does_not_exist_is_not_found(client, region):
    for file in ("picture.png", "sound.wav"):
        answer = client.get(f"/api/regions/{region}/{file}")
        assert answer.status_code in (404, 422)
        assert answer.json()["code"] in ("E_NO_REGION", "E_REQUEST")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..%2f..%2fetc/passwd", "", ".", "\0", "x" * 5000]
)
def test_name_of_a_queue_finds_no_file_outside_the_audio_folders(simulated, name):
    with pytest.raises(UserError) as error:
        AudioLibrary([simulated]).find(name)
    assert error.value.code == "E_AUDIO_MISSING"


def test_link_out_of_the_audio_folders_is_refused(simulated, tmp_path):
    sound = next((simulated / "test").iterdir())
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "linked.flac").symlink_to(sound)
    with pytest.raises(UserError) as error:
        AudioLibrary([tmp_path / "audio"]).find("linked")
    assert error.value.code == "E_AUDIO_OUTSIDE"
    library = AudioLibrary([tmp_path / "audio", sound.parent])  # now it is inside
    assert library.find("linked").samples == library.find(sound.stem).samples


def test_other_sound_under_the_same_name_is_refused(simulated, tmp_path):
    sound = next((simulated / "test").iterdir())
    library = AudioLibrary([sound.parent])
    assert library.find(sound.stem).id == sound.stem
    with pytest.raises(UserError) as error:
        library.find(sound.stem, "0" * 40)
    assert error.value.code == "E_AUDIO_CHANGED"


def test_names_in_the_served_code_are_text_never_markup():
    folder = server.files("antpitta") / "review" / "static"
    for file in folder.iterdir():
        code = file.read_text()
        assert (
            re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", code) == []
        )
