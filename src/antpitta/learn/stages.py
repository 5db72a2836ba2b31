"""A run: folds x stages, each stage scored by models that never saw the recording.

A stage is data (core/stages.py). A stage with pseudo labels runs in cycles: the first is taught
by another stage's out-of-fold scores, each later one by the out-of-fold scores of the cycle
before. What is finished is found again on the disk, so a run can be killed and resumed anywhere.

Several processes run this together: all train, each scores its share of the held-out recordings,
and the first alone writes. The others wait where they would read what it writes.
"""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from antpitta.core.errors import UserMistake
from antpitta.core.stages import Stage
from antpitta.core.types import Scores, Targets
from antpitta.files.runs import CheckpointFile, save_tensors, write_scores
from antpitta.files.tables import write_csv
from antpitta.learn.fit import Progress, Task, fit, lend
from antpitta.learn.keepers import Patient, Reader
from antpitta.learn.lanes import SINGLE_FILE
from antpitta.learn.out_of_fold import (
    folds_of,
    gather_scores,
    heard_out_of_fold,
    scan_recordings,
)
from antpitta.learn.pseudo import teach
from antpitta.learn.run import Run, build_net, cycles_of, draws, last_cycle, load_net, weights_path
from antpitta.learn.solve import solve
from antpitta.net.sed import SedNet

Ints = NDArray[np.int64]


def run_stages(run: Run) -> None:
    """Train and score every stage, cycle and fold that is not finished yet."""
    if run.lanes.count > 1 and draws(run.mould.cast(lambda: build_net(run, empty=True))):
        raise UserMistake(
            f"backbone {run.recipe.network.backbone}: drops units at random, and lanes would mix "
            "their random numbers; leave --lanes out"
        )
    for number, stage in enumerate(run.recipe.stages):
        for cycle in range(1, cycles_of(stage) + 1):
            with run.timed(stage, cycle, "teach"):
                taught = _lesson(run, stage, cycle) if stage.pseudo else None
            with run.timed(stage, cycle, "train"):
                train = partial(_train_fold, run, stage, (number, cycle), taught)
                run.lanes.each(range(run.recipe.folds), train)
            with run.timed(stage, cycle, "score"):
                _score_stage(run, stage, cycle)
                run.fabric.barrier()


def _train_fold(
    run: Run, stage: Stage, place: tuple[int, int], taught: Targets | None, fold: int, lane: int
) -> None:
    number, cycle = place
    path = weights_path(run, stage.name, cycle, fold)
    if path.is_file():
        return
    file = CheckpointFile(path.with_suffix(".checkpoint"))
    keeper = Patient(file) if run.first else Reader(file)
    with SINGLE_FILE:
        net, origin = _begun(run, stage, fold)
        if run.shells:
            net = run.shells[lane].take(net)
        seen = run.bank.of(net, stage, run.material)
    train = np.flatnonzero(run.folds != fold)
    if stage.pasted:
        train = run.material.with_copies(train)
    seed = (run.recipe.seed, number, cycle, fold)
    task = Task(stage, train, taught, seed, seen, bool(run.shells))
    report = partial(_report, run, stage, cycle, fold)
    if stage.solver == "lbfgs":
        solve(net, task, run.material, run.fabric, report)
    else:
        fit(net, task, run.material, run.fabric, keeper, report)
    lend(net, task, run.material, run.fabric.device)
    if run.first:
        save_tensors(net.state_dict(), path, {"stage": stage.name, "from": origin})
        file.path.unlink(missing_ok=True)
    run.fabric.barrier()


def _begun(run: Run, stage: Stage, fold: int) -> tuple[SedNet, str]:
    """The network that a fold of a stage starts from, and where it comes from."""
    if stage.start is None:
        torch.manual_seed(run.recipe.seed * 1000 + fold)  # the head's first weights
        net = build_net(run)
        return net, net.origin
    net = load_net(run, stage.start, last_cycle(run.recipe, stage.start), fold)
    return net, f"stage {stage.start}"


def _report(run: Run, stage: Stage, cycle: int, fold: int, progress: Progress) -> None:
    run.lanes.check()
    if not run.first:
        return
    row = {"stage": stage.name, "cycle": cycle, "fold": fold, **vars(progress)}
    what = f"{stage.name}{'' if cycle == 1 else f' cycle {cycle}'} fold {fold + 1}"
    epochs = 1 if stage.solver == "lbfgs" else stage.epochs
    with SINGLE_FILE:
        run.folder.log([row])
        run.record(row)
        run.voice.tick(what, progress.epoch, epochs, progress.loss)


def _score_stage(run: Run, stage: Stage, cycle: int) -> None:
    """Each recording, scored by the one model of the stage that did not train on it."""
    path = run.folder.stage(stage.name, cycle) / "oof_scores.parquet"
    if path.is_file():
        return

    def score(fold: int, lane: int) -> list[Scores]:
        net = load_net(run, stage.name, cycle, fold)
        source = f"{run.source}/{run.folder.stage(stage.name, cycle).name}/fold{fold}"
        held_out = np.flatnonzero(run.folds == fold)
        mine = held_out[run.fabric.global_rank :: run.fabric.world_size]
        windows = run.recipe.windows
        return scan_recordings(net, run.material, windows, mine, source, run.fabric)

    every = run.lanes.each(range(run.recipe.folds), score)
    found = gather_scores(run.fabric, [scores for some in every for scores in some])
    if run.first:
        place = {r.id: i for i, r in enumerate(run.material.dataset.recordings)}
        write_scores(sorted(found, key=lambda scores: place[scores.recording]), path)


def _lesson(run: Run, stage: Stage, cycle: int) -> Targets:
    """The pseudo labels of one cycle; their provenance is kept beside the weights."""
    pseudo = stage.pseudo
    assert pseudo is not None
    if cycle == 1:
        teacher, taught_in = pseudo.teacher, last_cycle(run.recipe, pseudo.teacher)
    else:
        teacher, taught_in = stage.name, cycle - 1
    folder, dataset = run.folder.stage(teacher, taught_in), run.material.dataset
    members = {run.source: heard_out_of_fold(dataset, folder / "oof_scores.parquet", run.folds)}
    for other in run.members:
        path = other.path / "oof_scores.parquet"
        members[str(other.path)] = heard_out_of_fold(dataset, path, folds_of(dataset, other))
    lesson = teach(run.material, members, pseudo)
    if run.first:
        home = run.folder.stage(stage.name, cycle)
        home.mkdir(parents=True, exist_ok=True)
        write_csv(lesson.table, home / "pseudo.csv")
    run.voice.say(
        f"{stage.name} cycle {cycle}: {len(lesson.table)} labels in "
        f"{lesson.table['recording'].nunique()} recordings, taught by {folder.name}, out of fold; "
        f"{int(lesson.hard.sum())} hard negatives kept apart"
    )
    return lesson.taught
