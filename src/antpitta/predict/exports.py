"""Everything that ``predict`` writes into its output folder, by format.

A format of events is a function in :data:`FORMATS`, so a new one is one more function. All are
written from the journal: they are the same bytes however often a run was stopped.

All of them carry an empty verdict, for a person to fill in. Until then antpitta reads them back as
unreviewed: what a model found never becomes a label by itself.

- **raven**: one selection table for all recordings. Raven opens many files as one long sound, so
  the time of a selection includes the durations of all files before its own, also of those
  without events. Cells are free of tabs and line breaks, because Raven quotes nothing.
- **audacity**: a label track per recording; empty where there are no events. A label is
  ``species;score``; a verdict goes behind it, ``species;score;yes``.
- **kaleidoscope**: one table with folder and file in each row, offsets from the start of the file.
- **camtrapdp**: a Camera Trap Data Package (predict/camtrapdp.py).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.errors import UserError, cut_name
from antpitta.core.identity import clean_name
from antpitta.files.formats.audacity import write_track
from antpitta.files.manifest import replace_files
from antpitta.files.remote import Location
from antpitta.files.tables import write_csv
from antpitta.files.texts import utf8_text, write_json
from antpitta.predict.camtrapdp import NAME, UNPLACED, DeploymentInfo, write_package
from antpitta.predict.journal import EventRow, JournalEntry, explain_database_errors
from antpitta.predict.tables import (
    COLUMNS,
    TEXT_COLUMNS,
    Archive,
    Parts,
    TableCounts,
    write_csv_events,
    write_event_rows,
    write_parquet_events,
    write_presence,
)

RAVEN_COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)"),
    *("High Freq (Hz)", "Begin File", "Begin Path", "File Offset (s)", "Begin Date Time"),
    *("Site", "Species", "Score", "Verdict"),
)
DESCRIPTOR = f"{NAME}/datapackage.json"  # users complete it; their text is kept
KALEIDOSCOPE_COLUMNS = (
    *("INDIR", "FOLDER", "IN FILE", "CHANNEL", "OFFSET", "DURATION", "Fmin", "Fmax", "DATE"),
    *("TIME", "SITE", "AUTO ID", "SCORE", "MANUAL ID"),
)


def write_outputs(
    archive: Archive,
    out: Path,
    formats: Iterable[str],
    prevalence: NDArray[np.float64] | None,
    note: dict[str, Any],
    deployments: DeploymentInfo | None = None,
) -> TableCounts:
    """Write presence.csv, the events in each format, quarantine.csv and run.json.

    Parameters
    ----------
    archive : completely processed
    out : the output folder
    formats : keys of :data:`FORMATS`
    prevalence : (classes,), the share of recordings that presence.csv is rescaled to, NaN where
        unknown; events stay as they are
    note : what run.json holds besides counts
    deployments : if given, camtrapdp/ and unplaced.csv are written, too

    Returns
    -------
    The numbers of rows.

    Raises
    ------
    UserError
        ``E_OUTPUT_NOT_WRITABLE``; ``E_NOTHING_PLACED`` if no recording fits into the Camtrap DP,
        after everything else is written.
    """
    with explain_database_errors(out):
        with replace_files(out, "prediction", complete=True, merged=(DESCRIPTOR,)) as new:
            recordings, events = write_presence(archive, new / "presence.csv", prevalence)
            write_events(archive.parts, new, formats)
            quarantine = archive.quarantine()
            write_csv(quarantine, new / "quarantine.csv")
            package = (
                None if deployments is None else write_package(archive.parts, new, deployments)
            )
            if package is None:
                (new / DESCRIPTOR).unlink(missing_ok=True)
            else:
                note = {**note, NAME: package.counts()}
            counts = TableCounts(recordings, events, len(quarantine))
            write_json({**note, "counts": asdict(counts)}, new / "run.json")
        archive.journal.finish()
    if package and package.left_out and not package.media:
        reasons = ", ".join(sorted(package.left_out))
        raise UserError(
            "E_NOTHING_PLACED",
            f"{out / UNPLACED}: no recording fits into {NAME} ({reasons})",
            "complete the table of deployments, then repeat with --resume, which keeps all scores",
        )
    return counts


def write_raven_events(parts: Parts, path: Path) -> None:
    """Write one selection table for all files, opened together in the order of the archive.

    Parameters
    ----------
    parts : the recordings, some at a time
    path : replaced atomically
    """
    offsets: dict[Location, float] = {}
    duration = 0.0
    for part in parts():
        for _, entry in part:
            offsets[entry.path] = duration
            duration += entry.duration
    count = 0

    def row(entry: JournalEntry, event: EventRow) -> tuple[Any, ...]:
        nonlocal count
        count += 1
        start, stop, low, high, species, score, _ = event
        begin = round(offsets[entry.path] + start, 3)
        return (
            *(count, "Spectrogram 1", 1, begin, round(begin + stop - start, 3), low, high),
            *(_without_line_ends(entry.path.name), _without_line_ends(str(entry.path))),
            *(start, clock_time(entry, start)),
            *(clean_name(entry.site or ""), clean_name(species), score, ""),
        )

    write_event_rows(parts, path, RAVEN_COLUMNS, row, separator="\t")


def write_audacity_events(parts: Parts, folder: Path) -> None:
    """Write ID.txt for each recording: start, end, label and score, then the frequency band.

    Parameters
    ----------
    parts : the recordings, some at a time
    folder : of the label tracks
    """
    for part in parts():
        for file, entry in part:
            track = folder / f"{file.id.lstrip('/')}.txt"
            labels = ((*event[:4], f"{event[4]};{event[5]:.3f}") for event in entry.events)
            write_track(labels, track)


def write_kaleidoscope_events(parts: Parts, path: Path) -> None:
    """Write one table for Kaleidoscope; DATE and TIME are those of the start of the event.

    Parameters
    ----------
    parts : the recordings, some at a time
    path : replaced atomically
    """

    def row(entry: JournalEntry, event: EventRow) -> tuple[Any, ...]:
        start, stop, low, high, species, score, _ = event
        date, _, time = clock_time(entry, start).partition(" ")
        folder = entry.path.parent
        return (
            *(utf8_text(str(folder.parent)), utf8_text(folder.name), utf8_text(entry.path.name)),
            *(0, start, round(stop - start, 3)),
            *(low, high, date.replace("/", "-"), time, entry.site or "", species, score, ""),
        )

    write_event_rows(parts, path, KALEIDOSCOPE_COLUMNS, row)


class EventWriter(NamedTuple):
    """A format of events: the file or folder in the output, and the function that writes it."""

    name: str
    write: Callable[[Parts, Path], None]


FORMATS = {
    "csv": EventWriter("events.csv", write_csv_events),
    "parquet": EventWriter("events.parquet", write_parquet_events),
    "raven": EventWriter("events.raven.txt", write_raven_events),
    "audacity": EventWriter("audacity", write_audacity_events),
    "kaleidoscope": EventWriter("events.kaleidoscope.csv", write_kaleidoscope_events),
}


def write_events(parts: Parts, out: Path, formats: Iterable[str]) -> None:
    """Write the events in each of the formats.

    Parameters
    ----------
    parts : the recordings, some at a time
    out : the output folder
    formats : keys of :data:`FORMATS`; others are ignored
    """
    chosen = list(formats)
    for name, form in FORMATS.items():
        if name in chosen:
            form.write(parts, out / form.name)


def read_events(folder: Path) -> pd.DataFrame:
    """Read events.parquet or events.csv of an output folder.

    Parameters
    ----------
    folder : that predict wrote, or one of these tables

    Returns
    -------
    One row per event, with the columns :data:`~antpitta.predict.tables.COLUMNS`.

    Raises
    ------
    UserError
        ``E_NO_EVENT_TABLE`` if there is neither, ``E_EVENT_TABLE`` for a damaged table.
    """
    parquet, table = folder / FORMATS["parquet"].name, folder / FORMATS["csv"].name
    if folder.is_file():
        parquet = table = folder
    if parquet.is_file() and parquet.suffix == ".parquet":
        return _read_event_table(parquet, lambda: pd.read_parquet(parquet))
    if not table.is_file():
        raise UserError(
            "E_NO_EVENT_TABLE",
            f"{folder}: holds neither {table.name} nor {parquet.name}",
            "predict with --format csv",
        )
    # A species may be called NA: only cells of numbers may be missing.
    missing = {name: [""] for name in COLUMNS if name not in TEXT_COLUMNS}
    text = dict.fromkeys(TEXT_COLUMNS, str)
    return _read_event_table(
        table,
        lambda: pd.read_csv(table, dtype=text, keep_default_na=False, na_values=missing),
    )


def _read_event_table(path: Path, read: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    remedy = "give events.csv as predict wrote it"
    try:
        table = read()
    except (ValueError, OSError) as error:  # such as a cell that is no number
        reason = cut_name(" ".join(str(error).split()), 100)
        raise UserError(
            "E_EVENT_TABLE", f"{path}: this is no table of events ({reason})", remedy
        ) from error
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise UserError("E_EVENT_TABLE", f"{path}: there is no column {missing[0]!r}", remedy)
    return table[list(COLUMNS)]


def _without_line_ends(path: str) -> str:
    """The path with blanks for tabs and line ends, which Raven's tables cannot hold."""
    return " ".join(re.split(r"[\t\r\n]", utf8_text(path)))


def clock_time(entry: JournalEntry, start: float) -> str:
    """The time of an event by the recorder's clock.

    Parameters
    ----------
    entry : the recording
    start : of the event, seconds in the file

    Returns
    -------
    ``YYYY/MM/DD hh:mm:ss.mmm``; "" if the time of the recording is unknown.

    Examples
    --------
    >>> clock_time(JournalEntry(Path("a.wav"), (1, 1), recorded_at="2025-01-01T23:59:59"), 1.5)
    '2025/01/02 00:00:00.500'
    """
    if entry.recorded_at is None:
        return ""
    moment = datetime.fromisoformat(entry.recorded_at) + timedelta(seconds=start)
    return moment.strftime("%Y/%m/%d %H:%M:%S.") + f"{moment.microsecond // 1000:03}"
