"""``python -m benchmarks.learn``: what each part of a recipe is worth.

Every variant of a table is trained for every seed on one data set and evaluated on one test set.
Test figures are only reported: nothing is chosen by them, and rows keep the order of the table of
variants, with ensembles of all seeds last.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from antpitta.api.data import SILENT
from antpitta.cli.data import takes_data
from antpitta.cli.display import console, resumable, training_progress
from antpitta.cli.training import DeviceOption, PrecisionOption
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.files.dataset import OpenedDataset
from benchmarks.baseline import evaluate_baseline, evaluate_zero_shot, open_embedding_windows
from benchmarks.cli import command_app, print_lines, print_table, run
from benchmarks.runs import ALL_SEEDS, BenchmarkRuns, Comparison, Row
from benchmarks.tables import LABELS_TITLE, LearnResult, describe_machine, write_result
from benchmarks.test_set import read_test_set, read_truth
from benchmarks.variants import NO_STAGE, Variant, choose_variants, read_variants


def benchmark_learn(
    data: OpenedDataset,
    test: Sequence[Path | str],
    truth: Path | str,
    *,
    events: Path | str | None = None,
    train_truth: Path | str | None = None,
    recipe: str = "quick",
    seeds: int = 3,
    variants: Sequence[str] = (),
    baselines: Sequence[str] = (),
    out: Path | str = "bench",
    device: str = "auto",
    precision: str = "auto",
    progress: Progress = SILENT,
) -> LearnResult:
    """Train every variant of a table for every seed, evaluate all, and write the tables.

    Parameters
    ----------
    data : the training data
    test : files and folders of test recordings
    truth : their complete ground truth, ``recording_id`` and then 1, 0 or blank per species
    events : a table of every call in them, for event F1
    train_truth : the ground truth of the training recordings; it only evaluates pseudo-labels
    recipe : the name or path of a table of variants
    seeds : train with seeds 1 to this
    variants : the names of the variants to train; all where there are none
    baselines : embedding models, ``birdnet`` or paths of files
    out : the folder of runs and tables; what is finished there is not trained again
    device : as in ``antpitta train``
    precision : as in ``antpitta train``
    progress : gets messages and counts

    Returns
    -------
    LearnResult
        The figures of every variant, stage and seed.

    Raises
    ------
    UserError
        Before any training: E_BENCHMARK_EMPTY, E_BASELINE_NAME, and the codes of data, variants
        and test set that do not fit.
    """
    if seeds < 1:
        raise UserError("E_BENCHMARK_EMPTY", f"--seeds {seeds} trains nothing", "give 1 or more")
    dataset = data.dataset
    chosen = choose_variants(read_variants(recipe), variants)
    calls = None if events is None else Path(events)
    test_set = read_test_set([Path(path) for path in test], Path(truth), calls, dataset)
    embeddings = {Path(name).stem: open_embedding_windows(name, dataset) for name in baselines}
    if taken := set(embeddings) & {variant.name for variant in chosen}:
        raise UserError(
            "E_BASELINE_NAME",
            f"--baseline {min(taken)} has the name of a variant",
            "rename the file",
        )
    labels_truth = read_truth(Path(train_truth), dataset.classes) if train_truth else None
    comparison = Comparison(
        *(chosen, seeds, data, test_set, labels_truth, embeddings, device, precision)
    )
    result = compare(comparison, Path(out), progress)
    write_result(result, Path(out))
    return result


def compare(comparison: Comparison, out: Path, progress: Progress) -> LearnResult:
    """Train, predict and evaluate whatever is not done yet, and gather all figures.

    Parameters
    ----------
    comparison : what is compared
    out : the folder of runs
    progress : gets messages and counts

    Returns
    -------
    LearnResult
        The figures of every variant, stage and seed.
    """
    began = time.perf_counter()
    runs = BenchmarkRuns(comparison, out, progress)
    rows: list[Row] = []
    labels: list[Row] = []
    for seed, variant in _in_order(comparison):
        which = "all seeds" if seed == ALL_SEEDS else f"seed {seed} of {comparison.seeds}"
        progress.message(f"{which}, {variant.name}: {variant.description}")
        if variant.members:
            rows.append(runs.blend(variant, seed, rows))
        elif variant.rescaled:
            rows.append(runs.rescale(variant, seed, rows))
        else:
            trained = runs.train(variant, seed)
            progress.message(f"{variant.name}: {'trained' if trained else 'was trained before'}")
            rows += runs.evaluate(variant, seed)
            labels += runs.pseudo_labels(variant, seed)
    baseline_rows = _evaluate_baselines(comparison, progress)
    machine = f"{describe_machine()}; {time.perf_counter() - began:.0f} s in all"
    if runs.kept:
        machine += f", {runs.kept} of {runs.kept + runs.trained} runs were trained before"
    return LearnResult(
        pd.DataFrame([*rows, *baseline_rows]),
        pd.DataFrame(labels),
        {variant.name: variant.description for variant in comparison.variants},
        tuple(dict.fromkeys(row["variant"] for row in baseline_rows)),
        machine,
        comparison.test_set.notes,
    )


def _in_order(comparison: Comparison) -> Iterator[tuple[int, Variant]]:
    """All variants of one seed, then of the next, then those of all seeds."""
    late = {variant.name for variant in comparison.variants if variant.seeds == "all"}
    late |= {variant.name for variant in comparison.variants if variant.rescaled in late}
    for seed in range(1, comparison.seeds + 1):
        yield from ((seed, variant) for variant in comparison.variants if variant.name not in late)
    yield from ((ALL_SEEDS, variant) for variant in comparison.variants if variant.name in late)


def _evaluate_baselines(comparison: Comparison, progress: Progress) -> list[Row]:
    rows: list[Row] = []
    given = (comparison.data.dataset, comparison.test_set)
    for name, windows in comparison.baselines.items():
        progress.message(f"baseline {name}")
        figures = evaluate_baseline(*given, windows, comparison.seeds, progress)
        rows += [{"variant": name, "stage": NO_STAGE, **row} for row in figures]
        if windows.class_map is not None:
            figures = evaluate_zero_shot(*given, windows, comparison.seeds, progress)
            rows += [{"variant": f"{name}-zero-shot", "stage": NO_STAGE, **row} for row in figures]
    return rows


@takes_data
def learn(
    *,
    data: OpenedDataset,
    test: Annotated[
        list[Path], typer.Option("--test", help="A folder of test recordings; may be repeated.")
    ],
    truth: Annotated[
        Path,
        typer.Option("--truth", help="Their ground truth: recording_id, then 1, 0 or blank."),
    ],
    events: Annotated[
        Path | None, typer.Option("--events", help="A table of every call in them: adds event F1.")
    ] = None,
    train_truth: Annotated[
        Path | None,
        typer.Option(
            "--train-truth",
            help="Ground truth of the training recordings: evaluates pseudo-labels.",
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", help="A table of variants: quick, methods or a TOML file.")
    ] = "quick",
    seeds: Annotated[int, typer.Option("--seeds", help="Train with seeds 1 to this.")] = 3,
    variants: Annotated[
        list[str] | None,
        typer.Option("--variants", help="Only these: NAME,NAME; may be repeated."),
    ] = None,
    baselines: Annotated[
        list[str] | None,
        typer.Option("--baseline", help="An embedding model to compare with: birdnet, or a file."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of runs and tables.")] = Path(
        "bench"
    ),
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Train every variant for every seed; print out-of-fold and test figures in one table.

    The same command continues a stopped benchmark.

    Example: `python -m benchmarks.learn data --test data/test --truth data/test_truth.csv`
    """
    with resumable("the same command"), training_progress() as progress:
        result = benchmark_learn(
            data,
            test,
            truth,
            events=events,
            train_truth=train_truth,
            recipe=recipe,
            seeds=seeds,
            variants=[name for names in variants or () for name in names.split(",")],
            baselines=tuple(baselines or ()),
            out=out,
            device=device,
            precision=precision,
            progress=progress,
        )
    print_result(result)
    console.print(f"tables  {out / 'learn.md'}")


def print_result(result: LearnResult) -> None:
    """Print tables on a terminal, and the Markdown page elsewhere.

    Parameters
    ----------
    result : all figures
    """
    if not console.is_terminal:
        for line in result.markdown.splitlines():
            console.print(line)
        return
    print_table(result.table, "median over seeds (lowest-highest)")
    print_lines(result.correlation_lines)
    if not result.labels.empty:
        print_table(result.label_table, LABELS_TITLE)
    print_lines((*result.notes, result.machine))


app = command_app(learn)

if __name__ == "__main__":
    run(app)
