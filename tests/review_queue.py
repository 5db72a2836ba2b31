"""A small review queue over simulated recordings, for the tests of the review page."""

import numpy as np
import pandas as pd

from antpitta.files.audio import content_key
from antpitta.files.recordings import find_recordings
from antpitta.review.store import Store

SPECIES = ("wren", "robin", "<b>frog</b>")


def make_queue(folder, audio, count=24, purpose="audit"):
    """A queue of `count` candidates in the recordings of a folder, all of them in one draw."""
    recordings = find_recordings([audio]).recordings
    rng = np.random.default_rng(5)
    rows = []
    for i in range(count):
        recording = recordings[i % len(recordings)]
        start = round(float(rng.uniform(0, recording.duration - 1.5)), 3)
        rows.append(
            {
                "recording_id": recording.id,
                "recording_digest": content_key(recording.path),
                "start_time": start,
                "end_time": start + 1.0,
                "low_freq": 1000.0,
                "high_freq": 4000.0 if i % 4 else None,
                "species": SPECIES[i % len(SPECIES)],
                "score": float(rng.random()),
                "source": "model",
                "source_digest": "abc",
                "site": f"site{i % 2}",
                "recorded_at": f"2025-05-{1 + i % 20:02}T0{i % 9}:00:00",
            }
        )
    with Store.open(folder, create=True) as store:
        store.add_candidates(pd.DataFrame(rows))
        items = [{"candidate": i + 1, "stratum": "a", "inclusion_p": 1.0} for i in range(count)]
        store.create_draw(purpose, "test", 1, items, model_digest="abc")
    return folder
