"""Candidates of all sources in the tables of a queue.

Adding the same table twice adds nothing: a candidate is known by its region, its species, its
source and the digest of the source. Only the disagreement of a model's networks is renewed, where
the table has it.
"""

import json
import math
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any
from uuid import UUID, uuid5

import pandas as pd
from sqlalchemy import Connection, bindparam, select

from antpitta.core.errors import UserError
from antpitta.core.identity import species_key, species_name, species_order
from antpitta.core.types import EVERY_CLASS
from antpitta.review.events import chunks, insert_new
from antpitta.review.regions import Box, checked_box, edges
from antpitta.review.schema import (
    candidate_table,
    detection_table,
    recording_table,
    region_table,
    species_list_table,
    species_table,
)

COLUMNS = (
    *("recording_id", "recording_digest", "start_time", "end_time", "low_freq", "high_freq"),
    *("species", "score", "source", "source_digest", "site", "recorded_at"),
)
DETECTIONS = "detections"  # optional column: (start, end, score) of those that were merged
_IMPORTED = UUID("2c6b1a52-7f0e-4d0e-9a53-0d9b6b6a7a11")  # of verdicts of tables
DISAGREEMENT = "disagreement"  # optional column


def insert_candidates(
    connection: Connection, table: pd.DataFrame
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Add the rows that the queue does not have yet.

    Parameters
    ----------
    connection : with a transaction that writes
    table : with :data:`COLUMNS`, one row a candidate

    Returns
    -------
    ``added`` and ``known`` candidates, ``recordings`` and ``species`` of the table; and the
    verdicts of its rows as events, whose uuids are the same whenever the table is added.

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
        keys = ("recording_id", "site", "recorded_at", "path")
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
    _renew_disagreement(connection, candidates, before)
    ids = _ids_of_candidates(connection, new)
    merged = [
        {"candidate": ids[key], "start": start, "end": end, "score": score}
        for key, row in new.items() for start, end, score in row["detections"]
    ]  # fmt: skip
    for part in chunks(merged):
        connection.execute(insert_new(connection, detection_table), part)
    counts = {
        "added": len(new),
        "known": len(rows) - len(new),
        "recordings": len(recordings),
        "species": len(set(names.values())),
    }
    return counts, [_verdict(*item) for item in candidates.items() if item[1]["verdict"]]


def _verdict(key: tuple[Any, ...], row: dict[str, Any]) -> dict[str, Any]:
    region, species = key[:2]
    name = repr((row["recording_digest"], row["box"], *key[1:], row["verdict"]))
    return {
        "uuid": str(uuid5(_IMPORTED, name)),
        "kind": "verdict",
        "region": region,
        "species": species,
        "verdict": row["verdict"],
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
        "path": _text(row.get("path")),
        "box": checked_box(start, end, low, high),
        "species": str(row["species"]),
        "source": str(row["source"]),
        "source_digest": str(row["source_digest"]),
        "score": score,
        "disagreement": spread,
        "verdict": _text(row.get("verdict")),
        "detections": merged if isinstance(merged, list | tuple) else [(start, end, score)],
    }


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
    if not spelling or spelling == EVERY_CLASS or len(spelling) > 200 or "\0" in spelling:
        raise UserError("E_SPECIES_NAME", f"{name[:40]!r} names no species", "write a name")
    key = species_key(name)
    connection.execute(insert_new(connection, species_table), {"key": key, "name": spelling})
    listed = select(species_table.c.name).where(species_table.c.key == key)
    return str(connection.scalars(listed).one())


def list_species(connection: Connection) -> list[str]:
    """The names of all species, in the order of the columns of tables.

    Parameters
    ----------
    connection : to the queue

    Returns
    -------
    Names.
    """
    return sorted(connection.scalars(select(species_table.c.name)), key=species_order)


def species_digest(connection: Connection) -> str:
    """The digest of the present list of species, which is kept so that it can be looked up.

    Parameters
    ----------
    connection : with a transaction that writes

    Returns
    -------
    32 hexadecimal digits.
    """
    names = json.dumps(list_species(connection), ensure_ascii=False)
    digest = blake2b(names.encode(), digest_size=16).hexdigest()
    row = {"digest": digest, "names": names}
    connection.execute(insert_new(connection, species_list_table), row)
    return digest


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


def _renew_disagreement(
    connection: Connection,
    rows: dict[tuple[Any, ...], dict[str, Any]],
    known: dict[tuple[Any, ...], int],
) -> None:
    """Store the disagreement on candidates that the queue has already, where the rows have it."""
    new = [
        {"known": id, "spread": rows[key][DISAGREEMENT]}
        for key, id in known.items()
        if rows[key][DISAGREEMENT] is not None
    ]
    columns = candidate_table.c
    renew = candidate_table.update().where(columns.id == bindparam("known"))
    for part in chunks(new):
        connection.execute(renew.values(disagreement=bindparam("spread")), part)


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
