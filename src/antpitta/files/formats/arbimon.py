"""Arbimon's tables: the export of a pattern matching, the zip of jobs, and a project's backup.

- The **export** has one row per match, ``validated`` by an expert or not yet. Times are seconds
  (``x1``, ``x2``), frequencies Hz (``y1``, ``y2``); ``frequency`` is only the Nyquist frequency.
- The **zip of jobs** has ``_pattern_matching.csv`` (the species of each job) and for each job
  ``pm_<name>_<job id>.csv``, with ``---`` in empty cells. It names recordings by number; the
  file's name is in ``audio_url`` where that ends in one.
- The **backup** has ``pattern_matching_rois.NNNN.csv`` in parts, and tables of species,
  recordings and sites with their numbers. The uploaded file's name is in the recording's
  ``meta``, else in its path. A number that no table explains is reported: the number itself as
  species would be a new species.
- Where the name of a recording occurs at several sites, the site goes before it like a folder.

A long upload is stored as slices of a minute. Each row repeats the name of the uploaded file, but
its times begin at its own slice, and only the row's date, hour and minute say which slice that
is. So a box is moved by (the row's time - the start in the file's name):

- The export has no seconds. A file that began at 05:30:12 has slices at 05:30:12, 05:31:12, ...,
  listed as 05:30, 05:31, ...: the seconds of the name are dropped before the subtraction, which
  keeps whole minutes, and that is reported. The zip and the backup have times to the second.
- A row before the start of its file has crossed midnight (a table may repeat the file's own
  date) if that puts it less than twelve hours in. Else its clock is another one (a time zone),
  and the row is left out rather than put in a wrong place.
- A name without a time cannot place slices. If all its rows are of one minute, it is taken as
  one recording that begins there; if not, the file was sliced and its rows are left out.
"""

import json
import re
from collections.abc import Container, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd

from antpitta.core.errors import UserError
from antpitta.files.formats.columns import has_columns
from antpitta.files.formats.sheet import (
    AnnotationTable,
    GivenVerdict,
    Sheet,
    TableFormat,
    join_tables,
)
from antpitta.files.recording_metadata import base_name, metadata_from_name
from antpitta.files.tables import read_cells

EXPORT_COLUMNS = ("recording", "species", "x1", "x2", "y1", "y2", "validated")
JOB_COLUMNS = ("x1", "y1", "x2", "y2", "validated", "recording_id", "recording_local_time")
BACKUP_COLUMNS = ("pattern_matching_id", "recording_id", "species_id", "x1", "x2", "validated")
JOBS = "_pattern_matching.csv"
_JOB_FILE = re.compile(r"pm_.*?_?(\d+)\.csv", re.IGNORECASE)
_BACKUP_TABLES = ("pattern_matching_rois", "species", "recordings", "sites")
_BACKUP_FILE = re.compile(rf"({'|'.join(_BACKUP_TABLES)})([._-]\d+)?\.csv", re.IGNORECASE)
_AUDIO_FILE = re.compile(r".+\.(wav|flac|mp3|ogg|opus|aif|aiff|m4a)", re.IGNORECASE)
_HALF_DAY, _DAY, _HOUR = 43_200.0, 86_400.0, 3_600.0


def read_export(path: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read the export of a pattern matching.

    Parameters
    ----------
    path : file of the table
    verdict : of the whole table, or None where the user gave none

    Returns
    -------
    table : annotations, their lines, and findings
    """
    sheet = Sheet("arbimon", path, read_cells(path))
    recording = _add_site(sheet.text("recording"), sheet.text("site", "site_id", empty=""))
    return _to_table(
        sheet,
        recording,
        _slice_starts(sheet, recording, _export_times(sheet, recording), to_the_minute=True),
        sheet.text("species"),
        sheet.text("songtype", empty=""),
        verdict,
    )


def is_jobs_folder(folder: Path) -> bool:
    """Whether the folder holds the tables of the zip of jobs.

    Parameters
    ----------
    folder : to look into

    Returns
    -------
    answer : True or False
    """
    files = _list_tables(folder)
    return any(_JOB_FILE.fullmatch(file.name) or file.name == JOBS for file in files)


def read_jobs(path: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read the unpacked zip of jobs, or the table of one job.

    Parameters
    ----------
    path : folder of the unpacked zip, or the table of one job
    verdict : of the whole table, or None where the user gave none

    Returns
    -------
    table : annotations, their lines, and findings

    Raises
    ------
    UserError
        E_NO_FILE: the table that names the species is not beside the others.
    """
    folder = path if path.is_dir() else path.parent
    summaries = [file for file in _list_tables(folder) if file.name == JOBS]
    if not summaries:
        raise UserError(
            "E_NO_FILE",
            f"{path}: {JOBS}, which names the species of the jobs, is missing",
            "put it in the same folder",
        )
    sheet = Sheet("arbimon_jobs", summaries[0], read_cells(summaries[0]))
    jobs, songs = sheet.text("job_id"), sheet.text("songtype", empty="")
    species = dict(zip(jobs, sheet.text("scientific_name"), strict=True))
    songtypes = dict(zip(jobs, songs, strict=True))
    tables = []
    for file in [path] if path.is_file() else _list_tables(folder):
        if match := _JOB_FILE.fullmatch(file.name):
            job = match[1]
            tables.append(_read_job(file, species.get(job), songtypes.get(job, ""), verdict))
    return join_tables(tables, path, "arbimon_jobs")


def _read_job(
    path: Path, species: str | None, songtype: str, verdict: GivenVerdict
) -> AnnotationTable:
    sheet = Sheet("arbimon_jobs", path, read_cells(path))
    if species is None:
        sheet.add_finding(
            "W_UNKNOWN_ID",
            f"its job is not in {JOBS}, so its {len(sheet)} rows are left out",
            f"add the job to {JOBS}",
            serious=True,
        )
        sheet.drop_rows(np.ones(len(sheet), dtype=bool))
    numbers = sheet.text("recording_id")
    files = [_file_of_url(url) for url in sheet.text("audio_url", empty="")]
    recording = np.array(
        [
            file if _AUDIO_FILE.fullmatch(file) else number
            for file, number in zip(files, numbers, strict=True)
        ],
        dtype=object,
    )
    recording = _add_site(recording, sheet.text("site_name", "site_id", empty=""))
    times = _parse_times(sheet.text("recording_local_time", empty=""))
    return _to_table(
        sheet,
        recording,
        _slice_starts(sheet, recording, times, to_the_minute=False),
        np.full(len(sheet), _or_empty(species or ""), dtype=object),
        np.full(len(sheet), _or_empty(songtype), dtype=object),
        verdict,
    )


def _file_of_url(url: str) -> str:
    """The name of the file at the end of a URL; "" where it is none."""
    try:
        return base_name(unquote(urlsplit(url).path))
    except ValueError:  # such as a host in brackets that is no address
        return ""


def is_backup_folder(folder: Path) -> bool:
    """Whether the folder holds the matches of a project's backup.

    Parameters
    ----------
    folder : to look into

    Returns
    -------
    answer : True or False
    """
    return bool(_list_backup(folder)["pattern_matching_rois"])


def read_backup(path: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read the backup's folder, or one part of its matches with the other tables beside it.

    Parameters
    ----------
    path : folder of the backup, or one part of its matches
    verdict : of the whole table, or None where the user gave none

    Returns
    -------
    table : annotations, their lines, and findings
    """
    files = _list_backup(path if path.is_dir() else path.parent)
    species, songtypes = _read_species(files["species"])
    recordings = _read_recordings(files["recordings"])
    sites = _read_lookup(files["sites"], "site_id", "name")
    tables = []
    for part in files["pattern_matching_rois"] if path.is_dir() else [path]:
        sheet = Sheet("arbimon_backup", part, read_cells(part))
        recording_ids, species_ids = sheet.text("recording_id"), sheet.text("species_id")
        _reject_unknown_ids(sheet, recording_ids, recordings, "recording")
        _reject_unknown_ids(sheet, species_ids, species, "species")
        rows = [recordings.get(id, ("", "", "")) for id in recording_ids]
        names, site_ids, times = (np.array([row[k] for row in rows], object) for k in range(3))
        site = np.array([sites.get(id, id) for id in site_ids], dtype=object)
        recording = _add_site(names, site)
        tables.append(
            _to_table(
                sheet,
                recording,
                _slice_starts(sheet, recording, _parse_times(times), to_the_minute=False),
                np.array([species.get(id, "") for id in species_ids], dtype=object),
                np.array(
                    [
                        _or_empty(songtypes.get(id, id))
                        for id in sheet.text("songtype_id", empty="")
                    ],
                    dtype=object,
                ),
                verdict,
            )
        )
    return join_tables(tables, path, "arbimon_backup")


def _to_table(
    sheet: Sheet,
    recording: np.ndarray,
    slice_start: np.ndarray,
    label: np.ndarray,
    songtype: np.ndarray,
    verdict: GivenVerdict,
) -> AnnotationTable:
    """The boxes, moved from their slices to the clock of their file."""
    return sheet.to_table(
        recording=recording,
        start=slice_start + sheet.numbers("x1"),
        stop=slice_start + sheet.numbers("x2"),
        label=label,
        verdicts=sheet.parse_verdicts(verdict, "validated"),
        low=sheet.numbers("y1", empty=0.0),
        high=sheet.numbers("y2", empty=np.inf),
        songtype=songtype,
        score=sheet.numbers("score", empty=np.nan),
    )


def _add_site(recording: np.ndarray, site: np.ndarray) -> np.ndarray:
    """``site/recording`` where the name of a recording occurs at several sites."""
    counts = pd.Series(site).groupby(recording).transform("nunique").to_numpy()
    rows = zip(recording, site, counts, strict=True)
    return np.array([f"{s}/{r}" if n > 1 and s else r for r, s, n in rows], dtype=object)


def _reject_unknown_ids(
    sheet: Sheet, ids: np.ndarray, table_ids: Container[str], table: str
) -> None:
    sheet.reject_rows(
        "W_UNKNOWN_ID",
        np.array([id not in table_ids for id in ids], dtype=bool),
        lambda i: f"{table} {ids[i]} is not in the backup's tables",
        f"add the {table} table of the same backup",
    )


def _export_times(sheet: Sheet, recording: np.ndarray) -> pd.Series:
    """Each row's time to the minute; a row without a date takes that of its file's name."""
    date = {part: sheet.numbers(part, empty=np.nan) for part in ("year", "month", "day")}
    days = pd.to_datetime(pd.DataFrame(date), errors="coerce").astype("datetime64[us]")
    days = days.fillna(file_starts(recording).dt.normalize())
    hour = sheet.numbers("hour", empty=np.nan)
    minute = sheet.numbers("minute", "min", empty=np.nan)
    outside = (hour < 0) | (hour >= 24) | (minute < 0) | (minute >= 60)  # False for NaN
    sheet.reject_rows(
        "W_SLICE_CLOCK",
        outside,
        lambda i: f"{hour[i]:g} h {minute[i]:g} min is no time of day",
        "correct hour and minute",
    )
    minutes = pd.Series(np.where(outside, np.nan, hour * 60 + minute))
    return days + pd.to_timedelta(minutes, unit="min")


def file_starts(recording: np.ndarray) -> pd.Series:
    """When each file began, by the clock of its name; NaT where the name has no time.

    Parameters
    ----------
    recording : (rows,), names of files

    Returns
    -------
    starts : (rows,), times without a zone
    """
    starts = {}
    for name in set(recording):
        recorded_at = metadata_from_name(name).recorded_at
        starts[name] = recorded_at and recorded_at.replace(tzinfo=None)
    return pd.to_datetime(pd.Series(recording).map(starts)).astype("datetime64[us]")


def _slice_starts(
    sheet: Sheet, recording: np.ndarray, times: pd.Series, to_the_minute: bool
) -> np.ndarray:
    """Where each row's slice begins (rows,), in seconds from the start of its file.

    ``times`` are those of the rows, NaT for none. Rows without a time are not moved.
    """
    times = pd.to_datetime(times.reset_index(drop=True)).astype("datetime64[us]")
    names, starts = pd.Series(recording), file_starts(recording)
    between_minutes = starts.dt.second.to_numpy() > 0
    if to_the_minute:
        starts = starts.dt.floor("min")
    shift = (times - starts).dt.total_seconds().to_numpy()
    shift = np.where((shift < 0) & (shift + _DAY < _HALF_DAY), shift + _DAY, shift)
    sheet.reject_rows(
        "W_SLICE_CLOCK",
        (shift < 0) | (shift >= _DAY),
        lambda i: f"the row's time {times[i]} is not in {names[i]}",
        "bring the file's name and the row to one time zone",
    )
    if to_the_minute:
        _report_recordings(
            sheet,
            names[between_minutes & (shift > 0)],
            "{} began between two minutes, and the table has whole minutes: slices are taken to"
            " follow every 60 s from the start of the file",
            "compare one box with the sound",
        )
    _report_doubtful_slices(sheet, names, times, starts, shift)
    return np.where(np.isnan(shift), 0.0, shift)


def _report_doubtful_slices(
    sheet: Sheet, names: pd.Series, times: pd.Series, starts: pd.Series, shift: np.ndarray
) -> None:
    """Reject rows that no time can place, and report those that are placed by an assumption."""
    no_start = starts.isna() & times.notna()
    minutes = times.where(no_start).groupby(names).transform("nunique")
    sliced = (no_start & (minutes > 1)).to_numpy()
    sheet.reject_rows(
        "W_SLICE_CLOCK",
        sliced,
        lambda i: f"{names[i]} was sliced into minutes, and its name has no start time",
        "put the start into the name, like site_20210315_053000.wav, here and in the audio",
    )
    _report_recordings(
        sheet,
        names[no_start & ~sliced],
        "{} without a time in the name and with rows of one minute only: taken as whole, not as"
        " a slice",
        "check that they are at most a minute long",
    )
    _report_recordings(
        sheet,
        names[starts.notna() & times.isna()],
        "{} with rows without a time: their boxes are taken as seconds from the file's start",
        "fill in hour and minute",
    )
    _report_recordings(
        sheet,
        names[np.nan_to_num(shift % 60.0) > 0],
        "{} with slices that do not begin whole minutes into the file: moved by the row's time",
        "compare one box with the sound",
    )
    if len(shift) and np.nanmin(shift, initial=np.inf) >= _HOUR and not np.isnan(shift).all():
        sheet.add_finding(
            "W_SLICE_ASSUMED",
            "every row lies an hour or more into its file: names and rows may be in two time zones",
            "compare one box with the sound",
        )


def _report_recordings(sheet: Sheet, names: pd.Series, what: str, remedy: str) -> None:
    """One finding about all these recordings, which names the first."""
    if count := names.nunique():
        recordings = f"{count} recording(s), such as {names.iloc[0]},"
        sheet.add_finding("W_SLICE_ASSUMED", what.format(recordings), remedy)


def _parse_times(cells: Sequence[str] | np.ndarray) -> pd.Series:
    """Local times; a time that is written as UTC is the local time all the same."""
    texts = pd.Series(cells, dtype=object)
    epoch = texts.str.fullmatch(r"\d{12,13}")  # milliseconds since 1970
    clean = texts.str.replace(r"(\.\d+)?(Z|[+-]\d\d:?\d\d)$", "", regex=True)
    times = pd.to_datetime(clean.where(~epoch), errors="coerce", format="ISO8601")
    from_epoch = pd.to_datetime(pd.to_numeric(texts.where(epoch)), unit="ms")
    return times.astype("datetime64[us]").fillna(from_epoch.astype("datetime64[us]"))


def _or_empty(cell: str) -> str:
    return "" if cell == "---" else cell


def _list_tables(folder: Path) -> list[Path]:
    files = [*folder.glob("*.csv"), *folder.glob("*/*.csv")]
    return sorted(file for file in files if "__MACOSX" not in file.parts)


def _list_backup(folder: Path) -> dict[str, list[Path]]:
    """The backup's files by the table that they are a part of."""
    parts: dict[str, list[Path]] = {table: [] for table in _BACKUP_TABLES}
    for file in _list_tables(folder):
        if match := _BACKUP_FILE.fullmatch(file.name):
            parts[match[1].lower()].append(file)
    return parts


def _read_lookup(files: Sequence[Path], key: str, value: str) -> dict[str, str]:
    lookup: dict[str, str] = {}
    for file in files:
        sheet = Sheet("arbimon_backup", file, read_cells(file))
        lookup |= dict(zip(sheet.text(key), sheet.text(value, empty=""), strict=True))
    return lookup


def _read_species(files: Sequence[Path]) -> tuple[dict[str, str], dict[str, str]]:
    """Species and song types by their numbers."""
    species = _read_lookup(files, "species_id", "scientific_name")
    songtypes: dict[str, str] = {}
    for file in files:
        header = [str(name) for name in read_cells(file).columns]
        if has_columns(header, ("songtype_id", "songtype")):
            songtypes |= _read_lookup([file], "songtype_id", "songtype")
    return species, songtypes


def _read_recordings(files: Sequence[Path]) -> dict[str, tuple[str, str, str]]:
    """Name, site number and local time of each recording, by its number."""
    recordings: dict[str, tuple[str, str, str]] = {}
    for file in files:
        sheet = Sheet("arbimon_backup", file, read_cells(file))
        paths, metas = sheet.text("path", "uri", empty=""), sheet.text("meta", empty="")
        names = [_uploaded_name(m) or base_name(p) for p, m in zip(paths, metas, strict=True)]
        sites, times = sheet.text("site_id", empty=""), sheet.text("datetime", empty="")
        rows = zip(sheet.text("recording_id"), names, sites, times, strict=True)
        recordings |= {id: (name or id, site, time) for id, name, site, time in rows}
    return recordings


def _uploaded_name(meta: str) -> str:
    """The uploaded file's name from the JSON in a recording's ``meta``, or ""."""
    try:
        fields = json.loads(meta or "null")
    except ValueError:
        return ""
    return str(fields.get("filename") or "") if isinstance(fields, dict) else ""


ARBIMON = TableFormat(
    "arbimon", EXPORT_COLUMNS, lambda header: has_columns(header, EXPORT_COLUMNS), read_export
)
ARBIMON_JOBS = TableFormat(
    "arbimon_jobs", JOB_COLUMNS, lambda header: has_columns(header, JOB_COLUMNS), read_jobs
)
ARBIMON_BACKUP = TableFormat(
    "arbimon_backup",
    BACKUP_COLUMNS,
    lambda header: has_columns(header, BACKUP_COLUMNS),
    read_backup,
)
