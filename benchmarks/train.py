"""``python -m benchmarks.train``: the speed of training at the size of the RFCX competition.

- The run is an ordinary one and writes everything that a run writes. Only its spectrograms are
  noise, and pretrained weights are not fetched: neither changes the speed.
- Seconds and rates are the run's own. Shares of a step are measured afterwards, on a few steps.
- FLOP are those of the network, forward and backward, counted by PyTorch.
- Shares of the peak refer to a large matrix product measured in the same minute, because GPUs do
  not keep the clocks of their data sheets. For known GPUs, the data sheet's peak is given too.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer

from antpitta.api.data import SILENT
from antpitta.cli.display import training_progress
from antpitta.cli.training import (
    CompileOption,
    CudnnBenchmarkOption,
    DeviceOption,
    ParallelFoldsOption,
    PrecisionOption,
)
from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.files.recipes import read_recipe
from antpitta.files.runs import RunFolder
from antpitta.files.tables import write_csv
from antpitta.model.network import SedNet
from antpitta.sound.windows import window_starts
from antpitta.train.compute import (
    ComputeConfig,
    ParallelFolds,
    build_fabric,
    compiled_models,
    configure_cuda,
)
from antpitta.train.out_of_fold import assign_folds
from antpitta.train.stages import Run, RunCompute, RunMonitor, RunPlan, build_net, run_stages
from benchmarks.cli import command_app, print_lines, print_table, run
from benchmarks.profiling import (
    Sections,
    data_sheet_peak,
    measured_peak,
    peak_memory,
    profile_stage,
    window_flops,
)
from benchmarks.synthetic import (
    CellCounts,
    count_cells,
    synthetic_dataset,
    synthetic_training_data,
)
from benchmarks.tables import describe_machine

OUTSIDE = ("batches", "windows and mixup", "loss", "optimizer")  # sections outside the network
PARTS = ("pseudo_labels", "train", "score")  # of a stage, as a run times them
COLUMNS = (
    "stage",
    "cycle",
    "seconds",
    "training",
    "scoring",
    "steps",
    "steps_per_second",
    "windows",
    "windows_per_second",
    "tflops",  # TFLOP/s while training
    "peak_share",
    "outside",  # share of a step outside the network
)


@dataclass(frozen=True)
class TrainBenchmark:
    """The time of a training run, one row per stage and cycle."""

    table: pd.DataFrame  # COLUMNS
    cells: CellCounts
    seconds: float  # from the start of the first stage to the scores of the last
    lines: tuple[str, ...]  # the whole run in words


@dataclass(frozen=True)
class Measurements:
    """What is measured beside the run."""

    sections: dict[str, Sections]  # by stage
    host_share: dict[str, float]  # by stage, see profile_stage
    flops: tuple[float, float]  # per window, in training and in scoring
    peak: float  # FLOP/s
    half: bool  # bfloat16


def benchmark_train(
    present: Sequence[Path | str],
    absent: Sequence[Path | str],
    *,
    recordings: int = 4727,
    recipe: str = "rfcx",
    changes: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
    cudnn_benchmark: bool = False,
    parallel_folds: int = 1,
    out: Path | str | None = None,
    progress: Progress = SILENT,
) -> TrainBenchmark:
    """Train a recipe on spectrograms of noise with real tables of boxes, and time it.

    Parameters
    ----------
    present : tables of present boxes
    absent : tables of absent boxes
    recordings : the number of recordings, see benchmarks/synthetic.py
    recipe : the name or path of a recipe
    changes : changed settings, as after ``--set``
    device, precision, compile, cudnn_benchmark, parallel_folds : as in ``antpitta train``
    out : keeps the run, with the table as ``train.csv``; None keeps nothing
    progress : gets messages and counts

    Returns
    -------
    TrainBenchmark
        The table, and lines about the whole run.

    Raises
    ------
    UserError
        E_BENCHMARK_EMPTY, E_BENCHMARK_UNSUPPORTED, or where ``out`` holds a run already.
    """
    chosen = read_recipe(recipe, without_weights(changes))
    tables = [Path(path) for path in present], [Path(path) for path in absent]
    compute = ComputeConfig(
        device,
        precision=precision,
        compile=compile,
        cudnn_benchmark=cudnn_benchmark,
        parallel_folds=parallel_folds,
    )
    build_fabric(compute)  # refuses wrong settings before the folder is taken
    with TemporaryDirectory() if out is None else nullcontext(str(out)) as home:
        folder = RunFolder(Path(home))
        folder.begin({"recipe": chosen.model_dump(mode="json"), "data": "noise"}, resume=False)
        result = time_training(*tables, chosen, folder, compute, recordings, progress)
        write_csv(result.table, folder.path / "train.csv")
    return result


def time_training(
    present: Sequence[Path],
    absent: Sequence[Path],
    recipe: Recipe,
    folder: RunFolder,
    compute: ComputeConfig,
    count: int,
    progress: Progress,
) -> TrainBenchmark:
    """Train and measure in a run folder.

    Parameters
    ----------
    present : tables of present boxes
    absent : tables of absent boxes
    recipe : the recipe
    folder : the run folder, begun
    compute : device, precision and the like
    count : the number of recordings
    progress : gets messages and counts

    Returns
    -------
    TrainBenchmark
        The table, and lines about the whole run.

    Raises
    ------
    UserError
        E_BENCHMARK_UNSUPPORTED for several devices or a recipe on embeddings.
    """
    _check(compute, recipe)
    fabric = build_fabric(compute)
    configure_cuda(compute, fabric.device)
    dataset = synthetic_dataset(present, absent, count, recipe.features.sample_rate, recipe.seed)
    training_data = synthetic_training_data(dataset, recipe, fabric.device)
    cells = count_cells(training_data)
    size = training_data.features.pixels.nbytes / 1e9
    progress.message(
        f"{count:,} recordings, {len(training_data.windows):,} windows, "
        f"{size:.2f} GB of spectrograms on {fabric.device}; {cells}"
    )
    epochs: list[dict[str, Any]] = []
    durations: dict[tuple[str, int, str], float] = {}

    def log_seconds(stage: str, cycle: int, what: str, seconds: float) -> None:
        durations[stage, cycle, what] = seconds

    folds = assign_folds(dataset, recipe.folds, recipe.split_seed)
    parallel_folds = ParallelFolds(compute.parallel_folds, fabric.device)
    training_run = Run(
        RunPlan(recipe, training_data, folds),
        folder,
        RunCompute(fabric, parallel_folds, compiled_models(compute)),
        RunMonitor(progress, epochs.append, log_seconds),
    )
    began = time.perf_counter()
    run_stages(training_run)
    seconds = time.perf_counter() - began
    memory = peak_memory(fabric.device)
    measurements = _measure(training_run)
    table = build_table(recipe, pd.DataFrame(epochs), durations, measurements)
    lines = _describe(training_run, table, measurements, seconds, memory)
    return TrainBenchmark(table, cells, seconds, lines)


def without_weights(changes: Sequence[str]) -> tuple[str, ...]:
    """Put a setting first that fetches no pretrained weights; a later setting may ask for them.

    Parameters
    ----------
    changes : settings, as after ``--set``

    Returns
    -------
    tuple of str
        All settings.
    """
    return ("backbone.pretrained=false", *changes)


def _check(compute: ComputeConfig, recipe: Recipe) -> None:
    if compute.devices != 1:
        raise UserError(
            "E_BENCHMARK_UNSUPPORTED", "this benchmark measures one device", "give one device"
        )
    if recipe.embedding is not None:
        raise UserError(
            "E_BENCHMARK_UNSUPPORTED",
            f"the recipe {recipe.name} trains on embeddings",
            "choose one on spectrograms",
        )


def _measure(training_run: Run) -> Measurements:
    plan, compute = training_run.plan, training_run.compute
    device = compute.fabric.device
    half = "bf16" in str(compute.fabric.strategy.precision.precision)
    sections, host_share = {}, {}
    train = np.flatnonzero(plan.folds != 0)
    recipe, data = plan.recipe, plan.training_data
    n_mels, classes = recipe.features.n_mels, len(data.dataset.classes)
    plain = SedNet(recipe.backbone, recipe.head, classes, bands=n_mels, load_weights=False).to(
        device
    )
    flops = window_flops(plain, recipe.windows.frames, n_mels)
    net = build_net(training_run, load_weights=False).to(device)
    for stage in recipe.stages:
        if compute.compiled:
            net = compute.compiled[0].load(net)
        profile = profile_stage(net, stage, data, train, compute.fabric)
        sections[stage.name], host_share[stage.name] = profile
    return Measurements(sections, host_share, flops, measured_peak(device, half), half)


def build_table(
    recipe: Recipe,
    epochs: pd.DataFrame,
    durations: dict[tuple[str, int, str], float],
    measurements: Measurements,
) -> pd.DataFrame:
    """Combine what a run recorded and what was measured beside it.

    Parameters
    ----------
    recipe : the recipe
    epochs : one row per epoch and fold: stage, cycle, seconds, steps, windows
    durations : seconds by stage, cycle and step of the run
    measurements : what was measured beside the run

    Returns
    -------
    DataFrame
        COLUMNS, one row per stage and cycle.
    """
    rows = []
    for stage in recipe.stages:
        for cycle in range(1, stage.cycles + 1):
            chosen = epochs[(epochs["stage"] == stage.name) & (epochs["cycle"] == cycle)]
            training, steps, windows = (
                chosen[key].sum() for key in ("seconds", "steps", "windows")
            )
            # The epochs of parallel folds overlap: only the time in which any of them ran counts.
            training = min(training, durations[stage.name, cycle, "train"])
            rate = windows / training
            flops = rate * measurements.flops[0]
            rows.append(
                (
                    stage.name,
                    cycle,
                    sum(durations[stage.name, cycle, part] for part in PARTS),
                    training,
                    durations[stage.name, cycle, "score"],
                    steps,
                    steps / training,
                    windows,
                    rate,
                    flops / 1e12,
                    flops / measurements.peak,
                    measurements.sections[stage.name].share(*OUTSIDE),
                )
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _describe(
    training_run: Run,
    table: pd.DataFrame,
    measurements: Measurements,
    seconds: float,
    memory: float,
) -> tuple[str, ...]:
    """What the table does not show: the whole run, its shares, and what limits it."""
    train_flops, score_flops = measurements.flops
    scored = _scored_windows(training_run)
    total = table["windows"].sum() * train_flops + len(table) * scored * score_flops
    training, scoring = table["training"].sum(), table["scoring"].sum()
    dtype = "bfloat16" if measurements.half else "float32"
    lines = [
        f"{seconds:.1f} s in all: {training:.1f} in training steps, {scoring:.1f} scoring, "
        f"{seconds - training - scoring:.1f} in between (building, saving, pseudo-labels)",
        f"{train_flops / 1e9:.2f} GFLOP per window in training, "
        f"{score_flops / 1e9:.2f} in scoring; "
        f"{total / 1e15:.3f} PFLOP in all, {total / seconds / 1e12:.3f} TFLOP/s on average",
        f"peak {measurements.peak / 1e12:.3f} TFLOP/s in {dtype}, by a matrix product here; "
        f"the average is {total / seconds / measurements.peak:.1%} of it; at the peak the run "
        f"would take {total / measurements.peak:.1f} s",
    ]
    if training_run.compute.fabric.device.type == "cuda":
        name = torch.cuda.get_device_name(training_run.compute.fabric.device)
        peak = data_sheet_peak(name)
        if peak is not None and measurements.half:
            best = float(table["tflops"].max() * 1e12)
            lines.append(
                f"{name}: {peak / 1e12:.0f} TFLOP/s by its data sheet; the average is "
                f"{total / seconds / peak:.1%} of it, the best stage {best / peak:.1%}"
            )
    for name, sections in measurements.sections.items():
        shares = ", ".join(
            f"{key} {sections.share(key):.0%}" for key in (*OUTSIDE, "forward", "backward")
        )
        lines.append(f"a step of {name}: {shares}")
    lines.append(f"peak memory {memory / 1e9:.2f} GB")
    lines.append(f"limited by {find_limit(table, measurements)}")
    return (*lines, describe_machine())


def _scored_windows(training_run: Run) -> int:
    windows = training_run.plan.recipe.windows
    return sum(
        len(window_starts(int(frames), windows.frames, windows.inference_overlap))
        for frames in training_run.plan.training_data.features.lengths
    )


def find_limit(table: pd.DataFrame, measurements: Measurements) -> str:
    """Find what limits the stage that trains longest.

    Parameters
    ----------
    table : from :func:`build_table`
    measurements : what was measured beside the run

    Returns
    -------
    str
        The limit with its figure.
    """
    row: dict[Any, Any] = table.sort_values("training").iloc[-1].to_dict()
    if table["seconds"].sum() > 2 * table["training"].sum():
        return "the work between training steps: scoring, building, saving, pseudo-labels"
    host_share, peak_share = measurements.host_share[row["stage"]], float(row["peak_share"])
    if 0.9 < host_share < 1.0:
        return f"the host: it needs {host_share:.0%} of a step of {row['stage']} to launch it"
    if row["outside"] > 0.35:
        sections = measurements.sections[row["stage"]]
        longest = max(OUTSIDE, key=sections.share)
        return f"work outside the network, most of it {longest} ({sections.share(longest):.0%})"
    if peak_share > 0.5:
        return f"arithmetic: {peak_share:.0%} of the matrix peak"
    return (
        f"memory traffic and small layers of the network: {peak_share:.0%} of the matrix peak, "
        f"{1 - row['outside']:.0%} of a step inside the network"
    )


def train(
    present: Annotated[list[Path], typer.Option("--present", help="A table of present boxes.")],
    absent: Annotated[list[Path], typer.Option("--absent", help="A table of absent boxes.")],
    recordings: Annotated[
        int,
        typer.Option("--recordings", help="How many recordings; those of the tables come first."),
    ] = 4727,
    recipe: Annotated[
        str, typer.Option("--recipe", help="The name of a recipe, or a TOML file.")
    ] = "rfcx",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as folds=2.")
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    compile: CompileOption = False,
    cudnn_benchmark: CudnnBenchmarkOption = False,
    parallel_folds: ParallelFoldsOption = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep the run there; default: keep nothing.")
    ] = None,
) -> None:
    """Train a recipe on spectrograms of noise with real tables of boxes; print what limits it.

    Example: `python -m benchmarks.train --present train_tp.csv --absent train_fp.csv --compile`
    """
    with training_progress() as progress:
        result = benchmark_train(
            present,
            absent,
            recordings=recordings,
            recipe=recipe,
            changes=changes or (),
            device=device,
            precision=precision,
            compile=compile,
            cudnn_benchmark=cudnn_benchmark,
            parallel_folds=parallel_folds,
            out=out,
            progress=progress,
        )
    print_table(format_table(result.table), "stages")
    print_lines(result.lines)


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """Turn the table of stages into text.

    Parameters
    ----------
    table : COLUMNS

    Returns
    -------
    DataFrame
        Cells of text under short titles.
    """
    return pd.DataFrame(
        {
            "stage": row["stage"] + ("" if row["cycle"] == 1 else f"-c{row['cycle']}"),
            "s": f"{row['seconds']:.1f}",
            "training": f"{row['training']:.1f}",
            "scoring": f"{row['scoring']:.1f}",
            "steps": str(row["steps"]),
            "steps/s": f"{row['steps_per_second']:.1f}",
            "windows/s": f"{row['windows_per_second']:.0f}",
            "TFLOP/s": f"{row['tflops']:.3g}",
            "of peak": f"{row['peak_share']:.1%}",
            "outside": f"{row['outside']:.1%}",
        }
        for row in table.to_dict("records")
    )


app = command_app(train)

if __name__ == "__main__":
    run(app)
