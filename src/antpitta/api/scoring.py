"""predict, predict_each: a model over recordings, to framewise scores in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from antpitta.archive.choir import Choir
from antpitta.archive.engines import settle
from antpitta.archive.listening import Listened, cores, listen_to
from antpitta.archive.predict import reason_of
from antpitta.core.choices import Precision, Scan
from antpitta.files.bundle import read_bundle
from antpitta.files.recordings import list_files
from antpitta.files.remote import location_of
from antpitta.net.engines import Hearing

INDEX = ["file", "start_time", "end_time"]


def predict(
    model: Path | str,
    *audio: Path | str,
    scan: Scan = "whole",
    precision: Precision = "auto",
    workers: int | None = None,
) -> pd.DataFrame:
    """Framewise scores of every recording: index (file, start_time, end_time), one column a
    species. Recordings that cannot be read are left out, and named in ``attrs["quarantine"]``.

    How to compute is as for :func:`predict_to`. For an archive larger than memory take
    :func:`predict_each`.
    """
    how: Any = {"scan": scan, "precision": precision, "workers": workers}
    frames = list(predict_each(model, *audio, **how))
    table = pd.concat(frames)
    table.attrs["quarantine"] = [lost for one in frames for lost in one.attrs["quarantine"]]
    return table


def predict_each(
    model: Path | str,
    *audio: Path | str,
    scan: Scan = "whole",
    precision: Precision = "auto",
    workers: int | None = None,
) -> Iterator[pd.DataFrame]:
    """What :func:`predict` gives, one recording after the other.

    A file that cannot be read comes as a table of no rows.
    """
    bundle = read_bundle(Path(model))
    files, broken = list_files([location_of(root) for root in audio])
    for finding in broken:
        yield _lost(bundle.species, finding.file, finding.what)
    hearing = Hearing(scan, settle(precision, scan, bundle), workers or cores())
    for one in listen_to(Choir(bundle, hearing), files):
        if one.scores is None:
            yield _lost(bundle.species, str(one.file.path), reason_of(one))
        else:
            yield _frame(one, bundle.species)


def _lost(species: tuple[str, ...], file: str, reason: str) -> pd.DataFrame:
    index = pd.MultiIndex.from_arrays([[], [], []], names=INDEX)
    empty = pd.DataFrame(index=index, columns=list(species), dtype=np.float32)
    empty.attrs["quarantine"] = [(file, reason)]
    return empty


def _frame(one: Listened, species: tuple[str, ...]) -> pd.DataFrame:
    assert one.scores is not None
    grid = one.scores.grid
    start = grid.start + np.arange(grid.frames) * grid.hop
    index = pd.MultiIndex.from_arrays(
        [[str(one.file.path)] * grid.frames, start, start + grid.hop],
        names=INDEX,
    )
    table = pd.DataFrame(one.scores.value, index, list(species))
    table.attrs["quarantine"] = []
    return table
