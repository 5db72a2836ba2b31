"""predict: a model over recordings, to tables."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.archive.choir import Choir
from antpitta.archive.predict import Prediction, listen_to, predict_archive, write_prediction
from antpitta.core.errors import UserMistake
from antpitta.files.bundle import read_bundle
from antpitta.files.recordings import find_recordings
from antpitta.files.tables import read_frame

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


def read_prevalence(path: Path, species: tuple[str, ...]) -> NDArray[np.float64]:
    """The expected shares in the order of ``species``; NaN for those the table leaves out.

    Raises UserMistake for missing columns, a share outside 0..1, or no known species.
    """
    table = read_frame(path)
    if missing := {"species", "prevalence"} - set(table.columns):
        raise UserMistake(f"{path}: no column {sorted(missing)[0]!r}; give species,prevalence")
    shares = pd.to_numeric(table["prevalence"], errors="coerce")
    wrong = ~shares.between(0, 1)
    if wrong.any():
        raise UserMistake(f"{path}:{wrong.idxmax()}: prevalence is no share; write 0 to 1")
    given = dict(zip(table["species"], shares, strict=True))
    if not set(given) & set(species):
        raise UserMistake(f"{path}: none of the model's species, such as {species[0]}; name those")
    return np.array([given.get(name, np.nan) for name in species], dtype=np.float64)


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
