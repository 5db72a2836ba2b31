"""The models of a run: a bundle for every stage, and the run's own with exported networks."""

from dataclasses import replace
from pathlib import Path

from antpitta.api.run_report import choose_stage_thresholds
from antpitta.core.config import Recipe
from antpitta.core.progress import Progress
from antpitta.core.types import Scores
from antpitta.files.bundle import Bundle, write_bundle
from antpitta.files.dataset import OpenedDataset
from antpitta.files.own_files import load_tensors
from antpitta.files.runs import RunFolder
from antpitta.report.card import render_card
from antpitta.report.results import RunReport
from antpitta.scores.events import training_bands
from antpitta.train.export import ExportedNetworks, export_networks

LICENCE = "That of the recordings it was trained on; antpitta itself is Apache-2.0."


def bundle_stages(run: tuple[Recipe, RunFolder], data: OpenedDataset, report: RunReport) -> None:
    """Write a bundle beside the weights of every stage and cycle.

    Parameters
    ----------
    run : the recipe, and the run's folder
    data : the data set of the run
    report : what the cards show
    """
    recipe, folder = run
    for stage in recipe.stages:
        for cycle in range(1, stage.cycles + 1):
            path = folder.stage(stage.name, cycle) / "model"
            bundle_stage(run, data, (stage.name, cycle), path, report)


def bundle_stage(
    run: tuple[Recipe, RunFolder],
    data: OpenedDataset,
    stage_cycle: tuple[str, int],
    path: Path,
    report: RunReport,
    exported: ExportedNetworks | None = None,
) -> Bundle:
    """Write the bundle of one stage and cycle to ``path``, with its card.

    Parameters
    ----------
    run : the recipe, and the run's folder
    data : the data set of the run
    stage_cycle : the stage's name, and the cycle from 1
    path : the folder of the bundle
    report : what the card shows
    exported : networks for OpenVINO, and what each precision loses

    Returns
    -------
    Bundle
        The bundle as it was written.
    """
    dataset, (recipe, folder) = data.dataset, run
    stage, cycle = stage_cycle
    home = folder.stage(stage, cycle)
    thresholds = (
        report.thresholds
        if home.name == report.shipped
        else choose_stage_thresholds(dataset, folder, home.name)
    )
    exported = exported or ExportedNetworks({})
    weights = _weight_files(recipe)
    bundle = Bundle(
        path=path,
        name=f"{folder.path.name}/{home.name}",
        species=dataset.classes.names,
        recipe=recipe.model_dump(mode="json"),
        weights=weights,
        thresholds=thresholds,
        bands=training_bands(dataset.annotations, dataset.classes),
        provenance={"stage": stage, "cycle": cycle, **report.provenance},
    )
    card = render_card(
        replace(report, shipped=home.name, thresholds=thresholds),
        licence=LICENCE,
        model=str(Path(folder.path.name) / "model"),
        precisions=[
            (result.name, result.macro_ap, result.loss, result.accepted)
            for result in exported.results
        ],
    )
    return write_bundle(bundle, [home / name for name in weights], card, exported.networks)


def export_stage(
    run: tuple[Recipe, RunFolder],
    data: OpenedDataset,
    home: Path,
    scores: list[Scores],
    progress: Progress,
) -> ExportedNetworks:
    """Export the networks of the stage in ``home``, and print what each precision loses.

    Parameters
    ----------
    run : the recipe, and the run's folder
    data : the data set of the run
    home : the stage's folder, which holds the weights
    scores : the stage's scores, out of fold
    progress : receives messages and progress

    Returns
    -------
    ExportedNetworks
        The networks, and what each precision loses.
    """
    recipe, folder = run
    states = [load_tensors(home / name)[0] for name in _weight_files(recipe)]
    exported = export_networks(
        *(data.dataset, recipe, states, folder.folds(), scores),
        progress.of("exporting"),
    )
    for result in exported.results[1:]:
        kept = "" if result.accepted else "; not part of the model"
        progress.message(
            f"{result.name}: macro AP {result.macro_ap:.4f}, loss {result.loss:+.4f}{kept}"
        )
    return exported


def _weight_files(recipe: Recipe) -> tuple[str, ...]:
    return tuple(f"fold{fold}.safetensors" for fold in range(recipe.folds))
