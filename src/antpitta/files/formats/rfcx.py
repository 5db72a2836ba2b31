"""The competition's tables: ``recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max``.

They carry no verdict: one file holds the boxes with the species, another those without it.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from antpitta.core.types import Annotation
from antpitta.files.formats.sheet import AnnotationTable, Sheet, TableFormat, has
from antpitta.files.formats.writing import digits, edges, one_verdict
from antpitta.files.tables import read_frame, write_csv

NEEDS = ("recording_id", "species_id", "t_min", "t_max")


def read(path: Path, verdict: bool | None = None) -> AnnotationTable:
    """Boxes without ``f_min`` and ``f_max`` span every frequency; the song type may be missing."""
    sheet = Sheet("rfcx", path, read_frame(path))
    return sheet.table(
        recording=sheet.text("recording_id"),
        start=sheet.numbers("t_min"),
        stop=sheet.numbers("t_max"),
        label=sheet.text("species_id"),
        judged=sheet.judged(verdict),
        low=sheet.numbers("f_min", empty=0.0),
        high=sheet.numbers("f_max", empty=float("inf")),
        songtype=sheet.text("songtype_id", empty=""),
    )


def write(annotations: Sequence[Annotation], path: Path, verdict: bool | None = None) -> None:
    """The annotations of one verdict; ``verdict`` picks it where both occur."""
    chosen = one_verdict(annotations, path, "rfcx", verdict)
    columns = {
        "recording_id": [said.recording for said in chosen],
        "species_id": [said.label for said in chosen],
        "songtype_id": [said.songtype for said in chosen],
        "t_min": digits(said.start for said in chosen),
        "f_min": digits(said.low for said in chosen),
        "t_max": digits(said.stop for said in chosen),
        "f_max": edges(said.high for said in chosen),
    }
    write_csv(pd.DataFrame(columns), path)


RFCX = TableFormat("rfcx", NEEDS, lambda header: has(header, NEEDS), read, write)
