"""BirdNET-Analyzer's tables, and the folders in which its clips are reviewed.

- What the model found is unknown until somebody judged it. A table without a verdict column
  has nothing but unjudged rows, unless the user gives a verdict for all of it.
- Three shapes of table: its CSV, its Raven table (columns ``Species Code`` and ``Confidence``)
  and its Kaleidoscope table. ``nocall`` is its filler for a recording without detections.
- The species is the scientific name; the Raven table and the clips know only the common one.
- Reviewing moves each clip of ``<species>/`` into ``Positive/`` or ``Negative/`` beside it; the
  clip's name carries confidence, running number, recording, start and stop. What still lies
  in the species' folder is unjudged. Clips are sound, so such folders are not written.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from antpitta.core.errors import Finding, UserError
from antpitta.core.types import Annotation
from antpitta.files.filenames import recording_from_table_name
from antpitta.files.formats.raven import recordings, times
from antpitta.files.formats.sheet import UNJUDGED, AnnotationTable, Sheet, TableFormat, has
from antpitta.files.formats.writing import digits, verdicts
from antpitta.files.tables import read_frame, write_csv

NEEDS = ("Start (s)", "End (s)", "Scientific name", "Confidence")
RAVEN_LIKE = ("Begin Time (s)", "End Time (s)", "Species Code", "Confidence")
KALEIDOSCOPE = ("IN FILE", "OFFSET", "DURATION", "scientific_name", "confidence")
SPECIES = ("Scientific name", "Common name", "Species code")
_CLIP = re.compile(
    r"(?P<score>\d*\.?\d+)_(?P<number>\d+)_(?P<recording>.+)"
    r"_(?P<start>\d+(\.\d+)?)s?_(?P<stop>\d+(\.\d+)?)s?\.\w+"
)
_VERDICT_OF = {"positive": True, "negative": False}


def recognises(header: Sequence[str]) -> bool:
    return any(has(header, shape) for shape in (NEEDS, RAVEN_LIKE, KALEIDOSCOPE))


def read(path: Path, verdict: bool | None = None) -> AnnotationTable:
    sheet = Sheet("birdnet", path, read_frame(path))
    if sheet.find(RAVEN_LIKE[0]):
        recording = recordings(sheet)
        start, stop = times(sheet, recording)
    elif sheet.find("IN FILE"):
        recording = _joined(sheet.text("FOLDER", empty=""), sheet.text("IN FILE"))
        start = sheet.numbers("OFFSET")
        stop = start + sheet.numbers("DURATION")
    else:
        recording = sheet.text("File", "Filepath", empty=recording_from_table_name(path))
        start, stop = sheet.numbers("Start (s)"), sheet.numbers("End (s)")
    label = sheet.text(*SPECIES)
    sheet.leave_out(np.array([name.lower() == "nocall" for name in label], dtype=bool))
    return sheet.table(
        recording=recording,
        start=start,
        stop=stop,
        label=label,
        judged=sheet.judged(verdict, meaning=UNJUDGED),
        low=sheet.numbers("Low Freq (Hz)", empty=0.0),
        high=sheet.numbers("High Freq (Hz)", empty=math.inf),
        score=sheet.numbers("Confidence", empty=math.nan),
    )


def _joined(folders: np.ndarray, files: np.ndarray) -> np.ndarray:
    pairs = zip(folders, files, strict=True)
    return np.array([f"{a}/{b}" if a else b for a, b in pairs], dtype=object)


def write(annotations: Sequence[Annotation], path: Path) -> None:
    """BirdNET's CSV and a column ``Verdict``; it has no bands, and the one name stands twice."""
    columns = {
        "Start (s)": digits(said.start for said in annotations),
        "End (s)": digits(said.stop for said in annotations),
        "Scientific name": [said.label for said in annotations],
        "Common name": [said.label for said in annotations],
        "Confidence": digits(said.score for said in annotations),
        "File": [said.recording for said in annotations],
        "Verdict": verdicts(annotations),
    }
    write_csv(pd.DataFrame(columns), path)


def is_review(folder: Path) -> bool:
    """Whether Positive/ or Negative/ lies in this folder or one below."""
    places = [*folder.iterdir(), *folder.glob("*/*")]
    return any(place.is_dir() and place.name.lower() in _VERDICT_OF for place in places)


def read_review(folder: Path, verdict: bool | None = None) -> AnnotationTable:
    """Every clip with its verdict; a row is the clip's number in the order of the names.

    A clip whose name does not tell is reported; one below neither folder is unjudged, unless
    the user gives a verdict.
    """
    annotations, rows, findings, unjudged = [], [], [], 0
    clips = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    for row, clip in enumerate(clips, start=1):
        judged = _VERDICT_OF.get(clip.parent.name.lower())
        home = clip.parent if judged is None else clip.parent.parent
        told = _CLIP.fullmatch(clip.name)
        if told is None and judged is None:
            continue  # a result table or a note beside the clips
        if told is None or not float(told["start"]) < float(told["stop"]):
            findings.append(_strange(clip))
            continue
        if (judged := verdict if judged is None else judged) is None:
            unjudged += 1
            continue
        edges = float(told["start"]), float(told["stop"])
        score = float(told["score"])
        annotations.append(Annotation(told["recording"], *edges, home.name, judged, score=score))
        rows.append(row)
    return AnnotationTable(
        "birdnet_review", folder, tuple(annotations), tuple(rows), tuple(findings), unjudged
    )


def _strange(clip: Path) -> Finding:
    return Finding(
        "E_TODO",
        str(clip),
        None,
        "the clip's name does not tell recording, start and stop",
        "name it like 0.913_12_recording_9.0s_12.0s.wav",
        serious=True,
    )


def write_review(annotations: Sequence[Annotation], path: Path) -> None:
    """Always a UserError: the clips are sound."""
    raise UserError(
        "E_TODO", f"{path}: a review folder holds clips of sound", "write birdnet instead"
    )


BIRDNET = TableFormat("birdnet", NEEDS, recognises, read, write)
BIRDNET_REVIEW = TableFormat("birdnet_review", (), lambda header: False, read_review, write_review)
