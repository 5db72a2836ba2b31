"""Folds that keep together what belongs together.

A site is never split, nor a recording where no site is known; a recording's present and absent
boxes stay on one side with it. Groups are dealt so that every fold gets its share of each
species' presents and absents (iterative stratification, Sechidis et al. 2011).
"""

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from numpy.typing import NDArray

from antpitta.core.errors import UserMistake
from antpitta.core.types import Dataset


def deal_folds(dataset: Dataset, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each recording: (recordings,).

    Where there are fewer sites than folds, recordings are dealt instead. Raises UserMistake
    where even those are too few.
    """
    groups = group_recordings(dataset, folds)
    names, of = np.unique(groups, return_inverse=True)
    if len(names) < folds:
        raise UserMistake(
            f"{len(names)} recordings cannot be dealt to {folds} folds; "
            f"give more recordings, or --set folds={max(2, len(names))}"
        )
    flags = np.zeros((len(names), 2 * len(dataset.classes)), dtype=np.int64)
    place = {recording.id: i for i, recording in enumerate(dataset.recordings)}
    for said in dataset.annotations:
        for column in dataset.classes.columns(said.label):
            flags[of[place[said.recording]], 2 * column + said.present] = 1
    dealt = np.zeros(len(names), dtype=np.int64)
    dealer = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(dealer.split(np.zeros(len(names)), flags)):
        dealt[held_out] = fold
    if len(np.unique(dealt)) < folds:  # too few labels to steer by: deal in turn
        dealt = np.random.default_rng(seed).permutation(np.arange(len(names)) % folds)
    return dealt[of]


def group_recordings(dataset: Dataset, folds: int) -> list[str]:
    """What a fold must not split, for each recording: its site, or itself."""
    sites = {recording.site for recording in dataset.recordings if recording.site}
    if len(sites) < folds:
        return [recording.id for recording in dataset.recordings]
    return [
        f"site {recording.site}" if recording.site else recording.id
        for recording in dataset.recordings
    ]
