"""Files of simulations: the clips and backgrounds they are made of, and the data sets they give.

Input:

- Clips are short and are read completely; of a long one only the beginning is used, with a Finding.
- Backgrounds may be hours long, so they are probed first and read in parts.
- Training and test recordings share neither individuals nor backgrounds. Backgrounds are divided
  here; clips are divided in sound/species_sources.py, because a single clip may have to be cut.
- A file that cannot be used gives a Finding.

Output:

- A data set is written to a hidden folder and renamed when it is complete. Only an older simulation
  is ever replaced, and only on request.
- One recording is in memory at a time: recordings come from an iterator, and the boxes, which need
  all training recordings, from a call made after it.
- Equal simulations give equal bytes: no date and no path is written.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf
import soxr
from numpy.typing import NDArray

from antpitta.core.errors import Finding, UserError
from antpitta.core.types import Annotation, Recording
from antpitta.files.audio import SUFFIXES, UnreadableAudio, probe, read_samples
from antpitta.files.locks import is_empty, lock_folder
from antpitta.files.manifest import check_own_folder, replace_files
from antpitta.files.tables import write_csv
from antpitta.files.texts import explain_write_errors, write_text

Floats = NDArray[np.float32]

LONGEST_CLIP = 600.0  # seconds; the rest is not read
SHORTEST_BACKGROUND = 0.5  # seconds


def read_clips(
    folder: Path, sample_rate: int, channel: int | None = None
) -> tuple[dict[str, list[Floats]], list[Finding]]:
    """Read the clips of every species, mixed to mono.

    Parameters
    ----------
    folder : with one folder of clips per species
    sample_rate : of the result, Hz
    channel : the one to use of each file, from 1; None for the mean of all

    Returns
    -------
    The waves of each species, and a Finding for every file that is not, or not all, used.

    Raises
    ------
    UserError
        E_NO_CLIPS.
    """
    clips: dict[str, list[Floats]] = {}
    findings = []
    for species in _folders(folder):
        waves = []
        for path in _sound_files(species):
            try:
                wave, cut = _read_clip(path, sample_rate, channel)
            except UnreadableAudio as error:
                findings.append(_unusable(path, str(error).removeprefix(f"{path}: ")))
                continue
            waves.append(wave)
            if cut:
                what = f"only the first {LONGEST_CLIP:g} s of this clip are used"
                findings.append(_finding("W_LONG_CLIP", path, what, "cut it to its calls"))
        if waves:
            clips[species.name] = waves
        else:
            what, remedy = "the folder has no usable clip", "add a clip or remove the folder"
            findings.append(_finding("W_SPECIES_WITHOUT_CLIPS", species, what, remedy))
    for path in _sound_files(folder):
        what, remedy = "the clip has no species", "move it into a folder named after its species"
        findings.append(_finding("W_CLIP_WITHOUT_SPECIES", path, what, remedy))
    if not clips:
        raise UserError(
            "E_NO_CLIPS",
            f"{folder}: there are no clips",
            "give a folder with one folder of clips per species",
        )
    return clips, findings


@dataclass(frozen=True)
class BackgroundFile:
    """A part of a sound file from which random excerpts are read."""

    recording: Recording
    begin: int  # samples of the file
    end: int  # samples of the file
    sample_rate: int  # of the excerpts, Hz

    @property
    def file_rate(self) -> int:
        """The sample rate of the file, Hz."""
        return self.recording.sample_rate

    def __call__(self, rng: np.random.Generator, samples: int) -> Floats:
        """Read an excerpt from a random position.

        Parameters
        ----------
        rng : of the position
        samples : length of the excerpt, at ``sample_rate``

        Returns
        -------
        (samples,), or fewer where the part is shorter.
        """
        length = int(samples * self.file_rate / self.sample_rate) + self.file_rate // 10
        length = min(length, self.end - self.begin)
        position = self.begin + int(rng.integers(self.end - self.begin - length + 1))
        wave = read_samples(self.recording, position, position + length)
        return _resampled(wave, self.file_rate, self.sample_rate)[:samples]


def read_backgrounds(
    folders: Sequence[Path], sample_rate: int, channel: int | None = None
) -> tuple[dict[str, list[BackgroundFile]], list[Finding]]:
    """Find the backgrounds of training and test recordings, which share none.

    Every third file is for the test recordings; of a single file, its last third.

    Parameters
    ----------
    folders : searched with their subfolders
    sample_rate : of the excerpts, Hz
    channel : the one to use of each file, from 1; None for the mean of all

    Returns
    -------
    The backgrounds for "train" and "test", and a Finding for every file that cannot be used.

    Raises
    ------
    UserError
        E_NO_BACKGROUNDS.
    """
    backgrounds: list[BackgroundFile] = []
    findings = []
    for path in (p for folder in folders for p in sorted(folder.rglob("*")) if _is_sound(p)):
        try:
            recording = probe(path, path.stem, channel)
        except UnreadableAudio as error:
            findings.append(_unusable(path, str(error).removeprefix(f"{path}: ")))
            continue
        if recording.duration < SHORTEST_BACKGROUND:
            findings.append(_unusable(path, f"shorter than {SHORTEST_BACKGROUND:g} s"))
            continue
        backgrounds.append(BackgroundFile(recording, 0, recording.samples, sample_rate))
    if not backgrounds:
        names = ", ".join(str(folder) for folder in folders)
        raise UserError(
            "E_NO_BACKGROUNDS", f"{names}: there are no backgrounds", "give a folder of sound files"
        )
    if len(backgrounds) == 1:
        background = backgrounds[0]
        cut = background.end * 2 // 3
        first = BackgroundFile(background.recording, 0, cut, sample_rate)
        last = BackgroundFile(background.recording, cut, background.end, sample_rate)
        return {"train": [first], "test": [last]}, findings
    test = backgrounds[1::3]
    return {"train": [b for b in backgrounds if b not in test], "test": test}, findings


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(
            "E_NO_CLIPS",
            f"{folder}: there is no such folder",
            "give a folder with one folder of clips per species",
        )
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _sound_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_sound(path))


def _is_sound(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _read_clip(path: Path, sample_rate: int, channel: int | None) -> tuple[Floats, bool]:
    """The wave of a clip, and whether it is longer than what is read."""
    recording = probe(path, path.stem, channel)
    longest = int(LONGEST_CLIP * recording.sample_rate)
    wave = read_samples(recording, 0, min(longest, recording.samples))
    return _resampled(wave, recording.sample_rate, sample_rate), recording.samples > longest


def _resampled(wave: Floats, file_rate: int, sample_rate: int) -> Floats:
    if file_rate != sample_rate:
        wave = soxr.resample(wave, file_rate, sample_rate)
    return np.asarray(wave, dtype=np.float32)


def _unusable(path: Path, reason: str) -> Finding:
    what = f"the file cannot be used ({reason})"
    return _finding("W_CLIP_UNUSABLE", path, what, "replace or remove it")


def _finding(code: str, path: Path, what: str, remedy: str) -> Finding:
    return Finding(code, str(path), None, what, remedy, serious=code != "W_LONG_CLIP")


SimulatedRecording = tuple[str, Floats, Sequence[Annotation]]  # (recording, wave, every call in it)

_TOML = 'audio = "train"\npresent = "train_tp.csv"\nabsent = "train_fp.csv"\n'

_BOX = ["recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max"]
_EVENT = ["recording_id", "species_id", "t_min", "f_min", "t_max", "f_max"]
_SPECIES = ["species_id", "name", "f_min", "f_max", "duration", "prevalence"]


@dataclass(frozen=True)
class SimulatedSpecies:
    """One row of species.csv; its index is the species' id."""

    name: str
    low: float  # Hz
    high: float  # Hz
    duration: float  # seconds
    prevalence: float  # share of the recordings that contain it


@dataclass(frozen=True)
class SimulatedData:
    """What was written."""

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
    """Write a simulated data set.

    Parameters
    ----------
    out : its folder
    sample_rate : of the recordings, Hz
    species : in the order of their ids
    train, test : recordings, each with its wave (samples,) and every call in it
    validated : gives the boxes; called after the last training recording
    replace : whether an older simulation in ``out`` is replaced

    Returns
    -------
    The counts of what was written.

    Raises
    ------
    UserError
        E_OUT_NOT_EMPTY, or E_OUTPUT_EDITED if ``out`` holds anything but an unchanged simulation,
        before anything is simulated.
    """
    with lock_folder(out):
        _check_free(out, replace)
        with replace_files(out, "simulation", complete=True) as new:
            n_train = _write_split(new, "train", sample_rate, species, train)
            boxes = list(validated())
            for name, present in (("train_tp.csv", True), ("train_fp.csv", False)):
                chosen = [box for box in boxes if box.present == present]
                write_csv(_box_table(chosen, species), new / name)
            n_test = _write_split(new, "test", sample_rate, species, test)
            write_csv(_species_table(species), new / "species.csv")
            write_text(_TOML, new / "antpitta.toml")
    n_present = sum(box.present for box in boxes)
    return SimulatedData(out, n_train, n_test, n_present, len(boxes) - n_present)


def _check_free(out: Path, replace: bool) -> None:
    if is_empty(out):
        return
    if not replace:
        raise UserError(
            "E_OUT_NOT_EMPTY", f"{out}: the folder is not empty", "choose another or remove it"
        )
    check_own_folder(out, "simulation")


def _write_split(
    data: Path,
    split: str,
    sample_rate: int,
    species: Sequence[SimulatedSpecies],
    recordings: Iterable[SimulatedRecording],
) -> int:
    """Write the training or the test recordings and their truth; returns their number."""
    ids = _ids(species)
    truth: list[list[object]] = []
    events: list[Annotation] = []
    with explain_write_errors(data / split):
        (data / split).mkdir(parents=True)
    for recording, wave, calls in recordings:
        content = io.BytesIO()  # soundfile does not notice every error of a full disk
        sf.write(content, wave, sample_rate, format="FLAC", subtype="PCM_16")
        path = data / split / f"{recording}.flac"
        with explain_write_errors(path):
            path.write_bytes(content.getvalue())
        present = {ids[call.label] for call in calls}
        truth.append([recording, *(int(number in present) for number in range(len(species)))])
        events += calls
    columns = ["recording_id", *(f"s{number}" for number in range(len(species)))]
    write_csv(pd.DataFrame(truth, columns=columns), data / f"{split}_truth.csv")
    write_csv(_box_table(events, species)[_EVENT], data / f"{split}_events.csv")
    return len(truth)


def _ids(species: Sequence[SimulatedSpecies]) -> Mapping[str, int]:
    ids = {row.name: number for number, row in enumerate(species)}
    if len(ids) != len(species):
        raise ValueError(f"two species have one name: {[row.name for row in species]}")
    return ids


def _box_table(boxes: Iterable[Annotation], species: Sequence[SimulatedSpecies]) -> pd.DataFrame:
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


def _species_table(species: Sequence[SimulatedSpecies]) -> pd.DataFrame:
    rows = [
        (number, row.name, row.low, row.high, row.duration, round(row.prevalence, 4))
        for number, row in enumerate(species)
    ]
    return pd.DataFrame(rows, columns=_SPECIES)
