"""From framewise scores to events: when, in which band, how surely.

One species at a time: smooth (a running median, which drops a lone spike and keeps the edges
of a call where a mean would blur them), take the frames at or above the species' threshold,
join stretches that a short gap divides, drop what is still too short. Joining comes first, so
that a trill of short notes is one event and not nothing.

The score of an event is its highest smoothed frame: then an event of a score never lies below
the threshold that found it. A network's frames say nothing about frequency; the band is the
one in which listeners heard the species.
"""

from collections.abc import Iterable, Mapping
from math import inf, isfinite

import numpy as np

from antpitta.core.types import Annotation, Classes, Event, Scores
from antpitta.scores.metrics import Flags, Floats

EVERY_BAND = (0.0, inf)
JITTER = 1e-9  # seconds: 3 * 0.1 is more than 0.3


def find_events(
    scores: Scores,
    thresholds: Mapping[str, float] | float,
    *,
    bands: Mapping[str, tuple[float, float]],
    least: float,
    gap: float,
    smooth: int,
    release: float = 1.0,
) -> list[Event]:
    """The events of one recording, by start, then in the order of the classes.

    ``least`` is the shortest event and ``gap`` the longest pause inside one, in seconds.
    ``smooth`` frames enter each median, an even count counting as the next odd one; 0 and 1
    leave the scores alone. ``release`` below 1 is hysteresis: an event found at its threshold
    goes on while the score stays at or above ``release`` times it. A species without a band
    gets all frequencies; one without a threshold is a ValueError.
    """
    if not 0 < release <= 1:
        raise ValueError(f"release is a share of the threshold, above 0 and up to 1: {release}")
    limits = _limits(thresholds, scores.classes)
    value = smooth_frames(scores.value, smooth)
    grid, events = scores.grid, []
    for column, name in enumerate(scores.classes.names):
        heard, limit = value[:, column], limits[name]
        low, high = bands.get(name, EVERY_BAND)
        runs = _stretches(heard >= limit * release)
        runs = [(a, b) for a, b in runs if release == 1 or heard[a:b].max() >= limit]
        for first, last in _join(runs, gap / grid.hop + JITTER / grid.hop):
            start, stop = grid.seconds(first), grid.seconds(last)
            if stop - start >= least - JITTER:
                score = float(heard[first:last].max())
                events.append(
                    Event(scores.recording, start, stop, name, score, scores.source, low, high)
                )
    return sorted(events, key=lambda event: event.start)  # stable: classes keep their order


def smooth_frames(value: Floats, smooth: int) -> Floats:
    """A running median over time of scores (frames, classes); the ends repeat outwards."""
    if not np.isfinite(value).all():
        raise ValueError("a framewise score is NaN or infinite")
    if smooth <= 1 or not len(value):
        return value
    from scipy.ndimage import median_filter  # a tenth of a second, and seldom asked for

    window = smooth + 1 - smooth % 2  # an even window would shift every event by half a frame
    return np.asarray(median_filter(value, size=(window, 1), mode="nearest"))


def training_bands(
    annotations: Iterable[Annotation], classes: Classes
) -> dict[str, tuple[float, float]]:
    """Each species' band: from the lowest to the highest edge of its present boxes.

    Boxes without an upper edge tell nothing about the band and are passed over. A species
    that has absent boxes only gets theirs: a template gives both the same band. One
    without any box is left out.
    """
    edges: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for said in annotations:
        if isfinite(said.high):
            edges.setdefault((said.label, said.present), []).append((said.low, said.high))
    bands = {}
    for name in classes.names:
        if boxes := edges.get((name, True)) or edges.get((name, False)):
            bands[name] = (min(low for low, _ in boxes), max(high for _, high in boxes))
    return bands


def _limits(thresholds: Mapping[str, float] | float, classes: Classes) -> dict[str, float]:
    if not isinstance(thresholds, Mapping):
        return dict.fromkeys(classes.names, float(thresholds))
    if gone := [name for name in classes.names if name not in thresholds]:
        raise ValueError(f"no threshold for {', '.join(gone)}")
    return {name: float(thresholds[name]) for name in classes.names}


def _stretches(above: Flags) -> list[tuple[int, int]]:
    """Where ``above`` holds, as half-open (first, last) pairs."""
    padded = np.concatenate([[False], above, [False]])
    first, last = np.flatnonzero(padded[1:] > padded[:-1]), np.flatnonzero(padded[1:] < padded[:-1])
    return list(zip(first.tolist(), last.tolist(), strict=True))


def _join(runs: list[tuple[int, int]], gap: float) -> list[tuple[int, int]]:
    """Runs with those joined that at most ``gap`` frames divide."""
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and first - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined
