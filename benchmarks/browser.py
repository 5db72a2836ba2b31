"""A headless Chromium and the review page's server, each a process of its own."""

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_ARGUMENTS = ("--no-sandbox", "--autoplay-policy=no-user-gesture-required")
_ANSWERS = 30.0  # seconds until a server answers


def chromium_path() -> str | None:
    """The path of a Chromium, of the system or of playwright; None without one."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


@contextmanager
def chromium(path: str) -> "Iterator[Browser]":
    """A headless browser, closed at the end.

    Parameters
    ----------
    path : of the program

    Yields
    ------
    Browser
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        browser.close()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ReviewProcess:
    """``antpitta review`` as a process, which can be killed and started again.

    Parameters
    ----------
    queue : folder or URL
    audio : folder of the recordings
    options : of the command

    Attributes
    ----------
    addresses : where each reviewer opens the page, by name
    """

    def __init__(self, queue: Path | str, audio: Path, *options: object) -> None:
        self.port = free_port()
        self._command = [
            *(sys.executable, "-m", "antpitta", "review", str(queue), "--audio", str(audio)),
            *("--port", str(self.port), *map(str, options)),
        ]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        printed = ""
        for line in self._process.stdout or ():
            printed += line
            if "Ctrl-C" in line:
                break
        self.addresses = dict(re.findall(r"^(.+): (http://\S+)$", printed, re.MULTILINE))
        if not self.addresses:
            raise RuntimeError(f"antpitta review has ended: {printed}")
        end = time.monotonic() + _ANSWERS
        while not self._answers():
            if time.monotonic() > end:
                raise RuntimeError("antpitta review does not answer")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


@contextmanager
def serving(queue: Path | str, audio: Path, options: Sequence[object]) -> Iterator[ReviewProcess]:
    """A running server, killed at the end.

    Parameters
    ----------
    queue : folder or URL
    audio : folder of the recordings
    options : of the command

    Yields
    ------
    ReviewProcess
    """
    server = ReviewProcess(queue, audio, *options)
    try:
        yield server
    finally:
        server.kill()
