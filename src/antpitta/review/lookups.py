"""What the page asks of the queue besides the items of a draw."""

from typing import Any

from sqlalchemy import func, select

from antpitta.files.queue import connect
from antpitta.review.regions import region_dict
from antpitta.review.schema import (
    agreed_view,
    candidate_table,
    current_view,
    draw_item_table,
    draw_table,
    recording_table,
    region_table,
)
from antpitta.review.store import Store


def reference_calls(store: Store, species: str, limit: int) -> list[dict[str, Any]]:
    """Regions in which reviewers agree that a species calls, the latest first.

    Parameters
    ----------
    store : the queue
    species : as the queue's list spells it
    limit : most regions

    Returns
    -------
    ``region`` and its place, as in :meth:`Store.region`. Regions of an audit that is not released
    are left out: what a reviewer sees must not depend on other verdicts of the audit.
    """
    view, region, recording = agreed_view.c, region_table.c, recording_table.c
    audited = (
        select(candidate_table.c.region)
        .join(draw_item_table, draw_item_table.c.candidate == candidate_table.c.id)
        .join(draw_table, draw_table.c.id == draw_item_table.c.draw)
        .where(draw_table.c.purpose == "audit", draw_table.c.released_at.is_(None))
    )
    query = (
        select(region_table, recording.recording_id, recording.site, recording.recorded_at)
        .select_from(agreed_view)
        .join(region_table, region.id == view.region)
        .join(recording_table, recording.digest == region.recording_digest)
        .where(view.species == species, view.verdict == "present", view.root.not_in(audited))
        .order_by(view.seq.desc())
        .limit(limit)
    )
    with connect(store._engine) as connection:
        return [{"region": row.id, **region_dict(row)} for row in connection.execute(query)]


def latest_verdict(store: Store, reviewer: int) -> dict[str, Any] | None:
    """The latest verdict of a reviewer that stands, so that it can be undone.

    Parameters
    ----------
    store : the queue
    reviewer : id

    Returns
    -------
    ``target``, which a retraction names: the batch of the verdict, or the verdict itself; and
    ``verdicts``, how many that retracts. None without a verdict.
    """
    view = current_view.c
    query = select(view.uuid, view.batch_uuid).where(view.reviewer == reviewer)
    with connect(store._engine) as connection:
        row = connection.execute(query.order_by(view.seq.desc()).limit(1)).one_or_none()
        if row is None:
            return None
        if row.batch_uuid is None:
            return {"target": row.uuid, "verdicts": 1}
        same = select(func.count()).where(view.batch_uuid == row.batch_uuid)
        return {"target": row.batch_uuid, "verdicts": connection.scalar(same)}


def filter_choices(store: Store, draw: int) -> dict[str, Any]:
    """The values that the items of a draw can be filtered by.

    Parameters
    ----------
    store : the queue
    draw : id

    Returns
    -------
    ``species`` and ``sites``, sorted, and whether any item has a ``disagreement``.
    """
    query = (
        select(
            candidate_table.c.species,
            recording_table.c.site,
            func.max(candidate_table.c.disagreement).label("spread"),
        )
        .group_by(candidate_table.c.species, recording_table.c.site)
        .select_from(draw_item_table)
        .join(candidate_table, candidate_table.c.id == draw_item_table.c.candidate)
        .join(region_table, region_table.c.id == candidate_table.c.region)
        .join(recording_table, recording_table.c.digest == region_table.c.recording_digest)
        .where(draw_item_table.c.draw == draw)
    )
    with connect(store._engine) as connection:
        rows = connection.execute(query).all()
    sites = {row.site for row in rows if row.site is not None}
    return {
        "species": sorted({row.species for row in rows}),
        "sites": sorted(sites),
        "disagreement": any(row.spread is not None for row in rows),
    }
