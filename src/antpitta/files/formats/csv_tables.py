"""Formats with one row per box and a column per field: antpitta's own, RFCX's and hoplite's.

antpitta's own table has every field of an annotation. ``*`` as species means every species; an
empty ``high_freq`` means no upper edge. A model's ``events.csv`` is such a table with a column
``file``, and an empty ``verdict`` that a person fills in: until then its rows are unknown.

The tables of the RFCX competition have no verdicts: one file holds the boxes with the species,
another the boxes without it.

perch-hoplite's ``label_type`` is positive, negative or uncertain; uncertain is unknown, not
absent. The format has no frequencies.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from antpitta.files.formats.cells import VERDICT_COLUMNS
from antpitta.files.formats.columns import has_columns
from antpitta.files.formats.sheet import AnnotationTable, GivenVerdict, Sheet, TableFormat
from antpitta.files.tables import read_cells

OWN_COLUMNS = ("recording", "start_time", "end_time", "species")
EVENT_COLUMNS = ("file", "start_time", "end_time", "species", "verdict")
RFCX_COLUMNS = ("recording_id", "species_id", "t_min", "t_max")
HOPLITE_COLUMNS = ("recording", "start_offset_s", "end_offset_s", "label")


def read_own(path: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read antpitta's own table; without a column ``verdict`` it needs one from the user.

    Parameters
    ----------
    path : file of the table
    verdict : of the whole table, or None where the user gave none

    Returns
    -------
    table : annotations, their lines, and findings
    """
    sheet = Sheet("antpitta", path, read_cells(path))
    source = sheet.text("source", empty="human")
    parts = sheet.split_scores(sheet.text("species"))
    return sheet.to_table(
        recording=sheet.text("recording", "file"),
        start=sheet.numbers("start_time"),
        stop=sheet.numbers("end_time"),
        label=parts.label,
        verdicts=sheet.parse_verdicts(verdict, parts=parts),
        low=sheet.numbers("low_freq", empty=0.0),
        high=sheet.numbers("high_freq", empty=float("inf")),
        songtype=sheet.text("songtype", empty=""),
        score=parts.score,
        source=np.where(source == "", "human", source).astype(object),
    )


def read_rfcx(path: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read a table of the competition; without ``f_min, f_max`` a box spans every frequency.

    Parameters
    ----------
    path : file of the table
    verdict : of the whole table, or None where the user gave none

    Returns
    -------
    table : annotations, their lines, and findings
    """
    sheet = Sheet("rfcx", path, read_cells(path))
    return sheet.to_table(
        recording=sheet.text("recording_id"),
        start=sheet.numbers("t_min"),
        stop=sheet.numbers("t_max"),
        label=sheet.text("species_id"),
        verdicts=sheet.parse_verdicts(verdict),
        low=sheet.numbers("f_min", empty=0.0),
        high=sheet.numbers("f_max", empty=float("inf")),
        songtype=sheet.text("songtype_id", empty=""),
    )


def read_hoplite(path: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read the annotations of perch-hoplite.

    Parameters
    ----------
    path : file of the table
    verdict : of the whole table, or None where the user gave none

    Returns
    -------
    table : annotations, their lines, and findings
    """
    sheet = Sheet("hoplite", path, read_cells(path))
    return sheet.to_table(
        recording=sheet.text("recording"),
        start=sheet.numbers("start_offset_s"),
        stop=sheet.numbers("end_offset_s"),
        label=sheet.text("label"),
        verdicts=sheet.parse_verdicts(verdict, "label_type", *VERDICT_COLUMNS),
    )


def is_own(header: Sequence[str]) -> bool:
    """Whether the columns are those of antpitta's own table, or of a model's events with verdicts.

    Parameters
    ----------
    header : names of the columns

    Returns
    -------
    answer : True or False
    """
    return has_columns(header, OWN_COLUMNS) or has_columns(header, EVENT_COLUMNS)


OWN = TableFormat("antpitta", OWN_COLUMNS, is_own, read_own)
RFCX = TableFormat(
    "rfcx", RFCX_COLUMNS, lambda header: has_columns(header, RFCX_COLUMNS), read_rfcx
)
HOPLITE = TableFormat(
    "hoplite", HOPLITE_COLUMNS, lambda header: has_columns(header, HOPLITE_COLUMNS), read_hoplite
)
