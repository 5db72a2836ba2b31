"""What the fuzz targets have in common: a folder in memory, the loop of atheris, and the verdict.

A target is a module with ``SEEDS`` (small valid inputs), ``WORDS`` (what the mutations insert) and
``run(data, folder)``. Any exception of ``run`` is a finding, apart from the errors that tell a user
what is wrong with a file; so are a hang and too much memory. An exception is kept once for each
place in the code, and the target goes on; a hang or a crash ends it. Inputs that reach new branches
stay in ``.fuzz/`` for the next run.
"""

import hashlib
import logging
import os
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[1] / ".fuzz"
FINDINGS = ROOT / "findings"
_MEMORY = Path("/dev/shm")
_LIMITS = ("-timeout=20", "-rss_limit_mb=3000", "-max_len=8192")

Run = Callable[[bytes, Path], None]


def instrumented() -> atheris.instrument_imports:
    """The context in which a target imports antpitta, so that its branches are counted."""
    return atheris.instrument_imports(include=["antpitta"])


def fuzz(name: str, run: Run, seeds: Iterable[bytes], words: Iterable[bytes]) -> None:
    """Run a target, with libFuzzer's options from the command line; it ends the process.

    ``python -m fuzz.fuzz_tables FILE`` runs one input, such as that of a finding.

    Parameters
    ----------
    name : of the target
    run : takes an input and an empty folder
    seeds : valid inputs
    words : that mutations insert
    """
    home = ROOT / name
    for folder in (home / "seeds", home / "corpus", FINDINGS):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (home / "seeds" / f"{number:03}").write_bytes(seed)
    lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words)
    (home / "words.txt").write_text("".join(lines), encoding="ascii")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    given = sys.argv[1:]
    if all(option.startswith("-") for option in given):
        given += [str(home / "corpus"), str(home / "seeds")]
    options = [f"-dict={home / 'words.txt'}", f"-artifact_prefix={FINDINGS / name}-", *_LIMITS]
    atheris.Setup([sys.argv[0], *options, *given], _one_input(name, run))
    atheris.Fuzz()


def _one_input(name: str, run: Run) -> Callable[[bytes], None]:
    from antpitta.core.errors import UserError
    from antpitta.files.audio import UnreadableAudio

    work = Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None)) / "work"
    known: set[str] = set()

    def test_one_input(data: bytes) -> None:
        work.mkdir()
        try:
            run(data, work)
        except (UserError, UnreadableAudio) as error:
            str(error).encode()  # a message that cannot be printed would be a finding, too
        except Exception as error:
            key = _place(error)
            if key not in known:
                known.add(key)
                digest = hashlib.blake2b(key.encode(), digest_size=4).hexdigest()
                file = FINDINGS / f"{name}-{digest}"
                file.write_bytes(data)
                print(f"FINDING {file}", *traceback.format_exception(error), sep="\n", flush=True)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    return test_one_input


def _place(error: Exception) -> str:
    """The kind of an error, and the last line of antpitta or of the target that it passed."""
    frames = [
        f"{frame.filename}:{frame.name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if f"{os.sep}antpitta{os.sep}" in frame.filename or "fuzz_" in frame.filename
    ]
    return f"{type(error).__name__} {frames[-1:]}"
