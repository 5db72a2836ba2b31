"""What a run's folder holds, as a RunReport: the metrics of every stage, examples, provenance."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from antpitta.api.data import describe_missing
from antpitta.core.config import BASELINE_STAGE, Recipe
from antpitta.core.stages import Stage
from antpitta.core.thresholds import SpeciesThreshold
from antpitta.core.types import Classes, Dataset
from antpitta.files.dataset import OpenedDataset
from antpitta.files.embedding_models import SEARCH_PATH
from antpitta.files.known_models import KNOWN
from antpitta.files.own_files import load_tensors
from antpitta.files.runs import RunFolder, read_scores
from antpitta.files.spectrograms import read_training_input
from antpitta.files.tables import read_frame
from antpitta.report.page import render_page
from antpitta.report.results import Example, RunReport, StageResult
from antpitta.report.warnings import StageChoice, describe_choice, list_warnings
from antpitta.scores.cells import box_cells
from antpitta.scores.comparison import choose_stage
from antpitta.scores.evaluate import DRAWS, evaluate_cells, report_to_json
from antpitta.scores.thresholds import FoldScores, choose_thresholds
from antpitta.sound.mel import LogMel, band_edges, dump_features, mel_features
from antpitta.sound.targets import count_supervision_frames

EXAMPLES = 4  # of each group
MARGIN = 2.0  # seconds of sound shown on either side of a box
BEST_EPOCH = (
    "The best epoch of each fold was chosen on the recordings that it holds out, so these figures "
    "are a little too high"
)
LONGEST = 20.0  # seconds of a box that are shown: a label of a whole recording has no shape


def collect_report(data: OpenedDataset, recipe: Recipe, folder: RunFolder) -> RunReport:
    """The report of a run whose stages are trained and scored.

    Parameters
    ----------
    data : the data set of the run
    recipe : its recipe
    folder : the run's folder

    Returns
    -------
    RunReport
        The content of the report page and of the cards.
    """
    dataset = data.dataset
    evaluated = [
        _stage_result(dataset, stage, cycle, folder)
        for stage in recipe.stages
        for cycle in range(1, stage.cycles + 1)
    ]
    stages = tuple(result for result, _ in evaluated)
    choice = _choose_stage(evaluated, dataset.classes)
    cells = next(cells for result, cells in evaluated if result.name == choice.stage)
    thresholds = choose_stage_thresholds(dataset, folder, choice.stage)
    grid = recipe.features.time_grid(0.0, recipe.features.segment)
    return RunReport(
        title=f"{folder.path.name}: {len(dataset.classes)} species",
        subtitle=f"{len(dataset.recordings)} recordings, recipe {recipe.name}",
        stages=stages,
        shipped=choice.stage,
        choice=describe_choice(choice),
        warnings=list_warnings(stages, choice, thresholds),
        thresholds=thresholds,
        supervision=count_supervision_frames(dataset, grid.hop),
        examples=_examples(dataset, recipe, cells),
        log=folder.read_log(),
        pseudo=_pseudo_counts(recipe, folder),
        settings=_settings(recipe),
        provenance=_provenance(recipe, folder),
        left_out=_left_out(data),
        needs=" ".join([_needed_file(recipe), describe_known_species(recipe, data)]).strip(),
    )


def write_report(folder: RunFolder, report: RunReport) -> None:
    """Write ``report.json`` and ``report.html`` of a run.

    Parameters
    ----------
    folder : the run's folder
    report : the content
    """
    stages = [
        {
            "name": stage.name,
            "description": stage.description,
            "report": report_to_json(stage.report),
        }
        for stage in report.stages
    ]
    table = {
        "model": report.shipped,
        "choice": report.choice,
        "warnings": list(report.warnings),
        "stages": stages,
        "thresholds": {
            name: own.model_dump(exclude={"points"}) for name, own in report.thresholds.items()
        },
        "left_out": list(report.left_out),
    }
    if report.rounds is not None:
        table["rounds"] = list(report.rounds.sentences())
    folder.write_report(table, render_page(report))


def describe_known_species(recipe: Recipe, data: OpenedDataset) -> str:
    """How many of the species the embedding model classifies itself; empty if it was not asked.

    Parameters
    ----------
    recipe : the recipe of the run
    data : the data set of the run

    Returns
    -------
    str
        A sentence, or nothing.
    """
    if recipe.embedding is None or recipe.embedding.class_map is None:
        return ""
    names = data.dataset.classes.names
    class_map = recipe.embedding.class_map
    others = [name for name, classes in zip(names, class_map, strict=True) if not classes]
    exception = f", all but {', '.join(others)}" if others else ""
    model = Path(recipe.embedding.model).name
    known = len(names) - len(others)
    return f"{model} itself classifies {known} of these {len(names)} species{exception}."


def choose_stage_thresholds(
    dataset: Dataset, folder: RunFolder, name: str
) -> dict[str, SpeciesThreshold]:
    """The thresholds of a stage's models, and what they rest on.

    Parameters
    ----------
    dataset : of the run
    folder : the run's folder
    name : of the stage's folder

    Returns
    -------
    dict
        The threshold of each species.
    """
    scores = read_scores(folder.path / "stages" / name / "oof_scores.parquet")
    cells = box_cells(scores, dataset.annotations, dataset.classes)
    clips = FoldScores.of(scores, folder.folds())
    return choose_thresholds(cells, dataset.classes, clips, rng=np.random.default_rng(0))


def _choose_stage(
    evaluated: Sequence[tuple[StageResult, pd.DataFrame]], classes: Classes
) -> StageChoice:
    """The stage that ships; a baseline is there to be compared with, and never does."""
    candidates = [(result, cells) for result, cells in evaluated if result.name != BASELINE_STAGE]
    names = tuple(result.name for result, _ in candidates or evaluated)
    tables = [cells for _, cells in candidates or evaluated]
    best, comparisons = choose_stage(tables, classes, draws=DRAWS, rng=np.random.default_rng(0))
    return StageChoice(names[best], names, comparisons)


def _stage_result(
    dataset: Dataset, stage: Stage, cycle: int, folder: RunFolder
) -> tuple[StageResult, pd.DataFrame]:
    """The metrics of a stage, and its labelled cells."""
    home = folder.stage(stage.name, cycle)
    scores = read_scores(home / "oof_scores.parquet")
    cells = box_cells(scores, dataset.annotations, dataset.classes)
    rng = np.random.default_rng(0)
    report = evaluate_cells(cells, dataset.classes, home.name, draws=DRAWS, rng=rng)
    description = stage.description if cycle == 1 else f"{stage.description} (cycle {cycle})"
    if stage.keep == "best":
        description = f"{description}. {BEST_EPOCH}"
    return StageResult(home.name, description, report), cells


def _examples(dataset: Dataset, recipe: Recipe, cells: pd.DataFrame) -> tuple[Example, ...]:
    """The boxes with the highest and the lowest scores, of present and of absent ones."""
    present, absent = cells[cells["present"]], cells[~cells["present"]]
    groups = [
        ("Present, high score", present.sort_values("score", ascending=False)),
        ("Present, low score (missed)", present.sort_values("score")),
        ("Absent, high score (false alarms)", absent.sort_values("score", ascending=False)),
        ("Absent, low score", absent.sort_values("score")),
    ]
    mel = LogMel(recipe.features)
    examples = []
    for group, table in groups:
        per_species = table.drop_duplicates("species").head(EXAMPLES)  # not one species four times
        examples += [
            _example(dataset, recipe, mel, group, row) for _, row in per_species.iterrows()
        ]
    return tuple(examples)


def _example(
    dataset: Dataset, recipe: Recipe, mel: LogMel, group: str, row: "pd.Series[Any]"
) -> Example:
    recording = next(
        recording for recording in dataset.recordings if recording.id == row["recording"]
    )
    start, stop = float(row["start"]), float(row["stop"])
    stop = min(stop, start + LONGEST)
    first = max(0.0, start - MARGIN)
    last = min(recording.duration, stop + MARGIN)
    rate = recipe.features.sample_rate
    sound = read_training_input(recording, first, last, rate)
    is_dump = recording.spectrogram is not None
    spectrogram = dump_features(sound, recipe.features) if is_dump else mel_features(sound, mel)
    return Example(
        title="",
        recording=recording.id,
        species=str(row["species"]),
        start=start,
        stop=stop,
        low=float(row["low"]),
        high=float(row["high"]),
        score=float(row["score"]),
        present=bool(row["present"]),
        spectrogram=spectrogram,
        image_start=first,
        image_stop=last if is_dump else first + len(sound) / rate,
        frequencies=band_edges(recipe.features)[1:-1],
        group=group,
    )


def _pseudo_counts(recipe: Recipe, folder: RunFolder) -> pd.DataFrame | None:
    """Pseudo-labels of each cycle: cycle, species, labels, recordings."""
    tables = []
    for stage in recipe.stages:
        for cycle in range(1, stage.cycles + 1 if stage.pseudo else 1):
            table = read_frame(folder.stage(stage.name, cycle) / "pseudo.csv")
            counts = table.groupby("species").agg(
                labels=("species", "size"), recordings=("recording", "nunique")
            )
            tables.append(counts.reset_index().assign(cycle=cycle))
    if not tables:
        return None
    return pd.concat(tables, ignore_index=True)[["cycle", "species", "labels", "recordings"]]


def _settings(recipe: Recipe) -> dict[str, str]:
    settings = {
        "recipe": recipe.name,
        "description": recipe.description,
        "folds": str(recipe.folds),
    }
    for section in ("features", "embedding", "windows", "backbone", "head"):
        values = getattr(recipe, section)
        for key, value in values.model_dump().items() if values else ():
            settings[f"{section}.{key}"] = str(value)
    for stage in recipe.stages:
        changed = stage.model_dump(exclude={"name", "description"}, exclude_defaults=True)
        settings[f"stage {stage.name}"] = ", ".join(_flatten(changed))
    return settings


def _flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """``lr=0.001``, ``loss.unknown=absent``: settings as ``--set`` takes them."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={value}"


def _needed_file(recipe: Recipe) -> str:
    embedding = recipe.embedding
    if embedding is None:
        return ""
    tensors = " and ".join(name or "its first output" for name in embedding.outputs)
    known = KNOWN.get(embedding.model)
    licence = f" Its licence is {known.licence} ({known.licence_page})." if known else ""
    return (
        f"This model needs a file that is not part of it: the embedding model "
        f"{Path(embedding.model).name} (tensor {tensors}, digest {embedding.model_digest}). "
        f"antpitta looks for it as {embedding.model} and in the folders of the environment "
        f"variable {SEARCH_PATH}, and refuses any other file.{licence}"
    )


def _provenance(recipe: Recipe, folder: RunFolder) -> dict[str, str]:
    first = folder.stage(recipe.stages[0].name) / "fold0.safetensors"
    config = folder.config()
    channel = config.get("channel")
    return {
        "training data": str(config["data"]),
        "recipe digest": recipe.digest,
        "seed": str(recipe.seed),
        "backbone weights": load_tensors(first)[1].get("from", "unknown"),
        "antpitta": version("antpitta"),
        "torch": version("torch"),
        "timm": version("timm"),
        **({"channel": str(channel)} if channel else {}),
        **({"input": str(config["input"])} if "input" in config else {}),
    }


def _left_out(data: OpenedDataset) -> tuple[str, ...]:
    lines = [str(finding) for finding in data.findings]
    if data.missing:
        lines.insert(0, describe_missing(data))
    return tuple(lines)
