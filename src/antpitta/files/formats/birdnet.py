"""BirdNET-Analyzer's tables, and the folders in which its clips are reviewed.

- Detections are unknown until a person has judged them. In a table without a verdict column all
  rows are unknown, unless the user gives a verdict for all of them.
- There are three kinds of table: CSV, Raven (columns ``Species Code`` and ``Confidence``) and
  Kaleidoscope. BirdNET writes ``nocall`` for a recording without detections.
- The species is the scientific name; the Raven table and the clips only have the common one.
- Reviewing moves each clip of ``<species>/`` into ``Positive/`` or ``Negative/`` below it. The
  clip's name has confidence, running number, recording, start and stop. Clips that are still in
  the species' folder are unknown.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from antpitta.core.errors import Finding
from antpitta.core.types import Annotation, Event
from antpitta.files.formats.cells import UNKNOWN
from antpitta.files.formats.columns import has_columns, recording_from_table_name
from antpitta.files.formats.kaleidoscope import files_of_kaleidoscope
from antpitta.files.formats.raven import (
    HIGH_COLUMNS,
    LOW_COLUMNS,
    recordings_of_selections,
    times_of_selections,
)
from antpitta.files.formats.sheet import AnnotationTable, GivenVerdict, Sheet, TableFormat
from antpitta.files.tables import read_cells

CSV_COLUMNS = ("Start (s)", "End (s)", "Scientific name", "Confidence")
RAVEN_COLUMNS = ("Begin Time (s)", "End Time (s)", "Species Code", "Confidence")
KALEIDOSCOPE_COLUMNS = ("IN FILE", "OFFSET", "DURATION", "scientific_name", "confidence")
SPECIES_COLUMNS = ("Scientific name", "Common name", "Species code")
_CLIP_NAME = re.compile(
    r"(?P<score>\d*\.?\d+)_(?P<number>\d+)_(?P<recording>.+)"
    r"_(?P<start>\d+(\.\d+)?)s?_(?P<stop>\d+(\.\d+)?)s?\.\w+"
)
_VERDICT_OF_FOLDER = {"positive": True, "negative": False}


def is_birdnet(header: Sequence[str]) -> bool:
    """Whether the columns are those of one of the three kinds of table.

    Parameters
    ----------
    header : names of the columns

    Returns
    -------
    answer : True or False
    """
    kinds = (CSV_COLUMNS, RAVEN_COLUMNS, KALEIDOSCOPE_COLUMNS)
    return any(has_columns(header, columns) for columns in kinds)


def read_birdnet(path: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read a table of detections.

    Parameters
    ----------
    path : file of the table
    verdict : of the whole table, or None where the user gave none

    Returns
    -------
    table : annotations, their lines, and findings
    """
    sheet = Sheet("birdnet", path, read_cells(path))
    if sheet.find_column(RAVEN_COLUMNS[0]):
        recording = recordings_of_selections(sheet)
        start, stop = times_of_selections(sheet, recording)
    elif sheet.find_column("IN FILE"):
        recording = files_of_kaleidoscope(sheet)
        start = sheet.numbers("OFFSET")
        stop = start + sheet.numbers("DURATION")
    else:
        recording = sheet.text("File", "Filepath", empty=recording_from_table_name(path))
        start, stop = sheet.numbers("Start (s)"), sheet.numbers("End (s)")
    parts = sheet.split_scores(sheet.text(*SPECIES_COLUMNS))
    label = parts.label
    sheet.drop_rows(np.array([name.lower() == "nocall" for name in label], dtype=bool))
    return sheet.to_table(
        recording=recording,
        start=start,
        stop=stop,
        label=label,
        verdicts=sheet.parse_verdicts(verdict, default=UNKNOWN, parts=parts),
        low=sheet.numbers(*LOW_COLUMNS, empty=0.0),
        high=sheet.numbers(*HIGH_COLUMNS, empty=math.inf),
        score=parts.score,
    )


def is_review_folder(folder: Path) -> bool:
    """Whether Positive/ or Negative/ lies in this folder or in one below.

    Parameters
    ----------
    folder : to look into

    Returns
    -------
    answer : True or False
    """
    inside = [*folder.iterdir(), *folder.glob("*/*")]
    return any(path.is_dir() and path.name.lower() in _VERDICT_OF_FOLDER for path in inside)


def read_review_folder(folder: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read every clip of a review folder with its verdict.

    A row is the clip's number in the order of the names. A clip whose name cannot be parsed is
    reported; one that is neither below Positive/ nor Negative/ takes ``verdict``.

    Parameters
    ----------
    folder : of one species, or of several
    verdict : of the whole table, or None where the user gave none

    Returns
    -------
    table : annotations, their lines, and findings
    """
    annotations, rows, findings, unreviewed, unvalidated = [], [], [], [], 0
    clips = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    for row, clip in enumerate(clips, start=1):
        present = _VERDICT_OF_FOLDER.get(clip.parent.name.lower())
        species_folder = clip.parent if present is None else clip.parent.parent
        name = _CLIP_NAME.fullmatch(clip.name)
        if name is None and present is None:
            continue  # a result table or a note beside the clips
        if name is None or not float(name["start"]) < float(name["stop"]):
            findings.append(_clip_finding(clip))
            continue
        start, stop, score = float(name["start"]), float(name["stop"]), float(name["score"])
        label = species_folder.name
        if present is None and isinstance(verdict, bool):
            present = verdict
        if present is None:
            unvalidated += 1
            if verdict == "unreviewed":
                place = (name["recording"], start, stop, label, score)
                unreviewed.append(Event(*place, source="birdnet_review"))
            continue
        annotations.append(Annotation(name["recording"], start, stop, label, present, score=score))
        rows.append(row)
    return AnnotationTable(
        *("birdnet_review", folder, tuple(annotations), tuple(rows), tuple(findings), unvalidated),
        unreviewed=tuple(unreviewed),
    )


def _clip_finding(clip: Path) -> Finding:
    return Finding(
        "W_CLIP_NAME",
        str(clip),
        None,
        "the clip's name does not give recording, start and stop",
        "name it like 0.913_12_recording_9.0s_12.0s.wav",
        serious=True,
    )


BIRDNET = TableFormat("birdnet", CSV_COLUMNS, is_birdnet, read_birdnet)
BIRDNET_REVIEW = TableFormat("birdnet_review", (), lambda header: False, read_review_folder)
