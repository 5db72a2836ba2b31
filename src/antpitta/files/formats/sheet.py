"""What reading somebody's annotations gives, and what a format is.

The way from a table's cells to annotations, the same for every format.

- Columns are found by name, whatever their order, case, blanks and underscores; what a format
  does not know is left alone.
- A row that cannot be used is left out and becomes a Finding with its line; a decimal comma
  stops the reading instead, because then every row has one and the remedy is one.
- A row that nobody has judged is counted and nothing else: it is unknown, whatever its cells.
- Where a table carries verdicts of its own they win over the one given for the whole table,
  and the rows that contradict it are reported.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from antpitta.core.errors import Finding, UserError
from antpitta.core.types import EVERY_CLASS, Annotation


@dataclass(frozen=True)
class AnnotationTable:
    """One table of annotations, or a folder or zip of them, as read."""

    format: str
    path: Path
    annotations: tuple[Annotation, ...]
    rows: tuple[int, ...]  # each annotation's line in its file, the header being line 1
    findings: tuple[Finding, ...] = ()  # rows left out, and what else somebody should know
    unvalidated: int = 0  # rows that nobody has judged: unknown, not absent

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.annotations):
            raise ValueError(f"{len(self.rows)} rows for {len(self.annotations)} annotations")


@dataclass(frozen=True)
class TableFormat:
    """One way of writing annotations down.

    ``read`` takes the path and the verdict that the user gave for the whole table (None:
    none). ``write`` takes the annotations, the path, and settings that only some formats know.
    """

    name: str
    needs: tuple[str, ...]  # columns without which it is not this format; for the error text
    recognises: Callable[[Sequence[str]], bool]  # from the header alone
    read: Callable[[Path, bool | None], AnnotationTable]
    write: Callable[..., None]


def join_tables(tables: Sequence[AnnotationTable], path: Path, format: str) -> AnnotationTable:
    """Several tables as one, in their order; each row keeps the line of its own file."""
    return AnnotationTable(
        format=format,
        path=path,
        annotations=tuple(said for table in tables for said in table.annotations),
        rows=tuple(row for table in tables for row in table.rows),
        findings=tuple(found for table in tables for found in table.findings),
        unvalidated=sum(table.unvalidated for table in tables),
    )


VERDICT_COLUMNS = (
    *("verdict", "validated", "validation", "present", "presence", "is present", "correct"),
    *("review", "reviewed", "verified", "verification", "manual verification"),
)
_PRESENT = {"present", "positive", "confirmed", "correct", "valid", "verified"}
_PRESENT |= {"yes", "y", "true", "t", "tp", "1", "1.0"}
_ABSENT = {"absent", "not present", "not_present", "negative", "rejected", "incorrect", "wrong"}
_ABSENT |= {"invalid", "no", "n", "false", "f", "fp", "0", "0.0"}
_NOTHING = {"", "---", "--", "-", "na", "n/a", "nan", "none", "null"}
_UNJUDGED = {"(not validated)", "not validated", "unvalidated", "unreviewed", "skip", "skipped"}
_UNJUDGED |= {"uncertain", "unsure", "unknown", "maybe", "?"} | _NOTHING
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|\+?inf(inity)?", re.IGNORECASE)

UNJUDGED = -1  # beside 1 (present) and 0 (absent)
_UNREADABLE = -2  # a verdict in no words we know: reported, and not counted as unjudged


def plain(name: str) -> str:
    """A column's name without case, blanks, brackets and underscores: ``Begin Time (s)``."""
    return " ".join(re.findall(r"[a-z0-9]+", name.lower()))


def has(header: Sequence[str], names: Iterable[str]) -> bool:
    """Whether every one of ``names`` is among the columns."""
    return {plain(name) for name in names} <= {plain(column) for column in header}


def nearest(name: str, header: Sequence[str]) -> str:
    """``(nearest: 'tmin')``, or what columns there are: a missing column's end of the sentence."""
    by_plain = {plain(column).replace(" ", ""): column for column in header}
    close = get_close_matches(plain(name).replace(" ", ""), by_plain, n=1)
    if close:
        return f"(nearest: {by_plain[close[0]]!r})"
    return f"(columns here: {', '.join(header) or 'none'})"


class Sheet:
    """One table on its way to annotations; collects what is wrong with its rows."""

    def __init__(self, format: str, path: Path, frame: pd.DataFrame) -> None:
        self.format, self.path, self.frame = format, path, frame
        self.lines = frame.index.to_numpy()
        self.notes: list[Finding] = []
        self._columns = {plain(str(name)): str(name) for name in reversed(frame.columns)}
        self._trouble: dict[int, Finding] = {}  # a row's first, by position
        self._left_out = np.zeros(len(frame), dtype=bool)

    def __len__(self) -> int:
        return len(self.frame)

    def find(self, *names: str) -> str | None:
        """The first of ``names`` that is a column here, as it is written here."""
        return next((self._columns[n] for n in map(plain, names) if n in self._columns), None)

    def text(self, *names: str, empty: str | None = None) -> np.ndarray:
        """The cells of the first of these columns that is here.

        Without one: ``empty`` in every row, or a UserError where that is None.
        """
        column = self.find(*names)
        if column is not None:
            return self.frame[column].to_numpy(dtype=object)
        if empty is None:
            what = f"{self.path}: no column {names[0]!r} {nearest(names[0], self._header)}"
            raise UserError("E_TODO", f"{what}", f"rename the column that holds it to {names[0]!r}")
        return np.full(len(self), empty, dtype=object)

    def numbers(self, *names: str, empty: float | None = None) -> np.ndarray:
        """The cells as numbers, exactly as Python reads them.

        An empty cell, or a column that is not here, is ``empty``; where that is None, an empty
        cell is reported like any other cell that is no number, and the column must be here.
        """
        cells = self.text(*names, empty=None if empty is None else "")
        values = np.empty(len(self))
        for i, cell in enumerate(cells):
            if _NUMBER.fullmatch(cell):
                values[i] = float(cell)
            elif empty is not None and cell.lower() in _NOTHING:
                values[i] = empty
            else:
                values[i] = self._not_a_number(i, self.find(*names) or names[0], cell)
        return values

    def judged(
        self, given: bool | None, *names: str, meaning: bool | int | None = None
    ) -> np.ndarray:
        """1 present, 0 absent, UNJUDGED, for each row.

        ``names`` are the verdict's columns; ``meaning`` is what a table without one says when
        the user says nothing, and None where it says nothing either: a UserError.
        """
        column = self.find(*(names or VERDICT_COLUMNS))
        if column is None:
            whole = meaning if given is None else given
            if whole is None:
                raise UserError(
                    "E_TODO",
                    f"{self.path}: {self.format} tables do not say whether the species is there",
                    "give this one as --present or as --absent",
                )
            return np.full(len(self), int(whole))
        words = self.frame[column].str.lower()
        verdicts = np.full(len(self), _UNREADABLE)
        for words_of, code in ((_PRESENT, 1), (_ABSENT, 0), (_UNJUDGED, UNJUDGED)):
            verdicts[words.isin(words_of).to_numpy(dtype=bool)] = code
        cells = self.frame[column].to_numpy()
        remedy = "write present or absent, or leave it empty where nobody has judged"
        strange = verdicts == _UNREADABLE
        self.complain(strange, lambda i: f"unknown verdict {cells[i]!r}", remedy)
        against = 0 if given is None else int(np.sum(verdicts == int(not given)))
        if against:
            said, but = ("present", "absent") if given else ("absent", "present")
            self.note(
                f"given as --{said}, but {against} of its rows say {but}: the rows' word is kept",
                "give a table that carries verdicts as --annotations",
            )
        return verdicts

    def complain(
        self,
        rows: np.ndarray,
        what: str | Callable[[int], str],
        remedy: str,
        serious: bool = True,
    ) -> None:
        """Leaves these rows out (mask) and reports each, unless it has a trouble already."""
        for i in np.flatnonzero(rows).tolist():
            self._report(i, what if isinstance(what, str) else what(i), remedy, serious)

    def note(self, what: str, remedy: str, serious: bool = False) -> None:
        """Reports something about the whole table."""
        self.notes.append(Finding("E_TODO", str(self.path), None, what, remedy, serious))

    def leave_out(self, rows: np.ndarray) -> None:
        """Drops rows that say nothing of their own, such as a selection's second view."""
        self._left_out |= rows

    def table(
        self,
        *,
        recording: np.ndarray,
        start: np.ndarray,
        stop: np.ndarray,
        label: np.ndarray,
        judged: np.ndarray,
        low: np.ndarray | None = None,
        high: np.ndarray | None = None,
        songtype: np.ndarray | None = None,
        score: np.ndarray | None = None,
        source: np.ndarray | None = None,
    ) -> AnnotationTable:
        """The rows that can be used as annotations, the others as findings; NaN score: none."""
        low, high = self._or(low, 0.0), self._or(high, math.inf)
        self._check(recording, start, stop, label, judged, low, high)
        listed = ~self._left_out & (judged != UNJUDGED)
        keep = listed.copy()
        keep[list(self._trouble)] = False
        worth = pd.Series(self._or(score, math.nan), dtype=object)
        columns = (
            *(recording, start, stop, label, judged == 1, low, high),
            *(self._or(source, "human"), self._or(songtype, "")),
            worth.where(worth.notna(), None).to_numpy(),
        )
        rows = zip(*(column[keep].tolist() for column in columns), strict=True)
        troubles = (found for i, found in sorted(self._trouble.items()) if listed[i])
        return AnnotationTable(
            format=self.format,
            path=self.path,
            annotations=tuple(Annotation(*row) for row in rows),
            rows=tuple(int(line) for line in self.lines[keep]),
            findings=(*self.notes, *troubles),
            unvalidated=int(np.sum(~self._left_out & ~listed)),
        )

    def _or(self, column: np.ndarray | None, every: float | str) -> np.ndarray:
        if column is not None:
            return column
        return np.full(len(self), every, dtype=object if isinstance(every, str) else float)

    @property
    def _header(self) -> list[str]:
        return [str(name) for name in self.frame.columns]

    def _not_a_number(self, i: int, column: str, cell: str) -> float:
        if _DECIMAL_COMMA.fullmatch(cell):
            raise UserError(
                "E_TODO",
                f"{self.path}:{self.lines[i]}: {column} is {cell!r}, with a decimal comma",
                "save the table with decimal points",
            )
        what = f"{column} is {cell!r}, not a number" if cell else f"{column} is empty"
        self._report(i, what, "correct the cell", serious=True)
        return math.nan

    def _report(self, i: int, what: str, remedy: str, serious: bool) -> None:
        line = int(self.lines[i])
        self._trouble.setdefault(i, Finding("E_TODO", str(self.path), line, what, remedy, serious))

    def _check(
        self,
        recording: np.ndarray,
        start: np.ndarray,
        stop: np.ndarray,
        label: np.ndarray,
        judged: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
    ) -> None:
        """Reports every row that no annotation can be made of."""
        self.complain(recording == "", "no recording", "name the recording", serious=False)
        self.complain(label == "", "no species", "name the species", serious=False)
        everything = (label == EVERY_CLASS) & (judged == 1)
        self.complain(everything, "every species present at once", "name the species")
        self._check_edges(start, stop, "s")
        self._check_edges(low, high, "Hz")

    def _check_edges(self, first: np.ndarray, last: np.ndarray, unit: str) -> None:
        def edges(i: int) -> str:
            word = "empty" if first[i] == last[i] else "reversed"
            return f"{word} box, {first[i]:g} to {last[i]:g} {unit}"

        def begins(i: int) -> str:
            return f"the box begins at {first[i]:g} {unit}"

        self.complain(first >= last, edges, "correct its edges")
        outside = ~((first >= 0) & (first < math.inf))
        self.complain(outside, begins, "nothing begins below 0 or never")
