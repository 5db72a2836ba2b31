"""predict: a model over recordings, to tables."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pandas as pd

from antpitta.archive.camtrap import NAME, UNPLACED, Survey, home_of
from antpitta.archive.choir import Choir
from antpitta.archive.cluster import hear_on_ray
from antpitta.archive.engines import settle
from antpitta.archive.events import COLUMNS, FORMATS, TEXTS
from antpitta.archive.journal import Journal
from antpitta.archive.listening import Listened, cores, listen_to
from antpitta.archive.predict import hear_archive, reason_of
from antpitta.archive.tables import Archive, Counts, write_tables
from antpitta.core.choices import Engine, Precision, Scan
from antpitta.core.errors import UserMistake
from antpitta.files.bundle import read_bundle
from antpitta.files.cache import cache_folder
from antpitta.files.places import read_places
from antpitta.files.prevalence import read_prevalence
from antpitta.files.recordings import list_files
from antpitta.files.remote import Location, RemotePath, check_writable, location_of, send
from antpitta.files.tables import sweep
from antpitta.net.engines import Hearing

INDEX = ["file", "start_time", "end_time"]
Tick = Callable[[int, int, float], None]  # files done, of how many, times real time


@dataclass(frozen=True)
class Prediction:
    """What was found in an archive; the tables are read from the folder where they lie."""

    path: Path
    counts: Counts

    @cached_property
    def presence(self) -> pd.DataFrame:
        """recording_id, then a column a species."""
        return pd.read_csv(self.path / "presence.csv", dtype={"recording_id": str})

    @cached_property
    def events(self) -> pd.DataFrame:
        """A row an event: file, start_time, end_time, low_freq, high_freq, species, score, model.

        Raises UserMistake where no format that can be read was asked for.
        """
        if (self.path / "events.parquet").is_file():
            return pd.read_parquet(self.path / "events.parquet")
        if not (self.path / "events.csv").is_file():
            raise UserMistake(f"{self.path}: holds no table of events; predict with --format csv")
        text = dict.fromkeys(TEXTS, str)
        return pd.read_csv(self.path / "events.csv", dtype=text)[list(COLUMNS)]

    @cached_property
    def quarantine(self) -> pd.DataFrame:
        """Rows file, reason."""
        return pd.read_csv(self.path / "quarantine.csv", dtype=str)

    @cached_property
    def unplaced(self) -> pd.DataFrame:
        """Rows file, reason of what is not in the Camtrap DP; none where there is no such thing."""
        if not (self.path / UNPLACED).is_file():
            return pd.DataFrame(columns=["file", "reason"])
        return pd.read_csv(self.path / UNPLACED, dtype=str)


def predict_to(
    model: Path | str,
    audio: Sequence[Path | RemotePath | str],
    out: Path | str,
    *,
    formats: tuple[str, ...] = ("csv",),
    prevalence: Path | str | None = None,
    places: Path | str | None = None,
    resume: bool = False,
    engine: Engine = "local",
    scan: Scan = "whole",
    precision: Precision = "auto",
    workers: int | None = None,
    address: str | None = None,
    tick: Tick = lambda done, total, speed: None,
) -> Prediction:
    """Write presence.csv, events, quarantine.csv and run.json for every recording in ``audio``.

    ``prevalence`` is a table (species, prevalence) to which the odds in presence.csv are
    rescaled. ``places`` is the table (site, latitude, longitude, timezone) that the format
    camtrapdp needs. With ``resume`` what an earlier run heard there is not heard again, unless its
    file has changed. ``audio`` and ``out`` may be URLs (s3://, gs://). ``scan`` and ``precision``
    are told of in net/engines.py. The ``engine`` local has ``workers`` threads, ray (at
    ``address``) as many actors; None is one a core. Raises UserMistake for a model, table or folder
    that is not there, an unknown format, arithmetic that the model has no network for, a folder
    that another run is writing to, or one that cannot be written.
    """
    known = (*FORMATS, NAME)
    if strange := [name for name in formats if name not in known]:
        raise UserMistake(f"--format {strange[0]}: unknown; choose from {', '.join(known)}")
    _check_engine(engine, workers, address)
    survey = _survey(audio, places) if NAME in formats else None
    bundle = read_bundle(Path(model))
    files, broken = list_files([location_of(root) for root in audio])
    home = _home(place := location_of(out))
    expected = None if prevalence is None else read_prevalence(Path(prevalence), bundle.species)
    note = {
        "model": bundle.name,
        "digest": bundle.digest,
        "thresholds": bundle.thresholds,
        "prevalence": None if prevalence is None else str(prevalence),
        "versions": {name: version(name) for name in ("antpitta", "openvino", "torch")},
    }
    key = {"digest": bundle.digest, "scan": scan, "precision": precision}
    with Journal(home, key, resume=resume) as journal:
        sweep(home)
        chosen = journal.settled("arithmetic", lambda: settle(precision, scan, bundle))
        settled = cast(Precision, chosen)
        note["arithmetic"] = f"{scan}, {settled}"
        count = _counting(tick, len(files))
        if engine == "ray":
            make = partial(Choir, hearing=Hearing(scan, settled))
            hear_on_ray(bundle, files, journal, count, workers=workers, address=address, make=make)
        else:
            choir = Choir(bundle, Hearing(scan, settled, workers or cores()))
            hear_archive(choir, files, journal, count)
        archive = Archive(journal, files, broken, bundle.species)
        counts = write_tables(archive, home, formats, expected, note, survey)
        if isinstance(place, RemotePath):
            send(home, place)
    return Prediction(home, counts)


def _check_engine(engine: str, workers: int | None, address: str | None) -> None:
    if engine not in get_args(Engine):
        raise UserMistake(f"--engine {engine}: unknown; choose from {', '.join(get_args(Engine))}")
    if engine != "ray" and address:
        raise UserMistake("--address: is of a Ray cluster; add --engine ray")
    if workers is not None and workers < 1:
        raise UserMistake(f"--workers {workers}: give 1 or more, or leave it out")


def _home(out: Location) -> Path:
    """Where the journal lies: in the folder itself, or in the cache where that is a URL."""
    if isinstance(out, Path):
        return out
    check_writable(out)
    digest = blake2b(out.url.rstrip("/").encode(), digest_size=8).hexdigest()
    return cache_folder() / "remote" / digest


def _survey(audio: Sequence[Location | str], places: Path | str | None) -> Survey:
    if places is None:
        raise UserMistake(
            f"--format {NAME}: the standard wants to know where each site lies; give --places, a"
            " table with columns site, latitude, longitude and timezone"
        )
    return Survey(read_places(Path(places)), home_of([location_of(root) for root in audio]))


def _counting(tick: Tick, total: int) -> Callable[[int, float], None]:
    began, done, sound = time.monotonic(), 0, 0.0

    def count(files: int, seconds: float) -> None:
        nonlocal done, sound
        done, sound = done + files, sound + seconds
        tick(done, total, sound / max(time.monotonic() - began, 1e-9))

    return count


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
