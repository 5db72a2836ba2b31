"""The tables of an archive: presence.csv, events.csv or events.parquet, and quarantine.csv.

All are written from the journal, some recordings at a time: a season of recorders does not fit in
memory as one table. The largest thing in memory is one number per recording and species, and that
only where presence is rescaled to prevalences.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from antpitta.core.errors import Finding
from antpitta.files.deployments import Deployments
from antpitta.files.recordings import ListedFile
from antpitta.files.tables import csv_quoting
from antpitta.files.texts import atomic_replace, utf8_text
from antpitta.predict.detection import DetectionConfig
from antpitta.predict.journal import EventRow, Journal, JournalEntry
from antpitta.predict.submission import Submission
from antpitta.scores.cells import clip_score_table

PART_SIZE = 1000  # recordings
Part = list[tuple[ListedFile, JournalEntry]]
Parts = Callable[[], Iterator[Part]]  # all recordings with scores, some at a time

COLUMNS = (  # of events.csv and events.parquet
    *("file", "site", "start_time", "end_time", "clock_time", "low_freq", "high_freq", "species"),
    *("score", "model", "support", "verdict"),
)
TEXT_COLUMNS = ("file", "site", "clock_time", "species", "model", "support", "verdict")
SCHEMA = pa.schema(
    [(name, pa.string() if name in TEXT_COLUMNS else pa.float64()) for name in COLUMNS]
)


@dataclass(frozen=True)
class TableCounts:
    """How many rows the tables have."""

    recordings: int  # with scores
    events: int
    quarantined: int  # files without scores, or with scores of a part


@dataclass(frozen=True)
class Archive:
    """The files of an archive in their order, with their journal.

    Parameters
    ----------
    journal : open
    files : as listed
    unreadable : files of formats that cannot be read
    species : columns of the scores
    deployments : sites and time zones, which override those of the recordings
    root : the folder that holds all recordings
    detection : the species that are written, and what supports their thresholds; None: all of them
    """

    journal: Journal
    files: Sequence[ListedFile]
    unreadable: Sequence[Finding]
    species: tuple[str, ...]
    deployments: Deployments | None = None
    root: Path = Path()
    detection: DetectionConfig | None = None

    def parts(self) -> Iterator[Part]:
        """All recordings with scores, :data:`PART_SIZE` at a time."""
        scored = ((file, entry) for file, entry in self._entries() if entry.presence is not None)
        while part := list(islice(scored, PART_SIZE)):
            yield part

    def quarantine(self) -> pd.DataFrame:
        """Rows file, reason: what has no scores, or only scores of a part."""
        rows = [(finding.file, finding.what) for finding in self.unreadable]
        rows += [
            (utf8_text(str(entry.path)), entry.reason)
            for _, entry in self._entries()
            if entry.reason
        ]
        return pd.DataFrame(rows, columns=["file", "reason"])

    def _entries(self) -> Iterator[tuple[ListedFile, JournalEntry]]:
        by_path = {file.path: file for file in self.files}
        for entry in self.journal.read(file.path for file in self.files):
            support = self.detection.support if self.detection else {}
            yield by_path[entry.path], self._with_deployment(replace(entry, support=support))

    def presence(self, part: Part) -> NDArray[np.float32]:
        """The scores (recordings, species) of a part; NaN for a species that was not learnable."""
        value = np.array([entry.presence for _, entry in part], dtype=np.float32)
        value = value.reshape(len(part), len(self.species))
        blank = self.detection.not_learnable if self.detection else ()
        value[:, [name in blank for name in self.species]] = np.nan
        return value

    @property
    def columns(self) -> list[int]:
        """The columns of the scores that are written."""
        wanted = self.detection.species if self.detection else self.species
        return [self.species.index(name) for name in wanted]

    def _with_deployment(self, entry: JournalEntry) -> JournalEntry:
        if self.deployments is None:
            return entry
        deployment = self.deployments.of_recording(entry.path, entry.site)
        if deployment is None:
            return entry
        return replace(entry, site=deployment.site, zone=deployment.zone)


def write_presence(
    archive: Archive,
    path: Path,
    prevalence: NDArray[np.float64] | None,
    submission: Submission | None = None,
) -> tuple[int, int]:
    """Write presence.csv: one row per recording, one column per species.

    Parameters
    ----------
    archive : with at least an empty journal
    path : replaced atomically
    prevalence : (classes,), the share of recordings that the odds are rescaled to; NaN leaves a
        species unchanged, None all
    submission : gets the same scores

    Returns
    -------
    The number of recordings, and of the events in them.
    """
    rescaled = None
    if prevalence is not None:
        from antpitta.scores.prevalence import rescale_odds

        presence = np.concatenate([np.zeros((0, len(archive.species)), np.float32),
                                   *map(archive.presence, archive.parts())])  # fmt: skip
        learnable = ~np.isnan(presence).any(axis=0)
        rescaled = presence.copy()
        rescaled[:, learnable] = rescale_odds(presence[:, learnable], prevalence[learnable])
    names = tuple(archive.species[column] for column in archive.columns)
    rows = events = 0
    with atomic_replace(path) as unfinished:
        for part in or_empty_table(archive.parts()):
            stop = rows + len(part)
            value = archive.presence(part) if rescaled is None else rescaled[rows:stop]
            ids = [file.id for file, _ in part]
            table = clip_score_table(ids, value[:, archive.columns], names)
            if submission is not None and ids:
                submission.add(ids, np.nan_to_num(value))  # no gap, and the last in every ranking
            append(table, unfinished, first=not rows)
            events += sum(len(entry.events) for _, entry in part)
            rows = stop
    return rows, events


def write_csv_events(parts: Parts, path: Path) -> None:
    """Write events.csv: :data:`COLUMNS`, one row per event.

    Parameters
    ----------
    parts : the recordings, some at a time
    path : replaced atomically
    """
    write_event_rows(parts, path, COLUMNS, event_cells)


def event_cells(entry: JournalEntry, event: EventRow) -> tuple[Any, ...]:
    """The cells of an event in events.csv.

    Parameters
    ----------
    entry : the recording
    event : ordered as ``EVENT_COLUMNS``

    Returns
    -------
    Cells in the order of :data:`COLUMNS`; the verdict is empty, and what is unknown as well.
    """
    start, stop, low, high, species, score, model = event
    moment = entry.clock_time(start)
    clock_time = "" if moment is None else moment.isoformat(timespec="milliseconds")
    return (
        *(str(entry.path), entry.site or "", start, stop, clock_time, low, high, species),
        *(score, model, entry.support.get(species, ""), ""),
    )


def write_parquet_events(parts: Parts, path: Path) -> None:
    """Write events.parquet: the same rows, a row group for each part.

    Parameters
    ----------
    parts : the recordings, some at a time
    path : replaced atomically
    """
    with (
        atomic_replace(path) as unfinished,
        pq.ParquetWriter(unfinished, SCHEMA, write_page_checksum=True) as writer,
    ):
        for part in or_empty_table(parts()):
            rows = [event_cells(entry, event) for _, entry in part for event in entry.events]
            table = text_table(rows, COLUMNS)
            writer.write_table(pa.Table.from_pandas(table, SCHEMA, preserve_index=False))


def write_event_rows(
    parts: Parts,
    path: Path,
    columns: Sequence[str],
    row: Callable[[JournalEntry, EventRow], tuple[Any, ...]],
    separator: str = ",",
) -> None:
    """Write a text table with one row per event.

    Parameters
    ----------
    parts : the recordings
    path : replaced atomically
    columns : the header
    row : the cells of an event of a recording
    separator : between cells
    """
    with atomic_replace(path) as unfinished:
        for i, part in enumerate(or_empty_table(parts())):
            rows = [row(entry, event) for _, entry in part for event in entry.events]
            append(text_table(rows, columns), unfinished, first=not i, separator=separator)


def text_table(rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A table whose text UTF-8 can hold, whatever bytes are in the names of files.

    Parameters
    ----------
    rows : cells in the order of the columns
    columns : names

    Returns
    -------
    The table.
    """
    encoded = [[utf8_text(c) if isinstance(c, str) else c for c in row] for row in rows]
    return pd.DataFrame(encoded, columns=list(columns))


def or_empty_table(parts: Iterator[Part]) -> Iterator[Part]:
    """The parts, or a single empty one: a table without rows still has a header.

    Parameters
    ----------
    parts : the recordings, some at a time

    Yields
    ------
    Parts.
    """
    yield next(parts, [])
    yield from parts


def append(table: pd.DataFrame, path: Path, *, first: bool, separator: str = ",") -> None:
    """Append rows to a text table.

    Parameters
    ----------
    table : the rows
    path : created if missing
    first : whether to write the header before them
    separator : between cells
    """
    quoting = csv_quoting(table)
    table.to_csv(
        path, mode="a", header=first, index=False, sep=separator, lineterminator="\n",
        quoting=quoting,
    )  # fmt: skip
