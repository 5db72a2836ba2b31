"""Readers of annotations: one TableFormat for each format, recognised by its content.

- A table is known by its column names, in any order and beside any others; Audacity's labels,
  which have no header, by their shape; folders and zips by the files in them.
- Any other folder is read as one table per recording (Raven and Audacity work that way): every
  .txt, .csv and .tsv file in it. A file whose header is not one of a table of annotations is
  reported. A table that cannot be read is a serious finding; it is an error if there is no other.
- ``Annotation.recording`` stays as the table writes it. ``files/matching.py`` finds the recording.
"""

import re
import tempfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

from antpitta.core.errors import Finding, UserError, cut_name, list_names
from antpitta.files.formats.arbimon import (
    ARBIMON,
    ARBIMON_BACKUP,
    ARBIMON_JOBS,
    is_backup_folder,
    is_jobs_folder,
)
from antpitta.files.formats.audacity import AUDACITY, is_label_track
from antpitta.files.formats.birdnet import BIRDNET, BIRDNET_REVIEW, is_review_folder
from antpitta.files.formats.clips import CLIPS, is_clip_folder
from antpitta.files.formats.columns import (
    has_columns,
    nearest_column,
    normalize_column,
)
from antpitta.files.formats.csv_tables import HOPLITE, OWN, RFCX
from antpitta.files.formats.kaleidoscope import KALEIDOSCOPE
from antpitta.files.formats.raven import RAVEN
from antpitta.files.formats.sheet import AnnotationTable, GivenVerdict, TableFormat, join_tables
from antpitta.files.tables import read_header
from antpitta.files.texts import LARGEST_TEXT, path_exists, read_text

__all__ = ["FORMATS", "AnnotationTable", "TableFormat", "read_table"]

# The first that matches is taken: BirdNET's table for Raven is one of Raven's with more columns.
FORMATS: dict[str, TableFormat] = {
    format.name: format
    for format in (
        *(OWN, RFCX, ARBIMON, ARBIMON_JOBS, ARBIMON_BACKUP, HOPLITE),
        *(KALEIDOSCOPE, BIRDNET, RAVEN, AUDACITY, BIRDNET_REVIEW, CLIPS),
    )
}
_TABLE_SUFFIXES = {".txt", ".csv", ".tsv"}
_NO_TABLE = {"E_UNKNOWN_TABLE", "E_TABLE_EMPTY"}
_LINE = re.compile(r"(\d+): (.*)", re.DOTALL)
_MOST_MEMBERS = 200_000  # files in a zip
_MODEL_COLUMNS = ("file", "start_time", "end_time", "species", "model")


def read_table(path: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read the annotations in a file, folder or zip, whatever their format.

    Parameters
    ----------
    path : table, folder of tables, or zip
    verdict : present or absent for the whole table, where the format has no verdicts;
        "unreviewed" to also get the rows without a verdict of their own, which are to be reviewed

    Returns
    -------
    table : the annotations, their lines, and a finding for each row that is left out

    Raises
    ------
    UserError
        E_NO_FILE, E_UNKNOWN_TABLE, E_MODEL_EVENTS, E_MISSING_COLUMN, E_NO_VERDICT,
        E_DECIMAL_COMMA, E_BAD_ZIP.
    """
    if not path_exists(path):
        what = f"{cut_name(str(path), 200)}: there is no such file"
        raise UserError("E_NO_FILE", what, "check the path")
    if path.is_dir():
        return _read_folder(path, verdict)
    if path.suffix.lower() == ".zip":
        return _read_zip(path, verdict)
    return _detect_format(path).read(path, verdict)


def _detect_format(path: Path) -> TableFormat:
    if is_label_track(read_text(path)):
        return AUDACITY
    header = read_header(path)
    for format in FORMATS.values():
        if format.matches(header):
            return format
    raise _unknown_table(path, header)


def _unknown_table(path: Path, header: list[str]) -> UserError:
    """An error that names the missing column, where the table is close to a format."""
    if has_columns(header, _MODEL_COLUMNS):
        what = f"{path}: these are a model's events, which no person has judged"
        return UserError("E_MODEL_EVENTS", what, "review them first")
    columns = set(map(normalize_column, header))
    for format in sorted(FORMATS.values(), key=lambda format: _missing_share(format, columns)):
        required = format.required_columns
        missing = [name for name in required if normalize_column(name) not in columns]
        if required and 2 * len(missing) <= len(required):
            nearest = nearest_column(missing[0], header)
            what = f"{path}: no column {missing[0]!r} {nearest}, but the rest fits {format.name}"
            return UserError("E_MISSING_COLUMN", what, f"rename the column to {missing[0]!r}")
    what = f"{path}: not a known annotation table; its columns are {list_names(header)}"
    return UserError("E_UNKNOWN_TABLE", what, f"give one of {', '.join(FORMATS)}")


def _missing_share(format: TableFormat, columns: set[str]) -> float:
    """The share of a format's required columns that are missing."""
    required = set(map(normalize_column, format.required_columns))
    return len(required - columns) / max(len(required), 1)


def _read_folder(path: Path, verdict: GivenVerdict) -> AnnotationTable:
    if is_backup_folder(path):
        return ARBIMON_BACKUP.read(path, verdict)
    if is_jobs_folder(path):
        return ARBIMON_JOBS.read(path, verdict)
    if is_review_folder(path):
        return BIRDNET_REVIEW.read(path, verdict)
    tables, findings, lost = [], [], []
    for file in sorted(p for p in path.rglob("*") if p.suffix.lower() in _TABLE_SUFFIXES):
        if file.name.startswith(".") or file.is_dir():
            continue
        try:
            tables.append(_detect_format(file).read(file, verdict))
        except UserError as error:
            if error.code == "E_NO_VERDICT":
                raise
            findings.append(_lost_table(file, error))
            lost += [error] if findings[-1].serious else []
    if not tables:
        if is_clip_folder(path):
            return CLIPS.read(path, verdict)
        if lost:
            raise lost[0]
        what = f"{path}: no annotation table in this folder"
        raise UserError("E_UNKNOWN_TABLE", what, f"give one of {', '.join(FORMATS)}")
    joined = join_tables(tables, path, "+".join(dict.fromkeys(table.format for table in tables)))
    return replace(joined, findings=(*joined.findings, *findings))


def _lost_table(file: Path, error: UserError) -> Finding:
    """The finding about a file of a folder that is not read."""
    row, what = None, error.what.removeprefix(f"{file}:").strip()
    if match := _LINE.fullmatch(what):
        row, what = int(match[1]), match[2]
    if error.code in _NO_TABLE:
        remedy = "correct the file, or move it out of the folder"
        return Finding("W_NOT_A_TABLE", str(file), row, f"not read: {what}", remedy, False)
    return Finding("W_TABLE_LOST", str(file), row, f"table not read: {what}", error.remedy, True)


def _read_zip(path: Path, verdict: GivenVerdict) -> AnnotationTable:
    """Read a zip as the folder that it holds; findings and errors name the zip."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [m for m in archive.infolist() if not m.filename.startswith("__MACOSX/")]
                size = sum(member.file_size for member in members)
                if size > LARGEST_TEXT or len(members) > _MOST_MEMBERS:
                    what = f"{path}: holds {len(members)} files of {size / 1e9:.1f} GB"
                    raise UserError("E_BAD_ZIP", what, "give the tables alone")
                archive.extractall(folder, members)
        except (
            *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
            *(OSError, EOFError, ValueError, IndexError),  # IndexError: a member without a name
        ) as error:
            reason = str(error).replace(folder, str(path))
            what = f"{path}: cannot be unpacked ({reason})"
            raise UserError("E_BAD_ZIP", what, "download it again") from error
        try:
            table = _read_folder(Path(folder), verdict)
        except UserError as error:
            what = error.what.replace(folder, str(path))
            raise UserError(error.code, what, error.remedy) from error
    findings = (replace(f, file=f.file.replace(folder, str(path))) for f in table.findings)
    return replace(
        table,
        path=path,
        findings=tuple(findings),
        files=tuple(path / file.relative_to(folder) for file, _ in table.origins()),
        unreviewed_files=tuple(
            path / file.relative_to(folder) for _, file in table.iter_unreviewed()
        ),
    )
