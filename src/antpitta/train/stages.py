"""One run: what its stages share, its networks, and where they are kept.

A run: folds x stages, each stage scored by models that never saw the recording.

A stage is data (core/stages.py). A stage with pseudo labels runs in cycles: the first is taught
by another stage's out-of-fold scores, each later one by the out-of-fold scores of the cycle
before. What is finished is found again on the disk, so a run can be killed and resumed anywhere.

Several processes run this together: all train, each scores its share of the held-out recordings,
and the first alone writes. The others wait where they would read what it writes.
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
from antpitta.core.types import Scores, Targets
from antpitta.files.runs import CheckpointFile, RunFolder, load_tensors, save_tensors, write_scores
from antpitta.files.tables import write_csv
from antpitta.model.fusion import with_trainable_grey_stem
from antpitta.model.network import SedNet
from antpitta.train.checkpoints import ReadOnlyStore, ThrottledStore
from antpitta.train.compute import PROCESS_LOCK, CompiledModel, ParallelFolds
from antpitta.train.data import FeatureCache, TrainingData
from antpitta.train.linear_head import solve_linear_head
from antpitta.train.loop import fit
from antpitta.train.out_of_fold import folds_of, gather_scores, read_out_of_fold, score_recordings
from antpitta.train.pseudo import make_pseudo_labels
from antpitta.train.task import EpochResult, TrainTask, fit_zero_shot

Ints = NDArray[np.int64]


@dataclass
class ModelTemplate:
    """A network that copies are made of: quicker than to build each from nothing."""

    net: SedNet | None = None

    def instantiate(self, build: Callable[[], SedNet]) -> SedNet:
        """A copy; the first time it is built."""
        with PROCESS_LOCK:
            if self.net is None:
                self.net = build()
        return deepcopy(self.net)


@dataclass(frozen=True)
class Run:
    """Everything that the stages of one run share."""

    recipe: Recipe
    training_data: TrainingData
    folds: Ints  # (recordings,)
    folder: RunFolder
    fabric: Fabric
    progress: Progress
    members: tuple[RunFolder, ...] = ()  # other runs, whose scores may join in teaching
    record: Callable[[dict[str, Any]], None] = lambda row: None  # each epoch, for TensorBoard
    bank: FeatureCache = field(default_factory=FeatureCache)
    shells: tuple[CompiledModel, ...] = ()  # where networks are compiled, one a lane
    parallel_folds: ParallelFolds = field(default_factory=ParallelFolds)
    mould: ModelTemplate = field(default_factory=ModelTemplate)
    clock: Callable[[str, int, str, float], None] = lambda *spent: None  # stage, cycle, on, seconds

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.fabric.is_global_zero)

    @contextmanager
    def timed(self, stage: Stage, cycle: int, what: str) -> Iterator[None]:
        """Tell the clock how long something took."""
        began = time.perf_counter()
        yield
        self.clock(stage.name, cycle, what, time.perf_counter() - began)

    @property
    def source(self) -> str:
        """What this run's scores are signed with."""
        return self.folder.path.name


def uses_dropout(net: SedNet) -> bool:
    """Whether the network draws random numbers as it learns."""
    rates = ("p", "drop_prob", "drop_rate")
    return any(
        isinstance(rate := getattr(layer, name, 0), float) and rate > 0
        for layer in net.modules()
        for name in rates
    )


def first_stage_number(recipe: Recipe) -> int:
    """The number of the first stage in its seeds; the baseline is 0, so that all other stages have
    the same seeds with and without it.
    """
    return 0 if recipe.stages[0].name == BASELINE_STAGE else 1


def cycles_of(stage: Stage) -> int:
    """How often the stage is trained: once, or as often as its labels are renewed."""
    return stage.pseudo.cycles if stage.pseudo else 1


def weights_path(run: Run, stage: str, cycle: int, fold: int) -> Path:
    """Where a fold's model of a stage is kept."""
    return run.folder.stage(stage, cycle) / f"fold{fold}.safetensors"


def last_cycle(recipe: Recipe, name: str) -> int:
    """The cycle of a stage that later stages build on."""
    return next(cycles_of(stage) for stage in recipe.stages if stage.name == name)


def build_net(run: Run, *, empty: bool = False) -> SedNet:
    """The run's network before it learns; ``empty`` leaves the backbone's weights random."""
    classes, bands = (
        len(run.training_data.dataset.classes),
        run.training_data.features.pixels.shape[1],
    )
    net = SedNet(
        run.recipe.backbone,
        run.recipe.head,
        classes,
        bands=bands,
        has_zero_shot=run.recipe.has_zero_shot,
        load_weights=not empty,
    )
    on_gpu = run.fabric.device.type == "cuda"
    return with_trainable_grey_stem(net, run.recipe.windows.frames, bands) if on_gpu else net


def load_net(run: Run, stage: str, cycle: int, fold: int) -> SedNet:
    """A fold's trained model, on the run's device."""
    net = run.mould.instantiate(lambda: build_net(run, empty=True))
    net.load_state_dict(load_tensors(weights_path(run, stage, cycle, fold))[0])
    device: torch.device = run.fabric.device
    return net.to(device)


def run_stages(run: Run) -> None:
    """Train and score every stage, cycle and fold that is not finished yet."""
    if run.parallel_folds.count > 1 and uses_dropout(
        run.mould.instantiate(lambda: build_net(run, empty=True))
    ):
        raise UserError(
            "E_TODO",
            f"backbone {run.recipe.backbone.name}: drops units at random, and lanes would mix their random numbers",
            "leave --parallel-folds out",
        )
    for number, stage in enumerate(run.recipe.stages, start=first_stage_number(run.recipe)):
        for cycle in range(1, cycles_of(stage) + 1):
            with run.timed(stage, cycle, "teach"):
                pseudo_labels = _lesson(run, stage, cycle) if stage.pseudo else None
            with run.timed(stage, cycle, "train"):
                train = partial(_train_fold, run, stage, (number, cycle), pseudo_labels)
                run.parallel_folds.map(range(run.recipe.folds), train)
            with run.timed(stage, cycle, "score"):
                _score_stage(run, stage, cycle)
                run.fabric.barrier()


def _train_fold(
    run: Run,
    stage: Stage,
    place: tuple[int, int],
    pseudo_labels: Targets | None,
    fold: int,
    lane: int,
) -> None:
    number, cycle = place
    path = weights_path(run, stage.name, cycle, fold)
    if path.is_file():
        return
    file = CheckpointFile(path.with_suffix(".checkpoint"))
    keeper = ThrottledStore(file) if run.first else ReadOnlyStore(file)
    with PROCESS_LOCK:
        net, origin = _begun(run, stage, fold)
        if run.shells:
            net = run.shells[lane].load(net)
        seen = run.bank.of(net, stage, run.training_data)
    train = np.flatnonzero(run.folds != fold)
    if stage.use_overlays:
        train = run.training_data.with_overlays(train)
    seed = (run.recipe.seed, number, cycle, fold)
    task = TrainTask(stage, train, pseudo_labels, seed, seen, bool(run.shells))
    report = partial(_report, run, stage, cycle, fold)
    if stage.optimizer == "lbfgs":
        solve_linear_head(net, task, run.training_data, run.fabric, report)
    else:
        fit(net, task, run.training_data, run.fabric, keeper, report)
    fit_zero_shot(net, task, run.training_data, run.fabric.device)
    if run.first:
        save_tensors(net.state_dict(), path, {"stage": stage.name, "from": origin})
        file.path.unlink(missing_ok=True)
    run.fabric.barrier()


def _begun(run: Run, stage: Stage, fold: int) -> tuple[SedNet, str]:
    """The network that a fold of a stage starts from, and where it comes from."""
    if stage.init_from is None:
        torch.manual_seed(run.recipe.seed * 1000 + fold)  # the head's first weights
        net = build_net(run)
        return net, net.origin
    net = load_net(run, stage.init_from, last_cycle(run.recipe, stage.init_from), fold)
    return net, f"stage {stage.init_from}"


def _report(run: Run, stage: Stage, cycle: int, fold: int, progress: EpochResult) -> None:
    run.parallel_folds.raise_if_stopped()
    if not run.first:
        return
    row = {"stage": stage.name, "cycle": cycle, "fold": fold, **vars(progress)}
    what = f"{stage.name}{'' if cycle == 1 else f' cycle {cycle}'} fold {fold + 1}"
    epochs = 1 if stage.optimizer == "lbfgs" else stage.epochs
    with PROCESS_LOCK:
        run.folder.log([row])
        run.record(row)
        run.progress.update(what, progress.epoch, epochs, progress.loss)


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
        return score_recordings(net, run.training_data, windows, mine, source, run.fabric)

    every = run.parallel_folds.map(range(run.recipe.folds), score)
    found = gather_scores(run.fabric, [scores for some in every for scores in some])
    if run.first:
        place = {r.id: i for i, r in enumerate(run.training_data.dataset.recordings)}
        write_scores(sorted(found, key=lambda scores: place[scores.recording]), path)


def _lesson(run: Run, stage: Stage, cycle: int) -> Targets:
    """The pseudo labels of one cycle; their provenance is kept beside the weights."""
    pseudo = stage.pseudo
    assert pseudo is not None
    if cycle == 1:
        teacher, taught_in = pseudo.teacher, last_cycle(run.recipe, pseudo.teacher)
    else:
        teacher, taught_in = stage.name, cycle - 1
    folder, dataset = run.folder.stage(teacher, taught_in), run.training_data.dataset
    members = {run.source: read_out_of_fold(dataset, folder / "oof_scores.parquet", run.folds)}
    for other in run.members:
        path = other.path / "oof_scores.parquet"
        members[str(other.path)] = read_out_of_fold(dataset, path, folds_of(dataset, other))
    lesson = make_pseudo_labels(run.training_data, members, pseudo)
    if run.first:
        home = run.folder.stage(stage.name, cycle)
        home.mkdir(parents=True, exist_ok=True)
        write_csv(lesson.table, home / "pseudo.csv")
    run.progress.message(
        f"{stage.name} cycle {cycle}: {len(lesson.table)} labels in "
        f"{lesson.table['recording'].nunique()} recordings, taught by {folder.name}, out of fold; "
        f"{int(lesson.hard_negatives.sum())} hard negatives kept apart"
    )
    return lesson.targets
