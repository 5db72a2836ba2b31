"""The gaps of recordings: parts inside them that are lost, and the boxes and calls that lie there.

- Frames of a FLAC that do not decode are silence at their time. Only decoding shows them, so that
  they are looked for in recordings with boxes, just before these are used, and not when a data set
  is opened. Where a decoder does not go on behind damage, all from there on is lost.
- An MP3 has no times: behind damage, sound comes earlier than it was recorded. All from there on
  is lost to boxes; its frames show that without decoding.
- Nobody can say what a box in a gap holds, whatever its verdict: it is judged by silence.
"""

import re
from collections.abc import Iterable
from math import inf

from antpitta.core.types import Recording
from antpitta.files.audio import TAIL, UnreadableAudio, file_errors, read, read_whole
from antpitta.files.sound_chunks import has_ogg_end

Gaps = tuple[tuple[float, float], ...]
_BLOCK = 60.0  # seconds that are decoded at once
_MAX_SHARE = 0.5  # of a box that may lie in gaps
_NUMBER = r"(\d+\.?\d*)"
_PARTS = re.compile(rf"is damaged: {_NUMBER} to {_NUMBER} s (?:do not decode|are displaced)")
_ENDS = re.compile(rf"(?:is cut short after|does not decode from) {_NUMBER} s")
_LOSSES = ("is cut short", "is damaged", "does not decode")


def displacement_notes(recording: Recording) -> list[str]:
    """Notes on sound that is not at its time.

    Parameters
    ----------
    recording : as from :func:`antpitta.files.audio.probe`

    Returns
    -------
    notes : one for each part, which :func:`gaps_in_notes` reads
    """
    return [
        f"is damaged: {start:.2f} to {stop:.2f} s are displaced"
        for start, stop in recording.gaps or ()
    ]


def truncation_notes(recording: Recording) -> list[str]:
    """Notes on what the header of a sound file promises and the file does not hold.

    Parameters
    ----------
    recording : as from :func:`antpitta.files.audio.probe`

    Returns
    -------
    notes : one at most
    """
    if recording.spectrogram is not None:
        return []
    lost = recording.missing_seconds
    if lost > TAIL:
        return [f"is cut short: {lost:.1f} s are missing at the end"]
    return [] if has_ogg_end(recording.path) else ["is cut short: its OGG stream has no end"]


def gaps_in_notes(notes: str) -> Gaps:
    """The gaps that notes of reading name.

    Parameters
    ----------
    notes : of a recording, as in quarantine.csv

    Returns
    -------
    gaps : in seconds; the end of the last may be infinite
    """
    gaps = [(float(start), float(stop)) for start, stop in _PARTS.findall(notes)]
    return tuple(sorted(gaps + [(float(start), inf) for start in _ENDS.findall(notes)]))


def has_lost_part(notes: str) -> bool:
    """Whether notes of reading say that a part of a recording is lost.

    Parameters
    ----------
    notes : of a recording, as in quarantine.csv

    Returns
    -------
    lost : False where all sound was used, such as scaled one
    """
    return any(words in notes for words in _LOSSES)


def find_gaps(recording: Recording) -> Gaps:
    """Look for gaps in a recording, by decoding it where nothing else shows them.

    Parameters
    ----------
    recording : as from :func:`antpitta.files.audio.probe`

    Returns
    -------
    gaps : in seconds
    """
    if recording.gaps is not None:
        return recording.gaps
    if recording.spectrogram is not None or recording.path.suffix.lower() != ".flac":
        return ()
    gaps: list[tuple[float, float]] = []
    with file_errors(recording.path):
        if read_whole(recording) is not None:
            return ()
    start = 0.0
    while start < recording.duration:
        stop = min(start + _BLOCK, recording.duration)
        notes: list[str] = []
        try:
            held = len(read(recording, start, stop, recording.sample_rate, notes))
        except UnreadableAudio:
            held = 0
        gaps += gaps_in_notes("; ".join(note for note in notes if "is damaged" in note))
        end = start + held / recording.sample_rate
        if stop - end > (TAIL if stop == recording.duration else 1e-3):
            gaps.append((end, stop))
        start = stop
    return tuple(gaps)


def overlap(gaps: Iterable[tuple[float, float]], start: float, stop: float) -> float:
    """The share of a stretch of time that lies in gaps.

    Parameters
    ----------
    gaps : (start, stop) in seconds
    start, stop : of the stretch

    Returns
    -------
    share : from 0 to 1
    """
    if stop <= start:
        return float(any(first <= start < last for first, last in gaps))
    lost = sum(max(0.0, min(stop, last) - max(start, first)) for first, last in gaps)
    return min(1.0, lost / (stop - start))


def is_lost(gaps: Iterable[tuple[float, float]], start: float, stop: float) -> bool:
    """Whether more than half of a stretch of time lies in gaps.

    Parameters
    ----------
    gaps : (start, stop) in seconds
    start, stop : of the stretch

    Returns
    -------
    lost : such a box or call says nothing about the sound that is there
    """
    return overlap(gaps, start, stop) > _MAX_SHARE


def describe_gap(gaps: Gaps, start: float, stop: float, kind: str, recording: str) -> str:
    """What is wrong with a box or a call in a gap.

    Parameters
    ----------
    gaps : of the recording
    start, stop : of the box
    kind : box or call
    recording : its id

    Returns
    -------
    what : for a finding
    """
    first, last = max(gaps, key=lambda gap: overlap([gap], start, stop))
    place = f"from {first:.2f} s on" if last == inf else f"from {first:.2f} to {last:.2f} s"
    return f"the {kind} from {start:g} to {stop:g} s lies where {recording} is damaged, {place}"
