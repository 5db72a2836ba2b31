"""From framewise scores to events: onset, offset, frequency band and score.

Each species by itself: take the frames at or above its threshold, join stretches that a short gap
separates, and drop what is still too short. Joining comes first, so a trill of short notes is one
event. The score of an event is that of its highest frame. The frames of a network have no
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
) -> list[Event]:
    """The events of one recording, by onset, then in the order of the classes.

    Parameters
    ----------
    scores : framewise scores of the recording
    thresholds : of each species
    bands : low and high frequency of each species in Hz; without one, all frequencies
    min_duration : seconds
    max_gap : seconds of the longest gap inside an event

    Returns
    -------
    events : with onset, offset, band and score
    """
    if not np.isfinite(scores.value).all():
        raise ValueError(f"{scores.recording}: a framewise score is NaN or infinite")
    if missing := [name for name in scores.classes.names if name not in thresholds]:
        raise ValueError(f"no threshold for {', '.join(missing)}")
    value, grid, events = scores.value, scores.grid, []
    for column, name in enumerate(scores.classes.names):
        low, high = bands.get(name, ALL_FREQUENCIES)
        runs = _runs(value[:, column] >= thresholds[name])
        for first, last in _join(runs, max_gap / grid.hop + TOLERANCE / grid.hop):
            start, stop = grid.seconds(first), grid.seconds(last)
            if stop - start >= min_duration - TOLERANCE:
                score = float(value[first:last, column].max())
                events.append(
                    Event(scores.recording, start, stop, name, score, scores.source, low, high)
                )
    return sorted(events, key=lambda event: event.start)  # stable: classes keep their order


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
