"""train: from a data set and a recipe to a bundle, with the report of how good it is."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from antpitta.api.bundling import NOTHING, bundle_stage, bundle_stages, export_stage
from antpitta.api.data import QUIET
from antpitta.api.story import known_species, tell
from antpitta.core.config import Recipe
from antpitta.core.types import Dataset, Scores
from antpitta.core.voice import Voice
from antpitta.files.dataset import Opened
from antpitta.files.digest import digest_of
from antpitta.files.prevalence import write_prevalence
from antpitta.files.recipes import read_recipe
from antpitta.files.runs import RunFolder, read_scores, write_scores
from antpitta.files.texts import replacing
from antpitta.learn.engine import Engine, build_fabric
from antpitta.learn.run import last_cycle
from antpitta.learn.spans import pin_recipe
from antpitta.learn.train import train_stages
from antpitta.report.page import render_page
from antpitta.report.story import Story
from antpitta.scores.boxes import box_cells
from antpitta.scores.evaluate import to_json
from antpitta.scores.mixture import believed

PACKAGES = ("antpitta", "torch", "timm", "numpy", "openvino", "soundfile", "soxr")


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
    lanes: int = 1,
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
    engine = Engine(device, devices, precision, compile, tune, lanes)
    build_fabric(engine)  # a mistake is told before the folder is claimed
    folder = RunFolder(Path(out))
    folder.begin(_config(data, chosen), resume=resume)
    voice.say(_counts(data))
    if known := known_species(chosen, data):
        voice.say(known)
    train_stages(data.dataset, chosen, folder, voice, engine)
    story = tell(data, chosen, folder)
    run = chosen, folder
    bundle_stages(run, data, story)
    last = chosen.stages[-1].name
    final = last_cycle(chosen, last)
    home = folder.stage(last, final)
    scores = _keep_scores(home, data.dataset, folder.path)
    exported = export_stage(run, data, home, scores, voice) if export else NOTHING
    bundle_stage(run, data, (last, final), folder.model, story, exported)
    write_report(folder, story)
    return Trained(folder.path, story)


def _keep_scores(home: Path, dataset: Dataset, out: Path) -> list[Scores]:
    """The last stage's scores out of fold; as the run's own, by judged cell, and prevalences."""
    scores = read_scores(home / "oof_scores.parquet")
    write_scores(scores, out / "oof_scores.parquet")
    names, highest = [one.recording for one in scores], [one.value.max(axis=0) for one in scores]
    shares = believed(np.array(highest), names, dataset.annotations, dataset.classes)
    write_prevalence(dataset.classes.names, shares, out / "prevalence.csv")
    cells = box_cells(scores, dataset.annotations, dataset.classes)
    with replacing(out / "oof_cells.parquet") as part:
        cells.to_parquet(part, index=False)
    return scores


def write_report(folder: RunFolder, story: Story) -> None:
    """report.json and report.html of a run."""
    stages = [
        {"name": one.name, "says": one.says, "report": to_json(one.report)} for one in story.stages
    ]
    kept = {"stages": stages, "left_out": list(story.left_out)}
    folder.write_report(kept, render_page(story))


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
