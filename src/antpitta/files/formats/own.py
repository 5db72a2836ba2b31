"""antpitta's own table: every field of an annotation, so nothing is lost on the way.

``*`` as species is a statement about every species; an empty ``high_freq`` means no upper
edge. A model's ``events.csv`` looks alike but names a ``file``: it is not read here, because
what a model heard is no listener's word.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from antpitta.core.types import Annotation
from antpitta.files.formats.sheet import AnnotationTable, Sheet, TableFormat, has
from antpitta.files.formats.writing import digits, edges, verdicts
from antpitta.files.tables import read_frame, write_csv

NEEDS = ("recording", "start_time", "end_time", "species")


def read(path: Path, verdict: bool | None = None) -> AnnotationTable:
    """A table without a ``verdict`` column needs one from the user."""
    sheet = Sheet("antpitta", path, read_frame(path))
    source = sheet.text("source", empty="human")
    return sheet.table(
        recording=sheet.text("recording"),
        start=sheet.numbers("start_time"),
        stop=sheet.numbers("end_time"),
        label=sheet.text("species"),
        judged=sheet.judged(verdict),
        low=sheet.numbers("low_freq", empty=0.0),
        high=sheet.numbers("high_freq", empty=float("inf")),
        songtype=sheet.text("songtype", empty=""),
        score=sheet.numbers("score", empty=np.nan),
        source=np.where(source == "", "human", source).astype(object),
    )


def write(annotations: Sequence[Annotation], path: Path) -> None:
    columns = {
        "recording": [said.recording for said in annotations],
        "start_time": digits(said.start for said in annotations),
        "end_time": digits(said.stop for said in annotations),
        "low_freq": digits(said.low for said in annotations),
        "high_freq": edges(said.high for said in annotations),
        "species": [said.label for said in annotations],
        "verdict": verdicts(annotations),
        "songtype": [said.songtype for said in annotations],
        "score": digits(said.score for said in annotations),
        "source": [said.source for said in annotations],
    }
    write_csv(pd.DataFrame(columns), path)


OWN = TableFormat("antpitta", NEEDS, lambda header: has(header, NEEDS), read, write)
