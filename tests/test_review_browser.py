"""The review page in a real browser, with a real server, real audio and a trained model."""

import csv
import shutil
from collections import Counter

import pytest

from antpitta import api
from antpitta.review.store import Store
from benchmarks.browser import chromium, serving
from tests.browser import axe_problems, find_chromium, open_page, stored, until


@pytest.fixture(scope="module")
def browser():
    with chromium(find_chromium()) as opened:
        yield opened


@pytest.fixture(scope="module")
def predicted(run, simulated, tmp_path_factory):
    """Detections of a trained model in the simulated recordings."""
    out = tmp_path_factory.mktemp("predicted") / "out"
    api.predict_to(run.model, [simulated / "train", simulated / "test"], out)
    return out


@pytest.fixture
def queue(predicted, simulated, tmp_path):
    folder = tmp_path / "queue"
    found = api.candidates([predicted], folder, audio=[simulated])
    assert found.added >= 40
    return folder


@pytest.fixture
def own_run(run, tmp_path):
    """A run with a folder of its own for the next rounds."""
    return shutil.copytree(run.path, tmp_path / "runs" / "first")


@pytest.fixture
def server(queue, simulated, own_run):
    people = ("--reviewer", "ana", "--reviewer", "ben", "--expert", "eva")
    with serving(queue, simulated, [*people, "--model", own_run]) as started:
        yield started


def verdicts(queue):
    """What stands in the database: root region and species to verdict and reason."""
    with Store.open(queue) as store:
        return {(row["root"], row["species"]): row["verdict"] for row in store.current()}


def names_on_page(page):
    """The species of the cells of the grid and their verdicts, in their order."""
    return page.locator(".cell").evaluate_all(
        "cells => cells.map((c) => [c.querySelector('.name').textContent, c.dataset.verdict])"
    )


def waiting_events(page):
    """The verdicts that are in the browser alone."""
    return page.evaluate(
        """() => Object.keys(localStorage).filter((key) => key.includes(":event:")).sort()
           .map((key) => JSON.parse(localStorage.getItem(key)))
           .filter((event) => event.kind !== "listened")"""
    )


def drag(page, edge, by):
    """Move an edge of the box by so many pixels along time."""
    handle = page.get_by_role("slider", name=edge)
    x, y = handle.evaluate(  # a line has no width, and so is not visible to playwright
        "(line) => { const r = line.getBoundingClientRect(); return [r.x, r.y + r.height / 2] }"
    )
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by / 2, y, steps=3)
    page.mouse.move(x + by, y, steps=3)
    page.mouse.up()


def train_next(page, run):
    """Train the next model by the button of the page, to its report."""
    page.get_by_role("button", name="Progress").click()
    button = page.get_by_role("button", name="Train the next model")
    button.click()
    until(page, "[...document.querySelectorAll('button')].some((each) => each.disabled)")
    out = run.parent / "first-2"
    until(page, f"document.body.innerText.includes('Report: {out}')", seconds=600)
    assert "macro AP" in page.locator("main").inner_text()
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "Rounds of review" in report
    assert "Tyto alba" in report
    with (out / "learning_curve.csv").open(encoding="utf-8", newline="") as table:
        assert {row["round"] for row in csv.DictReader(table)} == {"0", "1"}
    assert button.is_enabled()
    button.click()  # no verdict is new
    page.get_by_text("was made with all verdicts of this queue").wait_for(timeout=120_000)


def test_review_by_keyboard_survives_a_reload_and_trains_the_next_model(
    browser, server, queue, own_run
):
    page = open_page(browser, server.addresses["ana"])
    page.wait_for_selector(".cell img[src]")
    shown = names_on_page(page)
    assert page.locator(".page-title").text_content() == "Calls 1 to 48 of 128"
    for number in range(10):  # in the grid
        page.keyboard.press("n" if number % 5 == 4 else "y")
    page.keyboard.press("Enter")
    page.wait_for_selector(".one .picture img[src]")
    for number in range(10):  # one at a time
        page.keyboard.press("2" if number % 5 == 4 else "y")
    stored(page)
    assert Counter(verdicts(queue).values()) == {"present": 16, "absent": 4}

    page.keyboard.press("z")  # the 20th: absent, noise
    stored(page)
    assert len(verdicts(queue)) == 19
    assert "call 20 of 128" in page.locator(".details").first.text_content()

    page.wait_for_selector("[role=slider]", state="attached")
    handle = page.get_by_role("slider", name="end")
    before = float(handle.get_attribute("aria-valuenow"))
    drag(page, "end", -120)
    after = float(handle.get_attribute("aria-valuenow"))
    assert after < before - 0.2
    page.keyboard.press("y")
    page.get_by_text("call 21").wait_for()
    wrong = page.locator(".species").text_content()
    page.keyboard.press("o")
    page.keyboard.type("Tyto alba")
    page.keyboard.press("Enter")
    page.get_by_text("call 22").wait_for()
    stored(page)

    page.reload()
    page.wait_for_selector(".one .picture img[src]")
    assert "of 107" in page.locator(".details").first.text_content()  # 128 less 21
    page.keyboard.press("f")
    page.locator("#filter-state").select_option("")
    page.get_by_role("button", name="Show these").click()
    page.keyboard.press("Escape")
    page.wait_for_selector(".cell")
    again = names_on_page(page)
    assert [name for name, _ in again] == [name for name, _ in shown]
    words = ["present"] * 4 + ["absent"]
    assert [word for _, word in again[:22]] == [*(4 * words)[:19], "present", "absent", "none"]
    with Store.open(queue) as store:
        rows = {(row["root"], row["species"]): row for row in store.current()}
        moved = [row["region"] for row in rows.values() if row["region"] != row["root"]]
        assert [store.region(region)["end_time"] for region in moved] == [after]
        batches = {}
        for row in rows.values():
            batches.setdefault(row["batch_uuid"], set()).add((row["species"], row["verdict"]))
    assert {(wrong, "absent"), ("Tyto alba", "present")} in batches.values()

    train_next(page, own_run)
    assert page.errors == []


def test_verdicts_of_a_killed_server_wait_in_the_browser_and_arrive_after_its_start(
    browser, server, queue
):
    page = open_page(browser, server.addresses["ana"])
    page.wait_for_selector(".cell img[src]")
    for _ in range(3):
        page.keyboard.press("y")
    stored(page)
    server.kill()
    for key in ("n", "y", "u"):
        page.keyboard.press(key)
    page.wait_for_selector("#alert:not([hidden])")
    assert "kept in this browser" in page.locator("#alert").text_content()
    waiting = waiting_events(page)
    assert [event["verdict"] for event in waiting] == ["absent", "present", "unsure"]
    assert sorted(verdicts(queue).values()) == ["present"] * 3

    server.start()
    page.goto(server.addresses["ana"])
    page.wait_for_selector(".cell img[src]")
    stored(page)
    assert waiting_events(page) == []
    assert sorted(verdicts(queue).values()) == ["absent", *["present"] * 4, "unsure"]
    with Store.open(queue) as store:  # none twice
        assert len({row["uuid"] for row in store.current()}) == 6
    assert page.locator(".page-title").text_content().startswith("Calls 1 to 48")

    page.keyboard.press("z")  # the last one was given before the server's start
    stored(page)
    assert "unsure" not in verdicts(queue).values()
    other = open_page(browser, server.addresses["ana"])  # nothing of it is in this browser
    other.wait_for_selector(".cell img[src]")
    other.get_by_text("Calls 1 to 48 of 123").wait_for()
    other.keyboard.press("z")
    until(other, "document.querySelector('#status').textContent.includes('undone')")
    stored(other)
    assert len(verdicts(queue)) == 4
    other.wait_for_selector(".cell img[src]")
    other.get_by_text("Calls 1 to 48 of 124").wait_for()  # the call is back
    assert page.errors == other.errors == []


def test_verdict_on_the_rest_of_a_page_is_undone_as_one(browser, server, queue):
    page = open_page(browser, server.addresses["ana"])
    page.wait_for_selector(".cell img[src]")
    page.keyboard.press("n")
    page.keyboard.press("Y")
    stored(page)
    assert Counter(verdicts(queue).values()) == {"absent": 1, "present": 47}
    page.keyboard.press("PageDown")
    page.get_by_text("Calls 49 to 96").wait_for()
    page.keyboard.press("z")
    stored(page)
    assert list(verdicts(queue).values()) == ["absent"]
    page.get_by_text("Calls 1 to 48").wait_for()  # the page that is undone is shown again
    assert [verdict for _, verdict in names_on_page(page)] == ["absent", *["none"] * 47]


def judge_as(browser, server, name, keys):
    """Open the page under a name, and press keys in the grid."""
    page = open_page(browser, server.addresses[name])
    page.wait_for_selector(".cell img[src]")
    for key in keys:
        page.keyboard.press(key)
    stored(page)
    return page


def test_second_review_is_blind_and_an_expert_resolves_its_conflict(browser, server, queue):
    judge_as(browser, server, "ana", "yyyyn")
    ben = open_page(browser, server.addresses["ben"])
    ben.wait_for_selector(".cell img[src]")
    ben.locator("#filters").click()
    ben.locator("#filter-state").select_option("second")
    ben.get_by_role("button", name="Show these").click()
    until(ben, "document.querySelectorAll('.cell').length === 5")
    assert {verdict for _, verdict in names_on_page(ben)} == {"none"}
    for key in "yyy2n":
        ben.keyboard.press(key)
    stored(ben)
    ben.get_by_role("button", name="Conflicts").click()
    ben.get_by_text("An expert resolves them").wait_for()

    eva = open_page(browser, server.addresses["eva"])
    eva.wait_for_selector(".cell img[src]")
    eva.get_by_role("button", name="Conflicts").click()
    eva.wait_for_selector(".conflict img[src]")
    assert eva.locator(".verdicts").all_inner_texts() == ["ana: present\nben: absent (noise)"]
    eva.keyboard.press("n")
    eva.get_by_text("Reviewers agree wherever two gave a verdict").wait_for()
    with Store.open(queue) as store:
        assert [row["verdict"] for row in store.agreed() if row["status"] == "resolved"] == [
            "absent"
        ]
    eva.get_by_role("button", name="Progress").click()
    row = eva.locator("[aria-label='Agreement of reviewers'] tbody tr").first
    row.wait_for()
    # 3 of 4 present for the one, 3 of 5 for the other: (4/5 - 14/25) / (1 - 14/25)
    assert row.locator("td, th").all_inner_texts()[:7] == [
        *("ana and ben", "all", "5", "0", "0.80", "0.86", "0.67")
    ]
    assert row.locator("td").last.inner_text().startswith("0.55, ")
    eva.get_by_role("button", name="Conflicts").click()
    eva.keyboard.press("z")
    eva.wait_for_selector(".conflict img[src]")  # an undone resolution is a conflict again
    assert eva.errors == ben.errors == []


def test_reference_calls_stand_beside_a_candidate_of_their_species(browser, server):
    page = judge_as(browser, server, "ana", "y")
    species = page.locator(".cell .name").first.inner_text()
    page.locator("#filters").click()
    page.locator("#filter-species").select_option(species)
    page.get_by_role("button", name="Show these").click()
    until(page, "document.querySelectorAll('.cell').length === 15")  # one of 16 is judged
    page.keyboard.press("Enter")
    page.wait_for_selector(".references img[src]")
    assert page.locator(".references figure").count() == 1
    page.keyboard.press("r")
    page.wait_for_selector(".references .playhead[visibility=visible]", state="attached")


def test_edges_move_by_keyboard(browser, server, queue):
    page = open_page(browser, server.addresses["ana"])
    page.wait_for_selector(".cell img[src]")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=slider]", state="attached")
    page.keyboard.press("b")
    page.keyboard.press("Shift+ArrowRight")
    start = page.get_by_role("slider", name="start")
    moved = float(start.get_attribute("aria-valuenow"))
    page.keyboard.press("y")
    stored(page)
    with Store.open(queue) as store:
        (row,) = store.current()
        assert store.region(row["root"])["start_time"] == 0
        assert store.region(row["region"])["start_time"] == moved > 0


def test_audit_shows_no_score_and_offers_no_filter_of_scores(
    browser, predicted, simulated, tmp_path
):
    api.candidates([predicted], tmp_path / "queue", audio=[simulated], audit=4)
    with serving(tmp_path / "queue", simulated, ["--reviewer", "ana"]) as server:
        page = open_page(browser, server.addresses["ana"])
        page.wait_for_selector(".cell img[src]")
        assert "score" not in page.locator("main").inner_text()
        page.locator("#filters").click()
        page.wait_for_selector("#filter-site")
        assert page.locator("#filter-score_from").count() == 0


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_every_view_is_accessible_and_fits_its_width(browser, server, width, scheme):
    judge_as(browser, server, "ana", "yn")
    judge_as(browser, server, "ben", "yy")
    size = {"width": width, "height": 740}
    page = open_page(browser, server.addresses["eva"], viewport=size, color_scheme=scheme)
    page.wait_for_selector(".cell img[src]")
    seen = {}

    def look(view):
        page.wait_for_timeout(200)
        wide = page.evaluate("document.documentElement.scrollWidth")
        seen[view] = (axe_problems(page), wide > width)

    look("grid")
    page.keyboard.press("Enter")
    page.wait_for_selector(".references img[src]")
    look("one")
    for key, name in (("o", "species"), ("f", "filters")):
        page.keyboard.press(key)
        page.wait_for_selector("dialog[open]")
        look(name)
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Conflicts").click()
    page.wait_for_selector(".conflict img[src]")
    look("conflicts")
    page.get_by_role("button", name="Progress").click()
    page.get_by_role("button", name="Show the thresholds").click()
    page.wait_for_selector("[aria-label='Agreement of reviewers']")
    look("progress")
    assert seen == dict.fromkeys(seen, ([], False))
    assert len(seen) == 6
