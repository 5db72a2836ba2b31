"""The runs and ensembles in a benchmark's folder: train what is missing, evaluate what is there.

- A run is an ordinary run folder, ``seed<k>/<variant>``. Finished runs are kept and stopped ones
  continued, so a benchmark may be stopped at any time. ``seeds/<variant>`` is an ensemble of all
  training seeds.
- Seconds are counted from the start of a run to the out-of-fold scores of a stage, with all stages
  that it builds on. A run that was killed before it could note its end has no such figure.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from antpitta import api
from antpitta.core.progress import Progress
from antpitta.files.bundle import read_bundle
from antpitta.files.dataset import OpenedDataset, dataset_digest
from antpitta.files.runs import RunFolder
from antpitta.files.texts import write_json
from antpitta.scores.evaluate import report_from_json
from antpitta.train.training import resolve_recipe
from benchmarks.baseline import EmbeddingWindows
from benchmarks.figures import (
    NAN,
    evaluate_model,
    evaluate_pseudo_labels,
    evaluate_rescaled,
    out_of_fold_figures,
    seconds_until,
)
from benchmarks.files import read_note
from benchmarks.test_set import TestSet
from benchmarks.variants import NO_STAGE, Variant

ALL_SEEDS = 0  # in the column of seeds

Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What is compared, on which data, and how often."""

    variants: tuple[Variant, ...]
    seeds: int
    data: OpenedDataset
    test_set: TestSet
    train_truth: pd.DataFrame | None  # only evaluates pseudo-labels; nothing trains on it
    baselines: dict[str, EmbeddingWindows]  # by name
    device: str = "auto"
    precision: str = "auto"


class BenchmarkRuns:
    """The folder of a benchmark, with its runs by variant and seed."""

    def __init__(self, comparison: Comparison, out: Path, progress: Progress) -> None:
        self.comparison, self.out, self.progress = comparison, out, progress
        self.digest = dataset_digest(comparison.data.dataset)
        self.kept = self.trained = 0

    def folder(self, name: str, seed: int) -> Path:
        """The folder of a variant's run, or of an ensemble."""
        return self.out / ("seeds" if seed == ALL_SEEDS else f"seed{seed}") / name

    def train(self, variant: Variant, seed: int) -> bool:
        """Train a variant unless it is finished.

        Parameters
        ----------
        variant : a variant with a base
        seed : the training seed

        Returns
        -------
        bool
            Whether anything was trained.

        Raises
        ------
        UserError
            Where the folder holds a run of another recipe or of other data.
        """
        home = self.folder(variant.name, seed)
        recipe = resolve_recipe(variant.recipe(seed), self.comparison.data.dataset)
        if (home / "report.json").is_file():  # written last, but for the report's page
            config = {"recipe": recipe.model_dump(mode="json"), "data": self.digest}
            RunFolder(home).begin(config, resume=True)
            self.kept += 1
            return False
        with _timed(home / "benchmark.json"):
            api.train(
                *(self.comparison.data, variant.base, home),
                changes=variant.changes(seed),
                baseline=variant.baseline,
                resume=True,
                device=self.comparison.device,
                precision=self.comparison.precision,
                export=False,
                progress=self.progress,
            )
        self.trained += 1
        return True

    def evaluate(self, variant: Variant, seed: int) -> list[Row]:
        """Evaluate a trained variant on the test set: one row per stage and cycle.

        Parameters
        ----------
        variant : a variant with a base
        seed : the training seed

        Returns
        -------
        list of dict
            Variant, stage, seed, the figures and seconds.
        """
        home = self.folder(variant.name, seed)
        out_of_fold = out_of_fold_figures(RunFolder(home))
        sessions = read_note(home / "benchmark.json").get("sessions", [])
        rows = []
        for stage in variant.stages():
            folder, out = home / "stages" / stage, home / "test" / stage
            self.progress.message(f"{variant.name}: stage {stage} on the test recordings")
            figures = evaluate_model(
                folder / "model", out, self.comparison.test_set, out_of_fold[stage], self.progress
            )
            seconds = seconds_until(sessions, (folder / "oof_scores.parquet").stat().st_mtime)
            rows.append(_row(variant, stage, seed, asdict(figures), seconds))
        return rows

    def pseudo_labels(self, variant: Variant, seed: int) -> list[Row]:
        """Evaluate the pseudo-labels of a trained variant.

        Parameters
        ----------
        variant : a variant with a base
        seed : the training seed

        Returns
        -------
        list of dict
            One row per stage and cycle with pseudo-labels; none without a truth of the training
            recordings.
        """
        if self.comparison.train_truth is None:
            return []
        folder = RunFolder(self.folder(variant.name, seed))
        rows = evaluate_pseudo_labels(variant.recipe(seed), folder, self.comparison.train_truth)
        shown = [row for row in rows if row["stage"] in variant.stages()]
        return [{"variant": variant.name, "seed": seed, **row} for row in shown]

    def blend(self, variant: Variant, seed: int, rows: Sequence[Row]) -> Row:
        """Combine the members of a seed, or of all seeds, and evaluate the ensemble.

        Parameters
        ----------
        variant : a variant with members
        seed : the training seed, or ``ALL_SEEDS``
        rows : the rows of the members

        Returns
        -------
        dict
            The row of the ensemble; its seconds are those of all members.
        """
        home = self.folder(variant.name, seed)
        seeds = range(1, self.comparison.seeds + 1) if seed == ALL_SEEDS else (seed,)
        runs = [(name, member_seed) for name in variant.members for member_seed in seeds]
        members = [self.folder(*run) for run in runs]
        weights = tuple(weight for weight in variant.weights for _ in seeds)
        if not _is_ensemble_of(home, variant, members, weights):
            api.ensemble(members, home, method=variant.method, weights=weights or None)
        report = report_from_json(read_note(home / "report.json")["reports"][-1])
        out_of_fold = (report.macro_ap.value, report.macro_auc.value)
        figures = evaluate_model(
            home, home / "test", self.comparison.test_set, out_of_fold, self.progress
        )
        last = {(row["variant"], row["seed"]): row["seconds"] for row in rows}
        seconds = sum(last[run] for run in runs)
        return _row(variant, NO_STAGE, seed, asdict(figures), seconds)

    def rescale(self, variant: Variant, seed: int, rows: Sequence[Row]) -> Row:
        """Rescale the scores of another variant as ``predict --prevalence`` does.

        Parameters
        ----------
        variant : a variant with ``rescaled``
        seed : the training seed, or ``ALL_SEEDS``
        rows : the rows of the other variant

        Returns
        -------
        dict
            The row of the rescaled variant. It has no out-of-fold figures: rescaling changes the
            order of species within a recording, not that of one species' boxes.
        """
        (base,) = [v for v in self.comparison.variants if v.name == variant.rescaled]
        home = self.folder(base.name, seed)
        own = [row for row in rows if (row["variant"], row["seed"]) == (base.name, seed)]
        shipped = NO_STAGE if base.members else shipped_stage(home)
        row = next((row for row in own if row["stage"] == shipped), own[-1])
        out = home / "test" if base.members else home / "test" / row["stage"]
        lwlrap, macro_ap = evaluate_rescaled(out, home / "prevalence.csv", self.comparison.test_set)
        figures = {"lwlrap": lwlrap, "macro_ap": macro_ap, "oof_ap": NAN, "oof_auc": NAN}
        return {**row, "variant": variant.name, "stage": NO_STAGE, **figures}


def shipped_stage(run: Path) -> str:
    """The stage, with its cycle, whose models are the model of a run.

    Parameters
    ----------
    run : the run's folder

    Returns
    -------
    str
        As the rows of the stages name it.
    """
    name: str = read_note(run / "model" / "bundle.json")["name"]
    return name.rpartition("/")[2]


def _is_ensemble_of(
    home: Path, variant: Variant, members: Sequence[Path], weights: tuple[float, ...]
) -> bool:
    """Whether the folder holds the finished ensemble of just these members and settings."""
    provenance = read_note(home / "bundle.json").get("provenance", {})
    settings = (provenance.get("method"), tuple(provenance.get("weights") or ()))
    if settings != (variant.method, weights) or not (home / "report.json").is_file():
        return False
    digests = sorted(read_bundle(member).digest for member in members)
    return sorted(provenance["members"].values()) == digests


def _row(variant: Variant, stage: str, seed: int, figures: Row, seconds: float) -> Row:
    key = {"variant": variant.name, "stage": stage, "seed": seed}
    return {**key, **figures, "seconds": seconds}


@contextmanager
def _timed(note: Path) -> Iterator[None]:
    """Note when work began and ended; a session without an end was killed."""
    sessions = [*read_note(note).get("sessions", []), {"began": time.time()}]
    write_json({"sessions": sessions}, note)
    try:
        yield
    finally:
        sessions[-1]["ended"] = time.time()
        write_json({"sessions": sessions}, note)
