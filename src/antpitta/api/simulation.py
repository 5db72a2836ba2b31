"""simulate, simulate_callers, demo: recordings with complete ground truth, and all steps on them.

``simulate`` makes soundscapes from the clips and backgrounds of a user, ``simulate_callers`` from
eight invented species over coloured noise. ``demo`` trains on the latter.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import numpy as np
from pydantic import InstanceOf

from antpitta.api.data import SILENT, check, open_data
from antpitta.api.evaluation import evaluate
from antpitta.api.prediction import predict_to
from antpitta.api.queue import candidates
from antpitta.api.training import TrainResult, train
from antpitta.core.arguments import Number, PathArgument, Words, as_words, checked
from antpitta.core.errors import Finding, UserError, requires_train_extra
from antpitta.core.progress import Progress
from antpitta.files.cache import check_cache
from antpitta.files.locks import is_empty, lock_folder
from antpitta.files.runs import RunFolder
from antpitta.files.simulated import (
    SimulatedData,
    SimulatedRecording,
    SimulatedSpecies,
    read_backgrounds,
    read_clips,
    write_simulation,
)
from antpitta.predict.exports import read_events
from antpitta.scores.evaluate import Report
from antpitta.sound import simulation as soundscapes
from antpitta.sound.ambience import BackgroundSource, background_source, demo_backgrounds
from antpitta.sound.simulation import Scene, SimulationConfig, draw_prevalences, simulate_validation
from antpitta.sound.species_sources import SPLITS, SpeciesSource, species_sources
from antpitta.sound.synthetic_species import demo_species

SPECIES_STREAM, VALIDATION_STREAM = 1, 5  # independent random streams of one seed
DEMO_DRAW = 48  # candidates to listen to: a page
DEMO_PLAN = SimulationConfig(
    train=60, test=40, seconds=30.0, sample_rate=16_000, present=16, absent=48
)


@checked
def simulate(
    clips: PathArgument,
    backgrounds: PathArgument,
    out: PathArgument,
    plan: InstanceOf[SimulationConfig] | None = None,
    *,
    channel: Number | None = None,
    replace: bool = False,
) -> tuple[SimulatedData, tuple[Finding, ...]]:
    """Simulate soundscapes with complete ground truth, from clips and background sound.

    Parameters
    ----------
    clips
        A folder with one folder of clips for each species.
    backgrounds
        A folder of background sound.
    out
        The folder of the new data set.
    plan
        Number, length and sample rate of the recordings, and number of boxes; without it
        160 training and 80 test recordings of a minute at 32 kHz.
    channel
        The channel of each clip and background, counted from 1; by default the mean of all.
    replace
        Replace an earlier simulation in ``out``.

    Returns
    -------
    SimulatedData
        Where the files are, and how many.
    tuple of Finding
        Clips and backgrounds that could not be used.

    Raises
    ------
    UserError
        If no clip or no background can be used, or if ``out`` is not empty.

    Examples
    --------
    >>> antpitta.api.simulate("clips", "backgrounds", "soundscapes")  # doctest: +SKIP
    """
    plan = plan or SimulationConfig(train=160, test=80, seconds=60.0, sample_rate=32_000)
    waves, unusable_clips = read_clips(Path(clips), plan.sample_rate, channel)
    files, unusable_files = read_backgrounds([Path(backgrounds)], plan.sample_rate, channel)
    rng = np.random.default_rng([plan.seed, SPECIES_STREAM])
    species = species_sources(waves, plan.sample_rate, rng)
    background = {side: (background_source(files[side], plan.sample_rate),) for side in SPLITS}
    simulated = _write(plan, species, background, Path(out), replace)
    return simulated, (*unusable_clips, *unusable_files)


@checked
def simulate_callers(
    out: PathArgument, plan: InstanceOf[SimulationConfig] | None = None, *, replace: bool = False
) -> SimulatedData:
    """Simulate soundscapes of eight invented species over coloured noise.

    Parameters
    ----------
    out
        The folder of the new data set.
    plan
        Number, length and sample rate of the recordings, and number of boxes.
    replace
        Replace an earlier simulation in ``out``.

    Returns
    -------
    SimulatedData
        Where the files are, and how many.

    Raises
    ------
    UserError
        If ``out`` is not empty.

    Examples
    --------
    >>> antpitta.api.simulate_callers("soundscapes")  # doctest: +SKIP
    """
    plan = plan or SimulationConfig()
    species = {side: demo_species(plan.sample_rate, side, plan.seed) for side in SPLITS}
    background = {side: demo_backgrounds(plan.sample_rate, side, plan.seed) for side in SPLITS}
    return _write(plan, species, background, Path(out), replace)


@dataclass(frozen=True)
class DemoResult:
    """The result of :func:`demo`.

    Attributes
    ----------
    run : the finished run
    predictions : the folder of the predictions of the model, on the test recordings
    reports : the metrics of each stage on the test recordings, against complete ground truth
    queue : of the detections, for the review page; None where there is no detection
    """

    run: TrainResult
    predictions: Path
    reports: tuple[Report, ...] = field(repr=False)
    queue: Path | None = None


@checked
def demo(
    out: PathArgument = "demo",
    *,
    plan: InstanceOf[SimulationConfig] = DEMO_PLAN,
    changes: Words = (),
    progress: InstanceOf[Progress] = SILENT,
) -> DemoResult:
    """Simulate recordings, check, train, predict, evaluate, report, and queue what to listen to.

    Parameters
    ----------
    out
        A new or empty folder for everything.
    plan
        Number, length and sample rate of the recordings, and number of boxes.
    changes
        Changed settings of the recipe ``demo``.
    progress
        Receives messages and progress.

    Returns
    -------
    DemoResult
        The run, the predictions, the metrics of each stage and the queue.

    Raises
    ------
    UserError
        ``E_OUT_NOT_EMPTY`` if ``out`` holds something; ``E_NEEDS_TRAIN_EXTRA`` in an installation
        without PyTorch.

    Examples
    --------
    >>> antpitta.demo("demo").reports[-1].macro_ap.value  # doctest: +SKIP
    """
    with requires_train_extra("demo"):  # before anything is simulated
        import_module("antpitta.train.training")
    check_cache()
    home = Path(out)
    with lock_folder(home):
        if not is_empty(home):
            raise UserError(
                "E_OUT_NOT_EMPTY",
                f"{home} is not empty",
                "remove it, or choose another folder with --out",
            )
        return _demo(home, plan, as_words(changes), progress)


def _demo(
    home: Path, plan: SimulationConfig, changes: tuple[str, ...], progress: Progress
) -> DemoResult:
    from antpitta.api.run_report import write_report

    simulated = simulate_callers(home / "data", plan)
    progress.message(
        f"simulated {simulated.train} training and {simulated.test} test recordings in "
        f"{simulated.data}"
    )
    data = open_data(home / "data")
    checked = check(data, picture=home / "supervision.png")
    progress.message(f"checked: {checked.summary}")
    run = train(data, "demo", home / "run", changes=changes, progress=progress)
    reports = tuple(
        _evaluate_stage(stage.name, run.path, home, progress) for stage in run.run_report.stages
    )
    stages = tuple(
        replace(stage, truth=report)
        for stage, report in zip(run.run_report.stages, reports, strict=True)
    )
    run = TrainResult(run.path, replace(run.run_report, stages=stages))
    write_report(RunFolder(run.path), run.run_report)
    predictions = home / "stages" / run.run_report.shipped
    queue = None
    if len(read_events(predictions)):
        queue = home / "queue"
        candidates([predictions], queue, audio=[home / "data" / "test"], teach=DEMO_DRAW)
    return DemoResult(run, predictions, reports, queue)


def _evaluate_stage(stage: str, run: Path, home: Path, progress: Progress) -> Report:
    """Predict the test recordings with the model of a stage, and evaluate it."""
    out = home / "stages" / stage

    def update(done: int, total: int, speed: float) -> None:
        progress.update(f"{stage} on the test recordings", done, total, float("nan"))

    model = RunFolder(run).stage(stage) / "model"
    predict_to(model, [home / "data" / "test"], out, progress=update)
    evaluation = evaluate(out, home / "data" / "test_truth.csv")
    return replace(evaluation.reports[0], source=stage)


def _write(
    plan: SimulationConfig,
    species: Mapping[str, Sequence[SpeciesSource]],
    backgrounds: Mapping[str, Sequence[BackgroundSource]],
    out: Path,
    replace: bool,
) -> SimulatedData:
    train_side, test_side = SPLITS
    callers = species[train_side]
    rows = [
        SimulatedSpecies(caller.name, caller.low, caller.high, caller.duration, float(share))
        for caller, share in zip(callers, draw_prevalences(plan, len(callers)), strict=True)
    ]
    scenes: list[Scene] = []
    rng = np.random.default_rng([plan.seed, VALIDATION_STREAM])
    return write_simulation(
        out,
        plan.sample_rate,
        rows,
        _recordings(plan, train_side, callers, backgrounds[train_side], scenes),
        _recordings(plan, test_side, species[test_side], backgrounds[test_side], None),
        lambda: simulate_validation(scenes, callers, rng, plan.present, plan.absent),
        replace=replace,
    )


def _recordings(
    plan: SimulationConfig,
    side: str,
    species: Sequence[SpeciesSource],
    backgrounds: Sequence[BackgroundSource],
    scenes: list[Scene] | None,
) -> Iterator[SimulatedRecording]:
    """The recordings of a side; their scenes are appended to ``scenes``."""
    for soundscape in soundscapes.simulate(plan, side, species, backgrounds):
        if scenes is not None:
            scenes.append(soundscape.scene)
        scene = soundscape.scene
        yield scene.recording, soundscape.wave, scene.truth
