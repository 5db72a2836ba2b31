"""Verdicts of a queue, added to the data set that a model was trained on.

- The recordings and classes of the data set keep their names; recordings of verdicts that are not
  among them are added. A recording is known by the digest of its file, whatever it is called.
- A box about every class ("nothing calls here") is about the classes of its own data set. A species
  that the verdicts add is unknown in it.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from antpitta.core.identity import class_names, species_order
from antpitta.core.types import EVERY_CLASS, Annotation, Classes, Dataset, Recording
from antpitta.files.dataset import OpenedDataset
from antpitta.files.recordings import ListedFile, open_file
from antpitta.files.species_names import read_species_names
from antpitta.files.tables import read_frame

VERDICTS = "verdicts.csv"  # of a run that a round made
_NUMBERS = ("start_time", "end_time", "low_freq", "high_freq", "reviewers")


def read_verdicts(path: Path) -> pd.DataFrame:
    """Read the table of verdicts of a round.

    Parameters
    ----------
    path : of the table

    Returns
    -------
    As it was written: seconds, Hz and reviewers are numbers, NaN for no upper edge.
    """
    table = read_frame(path).reset_index(drop=True)
    for name in _NUMBERS:
        table[name] = pd.to_numeric(table[name].replace("", np.nan))
    return table


def verdict_boxes(table: pd.DataFrame, column: str) -> list[Annotation]:
    """The verdicts of a table as annotations.

    Parameters
    ----------
    table : of a round
    column : ``verdict`` or ``held_verdict``

    Returns
    -------
    One for each row with such a verdict, in their order.
    """
    judged = table[table[column] != ""]
    names = ("recording", "start_time", "end_time", "species", column, "low_freq", "high_freq")
    return [
        Annotation(
            *(str(recording), float(start), float(end), str(species), verdict == "present"),
            *(float(low), float("inf") if pd.isna(high) else float(high)),
        )
        for recording, start, end, species, verdict, low, high in zip(
            *(judged[name] for name in names), strict=True
        )
    ]


def verdict_recording_id(name: str, digest: str, ids: Collection[str], *, new: bool = False) -> str:
    """The id of a recording that the verdicts bring to a data set.

    Parameters
    ----------
    name : in the queue
    digest : of its file
    ids : of the data set's recordings
    new : whether it is to be added; otherwise it is there already

    Returns
    -------
    id : the name; with the digest where another recording is called so
    """
    longer = f"{name}-{digest[:8]}"
    is_longer = name in ids if new else longer in ids
    return longer if is_longer else name


def open_verdict_recording(path: Path, id: str, channel: int | None, site: str | None) -> Recording:
    """Probe the recording of a verdict.

    Parameters
    ----------
    path : of the file
    id : in the data set
    channel : the one to use, from 1; None for the mean of all
    site : as the queue knows it; None for that of the file

    Returns
    -------
    recording : with site and time

    Raises
    ------
    UnreadableAudio
        The file is no sound that can be read.
    """
    recording = open_file(ListedFile(id, path, channel=channel))
    return replace(recording, site=site) if site else recording


def add_verdicts(
    opened: OpenedDataset,
    recordings: Sequence[Recording],
    boxes: Sequence[Annotation],
    held: Sequence[Annotation],
    table: Path,
) -> tuple[OpenedDataset, list[Annotation]]:
    """A data set with the verdicts of a queue.

    Parameters
    ----------
    opened : the data set
    recordings : of verdicts, which it lacks
    boxes : of its recordings and of these, which train
    held : those that judge only; their species are classes, too
    table : of the verdicts, for messages

    Returns
    -------
    opened : with ``boxes``, and new classes for new species
    judging : ``boxes`` and ``held`` with the names of the classes
    """
    dataset = opened.dataset
    class_of = _join_classes(opened, [box.label for box in (*boxes, *held)])
    names = sorted(set(class_of.values()), key=lambda name: (species_order(name), name))
    annotations: list[Annotation] = []
    origins: list[tuple[str, int]] = []
    for box, origin in zip(dataset.annotations, opened.origins, strict=True):
        own = [box]
        if box.label == EVERY_CLASS and len(names) > len(dataset.classes):
            own = [replace(box, label=label) for label in dataset.classes.names]
        annotations += own
        origins += [origin] * len(own)
    judging = [replace(box, label=class_of[box.label]) for box in (*boxes, *held)]
    origins += [(str(table), line) for line in range(2, len(boxes) + 2)]
    joined = Dataset(
        tuple(sorted((*dataset.recordings, *recordings), key=lambda recording: recording.id)),
        (*annotations, *judging[: len(boxes)]),
        Classes(tuple(names)),
        dataset.aliases,
    )
    opened = replace(
        opened,
        dataset=joined,
        origins=tuple(origins),
        rows=opened.rows + len(boxes),
        tables={**opened.tables, str(table): "verdicts"},
    )
    return opened, judging


def _join_classes(opened: OpenedDataset, labels: Sequence[str]) -> dict[str, str]:
    """The class of each label and class; a class keeps the spelling of the data set."""
    source = opened.source
    names = read_species_names(source.names) if source and source.names else {}
    own = opened.dataset.classes.names
    joined = class_names([*own, *labels], names)
    spelling = {joined[name]: name for name in own}
    return {label: spelling.get(name, name) for label, name in joined.items()}
