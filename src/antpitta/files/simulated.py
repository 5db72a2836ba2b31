"""What soundscapes are made of: a folder of clips per species, and backgrounds.

- Clips are short and come whole; of a long one only the beginning is read, and that is said.
- Backgrounds may be hours long, so they are probed first and read a stretch at a time.
- Neither individuals nor backgrounds may serve both sides of a simulation. Here backgrounds
  are split; clips are split where they become singers, because one clip may have to be cut.
- A file that cannot be used is a Finding, never left out in silence.

Simulated soundscapes on disk: the sound, the boxes, and the whole truth.

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
import soxr
from numpy.typing import NDArray

from antpitta.core.errors import Finding, UserError
from antpitta.core.types import Annotation
from antpitta.files.audio import SUFFIXES
from antpitta.files.tables import write_csv
from antpitta.files.texts import write_text

Floats = NDArray[np.float32]

LONGEST = 600.0  # seconds of a clip that are read
SHORTEST = 0.5  # seconds of a background


def read_clips(folder: Path, sample_rate: int) -> tuple[dict[str, list[Floats]], list[Finding]]:
    """The clips of every species, a folder each, mixed to mono; and what could not be used.

    Raises UserError where no species has a clip.
    """
    clips: dict[str, list[Floats]] = {}
    findings = []
    for inside in _folders(folder):
        waves = []
        for path in _sounds(inside):
            try:
                wave, cut = _read_clip(path, sample_rate)
            except (sf.SoundFileError, OSError) as trouble:
                findings.append(_unusable(path, str(trouble)))
                continue
            waves.append(wave)
            if cut:
                what = f"longer than {LONGEST:g} s: only its beginning is used"
                findings.append(
                    Finding("E_TODO", str(path), None, what, "cut it to its calls", False)
                )
        if waves:
            clips[inside.name] = waves
        else:
            remedy = "add a clip or remove the folder"
            findings.append(
                Finding("E_TODO", str(inside), None, "holds no usable clip", remedy, True)
            )
    for path in _sounds(folder):
        remedy = "move it into a folder named after its species"
        findings.append(
            Finding("E_TODO", str(path), None, "a clip of no species, left out", remedy, True)
        )
    if not clips:
        raise UserError(
            "E_TODO", f"{folder}: no clips found", "give a folder with one folder per species"
        )
    return clips, findings


@dataclass(frozen=True)
class BackgroundFile:
    """A part of a sound file, read a stretch at a time: call it with a generator and a length."""

    path: Path
    begin: int  # samples of the file
    end: int
    file_rate: int
    sample_rate: int

    def __call__(self, rng: np.random.Generator, samples: int) -> Floats:
        """``samples`` from a random place, or all there is where the part is shorter."""
        wanted = int(samples * self.file_rate / self.sample_rate) + self.file_rate // 10
        wanted = min(wanted, self.end - self.begin)
        at = self.begin + int(rng.integers(self.end - self.begin - wanted + 1))
        with sf.SoundFile(self.path) as sound:
            sound.seek(min(at, sound.frames))
            raw = sound.read(wanted, dtype="float32", always_2d=True)
            if len(raw) < min(wanted, SHORTEST * self.file_rate):
                sound.seek(self.begin)  # the length an MP3 states is an estimate: past its end
                raw = sound.read(wanted, dtype="float32", always_2d=True)
        return _mono(raw, self.file_rate, self.sample_rate)[:samples]


def read_backgrounds(
    folders: Sequence[Path], sample_rate: int
) -> tuple[dict[str, list[BackgroundFile]], list[Finding]]:
    """Backgrounds for "train" and "test", none on both sides; and what could not be used.

    Every third file is for the test side; an only file gives its last third.
    Raises UserError where nothing can be used.
    """
    found: list[BackgroundFile] = []
    findings = []
    for path in (p for folder in folders for p in sorted(folder.rglob("*")) if _is_sound(p)):
        try:
            info = sf.info(path)
        except (sf.SoundFileError, OSError) as trouble:
            findings.append(_unusable(path, str(trouble)))
            continue
        if info.frames < SHORTEST * info.samplerate:
            findings.append(_unusable(path, f"shorter than {SHORTEST:g} s"))
            continue
        found.append(BackgroundFile(path, 0, info.frames, info.samplerate, sample_rate))
    if not found:
        names = ", ".join(str(folder) for folder in folders)
        raise UserError("E_TODO", f"{names}: no backgrounds found", "give a folder of sound files")
    if len(found) == 1:
        whole = found[0]
        cut = whole.end * 2 // 3
        first = BackgroundFile(whole.path, 0, cut, whole.file_rate, sample_rate)
        last = BackgroundFile(whole.path, cut, whole.end, whole.file_rate, sample_rate)
        return {"train": [first], "test": [last]}, findings
    tested = found[1::3]
    return {"train": [b for b in found if b not in tested], "test": tested}, findings


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(
            "E_TODO", f"{folder}: no such folder", "give one with a folder of clips per species"
        )
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _sounds(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_sound(path))


def _is_sound(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _read_clip(path: Path, sample_rate: int) -> tuple[Floats, bool]:
    """The clip's sound, and whether it goes on past what is read."""
    with sf.SoundFile(path) as sound:
        most = int(LONGEST * sound.samplerate)
        raw = sound.read(most, dtype="float32", always_2d=True)
        cut = sound.frames > most == len(raw)  # what an MP3 states is an estimate
        if not len(raw):
            raise sf.SoundFileError("holds no sound")
        return _mono(raw, sound.samplerate, sample_rate), cut


def _mono(raw: Floats, file_rate: int, sample_rate: int) -> Floats:
    wave = np.nan_to_num(raw.mean(axis=1))
    if file_rate != sample_rate:
        wave = soxr.resample(wave, file_rate, sample_rate)
    return np.asarray(wave, dtype=np.float32)


def _unusable(path: Path, reason: str) -> Finding:
    return Finding(
        "E_TODO", str(path), None, f"cannot be used ({reason})", "replace or remove it", True
    )


SimulatedRecording = tuple[str, Floats, Sequence[Annotation]]  # (recording, wave, every call in it)

SETTINGS = 'audio = "train"\npresent = "train_tp.csv"\nabsent = "train_fp.csv"\n'

_BOX = ["recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max"]
_EVENT = ["recording_id", "species_id", "t_min", "f_min", "t_max", "f_max"]
_SPECIES = ["species_id", "name", "f_min", "f_max", "duration", "prevalence"]
_OURS = ("species.csv", "train_tp.csv", "train_events.csv")  # what tells an older simulation


@dataclass(frozen=True)
class SimulatedSpecies:
    """One line of species.csv; its place in the list is the species' id."""

    name: str
    low: float
    high: float
    duration: float
    prevalence: float  # share of the recordings that hold it


@dataclass(frozen=True)
class SimulatedData:
    """What was written, for whoever reports it."""

    data: Path
    train: int  # recordings
    test: int
    present: int  # boxes
    absent: int


def write_simulation(
    out: Path,
    sample_rate: int,
    species: Sequence[SimulatedSpecies],
    train: Iterable[SimulatedRecording],
    test: Iterable[SimulatedRecording],
    validated: Callable[[], Iterable[Annotation]],
    *,
    replace: bool = False,
) -> SimulatedData:
    """Writes a whole data set to ``out``; ``validated`` is called once ``train`` is used up.

    Raises UserError, before anything is simulated, where ``out`` holds something already;
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
    return SimulatedData(out, trained, tested, present_boxes, len(boxes) - present_boxes)


def _check_free(out: Path, replace: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError("E_TODO", f"{out}: a file stands here", "choose another folder")
    if not any(out.iterdir()):
        return
    if not replace:
        raise UserError("E_TODO", f"{out}: the folder is not empty", "choose another or remove it")
    if not all((out / name).exists() for name in _OURS):
        raise UserError(
            "E_TODO", f"{out}: holds something other than a simulation", "choose another folder"
        )


def _write_side(
    data: Path,
    side: str,
    sample_rate: int,
    species: Sequence[SimulatedSpecies],
    scapes: Iterable[SimulatedRecording],
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


def _ids(species: Sequence[SimulatedSpecies]) -> Mapping[str, int]:
    ids = {row.name: number for number, row in enumerate(species)}
    if len(ids) != len(species):
        raise ValueError(f"a species is named twice: {[row.name for row in species]}")
    return ids


def _boxes(boxes: Iterable[Annotation], species: Sequence[SimulatedSpecies]) -> pd.DataFrame:
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


def _species(species: Sequence[SimulatedSpecies]) -> pd.DataFrame:
    rows = [
        (number, row.name, row.low, row.high, row.duration, round(row.prevalence, 4))
        for number, row in enumerate(species)
    ]
    return pd.DataFrame(rows, columns=_SPECIES)
