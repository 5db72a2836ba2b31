"""The items of a draw, page by page and by filters, as the review page shows them.

Pages are found by position, not by counting rows: the thousandth page takes as long as the first.
An audit's items carry no score, stratum or source, and never the verdict of another reviewer, so
that nothing but the sound can move a verdict.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    ScalarSelect,
    Select,
    and_,
    cast,
    exists,
    func,
    or_,
    select,
)

from antpitta.core.errors import UserError
from antpitta.core.identity import species_key
from antpitta.review.regions import region_dict
from antpitta.review.schema import (
    candidate_table,
    draw_item_table,
    draw_table,
    event_table,
    recording_table,
    region_table,
    species_table,
)

FILTERS = (
    *("species", "site", "date_from", "date_to", "hour_from", "hour_to"),
    *("score_from", "score_to", "disagreement_from", "source", "state", "reviewer"),
)
_HIDDEN = ("score", "score_from", "score_to", "disagreement_from", "source")  # in an audit
_item, _candidate, _region = draw_item_table.c, candidate_table.c, region_table.c
_recording, _event = recording_table.c, event_table.c


def read_items(
    connection: Connection,
    draw: int,
    after: int | None,
    limit: int,
    filters: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The next items of a draw.

    Parameters
    ----------
    connection : to the queue
    draw : id
    after : position of the last item before them; None for the first items
    limit : most items
    filters : values by names of :data:`FILTERS`; of an audit, those of scores have no effect

    Returns
    -------
    Items in the order of the draw. ``own_verdict`` is that of the filter's reviewer.

    Raises
    ------
    UserError
        E_NO_DRAW, E_OPTION for an unknown filter.
    """
    audit = _is_audit(connection, draw)
    query = _query(draw).where(*_conditions(filters, hides_scores=audit))
    if after is not None:
        query = query.where(_item.position > after)
    rows = connection.execute(query.order_by(_item.position).limit(limit)).all()
    own = _own_verdicts(connection, filters.get("reviewer"), [row.region for row in rows])
    return [_as_dict(row, audit, own.get((row.region, row.species))) for row in rows]


def count_items(connection: Connection, draw: int, filters: Mapping[str, Any]) -> int:
    """The number of items of a draw that pass the filters.

    Parameters
    ----------
    connection : to the queue
    draw : id
    filters : as in :func:`read_items`

    Returns
    -------
    The number.

    Raises
    ------
    UserError
        E_NO_DRAW, E_OPTION for an unknown filter.
    """
    audit = _is_audit(connection, draw)
    listed = _query(draw).where(*_conditions(filters, hides_scores=audit)).subquery()
    return int(connection.scalar(select(func.count()).select_from(listed)) or 0)


def _is_audit(connection: Connection, draw: int) -> bool:
    purpose = connection.scalar(select(draw_table.c.purpose).where(draw_table.c.id == draw))
    if purpose is None:
        raise UserError("E_NO_DRAW", f"there is no draw {draw}", "reload the list of draws")
    return bool(purpose == "audit")


def _query(draw: int) -> Select[Any]:
    return (
        select(
            *(_item.position, _item.candidate, _item.stratum, _item.inclusion_p),
            *(_candidate.region, _candidate.species, _candidate.score, _candidate.source),
            *(_candidate.disagreement, _region.recording_digest, _region.start, _region.end),
            *(_region.low, _region.high, _recording.recording_id, _recording.site),
            _recording.recorded_at,
        )
        .select_from(draw_item_table)
        .join(candidate_table, _candidate.id == _item.candidate)
        .join(region_table, _region.id == _candidate.region)
        .join(recording_table, _recording.digest == _region.recording_digest)
        .where(_item.draw == draw)
    )


def _conditions(filters: Mapping[str, Any], *, hides_scores: bool) -> list[ColumnElement[bool]]:
    given = {name: value for name, value in filters.items() if value not in (None, "")}
    if unknown := sorted(set(given) - set(FILTERS)):
        what = f"there is no filter {unknown[0]!r}"
        raise UserError("E_OPTION", what, f"use {', '.join(FILTERS)}")
    if hides_scores:
        given = {name: value for name, value in given.items() if name not in _HIDDEN}
    simple: dict[str, Callable[[Any], ColumnElement[bool]]] = {
        "species": lambda value: _candidate.species == _listed_species(value),
        "site": lambda value: _recording.site == value,
        "source": lambda value: _candidate.source == value,
        "date_from": lambda value: func.substr(_recording.recorded_at, 1, 10) >= value,
        "date_to": lambda value: func.substr(_recording.recorded_at, 1, 10) <= value,
        "score_from": lambda value: _candidate.score >= float(value),
        "score_to": lambda value: _candidate.score <= float(value),
        "disagreement_from": lambda value: _candidate.disagreement >= float(value),
    }
    conditions: list[ColumnElement[bool]] = [
        build(given[name]) for name, build in simple.items() if name in given
    ]
    conditions += _hours(given.get("hour_from"), given.get("hour_to"))
    if "state" in given:
        own = _judged_by(given.get("reviewer"))
        conditions.append(own if given["state"] == "done" else ~own)
        if given["state"] == "second":
            conditions.append(_judged_by(None))
    return conditions


def _listed_species(name: str) -> ScalarSelect[Any]:
    known = species_table.c
    return select(known.name).where(known.key == species_key(name)).scalar_subquery()


def _hours(first: Any, last: Any) -> list[ColumnElement[bool]]:
    """Recordings that began in these hours of the day; 22 to 3 goes over midnight."""
    if first is None and last is None:
        return []
    begin, end = int(first or 0), int(23 if last is None else last)
    hour = cast(func.substr(_recording.recorded_at, 12, 2), Integer)
    if begin <= end:
        return [hour >= begin, hour <= end]
    return [or_(hour >= begin, hour <= end)]


def _judged_by(reviewer: Any) -> ColumnElement[bool]:
    """Whether a reviewer's verdict on the candidate stands; any reviewer's where it is None."""
    shape = region_table.alias("shape")
    judged = (
        exists()
        .where(
            or_(shape.c.id == _candidate.region, shape.c.parent == _candidate.region),
            _event.region == shape.c.id,
            _event.kind == "verdict",
            _event.species == _candidate.species,
            ~_undone(),
        )
        .correlate(candidate_table)
    )
    return judged if reviewer is None else judged.where(_event.reviewer == int(reviewer))


def _undone() -> ColumnElement[bool]:
    """Whether an event is retracted, by itself or with its batch."""
    retraction = event_table.alias("retraction")
    return (
        exists()
        .where(
            retraction.c.kind == "retract",
            retraction.c.reviewer == _event.reviewer,
            or_(
                retraction.c.target_uuid == _event.uuid,
                and_(_event.batch_uuid.is_not(None), retraction.c.target_uuid == _event.batch_uuid),
            ),
        )
        .correlate(event_table)
    )


def _own_verdicts(
    connection: Connection, reviewer: Any, regions: list[int]
) -> dict[tuple[int, str], dict[str, Any]]:
    """A reviewer's verdicts on these sounds, as the view ``current`` has them.

    The view numbers the verdicts of the whole queue first, which takes a tenth of a second.
    """
    if reviewer is None or not regions:
        return {}
    shape = region_table.alias("shape")
    root = func.coalesce(shape.c.parent, shape.c.id)
    query = (
        select(root.label("root"), _event.species, _event.uuid, _event.verdict, _event.reason,
               _event.region)
        .join(shape, shape.c.id == _event.region)
        .where(
            or_(shape.c.id.in_(regions), shape.c.parent.in_(regions)),
            _event.reviewer == int(reviewer),
            _event.kind == "verdict",
            ~_undone(),
        )
        .order_by(_event.seq)
    )  # fmt: skip
    return {
        (row.root, row.species): {
            "uuid": row.uuid, "verdict": row.verdict, "reason": row.reason, "region": row.region
        }
        for row in connection.execute(query)
    }  # fmt: skip


def _as_dict(
    row: Row[Any], hides_scores: bool, own_verdict: dict[str, Any] | None
) -> dict[str, Any]:
    item = {
        "position": row.position,
        "candidate": row.candidate,
        "region": row.region,
        "species": row.species,
        **region_dict(row),
        "own_verdict": own_verdict,
    }
    if not hides_scores:
        item |= {
            name: getattr(row, name)
            for name in ("score", "source", "stratum", "inclusion_p", "disagreement")
        }
    return item
