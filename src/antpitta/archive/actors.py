"""What runs on a cluster's nodes: workers that hear, and a register of what kills them.

Files travel there as rows of plain columns, and come back as pickled answers: the journal's entry,
or why the run must end. That is no exception, which Ray would wrap, or retry.
"""

import pickle
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from socket import gethostname
from typing import Any

from antpitta.archive.choir import Choir
from antpitta.archive.journal import GONE, Entry
from antpitta.archive.listening import listen_to
from antpitta.archive.predict import entry_of
from antpitta.core.errors import UserMistake
from antpitta.files.bundle import Bundle
from antpitta.files.parcel import Parcel, unpack
from antpitta.files.recordings import Listed
from antpitta.files.remote import RemotePath

ATTEMPTS = 3  # readers that a file may kill, the first of which is not sure to be its

Row = dict[str, Any]
Stamp = tuple[int, int]
Answer = Entry | str | Exception  # the last two end the run


def row_of(index: int, file: Listed, stamp: Stamp) -> Row:
    """A file as workers are told of it, by its absolute path."""
    path = str(file.path.absolute() if isinstance(file.path, Path) else file.path)
    remote = isinstance(file.path, RemotePath)
    told = {"id": file.id, "path": path, "remote": remote, "folder": file.folder or ""}
    return {"index": index, **told, "size": stamp[0], "changed": stamp[1]}


def file_of(row: Row) -> tuple[Listed, Stamp]:
    """The inverse of :func:`row_of`."""
    stamp = (int(row["size"]), int(row["changed"]))
    path = RemotePath(str(row["path"]), stamp) if row["remote"] else Path(str(row["path"]))
    return Listed(str(row["id"]), path, str(row["folder"]) or None), stamp


def entry_in(packed: bytes) -> Entry:
    """What a worker answered; raised, where it is to end the run."""
    came = pickle.loads(packed)  # from our own workers
    if isinstance(came, str):
        raise UserMistake(came)
    if isinstance(came, Exception):
        raise came
    assert isinstance(came, Entry)
    return came


class Register:
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


class Hearer:
    """One worker: loads the model when its first files come, and turns files into entries."""

    def __init__(
        self, parcel: Any, register: Any, make: Callable[[Bundle], Choir], wrote: str
    ) -> None:
        self.parcel = parcel  # a reference into the object store
        self.register = register
        self.make = make
        self.wrote = wrote  # the driver's version
        self.choir: Choir | None = None

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
            return Entry(file_of(row)[0].path, GONE, reason)
        [came] = self._try([row])
        self._tell("end", mark)
        return came

    def _try(self, rows: list[Row]) -> Sequence[Answer]:
        try:
            return self._hear(rows)
        except UserMistake as mistake:
            return [str(mistake)] * len(rows)
        except Exception:
            return [RuntimeError(traceback.format_exc())] * len(rows)

    def _tell(self, verb: str, what: str) -> Any:
        import ray

        return ray.get(getattr(self.register, verb).remote(what))

    def _hear(self, rows: list[Row]) -> list[Entry]:
        if self.choir is None:
            self.choir = self._ready()
        asked = [file_of(row) for row in rows]
        stamps = {file.id: stamp for file, stamp in asked}
        heard = {
            one.file.id: entry_of(self.choir, one, stamps[one.file.id])
            for one in listen_to(self.choir, [file for file, _ in asked])
        }
        return [heard[file.id] for file, _ in asked]

    def _ready(self) -> Choir:
        import ray

        if (mine := version("antpitta")) != self.wrote:
            raise UserMistake(
                f"{gethostname()}: has antpitta {mine}, not {self.wrote}; "
                "install one version everywhere"
            )
        parcel: Parcel = ray.get(self.parcel)
        with tempfile.TemporaryDirectory(prefix="antpitta-") as folder:
            return self.make(unpack(parcel, Path(folder)))
