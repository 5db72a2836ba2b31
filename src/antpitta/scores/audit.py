"""What a score means in the field, from an audit: a random sample of candidates and its verdicts.

An audit draws candidates at random within strata of score, each with a known inclusion
probability, and a person judges them without their scores. So the sample speaks for all candidates
that it was drawn from, the low ones included: the precision of what scores at or above a
threshold, the calls that score below it, and the share of candidates that are calls.

- **Estimates.** Each verdict stands for the candidates that its stratum holds for each one that
  was drawn (Horvitz and Thompson 1952; ratios after Hajek). What is drawn and has no verdict, or an
  unsure one, is taken for a random part of its stratum, and counted.
- **Intervals.** The calls of one site share its individuals, its noise and its season. So sites are
  resampled with all their verdicts: a Bayesian bootstrap (Rubin 1981) whose weights are Gamma
  variables. Their shape gives the spread that the variance between so few sites requires, and that
  of Student's distribution instead of the normal one.
- **Strata that look certain.** In a stratum with ten verdicts, all absent, resampling never finds a
  call. So each draw has two more verdicts, one present and one absent, of random weight Gamma(1/2):
  where each verdict is a site of its own, the draws of a share are those of Jeffreys' posterior.
  These verdicts are in the draws only, never in an estimate.
- **What the intervals are for.** Sites like these. For the audited recordings alone they are on the
  safe side, as the sites are no sample there.
- **What no audit sees.** A call that no candidate holds. Give an audit low scores, too.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm, t

from antpitta.core.errors import UserError, cut_name
from antpitta.scores.bootstrap import PERCENTILES, Interval, divide
from antpitta.scores.metrics import Floats

COLUMNS = ("species", "recording", "site", "stratum", "inclusion_p", "score", "present")
DRAWS = 2000
MIN_SITES = 5  # below, a variance between sites cannot be estimated
PSEUDO_WEIGHT = 0.5  # shape of the weight of a verdict that nobody gave
MIN_SHAPE = 0.02  # of the weights of two or three clusters, whose draws are hardly limited


@dataclass(frozen=True)
class AuditPin:
    """The model and the recordings that an audit is about.

    Parameters
    ----------
    model : digest of the model that gave the scores
    recordings : ids of those that its candidates lie in
    """

    model: str
    recordings: frozenset[str]

    def check(self, other: "AuditPin", where: str) -> None:
        """Refuse scores of another model or of other recordings.

        Parameters
        ----------
        other : of the scores that a threshold shall be applied to
        where : what these are, for the message

        Raises
        ------
        UserError
            E_AUDIT_MODEL, E_AUDIT_RECORDINGS.
        """
        if other.model != self.model:
            raise UserError(
                "E_AUDIT_MODEL",
                f"{where}: scores of the model {other.model[:12]}, and the audit judged those of "
                f"{self.model[:12]}",
                "draw an audit of the new model's candidates",
            )
        if differing := sorted(self.recordings ^ other.recordings):
            only = "only the audit" if differing[0] in self.recordings else "no candidate"
            raise UserError(
                "E_AUDIT_RECORDINGS",
                f"{where}: not the recordings that the audit was drawn from; {only} has "
                f"{cut_name(differing[0])!r}",
                "draw an audit from these recordings",
            )


@dataclass(frozen=True)
class SpeciesAudit:
    """What the audit of one species tells.

    Parameters
    ----------
    species : its name
    judged, present, unjudged : verdicts, present ones among them, and items without a verdict
    candidates : how many the audit was drawn from
    clusters : what is resampled, ``site`` or ``recording``
    cluster_count : how many of them have verdicts
    prevalence : the share of the candidates that are calls
    curve : one row for each score of a verdict, rising: ``score``; ``above``, the candidates that
        score at or above it; ``judged``, the verdicts there; ``precision``, the share of calls
        there; ``missed``, the calls below; ``recall``, the share of all calls that are above; the
        last three with ``_low`` and ``_high``; ``sampling_sd``, the standard deviation of the
        precision if all sites were alike
    """

    species: str
    judged: int
    present: int
    unjudged: int
    candidates: float
    clusters: str
    cluster_count: int
    prevalence: Interval
    curve: pd.DataFrame


def audit_all(items: pd.DataFrame, rng: np.random.Generator) -> dict[str, SpeciesAudit]:
    """The audit of each species that has a verdict.

    Parameters
    ----------
    items : one row for each drawn candidate: species, recording, site (blank if unknown), stratum,
        inclusion_p, score, present (1, 0, or NaN without a clear verdict)
    rng : source of all random choices

    Returns
    -------
    audits : by species, in the order of their names
    """
    check_items(items)
    groups = items.groupby(items["species"].astype(str), sort=True)
    return {
        str(name): audit_species(group, rng)
        for name, group in groups
        if group["present"].notna().any()
    }


def check_items(items: pd.DataFrame) -> None:
    """Raise ValueError for a table that holds no audit.

    Parameters
    ----------
    items : as for :func:`audit_all`
    """
    if missing := [name for name in COLUMNS if name not in items.columns]:
        raise ValueError(f"items of an audit lack the columns {missing}")
    p = items["inclusion_p"].to_numpy(float)
    if not ((p > 0) & (p <= 1)).all():
        raise ValueError("an inclusion probability is not in (0, 1]")
    if not np.isfinite(items["score"].to_numpy(float)).all():
        raise ValueError("an item of an audit has no score")
    present = items["present"].to_numpy(float)
    if not np.isin(present[~np.isnan(present)], (0, 1)).all():
        raise ValueError("a verdict is neither 1 nor 0 nor NaN")


def audit_species(items: pd.DataFrame, rng: np.random.Generator) -> SpeciesAudit:
    """Estimates from the audit of one species.

    Parameters
    ----------
    items : as for :func:`audit_all`, of one species, with at least one verdict
    rng : source of all random choices

    Returns
    -------
    audit : with intervals of 95 %
    """
    sample = _Sample.of_items(items)
    kind, cluster = cluster_labels(items[items["present"].notna()])
    sizes = np.bincount(cluster)
    weights = np.vstack([np.ones(len(sizes)), cluster_weights(sizes, rng)])[:, cluster]
    curves = sample.curves(weights, rng)
    columns = {
        "score": sample.score[sample.starts],
        "above": curves["above"][0],
        "sampling_sd": curves["sampling_sd"],
        "judged": sample.judged_above(),
    }
    for name in ("precision", "missed", "recall"):
        low, high = _limits(curves[name])
        columns |= {name: curves[name][0], f"{name}_low": low, f"{name}_high": high}
    prevalence = sample.prevalence(weights, rng)
    return SpeciesAudit(
        species=str(items["species"].iloc[0]),
        judged=len(sample.score),
        present=int(sample.present.sum()),
        unjudged=len(items) - len(sample.score),
        candidates=float(sample.size.sum()),
        clusters=kind,
        cluster_count=len(sizes),
        prevalence=Interval(float(prevalence[0]), *map(float, _limits(prevalence))),
        curve=pd.DataFrame(columns),
    )


def cluster_labels(items: pd.DataFrame) -> tuple[str, NDArray[np.intp]]:
    """The site of each verdict, or its recording where there are too few sites.

    Parameters
    ----------
    items : with the columns site and recording, in the order of the score

    Returns
    -------
    kind : ``site`` or ``recording``
    cluster : (items,), numbers from 0, in the order of rising score
    """
    ordered = items.sort_values("score", kind="stable")
    site = ordered["site"].fillna("").astype(str).to_numpy(object)
    recording = ordered["recording"].astype(str).to_numpy(object)
    sites = set(site) - {""}
    if len(sites) < MIN_SITES:
        return "recording", np.unique(recording, return_inverse=True)[1]
    label = [f"s{s}" if s else f"r{r}" for s, r in zip(site, recording, strict=True)]
    return "site", np.unique(np.array(label, dtype=object), return_inverse=True)[1]


def cluster_weights(sizes: NDArray[np.integer], rng: np.random.Generator) -> Floats:
    """The weight of each cluster in each draw.

    A mean over G clusters with weights Gamma(a) has the variance v / (G a + 1), where v is that of
    the clusters about their own mean. This v is too small by (E - 1) / E, E being the number of
    equally large clusters that would be worth as much (Kish 1965). With
    a = (G (E - 1) / (E f^2) - 1) / G the variance is v / G without that bias, times f^2: f is the
    ratio of Student's quantile with G - 1 degrees of freedom to the normal one.

    Parameters
    ----------
    sizes : (clusters,), verdicts of each
    rng : source of all random choices

    Returns
    -------
    weights : (draws, clusters), 1 on average
    """
    count = len(sizes)
    effective = sizes.sum() ** 2 / (sizes**2).sum()
    ratio = t.ppf(PERCENTILES[1] / 100, max(count - 1, 1)) / norm.ppf(PERCENTILES[1] / 100)
    shape = ((effective - 1) / effective * count / ratio**2 - 1) / count
    shape = max(float(shape), MIN_SHAPE)
    return np.asarray(rng.gamma(shape, size=(DRAWS, count)) / shape)


@dataclass(frozen=True)
class _Sample:
    """The verdicts of one species by rising score, and its strata."""

    score: Floats  # (items,)
    present: Floats  # (items,), 1 or 0
    weight: Floats  # (items,), within the stratum, 1 on average
    stratum: NDArray[np.intp]  # (items,)
    size: Floats  # (strata,), candidates
    highest: Floats  # (strata,), of all that was drawn

    @classmethod
    def of_items(cls, items: pd.DataFrame) -> "_Sample":
        drawn = 1 / items["inclusion_p"].to_numpy(float)
        names, number = np.unique(items["stratum"].astype(str), return_inverse=True)
        strata, score = len(names), items["score"].to_numpy(float)
        highest = np.full(strata, -np.inf)
        np.maximum.at(highest, number, score)
        judged = np.flatnonzero(items["present"].notna())
        order = judged[np.argsort(score[judged], kind="stable")]
        stratum, weight = number[order], drawn[order]
        judged_count = np.bincount(stratum, minlength=strata)
        mean = np.bincount(stratum, weight, strata) / np.maximum(judged_count, 1)
        return cls(
            score=score[order],
            present=items["present"].to_numpy(float)[order],
            weight=weight / mean[stratum],
            stratum=stratum,
            size=np.asarray(np.bincount(number, drawn, strata), float),
            highest=highest,
        )

    @property
    def starts(self) -> NDArray[np.intp]:
        """The first item of each level, a level being the items of one score."""
        return np.unique(self.score, return_index=True)[1]

    @property
    def unit(self) -> Floats:
        """How many candidates each verdict of a stratum stands for; infinite without one."""
        judged = np.bincount(self.stratum, minlength=len(self.size))
        return np.where(judged, self.size / np.maximum(judged, 1), np.inf)

    def curves(self, weights: Floats, rng: np.random.Generator) -> dict[str, Floats]:
        """Each estimate (1 + draws, levels); the first row is the estimate itself.

        ``weights`` (1 + draws, items) are those of the items' clusters.
        """
        levels = self.score[self.starts]
        hits, above, missed = (np.zeros((len(weights), len(levels))) for _ in range(3))
        variance = np.zeros(len(levels))
        counts = self._counts_above()  # (strata, levels)
        upper = _PseudoVerdicts(counts > 0, self.unit, len(weights) - 1, rng)
        lower = _PseudoVerdicts(counts < counts[:, :1], self.unit, len(weights) - 1, rng)
        for number, size in enumerate(self.size):
            own = np.flatnonzero(self.stratum == number)
            if not len(own):  # drawn, and not judged yet
                unknown = np.where(levels <= self.highest[number], np.nan, 0)
                hits, above, missed = hits + unknown, above + unknown, missed + np.nan
                continue
            part = weights[:, own] * self.weight[own]
            calls = _highest_sums(part * self.present[own], counts[number])
            both = _highest_sums(part, counts[number])
            calls_below, both_below = calls[:, :1] - calls, both[:, :1] - both
            variance += _variance(calls[0], both[0], counts[number], size / len(own))
            _add(upper, number, calls, both)
            _add(lower, number, calls_below, both_below)
            scale = size / np.maximum(both + both_below, np.finfo(float).tiny)
            hits, above = hits + calls * scale, above + both * scale
            missed = missed + calls_below * scale
        return {
            "above": above,
            "precision": divide(hits, above),
            "missed": missed,
            "recall": divide(hits, hits + missed),
            "sampling_sd": divide(np.sqrt(variance), above[0]),
        }

    def prevalence(self, weights: Floats, rng: np.random.Generator) -> Floats:
        """The share of the candidates that are calls, (1 + draws,); see :meth:`curves`."""
        judged = np.isfinite(self.unit)[:, np.newaxis]
        pseudo = _PseudoVerdicts(judged, self.unit, len(weights) - 1, rng)
        total = np.zeros((len(weights), 1))
        for number, size in enumerate(self.size):
            part = weights * self.weight * (self.stratum == number)
            calls, both = ((part * kind).sum(axis=1)[:, None] for kind in (self.present, 1.0))
            _add(pseudo, number, calls, both)
            total = total + size * divide(calls, both)
        return np.asarray(total[:, 0] / self.size.sum())

    def judged_above(self) -> NDArray[np.int_]:
        """How many verdicts are at or above each level."""
        return np.asarray(len(self.score) - self.starts)

    def _counts_above(self) -> NDArray[np.int_]:
        """How many verdicts of each stratum are at or above each level: (strata, levels)."""
        own = self.stratum == np.arange(len(self.size))[:, np.newaxis]
        return np.asarray(np.cumsum(own[:, ::-1], axis=1)[:, ::-1][:, self.starts])


class _PseudoVerdicts:
    """A present and an absent verdict more in each draw, in one of the strata that a sum is of.

    The stratum is drawn in proportion to what one verdict in it adds to the variance of the sum:
    the square of the number of candidates that a verdict stands for. So strata of equal weight are
    one large stratum, and a stratum that outweighs the others is not taken for certain.

    Parameters
    ----------
    has_verdicts : (strata, levels), whether a stratum has a verdict in the part that is summed
    unit : (strata,), candidates for each verdict
    draws : number of draws
    rng : source of all random choices
    """

    def __init__(
        self, has_verdicts: NDArray[np.bool_], unit: Floats, draws: int, rng: np.random.Generator
    ) -> None:
        share = np.where(has_verdicts, unit[:, np.newaxis], 0) ** 2
        total = share.sum(axis=0)
        # Without any verdict no stratum is drawn: all limits are 0.
        self._limit = np.cumsum(share / np.where(total > 0, total, 1), axis=0)
        self._place = rng.random((draws, 1))
        # All levels share the draws, so that a curve is smooth. The estimate has no such verdicts.
        self._weight = rng.gamma(PSEUDO_WEIGHT, size=(2, draws, 1))

    def of_stratum(self, number: int) -> Floats:
        """Weights (2, draws, levels) of the present and the absent verdict."""
        high = self._limit[number]
        low = self._limit[number - 1] if number else np.zeros_like(high)
        return np.asarray(self._weight * ((self._place >= low) & (self._place < high)))


def _add(pseudo: _PseudoVerdicts, number: int, calls: Floats, both: Floats) -> None:
    """Add a stratum's two verdicts to its sums (1 + draws, levels), but for the first row."""
    extra = pseudo.of_stratum(number)
    calls[1:] += extra[0]
    both[1:] += extra[0] + extra[1]


def _variance(calls: Floats, both: Floats, counts: NDArray[np.int_], unit: float) -> Floats:
    """The variance of a stratum's calls above each level, if all verdicts are independent.

    The share has Laplace's two verdicts more, as it is hardly ever quite 0 or 1.
    """
    share = (calls + 1) / (both + 2)
    return np.asarray((unit * both) ** 2 * share * (1 - share) / np.maximum(counts, 1))


def _highest_sums(values: Floats, counts: NDArray[np.int_]) -> Floats:
    """The sum of the last ``counts`` (levels,) values of each row (rows, items)."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values[:, ::-1], axis=1, out=sums[:, 1:])
    return sums[:, counts]


def _limits(draws: Floats) -> tuple[Floats, Floats]:
    """The limits of the intervals (1 + draws, ...), which always hold the estimate in row 0."""
    low, high = np.percentile(draws[1:], PERCENTILES, axis=0)
    return np.minimum(low, draws[0]), np.maximum(high, draws[0])
