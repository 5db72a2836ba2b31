"""Annotations in and out: one file for each format, recognised by what is in it.

- A table is known by its column names, in any order and beside any other columns; Audacity's
  labels, which have no header, by their shape; folders and zips by the files in them.
- A folder that is none of the packets is read as one table for each recording (Raven and
  Audacity work that way): every .txt, .csv and .tsv in it. What is no annotation table is
  reported, and the folder is a mistake only if nothing in it is one.
- ``Annotation.recording`` stays as the table writes it. Which sound file that is, is asked
  where the recordings are known.
"""

import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from antpitta.core.errors import Finding, UserError
from antpitta.core.types import Annotation
from antpitta.files.formats import arbimon_folders, arbimon_writing
from antpitta.files.formats.arbimon import ARBIMON
from antpitta.files.formats.audacity import AUDACITY, looks_like_labels
from antpitta.files.formats.birdnet import BIRDNET, BIRDNET_REVIEW, is_review
from antpitta.files.formats.hoplite import HOPLITE
from antpitta.files.formats.own import OWN
from antpitta.files.formats.raven import RAVEN
from antpitta.files.formats.rfcx import RFCX
from antpitta.files.formats.sheet import (
    AnnotationTable,
    TableFormat,
    has,
    join_tables,
    nearest,
    plain,
)
from antpitta.files.tables import read_frame
from antpitta.files.texts import read_text

__all__ = ["FORMATS", "AnnotationTable", "TableFormat", "read_table", "write_table"]

ARBIMON_JOBS = TableFormat(
    "arbimon_jobs",
    arbimon_folders.JOB_NEEDS,
    lambda header: has(header, arbimon_folders.JOB_NEEDS),
    arbimon_folders.read_jobs,
    arbimon_writing.write_jobs,
)
ARBIMON_BACKUP = TableFormat(
    "arbimon_backup",
    arbimon_folders.ROI_NEEDS,
    lambda header: has(header, arbimon_folders.ROI_NEEDS),
    arbimon_folders.read_backup,
    arbimon_writing.write_backup,
)
# In the order of asking: BirdNET's Raven-like table is one of Raven's with more in it.
FORMATS: dict[str, TableFormat] = {
    format.name: format
    for format in (
        *(OWN, RFCX, ARBIMON, ARBIMON_JOBS, ARBIMON_BACKUP, HOPLITE),
        *(BIRDNET, RAVEN, AUDACITY, BIRDNET_REVIEW),
    )
}
_TABLES = {".txt", ".csv", ".tsv"}


def read_table(path: Path, verdict: bool | None = None) -> AnnotationTable:
    """Reads whatever annotations lie at ``path``.

    ``verdict`` is what the user says of the whole table, for formats that do not say it row
    by row. Raises UserError for what is no annotation table, lacks a column or a verdict.
    """
    if path.is_dir():
        return _read_folder(path, verdict)
    if not path.exists():
        raise UserError("E_TODO", f"{path}: there is no such file", "check the path")
    if path.suffix.lower() == ".zip":
        return _read_zip(path, verdict)
    return _format_of(path).read(path, verdict)


def write_table(
    annotations: Iterable[Annotation], path: Path, format: str, **context: object
) -> None:
    """Writes the annotations in one step, as far as the format can carry them.

    ``context`` goes to the format: ``verdict`` picks one where the format has no word for it
    (rfcx, audacity). Only "antpitta" carries every field.
    """
    if format not in FORMATS:
        raise UserError("E_TODO", f"no format {format!r}", f"give one of {', '.join(FORMATS)}")
    FORMATS[format].write(tuple(annotations), path, **context)


def _format_of(path: Path) -> TableFormat:
    if looks_like_labels(read_text(path)):
        return AUDACITY
    header = [str(name) for name in read_frame(path).columns]
    for format in FORMATS.values():
        if format.recognises(header):
            return format
    raise UserError("E_TODO", _unrecognised(path, header))


def _unrecognised(path: Path, header: list[str]) -> str:
    """What is missing, where a format is near; else what was seen and what is known."""
    if has(header, ("file", "start_time", "end_time", "species", "model")):
        return f"{path}: a model's events, not a listener's annotations; review them first"
    seen = set(map(plain, header))
    for format in sorted(FORMATS.values(), key=lambda format: _missing(format, seen)):
        missing = [name for name in format.needs if plain(name) not in seen]
        if format.needs and 2 * len(missing) <= len(format.needs):
            return (
                f"{path}: no column {missing[0]!r} {nearest(missing[0], header)};"
                f" rename the column, the rest looks like {format.name}"
            )
    return (
        f"{path}: no known annotation table; its columns are {', '.join(header)};"
        f" known are {', '.join(FORMATS)}"
    )


def _missing(format: TableFormat, seen: set[str]) -> float:
    """The share of a format's columns that is missing."""
    needs = set(map(plain, format.needs))
    return len(needs - seen) / max(len(needs), 1)


def _read_folder(path: Path, verdict: bool | None) -> AnnotationTable:
    if arbimon_folders.is_backup(path):
        return ARBIMON_BACKUP.read(path, verdict)
    if arbimon_folders.is_jobs(path):
        return ARBIMON_JOBS.read(path, verdict)
    if is_review(path):
        return BIRDNET_REVIEW.read(path, verdict)
    tables, strangers = [], []
    for file in sorted(p for p in path.rglob("*") if p.suffix.lower() in _TABLES):
        if file.name.startswith("."):
            continue
        try:
            format = _format_of(file)
        except UserError as mistake:
            remedy = "move it out of the folder, or mend it"
            strangers.append(
                Finding("E_TODO", str(file), None, f"not read ({mistake})", remedy, False)
            )
            continue
        tables.append(format.read(file, verdict))
    if not tables:
        raise UserError(
            "E_TODO",
            f"{path}: no annotation table in this folder",
            f"known are {', '.join(FORMATS)}",
        )
    whole = join_tables(tables, path, "+".join(dict.fromkeys(table.format for table in tables)))
    return replace(whole, findings=(*whole.findings, *strangers))


def _read_zip(path: Path, verdict: bool | None) -> AnnotationTable:
    """Reads a zip as the folder it holds; what is found is named after the zip."""
    with tempfile.TemporaryDirectory() as place:
        try:
            with zipfile.ZipFile(path) as archive:
                names = [n for n in archive.namelist() if not n.startswith("__MACOSX/")]
                archive.extractall(place, names)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as trouble:
            raise UserError(
                "E_TODO", f"{path}: cannot be unpacked ({trouble})", "download it again"
            ) from trouble
        try:
            table = _read_folder(Path(place), verdict)
        except UserError as mistake:
            raise UserError("E_TODO", str(mistake).replace(place, str(path))) from mistake
    findings = (replace(f, file=f.file.replace(place, str(path))) for f in table.findings)
    return replace(table, path=path, findings=tuple(findings))
