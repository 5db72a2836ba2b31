"""Is the sound itself sound: clipped, silent, damaged or cut short?

Recordings are decoded a minute at a time through the ``read`` that is handed in, at whatever
rate it gives: nothing here depends on the rate. A WAV that was cut short is known by its
header alone, because the library that decodes it takes its true length for the whole.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.core.errors import Finding
from antpitta.core.types import Recording
from antpitta.files.audio import TAIL, UnreadableAudio
from antpitta.files.wav_chunks import read_wav_chunks

Read = Callable[[Recording, float, float], NDArray[np.float32]]
BLOCK = 60.0  # seconds
_FULL = 0.99  # of full scale: a clipped plateau, after resampling
_OFTEN = 1e-3  # of the samples: more at full scale is not one loud bang
_QUIET = 1e-4  # of full scale, three steps of 16 bits
_DEAD = 1e-6  # of full scale: no microphone is that quiet
_DEAD_SECONDS = 2
_RIM = 0.05  # seconds: at the ends of a file the resampler rings, were it all one value


@dataclass
class _Heard:
    """What one recording was like."""

    samples: int = 0
    full: int = 0
    range: float = 0.0  # the widest span of any second
    dead: float = 0.0  # seconds
    broken: float | None = None  # where a minute begins that does not decode


def check_audio(
    recordings: Sequence[Recording], judged: Collection[str], read: Read
) -> Iterator[Finding]:
    """The findings of each recording in order; ``judged`` are the ids that carry boxes.

    Silence, damage and a cut weigh more where boxes lie in them.
    """
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for found in pool.map(lambda one: _examine(one, one.id in judged, read), recordings):
            yield from found


def _examine(recording: Recording, judged: bool, read: Read) -> list[Finding]:
    file, anew = str(recording.path), "copy it anew from the card, or leave it out"
    promised = recording.duration + read_wav_chunks(recording.path).missing_seconds(recording.duration)
    holds = recording.duration if _decodes(recording, recording.duration, read) else None
    heard = _listen(recording, read)
    if holds is None:
        holds = _end_of_sound(recording, read)
    if not heard.samples:
        return [Finding("E_TODO", file, None, "nothing in it decodes", anew, True)]
    findings = []
    if promised - holds > TAIL:
        what = f"cut short: its header promises {promised:.1f} s, it holds {holds:.1f} s"
        findings.append(Finding("E_TODO", file, None, what, anew, judged))
    elif heard.broken is not None:
        what = f"damaged: the minute from {heard.broken:g} s on does not decode"
        findings.append(Finding("E_TODO", file, None, what, anew, judged))
    if heard.range < _QUIET:
        what = "silent: no second of it has any sound"
        findings.append(
            Finding("E_TODO", file, None, what, "check the microphone; leave it out", judged)
        )
    elif heard.dead >= _DEAD_SECONDS:
        what = f"{heard.dead:.0f} s of it are dead (one constant value)"
        findings.append(
            Finding("E_TODO", file, None, what, "leave out boxes that lie there", False)
        )
    if heard.full > _OFTEN * heard.samples:
        what = f"clipped: {heard.full / heard.samples:.1%} of the samples are at full scale"
        findings.append(Finding("E_TODO", file, None, what, "record with less gain", False))
    return findings


def _listen(recording: Recording, read: Read) -> _Heard:
    heard = _Heard()
    for start in np.arange(0.0, recording.duration, BLOCK).tolist():
        stop = min(start + BLOCK, recording.duration)
        try:
            sound = read(recording, start, stop)
        except UnreadableAudio:
            heard.broken = start if heard.broken is None else heard.broken
            continue
        if not len(sound):
            continue
        heard.samples += len(sound)
        heard.full += int(np.count_nonzero(np.abs(sound) >= _FULL))
        rim = round(_RIM * len(sound) / (stop - start))
        inner = sound[rim : len(sound) - rim] if len(sound) > 4 * rim else sound
        seconds = np.array_split(inner, max(1, round(stop - start)))
        spans = np.array([np.ptp(second) for second in seconds if len(second)])
        heard.range = max(heard.range, float(spans.max()))
        heard.dead += float(np.count_nonzero(spans < _DEAD)) * (stop - start) / len(spans)
    return heard


def _decodes(recording: Recording, end: float, read: Read) -> bool:
    """Whether the last moment before ``end`` holds any sound."""
    try:
        return len(read(recording, max(0.0, end - TAIL), end)) > 0
    except UnreadableAudio:
        return False


def _end_of_sound(recording: Recording, read: Read) -> float:
    """Where decoding ends, to a tenth of a second."""
    good, bad = 0.0, recording.duration
    while bad - good > 0.1:
        middle = (good + bad) / 2
        if _decodes(recording, middle, read):
            good = middle
        else:
            bad = middle
    return good
