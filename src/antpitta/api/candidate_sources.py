"""Where candidates come from: folders of predict and match, and the tables of other programs.

Every row is a sound that a program, or a person, has marked. Rows that a person has judged keep
their verdict; the others are to be reviewed.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas as pd

from antpitta.core.errors import Finding, UserError, cut_name
from antpitta.core.types import EVERY_CLASS, Recording
from antpitta.files.audio import content_key
from antpitta.files.formats import read_table
from antpitta.files.formats.cells import ABSENT, PRESENT, UNKNOWN, parse_word
from antpitta.files.matching import (
    AmbiguousMatch,
    Match,
    RecordingMatcher,
    drop_rivals,
    report_missing,
)
from antpitta.files.recordings import FoundRecordings, find_recordings
from antpitta.files.texts import path_exists, read_json, utf8_text
from antpitta.predict.exports import read_events

COLUMNS = (
    *("file", "recording", "start_time", "end_time", "low_freq", "high_freq", "species", "score"),
    *("site", "verdict"),
)
_WORDS = {PRESENT: "present", ABSENT: "absent"}
_THREADS = 4  # that read files for their digests


@dataclass(frozen=True)
class CandidateSource:
    """The rows of one folder or table.

    Parameters
    ----------
    path : as the user gave it
    name : predict, match, similarity, or the format of the table
    digest : of the model, or else of the table
    rows : with :data:`COLUMNS`; ``file`` is the table that has the row
    findings : about rows that are left out
    """

    path: Path
    name: str
    digest: str
    rows: pd.DataFrame
    findings: tuple[Finding, ...] = ()


def read_source(path: Path) -> CandidateSource:
    """Read candidates of any source.

    Parameters
    ----------
    path : a folder that predict or match wrote, its table of events, or a table, folder or zip of
        another program

    Returns
    -------
    CandidateSource
        With every row that can be used.

    Raises
    ------
    UserError
        E_NO_FILE, E_NO_EVENT_TABLE, and those of :func:`antpitta.files.formats.read_table`.
    """
    if not path_exists(path):
        what = f"{cut_name(str(path), 200)}: there is no such file or folder"
        raise UserError("E_NO_FILE", what, "check the path")
    if path.is_dir() and (path / "run.json").is_file():
        return _read_prediction(path, path)
    if path.suffix == ".parquet" or path.name == "events.csv":
        if (path.parent / "run.json").is_file():
            return _read_prediction(path.parent, path)
        if path.suffix == ".parquet":
            return _from_events(path, "predict", content_key(path))
    table = read_table(path, "unreviewed")
    rows: list[tuple[Any, ...]] = [
        (str(file), event.recording, event.start, event.stop, event.low, event.high, event.label,
         event.score, "", "")
        for event, file in table.iter_unreviewed()
    ]  # fmt: skip
    rows += [
        (str(file), box.recording, box.start, box.stop, box.low, box.high, box.label,
         nan if box.score is None else box.score, "", _WORDS[PRESENT if box.present else ABSENT])
        for box, (file, _) in zip(table.annotations, table.iter_origins(), strict=True)
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    named = frame[(frame["species"] != EVERY_CLASS) & (frame["end_time"] < inf)]
    nameless = max(table.unvalidated - len(table.unreviewed), 0)
    findings = _report_unusable(path, nameless, len(frame) - len(named))
    return CandidateSource(path, table.format, _digest(path), named, table.findings + findings)


def _report_unusable(path: Path, nameless: int, whole: int) -> tuple[Finding, ...]:
    """Findings about rows without a species, such as clusters, and about no single sound."""
    problems = (
        (nameless, "W_CELL_EMPTY", "name no species", "name it by hand, as clusters have numbers"),
        (whole, "W_NO_SOUND", "are about every species, or have no end", "give boxes to review"),
    )
    return tuple(
        Finding(code, str(path), None, f"{count} rows {what}", remedy, True)
        for count, code, what, remedy in problems
        if count
    )


def _read_prediction(folder: Path, table: Path) -> CandidateSource:
    note = read_json(folder / "run.json")
    names = {"template matching": "match", "similarity of embeddings": "similarity"}
    name = names.get(str(note.get("model")), "predict")
    digest = note.get("digest")
    return _from_events(table, name, str(digest) if digest else content_key(folder / "run.json"))


def _from_events(path: Path, name: str, digest: str) -> CandidateSource:
    events = read_events(path)
    cells = events["verdict"].fillna("")
    words = {cell: _WORDS.get(_meaning(cell), "") for cell in cells.unique()}
    rows = events.rename(columns={"file": "recording"}).assign(
        file=str(path),
        low_freq=events["low_freq"].fillna(0.0),
        high_freq=events["high_freq"].fillna(inf),
        verdict=cells.map(words),
    )
    return CandidateSource(path, name, digest, rows[list(COLUMNS)])


def _meaning(cell: str) -> int:
    verdict = parse_word(cell)
    return UNKNOWN if verdict is None else verdict


def _digest(path: Path) -> str:
    """The digest of a table, or of all files of a folder."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = blake2b(digest_size=20)
    for file in files:
        digest.update(content_key(file).encode())
    return digest.hexdigest()


def find_audio(sources: Sequence[CandidateSource], audio: Sequence[Path]) -> FoundRecordings:
    """The recordings that the rows may name.

    Parameters
    ----------
    sources : of the candidates
    audio : folders of recordings; none where the rows hold paths that exist

    Returns
    -------
    FoundRecordings
        Probed.

    Raises
    ------
    UserError
        E_DATA_MISSING if no folder is given and no row names a file that is here, E_NO_AUDIO.
    """
    if audio:
        return find_recordings(audio)
    names = {name for source in sources for name in source.rows["recording"]}
    paths = [path for path in map(Path, sorted(names)) if path_exists(path) and path.is_file()]
    if not paths:
        what = f"{sources[0].path}: no row names a recording that lies where it says"
        raise UserError("E_DATA_MISSING", what, "add --audio FOLDER, the recordings")
    return find_recordings(paths)


def place_rows(
    source: CandidateSource, recordings: Sequence[Recording]
) -> tuple[pd.DataFrame, list[Finding]]:
    """Give each row its recording, and leave out those without one.

    Parameters
    ----------
    source : of the candidates
    recordings : that are here

    Returns
    -------
    table : with the columns that a queue takes, without the digests of recordings
    findings : about rows that are left out
    """
    matcher = RecordingMatcher(recordings)
    names: dict[str, dict[str, None]] = {}
    for file, name in zip(source.rows["file"], source.rows["recording"], strict=True):
        names.setdefault(file, {})[name] = None
    by_file: dict[Path, dict[str, Match]] = {
        Path(file): matcher.find_all(names[file], Path(file)) for file in names
    }
    drop_rivals(by_file)
    rows, missing, ambiguous, late = [], [], [], []
    for i, row in enumerate(source.rows.to_dict("records")):
        file = Path(row["file"])
        match = by_file[file][row["recording"]]
        if match is None:
            missing.append((row["recording"], file, i + 2))
        elif isinstance(match, AmbiguousMatch):
            ambiguous.append((match.reason, file))
        elif row["start_time"] >= match.duration:
            late.append((row["recording"], file))
        else:
            rows.append(_placed(row, match, source))
    return pd.DataFrame(rows), [
        *_report(missing, ambiguous, late, len(source.rows)),
        *source.findings,
    ]


def _placed(row: dict[Any, Any], recording: Recording, source: CandidateSource) -> dict[str, Any]:
    recorded_at = recording.recorded_at
    site = recording.site or row["site"]
    return {
        "path": recording.path,
        "recording_id": utf8_text(recording.id),
        "start_time": max(float(row["start_time"]), 0.0),
        "end_time": min(float(row["end_time"]), recording.duration),
        "low_freq": row["low_freq"],
        "high_freq": row["high_freq"],
        "species": utf8_text(str(row["species"])),
        "score": row["score"],
        "source": source.name,
        "source_digest": source.digest,
        "site": utf8_text(site) if isinstance(site, str) and site else None,
        "recorded_at": None if recorded_at is None else recorded_at.isoformat(),
        "verdict": row["verdict"],
    }


def _report(
    missing: Sequence[tuple[str, Path, int]],
    ambiguous: Sequence[tuple[str, Path]],
    late: Sequence[tuple[str, Path]],
    count: int,
) -> list[Finding]:
    findings = []
    if missing:
        findings.append(report_missing(missing, count, spectrograms=False))
    if ambiguous:
        what = f"{len(ambiguous)} of {count} rows: {ambiguous[0][0]}"
        remedy = "write the path of the recording"
        findings.append(
            Finding("W_AMBIGUOUS_RECORDING", str(ambiguous[0][1]), None, what, remedy, True)
        )
    if late:
        what = f"{len(late)} of {count} rows begin beyond the end of {late[0][0]!r} and others"
        remedy = "check that the recording is the same"
        findings.append(Finding("W_BOX_BEYOND_END", str(late[0][1]), None, what, remedy, True))
    return findings


def add_digests(table: pd.DataFrame) -> pd.DataFrame:
    """Add the digest of each row's recording, by which a queue knows its sound.

    Parameters
    ----------
    table : as from :func:`place_rows`

    Returns
    -------
    DataFrame
        With ``recording_digest``, and ``path`` as text.
    """
    paths = list(dict.fromkeys(table["path"]))
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = dict(zip(paths, pool.map(content_key, paths), strict=True))
    places = [utf8_text(str(path.absolute())) for path in table["path"]]
    return table.assign(recording_digest=table["path"].map(digests), path=places)
