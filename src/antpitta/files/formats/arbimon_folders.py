"""Arbimon's two packets of tables: the e-mailed zip of matching jobs, and the project's backup.

- The zip has ``_pattern_matching.csv`` (which job looked for which species) and for each job
  ``pm_<name>_<job id>.csv``, ``---`` where a cell is empty. It names recordings by number; the
  file's name is in ``audio_url`` where that ends in one.
- The backup has ``pattern_matching_rois.NNNN.csv`` in parts, and species, recordings and sites
  with their numbers. The uploaded file's name is in the recording's ``meta``, else its path.
- Both tell a slice's time to the second, so boxes go back on the upload's clock (slices.py).
- What a number points to and is not there is reported: a species by its number would be
  another species.
"""

import json
import re
from collections.abc import Container, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd

from antpitta.core.errors import UserError
from antpitta.files.filenames import base_name
from antpitta.files.formats.arbimon import with_site
from antpitta.files.formats.sheet import AnnotationTable, Sheet, has, join_tables
from antpitta.files.formats.slices import slice_starts
from antpitta.files.tables import read_frame

JOB_NEEDS = ("x1", "y1", "x2", "y2", "validated", "recording_id", "recording_local_time")
ROI_NEEDS = ("pattern_matching_id", "recording_id", "species_id", "x1", "x2", "validated")
JOBS = "_pattern_matching.csv"
_JOB = re.compile(r"pm_.*?_?(\d+)\.csv", re.IGNORECASE)
_PART = re.compile(r"(pattern_matching_rois|species|recordings|sites)([._-]\d+)?\.csv", re.I)
_AUDIO = re.compile(r".+\.(wav|flac|mp3|ogg|opus|aif|aiff|m4a)", re.IGNORECASE)


def is_jobs(folder: Path) -> bool:
    return any(_JOB.fullmatch(file.name) or file.name == JOBS for file in _tables(folder))


def is_backup(folder: Path) -> bool:
    return bool(_parts(folder)["pattern_matching_rois"])


def read_jobs(path: Path, verdict: bool | None = None) -> AnnotationTable:
    """The unpacked folder, or one job's table with ``_pattern_matching.csv`` beside it."""
    folder = path if path.is_dir() else path.parent
    named = [file for file in _tables(folder) if file.name == JOBS]
    if not named:
        raise UserError(
            "E_TODO", f"{path}: {JOBS}, which names the species, is missing", "put it beside"
        )
    jobs = read_frame(named[0])
    told = Sheet("arbimon_jobs", named[0], jobs)
    species = dict(zip(told.text("job_id"), told.text("scientific_name"), strict=True))
    songtype = dict(zip(told.text("job_id"), told.text("songtype", empty=""), strict=True))
    tables = []
    for file in [path] if path.is_file() else _tables(folder):
        if found := _JOB.fullmatch(file.name):
            tables.append(
                _read_job(file, species.get(found[1]), songtype.get(found[1], ""), verdict)
            )
    return join_tables(tables, path, "arbimon_jobs")


def _read_job(
    path: Path, species: str | None, songtype: str, verdict: bool | None
) -> AnnotationTable:
    sheet = Sheet("arbimon_jobs", path, read_frame(path))
    if species is None:
        sheet.note(
            f"{JOBS} does not name its job: its {len(sheet)} rows are left out",
            f"add the job to {JOBS}",
            serious=True,
        )
        sheet.leave_out(np.ones(len(sheet), dtype=bool))
    numbers = sheet.text("recording_id")
    files = [base_name(unquote(urlsplit(url).path)) for url in sheet.text("audio_url", empty="")]
    recording = np.array(
        [file if _AUDIO.fullmatch(file) else r for file, r in zip(files, numbers, strict=True)],
        dtype=object,
    )
    recording = with_site(recording, sheet.text("site_name", "site_id", empty=""))
    return _boxes(
        sheet,
        recording,
        _moments(sheet.text("recording_local_time", empty="")),
        np.full(len(sheet), _filled(species or ""), dtype=object),
        np.full(len(sheet), _filled(songtype), dtype=object),
        verdict,
    )


def read_backup(path: Path, verdict: bool | None = None) -> AnnotationTable:
    """The backup's folder, or one part of its matches with the other tables beside it."""
    parts = _parts(path if path.is_dir() else path.parent)
    species, songs = _names(parts["species"])
    recordings = _recordings(parts["recordings"])
    sites = _lookup(parts["sites"], "site_id", "name")
    rois = parts["pattern_matching_rois"] if path.is_dir() else [path]
    tables = []
    for part in rois:
        sheet = Sheet("arbimon_backup", part, read_frame(part))
        numbers, kinds = sheet.text("recording_id"), sheet.text("species_id")
        _check_known(sheet, numbers, recordings, "recording")
        _check_known(sheet, kinds, species, "species")
        told = [recordings.get(i, ("", "", "")) for i in numbers]
        names, places, times = (np.array([t[k] for t in told], dtype=object) for k in range(3))
        where = np.array([sites.get(place, place) for place in places], dtype=object)
        songtype = sheet.text("songtype_id", empty="")
        tables.append(
            _boxes(
                sheet,
                with_site(names, where),
                _moments(times),
                np.array([species.get(i, "") for i in kinds], dtype=object),
                np.array([_filled(songs.get(i, i)) for i in songtype], dtype=object),
                verdict,
            )
        )
    return join_tables(tables, path, "arbimon_backup")


def _check_known(sheet: Sheet, numbers: np.ndarray, known: Container[str], what: str) -> None:
    sheet.complain(
        np.array([number not in known for number in numbers], dtype=bool),
        lambda i: f"{what} {numbers[i]} is not in the backup's tables",
        f"add the {what} table of the same backup",
    )


def _boxes(
    sheet: Sheet,
    recording: np.ndarray,
    moment: pd.Series,
    label: np.ndarray,
    songtype: np.ndarray,
    verdict: bool | None,
) -> AnnotationTable:
    shift = slice_starts(sheet, recording, moment, to_the_minute=False)
    return sheet.table(
        recording=recording,
        start=shift + sheet.numbers("x1"),
        stop=shift + sheet.numbers("x2"),
        label=label,
        judged=sheet.judged(verdict, "validated"),
        low=sheet.numbers("y1", empty=0.0),
        high=sheet.numbers("y2", empty=np.inf),
        songtype=songtype,
        score=sheet.numbers("score", empty=np.nan),
    )


def _moments(cells: Sequence[str] | np.ndarray) -> pd.Series:
    """Local times; what looks like one in UTC is the local time all the same."""
    texts = pd.Series(cells, dtype=object)
    epoch = texts.str.fullmatch(r"\d{12,13}")  # milliseconds, as the zip's writer leaves dates
    clean = texts.str.replace(r"(\.\d+)?(Z|[+-]\d\d:?\d\d)$", "", regex=True)
    when = pd.to_datetime(clean.where(~epoch), errors="coerce", format="ISO8601")
    millis = pd.to_datetime(pd.to_numeric(texts.where(epoch)), unit="ms")
    return when.astype("datetime64[us]").fillna(millis.astype("datetime64[us]"))


def _filled(cell: str) -> str:
    return "" if cell == "---" else cell


def _tables(folder: Path) -> list[Path]:
    found = [*folder.glob("*.csv"), *folder.glob("*/*.csv")]
    return sorted(file for file in found if "__MACOSX" not in file.parts)


def _parts(folder: Path) -> dict[str, list[Path]]:
    """The backup's files by the table that they are a part of."""
    parts: dict[str, list[Path]] = {
        kind: [] for kind in ("pattern_matching_rois", "species", "recordings", "sites")
    }
    for file in _tables(folder):
        if told := _PART.fullmatch(file.name):
            parts[told[1].lower()].append(file)
    return parts


def _lookup(files: Sequence[Path], key: str, value: str) -> dict[str, str]:
    known: dict[str, str] = {}
    for file in files:
        sheet = Sheet("arbimon_backup", file, read_frame(file))
        known |= dict(zip(sheet.text(key), sheet.text(value, empty=""), strict=True))
    return known


def _names(files: Sequence[Path]) -> tuple[dict[str, str], dict[str, str]]:
    """Species and song types by their numbers."""
    species = _lookup(files, "species_id", "scientific_name")
    songs: dict[str, str] = {}
    for file in files:
        if has([str(name) for name in read_frame(file).columns], ("songtype_id", "songtype")):
            songs |= _lookup([file], "songtype_id", "songtype")
    return species, songs


def _recordings(files: Sequence[Path]) -> dict[str, tuple[str, str, str]]:
    """Name, site number and local time of each recording, by its number."""
    known: dict[str, tuple[str, str, str]] = {}
    for file in files:
        sheet = Sheet("arbimon_backup", file, read_frame(file))
        ids = sheet.text("recording_id")
        paths, metas = sheet.text("path", "uri", empty=""), sheet.text("meta", empty="")
        names = [_uploaded(m) or base_name(p) for p, m in zip(paths, metas, strict=True)]
        sites, times = sheet.text("site_id", empty=""), sheet.text("datetime", empty="")
        rows = zip(ids, names, sites, times, strict=True)
        known |= {i: (name or i, site, time) for i, name, site, time in rows}
    return known


def _uploaded(meta: str) -> str:
    """The uploaded file's name out of a recording's notes, or "" where they have none."""
    try:
        told = json.loads(meta or "null")
    except ValueError:
        return ""
    return str(told.get("filename") or "") if isinstance(told, dict) else ""
