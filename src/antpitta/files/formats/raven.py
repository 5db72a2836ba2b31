"""Raven's selection tables: tab-separated, one row per selection.

- Without a verdict column every selection is present: a person drew it around a call.
- A table with a header and no rows means that a person listened and nothing calls: it becomes
  one annotation, all species absent, without an end.
- Raven lists a selection once for each view (waveform, spectrogram); it counts once.
- Where several files were open at once, ``Begin Time (s)`` continues from file to file and
  ``File Offset (s)`` is the time in the file, so the offset wins where there is one.
- ``Begin File`` names the recording; ``Begin Path`` where one file name lies in two folders.
  Without either the recording is the table's own name.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from antpitta.core.types import EVERY_CLASS, Annotation
from antpitta.files.formats.sheet import (
    PRESENT,
    AnnotationTable,
    Sheet,
    TableFormat,
    has_columns,
    recording_from_table_name,
)
from antpitta.files.tables import read_frame

RAVEN_COLUMNS = ("Begin Time (s)", "End Time (s)")
LABEL_COLUMNS = (
    *("Species", "Annotation", "Annotations", "Label", "Labels", "Tag", "Tags", "Species Name"),
    *("Scientific Name", "Common Name", "Species Code", "Call Type", "Sound Type", "Call", "Class"),
    *("Type", "ID", "Name"),
)


def read_raven(path: Path, verdict: bool | None = None) -> AnnotationTable:
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
    frame = read_frame(path)
    if frame.empty:
        recording_id = recording_from_table_name(path)
        nothing = Annotation(recording_id, 0.0, math.inf, EVERY_CLASS, present=False)
        return AnnotationTable("raven", path, (nothing,), (1,))
    sheet = Sheet("raven", path, frame)
    recording = recordings_of_selections(sheet)
    start, stop = times_of_selections(sheet, recording)
    label = sheet.text(*LABEL_COLUMNS)
    _drop_second_views(sheet, recording, label)
    return sheet.to_table(
        recording=recording,
        start=start,
        stop=stop,
        label=label,
        verdicts=sheet.parse_verdicts(verdict, default=PRESENT),
        low=sheet.numbers("Low Freq (Hz)", empty=0.0),
        high=sheet.numbers("High Freq (Hz)", empty=math.inf),
        songtype=sheet.text("Songtype", "Song Type", empty=""),
        score=sheet.numbers("Score", empty=math.nan),
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
    names, paths = sheet.text("Begin File", empty=""), sheet.text("Begin Path", empty="")
    folders = pd.Series(paths).groupby(names).transform("nunique").to_numpy()
    by_path = (names == "") | ((folders > 1) & (paths != ""))
    recording = np.where(by_path, paths, names)
    own_name = recording_from_table_name(sheet.path)
    return np.where(recording == "", own_name, recording).astype(object)


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
    begin, end = sheet.numbers("Begin Time (s)"), sheet.numbers("End Time (s)")
    offset = sheet.numbers("File Offset (s)", empty=math.nan)
    if sheet.find_column("File Offset (s)") is None and len(set(recording)) > 1:
        sheet.add_finding(
            "W_NO_FILE_OFFSET",
            "several recordings and no column File Offset (s), so Begin Time (s) is taken as the"
            " time in each row's own recording",
            "if the files were open together in Raven, add the measurement File Offset (s)",
        )
    cumulative = ~np.isnan(offset) & (offset != begin)
    # Times that need no change are kept to the bit: adding the length again costs a digit.
    return (
        np.where(cumulative, offset, begin),
        np.where(cumulative, offset + (end - begin), end),
    )


def _drop_second_views(sheet: Sheet, recording: np.ndarray, label: np.ndarray) -> None:
    """Keep one view of each selection, and of two views the spectrogram."""
    if sheet.find_column("View") is None or sheet.find_column("Selection") is None:
        return
    views = pd.DataFrame(
        {
            "selection": sheet.text("Selection"),
            "recording": recording,
            "begin": sheet.text("Begin Time (s)"),
            "end": sheet.text("End Time (s)"),
            "label": label,
            "waveform": [view.lower().startswith("wave") for view in sheet.text("View")],
        }
    )
    ordered = views.sort_values("waveform", kind="stable")
    repeated = ordered.duplicated(["selection", "recording", "begin", "end", "label"])
    sheet.drop_rows(repeated.sort_index().to_numpy())


RAVEN = TableFormat(
    "raven", RAVEN_COLUMNS, lambda header: has_columns(header, RAVEN_COLUMNS), read_raven
)
