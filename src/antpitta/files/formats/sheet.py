"""From the cells of a table to annotations: what every format has in common.

- Columns are found by name, whatever their order, case, spaces and underscores, and with or
  without their unit: ``File Offset`` is ``File Offset (s)``. A unit such as kHz is converted.
  Columns that a format does not know are ignored.
- A row that cannot be used is left out and becomes a Finding with its line. A decimal comma stops
  the reading instead, because then every row has one.
- A row without a verdict is counted and nothing else: it is unknown, whatever its cells hold.
- A score without a verdict is a model's output, so the row is unknown, too, unless the user gives
  a verdict for the whole table. A score is a cell of its own, or the end of a label
  (``WOTH;0.953``); ``WOTH;0.953;yes`` has a verdict.
- Where a table is read for review, rows without a verdict are kept as events beside the others.
- Verdicts in a table win over the one given for the whole table, and the rows that contradict it
  are reported.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np

from antpitta.core.errors import Finding, UserError
from antpitta.core.types import EVERY_CLASS, Annotation, Event
from antpitta.files.formats.cells import (
    EMPTY,
    NUMBER,
    PRESENT,
    SCORE_WORDS,
    UNKNOWN,
    UNREADABLE,
    VERDICT_COLUMNS,
    LabelParts,
    parse_word,
    split_labels,
)
from antpitta.files.formats.columns import nearest_column, normalize_column, split_unit
from antpitta.files.tables import Cells

# The verdict for a whole table; "unreviewed": rows without one of their own are to be reviewed.
GivenVerdict = bool | Literal["unreviewed"] | None
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")


@dataclass(frozen=True)
class AnnotationTable:
    """One table of annotations, or a folder or zip of them, as read."""

    format: str
    path: Path
    annotations: tuple[Annotation, ...]
    rows: tuple[int, ...]  # each annotation's line in its file, the header being line 1
    findings: tuple[Finding, ...] = ()  # rows left out, and other problems
    unvalidated: int = 0  # rows that no person has judged: unknown, not absent
    files: tuple[Path, ...] = ()  # each annotation's file, where that is not always ``path``
    unreviewed: tuple[Event, ...] = ()  # rows without a verdict, of a table that is to be reviewed
    unreviewed_files: tuple[Path, ...] = ()  # like ``files``

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.annotations):
            raise ValueError(f"{len(self.rows)} rows for {len(self.annotations)} annotations")
        if self.files and len(self.files) != len(self.annotations):
            raise ValueError(f"{len(self.files)} files for {len(self.annotations)} annotations")

    def origins(self) -> tuple[tuple[Path, int], ...]:
        """The file and line of each annotation."""
        return tuple(self.iter_origins())

    def iter_origins(self) -> Iterator[tuple[Path, int]]:
        """The file and line of each annotation, one after the other."""
        return zip(self.files or repeat(self.path, len(self.rows)), self.rows, strict=True)

    def iter_unreviewed(self) -> Iterator[tuple[Event, Path]]:
        """The rows without a verdict and their files, of a table that is to be reviewed."""
        files = self.unreviewed_files or repeat(self.path, len(self.unreviewed))
        return zip(self.unreviewed, files, strict=True)


@dataclass(frozen=True)
class TableFormat:
    """A format of annotation tables.

    ``matches`` takes the column names. ``read`` takes the path and the verdict for the whole
    table.
    """

    name: str
    required_columns: tuple[str, ...]  # for the error message about an unknown table
    matches: Callable[[Sequence[str]], bool]
    read: Callable[[Path, GivenVerdict], AnnotationTable]


def join_tables(tables: Sequence[AnnotationTable], path: Path, format: str) -> AnnotationTable:
    """Several tables as one, in their order; each row keeps its own file and line.

    Parameters
    ----------
    tables : in the order of the result
    path : of the folder that has them
    format : name of the result's format

    Returns
    -------
    table : all annotations, rows and findings
    """
    return AnnotationTable(
        format=format,
        path=path,
        annotations=tuple(annotation for table in tables for annotation in table.annotations),
        rows=tuple(row for table in tables for row in table.rows),
        findings=tuple(finding for table in tables for finding in table.findings),
        unvalidated=sum(table.unvalidated for table in tables),
        files=tuple(file for table in tables for file, _ in table.origins()),
        unreviewed=tuple(event for table in tables for event in table.unreviewed),
        unreviewed_files=tuple(file for table in tables for _, file in table.iter_unreviewed()),
    )


def _is_score_column(name: str) -> bool:
    """Whether a column has scores: ``Score``, ``prob_species``, ``Detection score``."""
    words = normalize_column(name).split()
    return bool(words) and bool({words[0], words[-1]} & SCORE_WORDS)


class Sheet:
    """One table on its way to annotations; collects the problems of its rows.

    Parameters
    ----------
    format : name of the format, for messages
    path : file of the table
    cells : of the table
    """

    def __init__(self, format: str, path: Path, cells: Cells) -> None:
        self.format, self.path, self.lines = format, path, cells.lines
        self.header = [*cells.columns]
        self._cells = dict(cells.columns)
        self._columns = {normalize_column(name): name for name in self.header[::-1]}
        self._table_findings: list[Finding] = []
        self._row_findings: dict[int, Finding] = {}  # the first of each row, by position
        self._dropped = np.zeros(len(self.lines), dtype=bool)
        self._keeps_unreviewed = False

    def __len__(self) -> int:
        return len(self.lines)

    def find_column(self, *names: str) -> str | None:
        """The first of ``names`` that is a column, as this table spells it."""
        known = (self._columns.get(normalize_column(name)) for name in names)
        return next((column for column in known if column is not None), None)

    def text(self, *names: str, empty: str | None = None) -> np.ndarray:
        """The cells of the first of these columns that the table has.

        Parameters
        ----------
        names : possible names of the column
        empty : cell of every row where the table has none of the columns

        Returns
        -------
        cells : (rows,), strings

        Raises
        ------
        UserError
            E_MISSING_COLUMN: none of the columns, and no ``empty``.
        """
        column = self.find_column(*names)
        if column is not None:
            return self._cells[column]
        if empty is None:
            raise UserError(
                "E_MISSING_COLUMN",
                f"{self.path}: no column {names[0]!r} {nearest_column(names[0], self.header)}",
                f"rename the column that holds it to {names[0]!r}",
            )
        return np.full(len(self), empty, dtype=object)

    def numbers(self, *names: str, empty: float | None = None) -> np.ndarray:
        """The cells of a column as numbers, exactly as Python parses them.

        Parameters
        ----------
        names : possible names of the column
        empty : value of an empty cell, and of every row where the column is missing; without
            it an empty cell is reported, and the column must be there

        Returns
        -------
        values : (rows,), NaN where the cell is no number

        Raises
        ------
        UserError
            E_MISSING_COLUMN, E_DECIMAL_COMMA.
        """
        cells = self.text(*names, empty=None if empty is None else "")
        values = np.empty(len(self))
        for i, cell in enumerate(cells):
            if NUMBER.fullmatch(cell):
                values[i] = float(cell)
            elif empty is not None and cell.lower() in EMPTY:
                values[i] = empty
            else:
                values[i] = self._reject_number(i, self.find_column(*names) or names[0], cell)
        factor = split_unit(self.find_column(*names) or "")[1]
        return values if factor == 1.0 else values * factor

    def has_model_columns(self) -> bool:
        """Whether the table has a column of scores, as a detector's has even without rows."""
        return any(map(_is_score_column, self.header))

    def split_scores(self, label: np.ndarray) -> LabelParts:
        """Split labels from the scores that a table has in their column, or in the label.

        Parameters
        ----------
        label : (rows,), strings

        Returns
        -------
        parts : labels without scores, and the scores
        """
        columns = [name for name in self.header if _is_score_column(name)]
        columns.sort(key=lambda name: normalize_column(name) not in SCORE_WORDS)
        return split_labels(label, [self._cells[name] for name in columns])

    def keep_unreviewed(self) -> None:
        """Keep rows without a verdict as events of the table."""
        self._keeps_unreviewed = True

    def parse_verdicts(
        self,
        verdict: GivenVerdict,
        *names: str,
        default: int | None = None,
        parts: LabelParts | None = None,
    ) -> np.ndarray:
        """The verdict of each row: PRESENT, ABSENT or UNKNOWN.

        Parameters
        ----------
        verdict : what the user gave for the whole table; it holds for rows without a verdict of
            their own where the table has no verdict at all; "unreviewed" keeps those as events
        names : possible names of the verdict's column, ``VERDICT_COLUMNS`` where empty
        default : verdict of a table without such a column, where the user gave none
        parts : of the labels; rows with a score and no verdict are unknown

        Returns
        -------
        verdicts : (rows,)

        Raises
        ------
        UserError
            E_NO_VERDICT: neither the table, the user nor the format has one.
        """
        column = self.find_column(*(names or VERDICT_COLUMNS))
        cells = np.full(len(self), "", dtype=object) if parts is None else parts.verdict
        scored = np.zeros(len(self), dtype=bool) if parts is None else parts.scored
        if column is not None:
            own = self._cells[column]
            cells = np.where(own == "", cells, own).astype(object)
        if verdict == "unreviewed":
            self.keep_unreviewed()
            return self._parse_words(cells, None)
        verdicts = self._parse_words(cells, verdict)
        every: int | None
        if verdict is not None and (verdicts == UNKNOWN).all():
            return np.full(len(self), int(verdict))
        if column is not None:
            return verdicts
        every = default if verdict is None else int(verdict)
        if every is None and not (len(self) and scored.all()):
            raise UserError(
                "E_NO_VERDICT",
                f"{self.path}: a table of the format {self.format} has no verdicts",
                "give this one as --present or as --absent",
            )
        return np.where(scored, verdicts, UNKNOWN if every is None else every)

    def _parse_words(self, cells: np.ndarray, verdict: bool | None) -> np.ndarray:
        """The verdict of each cell; reports those that are none, and those against the flag."""
        values = {cell: parse_word(cell) for cell in set(cells)}
        read = {cell: UNREADABLE if value is None else value for cell, value in values.items()}
        verdicts = np.array([read[cell] for cell in cells], dtype=int)
        self.reject_rows(
            "W_VERDICT_UNREADABLE",
            verdicts == UNREADABLE,
            lambda i: f"unknown verdict {cells[i]!r}",
            "write present or absent, or leave the cell empty for unknown",
        )
        contrary = 0 if verdict is None else int(np.sum(verdicts == int(not verdict)))
        if contrary:
            flag, word = ("present", "absent") if verdict else ("absent", "present")
            self.add_finding(
                "W_VERDICT_CONFLICT",
                f"given as --{flag}, but {contrary} of its rows say {word}, which wins",
                "give a table with verdicts as --annotations",
            )
        return verdicts

    def reject_rows(
        self,
        code: str,
        rows: np.ndarray,
        what: str | Callable[[int], str],
        remedy: str,
        serious: bool = True,
    ) -> None:
        """Leave rows out and report each, unless it is reported already.

        Parameters
        ----------
        code : of the finding
        rows : (rows,), mask
        what : the text of the finding, or a function from the row's position to it
        remedy : what to do
        serious : whether the problem would give a wrong result
        """
        for i in np.flatnonzero(rows).tolist():
            self._add_row_finding(
                code, i, what if isinstance(what, str) else what(i), remedy, serious
            )

    def add_finding(self, code: str, what: str, remedy: str, serious: bool = False) -> None:
        """Report a problem of the whole table."""
        self._table_findings.append(Finding(code, str(self.path), None, what, remedy, serious))

    def drop_rows(self, rows: np.ndarray) -> None:
        """Leave rows out without a finding, such as a selection's second view."""
        self._dropped |= rows

    def to_table(
        self,
        *,
        recording: np.ndarray,
        start: np.ndarray,
        stop: np.ndarray,
        label: np.ndarray,
        verdicts: np.ndarray,
        low: np.ndarray | None = None,
        high: np.ndarray | None = None,
        songtype: np.ndarray | None = None,
        score: np.ndarray | None = None,
        source: np.ndarray | None = None,
    ) -> AnnotationTable:
        """Make annotations of the rows that can be used, and findings of the others.

        The cells are given up before, so that a table of a million rows is held once.

        Parameters
        ----------
        recording, label, songtype, source : (rows,), strings
        start, stop : (rows,), seconds
        verdicts : (rows,), as from :meth:`parse_verdicts`
        low, high : (rows,), Hz
        score : (rows,), NaN for none
        """
        self._cells.clear()
        low, high = self._or_default(low, 0.0), self._or_default(high, math.inf)
        self._check_texts(recording, label, verdicts)
        self._check_interval(start, stop, "s")
        self._check_interval(low, high, "Hz")
        reviewed = ~self._dropped & (verdicts != UNKNOWN)
        usable = reviewed.copy()
        usable[list(self._row_findings)] = False
        scores = np.full(len(self), None, dtype=object)
        if score is not None:
            known = ~np.isnan(score)
            scores[known] = score[known]
        columns = (
            *(recording, start, stop, label, verdicts == PRESENT, low, high),
            *(self._or_default(source, "human"), self._or_default(songtype, "")),
            scores,
        )
        rows = zip(*(column[usable].tolist() for column in columns), strict=True)
        wanted = ~self._dropped if self._keeps_unreviewed else reviewed
        row_findings = (finding for i, finding in sorted(self._row_findings.items()) if wanted[i])
        places = (recording, start, stop, label, low, high, scores)
        return AnnotationTable(
            format=self.format,
            path=self.path,
            annotations=tuple(Annotation(*row) for row in rows),
            rows=tuple(int(line) for line in self.lines[usable]),
            findings=(*self._table_findings, *row_findings),
            unvalidated=int(np.sum(~self._dropped & ~reviewed)),
            unreviewed=self._events(~self._dropped & ~reviewed, *places),
        )

    def _events(self, rows: np.ndarray, *columns: np.ndarray) -> tuple[Event, ...]:
        """The rows without a verdict that can be used, if they are kept."""
        if not self._keeps_unreviewed:
            return ()
        rows[list(self._row_findings)] = False
        return tuple(
            Event(
                *(recording, start, stop, label, math.nan if score is None else score),
                source=self.format,
                low=low,
                high=high,
            )
            for recording, start, stop, label, low, high, score in zip(
                *(column[rows].tolist() for column in columns), strict=True
            )
        )

    def _or_default(self, column: np.ndarray | None, default: float | str) -> np.ndarray:
        if column is not None:
            return column
        return np.full(len(self), default, dtype=object if isinstance(default, str) else float)

    def _reject_number(self, i: int, column: str, cell: str) -> float:
        """Report a cell that is no number; NaN."""
        if _DECIMAL_COMMA.fullmatch(cell):
            raise UserError(
                "E_DECIMAL_COMMA",
                f"{self.path}:{self.lines[i]}: {column} is {cell!r}, with a decimal comma",
                "save the table with decimal points",
            )
        what = f"{column} is {cell!r}, not a number" if cell else f"{column} is empty"
        self._add_row_finding("W_NOT_A_NUMBER", i, what, "correct the cell", serious=True)
        return math.nan

    def _add_row_finding(self, code: str, i: int, what: str, remedy: str, serious: bool) -> None:
        finding = Finding(code, str(self.path), int(self.lines[i]), what, remedy, serious)
        self._row_findings.setdefault(i, finding)

    def _check_texts(self, recording: np.ndarray, label: np.ndarray, verdicts: np.ndarray) -> None:
        """Report rows without recording or species, and those with all species present."""
        for cells, field in ((recording, "recording"), (label, "species")):
            remedy = f"name the {field}"
            self.reject_rows("W_CELL_EMPTY", cells == "", f"no {field}", remedy)
        self.reject_rows(
            "W_ALL_PRESENT",
            (label == EVERY_CLASS) & (verdicts == PRESENT),
            "every species present at once",
            "name the species",
        )

    def _check_interval(self, first: np.ndarray, last: np.ndarray, unit: str) -> None:
        """Report boxes that are empty, reversed, or begin below 0."""

        def describe(i: int) -> str:
            shape = "empty" if first[i] == last[i] else "reversed"
            return f"{shape} box, {first[i]:g} to {last[i]:g} {unit}"

        self.reject_rows("W_BOX_EMPTY", first >= last, describe, "correct its edges")
        self.reject_rows(
            "W_BOX_OUTSIDE",
            ~((first >= 0) & (first < math.inf)),
            lambda i: f"the box begins at {first[i]:g} {unit}",
            "correct its edges",
        )
