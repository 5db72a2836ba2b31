"""A run: folds x stages, each stage scored by models that never saw the recording.

A stage is data (core/stages.py). A stage with pseudo-labels runs in cycles: the first takes them
from another stage's out-of-fold scores, each later one from those of the cycle before. Finished
parts are found on the disk and skipped, so a run can be killed and resumed anywhere.

Several processes run this together: all of them train, each scores its share of the held-out
recordings, and only the main process writes. The others wait where they need what it writes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from antpitta.core.config import BASELINE_STAGE, Recipe
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.core.stages import Stage
from antpitta.core.types import Scores, Targets, WindowScores
from antpitta.files.own_files import explain_damage, load_tensors, save_tensors
from antpitta.files.runs import (
    CheckpointFile,
    RunFolder,
    write_scores,
    write_windows,
)
from antpitta.model.fusion import with_trainable_grey_stem
from antpitta.model.network import SedNet
from antpitta.train.backbone_features import FeatureCache
from antpitta.train.calibration import calibrate, reset_prior_shift
from antpitta.train.checkpoints import ReadOnlyStore, ThrottledStore
from antpitta.train.compute import PROCESS_LOCK, CompiledModel, ParallelFolds
from antpitta.train.data import (
    EpochResult,
    TrainingData,
    TrainTask,
)
from antpitta.train.linear_head import solve_linear_head
from antpitta.train.loop import fit
from antpitta.train.member_tables import MemberTable
from antpitta.train.out_of_fold import (
    SCORE_FILES,
    gather_scores,
    held_out_lwlrap,
    read_member,
    read_out_of_fold,
    score_recordings,
    score_windows,
)
from antpitta.train.pseudo import make_pseudo_labels
from antpitta.train.step_store import BackboneFeatures

Ints = NDArray[np.int64]


@dataclass
class ModelTemplate:
    """One network that all others are copied from: faster than to build each of them."""

    net: SedNet | None = None

    def copy(self, build: Callable[[], SedNet]) -> SedNet:
        """A copy of the network, which ``build`` makes the first time."""
        with PROCESS_LOCK:
            if self.net is None:
                self.net = build()
        return deepcopy(self.net)


@dataclass(frozen=True)
class RunPlan:
    """What is trained.

    Parameters
    ----------
    recipe, training_data
        The settings, and the windows and labels to train on.
    folds : (recordings,)
        The fold that holds each recording out.
    members
        Other runs on the same data, and tables, whose out-of-fold scores join in the pseudo-labels.
    """

    recipe: Recipe
    training_data: TrainingData
    folds: Ints
    members: tuple[RunFolder | MemberTable, ...] = ()


@dataclass(frozen=True)
class RunCompute:
    """How a run computes, and what its folds share while they do.

    Parameters
    ----------
    fabric
        The devices and the precision.
    parallel_folds
        How many folds are trained at a time.
    compiled
        A compiled network for each fold trained at a time; empty without compilation.
    feature_cache
        The features of a frozen backbone.
    template
        The network that copies are made of.
    """

    fabric: Fabric
    parallel_folds: ParallelFolds = field(default_factory=ParallelFolds)
    compiled: tuple[CompiledModel, ...] = ()
    feature_cache: FeatureCache = field(default_factory=FeatureCache)
    template: ModelTemplate = field(default_factory=ModelTemplate)


@dataclass(frozen=True)
class RunMonitor:
    """Who follows a run.

    Parameters
    ----------
    progress
        Messages and progress for the user.
    log_epoch
        Called with each row of ``log.csv``.
    log_seconds
        Called with a stage's name, its cycle, the part of the work (``pseudo_labels``, ``train``
        or ``score``) and the seconds it took.
    """

    progress: Progress
    log_epoch: Callable[[dict[str, Any]], None] = lambda row: None
    log_seconds: Callable[[str, int, str, float], None] = lambda *measured: None


@dataclass(frozen=True)
class Run:
    """What the stages of one run share: what is trained, where it is kept, how, and for whom."""

    plan: RunPlan
    folder: RunFolder
    compute: RunCompute
    monitor: RunMonitor

    @property
    def is_main_process(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.compute.fabric.is_global_zero)

    @contextmanager
    def timed(self, stage: Stage, cycle: int, part: str) -> Iterator[None]:
        """Measure how long the body takes, for ``monitor.log_seconds``."""
        began = time.perf_counter()
        yield
        self.monitor.log_seconds(stage.name, cycle, part, time.perf_counter() - began)

    @property
    def source(self) -> str:
        """The name of this run in the ``source`` column of its scores."""
        return self.folder.path.name


def uses_dropout(net: SedNet) -> bool:
    """Whether the network draws random numbers in training, for dropout or stochastic depth.

    Parameters
    ----------
    net
        The network.

    Returns
    -------
    uses_dropout
        True where any layer has a rate above 0.
    """
    rates = ("p", "drop_prob", "drop_rate")
    return any(
        isinstance(rate := getattr(layer, name, 0), float) and rate > 0
        for layer in net.modules()
        for name in rates
    )


def first_stage_number(recipe: Recipe) -> int:
    """The number of the first stage, which is part of its seeds.

    The baseline is number 0 and the stage after it number 1, also in a run without the baseline:
    so the baseline changes no score of the other stages.

    Parameters
    ----------
    recipe : of the run

    Returns
    -------
    0 if the recipe begins with the baseline, else 1.
    """
    return 0 if recipe.stages[0].name == BASELINE_STAGE else 1


def weights_path(run: Run, stage: str, cycle: int, fold: int) -> Path:
    """The file of the weights of one fold's model.

    Parameters
    ----------
    run
        The run.
    stage
        The name of the stage.
    cycle
        Counted from 1.
    fold
        Counted from 0.

    Returns
    -------
    path
        Below the run's folder; the file may not exist yet.
    """
    return run.folder.stage(stage, cycle) / f"fold{fold}.safetensors"


def build_net(run: Run, *, load_weights: bool = True) -> SedNet:
    """Build the network of a run.

    Parameters
    ----------
    run
        The run, whose recipe and classes shape the network.
    load_weights
        Load the backbone's pretrained weights; otherwise they are random.

    Returns
    -------
    net
        On the CPU, with a head that is not trained.

    Raises
    ------
    UserError
        As :func:`antpitta.model.backbones.build_backbone` does.
    """
    plan = run.plan
    classes, bands = (
        len(plan.training_data.dataset.classes),
        plan.training_data.features.pixels.shape[1],
    )
    net = SedNet(
        plan.recipe.backbone,
        plan.recipe.head,
        classes,
        bands=bands,
        has_zero_shot=plan.recipe.has_zero_shot,
        load_weights=load_weights,
    )
    on_gpu = run.compute.fabric.device.type == "cuda"
    return with_trainable_grey_stem(net, plan.recipe.windows.frames, bands) if on_gpu else net


def load_net(run: Run, stage: str, cycle: int, fold: int) -> SedNet:
    """Load one fold's trained model onto the run's device.

    Parameters
    ----------
    run
        The run.
    stage
        The name of the stage.
    cycle
        Counted from 1.
    fold
        Counted from 0.

    Returns
    -------
    net
        With the weights of that fold, on the run's device.
    """
    net = run.compute.template.copy(lambda: build_net(run, load_weights=False))
    path = weights_path(run, stage, cycle, fold)
    weights = load_tensors(path)[0]
    with explain_damage(path):
        net.load_state_dict(weights)
    device: torch.device = run.compute.fabric.device
    return net.to(device)


def run_stages(run: Run) -> None:
    """Train and score every stage, cycle and fold that is not finished yet.

    Parameters
    ----------
    run
        What is trained, where it is kept, how it is computed, and who follows it.

    Raises
    ------
    UserError
        ``E_DROPOUT`` for parallel folds of a network with dropout, ``E_NO_BOXES`` for a fold
        without boxes, ``E_OTHER_DATA`` for members that were trained on other data.
    """
    _check_dropout(run)
    recipe, parallel_folds = run.plan.recipe, run.compute.parallel_folds
    for number, stage in enumerate(recipe.stages, start=first_stage_number(recipe)):
        for cycle in range(1, stage.cycles + 1):
            with run.timed(stage, cycle, "pseudo_labels"):
                pseudo_labels = _write_pseudo_labels(run, stage, cycle) if stage.pseudo else None
            with run.timed(stage, cycle, "train"):
                train = partial(_train_fold, run, stage, (number, cycle), pseudo_labels)
                parallel_folds.map(train, range(recipe.folds))
            with run.timed(stage, cycle, "score"):
                _score_stage(run, stage, cycle)
                run.compute.fabric.barrier()


def _check_dropout(run: Run) -> None:
    """Refuse parallel folds of a network that draws random numbers: threads share them."""
    if run.compute.parallel_folds.count == 1:
        return
    if uses_dropout(run.compute.template.copy(lambda: build_net(run, load_weights=False))):
        raise UserError(
            "E_DROPOUT",
            f"backbone {run.plan.recipe.backbone.name} uses dropout, which parallel folds cannot "
            "reproduce",
            "remove --parallel-folds",
        )


def _train_fold(
    run: Run,
    stage: Stage,
    position: tuple[int, int],
    pseudo_labels: Targets | None,
    fold: int,
    worker: int,
) -> None:
    """Train one fold's model; ``position`` is the number of the stage and its cycle."""
    number, cycle = position
    plan, compute = run.plan, run.compute
    path = weights_path(run, stage.name, cycle, fold)
    if path.is_file():
        return
    file = CheckpointFile(path.with_suffix(".checkpoint"))
    store = ThrottledStore(file) if run.is_main_process else ReadOnlyStore(file)
    with PROCESS_LOCK:
        net, origin = _initial_net(run, stage, fold)
        if compute.compiled:
            net = compute.compiled[worker].load(net)
        features = _backbone_features(run, net, stage)
    recordings = np.flatnonzero(plan.folds != fold)
    seed = (plan.recipe.seed, number, cycle, fold)
    task = TrainTask(stage, recordings, pseudo_labels, seed, features, bool(compute.compiled))
    report = partial(_report_epoch, run, stage, cycle, fold)
    validate = partial(_validate, run, fold) if stage.keep == "best" else None
    try:
        if stage.optimizer == "lbfgs":
            solve_linear_head(net, task, plan.training_data, compute.fabric, report)
        else:
            fit(net, task, plan.training_data, compute.fabric, store, report, validate)
        _check_finite(net)
    except FloatingPointError as error:
        raise UserError(
            "E_LOSS_NOT_FINITE",
            f"stage {stage.name}, fold {fold + 1}: {error}",
            f"lower stages.{stage.name}.lr or its weights of the loss, such as with "
            f"--set stages.{stage.name}.lr={stage.lr / 10:g}",
        ) from None
    if run.is_main_process:
        save_tensors(net.state_dict(), path, {"stage": stage.name, "from": origin})
        file.path.unlink(missing_ok=True)
    compute.fabric.barrier()


def _check_finite(net: SedNet) -> None:
    """Raise FloatingPointError for a network that the last step of training has broken."""
    if any(t.is_floating_point() and not t.isfinite().all() for t in net.state_dict().values()):
        raise FloatingPointError("the weights are no numbers at the end of training")


def _initial_net(run: Run, stage: Stage, fold: int) -> tuple[SedNet, str]:
    """The network that a fold of a stage starts from, and the origin of its weights."""
    if stage.init_from is None:
        torch.manual_seed(run.plan.recipe.seed * 1000 + fold)  # the head's first weights
        net = build_net(run)
        return net, net.origin
    net = load_net(run, stage.init_from, run.plan.recipe.stage(stage.init_from).cycles, fold)
    return net, f"stage {stage.init_from}"


def _validate(run: Run, fold: int, net: SedNet) -> float:
    """LWLRAP of the recordings that a fold holds out; the main process measures it for all."""
    plan, fabric = run.plan, run.compute.fabric
    value = np.nan
    if run.is_main_process:
        held_out = np.flatnonzero(plan.folds == fold)
        data, windows = plan.training_data, plan.recipe.windows
        value = held_out_lwlrap(net, data, windows, held_out, fabric)
    return float(fabric.broadcast(value))


def _backbone_features(run: Run, net: SedNet, stage: Stage) -> BackboneFeatures | None:
    """The features of a frozen backbone, where they are the same in all epochs."""
    progress = run.monitor.progress.of("features of the backbone")
    data, folder = run.plan.training_data, run.folder.path
    return run.compute.feature_cache.get(
        net.to(run.compute.fabric.device), stage, data, folder, progress
    )


def _report_epoch(run: Run, stage: Stage, cycle: int, fold: int, result: EpochResult) -> None:
    run.compute.parallel_folds.raise_if_stopped()
    if not run.is_main_process:
        return
    row = {"stage": stage.name, "cycle": cycle, "fold": fold, **vars(result)}
    name = f"{stage.name}{'' if cycle == 1 else f' cycle {cycle}'} fold {fold + 1}"
    epochs = 1 if stage.optimizer == "lbfgs" else stage.epochs
    with PROCESS_LOCK:
        run.folder.log([row])
        run.monitor.log_epoch(row)
        run.monitor.progress.update(name, result.epoch, epochs, result.loss)


def _score_stage(run: Run, stage: Stage, cycle: int) -> None:
    """Score each recording with the one model of the stage that did not train on it.

    Where the loss is on windows, their clipwise logits are kept too: pseudo-labels use them.
    """
    plan, fabric = run.plan, run.compute.fabric
    home = run.folder.stage(stage.name, cycle)
    if (home / "oof_scores.parquet").is_file():
        return
    has_clipwise = stage.loss.on == "windows" and stage.name != BASELINE_STAGE
    calibrates = stage.optimizer == "lbfgs" and stage.loss.weak_negatives > 0

    def score_fold(fold: int, worker: int) -> tuple[list[Scores], list[WindowScores]]:
        net = load_net(run, stage.name, cycle, fold)
        if calibrates:  # a run that was interrupted may have calibrated this model already
            reset_prior_shift(net)
        source = f"{run.source}/{home.name}/fold{fold}"
        held_out = np.flatnonzero(plan.folds == fold)
        share = held_out[fabric.global_rank :: fabric.world_size]
        with PROCESS_LOCK:
            features = _backbone_features(run, net, stage)
        data, windows = plan.training_data, plan.recipe.windows
        scores = score_recordings(net, data, windows, share, source, fabric, features)
        return scores, score_windows(net, data, share, source, fabric) if has_clipwise else []

    by_fold = run.compute.parallel_folds.map(score_fold, range(plan.recipe.folds))
    scores = gather_scores(fabric, [score for fold, _ in by_fold for score in fold])
    windows = gather_scores(fabric, [score for _, fold in by_fold for score in fold])
    if run.is_main_process:
        position = {r.id: i for i, r in enumerate(plan.training_data.dataset.recordings)}
        if has_clipwise:
            windows.sort(key=lambda score: position[score.recording])
            write_windows(windows, home / "oof_windows.parquet")
        scores.sort(key=lambda score: position[score.recording])
        if calibrates:
            paths = [weights_path(run, stage.name, cycle, f) for f in range(plan.recipe.folds)]
            scores = calibrate(scores, plan.training_data.dataset, paths)
        write_scores(scores, home / "oof_scores.parquet")  # last: with it, scoring is complete


def _write_pseudo_labels(run: Run, stage: Stage, cycle: int) -> Targets:
    """The pseudo-labels of one cycle; a table of them is kept beside the weights."""
    pseudo, plan = stage.pseudo, run.plan
    assert pseudo is not None
    if cycle == 1:
        folder = run.folder.stage(pseudo.teacher, plan.recipe.stage(pseudo.teacher).cycles)
    else:
        folder = run.folder.stage(stage.name, cycle - 1)
    dataset = plan.training_data.dataset
    name, read = SCORE_FILES[pseudo.scores]
    own = read_out_of_fold(dataset, folder / name, plan.folds, read)
    members = {run.source: own} | {
        str(member.path): read_member(dataset, member, pseudo.scores) for member in plan.members
    }
    pseudo_labels = make_pseudo_labels(plan.training_data, members, pseudo)
    table = pseudo_labels.table
    if run.is_main_process:
        run.folder.write_pseudo_labels(table, stage.name, cycle)
    run.monitor.progress.message(
        f"{stage.name} cycle {cycle}: {len(table)} pseudo-labels in "
        f"{table['recording'].nunique()} recordings, from the out-of-fold scores of "
        f"{folder.name}; {int(pseudo_labels.hard_negatives.sum())} hard negatives are left out"
    )
    return pseudo_labels.targets
