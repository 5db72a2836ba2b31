"""Run the fuzz targets one after another for a bounded time: `make fuzz FUZZ_SECONDS=60`.

One line for each target: the inputs that were run, the branches that they reached, and the
findings. The exit status is 1 where there is a finding; its input lies in ``.fuzz/findings``.
"""

import argparse
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
FINDINGS = ROOT / ".fuzz" / "findings"
TARGETS = ("tables", "audio_headers", "bundle")
_SECONDS_TO_LOAD = 10
_SECONDS_TO_END = 60  # beyond the time that libFuzzer was given


def run_target(name: str, seconds: int) -> bool:
    """Run one target, print its line, and return whether it found nothing."""
    begun = time.time()
    command = [sys.executable, "-m", f"fuzz.fuzz_{name}", f"-max_total_time={seconds}"]
    log = FINDINGS.with_name(f"{name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        status = _run(command, file, seconds + _SECONDS_TO_LOAD + _SECONDS_TO_END)
    text = log.read_text(encoding="utf-8", errors="replace")
    counts = re.findall(r"^#(\d+)\t.*?cov: (\d+)", text, re.MULTILINE)
    executions, coverage = counts[-1] if counts else ("0", "0")
    new = [file for file in FINDINGS.glob(f"{name}-*") if file.stat().st_mtime >= begun - 1]
    print(f"{name:14}{executions:>9} inputs{coverage:>7} branches{len(new):>4} findings")
    for file in sorted(new):
        print(f"    {file.relative_to(ROOT)}: repeat with python -m fuzz.fuzz_{name} {file}")
    if status and not new:
        print(f"    the target ended with status {status}; see {log.relative_to(ROOT)}")
    return not new and not status


def _run(command: list[str], log: "object", limit: int) -> int:
    """The exit status of a target; lines of the MP3 decoder are left out of its log."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    assert process.stdout
    for line in process.stdout:
        if not line.startswith("Note: "):
            log.write(line)
    return process.wait()


def main() -> int:
    """Run all targets, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(TARGETS), help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    options = parser.parse_args()
    if find_spec("atheris") is None:
        print(
            "The fuzz targets need atheris, which has wheels for Linux only. "
            "On Linux, run: pip install -e '.[fuzz]'",
            file=sys.stderr,
        )
        return 2
    seconds = max(1, options.seconds // len(options.targets))
    clean = [run_target(name, seconds) for name in options.targets]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
