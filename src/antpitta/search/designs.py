"""Which candidates a person judges next: to estimate how good scores are, or to teach a model.

The two purposes are kept apart, because a sample that serves one is biased for the other.

- :func:`draw_audit` is random within strata of the score, the low scores included, and knows with
  which probability each candidate was drawn. Precision, missed calls and prevalence follow from
  its verdicts weighted by the inverse of that probability (Horvitz and Thompson, 1952). Strata
  are cut by the cumulative square root of the frequencies (Dalenius and Hodges, 1959): many
  candidates have low scores, and few decide about a threshold.
- :func:`draw_teach` looks for what a model learns most from, one candidate after the other. Half
  of them go to the species with the fewest calls known so far, by their best candidates: a species
  without calls cannot be learned, and its uncertain candidates are mostly noise. The others are
  those that are most uncertain, that members of an ensemble disagree on, or that are unlike
  anything judged. Both halves are spread over sites, and avoid sounds like those just drawn.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.search.similarity import normalize

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
BINS = 200  # of the histogram that strata are cut from
RARE_SHARE = 0.5  # of a teaching draw, for the species with the fewest calls


@dataclass(frozen=True)
class AuditDraw:
    """A random sample of the candidates of one species, in a random order.

    Parameters
    ----------
    item : (drawn,), rows of the candidates
    stratum : (drawn,), from the lowest scores up
    inclusion : (drawn,), the probability with which each was drawn
    edges : (strata - 1,), scores from which on the next stratum begins
    """

    item: NDArray[np.int64]
    stratum: NDArray[np.int64]
    inclusion: NDArray[np.float64]
    edges: NDArray[np.float64]


def draw_audit(
    score: Floats, count: int, rng: np.random.Generator, *, strata: int = 5
) -> AuditDraw:
    """Draw candidates of one species at random within strata of their scores.

    Parameters
    ----------
    score : (candidates,), finite
    count : how many to draw; all candidates if there are fewer
    rng : of the draw
    strata : how many, at most; scores that are equal share one

    Returns
    -------
    AuditDraw
        With equal numbers from each stratum as far as it has them.
    """
    edges = cut_strata(score, strata)
    names, stratum = np.unique(np.searchsorted(edges, score, side="right"), return_inverse=True)
    sizes = np.bincount(stratum, minlength=len(names))
    drawn = share_evenly(sizes, min(count, len(score)))
    items = [
        rng.choice(np.flatnonzero(stratum == i), number, replace=False)
        for i, number in enumerate(drawn)
    ]
    item = rng.permutation(np.concatenate([np.zeros(0, np.int64), *items]))
    chosen = stratum[item]
    return AuditDraw(item, chosen, drawn[chosen] / sizes[chosen], edges)


def cut_strata(score: Floats, strata: int) -> NDArray[np.float64]:
    """Cut scores so that each stratum has an equal sum of square roots of frequencies.

    Parameters
    ----------
    score : (candidates,)
    strata : how many, at most

    Returns
    -------
    edges : (strata - 1,) or fewer, increasing; an edge belongs to the stratum above it
    """
    if len(score) == 0 or score.min() == score.max():
        return np.zeros(0)
    counts, bounds = np.histogram(score, BINS)
    mass = np.cumsum(np.sqrt(counts))
    cut = np.searchsorted(mass, mass[-1] * np.arange(1, strata) / strata)
    inner = np.unique(bounds[1:][np.minimum(cut, BINS - 2)])
    stratum = np.searchsorted(inner, score, side="right")
    filled = np.unique(stratum)
    return inner[filled[1:] - 1]


def share_evenly(sizes: Integers, count: int) -> NDArray[np.int64]:
    """Share a number among groups as evenly as their sizes allow; larger groups get the rest.

    Parameters
    ----------
    sizes : (groups,)
    count : at most the sum of the sizes

    Returns
    -------
    (groups,), at most the sizes; the sum is ``count``
    """
    shares = np.zeros(len(sizes), dtype=np.int64)
    left = count
    for done, group in enumerate(np.argsort(sizes, kind="stable")):
        shares[group] = min(sizes[group], left // (len(sizes) - done))
        left -= shares[group]
    return shares


@dataclass(frozen=True)
class TeachingPool:
    """The candidates that a teaching draw chooses from, and what is known of their species.

    Parameters
    ----------
    species : (candidates,), index of the species
    score : (candidates,), 0 to 1
    site : (candidates,), index of the site, or of the recording where sites are unknown
    calls : (species,), verdicts so far by which the species is present
    disagreement : (candidates,), the spread of the scores of an ensemble's members; None without
    vector : (candidates, values), embeddings; None without
    judged : (verdicts, values), embeddings of what was judged
    judged_species : (verdicts,), the species of each verdict
    """

    species: Integers
    score: Floats
    site: Integers
    calls: Integers
    disagreement: Floats | None = None
    vector: Floats | None = None
    judged: Floats | None = None
    judged_species: Integers | None = None


def draw_teach(pool: TeachingPool, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the candidates that a model learns most from.

    Parameters
    ----------
    pool : the candidates that were not judged yet
    count : how many to draw; all candidates if there are fewer
    rng : breaks ties

    Returns
    -------
    (drawn,), rows of the candidates in the order in which they were chosen
    """
    count = min(count, len(pool.score))
    state = _TeachingState(pool, rng)
    for turn in range(count):
        state.draw(rare=(turn + 1) * RARE_SHARE >= state.rare + 1)
    return np.array(state.drawn, dtype=np.int64)


class _TeachingState:
    """What was drawn so far, and what each candidate would add."""

    def __init__(self, pool: TeachingPool, rng: np.random.Generator) -> None:
        self.pool = pool
        self.drawn: list[int] = []
        self.rare = 0  # of the candidates drawn
        self.free = np.ones(len(pool.score), dtype=bool)
        self.calls = pool.calls.astype(np.float64)  # and those that the drawn are expected to be
        self.tie = rng.random(len(pool.score)) * 1e-6
        self.by_site = np.zeros(int(pool.site.max(initial=-1)) + 1)
        parts = [1 - np.abs(2 * pool.score - 1)]
        parts += [] if pool.disagreement is None else [pool.disagreement]
        self.doubt = np.mean([_ranks(part) for part in parts], axis=0)
        self.vector = None if pool.vector is None else normalize(pool.vector)
        self.nearest = np.full(len(pool.score), -1.0)  # cosine with what is known of the species
        if self.vector is not None and pool.judged is not None and pool.judged_species is not None:
            known = normalize(pool.judged)
            for species in np.unique(pool.judged_species):
                rows = pool.species == species
                cosine = self.vector[rows] @ known[pool.judged_species == species].T
                self.nearest[rows] = cosine.max(axis=1)

    def draw(self, *, rare: bool) -> None:
        """Draw one more candidate, for the species with the fewest calls or for its own doubt."""
        pool, rows = self.pool, np.flatnonzero(self.free)
        if rare:
            left = np.unique(pool.species[rows])
            lacking = left[self.calls[left].argmin()]
            rows = rows[pool.species[rows] == lacking]
            value = _ranks(pool.score[rows])
        else:
            value = self.doubt[rows]
        if self.vector is not None:
            value = value + _ranks(-self.nearest[rows])
        value = value / (1 + self.by_site[pool.site[rows]]) + self.tie[rows]
        self._take(int(rows[value.argmax()]))
        self.rare += rare

    def _take(self, item: int) -> None:
        pool = self.pool
        self.drawn.append(item)
        self.free[item] = False
        self.by_site[pool.site[item]] += 1
        self.calls[pool.species[item]] += pool.score[item]
        if self.vector is not None:
            rows = np.flatnonzero(pool.species == pool.species[item])
            cosine = self.vector[rows] @ self.vector[item]
            self.nearest[rows] = np.maximum(self.nearest[rows], cosine)


def _ranks(values: Floats) -> NDArray[np.float64]:
    """Ranks above 0 and up to 1; equal values share one."""
    _, place = np.unique(values, return_inverse=True)
    ranks: NDArray[np.float64] = (place + 1.0) / (place.max(initial=0) + 1.0)
    return ranks
