"""Raven's selection tables: tab-separated, one row a selection.

- Without a verdict column every selection is a call that somebody heard: present.
- A table with a header and no rows says "listened, nothing there", and becomes one statement
  that every species is absent, with no end.
- Raven lists a selection once for each view (waveform, spectrogram); it counts once.
- Where several files were open at once, ``Begin Time (s)`` runs on from file to file and
  ``File Offset (s)`` is the time in the file, so the offset wins wherever it stands.
- ``Begin File`` names the recording; ``Begin Path`` where one file name lies in two folders.
  Without either the recording is the table's own name.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from antpitta.core.errors import UserError
from antpitta.core.types import EVERY_CLASS, Annotation
from antpitta.files.filenames import recording_from_table_name
from antpitta.files.formats.sheet import AnnotationTable, Sheet, TableFormat, has
from antpitta.files.formats.writing import digits, edges, verdicts, write_each
from antpitta.files.tables import read_frame
from antpitta.files.texts import write_text

NEEDS = ("Begin Time (s)", "End Time (s)")
LABELS = (
    *("Species", "Annotation", "Annotations", "Label", "Labels", "Tag", "Tags", "Species Name"),
    *("Scientific Name", "Common Name", "Species Code", "Call Type", "Sound Type", "Call", "Class"),
    *("Type", "ID", "Name"),
)


def read(path: Path, verdict: bool | None = None) -> AnnotationTable:
    """Raises UserError where there are selections but no column that names the species."""
    frame = read_frame(path)
    if frame.empty:
        silence = Annotation(
            recording_from_table_name(path), 0.0, math.inf, EVERY_CLASS, present=False
        )
        return AnnotationTable("raven", path, (silence,), (1,))
    sheet = Sheet("raven", path, frame)
    recording = recordings(sheet)
    start, stop = times(sheet, recording)
    label = sheet.text(*LABELS)
    _count_once(sheet, recording, label)
    return sheet.table(
        recording=recording,
        start=start,
        stop=stop,
        label=label,
        judged=sheet.judged(verdict, meaning=True),
        low=sheet.numbers("Low Freq (Hz)", empty=0.0),
        high=sheet.numbers("High Freq (Hz)", empty=math.inf),
        songtype=sheet.text("Songtype", "Song Type", empty=""),
        score=sheet.numbers("Score", empty=math.nan),
    )


def recordings(sheet: Sheet) -> np.ndarray:
    """The recording of each row, as the table writes it."""
    names, paths = sheet.text("Begin File", empty=""), sheet.text("Begin Path", empty="")
    places = pd.Series(paths).groupby(names).transform("nunique").to_numpy()
    chosen = np.where((names == "") | ((places > 1) & (paths != "")), paths, names)
    return np.where(chosen == "", recording_from_table_name(sheet.path), chosen).astype(object)


def times(sheet: Sheet, recording: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and stop on each recording's own clock."""
    begin, end = sheet.numbers("Begin Time (s)"), sheet.numbers("End Time (s)")
    offset = sheet.numbers("File Offset (s)", empty=math.nan)
    if sheet.find("File Offset (s)") is None and len(set(recording)) > 1:
        sheet.note(
            "several recordings and no column File Offset (s): each row's Begin Time (s) is"
            " taken as the time in its own recording",
            "if the files were open together in Raven, add the measurement File Offset (s)",
        )
    cumulative = ~np.isnan(offset) & (offset != begin)
    # What equals the begin time is left as it is: adding the length back costs the last digit.
    return (
        np.where(cumulative, offset, begin),
        np.where(cumulative, offset + (end - begin), end),
    )


def _count_once(sheet: Sheet, recording: np.ndarray, label: np.ndarray) -> None:
    """Leaves out a selection's further views, and of two views the waveform."""
    if sheet.find("View") is None or sheet.find("Selection") is None:
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
    again = ordered.duplicated(["selection", "recording", "begin", "end", "label"])
    sheet.leave_out(again.sort_index().to_numpy())


def write(annotations: Sequence[Annotation], path: Path) -> None:
    """One table of any recordings, or where ``path`` is a folder a table for each.

    "Every species absent, without end" is a table without rows, so it needs a table of its
    own, named after the recording; anywhere else it raises UserError.
    """
    if not path.suffix or path.is_dir() or not annotations:
        write_each(annotations, path, "raven", ".Table.1.selections.txt", _text)
        return
    silent = [said.recording for said in annotations if _is_silence(said)]
    if silent and (len(annotations) > 1 or recording_from_table_name(path) != silent[0]):
        raise UserError(
            "E_TODO",
            f"{path}: nothing calls in {silent[0]}, which Raven says by an empty table named after the recording",
            "give a folder to write a table for each",
        )
    write_text(_text(annotations), path)


def _is_silence(said: Annotation) -> bool:
    return said.label == EVERY_CLASS and math.isinf(said.stop)


def _text(annotations: Sequence[Annotation]) -> str:
    boxes = [said for said in annotations if not _is_silence(said)]
    if boxes and len(boxes) < len(annotations):
        raise UserError(
            "E_TODO",
            f"{boxes[0].recording}: boxes, and a statement that nothing calls in it at all",
            "a Raven table says only one of them, so leave one out",
        )
    starts = digits(said.start for said in boxes)
    columns = {
        "Selection": [str(i + 1) for i in range(len(boxes))],
        "View": ["Spectrogram 1"] * len(boxes),
        "Channel": ["1"] * len(boxes),
        "Begin Time (s)": starts,
        "End Time (s)": digits(said.stop for said in boxes),
        "Low Freq (Hz)": digits(said.low for said in boxes),
        "High Freq (Hz)": edges(said.high for said in boxes),
        "Begin File": [said.recording for said in boxes],
        "File Offset (s)": starts,
        "Species": [said.label for said in boxes],
        "Verdict": verdicts(boxes),
        "Songtype": [said.songtype for said in boxes],
        "Score": digits(said.score for said in boxes),
    }
    return pd.DataFrame(columns).to_csv(sep="\t", index=False, lineterminator="\n")


RAVEN = TableFormat("raven", NEEDS, lambda header: has(header, NEEDS), read, write)
