"""The test set of a benchmark: recordings and their complete ground truth, checked beforehand.

Whatever could fail after hours of training is checked first: a truth without a species, a recording
without its truth, and a test recording that is a training recording too.
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
from antpitta.scores.tables import sample_names

KEY = "recording_id"


@dataclass(frozen=True)
class TestSet:
    """Recordings that no variant trains on, and their ground truth."""

    audio: tuple[Path, ...]  # as given: files and folders
    recordings: tuple[Recording, ...]
    truth: pd.DataFrame  # recording_id, then one column per species
    classes: Classes
    digest: str  # of the sound, so that predictions of other sound are not reused
    events: Path | None = None  # a table of every call
    notes: tuple[str, ...] = ()

    def evaluate(self, scores: pd.DataFrame, source: str) -> Report:
        """Evaluate a table of clip scores against the truth, without confidence intervals.

        Parameters
        ----------
        scores : ``recording_id``, then one column per species
        source : the name of the report

        Returns
        -------
        Report
            LWLRAP, macro AP and macro AUC.
        """
        cells = truth_cells(self.truth, scores)
        rng = np.random.default_rng(0)  # not used: there are no bootstrap draws
        return evaluate_cells(cells, self.classes, source, draws=0, rng=rng)


def read_test_set(
    audio: Sequence[Path], truth: Path, events: Path | None, dataset: Dataset
) -> TestSet:
    """Open the test recordings and check them against their truth and the training data.

    Parameters
    ----------
    audio : files and folders of test recordings
    truth : a table, ``recording_id`` and then 1, 0 or blank per species
    events : a table of every call in them, in any known format
    dataset : the training data

    Returns
    -------
    TestSet
        The test set; its notes count what is left out.

    Raises
    ------
    UserError
        E_TEST_SET_TRUTH, E_TEST_SET_TRAINED_ON, or a code of the readers of sound and tables.
    """
    table = read_truth(truth, dataset.classes)
    opened = find_recordings(list(audio))
    ids = [recording.id for recording in opened.recordings]
    if missing := sorted(set(table[KEY]) - set(ids)):
        raise UserError(
            "E_TEST_SET_TRUTH",
            f"{truth}: {sample_names(missing)} are not among the test recordings",
            "add the recordings",
        )
    keys = {recording.id: content_key(recording.path) for recording in opened.recordings}
    trained_on = {content_key(recording.path) for recording in dataset.recordings}
    if shared := sorted(name for name, key in keys.items() if key in trained_on):
        raise UserError(
            "E_TEST_SET_TRAINED_ON",
            f"test recordings are training recordings too: {sample_names(shared)}",
            "remove them from the test recordings",
        )
    if events is not None:
        _check_events(events, set(ids))
    digest = hashlib.blake2b(repr(sorted(keys.items())).encode(), digest_size=16).hexdigest()
    notes = [f"{len(opened.findings)} test files cannot be read"] if opened.findings else []
    if without_truth := len(set(ids) - set(table[KEY])):
        notes.append(f"{without_truth} test recordings are not in the truth")
    test_set = TestSet(
        *(tuple(audio), opened.recordings, table, dataset.classes, digest, events, tuple(notes))
    )
    zeros = np.zeros((len(ids), len(dataset.classes)))
    # Values of the truth other than 1, 0 and blank are refused here.
    test_set.evaluate(clip_score_table(ids, zeros, dataset.classes.names), "the truth")
    return test_set


def read_truth(path: Path, classes: Classes) -> pd.DataFrame:
    """Read a table of ground truth with exactly these species.

    Parameters
    ----------
    path : a table, ``recording_id`` and then 1, 0 or blank per species
    classes : the species

    Returns
    -------
    DataFrame
        ``recording_id``, then the species in the order of the classes; NaN where blank.

    Raises
    ------
    UserError
        E_TEST_SET_TRUTH where a column is missing or unknown.
    """
    table = read_frame(path)
    if KEY not in table.columns:
        raise UserError(
            "E_TEST_SET_TRUTH",
            f"{path} has no column {KEY}",
            f"give {KEY}, then one column per species",
        )
    columns = set(table.columns) - {KEY}
    if missing := set(classes.names) - columns:
        raise UserError(
            "E_TEST_SET_TRUTH",
            f"{path} lacks the species {sample_names(missing)}",
            "add a column with 1, 0 or blank for each",
        )
    if unknown := columns - set(classes.names):
        raise UserError(
            "E_TEST_SET_TRUTH",
            f"{path}: the species {sample_names(unknown)} are in no training table",
            "remove these columns",
        )
    return table.replace("", np.nan)[[KEY, *classes.names]]


def _check_events(path: Path, ids: set[str]) -> None:
    annotations = read_table(path, True).annotations
    if not ids & {PurePath(annotation.recording).stem for annotation in annotations}:
        raise UserError(
            "E_TEST_SET_TRUTH",
            f"{path} names none of the test recordings",
            "give a table of their calls",
        )
