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

from antpitta.core.errors import Finding, list_names
from antpitta.core.types import EVERY_CLASS, Annotation, Dataset, Recording
from antpitta.files.audio_checks import Read, check_audio
from antpitta.files.dataset import OpenedDataset

MAX_LISTED = 5  # findings of one kind and table
MAX_SPECIES = 8  # names in one finding
_LATE = 1.0  # seconds beyond the end of the file: the box probably belongs to another file
_ROUNDING = 0.01  # seconds by which tables round
_SAME_SOUND = 0.5  # share of the time that two boxes cover together
_MOST_COMPARED = 4000  # absent boxes with which one present box is compared
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
    for check in (_check_ends, _check_frequencies, _check_contradictions, _check_duplicates):
        findings += _first_few(check(opened))
    findings += _check_species(opened)
    if read is not None:
        annotated = {annotation.recording for annotation in opened.dataset.annotations}
        findings += check_audio(opened.dataset.recordings, annotated, read)
    return findings


def _first_few(drafts: Iterator[_Draft]) -> Iterator[Finding]:
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
        what = f"{counts[group] - MAX_LISTED} more rows like this: {example.what}"
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
    groups: dict[tuple[str, str], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for i, box in enumerate(annotations):
        if box.label != EVERY_CLASS:
            groups[box.recording, box.label][box.present].append(i)
    for absents, presents in groups.values():
        if not (absents and presents):
            continue
        for i, j in _overlapping_pairs(
            [annotations[i] for i in presents], [annotations[j] for j in absents]
        ):
            present, absent = annotations[presents[i]], annotations[absents[j]]
            serious = _common_share(present, absent) >= _SAME_SOUND
            place, other = origins[absents[j]], origins[presents[i]]
            values = (absent.label, absent.start, absent.stop, absent.recording)
            times = (present.start, present.stop)
            yield _draft(
                "W_BOX_CONTRADICTION", *place, what, remedy, serious, *values, *times, *other
            )


def _overlapping_pairs(
    presents: Sequence[Annotation], absents: Sequence[Annotation]
) -> Iterator[tuple[int, int]]:
    """The indices of each present box and the first absent boxes that may be the same sound.

    A million boxes may overlap. So each present box is compared with at most ``_MOST_COMPARED``
    absent ones, in the order in which they begin.
    """
    order = np.argsort([box.start for box in absents], kind="stable")
    ordered = [absents[i] for i in order]
    starts, stops, lows, highs = (
        np.array([getattr(box, edge) for box in ordered])
        for edge in ("start", "stop", "low", "high")
    )
    songtypes = np.array([box.songtype for box in ordered], dtype=object)
    typed = bool((songtypes != "").any())
    latest = np.maximum.accumulate(stops)
    first = np.searchsorted(latest, [box.start for box in presents], side="right")
    last = np.searchsorted(starts, [box.stop for box in presents], side="left")
    for i in np.flatnonzero(first < last).tolist():
        box, here = presents[i], slice(first[i], min(last[i], first[i] + _MOST_COMPARED))
        one_sound = (stops[here] > box.start) & (lows[here] < box.high) & (highs[here] > box.low)
        if typed and box.songtype:
            one_sound &= (songtypes[here] == "") | (songtypes[here] == box.songtype)
        for k in np.flatnonzero(one_sound)[:MAX_LISTED].tolist():
            yield i, int(order[first[i] + k])


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
            *("W_NO_PRESENT_BOX", "no present box with audio"),
            [name for name in names if not recordings[name]],
            "add boxes or audio: a model cannot learn these",
        ),
        (
            *("W_NO_ABSENT_BOX", "no absent box with audio"),
            [name for name in names if name not in absent],
            "validate some boxes as absent",
        ),
        (
            *("W_ONE_RECORDING", "present boxes in one recording only"),
            [name for name in names if len(recordings[name]) == 1],
            "add recordings: no fold can learn and check these",
        ),
        (
            *("W_ONE_SITE", "present boxes at one site only"),
            [name for name in names if several_sites and at_one_site(name)],
            "add another site: no fold by site can check these",
        ),
    ]
    for code, problem, species, remedy in problems:
        if species:
            listed = list_names(species, MAX_SPECIES)
            count = f"{len(species)} of {len(names)} species"
            what = f"{count} have {problem}: {listed}"
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
