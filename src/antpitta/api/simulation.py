"""simulate: soundscapes of known truth, from anyone's clips or from the built-in callers.

demo: the whole story on built-in sound, ending with what each stage gained.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from antpitta.api.data import QUIET, check, open_data
from antpitta.api.evaluation import evaluate
from antpitta.api.prediction import predict_to
from antpitta.core.errors import Finding, UserError, requires_train_extra
from antpitta.core.progress import Progress
from antpitta.files.runs import RunFolder
from antpitta.files.simulated import (
    SimulatedData,
    SimulatedRecording,
    SimulatedSpecies,
    read_backgrounds,
    read_clips,
    write_simulation,
)
from antpitta.report.results import RunReport
from antpitta.scores.evaluate import Report
from antpitta.sound import simulation as scapes
from antpitta.sound.ambience import BackgroundSource, background_source, demo_backgrounds
from antpitta.sound.simulation import Scene, SimulationConfig, draw_prevalences, simulate_validation
from antpitta.sound.species_sources import SPLITS, SpeciesSource, species_sources
from antpitta.sound.synthetic_species import demo_species

if TYPE_CHECKING:
    from antpitta.api.training import TrainResult


def simulate(
    clips: Path | str,
    backgrounds: Path | str,
    out: Path | str,
    plan: SimulationConfig | None = None,
    *,
    replace: bool = False,
) -> tuple[SimulatedData, tuple[Finding, ...]]:
    """Soundscapes from a folder of clips per species and a folder of backgrounds.

    Also returns the clips and backgrounds that could not be used. Raises UserError where too
    little can be.
    """
    plan = plan or SimulationConfig(train=160, test=80, seconds=60.0, sample_rate=32_000)
    waves, unusable = read_clips(Path(clips), plan.sample_rate)
    sources, more = read_backgrounds([Path(backgrounds)], plan.sample_rate)
    voices = species_sources(waves, plan.sample_rate, np.random.default_rng([plan.seed, 1]))
    beds = {side: (background_source(sources[side], plan.sample_rate),) for side in SPLITS}
    return _write(plan, voices, beds, Path(out), replace), (*unusable, *more)


def simulate_callers(
    out: Path | str, plan: SimulationConfig | None = None, *, replace: bool = False
) -> SimulatedData:
    """The demonstration's soundscapes: eight invented species over coloured noise."""
    plan = plan or SimulationConfig()
    voices = {side: demo_species(plan.sample_rate, side, plan.seed) for side in SPLITS}
    beds = {side: demo_backgrounds(plan.sample_rate, side, plan.seed) for side in SPLITS}
    return _write(plan, voices, beds, Path(out), replace)


def _write(
    plan: SimulationConfig,
    voices: Mapping[str, Sequence[SpeciesSource]],
    beds: Mapping[str, Sequence[BackgroundSource]],
    out: Path,
    replace: bool,
) -> SimulatedData:
    scenes: list[Scene] = []
    first, second = SPLITS
    rows = [
        SimulatedSpecies(source.name, source.low, source.high, source.duration, float(share))
        for source, share in zip(
            voices[first], draw_prevalences(plan, len(voices[first])), strict=True
        )
    ]
    rng = np.random.default_rng([plan.seed, 5])
    return write_simulation(
        out,
        plan.sample_rate,
        rows,
        _scapes(plan, first, voices[first], beds[first], scenes),
        _scapes(plan, second, voices[second], beds[second], None),
        lambda: simulate_validation(scenes, voices[first], rng, plan.present, plan.absent),
        replace=replace,
    )


def _scapes(
    plan: SimulationConfig,
    side: str,
    voices: Sequence[SpeciesSource],
    beds: Sequence[BackgroundSource],
    keep: list[Scene] | None,
) -> Iterator[SimulatedRecording]:
    for made in scapes.simulate(plan, side, voices, beds):
        if keep is not None:
            keep.append(made.scene)
        yield made.scene.recording, made.wave, made.scene.truth


PLAN = SimulationConfig(train=60, test=40, seconds=30.0, sample_rate=16_000, present=16, absent=48)


@dataclass(frozen=True)
class DemoResult:
    """Where everything lies, and how each stage did on recordings it never saw."""

    run: "TrainResult"
    found: Path
    reports: tuple[Report, ...]  # a stage each, against the whole truth of the test recordings


def demo(
    out: Path | str = "demo",
    *,
    plan: SimulationConfig = PLAN,
    changes: tuple[str, ...] = (),
    progress: Progress = QUIET,
) -> DemoResult:
    """Simulate, check, train, predict and evaluate, into the folder ``out``.

    Raises UserError where ``out`` holds something already.
    """
    with requires_train_extra("demo"):
        from antpitta.api.training import train, write_report
    home = Path(out)
    if home.exists() and any(home.iterdir()):
        raise UserError(
            "E_TODO", f"{home}: is not empty", "remove it, or choose another folder with --out"
        )
    made = simulate_callers(home / "data", plan)
    progress.message(
        f"simulated {made.train} training and {made.test} test recordings in {made.data}"
    )
    data = open_data(home / "data")
    checked = check(data, picture=home / "supervision.png")
    progress.message(f"checked: {checked.summary}")
    run = train(data, "demo", home / "run", changes=changes, progress=progress)
    truth = home / "data" / "test_truth.csv"
    reports = []
    for stage in run.story.stages:
        model = RunFolder(run.path).path / "stages" / stage.name / "model"
        found = home / "stages" / stage.name
        shutil.rmtree(found, ignore_errors=True)  # of a demonstration that was stopped
        predict_to(
            model,
            [home / "data" / "test"],
            found,
            tick=lambda done, total, speed, name=stage.name: progress.update(  # type: ignore[misc]
                f"{name} on the test recordings", done, total, float("nan")
            ),
        )
        scored = evaluate(found / "presence.csv", truth)
        reports.append(replace(scored.reports[0], source=stage.name))
    write_report(RunFolder(run.path), _with_truth(run.story, tuple(reports)))
    return DemoResult(run, home / "stages" / run.story.stages[-1].name, tuple(reports))


def _with_truth(story: RunReport, reports: tuple[Report, ...]) -> RunReport:
    stages = tuple(
        replace(stage, truth=report) for stage, report in zip(story.stages, reports, strict=True)
    )
    return replace(story, stages=stages)
