"""The one table: medians and spreads over seeds, and whether out of fold and test agree.

The same cells go to the terminal, to Markdown and (as numbers) to CSV. Spread is lowest to
highest: three seeds have no deviation worth the name.
"""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from antpitta.files.tables import write_csv
from antpitta.predict.pipeline import cpu_count
from benchmarks.files import write_page

OUT_OF_FOLD = {"oof_ap": "out-of-fold AP", "oof_auc": "out-of-fold AUC"}
TEST = {"lwlrap": "test LWLRAP", "macro_ap": "test macro AP"}
FIGURES = {**OUT_OF_FOLD, **TEST, "event_f1": "event F1", "seconds": "seconds"}
LABELS = {"labels": "labels", "right": "right", "ap": "macro AP", "brier": "Brier score"}
TAUGHT = (
    "Pseudo labels against the truth of the training recordings: of hard ones the share that is "
    "right, of soft ones macro AP and the Brier score."
)
WHOLE = ("seconds", "labels")  # shown without decimals
FEWEST = 3  # variants that can be said to agree: two always do, or always do not


@dataclass(frozen=True)
class Bench:
    """All figures of a bench, a row a variant, stage and seed."""

    runs: pd.DataFrame  # variant, stage, seed, then FIGURES
    labels: pd.DataFrame  # variant, seed, stage, kind, labels, judged, then right or ap, brier
    says: dict[str, str]  # what each variant is
    yardsticks: tuple[str, ...]  # variants that are none of ours
    facts: str  # the machine, and how long all took
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> pd.DataFrame:
        """A row a variant and stage: each figure's median, lowest and highest over seeds."""
        return summarise(self.runs, ["variant", "stage"], FIGURES)

    @property
    def taught(self) -> pd.DataFrame:
        """The same of the pseudo labels; no rows where no truth of them was given."""
        if self.labels.empty:
            return pd.DataFrame()
        return summarise(self.labels, ["variant", "stage", "kind"], LABELS)

    @property
    def agreement(self) -> pd.DataFrame:
        """Spearman's rank correlation of our variants' medians, out of fold against test."""
        ours = self.summary[~self.summary["variant"].isin(self.yardsticks)]
        rows = [(a, b, *_agree(ours[a], ours[b])) for a in OUT_OF_FOLD for b in TEST]
        return pd.DataFrame(rows, columns=["out_of_fold", "test", "correlation", "rows"])

    @property
    def table(self) -> pd.DataFrame:
        """The summary as it is shown: every cell text, under the columns' titles."""
        return cells(self.summary, ["variant", "stage"], FIGURES)

    @property
    def taught_table(self) -> pd.DataFrame:
        """The pseudo labels' summary as it is shown."""
        return cells(self.taught, ["variant", "stage", "kind"], LABELS)

    @property
    def agreements(self) -> tuple[str, ...]:
        """The rank correlations, one line a pair of figures."""
        return tuple(
            f"rank correlation of {OUT_OF_FOLD[a]} and {TEST[b]}: "
            + (f"{value:+.3f}, {rows} rows" if rows >= FEWEST and not isnan(value) else "-")
            for a, b, value, rows in self.agreement.itertuples(index=False, name=None)
        )

    @property
    def markdown(self) -> str:
        """Everything, as a page."""
        seeds = self.runs["seed"].max()  # those of all are numbered 0
        parts = [f"Median over {seeds} seeds (lowest-highest).", _pipes(self.table)]
        parts += ["\n".join(f"- `{name}`: {says}" for name, says in self.says.items())]
        parts += ["\n".join(f"- {line}" for line in self.agreements)]
        if not self.labels.empty:
            parts += [TAUGHT, _pipes(self.taught_table)]
        parts += ["\n".join(f"- {line}" for line in (*self.notes, self.facts))]
        return "\n\n".join(parts) + "\n"


def summarise(runs: pd.DataFrame, keys: Sequence[str], figures: Iterable[str]) -> pd.DataFrame:
    """Medians over seeds with ``_low`` and ``_high`` beside them; a NaN counts for nothing."""
    rows = []
    for key, own in runs.groupby(list(keys), sort=False):
        row = dict(zip(keys, key, strict=True)) | {"seeds": len(own)}
        for name in figures:
            values = own[name].dropna() if name in own else pd.Series(dtype=float)
            row[name] = values.median()
            row[f"{name}_low"], row[f"{name}_high"] = values.min(), values.max()
        rows.append(row)
    return pd.DataFrame(rows)


def cells(table: pd.DataFrame, keys: Sequence[str], figures: dict[str, str]) -> pd.DataFrame:
    """A summary as it is shown: ``median (lowest-highest)``, ``-`` where there is none."""
    shown = table[list(keys)].copy()
    for name, title in figures.items():
        digits = 0 if name in WHOLE else 3
        spans = zip(*(table[f"{name}{end}"] for end in ("", "_low", "_high")), strict=True)
        shown[title] = [_span(value, low, high, digits) for value, low, high in spans]
    return shown


def write_bench(bench: Bench, out: Path) -> None:
    """learn.md, and as numbers learn.csv, learn_runs.csv, learn_labels.csv, learn_ranks.csv."""
    write_page(bench.markdown, out / "learn.md")
    write_csv(bench.summary, out / "learn.csv")
    write_csv(bench.runs, out / "learn_runs.csv")
    write_csv(bench.agreement, out / "learn_ranks.csv")
    if not bench.labels.empty:
        write_csv(bench.labels, out / "learn_labels.csv")


def machine() -> str:
    """What the seconds were measured on."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = torch.get_num_threads()
    where = f"{platform.machine()}, {cpu_count()} cores, {threads} threads, {card}"
    return f"{where}, torch {torch.__version__}, Python {platform.python_version()}"


def _agree(first: "pd.Series[float]", second: "pd.Series[float]") -> tuple[float, int]:
    known = (first.notna() & second.notna()).to_numpy()
    a, b = first.to_numpy(float)[known], second.to_numpy(float)[known]
    if len(a) < FEWEST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan"), len(a)
    return float(spearmanr(a, b).statistic), len(a)


def _span(value: float, low: float, high: float, digits: int) -> str:
    if isnan(value):
        return "-"
    text = f"{value:.{digits}f}"
    ends = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return text if ends == (text, text) else f"{text} ({ends[0]}-{ends[1]})"


def _pipes(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
