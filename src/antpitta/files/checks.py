"""The data doctor: what in a data set would teach a model, or a reader, something wrong.

- What the tables' readers and the matching found comes first, then boxes, species and sound.
- Of one kind of trouble in one table the first few are told one by one and the rest counted:
  ten thousand lines are not read.
- A present box inside a stretch where "no species" was said is no contradiction: whoever marked
  it heard it. The same species, and the same song type where both name one, must be meant.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from antpitta.core.errors import Finding
from antpitta.core.types import EVERY_CLASS, Annotation, Recording
from antpitta.files.audio_checks import check_audio
from antpitta.files.dataset import OpenedDataset

Read = Callable[[Recording, float, float], NDArray[np.float32]]
SHOWN = 5  # findings of one kind and table that are told one by one
NAMED = 8  # species that are named in one finding
_LATE = 1.0  # seconds that a box may end beyond its file before it is on the wrong file
_ROUNDING = 0.01  # seconds by which tables round
_SAME = 0.5  # of the time two boxes cover together: from here they are one sound


def check_dataset(opened: OpenedDataset, read: Read | None = None) -> list[Finding]:
    """Every problem of a data set, those of ``opened.findings`` included.

    With ``read`` (recording, start, stop -> samples) every recording is decoded too.
    """
    findings = [*opened.findings]
    for kind in (_beyond_the_end, _beyond_nyquist, _contradictions, _duplicates):
        findings += _few(kind(opened))
    findings += _species(opened)
    if read is not None:
        said = {annotation.recording for annotation in opened.dataset.annotations}
        findings += check_audio(opened.dataset.recordings, said, read)
    return findings


def _few(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The first of each file and weight, and how many more there are."""
    more: dict[tuple[str, bool], list[Finding]] = defaultdict(list)
    for finding in findings:
        alike = more[finding.file, finding.serious]
        alike.append(finding)
        if len(alike) <= SHOWN:
            yield finding
    for (file, serious), alike in more.items():
        for example in alike[SHOWN : SHOWN + 1]:
            what = f"{len(alike) - SHOWN} more rows like this: {example.what}"
            yield Finding("E_TODO", file, example.row, what, example.remedy, serious)


def _statements(opened: OpenedDataset) -> Iterator[tuple[Annotation, Recording, str, int]]:
    """Every annotation with its recording, file and row."""
    recordings = {recording.id: recording for recording in opened.dataset.recordings}
    for said, (file, row) in zip(opened.dataset.annotations, opened.origins, strict=True):
        yield said, recordings[said.recording], file, row


def _beyond_the_end(opened: OpenedDataset) -> Iterator[Finding]:
    remedy = "check that the row names the right recording, and the times' unit"
    for said, recording, file, row in _statements(opened):
        end = recording.duration
        if said.start >= end:
            what = f"the box begins at {said.start:g} s, {recording.id} ends at {end:.2f} s"
            yield Finding("E_TODO", file, row, what, remedy, True)
        elif said.stop > end + _ROUNDING:
            what = f"the box ends at {said.stop:g} s, {recording.id} at {end:.2f} s"
            yield Finding("E_TODO", file, row, what, remedy, said.stop > end + _LATE)


def _beyond_nyquist(opened: OpenedDataset) -> Iterator[Finding]:
    for said, recording, file, row in _statements(opened):
        top = recording.sample_rate / 2
        holds = f"{recording.id} holds nothing above {top:g} Hz"
        remedy = "check the frequencies' unit, and that this is the original recording"
        if said.low >= top:
            what = f"the box lies from {said.low:g} Hz up, {holds}"
            yield Finding("E_TODO", file, row, what, remedy, True)
        elif math.isfinite(said.high) and said.high > top + 1:
            yield Finding(
                "E_TODO", file, row, f"the box reaches {said.high:g} Hz, {holds}", remedy, False
            )


def _contradictions(opened: OpenedDataset) -> Iterator[Finding]:
    groups: dict[tuple[str, str], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    statements = list(_statements(opened))
    for i, (said, *_) in enumerate(statements):
        if said.label != EVERY_CLASS:
            groups[said.recording, said.label][said.present].append(i)
    for absents, presents in groups.values():
        if not (absents and presents):
            continue
        starts = np.array([statements[i][0].start for i in absents])
        stops = np.array([statements[i][0].stop for i in absents])
        for i in presents:
            present, _, file, row = statements[i]
            for j in np.flatnonzero((starts < present.stop) & (stops > present.start)):
                absent, recording, other, line = statements[absents[j]]
                if not _one_sound(present, absent):
                    continue
                what = (
                    f"{absent.label} is absent from {absent.start:g} to {absent.stop:g} s of"
                    f" {recording.id}, and present from {present.start:g} to {present.stop:g} s"
                    f" by {file}:{row}"
                )
                remedy = "listen again and remove one of them; until then present wins"
                yield Finding("E_TODO", other, line, what, remedy, _share(present, absent) >= _SAME)


def _one_sound(one: Annotation, other: Annotation) -> bool:
    """Whether two overlapping boxes can speak of one sound: its band, its song type."""
    same_type = not one.songtype or not other.songtype or one.songtype == other.songtype
    return same_type and one.low < other.high and other.low < one.high


def _share(one: Annotation, other: Annotation) -> float:
    """The time both cover, of the time that one of them does."""
    both = min(one.stop, other.stop) - max(one.start, other.start)
    return both / (max(one.stop, other.stop) - min(one.start, other.start))


def _duplicates(opened: OpenedDataset) -> Iterator[Finding]:
    first: dict[tuple[object, ...], tuple[str, int]] = {}
    for said, _, file, row in _statements(opened):
        box = (said.recording, said.label, said.songtype, said.present)
        place = first.setdefault((*box, said.start, said.stop, said.low, said.high), (file, row))
        if place != (file, row):
            what = f"the same box as {place[0]}:{place[1]}"
            yield Finding("E_TODO", file, row, what, "remove one of them", False)


def _species(opened: OpenedDataset) -> Iterator[Finding]:
    """What the boxes whose audio is here cannot teach, or nobody could check."""
    dataset = opened.dataset
    sites = {recording.id: recording.site for recording in dataset.recordings}
    there: dict[str, set[str]] = {name: set() for name in dataset.classes.names}
    absent = set()
    for said in dataset.annotations:
        if said.present:
            there[said.label].add(said.recording)
        else:
            absent |= {dataset.classes.names[i] for i in dataset.classes.columns(said.label)}
    placed = {name: {sites[recording] for recording in ids} for name, ids in there.items()}
    several = len({site for site in sites.values() if site}) > 1
    troubles = {
        "no present box": [name for name in there if not there[name]],
        "no absent box": [name for name in there if name not in absent],
        "present boxes in one recording only": [n for n in there if len(there[n]) == 1],
        "present boxes at one site only": [
            name
            for name in there
            if several
            and len(there[name]) > 1
            and len(placed[name]) == 1
            and None not in placed[name]
        ],
    }
    remedies = {
        "no present box": "nothing teaches these; add boxes or audio, or expect nothing",
        "no absent box": "nothing was judged against these; validate some that are not there",
        "present boxes in one recording only": "no fold can learn and check these; add recordings",
        "present boxes at one site only": "no fold by site can check these; add another site's",
    }
    for trouble, names in troubles.items():
        if names:
            few = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
            count = f"{len(names)} of {len(there)} species"
            what = f"of the boxes whose audio is here, {count} have {trouble}: {few}"
            yield Finding("E_TODO", ", ".join(opened.tables), None, what, remedies[trouble], False)
