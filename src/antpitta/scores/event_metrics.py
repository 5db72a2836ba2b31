"""Found events against true ones, where a listener marked everything.

A found event and a true one can match if they lie in one recording, name one species, and
their intersection over union in time reaches ``overlap``. The union, not the shorter of the
two: else one event over the whole recording would match any call in it. Bands are not
compared, as a network has none of its own. Matching is one to one, and of all ways to pair
them the one with the most pairs counts, then the one with the most overlap, so that the
figures do not depend on the order of the tables.

Without whole truth there are no false alarms to speak of, only unknowns: do not call this on
validated boxes.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from antpitta.core.types import Annotation, Classes, Event
from antpitta.scores.bootstrap import divide
from antpitta.scores.metrics import Floats

MACRO, MICRO = "macro", "micro"
FIGURES = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Matches:
    """Every event and every true call, once: met, missed or made up."""

    hits: tuple[tuple[Event, Annotation], ...]
    misses: tuple[Annotation, ...]
    false_alarms: tuple[Event, ...]


def match_events(
    events: Iterable[Event],
    truth: Iterable[Annotation],
    *,
    overlap: float,
    recordings: Collection[str] | None = None,
) -> Matches:
    """Pair found events with true calls; what listeners marked absent needs no pair.

    ``recordings`` are those whose whole truth is known, calls or none; events elsewhere are
    passed over. Left out, all recordings of either list are judged.
    """
    if not 0 < overlap <= 1:
        raise ValueError(f"overlap is a share, above 0 and up to 1: {overlap}")
    groups: dict[tuple[str, str], tuple[list[Event], list[Annotation]]] = {}
    judged = None if recordings is None else set(recordings)
    for event in events:
        if judged is None or event.recording in judged:
            groups.setdefault((event.recording, event.label), ([], []))[0].append(event)
    for said in truth:
        if said.present and (judged is None or said.recording in judged):
            groups.setdefault((said.recording, said.label), ([], []))[1].append(said)

    hits: list[tuple[Event, Annotation]] = []
    misses: list[Annotation] = []
    alarms: list[Event] = []
    for key in sorted(groups):
        for found, called in _islands(*groups[key]):
            pairs = _pair(found, called, overlap)
            hits += [(found[i], called[j]) for i, j in pairs]
            met, heard = {i for i, _ in pairs}, {j for _, j in pairs}
            alarms += [event for i, event in enumerate(found) if i not in met]
            misses += [said for j, said in enumerate(called) if j not in heard]
    return Matches(tuple(hits), tuple(misses), tuple(alarms))


def event_f1(
    events: Iterable[Event],
    truth: Iterable[Annotation],
    *,
    overlap: float,
    recordings: Collection[str] | None = None,
    classes: Classes | None = None,
) -> pd.DataFrame:
    """Rows species, tp, fp, fn, precision, recall, f1, then ``macro`` and ``micro``.

    Species are those of ``classes`` in their order, or else all that occur, sorted. A figure
    that divides by nothing is NaN, and the macro row is the mean of the others: a species that
    neither sounds nor is found says nothing, one that is only made up has an F1 of 0.
    """
    matches = match_events(events, truth, overlap=overlap, recordings=recordings)
    return tabulate_matches(matches, classes)


def tabulate_matches(matches: Matches, classes: Classes | None = None) -> pd.DataFrame:
    """The table of :func:`event_f1` from matches already made."""
    labels = {
        "tp": Counter(event.label for event, _ in matches.hits),
        "fp": Counter(event.label for event in matches.false_alarms),
        "fn": Counter(said.label for said in matches.misses),
    }
    occurring = {label for several in labels.values() for label in several}
    names = list(classes.names) if classes else sorted(occurring)
    counts = np.array([[several[name] for several in labels.values()] for name in names])
    counts = counts.reshape(len(names), 3)
    each = _figures(counts)
    macro = [float(np.nanmean(c)) if np.isfinite(c).any() else float("nan") for c in each.T]
    total = counts.sum(axis=0, keepdims=True)
    table = pd.DataFrame(np.concatenate([counts, total, total]), columns=list(labels))
    table[list(FIGURES)] = np.concatenate([each, [macro], _figures(total)])
    table.insert(0, "species", [*names, MACRO, MICRO])
    return table


def _figures(counts: Floats) -> Floats:
    """Precision, recall and F1 (rows, 3) of true and false positives and misses (rows, 3)."""
    tp, fp, fn = counts.T.astype(float)
    return np.stack(
        [divide(tp, tp + fp), divide(tp, tp + fn), divide(2 * tp, 2 * tp + fp + fn)], axis=1
    )


def _islands(
    found: Sequence[Event], called: Sequence[Annotation]
) -> list[tuple[list[Event], list[Annotation]]]:
    """Split the two lists wherever nothing sounds: no pair crosses a silence.

    Hours of recording then stay many small problems: pairing takes the cube of the count.
    """
    islands: list[tuple[list[Event], list[Annotation]]] = []
    end = float("-inf")
    every: list[Event | Annotation] = [*found, *called]
    for one in sorted(every, key=lambda one: (one.start, one.stop)):
        if one.start >= end:
            islands.append(([], []))
        if isinstance(one, Event):
            islands[-1][0].append(one)
        else:
            islands[-1][1].append(one)
        end = max(end, one.stop)
    return islands


def _pair(
    found: Sequence[Event], called: Sequence[Annotation], overlap: float
) -> list[tuple[int, int]]:
    """The most pairs that reach ``overlap``, and among those ways the most overlap."""
    if not found or not called:
        return []
    starts, stops = (
        np.array([getattr(one, edge) for one in found])[:, np.newaxis] for edge in ("start", "stop")
    )
    begins, ends = (np.array([getattr(one, edge) for one in called]) for edge in ("start", "stop"))
    both = np.clip(np.minimum(stops, ends) - np.maximum(starts, begins), 0, None)
    share = both / (np.maximum(stops, ends) - np.minimum(starts, begins))  # they overlap: no gap
    good = share >= overlap - 1e-9
    # a pair is worth more than all the overlap that other pairs could gain by giving it up
    worth = np.where(good, min(share.shape) + 1 + share, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if good[i, j]]
