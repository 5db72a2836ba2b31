"""An archive on one machine: every recording heard, and none lost without a word.

Recordings that cannot be read go to quarantine.csv with the reason, and the rest goes on. Tables
are written once all is heard; a journal, engines and more machines are this room's later work.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.archive.choir import Choir
from antpitta.core.errors import Finding
from antpitta.core.types import Event, Recording, Scores
from antpitta.files.audio import UnreadableAudio, read
from antpitta.files.tables import replacing, write_csv, write_json
from antpitta.net.embedding import NoVector
from antpitta.scores.boxes import presence_table
from antpitta.scores.events import find_events
from antpitta.scores.prevalence import rescale_odds

EVENT_COLUMNS = [
    "file", "start_time", "end_time", "low_freq", "high_freq", "species", "score", "model",
]  # fmt: skip
LEAST, GAP = 0.3, 0.6  # seconds: the shortest event, the longest pause inside one


@dataclass(frozen=True)
class Listened:
    """One recording: heard, or not and why."""

    recording: Recording
    presence: NDArray[np.float32] | None = None  # (classes,)
    scores: Scores | None = None
    reason: str = ""


@dataclass(frozen=True)
class Prediction:
    """What was found in an archive; the same tables that are written."""

    presence: pd.DataFrame  # recording_id, then the species
    events: pd.DataFrame  # EVENT_COLUMNS
    quarantine: pd.DataFrame  # file, reason


def listen_to(
    choir: Choir, recordings: Iterable[Recording], tick: Callable[[int], None]
) -> Iterator[Listened]:
    """Hear each recording in turn; what cannot be read comes back with its reason."""
    for recording in recordings:
        try:
            presence, scores = choir.listen(recording, _reader)
            yield Listened(recording, presence, scores)
        except (UnreadableAudio, OSError, NoVector) as error:
            yield Listened(recording, reason=str(error))
        tick(1)


def predict_archive(
    choir: Choir,
    recordings: Iterable[Recording],
    broken: Iterable[Finding],
    tick: Callable[[int], None] = lambda done: None,
    prevalence: NDArray[np.float64] | None = None,
) -> Prediction:
    """Hear an archive; ``broken`` are the files that did not even open.

    ``prevalence`` (classes,) is the share of recordings that each species is expected in, NaN
    where nobody knows: the odds in ``presence`` are rescaled to it. Events are left alone.
    """
    ids, rows, events = [], [], []
    quarantine = [(finding.file, finding.what) for finding in broken]
    for one in listen_to(choir, recordings, tick):
        if one.presence is None or one.scores is None:
            quarantine.append((str(one.recording.path), one.reason))
            continue
        ids.append(one.recording.id)
        rows.append(one.presence)
        events += [_event_row(one.recording, event) for event in _events(choir, one.scores)]
    value = np.array(rows, dtype=np.float32).reshape(len(rows), len(choir.classes))
    if prevalence is not None and rows:
        value = rescale_odds(value, prevalence)
    return Prediction(
        presence_table(ids, value, choir.classes.names),
        pd.DataFrame(events, columns=EVENT_COLUMNS),
        pd.DataFrame(quarantine, columns=["file", "reason"]),
    )


def write_prediction(
    prediction: Prediction, out: Path, formats: tuple[str, ...], note: dict[str, Any]
) -> None:
    """Write presence.csv, the events in each of the ``formats``, quarantine.csv and run.json."""
    out.mkdir(parents=True, exist_ok=True)
    write_csv(prediction.presence, out / "presence.csv")
    if "csv" in formats:
        write_csv(prediction.events, out / "events.csv")
    if "parquet" in formats:
        with replacing(out / "events.parquet") as part:
            prediction.events.to_parquet(part, index=False)
    write_csv(prediction.quarantine, out / "quarantine.csv")
    counts = {
        "recordings": len(prediction.presence),
        "events": len(prediction.events),
        "quarantined": len(prediction.quarantine),
    }
    write_json({**note, "counts": counts}, out / "run.json")


def _events(choir: Choir, scores: Scores) -> list[Event]:
    bundle = choir.bundle
    thresholds = {name: bundle.thresholds.get(name, 0.5) for name in bundle.species}
    return find_events(scores, thresholds, bands=bundle.bands, least=LEAST, gap=GAP, smooth=1)


def _event_row(recording: Recording, event: Event) -> tuple[Any, ...]:
    top = min(event.high, recording.sample_rate / 2)
    stop = min(event.stop, recording.duration)
    found = (round(event.start, 3), round(stop, 3), round(event.low, 1), round(top, 1))
    return (str(recording.path), *found, event.label, round(event.score, 6), event.source)


def _reader(sample_rate: int) -> Callable[[Recording, float, float], NDArray[np.float32]]:
    return partial(read, sample_rate=sample_rate)
