"""A headless Chromium and a real server process, for the tests of the review page."""

import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium():
    """The path of a Chromium, of the system or of playwright; skips the test without one."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    for name in NAMES:
        if path := shutil.which(name):
            return path
    with api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    if not Path(own).is_file():
        pytest.skip("no Chromium: install the system's, or run `playwright install chromium`")
    return own


@contextmanager
def chromium():
    """A browser."""
    path = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`antpitta review` as a process of its own, which can be killed and started again."""

    def __init__(self, queue, audio, *options):
        self.port = free_port()
        self.command = [
            *(sys.executable, "-m", "antpitta", "review", str(queue), "--audio", str(audio)),
            *("--port", str(self.port), *map(str, options)),
        ]
        self.start()

    def start(self):
        """Start it, and read the address of each reviewer."""
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        printed = ""
        for line in self.process.stdout:
            printed += line
            if "Ctrl-C" in line:
                break
        self.addresses = dict(re.findall(r"^(.+): (http://\S+)$", printed, re.MULTILINE))
        assert self.addresses, printed
        self._wait()

    def _wait(self):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def kill(self):
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def serving(queue, audio, *options):
    """A running server."""
    server = Server(queue, audio, *options)
    try:
        yield server
    finally:
        server.kill()


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
