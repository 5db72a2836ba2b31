"""A data set: recordings, tables of boxes, and which row belongs to which recording.

- ``antpitta.toml`` holds the same as the flags of the command line, with paths relative to it.
- Classes come from every row, rows without audio included: a model of a part of the data has the
  columns of the whole. Labels that are bare numbers become s0, s1, and so on.
- Rows whose audio is missing are counted and reported, and an error only if all are.
- An annotation without an end ("nothing calls in it") ends where its recording does.
- The digest of a data set is a short name for its content: equal data, equal digest.
"""

import hashlib
import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from antpitta.core.errors import Finding, UserError
from antpitta.core.types import EVERY_CLASS, Annotation, Classes, Dataset, Recording
from antpitta.files.audio import content_key
from antpitta.files.formats import AnnotationTable, read_table
from antpitta.files.matching import AmbiguousMatch, RecordingMatcher
from antpitta.files.recordings import FoundRecordings, find_recordings
from antpitta.files.species_names import read_species_names
from antpitta.files.texts import read_text, write_text

NAME = "antpitta.toml"


@dataclass(frozen=True)
class DataSource:
    """Where the recordings and tables of a data set lie."""

    audio: tuple[Path, ...]
    present: tuple[Path, ...] = ()
    absent: tuple[Path, ...] = ()
    annotations: tuple[Path, ...] = ()
    sites: Path | None = None
    names: Path | None = None  # other names of the species (species_names.py)


@dataclass(frozen=True)
class OpenedDataset:
    """A data set, and what is left out of it."""

    dataset: Dataset
    findings: tuple[Finding, ...]
    missing: int  # rows whose audio is not here
    rows: int  # rows with a verdict, of all tables
    tables: dict[str, str]  # table -> format
    origins: tuple[tuple[str, int], ...]  # file and line of each of the dataset's annotations
    unvalidated: int = 0  # rows that no person has judged: unknown, not absent

    def __post_init__(self) -> None:
        if len(self.origins) != len(self.dataset.annotations):
            raise ValueError("annotations and origins differ in number")

    def __repr__(self) -> str:
        count = len(self.dataset.annotations)
        return f"OpenedDataset({self.dataset!r}, {count} of {self.rows} rows)"


def read_source(path: Path) -> DataSource:
    """Read an ``antpitta.toml``, or the one in a folder.

    Parameters
    ----------
    path : the file, or the folder that has it

    Returns
    -------
    source : paths, seen from the working directory

    Raises
    ------
    UserError
        E_NO_FILE; E_BAD_SOURCE: an unknown key, a wrong type, no audio, or no TOML.
    """
    if path.is_dir():
        path = path / NAME
    if not path.is_file():
        what = f"{path}: there is no such file"
        raise UserError("E_NO_FILE", what, "write one with 'antpitta init'")
    try:
        content = tomllib.loads(read_text(path).removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise UserError("E_BAD_SOURCE", f"{path}: {error}", "correct this line") from error
    known = [field.name for field in fields(DataSource)]
    if unknown := [key for key in content if key not in known]:
        what = f"{path}: unknown key {unknown[0]!r}"
        raise UserError("E_BAD_SOURCE", what, f"use only {', '.join(known)}")
    paths = {key: _parse_paths(key, value, path) for key, value in content.items()}
    if not paths.get("audio"):
        what = f"{path}: no key 'audio'"
        raise UserError("E_BAD_SOURCE", what, "give the folder of the recordings")
    single = {key: paths.pop(key, ()) for key in ("sites", "names")}
    for key, tables in single.items():
        if len(tables) > 1:
            what = f"{path}: key {key!r} has {len(tables)} tables"
            raise UserError("E_BAD_SOURCE", what, "give one")
    sites, names = (tables[0] if tables else None for tables in single.values())
    return DataSource(**paths, sites=sites, names=names)


def write_source(source: DataSource, path: Path) -> None:
    """Write the source as TOML; paths below the file's folder become relative to it.

    Parameters
    ----------
    source : what to write
    path : file to write
    """
    home = path.absolute().parent.resolve()
    lines = []
    for field in fields(DataSource):
        value = getattr(source, field.name)
        paths = () if value is None else value if isinstance(value, tuple) else (value,)
        if paths:
            texts = [json.dumps(_relative(home, item), ensure_ascii=False) for item in paths]
            text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
            lines.append(f"{field.name} = {text}\n")
    write_text("".join(lines), path)


def open_dataset(source: DataSource) -> OpenedDataset:
    """Find the recordings, read the tables, and match one to the other.

    Parameters
    ----------
    source : folders and tables

    Returns
    -------
    opened : the data set, its findings, and where each annotation comes from

    Raises
    ------
    UserError
        Those of :func:`read_table`, :func:`find_recordings` and :func:`match_tables`.
    """
    verdicts = ((source.present, True), (source.absent, False), (source.annotations, None))
    tables = [read_table(path, verdict) for paths, verdict in verdicts for path in paths]
    opened = match_tables(find_recordings(source.audio, source.sites), tables)
    return _with_aliases(opened, source.names) if source.names else opened


def match_tables(audio: FoundRecordings, tables: Sequence[AnnotationTable]) -> OpenedDataset:
    """Give every row of the tables its recording.

    Parameters
    ----------
    audio : the recordings that are here
    tables : as from :func:`read_table`

    Returns
    -------
    opened : the data set, its findings, and where each annotation comes from

    Raises
    ------
    UserError
        E_NO_ANNOTATIONS: no row can be used. E_NO_MATCHING_AUDIO: no row has its recording.
    """
    names = {box.label.strip() for table in tables for box in table.annotations}
    labels = class_names(names - {EVERY_CLASS})
    matcher = RecordingMatcher(audio.recordings)
    findings = list(audio.findings)
    annotations: list[Annotation] = []
    origins: list[tuple[str, int]] = []
    missing = 0
    for table in tables:
        findings += table.findings
        matches = matcher.find_all((box.recording for box in table.annotations), table.path)
        for box, row in zip(table.annotations, table.rows, strict=True):
            match = matches[box.recording]
            if isinstance(match, Recording):
                annotations.append(_place(box, match, labels))
                origins.append((str(table.path), row))
            else:
                missing += match is None
        findings += _report_unmatched(table, matches)
    _require_annotations(tables, labels)
    if not annotations:
        raise _no_audio_error(tables, audio)
    classes = Classes(tuple(dict.fromkeys(labels.values())))
    return OpenedDataset(
        Dataset(audio.recordings, tuple(annotations), classes),
        tuple(findings),
        missing,
        sum(len(table.annotations) for table in tables),
        {str(table.path): table.format for table in tables},
        tuple(origins),
        sum(table.unvalidated for table in tables),
    )


def class_names(labels: set[str]) -> dict[str, str]:
    """The class of each label, in the order of the columns.

    Parameters
    ----------
    labels : as the tables write them

    Returns
    -------
    names : label -> class, in the order of the columns
    """
    if labels and all(label.isascii() and label.isdigit() for label in labels):
        return {label: f"s{int(label)}" for label in sorted(labels, key=int)}
    return {label: label for label in sorted(labels)}


def dataset_digest(dataset: Dataset) -> str:
    """A digest of the sound's bytes, the boxes, the classes and the ids; not of file names.

    Parameters
    ----------
    dataset : whose recordings are read

    Returns
    -------
    digest : 32 hexadecimal digits
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in dataset.classes.names:
        digest.update(f"{name}\0".encode())
    for recording in sorted(dataset.recordings, key=lambda recording: recording.id):
        digest.update(f"{recording.id}\0{content_key(recording.path)}\0".encode())
    for text in sorted(repr(annotation) for annotation in dataset.annotations):
        digest.update(text.encode())
    return digest.hexdigest()


def _with_aliases(opened: OpenedDataset, table: Path) -> OpenedDataset:
    """Add the other names of the classes; the table may write a class or its label."""
    aliases: dict[str, tuple[str, ...]] = {}
    unknown = []
    for label, others in read_species_names(table).items():
        name = label if label in opened.dataset.classes.names else class_names({label})[label]
        if name in opened.dataset.classes.names:
            aliases[name] = (*aliases.get(name, ()), *others)
        else:
            unknown.append(label)
    findings = opened.findings
    if unknown:
        what = f"{len(unknown)} species are in no table of boxes, the first {unknown[0]!r}"
        remedy = "write species as the tables do, or ignore this if that is intended"
        findings = (*findings, Finding("W_UNKNOWN_SPECIES", str(table), None, what, remedy, False))
    dataset = replace(opened.dataset, aliases=aliases)
    return replace(opened, dataset=dataset, findings=findings)


def _place(box: Annotation, recording: Recording, labels: dict[str, str]) -> Annotation:
    """The annotation with the id of its recording, its class, and an end."""
    label, stop = box.label.strip(), box.stop
    if math.isinf(stop):
        stop = max(recording.duration, box.start + 1.0)
    return replace(box, recording=recording.id, label=labels.get(label, label), stop=stop)


def _report_unmatched(
    table: AnnotationTable, matches: dict[str, Recording | AmbiguousMatch | None]
) -> list[Finding]:
    """One finding for all rows without audio, one for all rows with an ambiguous name."""
    findings = []
    rows = [(box.recording, row) for box, row in zip(table.annotations, table.rows, strict=True)]
    missing = [(name, row) for name, row in rows if matches[name] is None]
    if missing:
        name, row = missing[0]
        count = len({name for name, _ in missing})
        what = (
            f"{len(missing)} of {len(rows)} rows name {count} recordings whose audio is not here,"
            f" the first {name!r}"
        )
        remedy = "add the audio, or ignore this if that is intended"
        findings.append(Finding("W_NO_AUDIO", str(table.path), row, what, remedy, False))
    ambiguous = [
        (match, row) for name, row in rows if isinstance(match := matches[name], AmbiguousMatch)
    ]
    if ambiguous:
        match, row = ambiguous[0]
        what = f"{len(ambiguous)} of {len(rows)} rows are left out, the first: {match.reason}"
        remedy = "write the recording's id, or its path with the folder"
        findings.append(Finding("W_AMBIGUOUS_RECORDING", str(table.path), row, what, remedy, True))
    return findings


def _require_annotations(tables: Sequence[AnnotationTable], labels: dict[str, str]) -> None:
    """Raise UserError where there are no boxes to learn from."""
    if not tables:
        what, remedy = "no table of boxes", "give --present and --absent, or --annotations"
        raise UserError("E_NO_ANNOTATIONS", what, remedy)
    paths = ", ".join(str(table.path) for table in tables)
    if not any(table.annotations for table in tables):
        count = sum(table.unvalidated for table in tables)
        rows = f"{count} rows and none of them judged" if count else "no row that can be used"
        raise UserError("E_NO_ANNOTATIONS", f"{paths}: {rows}", "give a table of validated boxes")
    if not labels:
        what = f"{paths}: no row names a species"
        raise UserError("E_NO_ANNOTATIONS", what, "give a table that names them")


def _no_audio_error(tables: Sequence[AnnotationTable], audio: FoundRecordings) -> UserError:
    paths = ", ".join(str(table.path) for table in tables)
    boxes = [box for table in tables for box in table.annotations]
    return UserError(
        "E_NO_MATCHING_AUDIO",
        f"{paths}: none of {len(boxes)} rows has its recording here; the tables have names such"
        f" as {boxes[0].recording!r}, the recordings such as {audio.recordings[0].id!r}",
        "check --audio",
    )


def _parse_paths(key: str, value: object, toml: Path) -> tuple[Path, ...]:
    items = value if isinstance(value, list) else [value]
    paths = tuple(toml.parent / item for item in items if isinstance(item, str) and item)
    if len(paths) < len(items):
        what = f"{toml}: key {key!r} is {value!r}"
        raise UserError("E_BAD_SOURCE", what, "give a path, or a list of paths")
    return paths


def _relative(home: Path, path: Path) -> str:
    """The path relative to ``home`` if it lies below, else the whole path."""
    whole = path.absolute().parent.resolve() / path.name
    return (whole.relative_to(home) if whole.is_relative_to(home) else whole).as_posix()
