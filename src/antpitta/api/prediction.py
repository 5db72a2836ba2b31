"""predict_to: a model over an archive, to tables in a folder.

What reads and writes tables is loaded where it is asked for, and while the first sounds are heard:
it takes a third of a second that nothing is heard in.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, get_args

from antpitta.api.means import Means, Tick
from antpitta.archive.journal import Journal
from antpitta.core.choices import Engine, Form, Precision, Scan
from antpitta.core.errors import UserMistake
from antpitta.files.bundle import Bundle, read_bundle
from antpitta.files.cache import cache_folder
from antpitta.files.recordings import list_files
from antpitta.files.remote import Location, RemotePath, check_writable, location_of, send
from antpitta.files.texts import sweep

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from antpitta.archive.placing import Survey
    from antpitta.archive.tables import Counts


@dataclass(frozen=True)
class Prediction:
    """What was found in an archive; the tables are read from the folder where they lie."""

    path: Path
    counts: "Counts"

    @cached_property
    def presence(self) -> "pd.DataFrame":
        """recording_id, then a column a species."""
        return _read(self.path / "presence.csv", {"recording_id": str})

    @cached_property
    def events(self) -> "pd.DataFrame":
        """A row an event: file, start_time, end_time, low_freq, high_freq, species, score, model.

        Raises UserMistake where no format that can be read was asked for.
        """
        from antpitta.archive.events import read_events

        return read_events(self.path)

    @cached_property
    def quarantine(self) -> "pd.DataFrame":
        """Rows file, reason."""
        return _read(self.path / "quarantine.csv", str)

    @cached_property
    def unplaced(self) -> "pd.DataFrame":
        """Rows file, reason of what is not in the Camtrap DP; none where there is no such thing."""
        from antpitta.archive.camtrap import UNPLACED

        path = self.path / UNPLACED
        return _read(path if path.is_file() else io.StringIO("file,reason\n"), str)


def _read(table: Path | io.StringIO, types: Any) -> "pd.DataFrame":
    import pandas as pd

    return pd.read_csv(table, dtype=types)


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
    _check_formats(formats)
    means = Means(engine, scan, precision, workers, address)
    survey = _survey(audio, places) if "camtrapdp" in formats else None
    bundle = read_bundle(Path(model))
    files, broken = list_files([location_of(root) for root in audio])
    home = _home(place := location_of(out))
    expected = None if prevalence is None else _expected(Path(prevalence), bundle)
    with Journal(home, means.key(bundle), resume=resume) as journal:
        sweep(home)
        # Loaded meanwhile; a process that ends early waits for it.
        Thread(target=import_module, args=("antpitta.archive.tables",)).start()
        settled = means.hear(bundle, files, journal, tick)
        note = _note(bundle, prevalence, f"{scan}, {settled}")
        from antpitta.archive.tables import Archive, write_tables

        archive = Archive(journal, files, broken, bundle.species)
        counts = write_tables(archive, home, formats, expected, note, survey)
        if isinstance(place, RemotePath):
            send(home, place)
    return Prediction(home, counts)


def _check_formats(formats: tuple[str, ...]) -> None:
    known = get_args(Form)
    if strange := [name for name in formats if name not in known]:
        raise UserMistake(f"--format {strange[0]}: unknown; choose from {', '.join(known)}")


def _expected(table: Path, bundle: Bundle) -> "NDArray[np.float64]":
    from antpitta.files.prevalence import read_prevalence

    return read_prevalence(table, bundle.species)


def _survey(audio: Sequence[Location | str], places: Path | str | None) -> "Survey":
    if places is None:
        raise UserMistake(
            "--format camtrapdp: the standard wants to know where each site lies; give --places, a"
            " table with columns site, latitude, longitude and timezone"
        )
    from antpitta.archive.placing import Survey, home_of
    from antpitta.files.places import read_places

    return Survey(read_places(Path(places)), home_of([location_of(root) for root in audio]))


def _home(out: Location) -> Path:
    """Where the journal lies: in the folder itself, or in the cache where that is a URL."""
    if isinstance(out, Path):
        return out
    check_writable(out)
    digest = blake2b(out.url.rstrip("/").encode(), digest_size=8).hexdigest()
    return cache_folder() / "remote" / digest


def _note(bundle: Bundle, prevalence: Path | str | None, arithmetic: str) -> dict[str, Any]:
    """What run.json tells of a run, before anything is counted."""
    return {
        "model": bundle.name,
        "digest": bundle.digest,
        "thresholds": bundle.thresholds,
        "prevalence": None if prevalence is None else str(prevalence),
        "versions": {name: version(name) for name in ("antpitta", "openvino", "torch")},
        "arithmetic": arithmetic,
    }
