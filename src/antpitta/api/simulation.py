"""simulate: soundscapes of known truth, from anyone's clips or from the built-in callers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from antpitta.core.errors import Finding
from antpitta.files.clips import read_backgrounds, read_clips
from antpitta.files.scapes import Scape, Simulated, SpeciesRow, write_simulation
from antpitta.sound import simulate as scapes
from antpitta.sound.ambience import Bed, bed_of, demo_beds
from antpitta.sound.callers import demo_voices
from antpitta.sound.simulate import Scene, Simulation, prevalences
from antpitta.sound.validation import validate
from antpitta.sound.voices import SIDES, Voice, voices_of


def simulate(
    clips: Path | str,
    backgrounds: Path | str,
    out: Path | str,
    plan: Simulation | None = None,
    *,
    replace: bool = False,
) -> tuple[Simulated, tuple[Finding, ...]]:
    """Soundscapes from a folder of clips per species and a folder of backgrounds.

    Also returns the clips and backgrounds that could not be used. Raises UserMistake where too
    little can be.
    """
    plan = plan or Simulation(train=160, test=80, seconds=60.0, sample_rate=32_000)
    waves, unusable = read_clips(Path(clips), plan.sample_rate)
    sources, more = read_backgrounds([Path(backgrounds)], plan.sample_rate)
    voices = voices_of(waves, plan.sample_rate, np.random.default_rng([plan.seed, 1]))
    beds = {side: (bed_of(sources[side], plan.sample_rate),) for side in SIDES}
    return _write(plan, voices, beds, Path(out), replace), (*unusable, *more)


def simulate_callers(
    out: Path | str, plan: Simulation | None = None, *, replace: bool = False
) -> Simulated:
    """The demonstration's soundscapes: eight invented species over coloured noise."""
    plan = plan or Simulation()
    voices = {side: demo_voices(plan.sample_rate, side, plan.seed) for side in SIDES}
    beds = {side: demo_beds(plan.sample_rate, side, plan.seed) for side in SIDES}
    return _write(plan, voices, beds, Path(out), replace)


def _write(
    plan: Simulation,
    voices: Mapping[str, Sequence[Voice]],
    beds: Mapping[str, Sequence[Bed]],
    out: Path,
    replace: bool,
) -> Simulated:
    scenes: list[Scene] = []
    first, second = SIDES
    rows = [
        SpeciesRow(voice.name, voice.low, voice.high, voice.duration, float(share))
        for voice, share in zip(voices[first], prevalences(plan, len(voices[first])), strict=True)
    ]
    rng = np.random.default_rng([plan.seed, 5])
    return write_simulation(
        out,
        plan.sample_rate,
        rows,
        _scapes(plan, first, voices[first], beds[first], scenes),
        _scapes(plan, second, voices[second], beds[second], None),
        lambda: validate(scenes, voices[first], rng, plan.present, plan.absent),
        replace=replace,
    )


def _scapes(
    plan: Simulation,
    side: str,
    voices: Sequence[Voice],
    beds: Sequence[Bed],
    keep: list[Scene] | None,
) -> Iterator[Scape]:
    for made in scapes.simulate(plan, side, voices, beds):
        if keep is not None:
            keep.append(made.scene)
        yield made.scene.recording, made.wave, made.scene.truth
