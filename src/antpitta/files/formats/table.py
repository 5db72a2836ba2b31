"""What reading somebody's annotations gives, and what a format is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from antpitta.core.errors import Finding
from antpitta.core.types import Annotation


@dataclass(frozen=True)
class Table:
    """One table of annotations, or a folder or zip of them, as read."""

    format: str
    path: Path
    annotations: tuple[Annotation, ...]
    rows: tuple[int, ...]  # each annotation's line in its file, the header being line 1
    findings: tuple[Finding, ...] = ()  # rows left out, and what else somebody should know
    unvalidated: int = 0  # rows that nobody has judged: unknown, not absent

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.annotations):
            raise ValueError(f"{len(self.rows)} rows for {len(self.annotations)} annotations")


@dataclass(frozen=True)
class Format:
    """One way of writing annotations down.

    ``read`` takes the path and the verdict that the user gave for the whole table (None:
    none). ``write`` takes the annotations, the path, and settings that only some formats know.
    """

    name: str
    needs: tuple[str, ...]  # columns without which it is not this format; for the error text
    recognises: Callable[[Sequence[str]], bool]  # from the header alone
    read: Callable[[Path, bool | None], Table]
    write: Callable[..., None]


def join(tables: Sequence[Table], path: Path, format: str) -> Table:
    """Several tables as one, in their order; each row keeps the line of its own file."""
    return Table(
        format=format,
        path=path,
        annotations=tuple(said for table in tables for said in table.annotations),
        rows=tuple(row for table in tables for row in table.rows),
        findings=tuple(found for table in tables for found in table.findings),
        unvalidated=sum(table.unvalidated for table in tables),
    )
