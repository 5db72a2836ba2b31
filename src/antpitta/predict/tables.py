"""The tables of an archive, written from its journal, some recordings at a time.

A season of recorders does not fit in memory as one table; the largest thing held here is one
number a recording and species, and that only where prevalences are given.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.errors import Finding, UserError
from antpitta.files.recordings import ListedFile
from antpitta.files.tables import write_csv
from antpitta.files.texts import atomic_replace, write_json
from antpitta.predict.camtrapdp import NAME, UNPLACED, DeploymentInfo, write_package
from antpitta.predict.exports import Part, append, or_empty_table, write_events
from antpitta.predict.journal import Journal, JournalEntry, explain_database_errors
from antpitta.scores.cells import clip_score_table

PART = 1000  # recordings at a time


@dataclass(frozen=True)
class TableCounts:
    """What an archive came to."""

    recordings: int
    events: int
    quarantined: int


@dataclass(frozen=True)
class Archive:
    """The files in question, in their order, and the journal that tells of them."""

    journal: Journal
    files: Sequence[ListedFile]
    broken: Sequence[Finding]  # files that are no sound by their name
    species: tuple[str, ...]

    def parts(self) -> Iterator[Part]:
        """All that was heard, some recordings at a time."""
        heard = ((file, one) for file, one in self._entries() if one.presence is not None)
        while part := list(islice(heard, PART)):
            yield part

    def quarantine(self) -> pd.DataFrame:
        """Rows file, reason of all that was not heard, or not wholly."""
        rows = [(finding.file, finding.what) for finding in self.broken]
        rows += [(str(one.path), one.reason) for _, one in self._entries() if one.reason]
        return pd.DataFrame(rows, columns=["file", "reason"])

    def _entries(self) -> Iterator[tuple[ListedFile, JournalEntry]]:
        by_path = {file.path: file for file in self.files}
        for one in self.journal.read(file.path for file in self.files):
            yield by_path[one.path], one


def write_tables(
    archive: Archive,
    out: Path,
    formats: Iterable[str],
    prevalence: NDArray[np.float64] | None,
    note: dict[str, Any],
    survey: DeploymentInfo | None = None,
) -> TableCounts:
    """presence.csv, the events in each of the ``formats``, quarantine.csv and run.json.

    With ``survey`` also camtrapdp/ and unplaced.csv; UserError where no recording is fit for
    it, but only when all the rest is written.

    ``prevalence`` (classes,) is the share of recordings that each species is expected in, NaN
    where nobody knows: the odds in presence.csv are rescaled to it. Events are left alone.
    """
    with explain_database_errors(out):
        recordings, events = _write_presence(archive, out / "presence.csv", prevalence)
        write_events(archive.parts, out, formats)
        quarantine = archive.quarantine()
        write_csv(quarantine, out / "quarantine.csv")
        packed = None if survey is None else write_package(archive.parts, out, survey)
        if packed is None:
            (out / UNPLACED).unlink(missing_ok=True)
        else:
            note = {**note, NAME: packed.counts()}
        counts = TableCounts(recordings, events, len(quarantine))
        write_json({**note, "counts": asdict(counts)}, out / "run.json")
        archive.journal.finish()
    if packed and packed.lacking and not packed.media:
        raise UserError(
            "E_TODO",
            f"{out / UNPLACED}: no recording is fit for {NAME}, all lack {' or '.join(packed.counts()['left_out'])}",
            "complete the table of places, then add --resume: nothing is heard again",
        )
    return counts


def _write_presence(
    archive: Archive, path: Path, prevalence: NDArray[np.float64] | None
) -> tuple[int, int]:
    """How many recordings were written, and how many events were found in them."""
    rescaled = None
    if prevalence is not None:
        from antpitta.scores.prevalence import rescale_odds

        whole = np.concatenate([np.zeros((0, len(archive.species)), np.float32),
                                *(_values(part) for part in archive.parts())])  # fmt: skip
        rescaled = rescale_odds(whole, prevalence).astype(np.float32)
    written = events = 0
    with atomic_replace(path) as unfinished:
        for part in or_empty_table(archive.parts()):
            until = written + len(part)
            value = _values(part) if rescaled is None else rescaled[written:until]
            table = clip_score_table([file.id for file, _ in part], value, archive.species)
            append(table, unfinished, first=not written)
            events += sum(len(one.events) for _, one in part)
            written = until
    return written, events


def _values(part: Part) -> NDArray[np.float32]:
    return np.array([one.presence for _, one in part], dtype=np.float32)
