"""train: from a data set and a recipe to a run, whose model ``predict`` takes.

The packages that training needs are imported when training begins: the other verbs work in an
installation without PyTorch.
"""

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import InstanceOf

from antpitta.api.data import SILENT, describe_data, source_to_json, without_lost_boxes
from antpitta.core.arguments import Number, PathArgument, Words, as_words, checked
from antpitta.core.config import Recipe
from antpitta.core.errors import requires_train_extra
from antpitta.core.progress import Progress
from antpitta.core.types import Dataset, Scores
from antpitta.files.cache import check_cache
from antpitta.files.dataset import OpenedDataset, dataset_digest
from antpitta.files.locks import lock_folder
from antpitta.files.manifest import check_own_folder, replace_files
from antpitta.files.own_files import write_parquet
from antpitta.files.recipes import read_recipe
from antpitta.files.runs import RunFolder, read_scores, write_scores
from antpitta.files.tables import write_prevalence
from antpitta.report.results import RunReport
from antpitta.scores.cells import box_cells
from antpitta.scores.evaluate import Report
from antpitta.scores.prevalence import prevalence_or_mean

PACKAGES = ("antpitta", "torch", "timm", "numpy", "openvino", "soundfile", "soxr")


@dataclass(frozen=True)
class TrainResult:
    """A finished run; as a path, its folder.

    Attributes
    ----------
    path : the run's folder
    run_report : what ``report.html`` shows
    """

    path: Path
    run_report: RunReport = field(repr=False)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def model(self) -> Path:
        """The model that :func:`antpitta.predict` takes."""
        return RunFolder(self.path).model

    @property
    def reports(self) -> tuple[Report, ...]:
        """The metrics of each stage, out of fold; ``run_report.shipped`` names the model's."""
        return tuple(stage.report for stage in self.run_report.stages)


@checked
def train(
    data: InstanceOf[OpenedDataset] | PathArgument,
    recipe: InstanceOf[Recipe] | PathArgument = "quick",
    out: PathArgument = "run",
    *,
    changes: Words = (),
    baseline: bool = False,
    resume: bool = False,
    device: str = "auto",
    devices: Number = 1,
    precision: str = "auto",
    compile: bool = False,
    cudnn_benchmark: bool = False,
    parallel_folds: Number = 1,
    export: bool = True,
    progress: InstanceOf[Progress] = SILENT,
) -> TrainResult:
    """Train all stages of a recipe on every fold, and write a run.

    Parameters
    ----------
    data
        The data set from :func:`open_data`, or the path that it takes.
    recipe
        The name of a recipe of the package, the path of a TOML file, or the recipe itself.
    out
        The run's folder.
    changes
        Changed settings, such as ``"stages.masked.epochs=3"``.
    baseline
        First train the stage ``unknown_as_absent``, a baseline that treats unknown as absent.
    resume
        Continue a run that was interrupted; data and recipe must be the same.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    devices
        Number of GPUs, or of CPU processes. A script that uses several must have its own work
        under ``if __name__ == "__main__"``.
    precision
        ``"auto"``, ``"float32"`` or ``"bfloat16"``; ``"auto"`` is what the recipe says.
    compile
        Compile the backbone with ``torch.compile``.
    cudnn_benchmark
        Let cuDNN choose its kernels by timing; two runs with one seed then differ slightly.
    parallel_folds
        Number of folds that train at the same time on one GPU.
    export
        Add networks for OpenVINO to the model, and measure what each precision loses.
    progress
        Receives messages and progress.

    Returns
    -------
    TrainResult
        The run: its ``model`` is what :func:`antpitta.predict` takes, its ``reports`` hold the
        metrics of each stage.

    Raises
    ------
    UserError
        ``E_NEEDS_TRAIN_EXTRA`` in an installation without PyTorch; ``E_RUN_EXISTS`` if the folder
        holds a run and ``resume`` is false; other codes for settings or data that cannot be
        trained on.

    Examples
    --------
    >>> data = antpitta.open_data("my-data")  # doctest: +SKIP
    >>> run = antpitta.train(data, out="run")  # doctest: +SKIP
    >>> scores = antpitta.predict(run.model, "new-recordings")  # doctest: +SKIP
    """
    data = without_lost_boxes(data)
    with requires_train_extra("train"):
        from antpitta.api.run_model import bundle_stage, bundle_stages, export_stage
        from antpitta.api.run_report import collect_report, describe_known_species, write_report
        from antpitta.train.compute import ComputeConfig, build_fabric
        from antpitta.train.training import (
            check_pretrained_weights,
            read_members,
            resolve_recipe,
            train_stages,
        )

    chosen = recipe if isinstance(recipe, Recipe) else None
    chosen = chosen or read_recipe(str(recipe), as_words(changes), baseline=baseline)
    resolved = resolve_recipe(chosen, data.dataset)
    precision = resolved.precision if precision == "auto" else precision
    compute = ComputeConfig(device, devices, precision, compile, cudnn_benchmark, parallel_folds)
    build_fabric(compute)  # refuses a wrong device before the run's folder is made
    check_cache()
    folder = RunFolder(Path(out))
    check_pretrained_weights(resolved, folder)  # before anything is computed or written
    read_members(data.dataset, resolved)
    with lock_folder(folder.path):
        folder.begin(_config(data, resolved, chosen), resume=resume)
        _check_models(folder)
        progress.message(describe_data(data))
        if known_species := describe_known_species(resolved, data):
            progress.message(known_species)
        train_stages(data.dataset, resolved, folder, progress, compute)

        report = collect_report(data, resolved, folder)
        run = resolved, folder
        bundle_stages(run, data, report)
        shipped = _shipped_stage(resolved, folder, report.shipped)
        weights = folder.stage(*shipped)
        scores = _keep_scores(weights, data.dataset, folder.path)
        exported = export_stage(run, data, weights, scores, progress) if export else None
        bundle_stage(run, data, shipped, folder.model, report, exported)
        write_report(folder, report)
        return TrainResult(folder.path, report)


def _check_models(folder: RunFolder) -> None:
    """Refuse a run whose models, which will be replaced, hold somebody else's files."""
    for model in (folder.model, *sorted(folder.path.glob("stages/*/model"))):
        check_own_folder(model, "model")


def _config(data: OpenedDataset, recipe: Recipe, chosen: Recipe) -> dict[str, Any]:
    recordings = data.dataset.recordings
    channels = {recording.channel for recording in recordings} - {None}
    return {
        "recipe": recipe.model_dump(mode="json"),
        "data": dataset_digest(data.dataset),
        "chosen": chosen.model_dump(mode="json"),  # and where the data lie: for the next round
        "source": source_to_json(data.source) if data.source else None,
        "versions": {name: version(name) for name in PACKAGES},
        **({"channel": channels.pop()} if channels else {}),
        **({"input": "spectrograms"} if recordings[0].spectrogram else {}),
    }


def _shipped_stage(recipe: Recipe, folder: RunFolder, name: str) -> tuple[str, int]:
    """The name and the cycle of the stage whose folder has this name."""
    cycles = (
        (stage.name, cycle) for stage in recipe.stages for cycle in range(1, stage.cycles + 1)
    )
    return next(own for own in cycles if folder.stage(*own).name == name)


def _keep_scores(stage: Path, dataset: Dataset, out: Path) -> list[Scores]:
    """Copy the shipped stage's out-of-fold scores to the run, with cells and prevalences."""
    scores = read_scores(stage / "oof_scores.parquet")
    recordings = [score.recording for score in scores]
    clipwise = np.array([score.value.max(axis=0) for score in scores])  # (recordings, classes)
    prevalence = prevalence_or_mean(clipwise, recordings, dataset.annotations, dataset.classes)
    cells = box_cells(scores, dataset.annotations, dataset.classes)
    with replace_files(out, "run") as new:
        write_scores(scores, new / "oof_scores.parquet")
        write_prevalence(dataset.classes.names, prevalence, new / "prevalence.csv")
        write_parquet(cells, new / "oof_cells.parquet")
    return scores
