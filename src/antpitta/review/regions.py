"""Regions of recordings: never changed; a dragged edge makes a child of the same sound."""

import math
from typing import Any

from sqlalchemy import Connection, select

from antpitta.core.errors import UserError
from antpitta.review.events import insert_new
from antpitta.review.schema import recording_table, region_table

Box = tuple[float, float, float, float]  # start and end in seconds, low and high in Hz


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


def read_region(connection: Connection, id: int) -> dict[str, Any]:
    """As :meth:`antpitta.review.store.Store.region`.

    Parameters
    ----------
    connection : to the queue
    id : of the region

    Returns
    -------
    Where it is.

    Raises
    ------
    UserError
        E_NO_REGION.
    """
    region, recording = region_table.c, recording_table.c
    query = (
        select(region_table, recording.recording_id, recording.site, recording.recorded_at)
        .join(recording_table, recording.digest == region.recording_digest)
        .where(region.id == id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UserError("E_NO_REGION", f"there is no region {id}", "reload the page")
    return {"id": row.id, "parent": row.parent, **region_dict(row)}


def insert_child(connection: Connection, parent: int, box: Box) -> int:
    """As :meth:`antpitta.review.store.Store.child_region`.

    Parameters
    ----------
    connection : with a transaction that writes
    parent : the region whose edges were moved
    box : of :func:`checked_box`

    Returns
    -------
    The id of the region.

    Raises
    ------
    UserError
        E_NO_REGION.
    """
    region = read_region(connection, parent)
    root = region["parent"] or parent
    row = {"recording_digest": region["recording_digest"], "parent": root, **edges(box)}
    connection.execute(insert_new(connection, region_table), row)
    columns = region_table.c
    same = [columns[name] == value for name, value in edges(box).items()]
    query = select(columns.id).where(columns.parent == root, *same)
    return int(connection.scalars(query).one())


def region_dict(row: Any) -> dict[str, Any]:
    """Where a region is, for JSON.

    Parameters
    ----------
    row : with the columns of a region and of its recording

    Returns
    -------
    ``high_freq`` is None where the region has no upper edge.
    """
    return {
        "recording_id": row.recording_id,
        "recording_digest": row.recording_digest,
        "site": row.site,
        "recorded_at": row.recorded_at,
        "start_time": row.start,
        "end_time": row.end,
        "low_freq": row.low,
        "high_freq": row.high if math.isfinite(row.high) else None,
    }
