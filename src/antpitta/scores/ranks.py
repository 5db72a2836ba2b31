"""Ranks within a class, scaled to 0..1, against rows that are kept.

A rank is a statement about a set of rows. New rows, and be it a single recording, are ranked
in the set that the blend was made with, so that a score means the same thing tomorrow. The
rank of a value is the share of reference rows below it plus half of those equal to it; between
two reference values the rank rises linearly, and outside them towards 0 at score 0 and 1 at
score 1, so that no two different scores of one class become one.
"""

from dataclasses import dataclass

import numpy as np

from antpitta.scores.metrics import Flags, Floats

POINTS = 512  # of a class's reference that are kept


@dataclass(frozen=True)
class RankReference:
    """For each class, rising scores and the rank of each."""

    scores: tuple[tuple[float, ...], ...]
    ranks: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, scores: Floats, known: Flags | None = None) -> "RankReference":
        """Keep the scores (rows, classes) of the ``known`` cells, all if left out.

        Of more than ``POINTS`` different values some are kept, evenly spaced, the
        lowest and the highest among them. A class without any ranks by its score itself.
        """
        levels, ranks = [], []
        for column in range(scores.shape[1]):
            mine = scores[:, column] if known is None else scores[known[:, column], column]
            level, rank = _ladder(mine[~np.isnan(mine)])
            levels.append(tuple(level.tolist()))
            ranks.append(tuple(rank.tolist()))
        return cls(tuple(levels), tuple(ranks))

    def rank(self, scores: Floats) -> Floats:
        """The ranks, 0..1, of scores (rows, classes); NaN stays NaN."""
        if scores.shape[1] != len(self.scores):
            raise ValueError(f"{scores.shape[1]} classes against {len(self.scores)} kept")
        columns = [
            np.interp(scores[:, i], level, rank)
            for i, (level, rank) in enumerate(zip(self.scores, self.ranks, strict=True))
        ]
        return np.stack(columns, axis=1)


def _ladder(values: Floats) -> tuple[Floats, Floats]:
    level, count = np.unique(values.astype(float), return_counts=True)
    rank = (np.cumsum(count) - count / 2) / max(1, len(values))
    if len(level) > POINTS:
        keep = np.linspace(0, len(level) - 1, POINTS).round().astype(int)
        level, rank = level[keep], rank[keep]
    if not len(level) or level[0] > 0:
        level, rank = np.append(0.0, level), np.append(0.0, rank)
    if level[-1] < 1:
        level, rank = np.append(level, 1.0), np.append(rank, 1.0)
    return level, rank
