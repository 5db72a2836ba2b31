"""By what means an archive is heard: on this machine or on a cluster, and in which arithmetic.

predict_to: a model over an archive, to tables in a folder.

What reads and writes tables is loaded where it is asked for, and while the first sounds are heard:
it takes a third of a second that nothing is heard in.

predict, predict_each: a model over recordings, to framewise scores in memory.
"""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, cast, get_args

from antpitta.core.config import EventFormat, Executor, InferenceMode, Precision
from antpitta.core.errors import UserError
from antpitta.core.progress import ProgressCallback, no_progress
from antpitta.files.bundle import Bundle, read_bundle
from antpitta.files.cache import cache_folder
from antpitta.files.recordings import ListedFile, list_files
from antpitta.files.remote import Location, RemotePath, check_writable, location_of, upload
from antpitta.files.texts import remove_unfinished
from antpitta.model.inference import InferenceConfig
from antpitta.predict.cluster import predict_on_ray
from antpitta.predict.journal import Journal
from antpitta.predict.pipeline import cpu_count, predict_archive
from antpitta.predict.predictor import Predictor, resolve_precision

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from antpitta.predict.camtrapdp import DeploymentInfo
    from antpitta.predict.tables import TableCounts
from collections.abc import Iterator

import numpy as np
import pandas as pd

from antpitta.predict.pipeline import FileResult, failure_reason, predict_files


@dataclass(frozen=True)
class PredictionJob:
    """What was asked for; raises UserError for what does not go together."""

    executor: Executor
    inference: InferenceMode
    precision: Precision
    workers: int | None  # threads or actors; None: one a core
    address: str | None  # of a Ray cluster

    def __post_init__(self) -> None:
        known = get_args(Executor)
        if self.executor not in known:
            raise UserError(
                "E_TODO", f"--executor {self.executor}: unknown", f"choose from {', '.join(known)}"
            )
        if self.executor != "ray" and self.address:
            raise UserError("E_TODO", "--address: is of a Ray cluster", "add --executor ray")
        if self.workers is not None and self.workers < 1:
            raise UserError("E_TODO", f"--workers {self.workers}: give 1 or more, or leave it out")

    def key(self, bundle: Bundle) -> dict[str, str]:
        """What an earlier run must have in common with this one to be gone on with."""
        return {"digest": bundle.digest, "scan": self.inference, "precision": self.precision}

    def hear(
        self, bundle: Bundle, files: Sequence[ListedFile], journal: Journal, tick: ProgressCallback
    ) -> Precision:
        """Hear all that the journal does not have; the arithmetic that it was done in.

        "auto" is settled once and kept in the journal: a run that goes on, goes on in the same.
        """
        chosen = journal.settled(
            "arithmetic", lambda: resolve_precision(self.precision, self.inference, bundle)
        )
        settled = cast(Precision, chosen)
        count = _counting(tick, len(files))
        if self.executor == "ray":
            make = partial(Predictor, hearing=InferenceConfig(self.inference, settled))
            predict_on_ray(
                *(bundle, files, journal, count),
                workers=self.workers,
                address=self.address,
                make=make,
            )
        else:
            choir = Predictor(
                bundle, InferenceConfig(self.inference, settled, self.workers or cpu_count())
            )
            predict_archive(choir, files, journal, count)
        return settled


def _counting(tick: ProgressCallback, total: int) -> Callable[[int, float], None]:
    began, done, sound = time.monotonic(), 0, 0.0

    def count(files: int, seconds: float) -> None:
        nonlocal done, sound
        done, sound = done + files, sound + seconds
        tick(done, total, sound / max(time.monotonic() - began, 1e-9))

    return count


@dataclass(frozen=True)
class Prediction:
    """What was found in an archive; the tables are read from the folder where they lie."""

    path: Path
    counts: "TableCounts"

    @cached_property
    def presence(self) -> "pd.DataFrame":
        """recording_id, then a column a species."""
        return _read(self.path / "presence.csv", {"recording_id": str})

    @cached_property
    def events(self) -> "pd.DataFrame":
        """A row an event: file, start_time, end_time, low_freq, high_freq, species, score, model.

        Raises UserError where no format that can be read was asked for.
        """
        from antpitta.predict.exports import read_events

        return read_events(self.path)

    @cached_property
    def quarantine(self) -> "pd.DataFrame":
        """Rows file, reason."""
        return _read(self.path / "quarantine.csv", str)

    @cached_property
    def unplaced(self) -> "pd.DataFrame":
        """Rows file, reason of what is not in the Camtrap DP; none where there is no such thing."""
        from antpitta.predict.camtrapdp import UNPLACED

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
    deployments: Path | str | None = None,
    resume: bool = False,
    executor: Executor = "local",
    inference: InferenceMode = "full",
    precision: Precision = "auto",
    workers: int | None = None,
    address: str | None = None,
    tick: ProgressCallback = no_progress,
) -> Prediction:
    """Write presence.csv, events, quarantine.csv and run.json for every recording in ``audio``.

    ``prevalence`` is a table (species, prevalence) to which the odds in presence.csv are
    rescaled. ``deployments`` is the table (site, latitude, longitude, timezone) that the format
    camtrapdp needs. With ``resume`` what an earlier run heard there is not heard again, unless its
    file has changed. ``audio`` and ``out`` may be URLs (s3://, gs://). ``inference`` and ``precision``
    are told of in model/inference.py. The ``executor`` local has ``workers`` threads, ray (at
    ``address``) as many actors; None is one a core. Raises UserError for a model, table or folder
    that is not there, an unknown format, arithmetic that the model has no network for, a folder
    that another run is writing to, or one that cannot be written.
    """
    _check_formats(formats)
    means = PredictionJob(executor, inference, precision, workers, address)
    survey = _survey(audio, deployments) if "camtrapdp" in formats else None
    bundle = read_bundle(Path(model))
    files, broken = list_files([location_of(root) for root in audio])
    home = _home(place := location_of(out))
    expected = None if prevalence is None else _expected(Path(prevalence), bundle)
    with Journal(home, means.key(bundle), resume=resume) as journal:
        remove_unfinished(home)
        # Loaded meanwhile; a process that ends early waits for it.
        Thread(target=import_module, args=("antpitta.predict.tables",)).start()
        settled = means.hear(bundle, files, journal, tick)
        note = _note(bundle, prevalence, f"{inference}, {settled}")
        from antpitta.predict.tables import Archive, write_tables

        archive = Archive(journal, files, broken, bundle.species)
        counts = write_tables(archive, home, formats, expected, note, survey)
        if isinstance(place, RemotePath):
            upload(home, place)
    return Prediction(home, counts)


def _check_formats(formats: tuple[str, ...]) -> None:
    known = get_args(EventFormat)
    if strange := [name for name in formats if name not in known]:
        raise UserError(
            "E_TODO", f"--format {strange[0]}: unknown", f"choose from {', '.join(known)}"
        )


def _expected(table: Path, bundle: Bundle) -> "NDArray[np.float64]":
    from antpitta.files.tables import read_prevalence

    return read_prevalence(table, bundle.species)


def _survey(audio: Sequence[Location | str], deployments: Path | str | None) -> "DeploymentInfo":
    if deployments is None:
        raise UserError(
            "E_TODO",
            "--format camtrapdp: the standard wants to know where each site lies",
            "give --deployments, a table with columns site, latitude, longitude and timezone",
        )
    from antpitta.files.deployments import read_deployments
    from antpitta.predict.camtrapdp import DeploymentInfo, common_root

    return DeploymentInfo(
        read_deployments(Path(deployments)), common_root([location_of(root) for root in audio])
    )


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
        "versions": _versions("antpitta", "openvino", "torch"),
        "arithmetic": arithmetic,
    }


def _versions(*packages: str) -> dict[str, str | None]:
    """Installed versions; None for a package that is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


INDEX = ["file", "start_time", "end_time"]


def predict(
    model: Path | str,
    *audio: Path | str,
    inference: InferenceMode = "full",
    precision: Precision = "auto",
    workers: int | None = None,
) -> pd.DataFrame:
    """Framewise scores of every recording: index (file, start_time, end_time), one column a
    species. Recordings that cannot be read are left out, and named in ``attrs["quarantine"]``.

    How to compute is as for :func:`predict_to`. For an archive larger than memory take
    :func:`predict_each`.
    """
    how: Any = {"inference": inference, "precision": precision, "workers": workers}
    frames = list(predict_each(model, *audio, **how))
    table = pd.concat(frames)
    table.attrs["quarantine"] = [lost for one in frames for lost in one.attrs["quarantine"]]
    return table


def predict_each(
    model: Path | str,
    *audio: Path | str,
    inference: InferenceMode = "full",
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
    hearing = InferenceConfig(
        inference, resolve_precision(precision, inference, bundle), workers or cpu_count()
    )
    for one in predict_files(Predictor(bundle, hearing), files):
        if one.scores is None:
            yield _lost(bundle.species, str(one.file.path), failure_reason(one))
        else:
            yield _frame(one, bundle.species)


def _lost(species: tuple[str, ...], file: str, reason: str) -> pd.DataFrame:
    index = pd.MultiIndex.from_arrays([[], [], []], names=INDEX)
    empty = pd.DataFrame(index=index, columns=list(species), dtype=np.float32)
    empty.attrs["quarantine"] = [(file, reason)]
    return empty


def _frame(one: FileResult, species: tuple[str, ...]) -> pd.DataFrame:
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
