"""From framewise scores to events: onset, offset, frequency band and score.

Each species by itself: take the frames at or above its threshold, join stretches that a short gap
separates, and drop what is still too short. Joining comes first, so a trill of short notes is one
event. Of the rest, the best ones are kept where only some are wanted. A species without a threshold
has no events. The score of an event is that of its highest frame. The frames of a network have no
frequency, so the band of an event is that of the species' training boxes.
"""

from collections.abc import Iterable, Mapping
from math import inf, isfinite

import numpy as np

from antpitta.core.types import Annotation, Classes, Event, Scores
from antpitta.scores.metrics import Flags

ALL_FREQUENCIES = (0.0, inf)
TOLERANCE = 1e-9  # seconds: 3 * 0.1 is more than 0.3


def find_events(
    scores: Scores,
    thresholds: Mapping[str, float],
    *,
    bands: Mapping[str, tuple[float, float]],
    min_duration: float,
    max_gap: float,
    top: int | None = None,
) -> list[Event]:
    """The events of one recording, by onset, then in the order of the classes.

    Parameters
    ----------
    scores : framewise scores of the recording
    thresholds : of the species that can be found
    bands : low and high frequency of each species in Hz; without one, all frequencies
    min_duration : seconds
    max_gap : seconds of the longest gap inside an event
    top : events of a species at most, those with the highest scores; None for all

    Returns
    -------
    events : with onset, offset, band and score
    """
    if not np.isfinite(scores.value).all():
        raise ValueError(f"{scores.recording}: a framewise score is NaN or infinite")
    value, grid = scores.value, scores.grid
    events: list[Event] = []
    for column, name in enumerate(scores.classes.names):
        if name not in thresholds:
            continue
        own = []
        low, high = bands.get(name, ALL_FREQUENCIES)
        runs = _runs(value[:, column] >= thresholds[name])
        for first, last in _join(runs, max_gap / grid.hop + TOLERANCE / grid.hop):
            start, stop = grid.seconds(first), grid.seconds(last)
            if stop - start >= min_duration - TOLERANCE:
                score = float(value[first:last, column].max())
                own.append(
                    Event(scores.recording, start, stop, name, score, scores.source, low, high)
                )
        events += sorted(own, key=lambda event: -event.score)[:top]  # the earlier of equal ones
    place = {name: column for column, name in enumerate(scores.classes.names)}
    return sorted(events, key=lambda event: (event.start, place[event.label]))


def training_bands(
    annotations: Iterable[Annotation], classes: Classes
) -> dict[str, tuple[float, float]]:
    """The frequency band of each species in Hz: from the lowest to the highest edge of its boxes.

    Present boxes count, or absent ones for a species without present boxes: a template gives
    both the same band. Boxes without an upper edge are left out, and so are species without
    other boxes.

    Parameters
    ----------
    annotations : the boxes of the training data
    classes : the classes, in the order of the columns

    Returns
    -------
    bands : low and high frequency of each species with boxes, Hz
    """
    edges: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for box in annotations:
        if isfinite(box.high):
            edges.setdefault((box.label, box.present), []).append((box.low, box.high))
    bands = {}
    for name in classes.names:
        if boxes := edges.get((name, True)) or edges.get((name, False)):
            bands[name] = (min(low for low, _ in boxes), max(high for _, high in boxes))
    return bands


def _runs(above: Flags) -> list[tuple[int, int]]:
    """Where ``above`` is true, as half-open (first, last) pairs."""
    padded = np.concatenate([[False], above, [False]])
    first, last = np.flatnonzero(padded[1:] > padded[:-1]), np.flatnonzero(padded[1:] < padded[:-1])
    return list(zip(first.tolist(), last.tolist(), strict=True))


def _join(runs: list[tuple[int, int]], max_gap: float) -> list[tuple[int, int]]:
    """Join runs that at most ``max_gap`` frames separate."""
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and first - joined[-1][1] <= max_gap:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined
