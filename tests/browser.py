"""Pages of reviewers in a headless Chromium, and what axe-core finds in them."""

import time

import pytest

from benchmarks.browser import chromium_path


def find_chromium():
    """The path of a Chromium; skips the test without one."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium: install the system's, or run `playwright install chromium`")
    return path


def open_page(browser, address, **options):
    """The page of a reviewer in a browser of their own; ``errors`` has what scripts complain of."""
    page = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | options).new_page()
    page.set_default_timeout(10_000)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda line: _note_refusal(page, line.text))
    page.goto(address)
    return page


def _note_refusal(page, text):
    """The content policy reports what it blocks to the console."""
    if "Content Security Policy" in text or "Refused to" in text:
        page.errors.append(text)


def until(page, expression, seconds=20):
    """Wait until an expression of the page is true; its policy forbids playwright's own wait."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(20)


def stored(page):
    """Wait until the server has every event."""
    until(page, "Object.keys(localStorage).every((key) => !key.includes(':event:'))")


def axe_problems(page):
    """What axe-core finds that is serious or worse: rule and element."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe is not installed")
    page.evaluate(axe.AXE_FILE_PATH.read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [
        (problem["id"], node["html"][:200])
        for problem in found
        if problem["impact"] in ("serious", "critical")
        for node in problem["nodes"]
    ]
