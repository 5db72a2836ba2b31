"""What runs on a cluster's nodes: workers that hear, and a register of what kills them.

Files travel there as rows of plain columns, and come back as pickled answers: the journal's entry,
or why the run must end. That is no exception, which Ray would wrap, or retry.

A Ray cluster's start and end: found at an address, or started on this machine.

An archive on many machines: Ray hears, the driver's one journal remembers.

- What is heard comes back a few recordings at a time and is kept at once, in the same journal and
  by the same key as on one machine. So everything that holds there holds here: a run that was
  stopped goes on, no recording has two rows, and the tables come out as the same bytes.
- What is lost with a node Ray does again elsewhere; a recording that comes twice is kept once. A
  file that kills its reader (a hole in a decoder, no memory left) would so kill for ever: a
  register counts how often a file was begun and not ended, and the third reader that dies of it is
  its last. Such a file is quarantined, and tried again by --resume.
- The model travels through Ray's object store: nodes need no disk in common for it. An archive
  that is no URL they must all see under one path; a node that does not is told apart from a file
  that is gone by looking from here.
- What the nodes run is in predict/cluster.py, how a cluster is reached in predict/cluster.py.
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
from antpitta.predict.journal import GONE, Journal, JournalEntry
from antpitta.predict.pipeline import Tick, file_stamp, journal_entry, predict_files
from antpitta.predict.predictor import Predictor

ATTEMPTS = 3  # readers that a file may kill, the first of which is not sure to be its

Row = dict[str, Any]
Stamp = tuple[int, int]
Answer = JournalEntry | str | Exception  # the last two end the run


def file_to_row(index: int, file: ListedFile, stamp: Stamp) -> Row:
    """A file as workers are told of it, by its absolute path."""
    path = str(file.path.absolute() if isinstance(file.path, Path) else file.path)
    remote = isinstance(file.path, RemotePath)
    told = {"id": file.id, "path": path, "remote": remote, "folder": file.folder or ""}
    return {"index": index, **told, "size": stamp[0], "changed": stamp[1]}


def row_to_file(row: Row) -> tuple[ListedFile, Stamp]:
    """The inverse of :func:`file_to_row`."""
    stamp = (int(row["size"]), int(row["changed"]))
    path = RemotePath(str(row["path"]), stamp) if row["remote"] else Path(str(row["path"]))
    return ListedFile(str(row["id"]), path, str(row["folder"]) or None), stamp


def unpack_entry(packed: bytes) -> JournalEntry:
    """What a worker answered; raised, where it is to end the run."""
    came = pickle.loads(packed)  # from our own workers
    if isinstance(came, str):
        raise UserError("E_TODO", came)
    if isinstance(came, Exception):
        raise came
    assert isinstance(came, JournalEntry)
    return came


class AttemptRegister:
    """What was begun and not ended, and how often; one for the cluster."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()

    def begin(self, what: str) -> int:
        """How often it was begun before, and not ended."""
        self.begun[what] += 1
        return self.begun[what] - 1

    def end(self, what: str) -> None:
        """Whoever began it lived."""
        del self.begun[what]


class PredictionWorker:
    """One worker: loads the model when its first files come, and turns files into entries."""

    def __init__(
        self, parcel: Any, register: Any, make: Callable[[Bundle], Predictor], wrote: str
    ) -> None:
        self.parcel = parcel  # a reference into the object store
        self.register = register
        self.make = make
        self.wrote = wrote  # the driver's version
        self.choir: Predictor | None = None

    def __call__(self, batch: Row) -> Row:
        """Entries of the files, or, in their place, why the run must end."""
        rows = [
            {name: column[i] for name, column in batch.items()} for i in range(len(batch["index"]))
        ]
        block = f"block {rows[0]['index']}"
        again = self._tell("begin", block) > 0
        came = [self._hear_again(row) for row in rows] if again else self._try(rows)
        self._tell("end", block)
        return {"index": batch["index"], "entry": [pickle.dumps(one) for one in came]}

    def _hear_again(self, row: Row) -> Answer:
        """One file of a block that did not come to its end."""
        mark = f"file {row['index']}"
        if self._tell("begin", mark) >= ATTEMPTS - 1:
            reason = f"{row['path']}: killed its reader, time after time"
            return JournalEntry(row_to_file(row)[0].path, GONE, reason)
        [came] = self._try([row])
        self._tell("end", mark)
        return came

    def _try(self, rows: list[Row]) -> Sequence[Answer]:
        try:
            return self._hear(rows)
        except UserError as mistake:
            return [str(mistake)] * len(rows)
        except Exception:
            return [RuntimeError(traceback.format_exc())] * len(rows)

    def _tell(self, verb: str, what: str) -> Any:
        import ray

        return ray.get(getattr(self.register, verb).remote(what))

    def _hear(self, rows: list[Row]) -> list[JournalEntry]:
        if self.choir is None:
            self.choir = self._ready()
        asked = [row_to_file(row) for row in rows]
        stamps = {file.id: stamp for file, stamp in asked}
        heard = {
            one.file.id: journal_entry(self.choir, one, stamps[one.file.id])
            for one in predict_files(self.choir, [file for file, _ in asked])
        }
        return [heard[file.id] for file, _ in asked]

    def _ready(self) -> Predictor:
        import ray

        if (mine := version("antpitta")) != self.wrote:
            raise UserError(
                "E_TODO",
                f"{gethostname()}: has antpitta {mine}, not {self.wrote}",
                "install one version everywhere",
            )
        parcel: BundleBytes = ray.get(self.parcel)
        with tempfile.TemporaryDirectory(prefix="antpitta-") as folder:
            return self.make(bundle_from_bytes(parcel, Path(folder)))


QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}


@contextmanager
def ray_session(workers: int | None, address: str | None) -> Iterator[Any]:
    """Ray, connected; what was started here is stopped here."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError(
            "E_TODO", "--executor ray: Ray is not installed", "pip install 'antpitta[ray]'"
        ) from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield ray
        return
    _knock(address)
    started: dict[str, Any] = {"address": address}
    if not (address or os.environ.get("RAY_ADDRESS")):
        started = {"address": "local", "include_dashboard": False, "num_cpus": workers}
    try:
        ray.init(**started, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as trouble:
        raise _unreachable(address, trouble) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Whether anybody listens at HOST:PORT: Ray itself takes minutes to find out."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or a name that Ray knows
    trouble: OSError | None = None
    for name in (host, gethostname()):  # a node's loopback stands for its other addresses
        try:
            create_connection((name, int(port)), timeout=10).close()
            return
        except OSError as refused:
            trouble = trouble or refused
        if host not in ("127.0.0.1", "localhost"):
            break
    raise _unreachable(address, trouble)


def _unreachable(address: str | None, trouble: Exception | None) -> UserError:
    said = " ".join(str(trouble).split())[:200]
    return UserError(
        "E_TODO",
        f"--address {address}: no Ray cluster can be reached ({said})",
        "start one with `ray start --head`, or leave --address out",
    )


TOGETHER = 32  # files in a block, seconds of work: what a dead worker had in hand is heard again


def predict_on_ray(
    bundle: Bundle,
    files: Iterable[ListedFile],
    journal: Journal,
    tick: Tick,
    *,
    workers: int | None = None,
    address: str | None = None,
    make: Callable[[Bundle], Predictor] = Predictor,
) -> None:
    """Hear on a Ray cluster all that the journal does not have, and keep it there as it comes.

    ``workers`` actors, of one processor or one GPU each where the cluster has GPUs; as many as it
    has, if None. ``address`` is a cluster's, or "auto"; a cluster is started on this machine for
    None, unless RAY_ADDRESS names one or the caller is connected already. ``make`` turns the
    bundle into listeners, over there: it must be importable. Raises UserError where Ray is
    not installed or cannot be reached.
    """
    waiting: dict[int, tuple[ListedFile, Stamp]] = {}
    for i, file in enumerate(files):
        stamp = file_stamp(file.path)
        if journal.has(file.path, stamp):
            tick(1, 0.0)
        else:
            waiting[i] = (file, stamp)
    if not waiting:
        return
    with ray_session(workers, address) as ray:
        rows = [file_to_row(i, file, stamp) for i, (file, stamp) in waiting.items()]
        for i, entry in _heard(ray, rows, ray.put(bundle_to_bytes(bundle)), make, workers):
            if (asked := waiting.pop(i, None)) is not None:  # else it came twice
                _keep(asked[0], entry, journal, tick)
    if waiting:
        first = next(iter(waiting.values()))[0].path
        raise UserError(
            "E_TODO",
            f"{len(waiting)} recordings did not come back from the cluster, {first} among them",
            "give the same command with --resume",
        )


def _heard(
    ray: Any,
    rows: Sequence[Row],
    parcel: Any,
    make: Callable[[Bundle], Predictor],
    workers: int | None,
) -> Iterator[tuple[int, JournalEntry]]:
    """What comes back, as it comes."""
    from ray.data import ActorPoolStrategy, DataContext

    DataContext.get_current().enable_progress_bars = False
    told = ray.cluster_resources()
    kind = "GPU" if told.get("GPU") else "CPU"
    count = workers or max(int(told.get(kind, 1)), 1)
    together = max(1, min(TOGETHER, len(rows) // (4 * count)))
    data = ray.data.from_items(list(rows), override_num_blocks=-(-len(rows) // together))
    heard = data.map_batches(
        PredictionWorker,
        batch_size=None,
        compute=ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
        fn_constructor_args=(parcel, _register(ray), make, version("antpitta")),
        **({"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}),
    )
    try:
        for batch in heard.iter_batches(batch_size=None, batch_format="pyarrow"):
            columns = (batch.column(name).to_pylist() for name in ("index", "entry"))
            for i, packed in zip(*columns, strict=True):
                yield i, unpack_entry(packed)
    except ray.exceptions.RayError as trouble:
        said = " ".join(str(trouble).split())[:300]
        raise UserError(
            "E_TODO",
            f"--executor ray: the cluster gave up ({said})",
            "what was heard so far is kept: give the same command with --resume",
        ) from trouble


def _register(ray: Any) -> Any:
    """On this node: what dies with it dies with the run."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    return ray.remote(AttemptRegister).options(**options, scheduling_strategy=here).remote()


def _keep(file: ListedFile, entry: JournalEntry, journal: Journal, tick: Tick) -> None:
    if entry.stamp != GONE and "No such file" in entry.reason and file_stamp(file.path) != GONE:
        raise UserError(
            "E_TODO",
            f"{file.path}: is there, but a worker does not see it",
            "mount the archive on every node under the same path, or give it as s3:// or gs://",
        )
    # Workers know a file by its absolute path; here it is called what the user calls it.
    reason = entry.reason.replace(str(entry.path), str(file.path))
    journal.keep(replace(entry, path=file.path, reason=reason))
    tick(1, entry.seconds)
