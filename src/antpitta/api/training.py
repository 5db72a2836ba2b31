"""train: from a data set and a recipe to a bundle, with the report of how good it is.

From a stage of a finished run to the bundle that predict takes.
"""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from antpitta.api.data import QUIET
from antpitta.api.run_report import collect_report, known_species
from antpitta.core.config import Recipe
from antpitta.core.progress import Progress
from antpitta.core.types import Dataset, Scores
from antpitta.files.bundle import Bundle, write_bundle
from antpitta.files.dataset import OpenedDataset, dataset_digest
from antpitta.files.recipes import read_recipe
from antpitta.files.runs import RunFolder, load_tensors, read_scores, write_scores
from antpitta.files.tables import write_prevalence
from antpitta.files.texts import atomic_replace
from antpitta.report.card import render_card
from antpitta.report.page import render_page
from antpitta.report.results import RunReport
from antpitta.scores.cells import box_cells
from antpitta.scores.evaluate import report_to_json
from antpitta.scores.events import training_bands
from antpitta.scores.prevalence import prevalence_per_member
from antpitta.scores.thresholds import choose_thresholds
from antpitta.train.compute import ComputeConfig, build_fabric
from antpitta.train.export import ExportedNetworks, export_networks
from antpitta.train.stages import last_cycle
from antpitta.train.training import resolve_recipe, train_stages

PACKAGES = ("antpitta", "torch", "timm", "numpy", "openvino", "soundfile", "soxr")


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    path: Path
    story: RunReport

    @property
    def model(self) -> Path:
        """The bundle that predict takes."""
        return RunFolder(self.path).model


def train(
    data: OpenedDataset,
    recipe: str = "quick",
    out: Path | str = "runs/antpitta",
    *,
    changes: tuple[str, ...] = (),
    baseline: bool = False,
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    precision: str = "auto",
    compile: bool = False,
    cudnn_benchmark: bool = False,
    parallel_folds: int = 1,
    export: bool = True,
    progress: Progress = QUIET,
) -> TrainResult:
    """Train all stages of a recipe, and write the run's folder.

    ``changes`` are settings such as ``stages.masked.epochs=3``; with ``baseline`` the stage
    ``unknown_as_absent`` is trained first, to compare with. With ``resume`` a run that was
    stopped goes on. ``export`` adds the networks that OpenVINO predicts with, and measures them.
    The rest is how to compute (train/compute.py); a script that asks for several ``devices`` keeps
    its own work below ``if __name__ == "__main__"``. Raises UserError for data or settings that
    cannot be trained on.
    """
    chosen = resolve_recipe(read_recipe(recipe, changes, baseline=baseline), data.dataset)
    compute = ComputeConfig(device, devices, precision, compile, cudnn_benchmark, parallel_folds)
    build_fabric(compute)  # a mistake is told before the folder is claimed
    folder = RunFolder(Path(out))
    folder.begin(_config(data, chosen), resume=resume)
    progress.message(_counts(data))
    if known := known_species(chosen, data):
        progress.message(known)
    train_stages(data.dataset, chosen, folder, progress, compute)
    story = collect_report(data, chosen, folder)
    run = chosen, folder
    bundle_stages(run, data, story)
    last = chosen.stages[-1].name
    final = last_cycle(chosen, last)
    home = folder.stage(last, final)
    scores = _keep_scores(home, data.dataset, folder.path)
    exported = export_stage(run, data, home, scores, progress) if export else NOTHING
    bundle_stage(run, data, (last, final), folder.model, story, exported)
    write_report(folder, story)
    return TrainResult(folder.path, story)


def _keep_scores(home: Path, dataset: Dataset, out: Path) -> list[Scores]:
    """The last stage's scores out of fold; as the run's own, by judged cell, and prevalences."""
    scores = read_scores(home / "oof_scores.parquet")
    write_scores(scores, out / "oof_scores.parquet")
    names, highest = [one.recording for one in scores], [one.value.max(axis=0) for one in scores]
    shares = prevalence_per_member(np.array(highest), names, dataset.annotations, dataset.classes)
    write_prevalence(dataset.classes.names, shares, out / "prevalence.csv")
    cells = box_cells(scores, dataset.annotations, dataset.classes)
    with atomic_replace(out / "oof_cells.parquet") as part:
        cells.to_parquet(part, index=False)
    return scores


def write_report(folder: RunFolder, story: RunReport) -> None:
    """report.json and report.html of a run."""
    stages = [
        {"name": one.name, "says": one.says, "report": report_to_json(one.report)}
        for one in story.stages
    ]
    kept = {"stages": stages, "left_out": list(story.left_out)}
    folder.write_report(kept, render_page(story))


def _config(data: OpenedDataset, recipe: Recipe) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "data": dataset_digest(data.dataset),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _counts(data: OpenedDataset) -> str:
    dataset = data.dataset
    present = sum(said.present for said in dataset.annotations)
    text = (
        f"{len(dataset.recordings)} recordings, {len(dataset.classes)} species, "
        f"{present} present and {len(dataset.annotations) - present} absent boxes"
    )
    if data.missing:
        text += f"; {data.missing} of {data.rows} rows name recordings that are not here"
    return text


LICENCE = "Of the recordings it was trained on; antpitta itself is Apache-2.0."
NOTHING = ExportedNetworks({})


def bundle_stages(run: tuple[Recipe, RunFolder], data: OpenedDataset, story: RunReport) -> None:
    """A bundle beside the weights of every stage and cycle."""
    recipe, folder = run
    for stage in recipe.stages:
        for cycle in range(1, last_cycle(recipe, stage.name) + 1):
            model = folder.stage(stage.name, cycle) / "model"
            bundle_stage(run, data, (stage.name, cycle), model, story)


def bundle_stage(
    run: tuple[Recipe, RunFolder],
    data: OpenedDataset,
    place: tuple[str, int],
    path: Path,
    story: RunReport,
    exported: ExportedNetworks = NOTHING,
) -> Bundle:
    """Write the bundle of the stage and cycle that ``place`` names, with its card."""
    dataset, (recipe, folder) = data.dataset, run
    stage, cycle = place
    home = folder.stage(stage, cycle)
    cells = box_cells(
        read_scores(home / "oof_scores.parquet"), dataset.annotations, dataset.classes
    )
    names = _weights(recipe)
    bundle = Bundle(
        path=path,
        name=f"{folder.path.name}/{home.name}",
        species=dataset.classes.names,
        recipe=recipe.model_dump(mode="json"),
        weights=names,
        thresholds=choose_thresholds(cells, dataset.classes, aim="f1"),
        bands=training_bands(dataset.annotations, dataset.classes),
        provenance={"stage": stage, "cycle": cycle, **story.provenance},
    )
    arithmetic = [(one.name, one.macro_ap, one.loss, one.accepted) for one in exported.results]
    place_of = str(Path(folder.path.name) / "model")
    card = render_card(story, licence=LICENCE, model=place_of, arithmetic=arithmetic)
    return write_bundle(bundle, [home / name for name in names], card, exported.networks)


def export_stage(
    run: tuple[Recipe, RunFolder],
    data: OpenedDataset,
    home: Path,
    scores: list[Scores],
    progress: Progress,
) -> ExportedNetworks:
    """The networks of a stage, and a line about what was measured of them."""
    recipe, folder = run
    states = [load_tensors(home / name)[0] for name in _weights(recipe)]
    exported = export_networks(
        *(data.dataset, recipe, states, folder.folds(), scores),
        progress.of("exporting"),
    )
    for one in exported.results[1:]:
        told = "kept" if one.accepted else "left out of the model"
        progress.message(f"{one.name}: macro AP {one.macro_ap:.4f}, {one.loss:+.4f} lost; {told}")
    return exported


def _weights(recipe: Recipe) -> tuple[str, ...]:
    return tuple(f"fold{fold}.safetensors" for fold in range(recipe.folds))
