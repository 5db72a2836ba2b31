"""An archive on many machines: Ray hears, the driver's one journal remembers.

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
- What the nodes run is in archive/actors.py, how a cluster is reached in archive/connection.py.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from antpitta.archive.actors import Hearer, Register, Row, Stamp, entry_in, row_of
from antpitta.archive.choir import Choir
from antpitta.archive.connection import connected
from antpitta.archive.journal import GONE, Entry, Journal
from antpitta.archive.predict import Tick, stamp_of
from antpitta.core.errors import UserMistake
from antpitta.files.bundle import Bundle
from antpitta.files.parcel import pack
from antpitta.files.recordings import Listed

TOGETHER = 32  # files in a block, seconds of work: what a dead worker had in hand is heard again


def hear_on_ray(
    bundle: Bundle,
    files: Iterable[Listed],
    journal: Journal,
    tick: Tick,
    *,
    workers: int | None = None,
    address: str | None = None,
    make: Callable[[Bundle], Choir] = Choir,
) -> None:
    """Hear on a Ray cluster all that the journal does not have, and keep it there as it comes.

    ``workers`` actors, of one processor or one GPU each where the cluster has GPUs; as many as it
    has, if None. ``address`` is a cluster's, or "auto"; a cluster is started on this machine for
    None, unless RAY_ADDRESS names one or the caller is connected already. ``make`` turns the
    bundle into listeners, over there: it must be importable. Raises UserMistake where Ray is
    not installed or cannot be reached.
    """
    waiting: dict[int, tuple[Listed, Stamp]] = {}
    for i, file in enumerate(files):
        stamp = stamp_of(file.path)
        if journal.has(file.path, stamp):
            tick(1, 0.0)
        else:
            waiting[i] = (file, stamp)
    if not waiting:
        return
    with connected(workers, address) as ray:
        rows = [row_of(i, file, stamp) for i, (file, stamp) in waiting.items()]
        for i, entry in _heard(ray, rows, ray.put(pack(bundle)), make, workers):
            if (asked := waiting.pop(i, None)) is not None:  # else it came twice
                _keep(asked[0], entry, journal, tick)
    if waiting:
        first = next(iter(waiting.values()))[0].path
        raise UserMistake(
            f"{len(waiting)} recordings did not come back from the cluster, {first} among them; "
            "give the same command with --resume"
        )


def _heard(
    ray: Any,
    rows: Sequence[Row],
    parcel: Any,
    make: Callable[[Bundle], Choir],
    workers: int | None,
) -> Iterator[tuple[int, Entry]]:
    """What comes back, as it comes."""
    from ray.data import ActorPoolStrategy, DataContext

    DataContext.get_current().enable_progress_bars = False
    told = ray.cluster_resources()
    kind = "GPU" if told.get("GPU") else "CPU"
    count = workers or max(int(told.get(kind, 1)), 1)
    together = max(1, min(TOGETHER, len(rows) // (4 * count)))
    data = ray.data.from_items(list(rows), override_num_blocks=-(-len(rows) // together))
    heard = data.map_batches(
        Hearer,
        batch_size=None,
        compute=ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
        fn_constructor_args=(parcel, _register(ray), make, version("antpitta")),
        **({"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}),
    )
    try:
        for batch in heard.iter_batches(batch_size=None, batch_format="pyarrow"):
            columns = (batch.column(name).to_pylist() for name in ("index", "entry"))
            for i, packed in zip(*columns, strict=True):
                yield i, entry_in(packed)
    except ray.exceptions.RayError as trouble:
        said = " ".join(str(trouble).split())[:300]
        raise UserMistake(
            f"--engine ray: the cluster gave up ({said}); what was heard so far is kept: give the "
            "same command with --resume"
        ) from trouble


def _register(ray: Any) -> Any:
    """On this node: what dies with it dies with the run."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Register).options(**options, scheduling_strategy=here).remote()


def _keep(file: Listed, entry: Entry, journal: Journal, tick: Tick) -> None:
    if entry.stamp != GONE and "No such file" in entry.reason and stamp_of(file.path) != GONE:
        raise UserMistake(
            f"{file.path}: is there, but a worker does not see it; mount the archive on every "
            "node under the same path, or give it as s3:// or gs://"
        )
    # Workers know a file by its absolute path; here it is called what the user calls it.
    reason = entry.reason.replace(str(entry.path), str(file.path))
    journal.keep(replace(entry, path=file.path, reason=reason))
    tick(1, entry.seconds)
