"""submission.csv: the scores of an archive in the rows and columns of a sample.

- The sample gives ``recording_id`` and one column per species; its values are not used. Recordings
  and species are found by the rules of core/identity.py and written as the sample spells them.
- A competition refuses a table with gaps, so a recording without scores has the mean of each
  species over the sample's other recordings. It changes their ranking least, and is reported. A
  species that the model could not learn has the score 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.errors import UserError, list_names
from antpitta.core.identity import recording_key
from antpitta.files.audio import SUFFIXES
from antpitta.files.tables import read_frame, write_csv
from antpitta.scores.tables import KEY, index_by_recording, locate_names, locate_species

FILE = "submission.csv"


@dataclass(frozen=True)
class SampleSubmission:
    """The rows and columns of a submission.

    Parameters
    ----------
    path : of the sample
    columns : its header, which holds ``recording_id``
    recordings : its ids, in its order
    """

    path: Path
    columns: tuple[str, ...]
    recordings: tuple[str, ...]

    @property
    def species(self) -> tuple[str, ...]:
        """The names of the columns of scores."""
        return tuple(name for name in self.columns if name.strip() != KEY)

    def write(self, value: NDArray[np.floating], path: Path) -> None:
        """Write scores as a table of these rows and columns.

        Parameters
        ----------
        value : (recordings, species)
        path : replaced atomically
        """
        table = pd.DataFrame(value, columns=pd.Index(self.species, dtype=object))
        at = [name.strip() for name in self.columns].index(KEY)
        table.insert(at, self.columns[at], list(self.recordings))
        write_csv(table, path)


def read_sample(path: Path) -> SampleSubmission:
    """Read a sample submission.

    Parameters
    ----------
    path : of a table ``recording_id``, then one column per species

    Returns
    -------
    sample : at least one recording and one species

    Raises
    ------
    UserError
        E_SCORE_TABLE for ids or columns that are missing or occur twice, and for a table without
        rows or species; those of :func:`antpitta.files.tables.read_frame`.
    """
    frame = read_frame(path)
    table = index_by_recording(frame, str(path))
    if not len(table) or not len(table.columns):
        what = "rows" if len(table.columns) else "columns of species"
        raise UserError(
            "E_SCORE_TABLE",
            f"{path} has no {what}",
            f"give a table with {KEY}, a column for each species and a row for each recording",
        )
    return SampleSubmission(path, tuple(map(str, frame.columns)), tuple(map(str, table.index)))


@dataclass
class Submission:
    """A sample that is filled with the scores of an archive.

    Parameters
    ----------
    sample : rows and columns
    rows : id of a file -> the sample's rows of this recording
    species : (species of the sample,), the model's column of each
    value : (recordings, species), NaN where there are no scores
    """

    sample: SampleSubmission
    rows: dict[str, list[int]]
    species: list[int]
    value: NDArray[np.float64] = field(repr=False)

    @classmethod
    def prepare(cls, path: Path, species: Sequence[str], ids: Sequence[str]) -> "Submission":
        """Find the recordings and species of a sample before anything is computed.

        Parameters
        ----------
        path : of the sample
        species : of the model
        ids : of the archive's files

        Returns
        -------
        submission : without scores

        Raises
        ------
        UserError
            E_SCORES_MISSING if the model lacks species of the sample, E_NO_MATCHING_AUDIO if none
            of its recordings is here, and those of :func:`read_sample`.
        """
        sample = read_sample(path)
        columns = locate_species(pd.DataFrame(columns=list(species)), sample.species)
        if missing := [n for n, at in zip(sample.species, columns, strict=True) if at is None]:
            raise UserError(
                "E_SCORES_MISSING",
                f"{path} has species that the model does not score: {list_names(missing, 3)}; "
                f"it scores {list_names(species, 3)}",
                "name its columns like the model's species, or use a model of these species",
            )
        located = locate_names(ids, sample.recordings, _file_key)
        rows: dict[str, list[int]] = {}
        for row, at in enumerate(located):
            if at is not None:
                rows.setdefault(ids[at], []).append(row)
        if not rows:
            first = f", the files such as {ids[0]!r}" if ids else ""
            raise UserError(
                "E_NO_MATCHING_AUDIO",
                f"{path}: none of its {len(located)} recordings is here; it has names such as "
                f"{sample.recordings[0]!r}{first}",
                "give the folder of its recordings",
            )
        value = np.full((len(located), len(columns)), np.nan)
        return cls(sample, rows, [at for at in columns if at is not None], value)

    def add(self, ids: Sequence[str], value: NDArray[np.floating]) -> None:
        """Keep the scores (recordings, classes) of files with these ids."""
        for id, scores in zip(ids, value, strict=True):
            for row in self.rows.get(id, ()):
                self.value[row] = scores[self.species]

    @property
    def filled(self) -> tuple[str, ...]:
        """The recordings without scores, which have the means of the others."""
        return tuple(
            id for id, own in zip(self.sample.recordings, self._is_blank(), strict=True) if own
        )

    @property
    def has_scores(self) -> bool:
        """Whether any recording has scores."""
        return len(self.filled) < len(self.sample.recordings)

    def write(self, path: Path) -> None:
        """Write the table, which must have scores of one recording at least."""
        blank = self._is_blank()
        filled = np.where(blank[:, np.newaxis], self.value[~blank].mean(axis=0), self.value)
        self.sample.write(filled.astype(np.float32), path)

    def _is_blank(self) -> NDArray[np.bool_]:
        """Which recordings have no scores: (recordings,)."""
        return np.asarray(np.isnan(self.value).any(axis=1), dtype=bool)

    def notes(
        self, species: Sequence[str], recordings: int, unlearnt: Sequence[str]
    ) -> tuple[str, ...]:
        """What of the model and of the archive is not in the submission.

        Parameters
        ----------
        species : of the model
        recordings : number of recordings with scores
        unlearnt : species that were not learnable

        Returns
        -------
        notes : lines for the user
        """
        without_rows = recordings - sum(
            not np.isnan(self.value[rows]).any() for rows in self.rows.values()
        )
        notes = []
        if without_rows:
            notes.append(f"{without_rows} recordings are not in the sample, nor in {FILE}")
        if blank := [n for at, n in enumerate(species) if at in self.species and n in unlearnt]:
            notes.append(f"species that were not learnable have the score 0: {list_names(blank)}")
        if others := [name for i, name in enumerate(species) if i not in self.species]:
            notes.append(f"species not in the sample, nor in {FILE}: {list_names(others)}")
        return tuple(notes)


def _file_key(name: str) -> str:
    """What an id and the name of its file have in common."""
    path = PurePosixPath(name)
    stem = path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else name
    return recording_key(stem)
