"""Simulated soundscapes on disk: the sound, the boxes, and the whole truth.

- A data set appears whole or not at all: it grows in a hidden folder beside its place and is
  renamed once the last file is written. Only an older simulation is ever replaced, on request.
- One recording is in memory at a time; what was simulated comes in as an iterator of plain
  values, and the boxes, which need all of the training side, through a call made after it.
- The same values give the same bytes: no date and no path is written.
"""

import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf
from numpy.typing import NDArray

from antpitta.core.errors import UserMistake
from antpitta.core.types import Annotation
from antpitta.files.tables import write_csv
from antpitta.files.texts import write_text

Floats = NDArray[np.float32]
Scape = tuple[str, Floats, Sequence[Annotation]]  # (recording, wave, every call in it)

SETTINGS = 'audio = "train"\npresent = "train_tp.csv"\nabsent = "train_fp.csv"\n'

_BOX = ["recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max"]
_EVENT = ["recording_id", "species_id", "t_min", "f_min", "t_max", "f_max"]
_SPECIES = ["species_id", "name", "f_min", "f_max", "duration", "prevalence"]
_OURS = ("species.csv", "train_tp.csv", "train_events.csv")  # what tells an older simulation


@dataclass(frozen=True)
class SpeciesRow:
    """One line of species.csv; its place in the list is the species' id."""

    name: str
    low: float
    high: float
    duration: float
    prevalence: float  # share of the recordings that hold it


@dataclass(frozen=True)
class Simulated:
    """What was written, for whoever reports it."""

    data: Path
    train: int  # recordings
    test: int
    present: int  # boxes
    absent: int


def write_simulation(
    out: Path,
    sample_rate: int,
    species: Sequence[SpeciesRow],
    train: Iterable[Scape],
    test: Iterable[Scape],
    validated: Callable[[], Iterable[Annotation]],
    *,
    replace: bool = False,
) -> Simulated:
    """Writes a whole data set to ``out``; ``validated`` is called once ``train`` is used up.

    Raises UserMistake, before anything is simulated, where ``out`` holds something already;
    with ``replace`` an older simulation there gives way.
    """
    _check_free(out, replace)
    growing = out.with_name(f".{out.name}.{uuid.uuid4().hex[:12]}")
    try:
        trained = _write_side(growing, "train", sample_rate, species, train)
        boxes = list(validated())
        for name, present in (("train_tp.csv", True), ("train_fp.csv", False)):
            chosen = [box for box in boxes if box.present == present]
            write_csv(_boxes(chosen, species), growing / name)
        tested = _write_side(growing, "test", sample_rate, species, test)
        write_csv(_species(species), growing / "species.csv")
        write_text(SETTINGS, growing / "antpitta.toml")
        if out.exists():
            shutil.rmtree(out)
        growing.replace(out)
    finally:
        shutil.rmtree(growing, ignore_errors=True)
    present_boxes = sum(box.present for box in boxes)
    return Simulated(out, trained, tested, present_boxes, len(boxes) - present_boxes)


def _check_free(out: Path, replace: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UserMistake(f"{out}: a file stands here; choose another folder")
    if not any(out.iterdir()):
        return
    if not replace:
        raise UserMistake(f"{out}: the folder is not empty; choose another or remove it")
    if not all((out / name).exists() for name in _OURS):
        raise UserMistake(f"{out}: holds something other than a simulation; choose another folder")


def _write_side(
    data: Path, side: str, sample_rate: int, species: Sequence[SpeciesRow], scapes: Iterable[Scape]
) -> int:
    """The recordings of one side and their truth; how many they were."""
    ids = _ids(species)
    truth: list[list[object]] = []
    events: list[Annotation] = []
    (data / side).mkdir(parents=True)
    for recording, wave, calls in scapes:
        path = data / side / f"{recording}.flac"
        sf.write(path, wave, sample_rate, format="FLAC", subtype="PCM_16")
        here = {ids[call.label] for call in calls}
        truth.append([recording, *(int(number in here) for number in range(len(species)))])
        events += calls
    columns = ["recording_id", *(f"s{number}" for number in range(len(species)))]
    write_csv(pd.DataFrame(truth, columns=columns), data / f"{side}_truth.csv")
    write_csv(_boxes(events, species)[_EVENT], data / f"{side}_events.csv")
    return len(truth)


def _ids(species: Sequence[SpeciesRow]) -> Mapping[str, int]:
    ids = {row.name: number for number, row in enumerate(species)}
    if len(ids) != len(species):
        raise ValueError(f"a species is named twice: {[row.name for row in species]}")
    return ids


def _boxes(boxes: Iterable[Annotation], species: Sequence[SpeciesRow]) -> pd.DataFrame:
    ids = _ids(species)
    rows = [
        (
            box.recording,
            ids[box.label],
            box.songtype or "1",
            round(box.start, 4),
            round(box.low, 2),
            round(box.stop, 4),
            round(box.high, 2),
        )
        for box in boxes
    ]
    return pd.DataFrame(rows, columns=_BOX)


def _species(species: Sequence[SpeciesRow]) -> pd.DataFrame:
    rows = [
        (number, row.name, row.low, row.high, row.duration, round(row.prevalence, 4))
        for number, row in enumerate(species)
    ]
    return pd.DataFrame(rows, columns=_SPECIES)
