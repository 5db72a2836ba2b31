"""Copies of recordings with calls laid over them, where the species is known to be absent.

An absent box is background for its species, and known to be so: a validated call from elsewhere,
laid over it, makes a present box in new surroundings beside the absent box it was before. What
the head learns from the two is the call and not the place. A copy keeps all other boxes of its
host. Calls and hosts are of one fold, so that whoever may learn from the host may learn from
all that was laid over it.
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
from antpitta.sound.overlay import add_call, bandpass_call, fade_call, overlay_gain, background_level

Ints = NDArray[np.int64]

LEVELS = 4096  # of recordings' bands, kept


@dataclass(frozen=True)
class OverlaidCall:
    """One call, laid over a copy."""

    call: Annotation  # a present box of another recording
    start: float  # seconds on the copy's clock
    gain: float  # dB


@dataclass(frozen=True)
class OverlaidRecording:
    """A recording that is heard as its host, with calls laid over it."""

    recording: Recording  # the host's file, under a name of its own
    host: int  # the host's place among the data set's recordings
    calls: tuple[OverlaidCall, ...]
    boxes: tuple[Annotation, ...]

    @property
    def digest(self) -> str:
        """What a cached picture is keyed by, besides the host's sound: equal for equal plans."""
        said = [
            (call.recording, call.start, call.stop, call.low, call.high, at, gain)
            for call, at, gain in ((one.call, one.start, one.gain) for one in self.calls)
        ]
        return hashlib.blake2b(repr(said).encode(), digest_size=8).hexdigest()


def plan_overlays(
    dataset: Dataset, folds: Ints, paste: OverlayConfig, seed: int
) -> list[OverlaidRecording]:
    """``paste.copies`` of every recording that has an absent box to lay a call over."""
    calls = _calls_by_fold(dataset, folds)
    known = {recording.id: recording for recording in dataset.recordings}
    said = defaultdict(list)
    for box in dataset.annotations:
        said[box.recording].append(box)
    found = []
    for number in range(paste.copies):
        for i, host in enumerate(dataset.recordings):
            rng = np.random.default_rng([seed, number, i])
            fits = _Fits(host, calls[int(folds[i])], known)
            laid, boxes = _lay_plan(said[host.id], fits, paste, rng)
            if laid:
                name = replace(host, id=f"{host.id}+{number + 1}")
                boxes = [replace(box, recording=name.id) for box in boxes]
                found.append(OverlaidRecording(name, i, tuple(laid), tuple(boxes)))
    return found


def read_with_overlays(
    read: ReadAudio, copies: list[OverlaidRecording], dataset: Dataset, sample_rate: int
) -> ReadAudio:
    """``read``, which knows the data set's recordings, taught to read the copies too.

    How loud recordings are is told at ``sample_rate``, calls are laid at the rate asked for.
    """
    by_id = {copy.recording.id: copy for copy in copies}
    known = {recording.id: recording for recording in dataset.recordings}

    @lru_cache(maxsize=LEVELS)
    def level(recording: str, low: float, high: float) -> float:
        one = known[recording]
        wave = read(one, 0.0, min(one.duration, 60.0), sample_rate)
        return background_level(bandpass_call(wave, sample_rate, low, high), sample_rate)

    def call_of(host: Recording, one: OverlaidCall, rate: int) -> Wave:
        box, source = one.call, known[one.call.recording]
        lead = min(box.start, 0.25)  # room for the filter to settle in
        wave = read(source, box.start - lead, min(box.stop + 0.25, source.duration), rate)
        wave = bandpass_call(wave, rate, box.low, box.high)
        first = round(lead * rate)
        call = wave[first : first + round((box.stop - box.start) * rate)]
        here = level(host.id, box.low, box.high)
        return fade_call(call, rate) * overlay_gain(
            here, level(source.id, box.low, box.high), one.gain
        )

    def hear(recording: Recording, start: float, stop: float, rate: int) -> Wave:
        copy = by_id.get(recording.id)
        if copy is None:
            return read(recording, start, stop, rate)
        host = dataset.recordings[copy.host]
        wave = read(host, start, stop, rate).copy()
        for one in copy.calls:
            if one.start < stop and one.start + one.call.stop - one.call.start > start:
                add_call(wave, call_of(host, one, rate), round((one.start - start) * rate))
        return wave

    return hear


@dataclass(frozen=True)
class _Fits:
    """Which calls may be laid over a host."""

    host: Recording
    calls: dict[str, list[Annotation]]
    known: dict[str, Recording]

    def of(self, box: Annotation) -> list[Annotation]:
        """Calls of the box's species from other recordings, that end before the host does."""
        return [
            call
            for call in self.calls.get(box.label, ())
            if call.recording != self.host.id
            and box.start + call.stop - call.start <= self.host.duration
            and call.stop <= self.known[call.recording].duration
        ]


def _calls_by_fold(dataset: Dataset, folds: Ints) -> dict[int, dict[str, list[Annotation]]]:
    fold = {r.id: int(k) for r, k in zip(dataset.recordings, folds, strict=True)}
    found: dict[int, dict[str, list[Annotation]]] = {
        int(k): defaultdict(list) for k in np.unique(folds)
    }
    for box in dataset.annotations:
        if box.present:
            found[fold[box.recording]][box.label].append(box)
    return found


def _lay_plan(
    boxes: list[Annotation], fits: _Fits, paste: OverlayConfig, rng: np.random.Generator
) -> tuple[list[OverlaidCall], list[Annotation]]:
    """The calls of one copy, and its boxes: an absent box of a species that a call of it touches
    is no longer true."""
    laid: list[OverlaidCall] = []
    new: list[Annotation] = []
    for box in boxes:
        if box.present or rng.random() >= paste.probability:
            continue
        choice = fits.of(box)
        if not choice:
            continue
        call = choice[int(rng.integers(len(choice)))]
        gain = float(rng.uniform(-paste.max_gain, paste.max_gain))
        laid.append(OverlaidCall(call, box.start, gain))
        stop = box.start + call.stop - call.start
        new.append(replace(call, start=box.start, stop=stop, source="paste"))
    kept = [
        box
        for box in boxes
        if box.present
        or not any(
            one.label == box.label and one.start < box.stop and box.start < one.stop for one in new
        )
    ]
    return laid, [*kept, *new]
