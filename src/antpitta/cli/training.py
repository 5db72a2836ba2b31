"""The commands that learn: train, evaluate, ensemble."""

from pathlib import Path
from typing import Annotated

import typer

from antpitta import api
from antpitta.cli.data import MANY, Absent, Audio, Data, Names, Present, Sites, Tables, opened
from antpitta.cli.display import (
    console,
    resumable,
    show_events,
    show_reports,
    show_species,
    training_progress,
)

Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Devices = Annotated[int, typer.Option("--devices", help="How many GPUs, or CPU processes.")]
Precision = Annotated[
    str,
    typer.Option("--precision", help="32-true or bf16-mixed; auto: bf16 where a GPU has it."),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the backbone: a minute, then faster on GPUs.")
]
Tune = Annotated[
    bool,
    typer.Option(
        "--cudnn-benchmark", help="Let cuDNN time its kernels; equal seeds then differ a bit."
    ),
]
Lanes = Annotated[
    int,
    typer.Option(
        "--parallel-folds", help="Folds trained at a time, on a GPU that has room for them."
    ),
]


def train(
    data: Data = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder.")] = Path("run"),
    audio: Audio = None,
    present: Present = None,
    absent: Absent = None,
    annotations: Tables = None,
    sites: Sites = None,
    names: Names = None,
    recipe: Annotated[
        str, typer.Option("--recipe", help="A shipped recipe's name, or a TOML file.")
    ] = "quick",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, such as stages.masked.epochs=3."),
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Also train a baseline that treats unknown as absent."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    device: Device = "auto",
    devices: Devices = 1,
    precision: Precision = "auto",
    compile: Compile = False,
    cudnn_benchmark: Tune = False,
    parallel_folds: Lanes = 1,
) -> None:
    """Train a detector in stages, and report how good it is out of fold.

    Example: `antpitta train --audio train --present train_tp.csv --absent train_fp.csv -o run`
    """
    given = opened(data, audio, present, absent, annotations, sites, names)
    with resumable(), training_progress() as progress:
        trained = api.train(
            given,
            recipe,
            out,
            changes=tuple(changes or ()),
            baseline=baseline,
            resume=resume,
            device=device,
            devices=devices,
            precision=precision,
            compile=compile,
            cudnn_benchmark=cudnn_benchmark,
            parallel_folds=parallel_folds,
            progress=progress,
        )
    reports = tuple(stage.report for stage in trained.story.stages)
    show_reports(reports, "out of fold, on judged boxes (95 % over recordings)")
    console.print(f"report  {trained.path / 'report.html'}", markup=False)
    console.print(f"model   {trained.model}  ({len(given.dataset.classes)} species)", markup=False)
    serious = [finding for finding in given.findings if finding.serious]
    for finding in serious[:MANY]:
        console.print(f"left out: {finding}", markup=False)
    if serious:
        raise typer.Exit(1)


def evaluate(
    target: Annotated[
        Path, typer.Argument(help="A run, or a table of scores such as presence.csv.")
    ],
    truth: Annotated[
        Path | None,
        typer.Option("--truth", help="Whole truth: recording_id, then 1, 0 or nothing a species."),
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option("--events", help="Every call there really was: adds event F1."),
    ] = None,
    species: Annotated[bool, typer.Option("--species/--no-species")] = True,
) -> None:
    """Report LWLRAP, AP and AUC: a run out of fold, or scores against whole truth.

    Example: `antpitta evaluate out/presence.csv --truth test_truth.csv`
    """
    found = api.evaluate(target, truth)
    title = "out of fold, on judged boxes" if truth is None else f"against {truth.name}"
    show_reports(found.reports, f"{title} (95 % over recordings)")
    if species:
        show_species(found.per_species)
    if events is not None:
        show_events(api.evaluate_events(target, events))
    for note in found.notes[:20]:
        console.print(f"left out: {note}", markup=False)


def ensemble(
    members: Annotated[
        list[Path], typer.Argument(help="Runs on the same data; also tables of scores.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The blended model.")],
    method: Annotated[
        api.BlendMethod, typer.Option("--method", help="How scores are blended.")
    ] = "mean",
    weight: Annotated[
        list[float] | None, typer.Option("--weight", help="Of each member, in their order.")
    ] = None,
) -> None:
    """Blend several runs into one model; weights are fitted and judged out of fold.

    Example: `antpitta ensemble runs/a runs/b -o blended --method sharp --weight 1 --weight 2`
    """
    blended = api.ensemble(members, out, method=method, weights=weight or None)
    show_reports(blended.reports, "out of fold, weights fitted on the other folds")
    for note in blended.notes:
        console.print(note, markup=False)
    console.print(f"model   {out}", markup=False)


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(train)
    app.command()(evaluate)
    app.command()(ensemble)
