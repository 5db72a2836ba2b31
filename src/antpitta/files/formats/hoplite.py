"""perch-hoplite's annotations: ``recording,start_offset_s,end_offset_s,label,label_type``.

``label_type`` is positive, negative or uncertain; uncertain is unknown, not absent. The
format has no frequencies.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from antpitta.core.types import Annotation
from antpitta.files.formats.sheet import VERDICT_COLUMNS, AnnotationTable, Sheet, TableFormat, has
from antpitta.files.formats.writing import digits, verdicts
from antpitta.files.tables import read_frame, write_csv

NEEDS = ("recording", "start_offset_s", "end_offset_s", "label")


def read(path: Path, verdict: bool | None = None) -> AnnotationTable:
    sheet = Sheet("hoplite", path, read_frame(path))
    return sheet.table(
        recording=sheet.text("recording"),
        start=sheet.numbers("start_offset_s"),
        stop=sheet.numbers("end_offset_s"),
        label=sheet.text("label"),
        judged=sheet.judged(verdict, "label_type", *VERDICT_COLUMNS),
    )


def write(annotations: Sequence[Annotation], path: Path) -> None:
    columns = {
        "recording": [said.recording for said in annotations],
        "start_offset_s": digits(said.start for said in annotations),
        "end_offset_s": digits(said.stop for said in annotations),
        "label": [said.label for said in annotations],
        "label_type": verdicts(annotations, "positive", "negative"),
    }
    write_csv(pd.DataFrame(columns), path)


HOPLITE = TableFormat("hoplite", NEEDS, lambda header: has(header, NEEDS), read, write)
