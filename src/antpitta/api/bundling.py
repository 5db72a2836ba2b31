"""From a stage of a finished run to the bundle that predict takes."""

from pathlib import Path

from antpitta.core.config import Recipe
from antpitta.core.types import Scores
from antpitta.core.voice import Voice
from antpitta.files.bundle import Bundle, write_bundle
from antpitta.files.dataset import Opened
from antpitta.files.runs import RunFolder, load_tensors, read_scores
from antpitta.learn.exporting import Exported, export_networks
from antpitta.learn.run import last_cycle
from antpitta.report.card import render_card
from antpitta.report.story import Story
from antpitta.scores.boxes import box_cells
from antpitta.scores.events import training_bands
from antpitta.scores.thresholds import choose_thresholds

LICENCE = "Of the recordings it was trained on; antpitta itself is Apache-2.0."
NOTHING = Exported({})


def bundle_stages(run: tuple[Recipe, RunFolder], data: Opened, story: Story) -> None:
    """A bundle beside the weights of every stage and cycle."""
    recipe, folder = run
    for stage in recipe.stages:
        for cycle in range(1, last_cycle(recipe, stage.name) + 1):
            model = folder.stage(stage.name, cycle) / "model"
            bundle_stage(run, data, (stage.name, cycle), model, story)


def bundle_stage(
    run: tuple[Recipe, RunFolder],
    data: Opened,
    place: tuple[str, int],
    path: Path,
    story: Story,
    exported: Exported = NOTHING,
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
    arithmetic = [(one.name, one.macro_ap, one.loss, one.kept) for one in exported.figures]
    place_of = str(Path(folder.path.name) / "model")
    card = render_card(story, licence=LICENCE, model=place_of, arithmetic=arithmetic)
    return write_bundle(bundle, [home / name for name in names], card, exported.networks)


def export_stage(
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
