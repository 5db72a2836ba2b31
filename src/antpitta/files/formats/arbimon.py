"""Arbimon's pattern-matching export: one row a match, ``validated`` by an expert or not yet.

Times are seconds (``x1``, ``x2``) from the start of a one-minute slice, see slices.py;
frequencies are Hz (``y1``, ``y2``), and ``frequency`` is only the Nyquist frequency. Where
one recording's name occurs at several sites, the site goes before it as a folder would.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from antpitta.core.types import Annotation
from antpitta.files.filenames import start_from_name
from antpitta.files.formats.sheet import AnnotationTable, Sheet, TableFormat, has
from antpitta.files.formats.slices import slice_starts
from antpitta.files.formats.writing import digits, edges, verdicts
from antpitta.files.tables import read_frame, write_csv

NEEDS = ("recording", "species", "x1", "x2", "y1", "y2", "validated")


def read(path: Path, verdict: bool | None = None) -> AnnotationTable:
    sheet = Sheet("arbimon", path, read_frame(path))
    recording = sheet.text("recording")
    recording = with_site(recording, sheet.text("site", "site_id", empty=""))
    shift = slice_starts(sheet, recording, _moments(sheet, recording), to_the_minute=True)
    return sheet.table(
        recording=recording,
        start=shift + sheet.numbers("x1"),
        stop=shift + sheet.numbers("x2"),
        label=sheet.text("species"),
        judged=sheet.judged(verdict, "validated"),
        low=sheet.numbers("y1", empty=0.0),
        high=sheet.numbers("y2", empty=np.inf),
        songtype=sheet.text("songtype", empty=""),
        score=sheet.numbers("score", empty=np.nan),
    )


def with_site(recording: np.ndarray, site: np.ndarray) -> np.ndarray:
    """``site/recording`` where a recording's name occurs at several sites."""
    sites = pd.Series(site).groupby(recording).transform("nunique").to_numpy()
    rows = zip(recording, site, sites, strict=True)
    return np.array([f"{s}/{r}" if n > 1 and s else r for r, s, n in rows], dtype=object)


def _moments(sheet: Sheet, recording: np.ndarray) -> pd.Series:
    """Each row's time to the minute; a row without a date takes that of its file's name."""
    day = {part: sheet.numbers(part, empty=np.nan) for part in ("year", "month", "day")}
    dates = pd.to_datetime(pd.DataFrame(day), errors="coerce").astype("datetime64[us]")
    began = {name: start_from_name(name) for name in set(recording)}
    named = pd.to_datetime(pd.Series(recording).map(began)).astype("datetime64[us]")
    dates = dates.fillna(named.dt.normalize())
    hour = sheet.numbers("hour", empty=np.nan)
    minute = sheet.numbers("minute", "min", empty=np.nan)
    return dates + pd.to_timedelta(pd.Series(hour * 60 + minute), unit="min")


def write(annotations: Sequence[Annotation], path: Path) -> None:
    """The export's columns, each recording as one slice that begins with its file."""
    began = [start_from_name(said.recording) for said in annotations]
    columns = {
        "id": [str(i + 1) for i in range(len(annotations))],
        "recording": [said.recording for said in annotations],
        "site": [""] * len(annotations),
        **{
            part: ["" if when is None else str(getattr(when, part)) for when in began]
            for part in ("year", "month", "day", "hour", "minute")
        },
        "species": [said.label for said in annotations],
        "songtype": [said.songtype for said in annotations],
        "x1": digits(said.start for said in annotations),
        "x2": digits(said.stop for said in annotations),
        "y1": digits(said.low for said in annotations),
        "y2": edges(said.high for said in annotations),
        "frequency": [""] * len(annotations),
        "validated": verdicts(annotations, absent="not present"),
        "url": [""] * len(annotations),
        "score": digits(said.score for said in annotations),
        "site_id": [""] * len(annotations),
    }
    write_csv(pd.DataFrame(columns), path)


ARBIMON = TableFormat("arbimon", NEEDS, lambda header: has(header, NEEDS), read, write)
