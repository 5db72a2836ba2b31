"""Raven's selection tables: tab-separated, one row per selection.

- Without a verdict column a selection is present: a person drew it around a call. A selection with
  a score is a detector's (Raven's own, Koogu, BirdNET, antpitta), and unknown until it is judged.
- A table with a header and no rows means that a person listened and nothing calls: it becomes
  one annotation, all species absent, without an end. One with a column of scores means nothing.
- Raven lists a selection once for each view (waveform, spectrogram); it counts once.
- Where several files were open at once, ``Begin Time (s)`` continues from file to file and
  ``File Offset (s)`` is the time in the file, so the offset wins where there is one.
- ``Begin Path`` names the recording, else ``Begin File``, else the table's own name. That name is
  the first file's: a row whose offset differs from its time lies in a later file, and cannot be
  placed.
"""

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from antpitta.core.identity import recording_key
from antpitta.core.types import EVERY_CLASS, Annotation
from antpitta.files.formats.cells import PRESENT
from antpitta.files.formats.columns import has_columns, recording_from_table_name
from antpitta.files.formats.sheet import AnnotationTable, GivenVerdict, Sheet, TableFormat
from antpitta.files.recording_metadata import base_name
from antpitta.files.tables import read_cells

RAVEN_COLUMNS = ("Begin Time (s)", "End Time (s)")
LOW_COLUMNS = ("Low Freq (Hz)", "Low Frequency (Hz)", "Lower Freq (Hz)", "Min Freq (Hz)")
HIGH_COLUMNS = ("High Freq (Hz)", "High Frequency (Hz)", "Upper Freq (Hz)", "Max Freq (Hz)")
_FEW_ROWS = 5
_SAME_TIME = 0.01  # seconds: Raven rounds the times that it shows
_FILE_COLUMNS = (
    ("Begin Path", "File Path", "Path"),
    ("Begin File", "File", "Filename", "File Name", "Sound File", "Sound Files"),
)
LABEL_COLUMNS = (
    *("Species", "Annotation", "Annotations", "Label", "Labels", "Tag", "Tags", "Species Name"),
    *("Scientific Name", "Common Name", "Species Code", "Call Type", "Sound Type", "Call", "Class"),
    *("Type", "ID", "Name"),
)


def read_raven(path: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read a selection table.

    Parameters
    ----------
    path : file of the table
    verdict : of the whole table, or None where the user gave none

    Returns
    -------
    table : annotations, their lines, and findings

    Raises
    ------
    UserError
        E_MISSING_COLUMN: there are selections but no column that names the species.
    """
    sheet = Sheet("raven", path, read_cells(path))
    if not len(sheet) and not sheet.has_model_columns():
        recording_id = recording_from_table_name(path)
        nothing = Annotation(recording_id, 0.0, math.inf, EVERY_CLASS, present=False)
        return AnnotationTable("raven", path, (nothing,), (1,))
    recording = recordings_of_selections(sheet)
    start, stop = times_of_selections(sheet, recording)
    parts = sheet.split_scores(sheet.text(*LABEL_COLUMNS))
    label = parts.label
    _drop_second_views(sheet, recording, label)
    return sheet.to_table(
        recording=recording,
        start=start,
        stop=stop,
        label=label,
        verdicts=sheet.parse_verdicts(verdict, default=PRESENT, parts=parts),
        low=sheet.numbers(*LOW_COLUMNS, empty=0.0),
        high=sheet.numbers(*HIGH_COLUMNS, empty=math.inf),
        songtype=sheet.text("Songtype", "Song Type", empty=""),
        score=parts.score,
    )


def recordings_of_selections(sheet: Sheet) -> np.ndarray:
    """The recording of each row (rows,), as the table writes it.

    Parameters
    ----------
    sheet : a selection table

    Returns
    -------
    recording : (rows,), strings
    """
    own_name = recording_from_table_name(sheet.path)
    rows = [*zip(*(sheet.text(*names, empty="") for names in _FILE_COLUMNS), strict=True)]
    joined = {row: _join_path(*row) or own_name for row in set(rows)}
    return np.array([joined[row] for row in rows], dtype=object)


def _join_path(path: str, name: str) -> str:
    """The file's path from ``Begin Path``, which is a file or its folder, and ``Begin File``."""
    last = base_name(path)
    if not name or recording_key(last) == recording_key(name):
        return path
    if not path or PurePosixPath(last).suffix:  # another file's path says nothing about this one
        return name
    return f"{path}/{name}"


def times_of_selections(sheet: Sheet, recording: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and stop (rows,) in seconds from the start of each row's own recording.

    Parameters
    ----------
    sheet : a selection table
    recording : (rows,), the recording of each row

    Returns
    -------
    start, stop : (rows,), seconds
    """
    begin, end = sheet.numbers("Begin Time (s)"), _end_times(sheet)
    offset = sheet.numbers("File Offset (s)", empty=math.nan)
    if sheet.find_column("File Offset (s)") is None and len(set(recording)) > 1:
        sheet.add_finding(
            "W_NO_FILE_OFFSET",
            "several recordings and no column File Offset (s), so Begin Time (s) is taken as the"
            " time in each row's own recording",
            "if the files were open together in Raven, add the measurement File Offset (s)",
            serious=_look_cumulative(recording, begin),
        )
    paths, files = (sheet.text(*names, empty="") for names in _FILE_COLUMNS)
    sheet.reject_rows(
        "W_FILE_NOT_NAMED",
        (paths == "") & (files == "") & (np.abs(offset - begin) > _SAME_TIME),
        lambda i: f"begins at {begin[i]:g} s, which is {offset[i]:g} s of a file without a name",
        "add the column Begin Path in Raven, and save the table again",
    )
    cumulative = ~np.isnan(offset) & (offset != begin)
    # Times that need no change are kept to the bit: adding the length again costs a digit.
    return (
        np.where(cumulative, offset, begin),
        np.where(cumulative, offset + (end - begin), end),
    )


def _end_times(sheet: Sheet) -> np.ndarray:
    if sheet.find_column("End Time (s)") is None and sheet.find_column("Delta Time (s)"):
        end: np.ndarray = sheet.numbers("Begin Time (s)") + sheet.numbers("Delta Time (s)")
        return end
    return sheet.numbers("End Time (s)")


def _look_cumulative(recording: np.ndarray, begin: np.ndarray) -> bool:
    """Whether each file's times lie after those of the file before it, as in one long sound.

    A few rows may lie so by chance.
    """
    if len(begin) < _FEW_ROWS:
        return False
    times = pd.Series(begin).groupby(pd.Series(recording), sort=False).agg(["min", "max"])
    return bool((times["min"].to_numpy()[1:] >= times["max"].to_numpy()[:-1]).all())


def _drop_second_views(sheet: Sheet, recording: np.ndarray, label: np.ndarray) -> None:
    """Keep one view of each selection, and of two views the spectrogram."""
    if sheet.find_column("View") is None or sheet.find_column("Selection") is None:
        return
    selection = sheet.text("Selection")
    if len(set(selection)) == len(selection):
        return
    waveform = [view.lower().startswith("wave") for view in sheet.text("View")]
    times = sheet.text("Begin Time (s)"), sheet.text("End Time (s)", "Delta Time (s)")
    kept: set[tuple[str, ...]] = set()
    repeated = np.zeros(len(sheet), dtype=bool)
    for second in (False, True):
        for i, key in enumerate(zip(selection, recording, *times, label, strict=True)):
            if waveform[i] == second:
                repeated[i] = key in kept
                kept.add(key)
    sheet.drop_rows(repeated)


def is_raven(header: Sequence[str]) -> bool:
    """Whether the columns are those of a selection table.

    Parameters
    ----------
    header : names of the columns

    Returns
    -------
    answer : True or False
    """
    begin, _ = RAVEN_COLUMNS
    return has_columns(header, RAVEN_COLUMNS) or has_columns(header, (begin, "Delta Time (s)"))


RAVEN = TableFormat("raven", RAVEN_COLUMNS, is_raven, read_raven)
