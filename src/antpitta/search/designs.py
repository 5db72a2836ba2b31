"""Which candidates a person judges next: to estimate how good scores are, or to teach a model.

The two purposes are kept apart, because a sample that serves one is biased for the other.

- :func:`draw_audit` is random within strata of the score, the low scores included, and knows with
  which probability each candidate was drawn. Precision, missed calls and prevalence follow from
  its verdicts weighted by the inverse of that probability (Horvitz and Thompson, 1952). Strata
  are cut by the cumulative square root of the frequencies (Dalenius and Hodges, 1959): many
  candidates have low scores, and few decide about a threshold.
- :func:`draw_teach` looks for what a model learns most from. The species take turns, those with
  the fewest calls first. For the half of them with fewer calls it takes their best candidates: a
  species without calls cannot be learned, and its uncertain candidates are mostly noise. The other
  half takes its best candidate and, in the next turn, the one that is most doubtful: uncertain,
  judged differently by the networks of a model, or unlike anything judged before. All are spread
  over sites. ``benchmarks/rounds.py`` measures this rule.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.search.similarity import normalize

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
BINS = 200  # of the histogram that strata are cut from


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
    strata : how many, at most; scores that are equal share one, and each has two draws or more, as
        candidates of a stratum without a draw could not be spoken for

    Returns
    -------
    AuditDraw
        With equal numbers from each stratum as far as it has them.
    """
    edges = cut_strata(score, max(1, min(strata, count // 2)))
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
    disagreement : (candidates,), the spread of the scores of a model's networks, NaN where
        unknown; None without
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
    rng : orders species with equally many calls

    Returns
    -------
    (drawn,), rows of the candidates in the order in which they were chosen
    """
    state = _TeachingState(pool)
    species = np.unique(pool.species)
    species = species[np.lexsort((rng.random(len(species)), pool.calls[species]))]
    fewer = set(species[: len(species) // 2].tolist())
    left = dict(zip(*np.unique(pool.species, return_counts=True), strict=True))
    drawn: list[int] = []
    turn = 0
    while len(drawn) < min(count, len(pool.score)):
        for name in species.tolist():
            if left[name] and len(drawn) < count:
                drawn.append(state.draw(name, doubtful=turn % 2 == 1 and name not in fewer))
                left[name] -= 1
        turn += 1
    return np.array(drawn, dtype=np.int64)


class _TeachingState:
    """The candidates that are left, and how much each would teach."""

    def __init__(self, pool: TeachingPool) -> None:
        self.pool = pool
        self.rows = {int(i): np.flatnonzero(pool.species == i) for i in np.unique(pool.species)}
        self.free = np.ones(len(pool.score), dtype=bool)
        self.by_site = {name: np.zeros(int(pool.site.max()) + 1) for name in self.rows}
        self.vector = None if pool.vector is None else normalize(pool.vector)
        self.nearest = np.full(len(pool.score), -1.0)  # cosine with what is known of the species
        if pool.judged is not None and pool.judged_species is not None:
            known = normalize(pool.judged)
            for name in np.intersect1d(pool.judged_species, pool.species).tolist():
                self._mark_known(name, known[pool.judged_species == name])

    def draw(self, name: int, *, doubtful: bool) -> int:
        """The most doubtful, or else the best, candidate of a species, which is then used up."""
        rows = self.rows[name]
        value = self._doubt(rows) if doubtful else _ranks(self.pool.score[rows])
        value /= 1 + self.by_site[name][self.pool.site[rows]]
        item = int(rows[np.where(self.free[rows], value, -1.0).argmax()])
        self.free[item] = False
        self.by_site[name][self.pool.site[item]] += 1
        if self.vector is not None:
            self._mark_known(name, self.vector[item : item + 1])
        return item

    def _doubt(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The mean rank of all that makes candidates doubtful."""
        parts: list[Floats] = [-np.abs(2 * self.pool.score[rows] - 1)]
        if self.pool.disagreement is not None:
            parts.append(self.pool.disagreement[rows])
        if self.vector is not None:
            parts.append(-self.nearest[rows])
        mean: NDArray[np.float64] = np.mean([_ranks(part) for part in parts], axis=0)
        return mean

    def _mark_known(self, name: int, known: NDArray[np.float32]) -> None:
        if self.vector is not None:
            rows = self.rows[name]
            cosine = (self.vector[rows] @ known.T).max(axis=1)
            self.nearest[rows] = np.maximum(self.nearest[rows], cosine)


def _ranks(values: Floats) -> NDArray[np.float64]:
    """Ranks above 0 and up to 1; equal values share one, and NaN has the middle one."""
    ranks = np.full(len(values), 0.5)
    known = ~np.isnan(values)
    _, place = np.unique(values[known], return_inverse=True)
    ranks[known] = (place + 1.0) / (place.max(initial=0) + 1.0)
    return ranks
