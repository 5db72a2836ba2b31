"""``python -m benchmarks.predict``: the speed of every way to predict, next to a plain script.

- A way is a command. Its seconds run from its start to its end, its memory is the highest that its
  process held. Ways take turns, so that slow minutes of a machine meet all of them.
- Slow ways predict fewer files: a ratio does not need hundreds. Start-up is part of every figure.
- Files are the given ones under as many names as are asked for, by links.
- Without a model, an untrained ResNet18 of the ``rfcx`` recipe is used: arithmetic takes equally
  long whatever the weights.
- Steps are timed one by one over the same files in one thread, and their medians count. Many
  threads cannot be faster than the sum of the steps divided by the number of cores.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import soxr
import typer

from antpitta.api.data import SILENT
from antpitta.api.speed import MINUTE, PRECISIONS, untrained_model
from antpitta.cli.display import training_progress
from antpitta.core.config import Precision, Recipe, parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.files.audio import read
from antpitta.files.bundle import Bundle, read_bundle
from antpitta.files.recipes import read_recipe
from antpitta.files.recordings import list_files, open_file
from antpitta.files.tables import write_csv
from antpitta.model.features import build_feature_extractor
from antpitta.model.inference import InferenceConfig
from antpitta.predict.pipeline import cpu_count
from antpitta.predict.predictor import EXPORTED_KIND, open_backend
from benchmarks.cli import command_app, print_lines, print_table, run
from benchmarks.tables import describe_machine
from benchmarks.train import without_weights

TIMED_FILES = 30  # files that steps are timed on
SLOWDOWN = 20  # slow ways predict this many times fewer files
PREPARING = ("open", "decode", "resample", "mel")  # the steps before the network
# A small process in between reports the memory: a child counts what its parent held.
_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True)
class Way:
    """One command to run over a folder of sound files."""

    name: str
    command: Callable[[Path, Path], list[str]]  # of the folder, and the folder to write to
    files: int


@dataclass(frozen=True)
class PredictBenchmark:
    """The time of every way and of every step."""

    table: pd.DataFrame  # way, files, seconds, speed (x real time), low, high, megabytes
    steps: pd.DataFrame  # step, ms
    lines: tuple[str, ...]  # what limits the speed, and the machine


def benchmark_predict(
    audio: Sequence[Path | str],
    model: Path | str | None = None,
    *,
    files: int = 500,
    rounds: int = 3,
    recipe: str = "rfcx",
    embedding: str | None = None,
    out: Path | str | None = None,
    progress: Progress = SILENT,
) -> PredictBenchmark:
    """Predict the same files in every way, in turns, and time it.

    Parameters
    ----------
    audio : files and folders of sound
    model : a bundle; None for an untrained network of ``recipe``
    files : how many names the files get
    rounds : how often each way is run
    recipe : the name or path of a recipe
    embedding : an embedding model to run too, ``birdnet`` or the path of a file
    out : a folder for ``predict.csv`` and ``predict_steps.csv``
    progress : gets the number of commands run

    Returns
    -------
    PredictBenchmark
        The tables, and lines about what limits the speed.

    Raises
    ------
    UserError
        E_BENCHMARK_EMPTY, E_BENCHMARK_COMMAND where a command fails, and the codes of sound and
        models that cannot be opened.
    """
    if files < 1 or rounds < 1:
        raise UserError(
            "E_BENCHMARK_EMPTY",
            f"--files {files} --rounds {rounds} times nothing",
            "give 1 or more of each",
        )
    paths = [Path(path) for path in audio]
    with TemporaryDirectory() as home:
        if model is None:
            chosen = read_recipe(recipe, without_weights(("folds=2",)))
            bundle = untrained_model(chosen, paths, Path(home)).path
        else:
            bundle = Path(model)
        result = time_ways(bundle, paths, files, rounds, embedding, progress)
    if out is not None:
        write_csv(result.table, Path(out) / "predict.csv")
        write_csv(result.steps, Path(out) / "predict_steps.csv")
    return result


def time_ways(
    model: Path,
    audio: Sequence[Path],
    files: int,
    rounds: int,
    embedding: str | None,
    progress: Progress,
) -> PredictBenchmark:
    """Time every way to predict.

    Parameters
    ----------
    model : a bundle
    audio : files and folders of sound
    files : how many names the files get
    rounds : how often each way is run
    embedding : an embedding model to run too
    progress : gets the number of commands run

    Returns
    -------
    PredictBenchmark
        The tables, and lines about what limits the speed.

    Raises
    ------
    UserError
        E_BENCHMARK_COMMAND where a command fails.
    """
    bundle = read_bundle(model)
    ways = _ways(bundle, files, embedding)
    timings: list[tuple[str, float, float]] = []  # way, seconds, megabytes
    with TemporaryDirectory() as place:
        home = Path(place)
        counts = {1, *(way.files for way in ways)}
        seconds_of_sound = {count: _link_files(audio, count, home / str(count)) for count in counts}
        for turn in range(rounds):
            for i, way in enumerate(ways):
                done = turn * len(ways) + i
                progress.update("predicting", done, rounds * len(ways), float("nan"))
                out = home / f"out{turn}-{i}"
                timings.append((way.name, *_run_process(way, home / str(way.files), out)))
        first = ways[0]
        start_up = min(
            _run_process(first, home / "1", home / f"single{i}")[0] for i in range(rounds)
        )
    progress.update("predicting", rounds * len(ways), rounds * len(ways), float("nan"))
    steps = time_steps(bundle, audio, PRECISIONS, TIMED_FILES)
    measured = [kind for kind in PRECISIONS if kind in set(steps["step"])]
    limits = [describe_limit(steps, kind, cpu_count()) for kind in measured]
    lines = (*limits, f"one file takes {start_up:.1f} s from start to end", describe_machine())
    return PredictBenchmark(_summarise(ways, timings, seconds_of_sound), steps, lines)


def _ways(bundle: Bundle, files: int, embedding: str | None) -> list[Way]:
    few = max(1, files // SLOWDOWN)
    kinds = [kind for kind in PRECISIONS if EXPORTED_KIND[kind] in bundle.networks]
    ways = [
        Way(f"antpitta, {kind}", partial(_predict, bundle.path, ("--precision", kind)), files)
        for kind in kinds
    ]
    sliding = partial(_predict, bundle.path, ("--inference", "sliding"))
    ways.append(Way("antpitta, sliding windows, PyTorch float32", sliding, few))
    script = "plain script (soundfile, torch eager, window by window)"
    ways.append(Way(script, partial(_plain_script, "windows", str(bundle.path)), few))
    if embedding:
        name = f"{Path(embedding).stem} (3 s inputs)"
        ways.append(Way(name, partial(_plain_script, "embedding", embedding), few))
    return ways


def _predict(model: Path, options: tuple[str, ...], folder: Path, out: Path) -> list[str]:
    command = [sys.executable, "-m", "antpitta", "predict", str(model), str(folder)]
    return [*command, "-o", str(out), *options]


def _plain_script(kind: str, model: str, folder: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.plain_script", kind, model, str(folder)]


def _run_process(way: Way, folder: Path, out: Path) -> tuple[float, float]:
    """The seconds of a command, and the most megabytes it held."""
    began = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, *way.command(folder, out)],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if process.returncode:
        output = f"{process.stdout}{process.stderr}".strip().splitlines() or ["no output"]
        raise UserError(
            "E_BENCHMARK_COMMAND",
            f"{way.name} ended with exit code {process.returncode} ({output[-1]})",
            "correct that first",
        )
    return seconds, float(process.stdout.split()[-1]) / 1000


def _link_files(audio: Sequence[Path], count: int, folder: Path) -> float:
    """Link ``count`` names to the files in ``audio``; returns the seconds of sound in all."""
    folder.mkdir()
    durations, total = dict[Path, float](), 0.0
    for i, listed in enumerate(islice(cycle(list_files(audio)[0]), count)):
        path = Path(str(listed.path)).resolve()
        (folder / f"{i:06}{path.suffix}").symlink_to(path)
        if path not in durations:
            durations[path] = open_file(listed).duration
        total += durations[path]
    return total


def _summarise(
    ways: Sequence[Way],
    timings: Sequence[tuple[str, float, float]],
    seconds_of_sound: dict[int, float],
) -> pd.DataFrame:
    rows = []
    for way in ways:
        seconds = np.array([timing[1] for timing in timings if timing[0] == way.name])
        megabytes = max(timing[2] for timing in timings if timing[0] == way.name)
        speed = seconds_of_sound[way.files] / seconds
        medians = (float(np.median(seconds)), float(np.median(speed)))
        spread = (float(speed.min()), float(speed.max()))
        rows.append((way.name, way.files, *medians, *spread, megabytes))
    names = ["way", "files", "seconds", "speed", "low", "high", "megabytes"]
    return pd.DataFrame(rows, columns=names)


def time_steps(
    model: Bundle, audio: Sequence[Path], precisions: Sequence[Precision], count: int
) -> pd.DataFrame:
    """Time each step of prediction in one thread.

    Parameters
    ----------
    model : a bundle
    audio : files and folders of sound
    precisions : the networks to time; those that the model or machine lacks are left out
    count : the number of files to time

    Returns
    -------
    DataFrame
        ``step`` and ``ms``, milliseconds of one core per minute of sound.
    """
    recipe = parse_recipe(model.recipe, str(model.path))
    extractor = build_feature_extractor(recipe)
    config = extractor.config
    backends = {kind: _backend(model, recipe, kind, extractor.width) for kind in precisions}
    milliseconds: dict[str, list[float]] = {step: [] for step in PREPARING}
    for listed in list_files(audio)[0][:count]:
        timed = _StepTimer(milliseconds)
        recording = timed("open", open_file, listed)
        stop = min(recording.duration, config.segment)
        timed.minutes = stop / MINUTE
        rate = config.read_rate(recording.sample_rate)
        wave = timed("decode", read, recording, 0, stop, recording.sample_rate)
        if rate == recording.sample_rate:
            milliseconds["resample"].append(0.0)
        else:
            timed("resample", soxr.resample, wave, recording.sample_rate, rate)
            wave = read(recording, 0, stop, rate)
        features = timed("mel", extractor.compute, wave, config.n_frames(stop), rate)
        for kind, backend in backends.items():
            if backend is not None:
                timed(kind, backend.predict, features)
        timed.finish()
    medians = {name: float(np.median(values)) for name, values in milliseconds.items()}
    return pd.DataFrame({"step": list(medians), "ms": list(medians.values())})


class _StepTimer:
    """Collects milliseconds per minute of sound of the steps of one file."""

    def __init__(self, milliseconds: dict[str, list[float]]) -> None:
        self.milliseconds = milliseconds
        self.seconds: dict[str, float] = {}
        self.minutes = 1.0

    def __call__(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        began = time.perf_counter()
        result = function(*args)
        self.seconds[name] = time.perf_counter() - began
        return result

    def finish(self) -> None:
        for name, seconds in self.seconds.items():
            self.milliseconds.setdefault(name, []).append(1000 * seconds / self.minutes)


def _backend(model: Bundle, recipe: Recipe, kind: Precision, width: int) -> Any:
    if EXPORTED_KIND[kind] not in model.networks:
        return None
    try:
        return open_backend(model, recipe, InferenceConfig(precision=kind), width)
    except UserError:
        return None


def describe_limit(steps: pd.DataFrame, precision: str, cores: int) -> str:
    """Describe what limits the speed in one precision.

    Parameters
    ----------
    steps : from :func:`time_steps`
    precision : the network
    cores : the number of cores

    Returns
    -------
    str
        The share of each step, the longest one, and the highest possible speed.
    """
    seconds = steps.set_index("step")["ms"] / 1000
    seconds = seconds[[*PREPARING, precision]].rename({precision: "network"})
    total = float(seconds.sum())
    shares = ", ".join(f"{step} {value / total:.0%}" for step, value in seconds.items())
    return (
        f"{precision}: {shares}; limited by {seconds.idxmax()}, {cores} cores cannot exceed "
        f"{cores * MINUTE / total:.0f} x real time"
    )


def predict(
    audio: Annotated[list[Path], typer.Argument(help="Files and folders of sound.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="A model; default: an untrained ResNet18.")
    ] = None,
    files: Annotated[int, typer.Option("--files", help="How many names the files get.")] = 500,
    rounds: Annotated[int, typer.Option("--rounds", help="How often each way is run.")] = 3,
    recipe: Annotated[
        str, typer.Option("--recipe", help="Of the untrained model: a name, or a TOML file.")
    ] = "rfcx",
    embedding: Annotated[
        str | None,
        typer.Option("--embedding", help="An embedding model to run too: birdnet, or a file."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A folder for tables.")] = None,
) -> None:
    """Predict the same files in every way, each a whole process; print speeds and what limits them.

    Example: `python -m benchmarks.predict recordings --files 500`
    """
    with training_progress() as progress:
        result = benchmark_predict(
            audio,
            model,
            files=files,
            rounds=rounds,
            recipe=recipe,
            embedding=embedding,
            out=out,
            progress=progress,
        )
    print_table(format_table(result.table), "whole processes")
    print_lines(result.lines)


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """Turn the table of ways into text.

    Parameters
    ----------
    table : way, files, seconds, speed, low, high, megabytes

    Returns
    -------
    DataFrame
        Cells of text under short titles.
    """
    return pd.DataFrame(
        {
            "way": row["way"],
            "files": str(row["files"]),
            "s": f"{row['seconds']:.1f}",
            "x real time": f"{row['speed']:.0f} ({row['low']:.0f}-{row['high']:.0f})",
            "MB": f"{row['megabytes']:.0f}",
        }
        for row in table.to_dict("records")
    )


app = command_app(predict)

if __name__ == "__main__":
    run(app)
