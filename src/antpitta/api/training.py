"""train: from a data set and a recipe to a bundle, with the report of how good it is."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from antpitta.api.data import QUIET
from antpitta.api.story import known_species, tell
from antpitta.core.config import Recipe
from antpitta.core.types import Scores
from antpitta.core.voice import Voice
from antpitta.files.bundle import Bundle, write_bundle
from antpitta.files.dataset import Opened
from antpitta.files.digest import digest_of
from antpitta.files.prevalence import write_prevalence
from antpitta.files.recipes import read_recipe
from antpitta.files.runs import RunFolder, load_tensors, read_scores, write_scores
from antpitta.files.tables import replacing
from antpitta.learn.engine import Engine
from antpitta.learn.exporting import Exported, export_networks
from antpitta.learn.spans import pin_recipe
from antpitta.learn.stages import last_cycle
from antpitta.learn.train import train_stages
from antpitta.report.card import render_card
from antpitta.report.page import render_page
from antpitta.report.story import Story
from antpitta.scores.boxes import box_cells
from antpitta.scores.evaluate import to_json
from antpitta.scores.events import training_bands
from antpitta.scores.thresholds import choose_thresholds

LICENCE = "Of the recordings it was trained on; antpitta itself is Apache-2.0."
PACKAGES = ("antpitta", "torch", "timm", "numpy", "openvino", "soundfile", "soxr")
NOTHING = Exported({})


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    path: Path
    story: Story

    @property
    def model(self) -> Path:
        """The bundle that predict takes."""
        return RunFolder(self.path).model


def train(
    data: Opened,
    recipe: str = "quick",
    out: Path | str = "runs/antpitta",
    *,
    changes: tuple[str, ...] = (),
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    precision: str = "auto",
    compile: bool = False,
    tune: bool = False,
    export: bool = True,
    voice: Voice = QUIET,
) -> Trained:
    """Train all stages of a recipe, and write the run's folder.

    ``changes`` are settings such as ``stages.masked.epochs=3``. With ``resume`` a run that was
    stopped goes on. ``export`` adds the networks that OpenVINO predicts with, and measures them.
    The rest is how to compute (learn/engine.py); a script that asks for several ``devices`` keeps
    its own work below ``if __name__ == "__main__"``. Raises UserMistake for data or settings that
    cannot be trained on.
    """
    chosen = pin_recipe(read_recipe(recipe, changes), data.dataset)
    folder = RunFolder(Path(out))
    folder.begin(_config(data, chosen), resume=resume)
    voice.say(_counts(data))
    if known := known_species(chosen, data):
        voice.say(known)
    engine = Engine(device, devices, precision, compile, tune)
    train_stages(data.dataset, chosen, folder, voice, engine)
    story = tell(data, chosen, folder)
    last = chosen.stages[-1].name
    for stage in chosen.stages:
        for cycle in range(1, last_cycle(chosen, stage.name) + 1):
            home = folder.stage(stage.name, cycle)
            _bundle((chosen, folder), data, (stage.name, cycle), home / "model", story)
    scores = read_scores(folder.stage(last, last_cycle(chosen, last)) / "oof_scores.parquet")
    write_scores(scores, folder.path / "oof_scores.parquet")
    presence = np.array([one.value.max(axis=0) for one in scores])
    write_prevalence(data.dataset.classes.names, presence, folder.path / "prevalence.csv")
    cells = box_cells(scores, data.dataset.annotations, data.dataset.classes)
    with replacing(folder.path / "oof_cells.parquet") as part:
        cells.to_parquet(part, index=False)
    final = last_cycle(chosen, last)
    exported = NOTHING
    if export:
        exported = _exported((chosen, folder), data, folder.stage(last, final), scores, voice)
    _bundle((chosen, folder), data, (last, final), folder.model, story, exported)
    write_report(folder, story)
    return Trained(folder.path, story)


def write_report(folder: RunFolder, story: Story) -> None:
    """report.json and report.html of a run."""
    stages = [
        {"name": one.name, "says": one.says, "report": to_json(one.report)} for one in story.stages
    ]
    kept = {"stages": stages, "left_out": list(story.left_out)}
    folder.write_report(kept, render_page(story))


def _bundle(
    run: tuple[Recipe, RunFolder],
    data: Opened,
    place: tuple[str, int],
    path: Path,
    story: Story,
    exported: Exported = NOTHING,
) -> Bundle:
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
    arithmetic = [(one.name, one.macro_ap, one.loss, one.kept) for one in exported.figures]
    place_of = str(Path(folder.path.name) / "model")
    card = render_card(story, licence=LICENCE, model=place_of, arithmetic=arithmetic)
    return write_bundle(bundle, [home / name for name in names], card, exported.networks)


def _exported(
    run: tuple[Recipe, RunFolder], data: Opened, home: Path, scores: list[Scores], voice: Voice
) -> Exported:
    """The networks of a stage, and a line about what was measured of them."""
    recipe, folder = run
    states = [load_tensors(home / name)[0] for name in _weights(recipe)]
    exported = export_networks(
        *(data.dataset, recipe, states, folder.folds(), scores),
        lambda done, total: voice.tick("exporting", done, total, float("nan")),
    )
    for one in exported.figures[1:]:
        told = "kept" if one.kept else "left out of the model"
        voice.say(f"{one.name}: macro AP {one.macro_ap:.4f}, {one.loss:+.4f} lost; {told}")
    return exported


def _weights(recipe: Recipe) -> tuple[str, ...]:
    return tuple(f"fold{fold}.safetensors" for fold in range(recipe.folds))


def _config(data: Opened, recipe: Recipe) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "data": digest_of(data.dataset),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _counts(data: Opened) -> str:
    dataset = data.dataset
    present = sum(said.present for said in dataset.annotations)
    text = (
        f"{len(dataset.recordings)} recordings, {len(dataset.classes)} species, "
        f"{present} present and {len(dataset.annotations) - present} absent boxes"
    )
    if data.missing:
        text += f"; {data.missing} of {data.rows} rows name recordings that are not here"
    return text
