"""demo: the whole story on built-in sound, ending with what each stage gained."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from antpitta.api.data import QUIET, check, open_data
from antpitta.api.evaluation import evaluate
from antpitta.api.prediction import predict_to
from antpitta.api.simulation import simulate_callers
from antpitta.api.training import Trained, train, write_report
from antpitta.core.errors import UserMistake
from antpitta.core.voice import Voice
from antpitta.files.runs import RunFolder
from antpitta.report.story import Story
from antpitta.scores.evaluate import Report
from antpitta.sound.simulate import Simulation

PLAN = Simulation(train=60, test=40, seconds=30.0, sample_rate=16_000, present=16, absent=48)


@dataclass(frozen=True)
class Demonstration:
    """Where everything lies, and how each stage did on recordings it never saw."""

    run: Trained
    found: Path
    reports: tuple[Report, ...]  # a stage each, against the whole truth of the test recordings


def demo(
    out: Path | str = "demo",
    *,
    plan: Simulation = PLAN,
    changes: tuple[str, ...] = (),
    voice: Voice = QUIET,
) -> Demonstration:
    """Simulate, check, train, predict and evaluate, into the folder ``out``.

    Raises UserMistake where ``out`` holds something already.
    """
    home = Path(out)
    if home.exists() and any(home.iterdir()):
        raise UserMistake(f"{home}: is not empty; remove it, or choose another folder with --out")
    made = simulate_callers(home / "data", plan)
    voice.say(f"simulated {made.train} training and {made.test} test recordings in {made.data}")
    data = open_data(home / "data")
    checked = check(data, picture=home / "supervision.png")
    voice.say(f"checked: {checked.summary}")
    run = train(data, "demo", home / "run", changes=changes, voice=voice)
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
            tick=lambda done, total, speed, name=stage.name: voice.tick(  # type: ignore[misc]
                f"{name} on the test recordings", done, total, float("nan")
            ),
        )
        scored = evaluate(found / "presence.csv", truth)
        reports.append(replace(scored.reports[0], source=stage.name))
    write_report(RunFolder(run.path), _with_truth(run.story, tuple(reports)))
    return Demonstration(run, home / "stages" / run.story.stages[-1].name, tuple(reports))


def _with_truth(story: Story, reports: tuple[Report, ...]) -> Story:
    stages = tuple(
        replace(stage, truth=report) for stage, report in zip(story.stages, reports, strict=True)
    )
    return replace(story, stages=stages)
