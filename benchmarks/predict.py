"""bench predict: whole processes over the same files, in turns, beside what else one could run.

- A way is a command; its seconds are those from its start to its end, its memory the highest that
  its process held. Ways take turns, so that a machine's slow minutes meet all of them.
- Slow ways hear a part of the files: a ratio needs no hundred of them. Start-up is in every figure.
- Files are the given ones under as many names as are asked for, through links.
- Without a model it is a ResNet18 of the competition's recipe, untrained: arithmetic takes as long
  whatever the weights. Its norms are drawn, because an untrained ResNet's branches end in zeros,
  and zeros are optimised away.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from antpitta.core.config import Precision, Recipe
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.files.audio import read
from antpitta.files.bundle import Bundle, read_bundle, write_bundle
from antpitta.files.recordings import ListedFile, list_files, open_file
from antpitta.files.runs import save_tensors
from antpitta.model.export import to_int8, to_openvino
from antpitta.model.features import build_feature_extractor
from antpitta.model.network import SedNet
from antpitta.predict.pipeline import cpu_count
from antpitta.predict.predictor import KINDS
from benchmarks.steps import say_limit, time_steps
from benchmarks.tables import machine

OURS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
SPECIES = 24
STEPS = 30  # files that steps are timed on
SLOW = 20  # times fewer files for ways that are that much slower
# Memory is told of by a small process in between: a child counts what its parent held.
_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True)
class Way:
    """One thing to run over a folder of so many files."""

    name: str
    command: Callable[[Path, Path], list[str]]  # of the folder, and where to write
    files: int


@dataclass(frozen=True)
class PredictBench:
    """Rows of ways and of steps, and what to know about them."""

    table: pd.DataFrame  # way, files, seconds, speed (x real time), low, high, megabytes
    steps: pd.DataFrame  # step, ms
    lines: tuple[str, ...]


def run_predict_bench(
    model: Path,
    audio: Sequence[Path],
    files: int,
    rounds: int,
    embedding: str | None,
    progress: Progress,
) -> PredictBench:
    """Time every way ``rounds`` times over ``files`` names of the files in ``audio``.

    ``embedding`` is a bird network to run beside. Raises UserError for a command that fails.
    """
    bundle = read_bundle(model)
    ways = _ways(bundle, files, embedding)
    found: list[tuple[str, float, float]] = []
    with TemporaryDirectory() as place:
        home = Path(place)
        counts = {1, *(way.files for way in ways)}
        lengths = {count: _lay_out(audio, count, home / str(count)) for count in counts}
        for turn in range(rounds):
            for i, way in enumerate(ways):
                progress.update(
                    "predicting", turn * len(ways) + i, rounds * len(ways), float("nan")
                )
                out = home / f"out{turn}-{i}"
                seconds, memory = _run(way, home / str(way.files), out)
                found.append((way.name, seconds, memory))
        ours = ways[0]
        start_up = min(_run(ours, home / "1", home / f"one{i}")[0] for i in range(rounds))
    progress.update("predicting", rounds * len(ways), rounds * len(ways), float("nan"))
    steps = time_steps(bundle, audio, OURS, STEPS)
    limits = [say_limit(steps, kind, cpu_count()) for kind in OURS if kind in set(steps["step"])]
    lines = (*limits, f"one file, start to end: {start_up:.1f} s", _pen(), machine())
    return PredictBench(_summary(ways, found, lengths), steps, lines)


def _pen() -> str:
    return "mel: by SciPy"


def _ways(bundle: Bundle, files: int, embedding: str | None) -> list[Way]:
    few = max(1, files // SLOW)
    kinds = [kind for kind in OURS if KINDS[kind] in bundle.networks]
    ways = [
        Way(f"antpitta, {kind}", partial(_predict, bundle.path, ("--precision", kind)), files)
        for kind in kinds
    ]
    exact = partial(_predict, bundle.path, ("--inference", "sliding"))
    ways.append(Way("antpitta, exact (windows)", exact, few))
    script = "plain script (soundfile, torch eager, window by window)"
    ways.append(Way(script, partial(_plain, "windows", str(bundle.path)), few))
    if embedding:
        name = f"{Path(embedding).stem} (3 s stretches, LiteRT)"
        ways.append(Way(name, partial(_plain, "embedding", embedding), few))
    return ways


def _predict(model: Path, how: tuple[str, ...], folder: Path, out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "antpitta",
        "predict",
        str(model),
        str(folder),
        "-o",
        str(out),
        *how,
    ]


def _plain(way: str, what: str, folder: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.plain", way, what, str(folder)]


def _run(way: Way, folder: Path, out: Path) -> tuple[float, float]:
    """Seconds, and megabytes at most, of a command."""
    began = time.perf_counter()
    told = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, *way.command(folder, out)],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if told.returncode:
        last = (f"{told.stdout}{told.stderr}".strip().splitlines() or ["no word"])[-1]
        raise UserError(
            "E_TODO", f"{way.name}: ended with {told.returncode} ({last})", "mend that first"
        )
    return seconds, float(told.stdout.split()[-1]) / 1000


def _lay_out(audio: Sequence[Path], count: int, folder: Path) -> float:
    """``count`` names of the files in ``audio``, in a folder; the seconds of sound in all."""
    folder.mkdir()
    seconds, total = dict[Path, float](), 0.0
    for i, listed in enumerate(islice(_round(list_files(audio)[0]), count)):
        path = Path(str(listed.path)).resolve()
        (folder / f"{i:06}{path.suffix}").symlink_to(path)
        if path not in seconds:
            seconds[path] = open_file(listed).duration
        total += seconds[path]
    return total


def _round(files: Sequence[ListedFile]) -> Iterator[ListedFile]:
    while True:
        yield from files


def _summary(
    ways: Sequence[Way], found: Sequence[tuple[str, float, float]], lengths: dict[int, float]
) -> pd.DataFrame:
    rows = []
    for way in ways:
        seconds = np.array([one[1] for one in found if one[0] == way.name])
        memory = max(one[2] for one in found if one[0] == way.name)
        speed = lengths[way.files] / seconds
        own = (float(np.median(seconds)), float(np.median(speed)))
        rows.append((way.name, way.files, *own, float(speed.min()), float(speed.max()), memory))
    names = ["way", "files", "seconds", "speed", "low", "high", "megabytes"]
    return pd.DataFrame(rows, columns=names)


def untrained_model(recipe: Recipe, audio: Sequence[Path], home: Path) -> Path:
    """A bundle of one untrained network, whose int8 ranges are of the sound in ``audio``."""
    torch.manual_seed(0)
    pen = build_feature_extractor(recipe)
    net = SedNet(recipe.backbone, recipe.head, SPECIES, bands=pen.width).eval()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
    weights = home / "fold0.safetensors"
    save_tensors(net.state_dict(), weights)
    recordings = [open_file(one) for one in list_files(audio)[0][:STEPS]]
    images = [pen.image(one, *pen.drawing.segments(one.duration)[0], read) for one in recordings]
    whole = recipe.feature_config.n_frames(recipe.feature_config.segment)
    plain = to_openvino([net], pen.width, whole)
    bundle = Bundle(
        path=home / "model",
        name="untrained",
        species=tuple(f"s{i}" for i in range(SPECIES)),
        recipe=recipe.model_dump(mode="json"),
        weights=(weights.name,),
    )
    rough = to_openvino([net], pen.width, whole, edges=False)
    networks = {"float": plain, "int8": to_int8(rough, images)}
    return write_bundle(bundle, [weights], "# Untrained\n", networks).path
