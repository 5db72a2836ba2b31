"""What variants are examined by: test recordings and their whole truth, checked beforehand.

Everything that could go wrong after hours of training is looked at first: a truth without a
species, a recording without its truth, or a test recording that is a training recording too.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from antpitta.core.errors import UserError
from antpitta.core.types import Classes, Dataset, Recording
from antpitta.files.audio import content_key
from antpitta.files.formats import read_table
from antpitta.files.recordings import find_recordings
from antpitta.files.tables import read_frame
from antpitta.scores.cells import clip_score_table, truth_cells
from antpitta.scores.evaluate import Report, evaluate_cells
from antpitta.scores.tables import list_names

KEY = "recording_id"


@dataclass(frozen=True)
class TestSet:
    """Recordings that no variant learns from, and what really is in them."""

    audio: tuple[Path, ...]
    recordings: tuple[Recording, ...]
    truth: pd.DataFrame  # recording_id, then the species
    classes: Classes
    digest: str  # of the sound: a prediction of other sound is none of this exam
    events: Path | None = None
    notes: tuple[str, ...] = ()

    def judge(self, scores: pd.DataFrame, source: str) -> Report:
        """A table of scores against the truth, without intervals."""
        cells = truth_cells(self.truth, scores)
        rng = np.random.default_rng(0)  # never drawn from: no draws
        return evaluate_cells(cells, self.classes, source, draws=0, rng=rng)


def read_test_set(
    audio: Sequence[Path], truth: Path, events: Path | None, dataset: Dataset
) -> TestSet:
    """Open the test recordings and their truth. Raises UserError for anything amiss."""
    table = read_truth(truth, dataset.classes)
    found = find_recordings(list(audio))
    ids = [recording.id for recording in found.recordings]
    if gone := sorted(set(table[KEY]) - set(ids)):
        raise UserError(
            "E_TODO",
            f"{truth}: {list_names(gone)} are not among the test recordings",
            "add the sound",
        )
    keys = {recording.id: content_key(recording.path) for recording in found.recordings}
    known = {content_key(recording.path) for recording in dataset.recordings}
    if seen := sorted(name for name, key in keys.items() if key in known):
        raise UserError(
            "E_TODO",
            f"{list_names(seen)}: test recordings that are trained on too",
            "take them out",
        )
    if events is not None:
        _check_events(events, set(ids))
    told = hashlib.blake2b(repr(sorted(keys.items())).encode(), digest_size=16).hexdigest()
    notes = [f"{len(found.findings)} test files cannot be read"] if found.findings else []
    if rest := len(set(ids) - set(table[KEY])):
        notes.append(f"{rest} test recordings are not in the truth")
    exam = TestSet(
        *(tuple(audio), found.recordings, table, dataset.classes, told, events, tuple(notes))
    )
    blank = clip_score_table(ids, np.zeros((len(ids), len(dataset.classes))), dataset.classes.names)
    exam.judge(blank, "the truth")  # finds what is neither 1, 0 nor blank
    return exam


def read_truth(path: Path, classes: Classes) -> pd.DataFrame:
    """A table of truth that has just these species. Raises UserError where it has not."""
    table = read_frame(path)
    if KEY not in table.columns:
        raise UserError(
            "E_TODO", f"{path}: has no column {KEY}", f"give {KEY} and then a column a species"
        )
    columns = set(table.columns) - {KEY}
    if gone := set(classes.names) - columns:
        raise UserError(
            "E_TODO",
            f"{path}: lacks the species {list_names(gone)}",
            "add 1, 0 or nothing for each",
        )
    if strange := columns - set(classes.names):
        raise UserError(
            "E_TODO", f"{path}: species {list_names(strange)} are in no training table", "drop them"
        )
    return table.replace("", np.nan)[[KEY, *classes.names]]


def _check_events(path: Path, ids: set[str]) -> None:
    said = read_table(path, True).annotations
    if not ids & {PurePath(one.recording).stem for one in said}:
        raise UserError("E_TODO", f"{path}: names none of the test recordings", "give their calls")
