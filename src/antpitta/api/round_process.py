"""Rounds that the review page starts: one at a time, each in a process of its own.

Training would hold up the pages of all reviewers in the server's process, and would end with it. A
round is the command ``antpitta round`` at a low priority. When the server ends, the command is
stopped as by Ctrl-C; the next start from the page continues it.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from antpitta.api.round_scores import find_rounds
from antpitta.api.rounds import CURVE
from antpitta.core.errors import UserError
from antpitta.files.bundle import read_bundle
from antpitta.files.runs import RunFolder

_NUMBERED = re.compile(r"(.+)-(\d+)")
_ERROR = re.compile(r"antpitta: (.*) \[E_\w+\]")
_LEFT_OUT = "left out: "  # how the command begins such a line
_END_WAIT = 10.0  # seconds for a round to end by itself


class RoundProcess:
    """Starts rounds, and tells how far the latest one is. Threads may share one object.

    Parameters
    ----------
    run : the folder of a run; the first round begins with it, or with the last round after it
    queue : folder or URL
    audio : folders of the queue's recordings
    """

    def __init__(self, run: Path, queue: Path | str, audio: Sequence[Path]) -> None:
        self._run, self._queue, self._audio = RunFolder(latest_round(run)), queue, audio
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._state = "idle"
        self._message = f"The next round begins with {self._run.path.name}."

    def status(self) -> dict[str, Any]:
        """``state`` (idle, running, done or failed) and ``message``, a line."""
        with self._lock:
            return {"state": self._state, "message": self._message}

    def start(self) -> dict[str, Any]:
        """Begin a round, or continue the one that was stopped.

        Returns
        -------
        status : as from :meth:`status`

        Raises
        ------
        UserError
            E_ROUND_RUNNING.
        """
        with self._lock:
            if self._state == "running":
                raise UserError("E_ROUND_RUNNING", "a round is running", "wait for its end")
            out, is_begun = _next_folder(self._run.path)
            words = [str(self._run.path), str(self._queue), "-o", str(out)]
            words += [word for folder in self._audio for word in ("--audio", str(folder))]
            words += ["--resume"] if is_begun else []
            nice = shutil.which("nice")
            self._process = subprocess.Popen(
                [*([nice] if nice else []), sys.executable, "-m", "antpitta", "round", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C is the server's
            )
            self._state, self._message = "running", f"{out.name}: reading the verdicts"
            watch = threading.Thread(target=self._watch, args=(self._process, out), daemon=True)
            watch.start()
            return {"state": self._state, "message": self._message}

    def _watch(self, process: "subprocess.Popen[str]", out: Path) -> None:
        """Keep the last line that the command prints; at its end, what came of it."""
        assert process.stdout is not None
        error, left_out = "it ended without a message", []
        for printed in process.stdout:
            line = " ".join(printed.split())
            if match := _ERROR.match(line):
                error = match[1]
            elif line.startswith(_LEFT_OUT):
                left_out.append(line)
            elif line:
                with self._lock:
                    self._message = f"{out.name}: {line}"
        state, run = "failed", RunFolder(out)
        message = f"The round was not finished: {error}"
        if process.wait() in (0, 1):
            try:
                lines = [*run.report()["rounds"], *left_out, f"Report: {out / 'report.html'}"]
                state, message = "done", " ".join(lines)
            except UserError as failure:
                message = str(failure)
        with self._lock:
            self._run = run if state == "done" else self._run
            self._state, self._message = state, message

    def stop(self) -> None:
        """Stop the round that runs, so that it can be continued."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_END_WAIT)
            except subprocess.TimeoutExpired:
                process.kill()

    def superseded(self) -> frozenset[str]:
        """The digests of the models before the present one: their audits' thresholds are not its.

        Returns
        -------
        Digests of the models of all earlier rounds.
        """
        with self._lock:
            run = self._run
        return _earlier_models(run.path)


@cache
def _earlier_models(run: Path) -> frozenset[str]:
    """The digests of the models of the rounds before a finished one; their files are read once."""
    models = [read_bundle(folder.path).digest for _, folder in find_rounds(RunFolder(run))[0]]
    return frozenset(models[:-1])


def latest_round(run: Path) -> Path:
    """The last finished round that goes back to a run and lies beside it; the run where none does.

    Parameters
    ----------
    run : the folder of a run

    Returns
    -------
    folder : of a run
    """
    own = run.resolve()
    rounds = {own: RunFolder(own).round_number()}
    for folder in sorted(own.parent.glob(f"{_base(own)}-*"), key=_number):
        if (folder / CURVE).is_file():
            earlier = RunFolder(folder).earlier_round()
            if earlier is not None and earlier.resolve() in rounds:
                rounds[folder.resolve()] = RunFolder(folder).round_number()
    latest = max(rounds, key=lambda folder: rounds[folder])
    return run if latest == own else run.parent / latest.name


def _next_folder(run: Path) -> tuple[Path, bool]:
    """The folder of the next round, and whether an earlier start of it is there."""
    number = 2
    while (folder := run.parent / f"{_base(run.resolve())}-{number}").exists():
        earlier = RunFolder(folder).earlier_round()
        is_its = earlier is not None and earlier.resolve() == run.resolve()
        if is_its and not (folder / CURVE).is_file():
            return folder, True
        number += 1
    return folder, False


def _base(run: Path) -> str:
    """The name of the first run: that of a round without its number."""
    match = _NUMBERED.fullmatch(run.name)
    return match[1] if match and RunFolder(run).round_number() else run.name


def _number(folder: Path) -> int:
    match = _NUMBERED.fullmatch(folder.name)
    return int(match[2]) if match else 0
