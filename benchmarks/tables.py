"""The results of ``benchmarks.learn`` as tables: medians and spreads over training seeds.

The same cells go to the terminal, to Markdown and, as numbers, to CSV. The spread is the lowest and
the highest value: a standard deviation of three seeds would mean little.
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
LABELS = {"labels": "labels", "correct": "correct", "ap": "macro AP", "brier": "Brier score"}
LABELS_TITLE = (
    "Pseudo-labels against the ground truth of the training recordings: the share of hard labels "
    "that is correct, or macro AP and Brier score of soft ones."
)
WHOLE_NUMBERS = ("seconds", "labels")
MIN_ROWS = 3  # for a rank correlation: two rows always agree or always disagree


@dataclass(frozen=True)
class LearnResult:
    """All figures of a benchmark, one row per variant, stage and seed."""

    runs: pd.DataFrame  # variant, stage, seed, then FIGURES
    labels: pd.DataFrame  # variant, seed, stage, kind, labels, judged, then correct or ap, brier
    descriptions: dict[str, str]  # by variant
    baselines: tuple[str, ...]  # variants that are not trained by antpitta
    machine: str  # the machine, and how long all took
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> pd.DataFrame:
        """The median, lowest and highest value of each figure, one row per variant and stage."""
        return summarise(self.runs, ["variant", "stage"], FIGURES)

    @property
    def label_summary(self) -> pd.DataFrame:
        """The same for pseudo-labels; empty without a truth of the training recordings."""
        if self.labels.empty:
            return pd.DataFrame()
        return summarise(self.labels, ["variant", "stage", "kind"], LABELS)

    @property
    def correlations(self) -> pd.DataFrame:
        """Spearman's rank correlation of out-of-fold and test medians, without baselines."""
        ours = self.summary[~self.summary["variant"].isin(self.baselines)]
        rows = [(a, b, *_rank_correlation(ours[a], ours[b])) for a in OUT_OF_FOLD for b in TEST]
        return pd.DataFrame(rows, columns=["out_of_fold", "test", "correlation", "rows"])

    @property
    def table(self) -> pd.DataFrame:
        """The summary with every cell as text, under the titles of the columns."""
        return format_summary(self.summary, ["variant", "stage"], FIGURES)

    @property
    def label_table(self) -> pd.DataFrame:
        """The summary of pseudo-labels with every cell as text."""
        return format_summary(self.label_summary, ["variant", "stage", "kind"], LABELS)

    @property
    def correlation_lines(self) -> tuple[str, ...]:
        """The rank correlations as text, one line per pair of figures."""
        return tuple(
            f"rank correlation of {OUT_OF_FOLD[a]} and {TEST[b]}: "
            + (f"{value:+.3f}, {rows} rows" if rows >= MIN_ROWS and not isnan(value) else "-")
            for a, b, value, rows in self.correlations.itertuples(index=False, name=None)
        )

    @property
    def markdown(self) -> str:
        """Everything as one page."""
        seeds = self.runs["seed"].max()  # ensembles of all seeds have number 0
        parts = [f"Median over {seeds} seeds (lowest-highest).", _markdown_table(self.table)]
        parts += ["\n".join(f"- `{name}`: {text}" for name, text in self.descriptions.items())]
        parts += ["\n".join(f"- {line}" for line in self.correlation_lines)]
        if not self.labels.empty:
            parts += [LABELS_TITLE, _markdown_table(self.label_table)]
        parts += ["\n".join(f"- {line}" for line in (*self.notes, self.machine))]
        return "\n\n".join(parts) + "\n"


def summarise(runs: pd.DataFrame, keys: Sequence[str], figures: Iterable[str]) -> pd.DataFrame:
    """Summarise figures over seeds.

    Parameters
    ----------
    runs : one row per seed
    keys : the columns that name a row of the summary
    figures : the columns to summarise; a missing column counts as NaN

    Returns
    -------
    DataFrame
        The keys, ``seeds``, and the median of each figure with ``_low`` and ``_high``. NaN is left
        out of all three.
    """
    rows = []
    for key, group in runs.groupby(list(keys), sort=False):
        row = dict(zip(keys, key, strict=True)) | {"seeds": len(group)}
        for name in figures:
            values = group[name].dropna() if name in group else pd.Series(dtype=float)
            row[name] = values.median()
            row[f"{name}_low"], row[f"{name}_high"] = values.min(), values.max()
        rows.append(row)
    return pd.DataFrame(rows)


def format_summary(
    summary: pd.DataFrame, keys: Sequence[str], figures: dict[str, str]
) -> pd.DataFrame:
    """Turn a summary into text.

    Parameters
    ----------
    summary : from :func:`summarise`
    keys : the columns that name a row
    figures : titles of columns by figure

    Returns
    -------
    DataFrame
        Cells such as ``median (lowest-highest)``, ``-`` for NaN.
    """
    shown = summary[list(keys)].copy()
    for name, title in figures.items():
        digits = 0 if name in WHOLE_NUMBERS else 3
        spreads = zip(*(summary[f"{name}{end}"] for end in ("", "_low", "_high")), strict=True)
        shown[title] = [_format_spread(value, low, high, digits) for value, low, high in spreads]
    return shown


def write_result(result: LearnResult, out: Path) -> None:
    """Write ``learn.md`` and ``learn.csv``, ``learn_runs.csv``, ``learn_labels.csv`` and
    ``learn_ranks.csv``.

    Parameters
    ----------
    result : all figures
    out : the folder
    """
    write_page(result.markdown, out / "learn.md")
    write_csv(result.summary, out / "learn.csv")
    write_csv(result.runs, out / "learn_runs.csv")
    write_csv(result.correlations, out / "learn_ranks.csv")
    if not result.labels.empty:
        write_csv(result.labels, out / "learn_labels.csv")


def describe_machine() -> str:
    """Describe what seconds were measured on: processor, threads, GPU and versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = torch.get_num_threads()
    hardware = f"{platform.machine()}, {cpu_count()} cores, {threads} threads, {gpu}"
    return f"{hardware}, torch {torch.__version__}, Python {platform.python_version()}"


def _rank_correlation(first: "pd.Series[float]", second: "pd.Series[float]") -> tuple[float, int]:
    both = (first.notna() & second.notna()).to_numpy()
    a, b = first.to_numpy(float)[both], second.to_numpy(float)[both]
    if len(a) < MIN_ROWS or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan"), len(a)
    return float(spearmanr(a, b).statistic), len(a)


def _format_spread(value: float, low: float, high: float, digits: int) -> str:
    if isnan(value):
        return "-"
    text = f"{value:.{digits}f}"
    ends = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return text if ends == (text, text) else f"{text} ({ends[0]}-{ends[1]})"


def _markdown_table(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
