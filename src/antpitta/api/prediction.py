"""predict: a model over recordings, to tables."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from antpitta.archive.choir import Choir
from antpitta.archive.cluster import hear_on_ray
from antpitta.archive.events import COLUMNS, FORMATS, TEXTS
from antpitta.archive.journal import Journal
from antpitta.archive.predict import Listened, hear_archive, listen_to, reason_of
from antpitta.archive.tables import Archive, Counts, write_tables
from antpitta.core.errors import UserMistake
from antpitta.files.bundle import read_bundle
from antpitta.files.cache import cache_folder
from antpitta.files.prevalence import read_prevalence
from antpitta.files.recordings import list_files
from antpitta.files.remote import Place, RemotePath, check_writable, place_of, send
from antpitta.files.tables import sweep

ENGINES = ("local", "ray")
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


def predict_to(
    model: Path | str,
    audio: Sequence[Path | RemotePath | str],
    out: Path | str,
    *,
    formats: tuple[str, ...] = ("csv",),
    prevalence: Path | str | None = None,
    resume: bool = False,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    tick: Tick = lambda done, total, speed: None,
) -> Prediction:
    """Write presence.csv, events, quarantine.csv and run.json for every recording in ``audio``.

    ``prevalence`` is a table (species, prevalence) to which the odds in presence.csv are
    rescaled. With ``resume`` what an earlier run heard there is not heard again, unless its file
    has changed. ``audio`` and ``out`` may be URLs (s3://, gs://). The engine is ``local`` or
    ``ray``, with ``workers`` and ``address`` as in archive/cluster.py. Raises
    UserMistake for a model or folder that is not there, an unknown format, a folder that another
    run is writing to, or one that cannot be written.
    """
    if strange := [name for name in formats if name not in FORMATS]:
        raise UserMistake(f"--format {strange[0]}: unknown; choose from {', '.join(FORMATS)}")
    _check_engine(engine, workers, address)
    bundle = read_bundle(Path(model))
    files, broken = list_files([place_of(root) for root in audio])
    home = _home(place := place_of(out))
    expected = None if prevalence is None else read_prevalence(Path(prevalence), bundle.species)
    note = {
        "model": bundle.name,
        "digest": bundle.digest,
        "thresholds": bundle.thresholds,
        "prevalence": None if prevalence is None else str(prevalence),
        "versions": {name: version(name) for name in ("antpitta", "torch", "timm")},
    }
    with Journal(home, {"digest": bundle.digest}, resume=resume) as journal:
        sweep(home)
        count = _counting(tick, len(files))
        if engine == "ray":
            hear_on_ray(bundle, files, journal, count, workers=workers, address=address)
        else:
            hear_archive(Choir(bundle), files, journal, count)
        archive = Archive(journal, files, broken, bundle.species)
        counts = write_tables(archive, home, formats, expected, note)
        if isinstance(place, RemotePath):
            send(home, place)
    return Prediction(home, counts)


def _check_engine(engine: str, workers: int | None, address: str | None) -> None:
    if engine not in ENGINES:
        raise UserMistake(f"--engine {engine}: unknown; choose from {', '.join(ENGINES)}")
    if engine != "ray" and (workers or address):
        raise UserMistake("--workers and --address: are for many machines; add --engine ray")
    if workers is not None and workers < 1:
        raise UserMistake(f"--workers {workers}: give 1 or more, or leave it out")


def _home(out: Place) -> Path:
    """Where the journal lies: in the folder itself, or in the cache where that is a URL."""
    if isinstance(out, Path):
        return out
    check_writable(out)
    digest = blake2b(out.url.rstrip("/").encode(), digest_size=8).hexdigest()
    return cache_folder() / "remote" / digest


def _counting(tick: Tick, total: int) -> Callable[[int, float], None]:
    began, done, sound = time.monotonic(), 0, 0.0

    def count(files: int, seconds: float) -> None:
        nonlocal done, sound
        done, sound = done + files, sound + seconds
        tick(done, total, sound / max(time.monotonic() - began, 1e-9))

    return count


def predict(model: Path | str, *audio: Path | str) -> pd.DataFrame:
    """Framewise scores of every recording: index (file, start_time, end_time), one column a
    species. Recordings that cannot be read are left out, and named in ``attrs["quarantine"]``.

    For an archive larger than memory take :func:`predict_each`.
    """
    frames = list(predict_each(model, *audio))
    table = pd.concat(frames)
    table.attrs["quarantine"] = [lost for one in frames for lost in one.attrs["quarantine"]]
    return table


def predict_each(model: Path | str, *audio: Path | str) -> Iterator[pd.DataFrame]:
    """What :func:`predict` gives, one recording after the other.

    A file that cannot be read comes as a table of no rows.
    """
    bundle = read_bundle(Path(model))
    files, broken = list_files([place_of(root) for root in audio])
    for finding in broken:
        yield _lost(bundle.species, finding.file, finding.what)
    for one in listen_to(Choir(bundle), files):
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
