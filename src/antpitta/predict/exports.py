"""Everything that ``predict`` writes into its output folder, by format.

A format of events is a function in :data:`TABLES` or :data:`FOLDERS`, so a new one is one more
function. All are written from the journal: they are the same bytes however often a run was stopped.

All of them carry an empty verdict, for a person to fill in. Until then antpitta reads them back as
unreviewed: what a model found never becomes a label by itself.

- **raven**: a selection table per recording, to be opened with its sound, and one for all of them.
  Raven opens many files as one long sound, so the time of a selection in the latter includes the
  durations of all files before its own, also of those without events. Cells are free of tabs and
  line breaks, because Raven quotes nothing.
- **audacity**: a label track per recording; empty where there are no events. A label is
  ``species;score``; a verdict goes behind it, ``species;score;yes``.
- Files per recording lie in folders as the recordings do. They have the recordings' names without
  the suffix, or with it where two differ in nothing else. A name that would still be that of
  another file, or is longer than file systems allow, ends with ``~`` and a digest of the path.
- **kaleidoscope**: one table with folder and file in each row, offsets from the start of the file.
- **camtrapdp**: a Camera Trap Data Package (predict/camtrapdp.py).
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import asdict
from hashlib import blake2b
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.errors import UserError, cut_name
from antpitta.core.identity import clean_name
from antpitta.files.deployments import path_below
from antpitta.files.formats.audacity import write_track
from antpitta.files.manifest import replace_files
from antpitta.files.recordings import short_names
from antpitta.files.remote import Location
from antpitta.files.tables import write_csv, write_new_rows
from antpitta.files.texts import utf8_text, write_json
from antpitta.predict.camtrapdp import NAME, UNPLACED, write_package
from antpitta.predict.journal import EventRow, JournalEntry, explain_database_errors
from antpitta.predict.submission import FILE, Submission
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
    *("Site", "Species", "Score", "Support", "Verdict"),
)
LONGEST_NAME = 255  # bytes, on all common file systems
DESCRIPTOR = f"{NAME}/datapackage.json"  # users complete it; their text is kept
KALEIDOSCOPE_COLUMNS = (
    *("INDIR", "FOLDER", "IN FILE", "CHANNEL", "OFFSET", "DURATION", "Fmin", "Fmax", "DATE"),
    *("TIME", "SITE", "AUTO ID", "SCORE", "SUPPORT", "MANUAL ID"),
)


def write_outputs(
    archive: Archive,
    out: Path,
    formats: Iterable[str],
    prevalence: NDArray[np.float64] | None,
    note: dict[str, Any],
    submission: Submission | None = None,
) -> TableCounts:
    """Write presence.csv, the events in each format, quarantine.csv and run.json.

    Parameters
    ----------
    archive : completely processed
    out : the output folder
    formats : of :data:`FORMATS`, and camtrapdp
    prevalence : (classes,), the share of recordings that presence.csv is rescaled to, NaN where
        unknown; events stay as they are
    note : what run.json holds besides counts
    submission : written as submission.csv

    Returns
    -------
    The numbers of rows.

    Raises
    ------
    UserError
        ``E_OUTPUT_NOT_WRITABLE``; after everything else is written, ``E_NOTHING_PLACED`` if no
        recording fits into the Camtrap DP, ``E_SCORES_MISSING`` if none of the submission has
        scores.
    """
    chosen = set(formats)
    deployments = archive.deployments if NAME in chosen else None
    with explain_database_errors(out):
        with replace_files(out, "prediction", complete=True, merged=(DESCRIPTOR,)) as new:
            recordings, events = write_presence(
                *(archive, new / "presence.csv", prevalence, submission)
            )
            if submission is not None:
                note = {**note, "submission": _write_submission(submission, new)}
            write_events(archive.parts, new, chosen, archive.root)
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
    if submission is not None and not submission.has_scores:
        raise UserError(
            "E_SCORES_MISSING",
            f"{submission.sample.path}: none of its recordings could be read, so there is no "
            f"{FILE}",
            f"see {out / 'quarantine.csv'}",
        )
    if package and package.left_out and not package.media:
        reasons = ", ".join(sorted(package.left_out))
        raise UserError(
            "E_NOTHING_PLACED",
            f"{out / UNPLACED}: no recording fits into {NAME} ({reasons})",
            "complete the table of deployments, then repeat with --resume, which keeps all scores",
        )
    return counts


def _write_submission(submission: Submission, folder: Path) -> dict[str, Any]:
    """Write submission.csv where there are scores; what run.json holds about it."""
    if submission.has_scores:
        submission.write(folder / FILE)
    return {"sample": str(submission.sample.path), "filled": list(submission.filled)}


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
    row = _raven_row(lambda entry: offsets[entry.path])
    write_event_rows(parts, path, RAVEN_COLUMNS, row, separator="\t")


def write_raven_tables(parts: Parts, folder: Path, root: Path) -> None:
    """Write a selection table for each recording, with times in the recording.

    Parameters
    ----------
    parts : the recordings, some at a time
    folder : of the tables
    root : the folder that holds all recordings
    """
    names = recording_file_names(parts, root, ".selections.txt")
    for part in parts():
        for _, entry in part:
            table, row = folder / names[entry.path], _raven_row(lambda entry: 0.0)
            rows = [RAVEN_COLUMNS, *(row(entry, event) for event in entry.events)]
            write_new_rows(rows, table)


def _raven_row(
    offset: Callable[[JournalEntry], float],
) -> Callable[[JournalEntry, EventRow], tuple[Any, ...]]:
    """A function that gives the cells of each selection of a table, numbered in their order.

    Parameters
    ----------
    offset : seconds of the table's sound before a recording
    """
    numbers = count(1)

    def row(entry: JournalEntry, event: EventRow) -> tuple[Any, ...]:
        start, stop, low, high, species, score, _ = event
        begin = round(offset(entry) + start, 3)
        return (
            *(next(numbers), "Spectrogram 1", 1, begin, round(begin + stop - start, 3), low, high),
            *(_without_line_ends(entry.path.name), _without_line_ends(str(entry.path))),
            *(start, format_clock_time(entry, start)),
            *(clean_name(entry.site or ""), clean_name(species), score),
            *(entry.support.get(species, ""), ""),
        )

    return row


def write_audacity_events(parts: Parts, folder: Path, root: Path) -> None:
    """Write a label track for each recording: start, end, label and score, then the band.

    Parameters
    ----------
    parts : the recordings, some at a time
    folder : of the label tracks
    root : the folder that holds all recordings
    """
    names = recording_file_names(parts, root, ".txt")
    for part in parts():
        for _, entry in part:
            labels = ((*event[:4], f"{event[4]};{event[5]:.3f}") for event in entry.events)
            write_track(labels, folder / names[entry.path])


def recording_file_names(parts: Parts, root: Path, ending: str) -> dict[Location, str]:
    """The names of files per recording, laid out as the recordings are.

    Parameters
    ----------
    parts : the recordings, some at a time
    root : the folder that holds all recordings
    ending : of the names

    Returns
    -------
    names : path below the output folder, by the path of the recording; no two are the same file,
        also where upper and lower case are one
    """
    paths = [entry.path for part in parts() for _, entry in part]
    below = [_safe_path(path_below(path, root)) for path in paths]
    folders = {_file_key(str(folder)) for path in below for folder in path.parents}
    choices = []
    for path, file in zip(paths, below, strict=True):
        names = [f"{file.with_suffix('').name}{ending}", f"{file.name}{ending}"]
        free = [n for n in names if _fits(n) and _file_key(str(file.with_name(n))) not in folders]
        last = _cut_name(file.name, str(path), ending)
        choices.append([str(file.with_name(name)) for name in (*free, last)])
    keys = short_names([list(map(_file_key, names)) for names in choices])
    return {
        path: next(name for name in names if _file_key(name) == key)
        for path, names, key in zip(paths, choices, keys, strict=True)
    }


def _safe_path(path: Path) -> PurePosixPath:
    """The path in UTF-8, and without steps upwards, which the key of a remote object may have."""
    parts = ["_" if part == ".." else utf8_text(part) for part in path.parts]
    folders = [part if _fits(part) else _cut_name(part, part, "") for part in parts[:-1]]
    return PurePosixPath(*folders, parts[-1])


def _cut_name(name: str, path: str, ending: str) -> str:
    """A name that is no other path's, and that file systems allow."""
    digest = blake2b(path.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    end = f"~{digest}{ending}"
    return name.encode()[: LONGEST_NAME - len(end)].decode("utf-8", "ignore") + end


def _fits(name: str) -> bool:
    return len(name.encode()) <= LONGEST_NAME


def _file_key(name: str) -> str:
    """What two names have in common that are one file on some disks."""
    return unicodedata.normalize("NFC", name.casefold())


def write_kaleidoscope_events(parts: Parts, path: Path) -> None:
    """Write one table for Kaleidoscope; DATE and TIME are those of the start of the event.

    Parameters
    ----------
    parts : the recordings, some at a time
    path : replaced atomically
    """

    def row(entry: JournalEntry, event: EventRow) -> tuple[Any, ...]:
        start, stop, low, high, species, score, _ = event
        date, _, time = format_clock_time(entry, start).partition(" ")
        folder = entry.path.parent
        return (
            *(str(folder.parent), folder.name, entry.path.name),
            *(0, start, round(stop - start, 3)),
            *(low, high, date.replace("/", "-"), time, entry.site or "", species, score),
            *(entry.support.get(species, ""), ""),
        )

    write_event_rows(parts, path, KALEIDOSCOPE_COLUMNS, row)


TABLES: dict[str, tuple[str, Callable[[Parts, Path], None]]] = {  # of all recordings
    "csv": ("events.csv", write_csv_events),
    "parquet": ("events.parquet", write_parquet_events),
    "raven": ("events.raven.txt", write_raven_events),
    "kaleidoscope": ("events.kaleidoscope.csv", write_kaleidoscope_events),
}
FOLDERS: dict[str, tuple[str, Callable[[Parts, Path, Path], None]]] = {  # of a file per recording
    "raven": ("raven", write_raven_tables),
    "audacity": ("audacity", write_audacity_events),
}
FORMATS = ("csv", "parquet", "raven", "audacity", "kaleidoscope")


def write_events(parts: Parts, out: Path, formats: Iterable[str], root: Path) -> None:
    """Write the events in each of the formats.

    Parameters
    ----------
    parts : the recordings, some at a time
    out : the output folder
    formats : of :data:`FORMATS`; others are ignored
    root : the folder that holds all recordings
    """
    chosen = set(formats)
    for form, (name, write_table) in TABLES.items():
        if form in chosen:
            write_table(parts, out / name)
    for form, (name, write_folder) in FOLDERS.items():
        if form in chosen:
            write_folder(parts, out / name, root)


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
    parquet, table = (folder / TABLES[form][0] for form in ("parquet", "csv"))
    if folder.is_file():
        parquet = table = folder
    if parquet.is_file() and parquet.suffix == ".parquet":
        return _read_event_table(
            parquet, lambda: pd.read_parquet(parquet, page_checksum_verification=True)
        )
    if not table.is_file():
        raise UserError(
            "E_NO_EVENT_TABLE",
            f"{folder}: holds neither {table.name} nor {parquet.name}",
            "predict with --format csv",
        )
    # A species may be called NA: only cells of numbers may be missing.
    missing = {name: [""] for name in COLUMNS if name not in TEXT_COLUMNS}
    types = {name: str if name in TEXT_COLUMNS else float for name in COLUMNS}
    return _read_event_table(
        table,
        lambda: pd.read_csv(table, dtype=types, keep_default_na=False, na_values=missing),
    )


def _read_event_table(path: Path, read: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    remedy = "give events.csv as predict wrote it"
    try:
        table = read()
        for name in set(COLUMNS) & set(table.columns):
            if name not in TEXT_COLUMNS:
                table = table.astype({name: float})
            elif not table[name].fillna("").map(lambda cell: isinstance(cell, str)).all():
                raise ValueError(f"column {name} holds no text")
    except Exception as error:  # such as a cell that is no number; Parquet fails in many ways
        reason = cut_name(" ".join(str(error).split()), 100)
        raise UserError(
            "E_EVENT_TABLE", f"{path}: this is no table of events ({reason})", remedy
        ) from error
    later = (
        "site",
        "clock_time",
        "support",
        "verdict",
    )  # columns that earlier versions did not write
    table = table.assign(**{name: "" for name in later if name not in table.columns})
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise UserError("E_EVENT_TABLE", f"{path}: there is no column {missing[0]!r}", remedy)
    return table[list(COLUMNS)]


def _without_line_ends(path: str) -> str:
    """The path with blanks for tabs and line ends, which Raven's tables cannot hold."""
    return " ".join(re.split(r"[\t\r\n]", utf8_text(path)))


def format_clock_time(entry: JournalEntry, start: float) -> str:
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
    >>> entry = JournalEntry(Path("a.wav"), (1, 1), recorded_at="2025-01-01T23:59:59")
    >>> format_clock_time(entry, 1.5)
    '2025/01/02 00:00:00.500'
    """
    moment = entry.clock_time(start)
    if moment is None:
        return ""
    return moment.strftime("%Y/%m/%d %H:%M:%S.") + f"{moment.microsecond // 1000:03}"
