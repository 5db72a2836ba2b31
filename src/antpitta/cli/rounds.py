"""The command round."""

from pathlib import Path
from typing import Annotated

import typer

from antpitta import api
from antpitta.cli.display import console, format_interval, new_table, resumable, training_progress
from antpitta.cli.training import (
    CompileOption,
    CudnnBenchmarkOption,
    DeviceOption,
    DevicesOption,
    ParallelFoldsOption,
    PrecisionOption,
)


def round(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The run before, of train or of round.")
    ],
    queue: Annotated[
        str,
        typer.Argument(metavar="QUEUE", help="The folder of a queue, or the URL of its database."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="RUN2", help="The folder of the new run.")
    ],
    audio: Annotated[
        list[Path] | None,
        typer.Option(
            "--audio",
            metavar="FOLDER",
            help="A folder of the queue's recordings; may be repeated. By default they are where "
            "they were when the queue was made.",
        ),
    ] = None,
    release: Annotated[
        list[int] | None,
        typer.Option(
            "--release",
            metavar="DRAW",
            help="The number of an audit whose verdicts train models from now on; may be repeated. "
            "It gives no thresholds for the new models then.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue a round that was interrupted, with the same verdicts."
        ),
    ] = False,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    precision: PrecisionOption = "auto",
    compile: CompileOption = False,
    cudnn_benchmark: CudnnBenchmarkOption = False,
    parallel_folds: ParallelFoldsOption = 1,
) -> None:
    """Train the next model with the verdicts of a queue, and compare it with those before.

    It has the recipe and the data of RUN, and the verdicts that the reviewers agree on. They judge
    the models of all rounds: each score is that of a network that was not trained on the
    recording. report.html draws the learning curve of each species, learning_curve.csv has its
    numbers.

    Example: `antpitta round runs/first queue -o runs/second`
    """
    with resumable(), training_progress() as progress:
        result = api.round(
            run,
            queue,
            out,
            audio=audio or (),
            release=release or (),
            resume=resume,
            device=device,
            devices=devices,
            precision=precision,
            compile=compile,
            cudnn_benchmark=cudnn_benchmark,
            parallel_folds=parallel_folds,
            progress=progress,
        )
    _show_curve(result)
    for line in (*result.sentences, *result.run_report.warnings):
        console.print(line)
    console.print(f"report  {result.path / 'report.html'}")
    console.print(f"model   {result.model}")
    for finding in result.findings:
        console.print(f"left out: {finding}")
    if result.findings:
        raise typer.Exit(1)


def _show_curve(result: "api.RoundResult") -> None:
    names = ("round", "run", "judged on", "boxes in training", "verdicts", "macro AP")
    table = new_table(f"round {result.number}", names, text_columns=3)
    rows = result.curve[result.curve["species"] == "*"]
    for row in rows.to_dict("records"):
        trained, judged = (
            f"{row[first]} / {row[second]}"
            for first, second in (("trained_present", "trained_absent"), ("present", "absent"))
        )
        interval = api.Interval(row["ap"], row["ap_low"], row["ap_high"])
        table.add_row(str(row["round"]), row["run"], row["verdicts"], trained, judged,
                      format_interval(interval))  # fmt: skip
    console.print(table)
