"""The events of an archive in the formats of the programs that people look at sound with.

All are written from the journal (predict/tables.py), so they too are the same bytes however often
a run was stopped. A format is a function in ``FORMATS``: a new one is one function more.

- **raven**: one selection table of everything. Raven opens many files as one long sound, so a
  selection begins at the sum of the lengths of all files before its own, the silent ones too.
- **audacity**: a label track a recording; silent recordings have an empty one.
- **kaleidoscope**: one table, a folder and file a row, offsets from the file's beginning.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from antpitta.core.errors import UserError
from antpitta.files.formats.audacity import write_track
from antpitta.files.recordings import ListedFile
from antpitta.files.remote import Location
from antpitta.files.texts import atomic_replace
from antpitta.predict.journal import EVENT_COLUMNS, JournalEntry

Part = list[tuple[ListedFile, JournalEntry]]
Parts = Callable[[], Iterator[Part]]  # all that was heard, some recordings at a time
COLUMNS = ("file", *EVENT_COLUMNS)  # of events.csv and events.parquet
TEXTS = ("file", "species", "model")
SCHEMA = pa.schema([(name, pa.string() if name in TEXTS else pa.float64()) for name in COLUMNS])


def write_csv_events(parts: Parts, path: Path) -> None:
    """COLUMNS, a row an event."""
    _write_rows(parts, path, COLUMNS, lambda one, row: (str(one.path), *row))


def write_parquet_events(parts: Parts, path: Path) -> None:
    """The same, a row group for some recordings."""
    with (
        atomic_replace(path) as unfinished,
        pq.ParquetWriter(unfinished, SCHEMA) as writer,
    ):
        for part in or_empty_table(parts()):
            rows = [(str(one.path), *row) for _, one in part for row in one.events]
            table = pd.DataFrame(rows, columns=list(COLUMNS))
            writer.write_table(pa.Table.from_pandas(table, SCHEMA, preserve_index=False))


RAVEN = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)"),
    *("High Freq (Hz)", "Begin File", "Begin Path", "File Offset (s)", "Begin Date Time"),
    *("Site", "Species", "Score"),
)


def write_raven_events(parts: Parts, path: Path) -> None:
    """One table for all files opened together in the order of the archive."""
    before: dict[Location, float] = {}
    length = 0.0
    for part in parts():
        for _, one in part:
            before[one.path] = length
            length += one.seconds
    count = 0

    def row(one: JournalEntry, event: Any) -> tuple[Any, ...]:
        nonlocal count
        count += 1
        start, stop, low, high, species, score, _ = event
        began = round(before[one.path] + start, 3)
        return (
            *(count, "Spectrogram 1", 1, began, round(began + stop - start, 3), low, high),
            *(one.path.name, str(one.path), start, clock_time(one, start), one.site or ""),
            *(species, score),
        )

    _write_rows(parts, path, RAVEN, row, separator="\t")


def write_audacity_events(parts: Parts, folder: Path) -> None:
    """ID.txt for each recording: start, end, label; then the band."""
    for part in parts():
        for file, one in part:
            track = folder / f"{file.id.lstrip('/')}.txt"
            write_track((event[:5] for event in one.events), track)


KALEIDOSCOPE = (
    *("INDIR", "FOLDER", "IN FILE", "CHANNEL", "OFFSET", "DURATION", "Fmin", "Fmax", "DATE"),
    *("TIME", "SITE", "AUTO ID", "SCORE", "MANUAL ID"),
)


def write_kaleidoscope_events(parts: Parts, path: Path) -> None:
    """DATE and TIME are those at which the event begins."""

    def row(one: JournalEntry, event: Any) -> tuple[Any, ...]:
        start, stop, low, high, species, score, _ = event
        date, _, hour = clock_time(one, start).partition(" ")
        folder = one.path.parent
        return (
            *(str(folder.parent), folder.name, one.path.name, 0, start, round(stop - start, 3)),
            *(low, high, date.replace("/", "-"), hour, one.site or "", species, score, ""),
        )

    _write_rows(parts, path, KALEIDOSCOPE, row)


class EventWriter(NamedTuple):
    """One way to write events: the file or folder in the output, and who writes it."""

    name: str
    write: Callable[[Parts, Path], None]  # to that place


FORMATS = {
    "csv": EventWriter("events.csv", write_csv_events),
    "parquet": EventWriter("events.parquet", write_parquet_events),
    "raven": EventWriter("events.raven.txt", write_raven_events),
    "audacity": EventWriter("audacity", write_audacity_events),
    "kaleidoscope": EventWriter("events.kaleidoscope.csv", write_kaleidoscope_events),
}


def read_events(folder: Path) -> pd.DataFrame:
    """A row an event: COLUMNS, of whichever table there is; raises UserError for none."""
    if (folder / FORMATS["parquet"].name).is_file():
        return pd.read_parquet(folder / FORMATS["parquet"].name)
    table = folder / FORMATS["csv"].name
    if not table.is_file():
        raise UserError(
            "E_TODO", f"{folder}: holds no table of events", "predict with --format csv"
        )
    return pd.read_csv(table, dtype=dict.fromkeys(TEXTS, str))[list(COLUMNS)]


def write_events(parts: Parts, out: Path, formats: Iterable[str]) -> None:
    """The events in each of the formats; files of others, of an earlier run, are taken away."""
    chosen = list(formats)
    for name, form in FORMATS.items():
        place = out / form.name
        if name in chosen:
            form.write(parts, place)
        elif place.is_file():
            place.unlink()


def clock_time(one: JournalEntry, start: float) -> str:
    """When an event begins, by the recorder's own clock; "" where nobody knows.

    >>> clock(Entry(Path("a.wav"), (1, 1), began="2025-01-01T23:59:59"), 1.5)
    '2025/01/02 00:00:00.500'
    """
    if one.recorded_at is None:
        return ""
    moment = datetime.fromisoformat(one.recorded_at) + timedelta(seconds=start)
    return moment.strftime("%Y/%m/%d %H:%M:%S.") + f"{moment.microsecond // 1000:03}"


def or_empty_table(parts: Iterator[list[Any]]) -> Iterator[list[Any]]:
    """The parts, or a single empty one: a table of no rows has a header, too."""
    yield next(parts, [])
    yield from parts


def append(table: pd.DataFrame, path: Path, *, first: bool, separator: str = ",") -> None:
    """Rows at the end of a text table; the ``first`` ones come below a header."""
    table.to_csv(path, mode="a", header=first, index=False, sep=separator, lineterminator="\n")


def _write_rows(
    parts: Parts,
    path: Path,
    columns: tuple[str, ...],
    row: Callable[[JournalEntry, Any], tuple[Any, ...]],
    separator: str = ",",
) -> None:
    with atomic_replace(path) as unfinished:
        for i, part in enumerate(or_empty_table(parts())):
            rows = [row(one, event) for _, one in part for event in one.events]
            table = pd.DataFrame(rows, columns=list(columns))
            append(table, unfinished, first=not i, separator=separator)
