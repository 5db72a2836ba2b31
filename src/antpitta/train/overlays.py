"""Copies of recordings with calls added where their species is known to be absent.

An absent box is background for its species, and known to be so. A validated call from elsewhere,
added to it, makes a present box in new surroundings, beside the absent box of the recording
itself: what separates the two is the call and not the site. A copy keeps all other boxes of its
host. Calls and hosts are of one fold, so that whatever model may be trained on the host may be
trained on all that was added to it.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from antpitta.core.config import OverlayConfig
from antpitta.core.types import Annotation, Dataset, Recording
from antpitta.model.features import ReadAudio, Wave
from antpitta.sound.overlay import (
    add_call,
    background_level,
    bandpass_call,
    fade_call,
    overlay_gain,
)

Ints = NDArray[np.int64]

MAX_COPIES = 1000  # in all: where boxes are many, copies are not needed, and cost as recordings do
CACHED_LEVELS = 4096  # background levels of recordings and bands
MARGIN = 0.25  # seconds around a call, for the filter's transients
LEVEL_SECONDS = 60.0  # at the start of a recording, that its background level is measured on


@dataclass(frozen=True)
class OverlaidCall:
    """One call that is added to a copy.

    Parameters
    ----------
    call
        A present box of another recording.
    start : seconds
        Where it begins in the copy.
    gain : dB
        How much louder it is made, relative to the background.
    """

    call: Annotation
    start: float
    gain: float

    @property
    def stop(self) -> float:
        """Where it ends in the copy, in seconds."""
        return self.start + self.call.stop - self.call.start


@dataclass(frozen=True)
class OverlaidRecording:
    """A copy of a recording, with calls added.

    Parameters
    ----------
    recording
        The host's file, with an id of its own.
    host
        The index of the host among the data set's recordings.
    calls
        The added calls.
    boxes
        All boxes of the copy.
    """

    recording: Recording
    host: int
    calls: tuple[OverlaidCall, ...]
    boxes: tuple[Annotation, ...]

    @property
    def digest(self) -> str:
        """The cache key of its features, besides the host's sound: equal for equal calls."""
        boxes = [(overlaid.call, overlaid.start, overlaid.gain) for overlaid in self.calls]
        values = [
            (call.recording, call.start, call.stop, call.low, call.high, start, gain)
            for call, start, gain in boxes
        ]
        return hashlib.blake2b(repr(values).encode(), digest_size=8).hexdigest()


# ---- which calls go where


def plan_overlays(
    dataset: Dataset, folds: Ints, overlay: OverlayConfig, seed: int
) -> list[OverlaidRecording]:
    """Choose the calls of ``overlay.copies`` copies of every recording with absent boxes.

    Parameters
    ----------
    dataset
        The recordings and their boxes.
    folds : (recordings,)
        The fold of each recording.
    overlay
        The settings.
    seed
        Equal seeds give equal plans.

    Returns
    -------
    overlays
        The copies, by their number, then by their host. A copy without calls is left out; of more
        than 1,000 copies so many are chosen at random.
    """
    calls = _calls_by_fold(dataset, folds)
    recordings = {recording.id: recording for recording in dataset.recordings}
    boxes_by_id = defaultdict(list)
    for box in dataset.annotations:
        boxes_by_id[box.recording].append(box)
    overlays = []
    for number in range(overlay.copies):
        for i, host in enumerate(dataset.recordings):
            rng = np.random.default_rng([seed, number, i])
            candidates = _CallCandidates(host, calls[int(folds[i])], recordings)
            chosen, boxes = _choose_calls(boxes_by_id[host.id], candidates, overlay, rng)
            if chosen:
                copy = replace(host, id=f"{host.id}+{number + 1}")
                boxes = [replace(box, recording=copy.id) for box in boxes]
                overlays.append(OverlaidRecording(copy, i, tuple(chosen), tuple(boxes)))
    if len(overlays) > MAX_COPIES:
        order = np.random.default_rng([seed, overlay.copies]).permutation(len(overlays))
        return [overlays[i] for i in np.sort(order[:MAX_COPIES])]
    return overlays


@dataclass(frozen=True)
class _CallCandidates:
    """The calls that may be added to a host."""

    host: Recording
    calls: dict[str, list[Annotation]]  # by class
    recordings: dict[str, Recording]  # by id

    def for_box(self, box: Annotation) -> list[Annotation]:
        """Calls of the box's class from other recordings that end before the host does."""
        return [
            call
            for call in self.calls.get(box.label, ())
            if call.recording != self.host.id
            and box.start + call.stop - call.start <= self.host.duration
            and call.stop <= self.recordings[call.recording].duration
        ]


def _calls_by_fold(dataset: Dataset, folds: Ints) -> dict[int, dict[str, list[Annotation]]]:
    """The present boxes of each fold and class."""
    fold = {r.id: int(k) for r, k in zip(dataset.recordings, folds, strict=True)}
    calls: dict[int, dict[str, list[Annotation]]] = {
        int(k): defaultdict(list) for k in np.unique(folds)
    }
    for box in dataset.annotations:
        if box.present:
            calls[fold[box.recording]][box.label].append(box)
    return calls


def _choose_calls(
    boxes: list[Annotation],
    candidates: _CallCandidates,
    overlay: OverlayConfig,
    rng: np.random.Generator,
) -> tuple[list[OverlaidCall], list[Annotation]]:
    """The calls of one copy, and its boxes: an absent box that a call of its class overlaps is
    no longer true.
    """
    chosen: list[OverlaidCall] = []
    added: list[Annotation] = []
    for box in boxes:
        if box.present or rng.random() >= overlay.probability:
            continue
        calls = candidates.for_box(box)
        if not calls:
            continue
        call = calls[int(rng.integers(len(calls)))]
        gain = float(rng.uniform(-overlay.max_gain, overlay.max_gain))
        overlaid = OverlaidCall(call, box.start, gain)
        chosen.append(overlaid)
        added.append(replace(call, start=box.start, stop=overlaid.stop, source="overlay"))
    kept = [box for box in boxes if box.present or not any(_overlap(box, new) for new in added)]
    return chosen, [*kept, *added]


def _overlap(box: Annotation, other: Annotation) -> bool:
    """Whether two boxes of one class overlap in time."""
    return other.label == box.label and other.start < box.stop and box.start < other.stop


# ---- the sound of copies


def read_with_overlays(
    read: ReadAudio, overlays: list[OverlaidRecording], dataset: Dataset, sample_rate: int
) -> ReadAudio:
    """Extend a function that reads the data set's recordings, so that it reads copies too.

    Parameters
    ----------
    read
        Reads the recordings of ``dataset``.
    overlays
        The copies.
    dataset
        The recordings.
    sample_rate : Hz
        The rate at which background levels are measured; calls are added at the rate asked for.

    Returns
    -------
    read_any
        Reads the recordings as ``read`` does, and copies with their calls added.
    """
    by_id = {overlay.recording.id: overlay for overlay in overlays}
    sounds = _CallSounds(read, {r.id: r for r in dataset.recordings}, sample_rate)

    def read_any(recording: Recording, start: float, stop: float, rate: int) -> Wave:
        overlay = by_id.get(recording.id)
        if overlay is None:
            return read(recording, start, stop, rate)
        host = dataset.recordings[overlay.host]
        wave = read(host, start, stop, rate).copy()
        for overlaid in overlay.calls:
            if overlaid.start < stop and overlaid.stop > start:
                call = sounds.extract_call(host, overlaid, rate)
                add_call(wave, call, round((overlaid.start - start) * rate))
        return wave

    return read_any


class _CallSounds:
    """Calls as they are added to a host: filtered, faded, and at the host's level."""

    def __init__(self, read: ReadAudio, recordings: dict[str, Recording], sample_rate: int) -> None:
        self.read, self.recordings, self.sample_rate = read, recordings, sample_rate
        self.level = lru_cache(maxsize=CACHED_LEVELS)(self._measure_level)

    def extract_call(self, host: Recording, overlaid: OverlaidCall, rate: int) -> Wave:
        """The wave of a call, at a sample rate."""
        box, source = overlaid.call, self.recordings[overlaid.call.recording]
        lead = min(box.start, MARGIN)
        stop = min(box.stop + MARGIN, source.duration)
        wave = bandpass_call(
            self.read(source, box.start - lead, stop, rate), rate, box.low, box.high
        )
        first = round(lead * rate)
        call = wave[first : first + round((box.stop - box.start) * rate)]
        host_level = self.level(host.id, box.low, box.high)
        source_level = self.level(source.id, box.low, box.high)
        return fade_call(call, rate) * overlay_gain(host_level, source_level, overlaid.gain)

    def _measure_level(self, recording_id: str, low: float, high: float) -> float:
        """The background level of a recording in a band."""
        recording, rate = self.recordings[recording_id], self.sample_rate
        wave = self.read(recording, 0.0, min(recording.duration, LEVEL_SECONDS), rate)
        return background_level(bandpass_call(wave, rate, low, high), rate)
