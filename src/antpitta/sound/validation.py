"""The boxes that template matching leaves once an expert has looked through its matches.

The matcher slides a species' template over every recording and proposes what is loud in its
band. The expert says present where the species calls, absent where it does not, and is never
asked about anything else: all else stays unknown. Three things follow, and are kept:

- Loud calls are proposed more often, so present boxes come from near callers.
- An absent box holds something - another species, a stranger, a gust - because silence is
  never proposed.
- All boxes of a species are as long and as wide as its template.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from antpitta.core.types import Annotation
from antpitta.sound.simulate import Call, Scene
from antpitta.sound.voices import Voice

HALF, SLOPE = 4.0, 3.0  # dB: a call this far over its band is matched every other time
CLEAR, ECHO = 0.1, 0.3  # seconds before and after a call that no absent box may touch
LEAST = 1.0  # dB over the band's median; what is quieter is never proposed
MATCHES = 6  # false matches that one recording may propose for one species


def validate(
    scenes: Sequence[Scene],
    voices: Sequence[Voice],
    rng: np.random.Generator,
    present_per_species: int,
    absent_per_species: int,
) -> list[Annotation]:
    """Present and absent boxes of every species, at most as many as asked for.

    A present box encloses a call of its species; an absent one meets none of them. The boxes
    come in the order of species, present before absent, then of recordings.
    """
    boxes: list[Annotation] = []
    for column, voice in enumerate(voices):
        boxes += _present(scenes, voice, rng, present_per_species)
        boxes += _absent(scenes, column, voice, rng, absent_per_species)
    return boxes


def _present(
    scenes: Sequence[Scene], voice: Voice, rng: np.random.Generator, count: int
) -> list[Annotation]:
    hits = [
        (scene, call) for scene in scenes for call in scene.calls if call.voice.name == voice.name
    ]
    if not hits or not count:
        return []
    weight = np.array([1 / (1 + np.exp(-(call.snr - HALF) / SLOPE)) for _, call in hits])
    share = weight / weight.sum()
    chosen = rng.choice(len(hits), min(count, len(hits)), replace=False, p=share)
    boxes = []
    for scene, call in (hits[i] for i in sorted(chosen)):
        start = _around(call, voice.duration, scene.seconds, rng)
        boxes.append(_box(scene, voice, start, present=True))
    return boxes


def _around(call: Call, duration: float, seconds: float, rng: np.random.Generator) -> float:
    """Where a box of the template's length begins that encloses the call, seldom exactly."""
    earliest, latest = max(0.0, call.stop - duration), min(call.start, seconds - duration)
    middle = (call.start + call.stop - duration) / 2
    return float(np.clip(middle + rng.normal(0, 0.05), earliest, latest))


def _absent(
    scenes: Sequence[Scene], column: int, voice: Voice, rng: np.random.Generator, count: int
) -> list[Annotation]:
    """A draw from the loudest false matches, three times as many as are wanted."""
    matches = [
        (loud, number, start)
        for number, scene in enumerate(scenes)
        for loud, start in _false_matches(scene, column, voice)
    ]
    matches.sort(key=lambda match: -match[0])
    pool = matches[: 3 * count]
    chosen = rng.permutation(len(pool))[:count]
    found = sorted((pool[i][1], pool[i][2]) for i in chosen)
    return [_box(scenes[number], voice, start, present=False) for number, start in found]


def _false_matches(scene: Scene, column: int, voice: Voice) -> list[tuple[float, float]]:
    """(dB, start) of the loudest stretches that meet no call of the species, apart by a box."""
    length = max(1, round(voice.duration / scene.step))
    last = int((scene.seconds - voice.duration) / scene.step)  # the last start that fits
    loud: NDArray[np.float32] = scene.contrast[column].astype(np.float32)
    # The mean of dB, not of power: a click is short, and no match for a long template.
    level = uniform_filter1d(loud, length, mode="constant", origin=-(length // 2))[: last + 1]
    for call in scene.calls:
        if call.voice.name == voice.name:
            first = int((call.start - CLEAR - voice.duration) / scene.step)
            level[max(0, first) : int((call.stop + ECHO) / scene.step) + 2] = -np.inf
    found: list[tuple[float, float]] = []
    while len(found) < MATCHES and len(level) and level.max() >= LEAST:
        at = int(level.argmax())
        found.append((float(level[at]), at * scene.step))
        level[max(0, at - length) : at + length] = -np.inf
    return found


def _box(scene: Scene, voice: Voice, start: float, *, present: bool) -> Annotation:
    stop = min(start + voice.duration, scene.seconds)
    return Annotation(
        recording=scene.recording,
        start=round(start, 4),
        stop=round(stop, 4),
        label=voice.name,
        present=present,
        low=voice.low,
        high=voice.high,
        source="simulated",
        songtype="1",
    )
