"""predict: a model over recordings, to tables."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from antpitta.archive.choir import Choir
from antpitta.archive.predict import Prediction, listen_to, predict_archive, write_prediction
from antpitta.core.errors import UserMistake
from antpitta.files.bundle import read_bundle
from antpitta.files.prevalence import read_prevalence
from antpitta.files.recordings import find_recordings

FORMATS = ("csv", "parquet")


def predict_to(
    model: Path | str,
    audio: Sequence[Path | str],
    out: Path | str,
    *,
    formats: tuple[str, ...] = ("csv",),
    prevalence: Path | str | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Prediction:
    """Write presence.csv, events, quarantine.csv and run.json for every recording in ``audio``.

    ``prevalence`` is a table (species, prevalence) to which the odds in presence.csv are
    rescaled. Raises UserMistake for a model or folder that is not there, or an unknown format.
    """
    if strange := [name for name in formats if name not in FORMATS]:
        raise UserMistake(f"--format {strange[0]}: unknown; choose from {', '.join(FORMATS)}")
    bundle = read_bundle(Path(model))
    found = find_recordings([Path(root) for root in audio])
    choir = Choir(bundle)
    expected = None if prevalence is None else read_prevalence(Path(prevalence), bundle.species)
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        tick(done, len(found.recordings))

    prediction = predict_archive(choir, found.recordings, found.findings, count, expected)
    note = {
        "model": bundle.name,
        "digest": bundle.digest,
        "thresholds": bundle.thresholds,
        "prevalence": None if prevalence is None else str(prevalence),
        "versions": {name: version(name) for name in ("antpitta", "torch", "timm")},
    }
    write_prediction(prediction, Path(out), formats, note)
    return prediction


def predict(model: Path | str, *audio: Path | str) -> pd.DataFrame:
    """Framewise scores of every recording: index (file, start_time, end_time), one column a
    species. Recordings that cannot be read are left out, and named in ``attrs["quarantine"]``.
    """
    bundle = read_bundle(Path(model))
    found = find_recordings([Path(root) for root in audio])
    choir = Choir(bundle)
    frames, lost = [], [(finding.file, finding.what) for finding in found.findings]
    for one in listen_to(choir, found.recordings, lambda done: None):
        if one.scores is None:
            lost.append((str(one.recording.path), one.reason))
            continue
        grid = one.scores.grid
        start = grid.start + np.arange(grid.frames) * grid.hop
        index = pd.MultiIndex.from_arrays(
            [[str(one.recording.path)] * grid.frames, start, start + grid.hop],
            names=["file", "start_time", "end_time"],
        )
        frames.append(pd.DataFrame(one.scores.value, index, list(bundle.species)))
    table = pd.concat(frames) if frames else pd.DataFrame(columns=list(bundle.species))
    table.attrs["quarantine"] = lost
    return table
