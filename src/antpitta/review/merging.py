"""Neighbouring detections of one species in one recording become one candidate.

A detector that works in windows finds a long song several times, and a person should judge it once.
"""

import numpy as np
import pandas as pd

LONGEST = 10.0  # seconds of a candidate that is merged: what a person can judge at one glance
COLUMNS = ("recording_id", "species", "start_time", "end_time", "low_freq", "high_freq", "score")


def merge_detections(table: pd.DataFrame, max_gap: float) -> pd.DataFrame:
    """Merge the detections of a source that follow one another.

    Parameters
    ----------
    table : one row a detection, of one source, with :data:`COLUMNS` and others, which are kept of
        the first detection of each candidate
    max_gap : seconds between the end of one and the start of the next, at most

    Returns
    -------
    One row a candidate, with the highest score, the outermost edges, and ``detections``: start,
    end and score of each.
    """
    table = table.sort_values(["recording_id", "species", "start_time", "end_time"], kind="stable")
    columns = [table[name].tolist() for name in COLUMNS]
    rows: list[list[int]] = []
    end, begin, last = -np.inf, 0.0, None
    for i, (recording, species, start, stop) in enumerate(zip(*columns[:4], strict=True)):
        key = (recording, species)
        is_next = key == last and start - end <= max_gap and max(end, stop) - begin <= LONGEST
        if is_next:
            rows[-1].append(i)
            end = max(end, stop)
        else:
            rows.append([i])
            begin, end, last = start, stop, key
    first = table.iloc[[group[0] for group in rows]].reset_index(drop=True)
    _, _, start, stop, low, high, score = (np.array(column, dtype=object) for column in columns)
    spans = [
        [(start[i], stop[i], None if np.isnan(score[i]) else score[i]) for i in group]
        for group in rows
    ]
    merged = {
        "end_time": [max(stop[group]) for group in rows],
        "low_freq": [min(low[group]) for group in rows],
        "high_freq": [max(high[group]) for group in rows],
        "score": [
            max((score[i] for i in group if score[i] == score[i]), default=np.nan) for group in rows
        ],  # NaN is not itself
        "detections": spans,
    }
    return first.assign(**merged)
