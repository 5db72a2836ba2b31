"""The threshold for a wanted precision, from the audit of a species, and what is left to check.

- A threshold is the lowest score above which the precision is as wanted. It lies midway to the next
  lower score of a verdict. As the lowest one is chosen, the true precision is a few points lower on
  average than the estimate. The interval is right as often as any other.
- Only scores with at least ``LEAST`` verdicts at or above them can be a threshold. An audit with
  fewer verdicts gives none: a precision of one verdict is 0 or 100 %, whatever the truth.
- A precision that is never reached gives the threshold of the best precision, and says so.
- The audit of a species is enough when the interval of the precision is at most ``WIDTH`` wide.
- Until then, more verdicts are asked for: where the threshold may lie, by the interval of the
  precision, and as many as would make the interval narrow enough. The variance between sites stays,
  however many verdicts these sites have. Where it alone is too wide, other sites are asked for.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd
from scipy.stats import norm

from antpitta.scores.audit import SpeciesAudit
from antpitta.scores.bootstrap import PERCENTILES, Interval

WIDTH = 0.1  # of the interval of a precision
LEAST = 5  # verdicts at or above a threshold
ROUNDED = 10  # verdicts are asked for in steps of this
_TINY = 1e-12


@dataclass(frozen=True)
class AuditThreshold:
    """A threshold, what it gives, and whether that is known well enough.

    Parameters
    ----------
    species : its name
    wanted : precision
    threshold : a score at or above it is a detection; NaN where there are too few verdicts
    judged : verdicts of the whole audit
    reached : whether the estimate is the wanted precision at least
    precision : of what scores at or above it
    missed : calls below it
    recall : the share of calls at or above it
    enough : whether the interval of the precision is narrow enough
    more : verdicts that are still to be made; 0 where only more sites would help
    low, high : scores between which they are to be made; NaN with ``threshold``
    left : candidates there that have no verdict yet
    """

    species: str
    wanted: float
    threshold: float
    judged: int
    reached: bool
    precision: Interval
    missed: Interval
    recall: Interval
    enough: bool
    more: int
    low: float
    high: float
    left: int

    def sentence(self) -> str:
        """What a user should know, in one line.

        Returns
        -------
        sentence : such as "0.62 gives 90 %, 83 to 95; check 40 more between 0.5 and 0.7"
        """
        if np.isnan(self.threshold):
            return f"too few verdicts for a threshold ({self.judged}); {self.advice()}"
        percent = [round(100 * x) for x in (self.precision.low, self.precision.high)]
        gives = f"{self.threshold:.3g} gives {round(100 * self.precision.value)} %"
        text = f"{gives}, {percent[0]} to {percent[1]}"
        if not self.reached:
            text = f"no threshold gives {100 * self.wanted:g} %; {text}"
        return f"{text}; {self.advice()}"

    def advice(self) -> str:
        """What is left to check, the end of :meth:`sentence`.

        Returns
        -------
        advice : "enough", or what to do
        """
        if self.enough:
            return "enough"
        if np.isnan(self.threshold):
            more = f"check {self.more} more"
            return more if self.left else "every candidate is judged, predict more recordings"
        if not self.left:
            return f"every candidate from {self.low:.3g} to {self.high:.3g} is judged"
        if not self.more:
            return "the sites differ too much, audit recordings of more sites"
        if self.low == self.high:
            return f"check {self.more} more around {self.low:.3g}"
        return f"check {self.more} more between {self.low:.3g} and {self.high:.3g}"


def audit_threshold(audit: SpeciesAudit, precision: float) -> AuditThreshold:
    """The threshold for a wanted precision.

    Parameters
    ----------
    audit : of one species
    precision : above 0 and up to 1

    Returns
    -------
    threshold : with what it gives, and what is left to check
    """
    if not 0 < precision <= 1:
        raise ValueError(f"a precision of {precision} is not in (0, 1]")
    curve = audit.curve
    if audit.judged < LEAST:
        return _no_threshold(audit, precision)
    # Too few verdicts say nothing of a precision.
    counted = curve["precision"].where(curve["judged"] >= LEAST).to_numpy()
    good = np.flatnonzero(counted >= precision - _TINY)
    # NaN, where a stratum has no verdict yet, is no precision at all.
    best = int(good[0]) if len(good) else int(np.argmax(np.nan_to_num(counted, nan=-1.0)))
    at = _intervals(curve, best)
    first, last = _range(curve, precision, best)
    left = _unjudged(curve, first, last)
    enough, more = _stop_rule(audit, best, at["precision"])
    return AuditThreshold(
        species=audit.species,
        wanted=precision,
        threshold=_midway(curve["score"].to_numpy(), best),
        judged=audit.judged,
        reached=bool(len(good)),
        enough=enough,
        more=min(more, left),
        low=float(curve["score"].iloc[first]),
        high=float(curve["score"].iloc[last]),
        left=left,
        **at,
    )


def _no_threshold(audit: SpeciesAudit, precision: float) -> AuditThreshold:
    """What is left to check before there can be a threshold."""
    unknown = Interval(*[float("nan")] * 3)
    left = max(round(audit.candidates) - audit.judged, 0)
    return AuditThreshold(
        species=audit.species,
        wanted=precision,
        threshold=float("nan"),
        judged=audit.judged,
        reached=False,
        precision=unknown,
        missed=unknown,
        recall=unknown,
        enough=False,
        more=min(LEAST - audit.judged, left),
        low=float("nan"),
        high=float("nan"),
        left=left,
    )


def estimates_at(audit: SpeciesAudit, threshold: float) -> dict[str, Interval]:
    """What a given threshold gives.

    Parameters
    ----------
    audit : of one species
    threshold : a score at or above it is a detection

    Returns
    -------
    estimates : ``precision``, ``missed`` and ``recall``; NaN above the highest score of a verdict
    """
    index = int(np.searchsorted(audit.curve["score"].to_numpy(), threshold))
    if index == len(audit.curve):
        return {name: Interval(*[float("nan")] * 3) for name in ("precision", "missed", "recall")}
    return _intervals(audit.curve, index)


def _intervals(curve: pd.DataFrame, index: int) -> dict[str, Interval]:
    row = curve.iloc[index]
    return {
        name: Interval(*(float(row[f"{name}{end}"]) for end in ("", "_low", "_high")))
        for name in ("precision", "missed", "recall")
    }


def _range(curve: pd.DataFrame, precision: float, best: int) -> tuple[int, int]:
    """The levels between which the threshold may lie: where the interval holds the precision."""
    may = np.flatnonzero(curve["precision_high"] >= precision - _TINY)
    must = np.flatnonzero(curve["precision_low"] >= precision - _TINY)
    first = min(int(may[0]), best) if len(may) else best
    last = max(int(must[0]), best) if len(must) else len(curve) - 1
    return first, last


def _unjudged(curve: pd.DataFrame, first: int, last: int) -> int:
    """About how many candidates between two levels have no verdict."""
    candidates, judged = ([*curve[name].to_numpy(float), 0.0] for name in ("above", "judged"))
    between = (candidates[first] - candidates[last + 1], judged[first] - judged[last + 1])
    return max(round(between[0] - between[1]), 0) if np.isfinite(between[0]) else 1


def _stop_rule(audit: SpeciesAudit, index: int, precision: Interval) -> tuple[bool, int]:
    """Whether the audit is enough, and how many verdicts it lacks."""
    width = precision.high - precision.low
    if width <= WIDTH + _TINY:
        return True, 0
    row = audit.curve.iloc[index]
    # Standard deviations of the whole, wanted, and of what more verdicts make smaller.
    scale = 2 * norm.ppf(PERCENTILES[1] / 100)
    whole, wanted, sampling = width / scale, WIDTH / scale, float(row["sampling_sd"])
    between = max(whole**2 - sampling**2, 0.0) if audit.clusters == "site" else 0.0
    if np.isnan(whole):
        return False, ROUNDED
    if between >= wanted**2:
        return False, 0
    shrinking = whole**2 - between
    factor = shrinking / (wanted**2 - between) - 1
    return False, ROUNDED * ceil(max(float(row["judged"]) * factor, 1) / ROUNDED)


def _midway(levels: np.ndarray, index: int) -> float:
    """A score between a level and the one below it."""
    below = levels[index - 1] if index else levels[index]
    middle = (levels[index] + below) / 2
    # Of two neighbouring floats the middle may be the lower one, which is not accepted.
    return float(middle if middle > below else levels[index])
