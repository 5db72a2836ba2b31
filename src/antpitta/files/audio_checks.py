"""Checks of the sound itself: clipped, silent, damaged or cut short?

Recordings are decoded a minute at a time by the ``read`` that the caller gives, at any sample
rate. What a header promises is in the recording (files/audio_length.py). The channels of a minute
are examined before they are mixed, because the mean hides what is wrong with one of them.
"""

import math
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antpitta.core.errors import Finding
from antpitta.core.types import Recording
from antpitta.files.audio import TAIL, UnreadableAudio, read_channels
from antpitta.files.recording_metadata import read_metadata
from antpitta.files.sound_chunks import has_ogg_end
from antpitta.files.texts import utf8_text

Read = Callable[[Recording, float, float], NDArray[np.float32]]
BLOCK = 60.0  # seconds
_FULL_SCALE = 0.99  # a clipped plateau, after resampling
_CLIPPED_SHARE = 1e-3  # of the samples: more is not one loud bang
_SILENT_RANGE = 1e-4  # of full scale, three steps of 16 bits
_CONSTANT_RANGE = 1e-6  # of full scale: no microphone is that quiet
_CONSTANT_SECONDS = 2
_CHANNEL_SECONDS = 60.0  # from the start, in which channels are compared
_QUIETER = 1e-3  # of the power of the loudest channel: -30 dB, a microphone that is off
_END = 0.05  # seconds before the end in which sound is looked for
_MARGIN = 0.05  # seconds at the ends of a file where the resampler rings


@dataclass
class _SoundStatistics:
    """What decoding a recording has found."""

    samples: int = 0
    clipped_samples: int = 0
    range: float = 0.0  # the widest of any second
    constant_seconds: float = 0.0
    damaged_at: float | None = None  # start of the first minute that does not decode


def check_audio(
    recordings: Sequence[Recording], annotated: Collection[str], read: Read
) -> Iterator[Finding]:
    """Decode recordings and report damaged, silent and clipped sound.

    Parameters
    ----------
    recordings : in the order of the findings
    annotated : ids of recordings with boxes, in which silence, damage and a cut are serious
    read : (recording, start, stop) -> samples

    Returns
    -------
    findings : those of each recording, in order
    """
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for findings in pool.map(
            lambda r: _check_recording(r, r.id in annotated, read), recordings
        ):
            yield from findings


def _check_recording(recording: Recording, annotated: bool, read: Read) -> list[Finding]:
    findings: list[Finding] = []

    def add(code: str, what: str, remedy: str, serious: bool = False) -> None:
        findings.append(Finding(code, utf8_text(str(recording.path)), None, what, remedy, serious))

    copy_again = "copy it again from the card, or leave it out"
    promised = recording.duration + recording.missing_seconds
    held = recording.duration if _decodes(recording, recording.duration, read) else None
    statistics = _measure(recording, read)
    if held is None:
        held = _end_of_sound(recording, read)
    if not statistics.samples:
        add("W_AUDIO_DAMAGED", "nothing in it decodes", copy_again, serious=True)
        return findings
    if promised - held > TAIL or not has_ogg_end(recording.path):
        add("W_AUDIO_CUT_SHORT", _describe_loss(promised, held), copy_again, annotated)
    elif promised - held < -TAIL:
        what = f"its header promises {promised:.1f} s, and it has {held:.1f} s, which are all used"
        add("W_AUDIO_HEADER", what, "repair the header, as other programs may use less")
    elif statistics.damaged_at is not None:
        what = f"damaged: the minute from {statistics.damaged_at:g} s does not decode"
        add("W_AUDIO_DAMAGED", what, copy_again, annotated)
    if statistics.range < _SILENT_RANGE:
        remedy = "check the microphone, and leave the recording out"
        add("W_AUDIO_SILENT", "silent: no second of it has any sound", remedy, annotated)
    elif statistics.constant_seconds >= _CONSTANT_SECONDS:
        what = f"{statistics.constant_seconds:.0f} s of it have one constant value"
        add("W_AUDIO_CONSTANT", what, "leave out boxes that lie there")
    if statistics.clipped_samples > _CLIPPED_SHARE * statistics.samples:
        share = statistics.clipped_samples / statistics.samples
        what = f"clipped: {share:.1%} of the samples are at full scale"
        add("W_AUDIO_CLIPPED", what, "record with less gain")
    if recording.channels > 1:
        remedy = "check the microphones, and choose one with --channel"
        for what in _channel_problems(recording):
            add("W_AUDIO_CHANNELS", what, remedy)
    return [*findings, *_check_clock(recording)]


def _describe_loss(promised: float, held: float) -> str:
    if promised - held > TAIL:
        return f"cut short: its header promises {promised:.1f} s, it has {held:.1f} s"
    return f"cut short: its OGG stream has no end, it has {held:.1f} s"


def _check_clock(recording: Recording) -> Iterator[Finding]:
    """What is wrong with the time that a recorder wrote into the file or its name."""
    path = utf8_text(str(recording.path))
    metadata = read_metadata(recording.path)
    for problem in metadata.problems:
        remedy = "give site and time in the table of sites"
        yield Finding("W_RECORDER_CLOCK", path, None, problem, remedy, False)
    if metadata.triggered:
        what = "a triggered recording: sound below the threshold may have been left out"
        remedy = "do not take times in the file for clock times"
        if metadata.left_out:
            what = (
                f"a triggered recording: {metadata.left_out:.1f} s of silence are left out, so its"
                " detections have no clock time"
            )
            remedy = "expand it with AudioMoth's app"
        yield Finding("W_RECORDER_TRIGGERED", path, None, what, remedy, False)


def _channel_problems(recording: Recording) -> Iterator[str]:
    """What is wrong with single channels at the beginning of a recording."""
    last = min(recording.samples, round(_CHANNEL_SECONDS * recording.sample_rate))
    try:
        sound = read_channels(recording, 0, last)
    except UnreadableAudio:
        return
    if not len(sound):
        return
    power = sound.var(axis=0, dtype=np.float64)
    used = range(sound.shape[1]) if recording.channel is None else [recording.channel - 1]
    for i in used:
        clipped = float(np.mean(np.abs(sound[:, i]) >= _FULL_SCALE))
        if math.isfinite(power.max()) and power[i] < _QUIETER * power.max():
            yield f"channel {i + 1} is silent beside the others"
        elif i + 1 in recording.inverted:
            yield f"channel {i + 1} has the opposite polarity, and is inverted"
        if clipped > _CLIPPED_SHARE:
            yield f"channel {i + 1} is clipped: {clipped:.1%} of its samples are at full scale"


def _measure(recording: Recording, read: Read) -> _SoundStatistics:
    """Decode a recording minute by minute."""
    statistics = _SoundStatistics()
    for start in np.arange(0.0, recording.duration, BLOCK).tolist():
        stop = min(start + BLOCK, recording.duration)
        try:
            sound = read(recording, start, stop)
        except UnreadableAudio:
            if statistics.damaged_at is None:
                statistics.damaged_at = start
            continue
        if not len(sound):
            continue
        statistics.samples += len(sound)
        statistics.clipped_samples += int(np.count_nonzero(np.abs(sound) >= _FULL_SCALE))
        margin = round(_MARGIN * len(sound) / (stop - start))
        inner = sound[margin : len(sound) - margin] if len(sound) > 4 * margin else sound
        seconds = np.array_split(inner, max(1, round(stop - start)))
        ranges = np.array([np.ptp(second) for second in seconds if len(second)])
        statistics.range = max(statistics.range, float(ranges.max()))
        constant = float(np.count_nonzero(ranges < _CONSTANT_RANGE))
        statistics.constant_seconds += constant * (stop - start) / len(ranges)
    return statistics


def _decodes(recording: Recording, end: float, read: Read) -> bool:
    """Whether the last moment before ``end`` gives any sound."""
    try:
        return len(read(recording, max(0.0, end - _END), end)) > 0
    except UnreadableAudio:
        return False


def _end_of_sound(recording: Recording, read: Read) -> float:
    """Where decoding ends, to a tenth of a second."""
    good, bad = 0.0, recording.duration
    while bad - good > _END:
        middle = (good + bad) / 2
        if _decodes(recording, middle, read):
            good = middle
        else:
            bad = middle
    return good
