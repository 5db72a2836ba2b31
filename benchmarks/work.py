"""A bench at work: the runs and ensembles in its folder, and what is judged of them.

- A run is an ordinary run folder, ``seed<k>/<variant>``. What is finished is found again, what
  was stopped goes on, so a bench may be killed anywhere. ``seeds/<variant>`` is an ensemble of
  all training seeds.
- Seconds are those between a run's begin and its stage's out-of-fold scores. A stage that builds
  on others counts them in. A run that was killed without a word has no such figure.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from antpitta.core.progress import Progress
from antpitta.core.types import Dataset
from antpitta.files.bundle import read_bundle
from antpitta.files.dataset import dataset_digest
from antpitta.files.runs import RunFolder
from antpitta.files.texts import write_json
from antpitta.scores.evaluate import report_from_json
from antpitta.train.training import resolve_recipe
from benchmarks.figures import (
    NAN,
    Commands,
    examine,
    judge_labels,
    judge_rescaled,
    out_of_fold,
    seconds_until,
)
from benchmarks.files import read_note
from benchmarks.test_set import TestSet
from benchmarks.variants import BLEND, Variant
from benchmarks.vectors import Embed

ALL = 0  # in the column of seeds: what is blended of all of them

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is compared, on what, and how often."""

    variants: tuple[Variant, ...]
    seeds: int
    dataset: Dataset
    exam: TestSet
    train_truth: pd.DataFrame | None  # of the training recordings: for looking at labels only
    yardsticks: dict[str, Embed]  # other people's features, by name


class Work:
    """One bench at work: where things lie, and how many runs were there already."""

    def __init__(self, plan: Plan, verbs: Commands, out: Path, progress: Progress) -> None:
        self.plan, self.verbs, self.out, self.progress = plan, verbs, out, progress
        self.digest = dataset_digest(plan.dataset)
        self.found = self.trained = 0

    def home(self, name: str, seed: int) -> Path:
        """The folder of a variant's run, or of an ensemble's model."""
        return self.out / ("seeds" if seed == ALL else f"seed{seed}") / name

    def train(self, variant: Variant, seed: int) -> bool:
        """Train what is not trained; False where nothing was left to do.

        Raises UserError where the folder holds a run of other settings or other data.
        """
        home = self.home(variant.name, seed)
        recipe = resolve_recipe(variant.recipe(seed), self.plan.dataset)
        if (home / "report.json").is_file():  # a run's last file but for its page
            same = {"recipe": recipe.model_dump(mode="json"), "data": self.digest}
            RunFolder(home).begin(same, resume=True)
            self.found += 1
            return False
        with _timed(home / "bench.json"):
            self.verbs.train(variant.base, variant.changes(seed), home, variant.baseline)
        self.trained += 1
        return True

    def judge(self, variant: Variant, seed: int) -> list[Row]:
        """A row a stage and cycle."""
        home = self.home(variant.name, seed)
        oof = out_of_fold(RunFolder(home))
        sessions = read_note(home / "bench.json").get("sessions", [])
        rows = []
        for place in variant.places():
            stage, found = home / "stages" / place, home / "test" / place
            self.progress.message(f"{variant.name}: stage {place} on the test recordings")
            figures = examine(stage / "model", found, self.plan.exam, self.verbs, oof[place])
            seconds = seconds_until(sessions, (stage / "oof_scores.parquet").stat().st_mtime)
            rows.append(_row(variant, place, seed, asdict(figures), seconds))
        return rows

    def labels(self, variant: Variant, seed: int) -> list[Row]:
        """A row a stage and cycle that was taught, where the truth is given."""
        if self.plan.train_truth is None:
            return []
        folder = RunFolder(self.home(variant.name, seed))
        found = judge_labels(variant.recipe(seed), folder, self.plan.train_truth)
        shown = [row for row in found if row["stage"] in variant.places()]
        return [{"variant": variant.name, "seed": seed, **row} for row in shown]

    def blend(self, variant: Variant, seed: int, rows: Sequence[Row]) -> Row:
        """Blend the members of a seed, or of all, unless that was done with these very ones."""
        home = self.home(variant.name, seed)
        seeds = range(1, self.plan.seeds + 1) if seed == ALL else (seed,)
        runs = [(name, one) for name in variant.members for one in seeds]
        members = [self.home(*run) for run in runs]
        weights = tuple(weight for weight in variant.weights for _ in seeds)
        digests = sorted(read_bundle(member).digest for member in members)
        made = read_note(home / "bundle.json").get("provenance", {})
        how = (made.get("by"), tuple(made.get("weights") or ()))
        same = how == (variant.method, weights) and sorted(made["members"].values()) == digests
        if not (same and (home / "report.json").is_file()):
            self.verbs.blend(members, home, variant.method, weights)
        own = report_from_json(read_note(home / "report.json")["reports"][-1])
        oof = (own.macro_ap.value, own.macro_auc.value)
        figures = examine(home, home / "test", self.plan.exam, self.verbs, oof)
        last = {(row["variant"], row["seed"]): row["seconds"] for row in rows}
        seconds = sum(last[run] for run in runs)
        return _row(variant, BLEND, seed, asdict(figures), seconds)

    def rescale(self, variant: Variant, seed: int, rows: Sequence[Row]) -> Row:
        """What `predict --prevalence` would have said; out of fold it changes nothing."""
        (before,) = [one for one in self.plan.variants if one.name == variant.rescaled]
        last = [row for row in rows if (row["variant"], row["seed"]) == (before.name, seed)][-1]
        home = self.home(before.name, seed)
        found = home / "test" if before.members else home / "test" / last["stage"]
        lwlrap, ap = judge_rescaled(found, home / "prevalence.csv", self.plan.exam)
        own = {"variant": variant.name, "stage": BLEND, "lwlrap": lwlrap, "macro_ap": ap}
        return {**last, **own, "oof_ap": NAN, "oof_auc": NAN}


def _row(variant: Variant, stage: str, seed: int, figures: Row, seconds: float) -> Row:
    place = {"variant": variant.name, "stage": stage, "seed": seed}
    return {**place, **figures, "seconds": seconds}


@contextmanager
def _timed(note: Path) -> Iterator[None]:
    """Keep when work began and ended; a session without an end was cut off."""
    sessions = [*read_note(note).get("sessions", []), {"began": time.time()}]
    write_json({"sessions": sessions}, note)
    try:
        yield
    finally:
        sessions[-1]["ended"] = time.time()
        write_json({"sessions": sessions}, note)
