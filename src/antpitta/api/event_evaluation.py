"""Event-level F1: the events of a prediction against every call that really was there."""

from collections.abc import Hashable
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from antpitta.core.errors import UserMistake
from antpitta.core.types import Annotation, Event
from antpitta.files.dataset import class_names
from antpitta.files.formats import read_table
from antpitta.files.tables import read_frame
from antpitta.scores.event_metrics import event_f1

OVERLAP = 0.2  # intersection over union: a step of the scores is half a second, some calls shorter
NUMBERS = ["start_time", "end_time", "low_freq", "high_freq", "score"]


def evaluate_events(found: Path | str, truth: Path | str) -> pd.DataFrame:
    """Rows species, tp, fp, fn, precision, recall, f1, then macro and micro.

    ``found`` is a folder that predict wrote, or its events.csv; ``truth`` a table of every call,
    in any format of annotations. Only recordings that were predicted count.
    Raises UserMistake where the two have no recording in common.
    """
    path = Path(found)
    folder = path if path.is_dir() else path.parent
    table = read_frame(path / "events.csv" if path.is_dir() else path)
    heard = set(read_frame(folder / "presence.csv")["recording_id"])
    events = [_event(row) for row in table.to_dict("records")]
    said = read_table(Path(truth), True).annotations
    labels = class_names({one.label for one in said})
    calls = [
        Annotation(PurePath(one.recording).stem, one.start, one.stop, labels[one.label])
        for one in said
    ]
    if not heard & {one.recording for one in calls}:
        raise UserMistake(f"{truth}: names none of the recordings in {folder}; give their truth")
    return event_f1(events, calls, overlap=OVERLAP, recordings=heard)


def _event(row: dict[Hashable, Any]) -> Event:
    start, stop, low, high, score = (float(row[name]) for name in NUMBERS)
    recording = PurePath(row["file"]).stem
    return Event(recording, start, stop, row["species"], score, row["model"], low, high)
