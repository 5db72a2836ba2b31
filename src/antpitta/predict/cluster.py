"""An archive on many machines: Ray computes, the journal of the calling machine stores.

- Entries come back a few recordings at a time and go into the same journal, under the same key, as
  on one machine. So a stopped run continues, no recording has two rows, and the tables are the same
  bytes.
- What a failed node was computing, Ray computes again elsewhere. A recording that comes back twice
  is stored once.
- A file that kills its reader (a fault in a decoder, no memory left) would do so forever. A
  register counts how often a file was started and not ended. After the third dead reader the file
  is quarantined. ``--resume`` tries it again.
- The model travels through Ray's object store, so nodes need no shared disk for it. An archive that
  is not a URL must be visible to all nodes under one path. Whether a file is gone, or only
  invisible to a node, is decided by a look from the calling machine.
- Files travel to the workers as rows of plain columns, entries come back pickled. An error that
  ends the run comes back as a value: Ray would wrap or retry an exception.
"""

import logging
import os
import pickle
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from socket import create_connection, gethostname
from typing import Any

from antpitta.core.errors import UserError
from antpitta.files.bundle import Bundle, BundleBytes, bundle_from_bytes, bundle_to_bytes
from antpitta.files.recordings import ListedFile
from antpitta.files.remote import RemotePath
from antpitta.predict.journal import GONE, Journal, JournalEntry, Stamp
from antpitta.predict.pipeline import file_stamp, journal_entry, predict_files
from antpitta.predict.predictor import Predictor

MAX_ATTEMPTS = 3  # readers that may die of a file; the first may have died of another one
BLOCK_FILES = 32  # files in a block, seconds of work: a dead worker loses its block
CONNECT_TIMEOUT = 10  # seconds
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}

Row = dict[str, Any]
Answer = JournalEntry | Exception  # an exception ends the run


def predict_on_ray(
    bundle: Bundle,
    files: Iterable[ListedFile],
    journal: Journal,
    count: Callable[[int, float], None],
    *,
    workers: int | None = None,
    address: str | None = None,
    make: Callable[[Bundle], Predictor] = Predictor,
) -> None:
    """Compute on a Ray cluster every file that the journal does not have, and store each.

    Parameters
    ----------
    bundle : the model
    files : the archive
    journal : open
    count : called with (files done, seconds of sound in them) since the last call
    workers : actors, each with one GPU if the cluster has GPUs, else with one CPU; None for as
        many as the cluster has
    address : of a cluster, or ``auto``; None starts one on this machine, unless RAY_ADDRESS names
        one or the caller is connected
    make : loads the predictor on a worker; it must be importable there

    Raises
    ------
    UserError
        ``E_NEEDS_RAY_EXTRA``, ``E_CLUSTER_UNREACHABLE``, ``E_CLUSTER_FAILED``,
        ``E_CLUSTER_VERSION`` or ``E_ARCHIVE_NOT_SHARED``.
    """
    waiting: dict[int, tuple[ListedFile, Stamp]] = {}
    for i, file in enumerate(files):
        stamp = file_stamp(file.source)
        if journal.has(file.path, stamp):
            count(1, 0.0)
        else:
            waiting[i] = (file, stamp)
    if not waiting:
        return
    with ray_session(workers, address) as ray:
        rows = [file_to_row(i, file, stamp) for i, (file, stamp) in waiting.items()]
        for i, entry in _predict_rows(ray, rows, ray.put(bundle_to_bytes(bundle)), make, workers):
            if (item := waiting.pop(i, None)) is not None:  # else it came twice
                _store(item[0], entry, journal, count)
    if waiting:
        first = next(iter(waiting.values()))[0].path
        raise UserError(
            "E_CLUSTER_FAILED",
            f"{len(waiting)} recordings did not come back from the cluster, such as {first}",
            "repeat the command with --resume",
        )


def _predict_rows(
    ray: Any,
    rows: Sequence[Row],
    bundle_reference: Any,
    make: Callable[[Bundle], Predictor],
    workers: int | None,
) -> Iterator[tuple[int, JournalEntry]]:
    """Index and entry of each file, in the order in which they are done."""
    from ray.data import ActorPoolStrategy, DataContext

    DataContext.get_current().enable_progress_bars = False
    resources = ray.cluster_resources()
    kind = "GPU" if resources.get("GPU") else "CPU"
    actors = workers or max(int(resources.get(kind, 1)), 1)
    block = max(1, min(BLOCK_FILES, len(rows) // (4 * actors)))
    data = ray.data.from_items(list(rows), override_num_blocks=-(-len(rows) // block))
    predicted = data.map_batches(
        PredictionWorker,
        batch_size=None,
        compute=ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        fn_constructor_args=(bundle_reference, _start_register(ray), make, version("antpitta")),
        **({"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}),
    )
    try:
        for batch in predicted.iter_batches(batch_size=None, batch_format="pyarrow"):
            columns = (batch.column(name).to_pylist() for name in ("index", "entry"))
            for i, packed in zip(*columns, strict=True):
                yield i, unpack_entry(packed)
    except ray.exceptions.RayError as error:
        raise UserError(
            "E_CLUSTER_FAILED",
            f"--executor ray: the cluster stopped ({_one_line(error, 300)})",
            "repeat the command with --resume, which keeps the finished recordings",
        ) from error


def _start_register(ray: Any) -> Any:
    """The register, on this node: if this node fails, so does the run."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    return ray.remote(AttemptRegister).options(**options, scheduling_strategy=here).remote()


def _store(
    file: ListedFile, entry: JournalEntry, journal: Journal, count: Callable[[int, float], None]
) -> None:
    if entry.stamp != GONE and "No such file" in entry.reason and file_stamp(file.source) != GONE:
        raise UserError(
            "E_ARCHIVE_NOT_SHARED",
            f"{file.path}: exists here, but not on a worker of the cluster",
            "mount the archive on every node under the same path, or name it as s3:// or gs://",
        )
    # Workers know a file by its absolute path, the user by the name in the command.
    reason = entry.reason.replace(str(entry.path), str(file.path))
    journal.add(replace(entry, path=file.path, reason=reason))
    count(1, entry.duration)


def file_to_row(index: int, file: ListedFile, stamp: Stamp) -> Row:
    """A file as a row of plain columns, with its absolute path.

    Parameters
    ----------
    index : its place in the archive
    file : as listed
    stamp : size and time of change

    Returns
    -------
    Columns index, id, path, remote, folder, channel, spectrogram, size and changed.
    """
    path = str(file.path.absolute() if isinstance(file.path, Path) else file.path)
    remote = isinstance(file.path, RemotePath)
    columns = {
        "id": file.id,
        "path": path,
        "remote": remote,
        "folder": file.folder or "",
        "channel": file.channel or 0,
        "spectrogram": "" if file.spectrogram is None else str(file.spectrogram.absolute()),
    }
    return {"index": index, **columns, "size": stamp[0], "changed": stamp[1]}


def row_to_file(row: Row) -> tuple[ListedFile, Stamp]:
    """The inverse of :func:`file_to_row`.

    Parameters
    ----------
    row : of one file

    Returns
    -------
    The file and its stamp.
    """
    stamp = (int(row["size"]), int(row["changed"]))
    path = RemotePath(str(row["path"]), stamp) if row["remote"] else Path(str(row["path"]))
    folder, channel = str(row["folder"]) or None, int(row["channel"]) or None
    spectrogram = Path(str(row["spectrogram"])) if row["spectrogram"] else None
    return ListedFile(str(row["id"]), path, folder, channel, spectrogram), stamp


def unpack_entry(packed: bytes) -> JournalEntry:
    """The entry that a worker returned; an error in its place is raised.

    Parameters
    ----------
    packed : the pickled answer

    Returns
    -------
    The entry.

    Raises
    ------
    UserError
        Or another exception, whatever happened on the worker.
    """
    answer = pickle.loads(packed)  # written by our own workers
    if isinstance(answer, Exception):
        raise answer
    assert isinstance(answer, JournalEntry)
    return answer


class AttemptRegister:
    """How often each block or file was started and not ended; one actor for the cluster."""

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """Note a start; returns how many earlier ones were not ended."""
        self.started[name] += 1
        return self.started[name] - 1

    def end(self, name: str) -> None:
        """Note that the worker survived: the count starts again."""
        del self.started[name]


class PredictionWorker:
    """An actor that turns blocks of files into entries; it loads the model with its first block.

    Parameters
    ----------
    bundle_reference : reference to the bundle's bytes in the object store
    register : handle of the AttemptRegister
    make : loads the predictor
    driver_version : version of antpitta on the calling machine
    """

    def __init__(
        self,
        bundle_reference: Any,
        register: Any,
        make: Callable[[Bundle], Predictor],
        driver_version: str,
    ) -> None:
        self.bundle_reference = bundle_reference
        self.register = register
        self.make = make
        self.driver_version = driver_version
        self.predictor: Predictor | None = None

    def __call__(self, batch: Row) -> Row:
        """Columns index and entry of a block; an error that ends the run replaces the entries."""
        rows = [
            {name: column[i] for name, column in batch.items()} for i in range(len(batch["index"]))
        ]
        block = f"block {rows[0]['index']}"
        repeated = self._ask_register("begin", block) > 0
        answers = [self._retry(row) for row in rows] if repeated else self._try(rows)
        self._ask_register("end", block)
        return {"index": batch["index"], "entry": [pickle.dumps(answer) for answer in answers]}

    def _retry(self, row: Row) -> Answer:
        """One file of a block that an earlier worker did not end."""
        name = f"file {row['index']}"
        if self._ask_register("begin", name) >= MAX_ATTEMPTS - 1:
            reason = f"{row['path']}: ended the process that read it, {MAX_ATTEMPTS - 1} times"
            return JournalEntry(row_to_file(row)[0].path, GONE, reason)
        [answer] = self._try([row])
        self._ask_register("end", name)
        return answer

    def _try(self, rows: list[Row]) -> Sequence[Answer]:
        try:
            return self._predict(rows)
        except UserError as error:
            return [error] * len(rows)
        except Exception:
            return [RuntimeError(traceback.format_exc())] * len(rows)

    def _ask_register(self, method: str, name: str) -> Any:
        import ray

        return ray.get(getattr(self.register, method).remote(name))

    def _predict(self, rows: list[Row]) -> list[JournalEntry]:
        if self.predictor is None:
            self.predictor = self._load()
        files = [row_to_file(row) for row in rows]
        stamps = {file.id: stamp for file, stamp in files}
        entries = {
            result.file.id: journal_entry(self.predictor, result, stamps[result.file.id])
            for result in predict_files(self.predictor, [file for file, _ in files])
        }
        return [entries[file.id] for file, _ in files]

    def _load(self) -> Predictor:
        import ray

        if (installed := version("antpitta")) != self.driver_version:
            raise UserError(
                "E_CLUSTER_VERSION",
                f"{gethostname()}: has antpitta {installed}, not {self.driver_version}",
                "install the same version on every node",
            )
        content: BundleBytes = ray.get(self.bundle_reference)
        with tempfile.TemporaryDirectory(prefix="antpitta-") as folder:
            return self.make(bundle_from_bytes(content, Path(folder)))


@contextmanager
def ray_session(workers: int | None, address: str | None) -> Iterator[Any]:
    """A connection to Ray; a cluster that was started here is stopped at the end.

    Parameters
    ----------
    workers : CPUs of a cluster that is started on this machine; None for all
    address : of a running cluster, or None

    Yields
    ------
    The module ray.

    Raises
    ------
    UserError
        ``E_NEEDS_RAY_EXTRA``, ``E_CLUSTER_UNREACHABLE``.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError(
            "E_NEEDS_RAY_EXTRA",
            "--executor ray needs the package ray, which is not installed",
            "run: pip install 'antpitta[ray]'",
        ) from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield ray
        return
    _check_address(address)
    options: dict[str, Any] = {"address": address}
    if not (address or os.environ.get("RAY_ADDRESS")):
        options = {"address": "local", "include_dashboard": False, "num_cpus": workers}
    try:
        ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address, error) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Try to connect to HOST:PORT; Ray itself would take minutes to fail."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or a name that Ray knows
    first_error: OSError | None = None
    for name in (host, gethostname()):  # a loopback address stands for the node's other ones
        try:
            create_connection((name, int(port)), timeout=CONNECT_TIMEOUT).close()
            return
        except OSError as error:
            first_error = first_error or error
        if host not in ("127.0.0.1", "localhost"):
            break
    raise _unreachable(address, first_error)


def _unreachable(address: str | None, error: Exception | None) -> UserError:
    return UserError(
        "E_CLUSTER_UNREACHABLE",
        f"--address {address}: no Ray cluster answers ({_one_line(error, 200)})",
        "start one with `ray start --head`, or leave --address out",
    )


def _one_line(error: Exception | None, limit: int) -> str:
    return " ".join(str(error).split())[:limit]
