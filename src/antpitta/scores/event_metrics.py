"""Detected events against the true events of recordings that are fully annotated.

A detection and a true event match if they are of one recording and one species, and their
intersection over union in time reaches ``min_iou``. The union counts, not the shorter of the two:
otherwise a detection over the whole recording would match any call in it. Frequency bands are not
compared, because a network has none of its own. Matching is one to one. Of all ways to pair
events, the one with the most pairs counts, then the one with the most overlap, so the metrics do
not depend on the order of the tables.

These metrics need complete ground truth: on validated boxes a detection outside the boxes is
unknown, not a false alarm.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from antpitta.core.types import Annotation, Event
from antpitta.scores.bootstrap import divide
from antpitta.scores.metrics import Floats

MACRO, MICRO = "macro", "micro"
COLUMNS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class EventMatches:
    """Every detection and every true event, once."""

    hits: tuple[tuple[Event, Annotation], ...]
    misses: tuple[Annotation, ...]
    false_alarms: tuple[Event, ...]


def match_events(
    events: Iterable[Event],
    truth: Iterable[Annotation],
    *,
    min_iou: float,
    recordings: Collection[str] | None = None,
) -> EventMatches:
    """Pair detections with true events.

    Parameters
    ----------
    events : detections
    truth : boxes; absent ones are left out
    min_iou : intersection over union of a pair, at least
    recordings : the recordings with complete ground truth, by default all that occur; detections in
        other recordings are left out

    Returns
    -------
    matches : pairs, misses and false alarms
    """
    if not 0 < min_iou <= 1:
        raise ValueError(f"min_iou must be above 0 and at most 1, not {min_iou}")
    groups: dict[tuple[str, str], tuple[list[Event], list[Annotation]]] = {}
    included = None if recordings is None else set(recordings)
    for event in events:
        if included is None or event.recording in included:
            groups.setdefault((event.recording, event.label), ([], []))[0].append(event)
    for call in truth:
        if call.present and (included is None or call.recording in included):
            groups.setdefault((call.recording, call.label), ([], []))[1].append(call)

    hits: list[tuple[Event, Annotation]] = []
    misses: list[Annotation] = []
    alarms: list[Event] = []
    for key in sorted(groups):
        for detected, calls in _split_at_gaps(*groups[key]):
            pairs = _pair(detected, calls, min_iou)
            hits += [(detected[i], calls[j]) for i, j in pairs]
            matched, matched_calls = {i for i, _ in pairs}, {j for _, j in pairs}
            alarms += [event for i, event in enumerate(detected) if i not in matched]
            misses += [call for j, call in enumerate(calls) if j not in matched_calls]
    return EventMatches(tuple(hits), tuple(misses), tuple(alarms))


def event_f1(
    events: Iterable[Event],
    truth: Iterable[Annotation],
    *,
    min_iou: float,
    recordings: Collection[str] | None = None,
) -> pd.DataFrame:
    """Precision, recall and F1 of detections.

    Parameters
    ----------
    events : detections
    truth, min_iou, recordings : as in :func:`match_events`

    Returns
    -------
    table : a row for each species that occurs, sorted, then ``macro`` and ``micro``; columns
        species, tp, fp, fn, precision, recall, f1. A metric without any events is NaN, and the
        macro row is the mean of the others.
    """
    matches = match_events(events, truth, min_iou=min_iou, recordings=recordings)
    labels = {
        "tp": Counter(event.label for event, _ in matches.hits),
        "fp": Counter(event.label for event in matches.false_alarms),
        "fn": Counter(call.label for call in matches.misses),
    }
    names = sorted({label for counter in labels.values() for label in counter})
    counts = np.array([[counter[name] for counter in labels.values()] for name in names])
    counts = counts.reshape(len(names), 3)
    metrics = _metrics(counts)
    macro = [float(np.nanmean(c)) if np.isfinite(c).any() else float("nan") for c in metrics.T]
    total = counts.sum(axis=0, keepdims=True)
    table = pd.DataFrame(np.concatenate([counts, total, total]), columns=list(labels))
    table[list(COLUMNS)] = np.concatenate([metrics, [macro], _metrics(total)])
    table.insert(0, "species", [*names, MACRO, MICRO])
    return table


def _metrics(counts: Floats) -> Floats:
    """Precision, recall and F1 (rows, 3) from true and false positives and misses (rows, 3)."""
    tp, fp, fn = counts.T.astype(float)
    return np.stack(
        [divide(tp, tp + fp), divide(tp, tp + fn), divide(2 * tp, 2 * tp + fp + fn)], axis=1
    )


def _split_at_gaps(
    detected: Sequence[Event], calls: Sequence[Annotation]
) -> list[tuple[list[Event], list[Annotation]]]:
    """Split the two lists wherever there is no event: no pair crosses such a gap.

    Hours of recording then become many small problems; the time of pairing grows with the cube.
    """
    parts: list[tuple[list[Event], list[Annotation]]] = []
    end = float("-inf")
    every: list[Event | Annotation] = [*detected, *calls]
    for event in sorted(every, key=lambda event: (event.start, event.stop)):
        if event.start >= end:
            parts.append(([], []))
        if isinstance(event, Event):
            parts[-1][0].append(event)
        else:
            parts[-1][1].append(event)
        end = max(end, event.stop)
    return parts


def _pair(
    detected: Sequence[Event], calls: Sequence[Annotation], min_iou: float
) -> list[tuple[int, int]]:
    """The most pairs that reach ``min_iou``, and among these ways the one with most overlap."""
    if not detected or not calls:
        return []
    starts, stops = (
        np.array([getattr(event, edge) for event in detected])[:, np.newaxis]
        for edge in ("start", "stop")
    )
    begins, ends = (np.array([getattr(call, edge) for call in calls]) for edge in ("start", "stop"))
    both = np.clip(np.minimum(stops, ends) - np.maximum(starts, begins), 0, None)
    # The union of two that overlap has no gap; for all others the numerator is 0.
    iou = both / (np.maximum(stops, ends) - np.minimum(starts, begins))
    good = iou >= min_iou - 1e-9
    # A pair is worth more than all the overlap that other pairs could gain by giving it up.
    worth = np.where(good, min(iou.shape) + 1 + iou, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if good[i, j]]
