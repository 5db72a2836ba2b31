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
from collections.abc import Iterator
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


def _first_few(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The first findings of each file and weight, and the number of the others."""
    counts: dict[tuple[str, bool], int] = defaultdict(int)
    examples: dict[tuple[str, bool], Finding] = {}
    for finding in findings:
        group = (finding.file, finding.serious)
        counts[group] += 1
        if counts[group] <= MAX_LISTED:
            yield finding
        else:
            examples.setdefault(group, finding)
    for group, example in examples.items():
        what = f"{counts[group] - MAX_LISTED} more rows like this: {example.what}"
        yield replace(example, what=what)


def _iter_boxes(opened: OpenedDataset) -> Iterator[tuple[Annotation, Recording, str, int]]:
    """Every annotation with its recording, file and row."""
    recordings = {recording.id: recording for recording in opened.dataset.recordings}
    for box, (file, row) in zip(opened.dataset.annotations, opened.origins, strict=True):
        yield box, recordings[box.recording], file, row


def _check_ends(opened: OpenedDataset) -> Iterator[Finding]:
    code = "W_BOX_BEYOND_END"
    remedy = "check the recording that the row names, and the unit of the times"
    for box, recording, file, row in _iter_boxes(opened):
        end = recording.duration
        if box.start >= end:
            what = f"the box begins at {box.start:g} s, {recording.id} ends at {end:.2f} s"
            yield Finding(code, file, row, what, remedy, True)
        elif box.stop > end + _ROUNDING:
            what = f"the box ends at {box.stop:g} s, {recording.id} at {end:.2f} s"
            yield Finding(code, file, row, what, remedy, box.stop > end + _LATE)


def _check_frequencies(opened: OpenedDataset) -> Iterator[Finding]:
    code = "W_BOX_ABOVE_NYQUIST"
    remedy = "check the unit of the frequencies, and that this is the original recording"
    for box, recording, file, row in _iter_boxes(opened):
        nyquist = recording.sample_rate / 2
        limit = f"{recording.id} has nothing above {nyquist:g} Hz"
        if box.low >= nyquist:
            what = f"the box begins at {box.low:g} Hz, {limit}"
            yield Finding(code, file, row, what, remedy, True)
        elif math.isfinite(box.high) and box.high > nyquist + 1:
            what = f"the box ends at {box.high:g} Hz, {limit}"
            yield Finding(code, file, row, what, remedy, False)


def _check_contradictions(opened: OpenedDataset) -> Iterator[Finding]:
    remedy = "listen again and remove one of them; until then present wins"
    boxes = list(_iter_boxes(opened))
    groups: dict[tuple[str, str], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for i, (box, *_) in enumerate(boxes):
        if box.label != EVERY_CLASS:
            groups[box.recording, box.label][box.present].append(i)
    for absents, presents in groups.values():
        if not (absents and presents):
            continue
        starts = np.array([boxes[i][0].start for i in absents])
        stops = np.array([boxes[i][0].stop for i in absents])
        for i in presents:
            present, _, present_file, present_row = boxes[i]
            overlaps = np.flatnonzero((starts < present.stop) & (stops > present.start))
            for j in overlaps[:MAX_LISTED]:
                absent, recording, file, row = boxes[absents[j]]
                if not _may_be_one_sound(present, absent):
                    continue
                what = (
                    f"{absent.label} is absent from {absent.start:g} to {absent.stop:g} s of"
                    f" {recording.id}, and present from {present.start:g} to {present.stop:g} s"
                    f" in {present_file}:{present_row}"
                )
                serious = _common_share(present, absent) >= _SAME_SOUND
                yield Finding("W_BOX_CONTRADICTION", file, row, what, remedy, serious)


def _may_be_one_sound(box: Annotation, other: Annotation) -> bool:
    """Whether two boxes share frequencies, and have no different song types."""
    same_type = not box.songtype or not other.songtype or box.songtype == other.songtype
    return same_type and box.low < other.high and other.low < box.high


def _common_share(box: Annotation, other: Annotation) -> float:
    """The time that both boxes cover, as a share of the time that one of them does."""
    both = min(box.stop, other.stop) - max(box.start, other.start)
    return both / (max(box.stop, other.stop) - min(box.start, other.start))


def _check_duplicates(opened: OpenedDataset) -> Iterator[Finding]:
    first: dict[tuple[object, ...], tuple[str, int]] = {}
    for box, _, file, row in _iter_boxes(opened):
        sound = (box.recording, box.label, box.songtype, box.present)
        key = (*sound, box.start, box.stop, box.low, box.high)
        place = first.setdefault(key, (file, row))
        if place != (file, row):
            what = f"the same box as {place[0]}:{place[1]}"
            yield Finding("W_BOX_DUPLICATE", file, row, what, "remove one of them", False)


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
