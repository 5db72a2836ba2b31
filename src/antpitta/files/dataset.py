"""A data set: recordings, tables of boxes, and which row belongs to which recording.

- ``antpitta.toml`` holds the same as the flags of the command line, with paths relative to it.
- A folder without that file may be laid out like the competition's (``train/``, ``train_tp.csv``,
  ``train_fp.csv``), or hold one folder of clips per species.
- Classes come from every row, rows without audio included: a model of a part of the data has the
  columns of the whole. Labels that mean one species (core/identity.py), or another name of it in
  the table of names, are one class. Similar names are reported.
- Rows whose audio is missing are counted and reported, and an error only if all are. Rows that
  begin beyond the end of their recording belong to another one; they are left out.
- An annotation without an end ("nothing calls in it") ends where its recording does.
- The digest of a data set is a short name for its content: equal data, equal digest.
"""

import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from antpitta.core.errors import Finding, UserError, cut_name, list_names
from antpitta.core.identity import (
    class_names,
    similar_names,
    species_key,
    species_name,
)
from antpitta.core.types import EVERY_CLASS, Annotation, Classes, Dataset, Recording
from antpitta.files.audio import content_key
from antpitta.files.formats import AnnotationTable, read_table
from antpitta.files.formats.clips import explain_no_clip_folder, is_clip_folder
from antpitta.files.matching import (
    AmbiguousMatch,
    Match,
    RecordingMatcher,
    lies_elsewhere,
    match_table,
    report_missing,
)
from antpitta.files.recordings import FoundRecordings, find_recordings
from antpitta.files.species_names import read_species_names
from antpitta.files.texts import read_text, write_text

NAME = "antpitta.toml"
SAMPLE_SUBMISSION = "sample_submission.csv"
_COMPETITION = ("train", "train_tp.csv", "train_fp.csv")  # test/ is not read in training
_MAX_LISTED = 5  # findings of one kind in one table, and species in one finding


@dataclass(frozen=True)
class DataSource:
    """Where the recordings and tables of a data set lie."""

    audio: tuple[Path, ...] = ()
    present: tuple[Path, ...] = ()
    absent: tuple[Path, ...] = ()
    annotations: tuple[Path, ...] = ()
    sites: Path | None = None
    names: Path | None = None  # other names of the species (species_names.py)
    channel: int | None = None  # the one to use of each file, from 1; None: the mean of all
    spectrograms: tuple[Path, ...] = ()  # used instead of all sound (spectrograms.py)


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
    source: DataSource | None = None  # where it was read from

    def __post_init__(self) -> None:
        if len(self.origins) != len(self.dataset.annotations):
            raise ValueError("annotations and origins differ in number")

    def __repr__(self) -> str:
        count = len(self.dataset.annotations)
        return f"OpenedDataset({self.dataset!r}, {count} of {self.rows} rows)"


def read_source(path: Path) -> DataSource:
    """Read an ``antpitta.toml``, or the one in a folder, or know a folder by its layout.

    Parameters
    ----------
    path : the file, or the folder that has it, or one laid out like the competition's or with one
        folder of clips per species

    Returns
    -------
    source : paths, seen from the working directory

    Raises
    ------
    UserError
        E_NO_FILE; E_HALF_LAYOUT: some of the competition's files; E_BAD_SOURCE: an unknown key, a
        wrong type, no audio, or no TOML.
    """
    if path.is_dir():
        if not (path / NAME).exists():
            if source := _source_of_layout(path):
                return source
            if reason := explain_no_clip_folder(path):
                what = f"{path}: no {NAME}, and no folder of clips per species: {reason}"
                remedy = "rename or move it, or write a file with 'antpitta init'"
                raise UserError("E_NO_FILE", what, remedy)
        path = path / NAME
    if not path.is_file():
        what = f"{path}: there is no such file"
        raise UserError("E_NO_FILE", what, "write one with 'antpitta init'")
    try:
        content = tomllib.loads(read_text(path).removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise UserError("E_BAD_SOURCE", f"{path}: {error}", "correct this line") from error
    known = [field.name for field in fields(DataSource)]
    if unknown := [key for key in content if key not in known]:
        what = f"{path}: unknown key {unknown[0]!r}"
        raise UserError("E_BAD_SOURCE", what, f"use only {', '.join(known)}")
    channel = _parse_channel(content.pop("channel", None), path)
    paths = {key: _parse_paths(key, value, path) for key, value in content.items()}
    if not (paths.get("audio") or paths.get("spectrograms")):
        remedy = "give the folder of the recordings"
        raise UserError("E_BAD_SOURCE", f"{path}: no key 'audio'", remedy)
    single = {key: paths.pop(key, ()) for key in ("sites", "names")}
    for key, tables in single.items():
        if len(tables) > 1:
            what = f"{path}: key {key!r} has {len(tables)} tables"
            raise UserError("E_BAD_SOURCE", what, "give one")
    sites, names = (tables[0] if tables else None for tables in single.values())
    return DataSource(**paths, sites=sites, names=names, channel=channel)


def _source_of_layout(folder: Path) -> DataSource | None:
    """The source that a folder without an ``antpitta.toml`` is, None if it is none."""
    audio, present, absent = (folder / name for name in _COMPETITION)
    tables = [path for path in (present, absent) if path.is_file()]
    if audio.is_dir() and len(tables) == 2:
        return DataSource((audio,), (present,), (absent,))
    if tables or (audio.is_dir() and (folder / SAMPLE_SUBMISSION).is_file()):
        missing = [] if audio.is_dir() else [f"the folder {audio.name}"]
        missing += [path.name for path in (present, absent) if path not in tables]
        raise UserError(
            "E_HALF_LAYOUT",
            f"{folder}: laid out like the RFCX competition's data, but without "
            f"{' and '.join(missing)}",
            "add what is missing, or name what there is with --audio, --present and --absent",
        )
    if is_clip_folder(folder):
        return DataSource((folder,), annotations=(folder,))
    return None


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
        if isinstance(value, int):
            lines.append(f"{field.name} = {value}\n")
        elif paths:
            texts = [_quote(_relative(home, item)) for item in paths]
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
    given = ((source.present, True), (source.absent, False), (source.annotations, None))
    tables = [read_table(path, verdict) for paths, verdict in given for path in paths]
    recordings = find_recordings(source.audio, source.sites, source.channel, source.spectrograms)
    audio = _without_species_as_sites(recordings, tables)
    names = read_species_names(source.names) if source.names else {}
    opened = replace(match_tables(audio, tables, names), source=source)
    return _with_aliases(opened, names, source.names) if source.names else opened


def match_tables(
    audio: FoundRecordings,
    tables: Sequence[AnnotationTable],
    names: Mapping[str, Iterable[str]] | None = None,
) -> OpenedDataset:
    """Give every row of the tables its recording.

    Parameters
    ----------
    audio : the recordings that are here
    tables : as from :func:`read_table`
    names : the other names of each species, as from :func:`read_species_names`

    Returns
    -------
    opened : the data set, its findings, and where each annotation comes from

    Raises
    ------
    UserError
        E_NO_ANNOTATIONS: no row can be used. E_NO_MATCHING_AUDIO: no row has its recording.
        E_AMBIGUOUS_RECORDING: no row has, and some names fit several recordings.
    """
    species = {box.label for table in tables for box in table.annotations} - {EVERY_CLASS}
    labels = class_names(species, names)
    matcher = RecordingMatcher(audio.recordings)
    findings = list(audio.findings)
    annotations: list[Annotation] = []
    origins: list[tuple[str, int]] = []
    missing = 0
    for table in tables:
        findings += table.findings
        matches = match_table(table, matcher)
        late = []
        for box, (file, row) in zip(table.annotations, table.iter_origins(), strict=True):
            match = matches[file][box.recording]
            if not isinstance(match, Recording):
                missing += match is None
            elif box.start >= match.duration:
                late.append((box, match, file, row))
            else:
                annotations.append(_place(box, match, labels))
                origins.append((str(file), row))
        findings += _report_unmatched(table, matches, spectrograms=audio.are_spectrograms)
        findings += _report_late(late)
    _require_annotations(tables, labels)
    if not annotations:
        raise _no_audio_error(tables, audio, findings)
    findings += _report_species(tables, labels)
    return OpenedDataset(
        Dataset(
            audio.recordings, tuple(annotations), Classes(tuple(dict.fromkeys(labels.values())))
        ),
        tuple(findings),
        missing,
        sum(len(table.annotations) for table in tables),
        {str(table.path): table.format for table in tables},
        tuple(origins),
        sum(table.unvalidated for table in tables),
    )


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
        digest.update(f"{recording.id}\0{content_key(recording.source)}\0".encode())
        if recording.channel is not None:
            digest.update(f"channel {recording.channel}\0".encode())
    for text in sorted(repr(annotation) for annotation in dataset.annotations):
        digest.update(text.encode())
    return digest.hexdigest()


def _with_aliases(
    opened: OpenedDataset, names: Mapping[str, Iterable[str]], table: Path
) -> OpenedDataset:
    """Add the other names of the classes; the table may write a class or its label."""
    by_key = {species_key(name): name for name in opened.dataset.classes.names}
    aliases: dict[str, tuple[str, ...]] = {}
    unknown = []
    for label, others in names.items():
        if name := by_key.get(species_key(label)):
            aliases[name] = (*aliases.get(name, ()), *others)
        else:
            unknown.append(label)
    findings = opened.findings
    if unknown:
        what = (
            f"{len(unknown)} species are in no table of boxes, the first {cut_name(unknown[0])!r}"
        )
        remedy = "write species as the tables do, or ignore this if that is intended"
        findings = (*findings, Finding("W_UNKNOWN_SPECIES", str(table), None, what, remedy, False))
    dataset = replace(opened.dataset, aliases=aliases)
    return replace(opened, dataset=dataset, findings=findings)


def _without_species_as_sites(
    audio: FoundRecordings, tables: Sequence[AnnotationTable]
) -> FoundRecordings:
    """The recordings, where a species' folder of clips is not taken for a site."""
    clips = {file.absolute() for table in tables if table.format == "clips" for file in table.files}
    recordings = tuple(
        replace(recording, site=None)
        if recording.path.absolute() in clips and recording.site == recording.path.parent.name
        else recording
        for recording in audio.recordings
    )
    return replace(audio, recordings=recordings)


def _place(box: Annotation, recording: Recording, labels: dict[str, str]) -> Annotation:
    """The annotation with the id of its recording, its class, and an end."""
    stop = recording.duration if math.isinf(box.stop) else box.stop
    label = labels.get(box.label, box.label)
    if (recording.id, stop, label) == (box.recording, box.stop, box.label):
        return box  # a million rows are held once
    place = (recording.id, box.start, stop, label, box.present, box.low, box.high)
    return Annotation(*place, box.source, box.songtype, box.score)


def _report_unmatched(
    table: AnnotationTable, matches: Mapping[Path, Mapping[str, Match]], *, spectrograms: bool
) -> list[Finding]:
    """One finding for all rows without a recording, with several, or from another folder."""
    count_rows, findings = len(table.annotations), []
    elsewhere = {
        (file, name)
        for file, by_name in matches.items()
        for name, match in by_name.items()
        if isinstance(match, Recording) and lies_elsewhere(name, match, file)
    }
    missing, ambiguous, moved = [], [], []
    for box, (file, row) in zip(table.annotations, table.iter_origins(), strict=True):
        match = matches[file][box.recording]
        if match is None:
            missing.append((box.recording, file, row))
        elif isinstance(match, AmbiguousMatch):
            ambiguous.append((match, file, row))
        elif elsewhere and (file, box.recording) in elsewhere:
            moved.append((box.recording, file, row))
    if missing:
        findings.append(report_missing(missing, count_rows, spectrograms=spectrograms))
    if ambiguous:
        match, file, row = ambiguous[0]
        what = f"{len(ambiguous)} of {count_rows} rows are left out, the first: {match.reason}"
        remedy = "write the recording's id, or its path with the folder"
        findings.append(Finding("W_AMBIGUOUS_RECORDING", str(file), row, what, remedy, True))
    if moved:
        name, file, row = moved[0]
        what = (
            f"{len(moved)} of {count_rows} rows name a file in another folder than the recording of"
            f" that name, the first {name!r}"
        )
        remedy = "check that it is the same recording"
        findings.append(Finding("W_OTHER_FOLDER", str(file), row, what, remedy, False))
    return findings


def _report_late(rows: Sequence[tuple[Annotation, Recording, Path, int]]) -> list[Finding]:
    """A finding for each of the first rows that begin beyond the end, one for the others."""
    findings = []
    remedy = "check the recording that the row names, and the unit of the times"
    for i, (box, recording, file, row) in enumerate(rows[: _MAX_LISTED + 1]):
        what = (
            f"the box begins at {box.start:g} s, {recording.id} ends at {recording.duration:.2f} s"
        )
        if i == _MAX_LISTED:
            what = f"{len(rows) - _MAX_LISTED} more rows like this: {what}"
        findings.append(Finding("W_BOX_BEYOND_END", str(file), row, what, remedy, True))
    return findings


def _report_species(tables: Sequence[AnnotationTable], labels: Mapping[str, str]) -> list[Finding]:
    """Findings about labels that are one class in several spellings, and about similar classes."""
    paths = ", ".join(str(table.path) for table in tables)
    spellings: dict[str, set[str]] = {}
    for label in labels:
        spellings.setdefault(species_key(label), set()).add(species_name(label))
    merged = [tuple(sorted(group)) for group in spellings.values() if len(group) > 1]
    problems = (
        (
            "W_SPECIES_SPELLINGS",
            merged,
            "species are spelt in several ways and taken as one each",
            "spell each in one way, or rename those that are different species",
        ),
        (
            "W_SIMILAR_SPECIES",
            similar_names(dict.fromkeys(labels.values())),
            "groups of species have names that are almost the same",
            "give one name to those that are one species",
        ),
    )
    findings = []
    for code, groups, problem, remedy in problems:
        if groups:
            listed = "; ".join(list_names(map(repr, group), 4) for group in groups[:_MAX_LISTED])
            what = f"{len(groups)} {problem}: {listed}"
            findings.append(Finding(code, paths, None, what, remedy, False))
    return findings


def _require_annotations(tables: Sequence[AnnotationTable], labels: dict[str, str]) -> None:
    """Raise UserError where there are no boxes to learn from."""
    if not tables:
        what, remedy = "no table of boxes", "give --present and --absent, or --annotations"
        raise UserError("E_NO_ANNOTATIONS", what, remedy)
    paths = ", ".join(str(table.path) for table in tables)
    if not any(table.annotations for table in tables):
        count = sum(table.unvalidated for table in tables)
        if count:
            what = f"{paths}: {count} rows and none of them judged"
            remedy = (
                "fill in a column 'verdict', or give --present if a person has checked all rows"
            )
            raise UserError("E_NO_ANNOTATIONS", what, remedy)
        findings = [finding for table in tables for finding in table.findings]
        first = f"; the first: {findings[0].what}" if findings else ""
        what = f"{paths}: no row that can be used{first}"
        raise UserError("E_NO_ANNOTATIONS", what, "give a table of validated boxes")
    if not labels:
        what = f"{paths}: no row names a species"
        raise UserError("E_NO_ANNOTATIONS", what, "give a table that names them")


def _no_audio_error(
    tables: Sequence[AnnotationTable], audio: FoundRecordings, findings: Sequence[Finding]
) -> UserError:
    """The error about tables of which no row can be placed, and why."""
    paths = ", ".join(str(table.path) for table in tables)
    boxes = [box for table in tables for box in table.annotations]
    for code, error in (
        ("W_AMBIGUOUS_RECORDING", "E_AMBIGUOUS_RECORDING"),
        ("W_BOX_BEYOND_END", "E_NO_MATCHING_AUDIO"),
    ):
        if first := next((finding for finding in findings if finding.code == code), None):
            row = "" if first.row is None else f":{first.row}"
            return UserError(error, f"{first.file}{row}: {first.what}", first.remedy)
    return UserError(
        "E_NO_MATCHING_AUDIO",
        f"{paths}: none of {len(boxes)} rows has its recording here; the tables have names such"
        f" as {boxes[0].recording!r}, the recordings such as {audio.recordings[0].id!r}",
        "check --audio or --spectrograms",
    )


def _parse_paths(key: str, value: object, toml: Path) -> tuple[Path, ...]:
    items = value if isinstance(value, list) else [value]
    paths = tuple(toml.parent / item for item in items if isinstance(item, str) and item)
    if len(paths) < len(items):
        what = f"{toml}: key {key!r} is {value!r}"
        raise UserError("E_BAD_SOURCE", what, "give a path, or a list of paths")
    return paths


def _parse_channel(value: object, toml: Path) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    what = f"{toml}: key 'channel' is {value!r}"
    raise UserError(
        "E_BAD_SOURCE", what, "give a number from 1, or leave it out to mix all channels"
    )


def _quote(path: str) -> str:
    """The path as a string of TOML."""
    return json.dumps(path, ensure_ascii=False).replace("\x7f", "\\u007f")


def _relative(home: Path, path: Path) -> str:
    """The path relative to ``home`` if it lies below, else the whole path."""
    absolute = path.absolute().parent.resolve() / path.name
    return (absolute.relative_to(home) if absolute.is_relative_to(home) else absolute).as_posix()
