"""What soundscapes are made of: a folder of clips per species, and backgrounds.

- Clips are short and come whole; of a long one only the beginning is read, and that is said.
- Backgrounds may be hours long, so they are probed first and read a stretch at a time.
- Neither individuals nor backgrounds may serve both sides of a simulation. Here backgrounds
  are split; clips are split where they become singers, because one clip may have to be cut.
- A file that cannot be used is a Finding, never left out in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from antpitta.core.errors import Finding, UserMistake
from antpitta.files.audio import SUFFIXES

Floats = NDArray[np.float32]

LONGEST = 600.0  # seconds of a clip that are read
SHORTEST = 0.5  # seconds of a background


def read_clips(folder: Path, sample_rate: int) -> tuple[dict[str, list[Floats]], list[Finding]]:
    """The clips of every species, a folder each, mixed to mono; and what could not be used.

    Raises UserMistake where no species has a clip.
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
                findings.append(Finding(str(path), None, what, "cut it to its calls", False))
        if waves:
            clips[inside.name] = waves
        else:
            remedy = "add a clip or remove the folder"
            findings.append(Finding(str(inside), None, "holds no usable clip", remedy, True))
    for path in _sounds(folder):
        remedy = "move it into a folder named after its species"
        findings.append(Finding(str(path), None, "a clip of no species, left out", remedy, True))
    if not clips:
        raise UserMistake(f"{folder}: no clips found; give a folder with one folder per species")
    return clips, findings


@dataclass(frozen=True)
class Background:
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
) -> tuple[dict[str, list[Background]], list[Finding]]:
    """Backgrounds for "train" and "test", none on both sides; and what could not be used.

    Every third file is for the test side; an only file gives its last third.
    Raises UserMistake where nothing can be used.
    """
    found: list[Background] = []
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
        found.append(Background(path, 0, info.frames, info.samplerate, sample_rate))
    if not found:
        names = ", ".join(str(folder) for folder in folders)
        raise UserMistake(f"{names}: no backgrounds found; give a folder of sound files")
    if len(found) == 1:
        whole = found[0]
        cut = whole.end * 2 // 3
        first = Background(whole.path, 0, cut, whole.file_rate, sample_rate)
        last = Background(whole.path, cut, whole.end, whole.file_rate, sample_rate)
        return {"train": [first], "test": [last]}, findings
    tested = found[1::3]
    return {"train": [b for b in found if b not in tested], "test": tested}, findings


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserMistake(f"{folder}: no such folder; give one with a folder of clips per species")
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
    return Finding(str(path), None, f"cannot be used ({reason})", "replace or remove it", True)
