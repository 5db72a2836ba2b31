"""What a run's folder tells: the results of every stage, examples to look at, provenance."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from antpitta.core.config import Recipe
from antpitta.core.stages import Stage
from antpitta.core.types import Dataset
from antpitta.files.audio import read
from antpitta.files.dataset import OpenedDataset
from antpitta.files.embedding_models import PLACES
from antpitta.files.runs import RunFolder, load_tensors, read_scores
from antpitta.files.tables import read_frame
from antpitta.report.results import Example, RunReport, StageResult
from antpitta.scores.cells import box_cells
from antpitta.scores.evaluate import DRAWS, evaluate_cells
from antpitta.sound.mel import LogMel, band_edges, mel_features
from antpitta.sound.targets import count_supervision_frames
from antpitta.train.stages import last_cycle

SHOWN = 4  # examples of each kind
MARGIN = 2.0  # seconds of sound shown on either side of a box


def collect_report(data: OpenedDataset, recipe: Recipe, folder: RunFolder) -> RunReport:
    """The story of a run whose stages are trained and scored."""
    dataset = data.dataset
    stages = tuple(
        _stage_result(dataset, stage, cycle, folder)
        for stage in recipe.stages
        for cycle in range(1, last_cycle(recipe, stage.name) + 1)
    )
    last = recipe.stages[-1].name
    final = folder.stage(last, last_cycle(recipe, last))
    cells = box_cells(
        read_scores(final / "oof_scores.parquet"), dataset.annotations, dataset.classes
    )
    grid = recipe.features.time_grid(0.0, recipe.features.segment)
    return RunReport(
        title=f"{folder.path.name}: {len(dataset.classes)} species",
        subtitle=f"{len(dataset.recordings)} recordings, recipe {recipe.name}",
        stages=stages,
        supervision=count_supervision_frames(dataset, grid.hop),
        examples=_examples(dataset, recipe, cells),
        log=_log(folder),
        pseudo=_pseudo(recipe, folder),
        settings=_settings(recipe),
        provenance=_provenance(recipe, folder),
        left_out=_left_out(data),
        needs=" ".join([_needs(recipe), known_species(recipe, data)]).strip(),
    )


def _stage_result(dataset: Dataset, stage: Stage, cycle: int, folder: RunFolder) -> StageResult:
    home = folder.stage(stage.name, cycle)
    scores = read_scores(home / "oof_scores.parquet")
    cells = box_cells(scores, dataset.annotations, dataset.classes)
    rng = np.random.default_rng(0)
    report = evaluate_cells(cells, dataset.classes, home.name, draws=DRAWS, rng=rng)
    says = stage.description if cycle == 1 else f"{stage.description} (cycle {cycle})"
    return StageResult(home.name, says, report)


def _examples(dataset: Dataset, recipe: Recipe, cells: pd.DataFrame) -> tuple[Example, ...]:
    """Presents found and missed, absents passed and mistaken: the extremes of each."""
    said = cells["present"]
    ordered = [
        ("present, found", cells[said].sort_values("score", ascending=False)),
        ("present, missed", cells[said].sort_values("score")),
        ("absent, mistaken for a call", cells[~said].sort_values("score", ascending=False)),
        ("absent, passed over", cells[~said].sort_values("score")),
    ]
    mel = LogMel(recipe.features)
    found = []
    for title, table in ordered:
        distinct = table.drop_duplicates("species").head(SHOWN)  # not one species four times
        found += [_example(dataset, recipe, mel, title, row) for _, row in distinct.iterrows()]
    return tuple(found)


def _example(
    dataset: Dataset, recipe: Recipe, mel: LogMel, title: str, row: "pd.Series[Any]"
) -> Example:
    recording = next(one for one in dataset.recordings if one.id == row["recording"])
    start, stop = float(row["start"]), float(row["stop"])
    stop = min(stop, start + 20.0)  # a statement about a whole recording has no shape to show
    first = max(0.0, start - MARGIN)
    last = min(recording.duration, stop + MARGIN)
    rate = recipe.features.sample_rate
    wave = read(recording, first, last, rate)
    edges = band_edges(recipe.features)
    return Example(
        title=title,
        recording=recording.id,
        species=str(row["species"]),
        start=start,
        stop=stop,
        low=float(row["low"]),
        high=float(row["high"]),
        score=float(row["score"]),
        present=bool(row["present"]),
        image=mel_features(wave, mel),
        image_start=first,
        image_stop=first + len(wave) / rate,
        frequencies=edges[1:-1],
        group=title,
    )


def _log(folder: RunFolder) -> pd.DataFrame | None:
    log = folder.read_log()
    return None if log is None else log.rename(columns={"rate": "lr"})


def _pseudo(recipe: Recipe, folder: RunFolder) -> pd.DataFrame | None:
    """cycle, species, labels, recordings: what each cycle was taught."""
    tables = []
    for stage in recipe.stages:
        for cycle in range(1, last_cycle(recipe, stage.name) + 1 if stage.pseudo else 1):
            table = read_frame(folder.stage(stage.name, cycle) / "pseudo.csv")
            counts = table.groupby("species").agg(
                labels=("species", "size"), recordings=("recording", "nunique")
            )
            tables.append(counts.reset_index().assign(cycle=cycle))
    if not tables:
        return None
    return pd.concat(tables, ignore_index=True)[["cycle", "species", "labels", "recordings"]]


def _settings(recipe: Recipe) -> dict[str, str]:
    found = {
        "recipe": recipe.name,
        "when to use it": recipe.description,
        "folds": str(recipe.folds),
    }
    for room in ("features", "embedding", "windows", "backbone", "head"):
        settings = getattr(recipe, room)
        for key, value in settings.model_dump().items() if settings else ():
            found[f"{room}.{key}"] = str(value)
    for stage in recipe.stages:
        given = stage.model_dump(exclude={"name", "says"}, exclude_defaults=True)
        found[f"stage {stage.name}"] = ", ".join(f"{key} {value}" for key, value in given.items())
    return found


def known_species(recipe: Recipe, data: OpenedDataset) -> str:
    """Which species the network of an embedding knows by itself; nothing where it was not asked."""
    if recipe.embedding is None or recipe.embedding.class_map is None:
        return ""
    names = data.dataset.classes.names
    strange = [name for name, own in zip(names, recipe.embedding.class_map, strict=True) if not own]
    left = f", not {', '.join(strange)}" if strange else ""
    told = f"{Path(recipe.embedding.model).name} knows {len(names) - len(strange)} of these"
    return f"{told} {len(names)} species by itself{left}."


def _needs(recipe: Recipe) -> str:
    made = recipe.embedding
    if made is None:
        return ""
    tensors = " and ".join(name or "of its first output" for name in made.outputs)
    return (
        f"This model needs a file that it does not hold: the network {Path(made.model).name} that "
        f"makes its embeddings (tensor {tensors}, content "
        f"{made.model_digest}). It is looked for as {made.model}, and in the places that the "
        f"environment variable {PLACES} lists; any other file is refused."
    )


def _provenance(recipe: Recipe, folder: RunFolder) -> dict[str, str]:
    first = folder.stage(recipe.stages[0].name) / "fold0.safetensors"
    return {
        "training data": str(folder.config()["data"]),
        "recipe digest": recipe.digest,
        "seed": str(recipe.seed),
        "backbone weights": load_tensors(first)[1].get("from", "unknown"),
        "antpitta": version("antpitta"),
        "torch": version("torch"),
        "timm": version("timm"),
    }


def _left_out(data: OpenedDataset) -> tuple[str, ...]:
    lines = [str(finding) for finding in data.findings]
    if data.missing:
        lines.insert(0, f"{data.missing} of {data.rows} rows name recordings that are not here")
    return tuple(lines)
