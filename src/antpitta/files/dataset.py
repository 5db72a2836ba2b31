"""A data set put together: recordings, tables, and which row speaks of which recording.

- ``antpitta.toml`` stands for the flags of the command line, its paths seen from its folder.
- Classes come from every row, rows without audio included: the model of a part of the data
  has the columns of the whole. Labels that are bare numbers become s0, s1, ... .
- Rows whose audio is not here are counted and reported, and only fatal where all are.
- A statement without an end ("nothing calls in it") ends where its recording does.

One short name for exactly this training data: equal data, equal digest.
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
    """Where a data set lies: folders of recordings, tables by what they say, of sites, of names."""

    audio: tuple[Path, ...]
    present: tuple[Path, ...] = ()
    absent: tuple[Path, ...] = ()
    annotations: tuple[Path, ...] = ()
    sites: Path | None = None
    names: Path | None = None  # what else the species are called (aliases.py)


@dataclass(frozen=True)
class OpenedDataset:
    """A data set, and what had to be left out of it."""

    dataset: Dataset
    findings: tuple[Finding, ...]
    missing: int  # rows whose audio is not here
    rows: int  # judged rows of all tables
    tables: dict[str, str]  # table -> format
    origins: tuple[tuple[str, int], ...]  # file and line of each of the dataset's annotations
    unvalidated: int = 0  # rows that nobody has judged: unknown, not absent

    def __post_init__(self) -> None:
        if len(self.origins) != len(self.dataset.annotations):
            raise ValueError("an annotation without an origin, or an origin without one")

    def __repr__(self) -> str:
        left_out = f"{self.missing} of {self.rows} rows without a recording"
        return f"OpenedDataset({self.dataset!r}, {len(self.findings)} findings, {left_out})"


def read_source(path: Path) -> DataSource:
    """The source that an ``antpitta.toml``, or the folder that holds one, stands for.

    Raises UserError, naming the key, for an unknown one, a wrong type, or no audio.
    """
    if path.is_dir():
        path = path / NAME
    if not path.is_file():
        raise UserError("E_TODO", f"{path}: there is no such file", "'antpitta init' writes one")
    try:
        told = tomllib.loads(read_text(path).removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as trouble:
        raise UserError("E_TODO", f"{path}: {trouble}", "mend this line") from trouble
    known = [field.name for field in fields(DataSource)]
    if strange := [key for key in told if key not in known]:
        raise UserError(
            "E_TODO", f"{path}: unknown key {strange[0]!r}", f"known are {', '.join(known)}"
        )
    paths = {key: _paths(key, value, path) for key, value in told.items()}
    if not paths.get("audio"):
        raise UserError("E_TODO", f"{path}: no key 'audio'", "name the folder of the recordings")
    single = {key: paths.pop(key, ()) for key in ("sites", "names")}
    for key, tables in single.items():
        if len(tables) > 1:
            raise UserError("E_TODO", f"{path}: key {key!r} names {len(tables)} tables", "give one")
    sites, names = (tables[0] if tables else None for tables in single.values())
    return DataSource(**paths, sites=sites, names=names)


def write_source(source: DataSource, path: Path) -> None:
    """Write the source as TOML; paths below the file's folder are written from there."""
    home = path.absolute().parent.resolve()
    lines = []
    for field in fields(DataSource):
        value = getattr(source, field.name)
        places = () if value is None else value if isinstance(value, tuple) else (value,)
        if places:
            said = [json.dumps(_from(home, place), ensure_ascii=False) for place in places]
            text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
            lines.append(f"{field.name} = {text}\n")
    write_text("".join(lines), path)


def open_dataset(source: DataSource) -> OpenedDataset:
    """Find the recordings, read the tables, and match one to the other.

    Raises UserError for a folder or table that cannot be used, and where no row of all the
    tables has its audio.
    """
    verdicts = ((source.present, True), (source.absent, False), (source.annotations, None))
    tables = [read_table(path, verdict) for paths, verdict in verdicts for path in paths]
    opened = match_tables(find_recordings(source.audio, source.sites), tables)
    return _named(opened, source.names) if source.names else opened


def match_tables(found: FoundRecordings, tables: Sequence[AnnotationTable]) -> OpenedDataset:
    """Give every row its recording; see :func:`open_dataset`."""
    names = {said.label.strip() for table in tables for said in table.annotations}
    labels = class_names(names - {EVERY_CLASS})
    matcher = RecordingMatcher(found.recordings)
    findings = list(found.findings)
    annotations: list[Annotation] = []
    origins: list[tuple[str, int]] = []
    missing = 0
    for table in tables:
        findings += table.findings
        matches = matcher.find_all((said.recording for said in table.annotations), table.path)
        for said, row in zip(table.annotations, table.rows, strict=True):
            match = matches[said.recording]
            if isinstance(match, Recording):
                annotations.append(_placed(said, match, labels))
                origins.append((str(table.path), row))
            else:
                missing += match is None
        findings += _left_out(table, matches)
    rows = sum(len(table.annotations) for table in tables)
    unvalidated = sum(table.unvalidated for table in tables)
    _refuse_nothing(tables, rows, unvalidated, len(annotations), labels, found)
    classes = Classes(tuple(dict.fromkeys(labels.values())))
    return OpenedDataset(
        Dataset(found.recordings, tuple(annotations), classes),
        tuple(findings),
        missing,
        rows,
        {str(table.path): table.format for table in tables},
        tuple(origins),
        unvalidated,
    )


def class_names(labels: set[str]) -> dict[str, str]:
    """Each label's class, in the order of the columns."""
    if labels and all(label.isascii() and label.isdigit() for label in labels):
        return {label: f"s{int(label)}" for label in sorted(labels, key=int)}
    return {label: label for label in sorted(labels)}


def _named(opened: OpenedDataset, table: Path) -> OpenedDataset:
    """With what else the classes are called; the table names them as the tables do, or as we do."""
    aliases: dict[str, tuple[str, ...]] = {}
    strangers = []
    for label, others in read_species_names(table).items():
        name = label if label in opened.dataset.classes.names else class_names({label})[label]
        if name in opened.dataset.classes.names:
            aliases[name] = (*aliases.get(name, ()), *others)
        else:
            strangers.append(label)
    findings = opened.findings
    if strangers:
        what = f"{len(strangers)} species are in no table of boxes, the first {strangers[0]!r}"
        remedy = "nothing, if that is so; else write species as the tables do"
        findings = (*findings, Finding("E_TODO", str(table), None, what, remedy, False))
    dataset = replace(opened.dataset, aliases=aliases)
    return replace(opened, dataset=dataset, findings=findings)


def _placed(said: Annotation, recording: Recording, labels: dict[str, str]) -> Annotation:
    label = said.label.strip()
    stop = said.stop
    if math.isinf(stop):
        stop = max(recording.duration, said.start + 1.0)
    return replace(said, recording=recording.id, label=labels.get(label, label), stop=stop)


def _left_out(
    table: AnnotationTable, matches: dict[str, Recording | AmbiguousMatch | None]
) -> list[Finding]:
    """One finding for all rows without audio, one for all whose audio is ambiguous."""
    findings = []
    rows = [(said.recording, row) for said, row in zip(table.annotations, table.rows, strict=True)]
    lost = [(name, row) for name, row in rows if matches[name] is None]
    if lost:
        name, row = lost[0]
        what = (
            f"{len(lost)} of {len(rows)} rows name {len({name for name, _ in lost})} recordings"
            f" whose audio is not here, the first {name!r}"
        )
        remedy = "nothing, if that is so; else add the audio, or mend the names"
        findings.append(Finding("E_TODO", str(table.path), row, what, remedy, False))
    unclear = [
        (match, row) for name, row in rows if isinstance(match := matches[name], AmbiguousMatch)
    ]
    if unclear:
        match, row = unclear[0]
        what = (
            f"{len(unclear)} of {len(rows)} rows are left out as ambiguous, the first: {match.why}"
        )
        remedy = "write the recording's id, or its path with the folder"
        findings.append(Finding("E_TODO", str(table.path), row, what, remedy, True))
    return findings


def _refuse_nothing(
    tables: Sequence[AnnotationTable],
    rows: int,
    unvalidated: int,
    matched: int,
    labels: dict[str, str],
    found: FoundRecordings,
) -> None:
    """Raises UserError where there is nothing to learn from."""
    if not tables:
        raise UserError(
            "E_TODO", "no table of boxes", "give --present and --absent, or --annotations"
        )
    where = ", ".join(str(table.path) for table in tables)
    if not rows:
        told = f"{unvalidated} rows and none of them judged" if unvalidated else "no usable row"
        raise UserError("E_TODO", f"{where}: {told}", "give a table of validated boxes")
    if not labels:
        raise UserError("E_TODO", f"{where}: no species is named", "give a table that names them")
    if not matched:
        theirs = next(said.recording for table in tables for said in table.annotations)
        raise UserError(
            "E_TODO",
            f"{where}: none of {rows} rows has its audio here: the tables name {theirs!r} and the like, the recordings are {found.recordings[0].id!r} and the like",
            "check --audio",
        )


def _paths(key: str, value: object, toml: Path) -> tuple[Path, ...]:
    listed = value if isinstance(value, list) else [value]
    paths = tuple(toml.parent / one for one in listed if isinstance(one, str) and one)
    if len(paths) < len(listed):
        raise UserError(
            "E_TODO", f"{toml}: key {key!r} is {value!r}", "give a path, or a list of paths"
        )
    return paths


def _from(home: Path, place: Path) -> str:
    """The path as seen from ``home`` where it lies below, else the whole path."""
    whole = place.absolute().parent.resolve() / place.name
    return (whole.relative_to(home) if whole.is_relative_to(home) else whole).as_posix()


def dataset_digest(dataset: Dataset) -> str:
    """Over the sound's bytes, the boxes and the classes; file names do not count, ids do."""
    digest = hashlib.blake2b(digest_size=16)
    for name in dataset.classes.names:
        digest.update(f"{name}\0".encode())
    for recording in sorted(dataset.recordings, key=lambda one: one.id):
        digest.update(f"{recording.id}\0{content_key(recording.path)}\0".encode())
    for said in sorted(repr(annotation) for annotation in dataset.annotations):
        digest.update(said.encode())
    return digest.hexdigest()
