r"""Audacity's label tracks: start, end and label, separated by tabs, without a header.

- The recording is the file's name. A label is a call that somebody heard: present.
- A line ``\ low high`` gives the band of the label above it; an edge below 0 was not drawn.
- A fourth cell is a model's confidence (BirdNET-Analyzer writes it, with ``Genus species,
  Common name`` as label): what a model proposed is unknown until somebody judged it.
"""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from antpitta.core.types import Annotation
from antpitta.files.filenames import recording_from_table_name
from antpitta.files.formats.sheet import UNJUDGED, AnnotationTable, Sheet, TableFormat
from antpitta.files.formats.writing import digits, one_verdict, write_each
from antpitta.files.texts import read_text, write_text

COLUMNS = ("start", "end", "label", "confidence", "low", "high")
_TIMES = re.compile(r"\s*-?\d+([.,]\d+)?\t-?\d+([.,]\d+)?(\t.*)?\s*")


def looks_like_labels(text: str) -> bool:
    """Whether the first line that holds anything is two times, and maybe a label."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return _TIMES.fullmatch(first) is not None


def read(path: Path, verdict: bool | None = None) -> AnnotationTable:
    frame = _frame(read_text(path))
    sheet = Sheet("audacity", path, frame)
    proposed = bool(len(frame)) and bool((frame["confidence"] != "").all())
    label = sheet.text("label")
    if proposed:
        label = np.array([cell.split(", ")[0] for cell in label], dtype=object)
    low, high = sheet.numbers("low", empty=0.0), sheet.numbers("high", empty=math.inf)
    return sheet.table(
        recording=np.full(len(sheet), recording_from_table_name(path), dtype=object),
        start=sheet.numbers("start"),
        stop=sheet.numbers("end"),
        label=label,
        judged=sheet.judged(verdict, meaning=UNJUDGED if proposed else True),
        low=np.maximum(low, 0.0),
        high=np.where(high < 0, math.inf, high),
        score=sheet.numbers("confidence", empty=math.nan),
    )


def _frame(text: str) -> pd.DataFrame:
    """The labels, each with its band, indexed by line."""
    rows: list[list[str]] = []
    lines: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        cells = [cell.strip() for cell in line.split("\t")]
        if cells[0] == "\\" and rows:
            rows[-1][4:] = [*cells[1:], "", ""][:2]
        elif any(cells):
            rows.append([*[*cells, "", "", ""][:4], "", ""])
            lines.append(number)
    index = pd.Index(lines, name="line", dtype=np.int64)
    return pd.DataFrame(rows, index=index, columns=list(COLUMNS), dtype=object)


def write(annotations: Sequence[Annotation], path: Path, verdict: bool | None = None) -> None:
    """The label track of one recording, or where ``path`` is a folder one for each.

    The format has no verdict: annotations of both raise UserError unless ``verdict``
    chooses.
    """
    chosen = one_verdict(annotations, path, "audacity", verdict)
    write_each(chosen, path, "audacity", ".txt", _text)


def write_track(rows: Iterable[tuple[float, float, float, float, str]], path: Path) -> None:
    """A label track of (start, stop, low, high, label); without rows an empty one."""
    write_text(_track(rows), path)


def _text(annotations: Sequence[Annotation]) -> str:
    return _track((one.start, one.stop, one.low, one.high, one.label) for one in annotations)


def _track(rows: Iterable[tuple[float, float, float, float, str]]) -> str:
    lines = []
    for start, stop, low, high, label in rows:
        text = " ".join(label.split())  # a tab would begin another cell
        lines.append("\t".join([*digits((start, stop)), text]))
        if low > 0 or high < math.inf:
            top = high if high < math.inf else -1.0  # Audacity's own "not drawn"
            lines.append("\t".join(["\\", *digits((low, top))]))
    return "".join(line + "\n" for line in lines)


AUDACITY = TableFormat("audacity", (), lambda header: False, read, write)
