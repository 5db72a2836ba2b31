"""Templates: the features of example boxes, cut from those that a model would see.

A box covers the frames and mel bands whose centres lie in it; a vector of an embedding has no band.
Its recording is divided into segments as in :mod:`antpitta.search.archive`, so a template found in
its own recording has the score 1.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from antpitta.core.errors import Finding
from antpitta.core.features import MelConfig
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Recording
from antpitta.files.audio import UnreadableAudio
from antpitta.files.spectrograms import read_input
from antpitta.model.features import FeatureArray, FeatureExtractor
from antpitta.search.matching import Template
from antpitta.search.similarity import embed_recording
from antpitta.sound.mel import band_edges

MIN_FRAMES = 3  # of a template


def cut_templates(
    recordings: Sequence[Recording],
    boxes: Sequence[Annotation],
    origins: Sequence[tuple[str, int]],
    extractor: FeatureExtractor,
) -> tuple[list[Template], list[Finding]]:
    """Cut a template from each box.

    Parameters
    ----------
    recordings : of the boxes
    boxes : of calls
    origins : file and line of each box
    extractor : of spectrograms or embeddings

    Returns
    -------
    templates : in the order of the boxes, named ``template-1`` and so on by this order
    findings : boxes that give no template, each with its reason
    """
    by_id = {recording.id: recording for recording in recordings}
    cut = _cut if isinstance(extractor.config, MelConfig) else _cut_vectors
    segments: dict[tuple[str, float, float], FeatureArray] = {}
    templates, findings = [], []
    for number, (box, (file, row)) in enumerate(zip(boxes, origins, strict=True), start=1):
        template = cut(box, f"template-{number}", by_id[box.recording], extractor, segments)
        if isinstance(template, Template):
            templates.append(template)
        else:
            remedy = "correct the box, or remove it"
            findings.append(Finding("W_TEMPLATE_UNUSABLE", file, row, template, remedy, True))
    return templates, findings


def _cut(
    box: Annotation,
    name: str,
    recording: Recording,
    extractor: FeatureExtractor,
    segments: dict[tuple[str, float, float], FeatureArray],
) -> Template | str:
    """A box's template, or why there is none."""
    config = extractor.config
    assert isinstance(config, MelConfig)
    start = box.start // config.segment * config.segment
    stop = min(max(start + config.segment, box.stop), recording.duration)
    key = (recording.id, start, stop)
    if key not in segments:
        segments.clear()  # boxes of one recording mostly follow each other
        try:
            segments[key] = extractor.extract_segment(recording, start, stop, read_input)
        except UnreadableAudio as error:
            return str(error)
    grid = frame_grid(config, start, len(segments[key]))
    frames = grid.frames_by_centre(box.start, box.stop)
    bands = bands_inside(config, box.low, min(box.high, recording.sample_rate / 2))
    pixels = np.ascontiguousarray(segments[key][frames, bands])
    if not pixels.size:
        return f"its band lies outside {config.fmin:g} to {config.fmax:g} Hz"
    if len(pixels) < MIN_FRAMES:
        return f"it has {len(pixels)} frames, and a template needs {MIN_FRAMES}"
    if pixels.min() == pixels.max():
        return "its pixels are all equal, so that nothing resembles it"
    high = min(box.high, config.fmax, recording.sample_rate / 2)
    return Template(name, replace(box, high=high), pixels, bands.start)


def _cut_vectors(
    box: Annotation,
    name: str,
    recording: Recording,
    extractor: FeatureExtractor,
    segments: dict[tuple[str, float, float], FeatureArray],
) -> Template | str:
    """A box's vectors, or why there are none."""
    key = (recording.id, 0.0, recording.duration)
    notes: list[str] = []
    if key not in segments:
        segments.clear()
        try:
            read = partial(read_input, notes=notes)
            segments[key] = embed_recording(recording, extractor, read, notes)
        except UnreadableAudio as error:
            return str(error)
    first = 0
    vectors = []
    for bounds in extractor.config.segments(recording.duration):
        grid = extractor.config.time_grid(*bounds)
        rows = grid.frames_by_centre(box.start, box.stop)
        vectors.append(segments[key][first + rows.start : first + rows.stop])
        first += grid.frames
    return Template(name, box, np.concatenate(vectors))


def frame_grid(config: MelConfig, start: float, frames: int) -> TimeGrid:
    """The time that the frames of a spectrogram stand for: each is centred on a multiple of a hop.

    Parameters
    ----------
    config : settings of the spectrogram
    start : of the sound, seconds
    frames : of the spectrogram

    Returns
    -------
    TimeGrid
        It begins half a frame before the sound.
    """
    hop = config.hop_length / config.sample_rate
    return TimeGrid(hop, frames, start - hop / 2)


def bands_inside(config: MelConfig, low: float, high: float) -> slice:
    """The mel bands whose centres lie in a band of frequencies, or the one nearest to its middle.

    Parameters
    ----------
    config : settings of the spectrogram
    low, high : Hz

    Returns
    -------
    The bands; none where the two do not overlap.
    """
    edges = band_edges(config)
    if high <= config.fmin or low >= config.fmax:
        return slice(0, 0)
    centres: NDArray[np.float64] = edges[1:-1]
    inside = np.flatnonzero((centres >= low) & (centres <= high))
    if not len(inside):
        inside = np.array([np.abs(centres - (low + high) / 2).argmin()])
    return slice(int(inside[0]), int(inside[-1]) + 1)
