"""What every format's writer shares: numbers that read back exactly, and verdicts.

A float is written as Python's ``repr``, the shortest text that gives the same number again.
No upper edge is an empty cell.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.files.filenames import base_name
from antpitta.files.texts import write_text


def digits(values: Iterable[float | None]) -> list[str]:
    """Each number as text; "" for None."""
    return ["" if value is None else repr(float(value)) for value in values]


def edges(values: Iterable[float]) -> list[str]:
    """Upper edges as text; "" where there is none."""
    return digits(None if value == math.inf else value for value in values)


def verdicts(
    annotations: Iterable[Annotation], present: str = "present", absent: str = "absent"
) -> list[str]:
    return [present if said.present else absent for said in annotations]


def one_verdict(
    annotations: Sequence[Annotation], path: Path, format: str, verdict: bool | None
) -> list[Annotation]:
    """Those of one verdict, for a format that cannot carry it.

    Raises UserError where both occur and ``verdict`` does not choose: a table that says
    "present" of absences would be the worst thing to write.
    """
    if verdict is None and len({said.present for said in annotations}) > 1:
        raise UserError(
            "E_TODO",
            f"{path}: {format} tables cannot say present and absent",
            "write one table of each",
        )
    return [said for said in annotations if verdict is None or said.present == verdict]


def write_each(
    annotations: Sequence[Annotation],
    path: Path,
    format: str,
    ending: str,
    text_of: Callable[[Sequence[Annotation]], str],
) -> None:
    """One table for each recording: ``path`` is a folder, or the file of the only recording.

    For formats in which the file's name tells the recording. Raises UserError where
    several recordings go into one file, or two into files of one name.
    """
    if not annotations:
        raise UserError(
            "E_TODO", f"{path}: no annotations to write", f"an empty {format} table would lie"
        )
    groups: dict[str, list[Annotation]] = {}
    for said in annotations:
        groups.setdefault(said.recording, []).append(said)
    if path.suffix and not path.is_dir():
        if len(groups) > 1:
            raise UserError(
                "E_TODO",
                f"{path}: {format} tables hold one recording, not {len(groups)}",
                "give a folder",
            )
        write_text(text_of(annotations), path)
        return
    names = {base_name(recording) + ending for recording in groups}
    if len(names) < len(groups):
        raise UserError("E_TODO", f"{path}: two recordings have one file name", "write them apart")
    for recording, group in groups.items():
        write_text(text_of(group), path / (base_name(recording) + ending))
