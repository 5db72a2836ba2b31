"""Checks of a data set: what would teach a model, or a reader, something wrong.

- Findings of the readers and of the matching come first, then boxes, species and sound.
- Of one kind of problem in one table the first few are listed and the rest counted: nobody reads
  ten thousand lines.
- A present box inside a region with every species absent is no contradiction: whoever drew
  the box heard the call. Two boxes contradict each other if they mean the same species, and the
  same song type where both name one.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from antpitta.core.errors import Finding, list_names
from antpitta.core.thresholds import NOT_LEARNABLE
from antpitta.core.types import EVERY_CLASS, Annotation, Dataset, Recording
from antpitta.files.audio_checks import Read, check_audio
from antpitta.files.dataset import OpenedDataset
from antpitta.files.spectrograms import check_spectrograms

MAX_LISTED = 5  # findings of one kind and table
MAX_SPECIES = 8  # names in one finding
_LATE = 1.0  # seconds beyond the end of the file: the box probably belongs to another file
_ROUNDING = 0.01  # seconds by which tables round
_SAME_SOUND = 0.5  # share of the time that two boxes cover together
_MANY = 1000  # boxes of one species in a recording: more are named with one other box each
_BLOCK = 128  # boxes that are compared with others at once
Edges = NDArray[np.float64]
Mask = NDArray[np.bool_]
_Draft = tuple[str, bool, Callable[[], Finding]]  # a finding's file and weight, and its text


def check_dataset(opened: OpenedDataset, read: Read | None = None) -> list[Finding]:
    """Find every problem of a data set.

    Parameters
    ----------
    opened : the data set; its own findings come first in the result
    read : (recording, start, stop) -> samples; if given, every recording is decoded too

    Returns
    -------
    findings : with code, file, row and remedy
    """
    findings = [*opened.findings]
    for check in (_check_ends, _check_frequencies):
        findings += _first_few(check(opened))
    findings += _first_few(_check_contradictions(opened), "at least ")
    findings += _first_few(_check_duplicates(opened))
    findings += _check_species(opened)
    if read is not None:
        annotated = {annotation.recording for annotation in opened.dataset.annotations}
        recordings = opened.dataset.recordings
        sounds = [recording for recording in recordings if recording.spectrogram is None]
        findings += check_audio(sounds, annotated, read)
        findings += check_spectrograms(recordings, annotated)
    return findings


def _first_few(drafts: Iterator[_Draft], least: str = "") -> Iterator[Finding]:
    """The first findings of each file and weight, and the number of the others."""
    counts: dict[tuple[str, bool], int] = defaultdict(int)
    examples: dict[tuple[str, bool], Finding] = {}
    for file, serious, describe in drafts:
        counts[file, serious] += 1
        if counts[file, serious] <= MAX_LISTED:
            yield describe()
        elif (file, serious) not in examples:
            examples[file, serious] = describe()
    for group, example in examples.items():
        what = f"{least}{counts[group] - MAX_LISTED} more rows like this: {example.what}"
        yield replace(example, what=what)


def _iter_boxes(opened: OpenedDataset) -> Iterator[tuple[Annotation, Recording, str, int]]:
    """Every annotation with its recording, file and row."""
    recordings = {recording.id: recording for recording in opened.dataset.recordings}
    for box, (file, row) in zip(opened.dataset.annotations, opened.origins, strict=True):
        yield box, recordings[box.recording], file, row


def _draft(
    code: str, file: str, row: int, what: str, remedy: str, serious: bool, *values: object
) -> _Draft:
    """A finding whose text is only made if it is shown."""
    return (
        file,
        serious,
        lambda: Finding(code, file, row, what.format(*values), remedy, serious),
    )


def _check_ends(opened: OpenedDataset) -> Iterator[_Draft]:
    code = "W_BOX_BEYOND_END"
    remedy = "check the recording that the row names, and the unit of the times"
    for box, recording, file, row in _iter_boxes(opened):
        end = recording.duration
        if box.start >= end:
            what = "the box begins at {:g} s, {} ends at {:.2f} s"
            yield _draft(code, file, row, what, remedy, True, box.start, recording.id, end)
        elif box.stop > end + _ROUNDING:
            what, serious = "the box ends at {:g} s, {} at {:.2f} s", box.stop > end + _LATE
            yield _draft(code, file, row, what, remedy, serious, box.stop, recording.id, end)


def _check_frequencies(opened: OpenedDataset) -> Iterator[_Draft]:
    code = "W_BOX_ABOVE_NYQUIST"
    remedy = "check the unit of the frequencies, and that this is the original recording"
    limit = "{} has nothing above {:g} Hz"
    for box, recording, file, row in _iter_boxes(opened):
        nyquist = recording.sample_rate / 2
        if box.low >= nyquist:
            what = f"the box begins at {{:g}} Hz, {limit}"
            yield _draft(code, file, row, what, remedy, True, box.low, recording.id, nyquist)
        elif math.isfinite(box.high) and box.high > nyquist + 1:
            what = f"the box ends at {{:g}} Hz, {limit}"
            yield _draft(code, file, row, what, remedy, False, box.high, recording.id, nyquist)


def _check_contradictions(opened: OpenedDataset) -> Iterator[_Draft]:
    remedy = "listen again and remove one of them; until then present wins"
    what = "{} is absent from {:g} to {:g} s of {}, and present from {:g} to {:g} s in {}:{}"
    annotations, origins = opened.dataset.annotations, opened.origins
    for i, j, serious in _contradicting_pairs(annotations):
        present, absent = annotations[i], annotations[j]
        values = (absent.label, absent.start, absent.stop, absent.recording)
        times = (present.start, present.stop)
        yield _draft(
            "W_BOX_CONTRADICTION", *origins[j], what, remedy, serious, *values, *times, *origins[i]
        )


def _contradicting_pairs(annotations: Sequence[Annotation]) -> Iterator[tuple[int, int, bool]]:
    """Present boxes, absent boxes of the same sound, and whether they cover the same time.

    Of each present box the first few of either kind.
    """
    groups: dict[tuple[str, str], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for i, box in enumerate(annotations):
        if box.label != EVERY_CLASS:
            groups[box.recording, box.label][box.present].append(i)
    for absents, presents in groups.values():
        for candidates, others in (
            _pair_songtypes(annotations, presents, absents) if presents else ()
        ):
            edges = _edges(annotations, candidates), _edges(annotations, others)
            same = set(overlapping_pairs(*edges, _SAME_SOUND))
            touching = set(overlapping_pairs(*edges, 0.0))
            for i, j in sorted(same | touching):
                present, absent = annotations[candidates[i]], annotations[others[j]]
                serious = _common_share(present, absent) >= _SAME_SOUND
                if not serious or (i, j) in same:
                    yield candidates[i], others[j], serious


def _pair_songtypes(
    annotations: Sequence[Annotation], presents: list[int], absents: list[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Present and absent boxes that mean one song type; a box without one means any."""
    by_type: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for i in (*presents, *absents):
        by_type[annotations[i].songtype][annotations[i].present].append(i)
    untyped = by_type.pop("", ([], []))
    pairs = [(untyped[True], absents)]
    pairs += [([i for _, typed in by_type.values() for i in typed], untyped[False])]
    pairs += [(typed, others) for others, typed in by_type.values()]
    return (pair for pair in pairs if all(pair))


def _edges(annotations: Sequence[Annotation], indices: Sequence[int]) -> Edges:
    rows = [annotations[i] for i in indices]
    return np.array([(box.start, box.stop, box.low, box.high) for box in rows]).T


def overlapping_pairs(boxes: Edges, others: Edges, share: float) -> Iterator[tuple[int, int]]:
    """The indices of each box and of the first few others that overlap it.

    A million boxes may overlap. So the boxes are divided into blocks of neighbours: most pairs of
    blocks have nothing in common, and a box that has its few is compared no more.

    Parameters
    ----------
    boxes, others : (4, boxes), start, stop, low and high
    share : of the time that one of the two covers, which both must cover

    Yields
    ------
    pair : indices of a box and of another
    """
    few = MAX_LISTED if boxes.shape[1] <= _MANY else 1
    blocks = [(block, others[:, block]) for block in _neighbours(others)]
    edges = [(part.min(axis=1), part.max(axis=1)) for _, part in blocks]
    lowest, highest = (np.array(side).T for side in zip(*edges, strict=True))  # (4, blocks)
    for block in _neighbours(boxes):
        part, count = boxes[:, block], np.zeros(len(block), dtype=int)
        low, high = (side[:, None] for side in (part.min(axis=1), part.max(axis=1)))
        near = np.flatnonzero(_may_overlap(low, high, lowest, highest, share))
        away = np.abs((low + high)[:2] - (lowest + highest)[:2, near]).sum(axis=0)
        for at in near[np.argsort(away, kind="stable")].tolist():  # the likeliest come first
            other, edges_of_other = blocks[at]
            active = np.flatnonzero(count < few)
            if not len(active):
                break
            here = part[:, active, None]
            there = edges_of_other[:, None]
            rows, columns = np.nonzero(_may_overlap(here, here, there, there, share))
            keep = np.arange(len(rows)) - np.searchsorted(rows, rows) < few
            np.add.at(count, active[rows[keep]], 1)
            yield from zip(
                block[active[rows[keep]]].tolist(), other[columns[keep]].tolist(), strict=True
            )


def _may_overlap(low: Edges, high: Edges, lowest: Edges, highest: Edges, share: float) -> Mask:
    """Whether boxes with edges from ``low`` to ``high`` may overlap others; exact for one box."""
    overlaps = (low[0] < highest[1]) & (high[1] > lowest[0])
    overlaps &= (low[2] < highest[3]) & (high[3] > lowest[2])
    if share:
        both = np.minimum(high[1], highest[1]) - np.maximum(low[0], lowest[0])
        either = np.maximum(low[1], lowest[1]) - np.minimum(high[0], highest[0])
        overlaps &= both >= share * either
    return np.asarray(overlaps, dtype=bool)


def _neighbours(boxes: Edges) -> Iterator[NDArray[np.intp]]:
    """The boxes' indices in blocks of similar edges."""
    known = np.isfinite(boxes)
    finite = np.where(known, boxes, np.max(boxes, initial=0.0, where=known))
    scale = np.ptp(finite, axis=1, keepdims=True)
    finite = finite / np.where(scale > 0, scale, 1.0)
    pending = [np.arange(boxes.shape[1])]
    while pending:
        block = pending.pop()
        if len(block) <= _BLOCK:
            yield block
            continue
        edge = finite[np.argmax(np.ptp(finite[:, block], axis=1))][block]
        order = np.argpartition(edge, len(block) // 2)
        pending += [block[order[len(block) // 2 :]], block[order[: len(block) // 2]]]


def _common_share(box: Annotation, other: Annotation) -> float:
    """The time that both boxes cover, as a share of the time that one of them does."""
    both = min(box.stop, other.stop) - max(box.start, other.start)
    return both / (max(box.stop, other.stop) - min(box.start, other.start))


def _check_duplicates(opened: OpenedDataset) -> Iterator[_Draft]:
    remedy = "remove one of them"
    first: dict[tuple[object, ...], int] = {}
    annotations, origins = opened.dataset.annotations, opened.origins
    for i, box in enumerate(annotations):
        sound = (box.recording, box.label, box.songtype, box.present)
        earlier = first.setdefault((*sound, box.start, box.stop, box.low, box.high), i)
        if origins[earlier] != origins[i]:
            what = "the same box as {}:{}"
            place = origins[i]
            yield _draft("W_BOX_DUPLICATE", *place, what, remedy, False, *origins[earlier])


def _check_species(opened: OpenedDataset) -> Iterator[Finding]:
    """Species with too few boxes to learn from, or to check in a fold."""
    names = opened.dataset.classes.names
    recordings, absent = _recordings_by_species(opened.dataset)
    site_of = {recording.id: recording.site for recording in opened.dataset.recordings}
    several_sites = len({site for site in site_of.values() if site}) > 1

    def at_one_site(name: str) -> bool:
        sites = {site_of[id] for id in recordings[name]}
        return len(recordings[name]) > 1 and len(sites) == 1 and None not in sites

    problems = [
        (
            *("W_NO_PRESENT_BOX", f"are {NOT_LEARNABLE}"),
            [name for name in names if not recordings[name]],
            "add boxes or audio",
        ),
        (
            *("W_NO_ABSENT_BOX", "have no absent box with audio"),
            [name for name in names if name not in absent],
            "validate some boxes as absent",
        ),
        (
            *("W_ONE_RECORDING", "have present boxes in one recording only"),
            [name for name in names if len(recordings[name]) == 1],
            "add recordings: no fold can learn and check these",
        ),
        (
            *("W_ONE_SITE", "have present boxes at one site only"),
            [name for name in names if several_sites and at_one_site(name)],
            "add another site: no fold by site can check these",
        ),
    ]
    for code, problem, species, remedy in problems:
        if species:
            listed = list_names(species, MAX_SPECIES)
            count = f"{len(species)} of {len(names)} species"
            what = f"{count} {problem}: {listed}"
            yield Finding(code, ", ".join(opened.tables), None, what, remedy, False)


def _recordings_by_species(dataset: Dataset) -> tuple[dict[str, set[str]], set[str]]:
    """The recordings with a present box of each species; the species with an absent box."""
    recordings: dict[str, set[str]] = {name: set() for name in dataset.classes.names}
    absent = set()
    for box in dataset.annotations:
        if box.present:
            recordings[box.label].add(box.recording)
        else:
            absent |= {dataset.classes.names[i] for i in dataset.classes.columns(box.label)}
    return recordings, absent
