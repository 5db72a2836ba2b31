r"""Audacity's label tracks: start, end and label, separated by tabs, without a header.

- The recording is the file's name. A label is present: a person set it on a call. One with a
  score, as ``WOTH;0.953`` (HawkEars and antpitta write it), is a model's and unknown until
  somebody adds a verdict, ``WOTH;0.953;yes``, or the user gives one for the whole track.
- A line ``\ low high`` gives the frequencies of the label above it; an edge below 0 is unset.
- Audacity writes six decimals. A track in which every label has a band, and no number six
  decimals, is a program's (antpitta's before it wrote scores), and unknown as well.
- A fourth cell is a model's confidence, too (BirdNET-Analyzer writes it, with ``Genus species,
  Common name`` as label).
"""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from antpitta.files.formats.cells import PRESENT, UNKNOWN
from antpitta.files.formats.columns import recording_from_table_name
from antpitta.files.formats.sheet import AnnotationTable, GivenVerdict, Sheet, TableFormat
from antpitta.files.tables import collect_cells
from antpitta.files.texts import first_line, iter_lines, read_text, write_text

_COLUMNS = ("start", "end", "label", "confidence", "low", "high")
_TIMES = re.compile(r"\s*-?\d+([.,]\d+)?\t-?\d+([.,]\d+)?(\t.*)?\s*")


def is_label_track(text: str) -> bool:
    """Whether the first line that is not blank has two times, and maybe a label.

    Parameters
    ----------
    text : content of a file

    Returns
    -------
    answer : True or False
    """
    return _TIMES.fullmatch(first_line(text)) is not None


def read_audacity(path: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read a label track.

    Parameters
    ----------
    path : file of the table
    verdict : of the whole table, or None where the user gave none

    Returns
    -------
    table : annotations, their lines, and findings
    """
    text = read_text(path)
    sheet = Sheet("audacity", path, collect_cells(_COLUMNS, _rows(text)))
    by_program = _is_by_program(sheet, text)
    del text
    labels = zip(sheet.text("label"), sheet.text("confidence"), strict=True)
    label = np.array([text.split(", ")[0] if score else text for text, score in labels], object)
    parts = sheet.split_scores(label)
    low, high = sheet.numbers("low", empty=0.0), sheet.numbers("high", empty=math.inf)
    return sheet.to_table(
        recording=np.full(len(sheet), recording_from_table_name(path), dtype=object),
        start=sheet.numbers("start"),
        stop=sheet.numbers("end"),
        label=parts.label,
        verdicts=sheet.parse_verdicts(
            verdict, default=UNKNOWN if by_program else PRESENT, parts=parts
        ),
        low=np.maximum(low, 0.0),
        high=np.where(high < 0, math.inf, high),
        score=parts.score,
    )


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The line and the cells of each label, the frequencies below it included."""
    line, label = 0, [""]
    for number, content in enumerate(iter_lines(text), start=1):
        cells = [cell.strip() for cell in content.split("\t")]
        if cells[0] == "\\" and line:
            label[4:] = [*cells[1:], "", ""][:2]
        elif any(cells):
            if line:
                yield line, label
            line, label = number, [*[*cells, "", "", ""][:4], "", ""]
    if line:
        yield line, label


def _is_by_program(sheet: Sheet, text: str) -> bool:
    """Whether every label has a band, and no number has the six decimals that Audacity writes."""
    banded = len(sheet) > 0 and all(sheet.text("high"))
    return banded and re.search(r"\d\.\d{6}(?!\d)", text) is None


def write_track(rows: Iterable[tuple[float, float, float, float, str]], path: Path) -> None:
    """Write a label track; without rows an empty one.

    Parameters
    ----------
    rows : (start, stop, low, high, label) in seconds and Hz; an infinite high is left unset
    path : file to write
    """
    lines = []
    for start, stop, low, high, label in rows:
        text = " ".join(label.split())  # a tab would begin another cell
        lines.append(f"{float(start)!r}\t{float(stop)!r}\t{text}")
        if low > 0 or high < math.inf:
            top = float(high) if high < math.inf else -1.0  # Audacity's value for an unset edge
            lines.append(f"\\\t{float(low)!r}\t{top!r}")
    write_text("".join(line + "\n" for line in lines), path)


AUDACITY = TableFormat("audacity", (), lambda header: False, read_audacity)
