"""Kaleidoscope's tables: one row per detection, with folder, file, offset and duration.

- ``AUTO ID`` is a program's word, so a row is unknown until ``MANUAL ID`` is filled in.
- ``MANUAL ID`` may be a verdict on ``AUTO ID`` (``yes``, ``no``), the name of a species, or several
  names. A name means: this species is present. Another name than ``AUTO ID`` also means that a
  person took the program's species to be wrong, so that one is absent. ``Noise`` says only that.
- ``TOP1MATCH`` is the number of a cluster, not a species; such a table has species only by hand.
- The tables for bats (they have a column ``Fc``) give frequencies in kHz, the others in Hz.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from antpitta.core.identity import species_key
from antpitta.files.formats.cells import ABSENT, PRESENT, UNKNOWN, LabelParts, parse_word
from antpitta.files.formats.columns import has_columns
from antpitta.files.formats.sheet import (
    AnnotationTable,
    GivenVerdict,
    Sheet,
    TableFormat,
    join_tables,
)
from antpitta.files.tables import read_cells

COLUMNS = ("IN FILE", "OFFSET", "DURATION")
MANUAL = "MANUAL ID"
AUTO_COLUMNS = ("AUTO ID", "scientific_name", "species")
_NO_SPECIES = {"noise", "nothing", "background", "false positive"}
_NOT_IDENTIFIED = {"noid", "no id", "nosp", "other"}


def is_kaleidoscope(header: Sequence[str]) -> bool:
    """Whether the columns are those of Kaleidoscope, with an identification.

    Parameters
    ----------
    header : names of the columns

    Returns
    -------
    answer : True or False
    """
    identified = any(has_columns(header, (name,)) for name in (MANUAL, "AUTO ID", "TOP1MATCH"))
    return has_columns(header, COLUMNS) and identified


def read_kaleidoscope(path: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read a table of detections.

    Parameters
    ----------
    path : file of the table
    verdict : of all rows of the program, where ``MANUAL ID`` is empty in every row

    Returns
    -------
    table : annotations, their lines, and findings
    """
    cells = read_cells(path)
    sheet = Sheet("kaleidoscope", path, cells)
    auto = sheet.split_scores(sheet.text(*AUTO_COLUMNS, empty=""))
    manual = sheet.text(MANUAL, empty="")
    if verdict == "unreviewed":
        sheet.keep_unreviewed()
    elif verdict is not None and not (manual != "").any():
        return _to_table(sheet, auto, auto.label, np.full(len(sheet), int(verdict)))
    pairs = [*zip(manual, auto.label, strict=True)]
    parsed = {pair: _parse_manual(*pair) for pair in set(pairs)}
    meanings = [parsed[pair] for pair in pairs]
    del pairs
    verdicts = np.array([meaning for meaning, _ in meanings], dtype=int)
    masks = [
        np.array([len(names) > k for _, names in meanings])
        for k in range(max((len(names) for _, names in parsed.values()), default=0))
    ]
    sheets = [Sheet("kaleidoscope", path, cells.select(rows)) for rows in masks]
    del cells  # of a million rows, which are given up when their table is made
    tables = [_to_table(sheet, auto, auto.label, verdicts)]
    for k, (rows, named) in enumerate(zip(masks, sheets, strict=True)):
        label = np.array([names[k] for _, names in meanings if len(names) > k], dtype=object)
        own = LabelParts(label, *(part[rows] for part in (auto.score, auto.scored, auto.verdict)))
        tables.append(_to_table(named, own, label, np.full(len(named), PRESENT)))
    joined = join_tables(tables, path, "kaleidoscope")
    unvalidated = sum(meaning == UNKNOWN and not names for meaning, names in meanings)
    return replace(joined, unvalidated=unvalidated)


def files_of_kaleidoscope(sheet: Sheet) -> np.ndarray:
    """The path of each row's recording.

    Parameters
    ----------
    sheet : a table with folders and files

    Returns
    -------
    recording : (rows,), strings
    """
    columns = [sheet.text(name, empty="") for name in ("INDIR", "FOLDER")]
    rows = [*zip(*columns, sheet.text("IN FILE"), strict=True)]
    joined = {row: "/".join(part for part in row if part) for row in set(rows)}
    return np.array([joined[row] for row in rows], dtype=object)


def _parse_manual(cell: str, auto: str) -> tuple[int, list[str]]:
    """The verdict on the program's species, and the other species that a person named."""
    verdict = parse_word(cell)
    if verdict is not None:
        return verdict, []
    if cell.casefold() in _NOT_IDENTIFIED:
        return UNKNOWN, []
    if cell.casefold() in _NO_SPECIES:
        return ABSENT, []
    names = [name.strip() for name in re.split(r"[,;+/]", cell) if name.strip()]
    if species_key(cell) == species_key(auto):
        return PRESENT, []
    others = [name for name in names if species_key(name) != species_key(auto)]
    return PRESENT if len(others) < len(names) else ABSENT, others


def _to_table(
    sheet: Sheet, parts: LabelParts, label: np.ndarray, verdicts: np.ndarray
) -> AnnotationTable:
    start = sheet.numbers("OFFSET")
    factor = 1000.0 if sheet.find_column("Fc") else 1.0
    low, high = sheet.numbers("Fmin", empty=0.0), sheet.numbers("Fmax", empty=math.inf)
    named = np.array([name.casefold() not in _NOT_IDENTIFIED | _NO_SPECIES for name in label], bool)
    sheet.drop_rows(~named | (label == ""))
    return sheet.to_table(
        recording=files_of_kaleidoscope(sheet),
        start=start,
        stop=start + sheet.numbers("DURATION"),
        label=label,
        verdicts=verdicts,
        low=low * factor,
        high=np.where(high > 0, high * factor, math.inf),
        score=parts.score,
    )


KALEIDOSCOPE = TableFormat("kaleidoscope", (*COLUMNS, MANUAL), is_kaleidoscope, read_kaleidoscope)
