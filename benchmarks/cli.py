"""The commands that measure: bench learn, bench train, bench predict."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from antpitta import api
from antpitta.cli.data import Absent, Audio, Data, Names, Present, Sites, Tables, opened
from antpitta.cli.display import console, resumable, training_progress
from antpitta.cli.training import Compile, Device, Lanes, Precision, Tune

if TYPE_CHECKING:
    import pandas as pd


bench = typer.Typer(name="bench", no_args_is_help=True)


@bench.callback()
def group() -> None:
    """Measure: what each part of a recipe is worth, and how fast it is.

    Example: `antpitta bench learn data --test data/test --truth data/test_truth.csv`
    """


@bench.command()
def learn(
    test: Annotated[list[Path], typer.Option("--test", help="A folder of test recordings.")],
    truth: Annotated[
        Path, typer.Option("--truth", help="Their truth: recording_id, then 1, 0 or nothing.")
    ],
    data: Data = None,
    events: Annotated[
        Path | None, typer.Option("--events", help="Every call in them: adds event F1.")
    ] = None,
    train_truth: Annotated[
        Path | None,
        typer.Option("--train-truth", help="Of the training recordings: judges pseudo labels."),
    ] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", help="A shipped table of variants, or a TOML file of them.")
    ] = "quick",
    seeds: Annotated[int, typer.Option("--seeds", help="Training seeds: 1 to this.")] = 3,
    variants: Annotated[
        list[str] | None, typer.Option("--variants", help="Only these: NAME,NAME; may be repeated.")
    ] = None,
    yardsticks: Annotated[
        list[str] | None,
        typer.Option("--yardstick", help="An embedding beside: birdnet, or a model file."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="For runs and tables.")] = Path("bench"),
    audio: Audio = None,
    present: Present = None,
    absent: Absent = None,
    annotations: Tables = None,
    sites: Sites = None,
    names: Names = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Train every variant for every seed, and print one table: out of fold and on test sound.

    The same command goes on where it was stopped.
    Example: `antpitta bench learn data --test data/test --truth data/test_truth.csv`
    """
    given = opened(data, audio, present, absent, annotations, sites, names)
    with resumable("the same command"), training_progress() as progress:
        found = api.bench_learn(
            given,
            test,
            truth,
            events=events,
            train_truth=train_truth,
            recipe=recipe,
            seeds=seeds,
            variants=[name for one in variants or () for name in one.split(",")],
            yardsticks=tuple(yardsticks or ()),
            out=out,
            device=device,
            precision=precision,
            progress=progress,
        )
    _show(found)
    console.print(f"tables  {out / 'learn.md'}", markup=False)


@bench.command()
def train(
    present: Annotated[list[Path], typer.Option("--present", help="A table of present boxes.")],
    absent: Annotated[list[Path], typer.Option("--absent", help="A table of absent boxes.")],
    recordings: Annotated[
        int, typer.Option("--recordings", help="How many; those of the tables come first.")
    ] = 4727,
    recipe: Annotated[
        str, typer.Option("--recipe", help="A shipped recipe's name, or a TOML file.")
    ] = "rfcx",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as folds=2.")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    compile: Compile = False,
    cudnn_benchmark: Tune = False,
    parallel_folds: Lanes = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep the run there; else nothing stays.")
    ] = None,
) -> None:
    """Train a whole recipe on pictures of noise with real tables of boxes, and say what limits it.

    Example: `antpitta bench train --present train_tp.csv --absent train_fp.csv --compile`
    """
    with training_progress() as progress:
        found = api.bench_train(
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
    _tell([_speed(row) for row in found.table.to_dict("records")], "stages", found.lines)


@bench.command()
def predict(
    audio: Annotated[list[Path], typer.Argument(help="Folders or files of sound.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="A model; else an untrained ResNet18.")
    ] = None,
    files: Annotated[int, typer.Option("--files", help="How many names the files get.")] = 500,
    rounds: Annotated[int, typer.Option("--rounds", help="How often each way is run.")] = 3,
    recipe: Annotated[
        str, typer.Option("--recipe", help="Of the untrained model: a name, or a TOML file.")
    ] = "rfcx",
    embedding: Annotated[
        str | None, typer.Option("--embedding", help="To stand beside: birdnet, or a model file.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="For the tables.")] = None,
) -> None:
    """Predict in every way there is, each a whole process, in turns; and say what limits it.

    Example: `antpitta bench predict recordings --files 500`
    """
    with training_progress() as progress:
        found = api.bench_predict(
            audio,
            model,
            files=files,
            rounds=rounds,
            recipe=recipe,
            embedding=embedding,
            out=out,
            progress=progress,
        )
    _tell([_way(row) for row in found.table.to_dict("records")], "whole processes", found.lines)


def _way(row: dict[Any, Any]) -> dict[str, str]:
    return {
        "way": row["way"],
        "files": str(row["files"]),
        "s": f"{row['seconds']:.1f}",
        "x real time": f"{row['speed']:.0f} ({row['low']:.0f}-{row['high']:.0f})",
        "MB": f"{row['megabytes']:.0f}",
    }


def _speed(row: dict[Any, Any]) -> dict[str, str]:
    return {
        "stage": row["stage"] + ("" if row["cycle"] == 1 else f"-c{row['cycle']}"),
        "s": f"{row['seconds']:.1f}",
        "in steps": f"{row['training']:.1f}",
        "scoring": f"{row['scoring']:.1f}",
        "steps": str(row["steps"]),
        "steps/s": f"{row['steps_per_second']:.1f}",
        "windows/s": f"{row['windows_per_second']:.0f}",
        "TFLOP/s": f"{row['tflops']:.3g}",
        "of peak": f"{row['peak_share']:.1%}",
        "outside": f"{row['outside']:.1%}",
    }


def _show(found: "api.Bench") -> None:
    """A table where somebody is looking, the Markdown page where nobody is."""
    if not console.is_terminal:
        console.print(found.markdown, markup=False)
        return
    _draw(*_cells(found.table), "median over seeds (lowest-highest)")
    for line in found.agreements:
        console.print(line, markup=False)
    if len(found.labels):
        _draw(*_cells(found.taught_table), "pseudo labels against the training recordings' truth")
    for line in (*found.notes, found.facts):
        console.print(line, markup=False)


def _tell(rows: list[dict[str, str]], title: str, lines: Iterable[str]) -> None:
    _draw(list(rows[0]), (row.values() for row in rows), title)
    for line in lines:
        console.print(line, markup=False)


def _cells(table: "pd.DataFrame") -> tuple[Iterable[str], Iterable[Iterable[str]]]:
    return table.columns, table.itertuples(index=False, name=None)


def _draw(columns: Iterable[str], rows: Iterable[Iterable[str]], title: str) -> None:
    drawn = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE)
    for name in columns:
        drawn.add_column(name, no_wrap=name in ("variant", "stage"))
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.add_typer(bench)
