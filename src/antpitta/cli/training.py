"""The commands train, evaluate and ensemble."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antpitta import api
from antpitta.cli.data import MAX_FINDINGS, takes_data
from antpitta.cli.display import (
    console,
    resumable,
    show_events,
    show_reports,
    show_species,
    training_progress,
)
from antpitta.cli.estimates import show_audits
from antpitta.core.errors import Finding, UserError

if TYPE_CHECKING:
    from antpitta.api import OpenedDataset

COMPUTE = "Compute options"
AUDITS = "Options for a queue"
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu or cuda.", rich_help_panel=COMPUTE)
]
DevicesOption = Annotated[
    int,
    typer.Option("--devices", help="Number of GPUs, or of CPU processes.", rich_help_panel=COMPUTE),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        help="auto, float32 or bfloat16. auto is what the recipe says, or else bfloat16 on a GPU "
        "that supports it.",
        rich_help_panel=COMPUTE,
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the backbone: it takes a minute, then GPUs train faster.",
        rich_help_panel=COMPUTE,
    ),
]
CudnnBenchmarkOption = Annotated[
    bool,
    typer.Option(
        "--cudnn-benchmark",
        help="Let cuDNN time its kernels. Two runs with one seed then differ slightly.",
        rich_help_panel=COMPUTE,
    ),
]
ParallelFoldsOption = Annotated[
    int,
    typer.Option(
        "--parallel-folds",
        help="Number of folds that train at the same time on one GPU.",
        rich_help_panel=COMPUTE,
    ),
]


@takes_data
def train(
    *,
    data: "OpenedDataset",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="RUN", help="The run's folder.")
    ] = Path("run"),
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="quick, rfcx, embedding, or the path of a TOML file.",
        ),
    ] = "quick",
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting, such as stages.masked.epochs=3; may be repeated.",
        ),
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="First train a baseline that treats unknown as absent."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was interrupted.")
    ] = False,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    precision: PrecisionOption = "auto",
    compile: CompileOption = False,
    cudnn_benchmark: CudnnBenchmarkOption = False,
    parallel_folds: ParallelFoldsOption = 1,
) -> None:
    """Train a detector, and report its metrics out of fold.

    The folder of the run then holds `report.html` and `model/`, which `antpitta predict` takes.

    Example: `antpitta train --audio recordings --present present.csv --absent absent.csv -o run`
    """
    from antpitta.api.data import without_lost_boxes

    with resumable(), training_progress() as progress:
        result = api.train(
            data,
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
    show_reports(result.reports, "out of fold, on labelled boxes (95 % intervals over recordings)")
    console.print(result.run_report.choice)
    for line in result.run_report.warnings:
        console.print(f"warning: {line}")
    console.print(f"report  {result.path / 'report.html'}")
    console.print(f"model   {result.model}  ({len(data.dataset.classes)} species)")
    serious = [finding for finding in without_lost_boxes(data).findings if finding.serious]
    for finding in serious[:MAX_FINDINGS]:
        console.print(f"left out: {finding}")
    if len(serious) > MAX_FINDINGS:
        console.print(f"left out: and {len(serious) - MAX_FINDINGS} more")
    if serious:
        raise typer.Exit(1)


def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A run, a folder that predict wrote, a table of scores, or a queue.",
        ),
    ],
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            metavar="TABLE",
            help="Ground truth: a table with the column recording_id and one column a species, "
            "with 1 (present), 0 (absent) or nothing (unknown).",
        ),
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(
            "--events",
            metavar="TABLE",
            help="A table of every call in the recordings. It adds the event F1.",
        ),
    ] = None,
    species: Annotated[
        bool, typer.Option("--species/--no-species", help="Print the metrics of each species.")
    ] = True,
    expect_precision: Annotated[
        float | None,
        typer.Option(
            "--expect-precision",
            metavar="P",
            help="The precision that the threshold of each species shall have.",
            show_default="0.9",
            rich_help_panel=AUDITS,
        ),
    ] = None,
    predicted: Annotated[
        Path | None,
        typer.Option(
            "--predicted",
            metavar="FOLDER",
            help="What predict wrote for the audited recordings: apply the thresholds to it.",
            rich_help_panel=AUDITS,
        ),
    ] = None,
    deployments: Annotated[
        Path | None,
        typer.Option(
            "--deployments",
            metavar="TABLE",
            help="With --predicted, the table of sites as predict takes it.",
            rich_help_panel=AUDITS,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="Write tables: thresholds, and with --predicted sites, days and occupancy.",
            rich_help_panel=AUDITS,
        ),
    ] = None,
) -> None:
    """Report LWLRAP, AP and AUC of a run out of fold, or of scores against ground truth.

    Of a queue with audits: precision, missed calls and thresholds of each species.

    Example: `antpitta evaluate out/presence.csv --truth test_truth.csv`
    """
    of_audits = {"--expect-precision": expect_precision, "--predicted": predicted}
    of_audits |= {"--deployments": deployments, "--out": out}
    if api.is_queue(target):
        _refuse_options(
            {"--truth": truth, "--events": events}, "is for scores, and this is a queue"
        )
        precision = 0.9 if expect_precision is None else expect_precision
        show_audits(target, precision, predicted, deployments, out)
        return
    _refuse_options(of_audits, "is for a queue, and this is none")
    _evaluate_scores(Path(target), truth, events, species=species)


def _refuse_options(options: Mapping[str, object], why: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise UserError("E_OPTION", f"{name} {why}", "leave it out")


def _evaluate_scores(
    target: Path, truth: Path | None, events: Path | None, *, species: bool
) -> None:
    evaluation = api.evaluate(target, truth)
    findings: tuple[Finding, ...] = ()
    title = "out of fold, on labelled boxes" if truth is None else f"against {truth.name}"
    show_reports(evaluation.reports, f"{title} (95 % intervals over recordings)")
    if species:
        show_species(evaluation.per_species)
    if events is not None:
        metrics = api.evaluate_events(target, events)
        show_events(metrics)
        findings = metrics.attrs["findings"]
        for finding in findings[:MAX_FINDINGS]:
            console.print(f"left out: {finding}", markup=False)
    for note in evaluation.notes[:MAX_FINDINGS]:
        console.print(f"left out: {note}")
    if len(evaluation.notes) > MAX_FINDINGS:
        console.print(f"left out: and {len(evaluation.notes) - MAX_FINDINGS} more")
    if any(finding.serious for finding in findings):
        raise typer.Exit(1)


def ensemble(
    members: Annotated[
        list[Path],
        typer.Argument(
            metavar="MEMBER",
            help="Runs on the same data, and tables of scores of other models; or such tables "
            "alone, as submissions are.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="MODEL", help="The folder of the new model.")
    ],
    method: Annotated[
        api.BlendMethod,
        typer.Option(
            "--method",
            help="How the scores are combined. extremized: the mean probability with its log-odds "
            "multiplied by 1.5. aligned: the mean of logits, brought to the mean and deviation of "
            "the first member's. auc and fit: weights from the scores out of fold.",
        ),
    ] = "mean",
    weights: Annotated[
        list[float] | None,
        typer.Option(
            "--weight",
            metavar="NUMBER",
            help="The weight of a member; repeat it for each one, in their order.",
        ),
    ] = None,
) -> None:
    """Combine several runs into one model, and report its metrics out of fold.

    Tables alone become submission.csv, with the rows and columns of the first.

    Example: `antpitta ensemble runs/a runs/b -o model --method mean --weight 1 --weight 2`
    """
    result = api.ensemble(members, out, method=method, weights=weights or None)
    if result.submission is not None:
        console.print(f"submission  {result.submission}")
        return
    show_reports(result.reports, "out of fold, weights fitted on the other folds")
    for note in result.notes:
        console.print(note)
    console.print(f"model   {out}")
