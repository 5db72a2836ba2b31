"""From framewise scores to the judged cells of validated boxes."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.types import Annotation, Classes, Scores


def box_cells(
    scores: Iterable[Scores], annotations: Iterable[Annotation], classes: Classes
) -> pd.DataFrame:
    """One row a box (and species, where a statement is about all): recording, species, present,
    score, start, stop, low, high.

    The score is the highest framewise one inside the box: only sound that somebody listened to
    is judged. Boxes of recordings without scores, and boxes beyond the scores' end, have no row.
    """
    by_recording: Mapping[str, Scores] = {one.recording: one for one in scores}
    rows = []
    for said in annotations:
        one = by_recording.get(said.recording)
        if one is None:
            continue
        inside = one.value[one.grid.rows(said.start, min(said.stop, one.grid.end))]
        if not len(inside):
            continue
        for column in classes.columns(said.label):
            rows.append(
                (
                    said.recording,
                    classes.names[column],
                    said.present,
                    float(inside[:, column].max()),
                    said.start,
                    min(said.stop, one.grid.end),
                    said.low,
                    said.high,
                )
            )
    names = ["recording", "species", "present", "score", "start", "stop", "low", "high"]
    return pd.DataFrame(rows, columns=names).astype({"present": bool, "score": float})


def presence(scores: Iterable[Scores]) -> pd.DataFrame:
    """The competition's layout: recording_id, then each species' highest score anywhere in it."""
    ids, rows, names = [], [], None
    for one in scores:
        ids.append(one.recording)
        rows.append(one.value.max(axis=0))
        names = one.classes.names
    return presence_table(ids, np.array(rows), names or ())


def presence_table(
    ids: list[str], value: NDArray[np.floating], names: tuple[str, ...]
) -> pd.DataFrame:
    """The layout of presence.csv; ``value`` is (recordings, classes)."""
    table = pd.DataFrame(value.reshape(len(ids), len(names)), columns=list(names))
    table.insert(0, "recording_id", ids)
    return table
