"""Candidates of all sources in the tables of a queue.

Adding the same table twice adds nothing: a candidate is known by its region, its species, its
source and the digest of the source.
"""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from sqlalchemy import Connection, select

from antpitta.core.errors import UserError
from antpitta.core.identity import species_key, species_name
from antpitta.core.types import EVERY_CLASS
from antpitta.review.events import chunks, insert_new
from antpitta.review.schema import (
    candidate_table,
    detection_table,
    recording_table,
    region_table,
    species_table,
)

COLUMNS = (
    *("recording_id", "recording_digest", "start_time", "end_time", "low_freq", "high_freq"),
    *("species", "score", "source", "source_digest", "site", "recorded_at"),
)
DETECTIONS = "detections"  # optional column: (start, end, score) of those that were merged
DISAGREEMENT = "disagreement"  # optional column
Box = tuple[float, float, float, float]


def insert_candidates(connection: Connection, table: pd.DataFrame) -> dict[str, int]:
    """Add the rows that the queue does not have yet.

    Parameters
    ----------
    connection : with a transaction that writes
    table : with :data:`COLUMNS`, one row a candidate

    Returns
    -------
    ``added`` and ``known`` candidates, ``recordings`` and ``species`` of the table.

    Raises
    ------
    UserError
        E_CANDIDATE_TABLE, E_BAD_BOX, E_SPECIES_NAME.
    """
    if missing := [name for name in COLUMNS if name not in table.columns]:
        what = f"a table of candidates without the column {missing[0]!r}"
        raise UserError("E_CANDIDATE_TABLE", what, "add the column")
    rows = [_row(row) for row in table.to_dict("records")]
    names = {name: insert_species(connection, name) for name in {row["species"] for row in rows}}
    recordings = {row["recording_digest"]: row for row in rows}
    for part in chunks(recordings.values()):
        keys = ("recording_id", "site", "recorded_at")
        connection.execute(
            insert_new(connection, recording_table),
            [{"digest": row["recording_digest"], **{k: row[k] for k in keys}} for row in part],
        )
    regions = _insert_regions(connection, {(row["recording_digest"], row["box"]) for row in rows})
    candidates = {
        (regions[row["recording_digest"], row["box"]], names[row["species"]], row["source"],
         row["source_digest"]): row
        for row in rows
    }  # fmt: skip
    before = _ids_of_candidates(connection, candidates)
    new = {key: row for key, row in candidates.items() if key not in before}
    for part in chunks(new.items()):
        connection.execute(candidate_table.insert(), [_candidate(*item) for item in part])
    ids = _ids_of_candidates(connection, new)
    merged = [
        {"candidate": ids[key], "start": start, "end": end, "score": score}
        for key, row in new.items() for start, end, score in row["detections"]
    ]  # fmt: skip
    for part in chunks(merged):
        connection.execute(insert_new(connection, detection_table), part)
    return {
        "added": len(new),
        "known": len(rows) - len(new),
        "recordings": len(recordings),
        "species": len(set(names.values())),
    }


def _row(row: dict[Any, Any]) -> dict[str, Any]:
    start, end = float(row["start_time"]), float(row["end_time"])
    low = 0.0 if pd.isna(row["low_freq"]) else float(row["low_freq"])
    high = math.inf if pd.isna(row["high_freq"]) else float(row["high_freq"])
    score, spread = _number(row["score"]), _number(row.get(DISAGREEMENT))
    merged = row.get(DETECTIONS)
    return {
        "recording_digest": str(row["recording_digest"]),
        "recording_id": str(row["recording_id"]),
        "site": _text(row["site"]),
        "recorded_at": _text(row["recorded_at"]),
        "box": checked_box(start, end, low, high),
        "species": str(row["species"]),
        "source": str(row["source"]),
        "source_digest": str(row["source_digest"]),
        "score": score,
        "disagreement": spread,
        "detections": merged if isinstance(merged, list | tuple) else [(start, end, score)],
    }


def checked_box(start: float, end: float, low: float, high: float) -> Box:
    """The edges of a region.

    Parameters
    ----------
    start, end : seconds
    low, high : Hz; infinity for no upper edge

    Returns
    -------
    The four of them.

    Raises
    ------
    UserError
        E_BAD_BOX.
    """
    if not (0 <= start < end < math.inf and 0 <= low < high):
        what = f"the box {start:g} to {end:g} s, {low:g} to {high:g} Hz is empty or reversed"
        raise UserError("E_BAD_BOX", what, "correct its edges")
    return start, end, low, high


def _number(cell: Any) -> float | None:
    return None if cell is None or pd.isna(cell) else float(cell)


def _text(cell: Any) -> str | None:
    return None if cell is None or pd.isna(cell) or not str(cell) else str(cell)


def insert_species(connection: Connection, name: str) -> str:
    """Add a species to the list, unless it is there.

    Parameters
    ----------
    connection : with a transaction that writes
    name : in any spelling

    Returns
    -------
    The spelling of the list.

    Raises
    ------
    UserError
        E_SPECIES_NAME.
    """
    spelling = species_name(name)
    if not spelling or spelling == EVERY_CLASS or len(spelling) > 200:
        raise UserError("E_SPECIES_NAME", f"{name[:40]!r} names no species", "write a name")
    key = species_key(name)
    connection.execute(insert_new(connection, species_table), {"key": key, "name": spelling})
    listed = select(species_table.c.name).where(species_table.c.key == key)
    return str(connection.scalars(listed).one())


def _insert_regions(
    connection: Connection, boxes: set[tuple[str, Box]]
) -> dict[tuple[str, Box], int]:
    """The id of each region, by its recording and its edges."""
    ids = dict(_ids_of_regions(connection, {digest for digest, _ in boxes}))
    for part in chunks(sorted(boxes - set(ids))):
        rows = [{"recording_digest": digest, **edges(box)} for digest, box in part]
        connection.execute(region_table.insert(), rows)
    new = {digest for digest, _ in boxes - set(ids)}
    return ids | dict(_ids_of_regions(connection, new))


def edges(box: Box) -> dict[str, float]:
    """The columns of a region's edges.

    Parameters
    ----------
    box : of :func:`checked_box`

    Returns
    -------
    Values by column.
    """
    return dict(zip(("start", "end", "low", "high"), box, strict=True))


def _ids_of_regions(
    connection: Connection, digests: set[str]
) -> Iterator[tuple[tuple[str, Box], int]]:
    columns = region_table.c
    for part in chunks(sorted(digests)):
        query = select(region_table).where(
            columns.recording_digest.in_(part), columns.parent.is_(None)
        )
        for row in connection.execute(query).mappings():
            box = (row["start"], row["end"], row["low"], row["high"])
            yield (row["recording_digest"], box), row["id"]


def _candidate(key: tuple[Any, ...], row: dict[str, Any]) -> dict[str, Any]:
    region, species, source, source_digest = key
    return {
        "region": region,
        "species": species,
        "source": source,
        "source_digest": source_digest,
        "score": row["score"],
        "disagreement": row["disagreement"],
    }


def _ids_of_candidates(
    connection: Connection, keys: dict[tuple[Any, ...], Any]
) -> dict[tuple[Any, ...], int]:
    columns = candidate_table.c
    ids = {}
    for part in chunks({key[0] for key in keys}):
        for row in connection.execute(select(candidate_table).where(columns.region.in_(part))):
            key = (row.region, row.species, row.source, row.source_digest)
            if key in keys:
                ids[key] = row.id
    return ids
