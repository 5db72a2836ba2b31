"""What the verdicts of a queue amount to: conflicts, progress, labels, and the items of audits."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    case,
    exists,
    func,
    select,
)

from antpitta.core.identity import species_order
from antpitta.core.types import EVERY_CLASS
from antpitta.review.regions import region_dict
from antpitta.review.schema import (
    agreed_view,
    candidate_table,
    current_view,
    draw_item_table,
    draw_table,
    recording_table,
    region_table,
    species_list_table,
)

_PART = 2000  # rows that are fetched at once
_agreed, _candidate, _region = agreed_view.c, candidate_table.c, region_table.c
_recording, _draw, _item = recording_table.c, draw_table.c, draw_item_table.c
_PLACE = (
    *(_recording.recording_id, _region.recording_digest, _recording.site, _recording.recorded_at),
    *(_region.start, _region.end, _region.low, _region.high),
)


def stream(connection: Connection, query: Any) -> Iterator[dict[str, Any]]:
    """The rows of a query, some at a time.

    Parameters
    ----------
    connection : to the queue
    query : a SELECT

    Yields
    ------
    Values by column.
    """
    result = connection.execution_options(stream_results=True).execute(query)
    for part in result.mappings().partitions(_PART):
        yield from map(dict, part)


def conflicts(connection: Connection) -> Iterator[dict[str, Any]]:
    """As :meth:`antpitta.review.store.Store.conflicts`.

    Parameters
    ----------
    connection : to the queue

    Yields
    ------
    Sounds and species with different verdicts.
    """
    view = current_view.c
    query = (
        select(
            *(_agreed.root, _agreed.species, view.reviewer, view.verdict, view.reason),
            *(view.region, *_PLACE),
        )
        .select_from(agreed_view)
        .join(current_view, (view.root == _agreed.root) & (view.species == _agreed.species))
        .join(region_table, _region.id == _agreed.root)
        .join(recording_table, _recording.digest == _region.recording_digest)
        .where(_agreed.status == "conflict")
        .order_by(_agreed.seq, view.seq)
    )
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for row in connection.execute(query):
        place = {"region": row.root, "species": row.species, **region_dict(row)}
        conflict = rows.setdefault((row.root, row.species), {**place, "verdicts": []})
        names = ("reviewer", "verdict", "reason", "region")
        conflict["verdicts"].append({name: getattr(row, name) for name in names})
    yield from rows.values()


def progress(connection: Connection) -> list[dict[str, Any]]:
    """As :meth:`antpitta.review.store.Store.progress`.

    Parameters
    ----------
    connection : to the queue

    Returns
    -------
    One row for each species.
    """
    judged = select(
        _agreed.species,
        *(_count(_agreed.verdict == word).label(word) for word in ("present", "absent")),
        *(_count(_agreed.status == word).label(word) for word in ("unsure", "conflict")),
    ).group_by(_agreed.species)
    sounds = func.count(func.distinct(_candidate.region))
    proposed = select(_candidate.species, sounds.label("candidates")).group_by(_candidate.species)
    done = (
        select(_candidate.species, sounds.label("done"))
        .join(agreed_view, _is_judged())
        .group_by(_candidate.species)
    )
    rows: dict[str, dict[str, Any]] = {}
    for query in (proposed, judged, done):
        for row in stream(connection, query):
            rows.setdefault(row["species"], {}).update(row)
    names = ("candidates", "present", "absent", "unsure", "conflict")
    return [
        {
            "species": species,
            **{name: row.get(name, 0) for name in names},
            "open": row.get("candidates", 0) - row.get("done", 0),
        }
        for species, row in sorted(rows.items(), key=lambda item: species_order(item[0]))
    ]


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count(case((condition, 1)))


def _is_judged() -> ColumnElement[bool]:
    return (_agreed.root == _candidate.region) & (_agreed.species == _candidate.species)


def export_rows(connection: Connection) -> Iterator[dict[str, Any]]:
    """As :meth:`antpitta.review.store.Store.export_rows`.

    Parameters
    ----------
    connection : to the queue

    Yields
    ------
    Rows of a table of annotations.
    """
    lists = {
        digest: json.loads(names)
        for digest, names in connection.execute(select(species_list_table))
    }
    query = (
        select(
            *(_agreed.root, _agreed.species, _agreed.verdict, _agreed.status, _agreed.reviewers),
            *(_agreed.species_list_digest, _held(), *_PLACE),
        )
        .select_from(agreed_view)
        .join(region_table, _region.id == _agreed.region)
        .join(recording_table, _recording.digest == _region.recording_digest)
        .order_by(_agreed.seq)
    )
    every = select(_agreed.root).where(_agreed.species == EVERY_CLASS)
    named: dict[int, set[str]] = {}  # of sounds with a verdict on every species
    for root, species in connection.execute(
        select(_agreed.root, _agreed.species).where(_agreed.root.in_(every))
    ):
        named.setdefault(root, set()).add(species)
    for part in connection.execution_options(stream_results=True).execute(query).partitions(_PART):
        for row in part:
            names = [row.species]
            if row.species == EVERY_CLASS:
                own = named.get(row.root, set())
                names = [name for name in lists[row.species_list_digest] if name not in own]
            yield from (_label(row, name) for name in names)


def _held() -> ColumnElement[bool]:
    """Whether the sound is an item of an audit that is not released."""
    return (
        exists()
        .where(
            _item.draw == _draw.id,
            _draw.purpose == "audit",
            _draw.released_at.is_(None),
            _item.candidate == _candidate.id,
            _candidate.region == _agreed.root,
        )
        .correlate(agreed_view)
        .label("held")
    )


def _label(row: Any, species: str) -> dict[str, Any]:
    place = region_dict(row)
    verdict = row.verdict or ""
    return {
        "recording": place.pop("recording_id"),
        **{name: place[name] for name in ("start_time", "end_time", "low_freq", "high_freq")},
        "species": species,
        "verdict": "" if row.held else verdict,
        "held_verdict": verdict if row.held else "",
        "status": "audit" if row.held and verdict else row.status,
        "reviewers": row.reviewers,
        **{name: place[name] for name in ("site", "recorded_at", "recording_digest")},
    }


def audit_rows(connection: Connection) -> Iterator[dict[str, Any]]:
    """As :meth:`antpitta.review.store.Store.audit_rows`.

    Parameters
    ----------
    connection : to the queue

    Yields
    ------
    Items of audits.
    """
    query = (
        select(
            *(_item.draw, _draw.model_digest, _draw.released_at, _item.candidate),
            *(_candidate.species, _candidate.score, _item.stratum, _item.inclusion_p),
            *(_agreed.verdict, _agreed.status, *_PLACE),
        )
        .select_from(draw_item_table)
        .join(draw_table, _draw.id == _item.draw)
        .join(candidate_table, _candidate.id == _item.candidate)
        .join(region_table, _region.id == _candidate.region)
        .join(recording_table, _recording.digest == _region.recording_digest)
        .outerjoin(agreed_view, _is_judged())
        .where(_draw.purpose == "audit")
        .order_by(_item.draw, _item.position)
    )
    for row in connection.execute(query).mappings():
        yield _with_place(dict(row))


def _with_place(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The row with its place under the names of tables."""
    place = ("start", "end", "low", "high")
    rest = {name: value for name, value in row.items() if name not in place}
    high = row["high"] if math.isfinite(row["high"]) else None
    edges = {"start_time": row["start"], "end_time": row["end"]}
    return {**rest, **edges, "low_freq": row["low"], "high_freq": high}


def candidates(connection: Connection, species: str | None) -> Iterator[dict[str, Any]]:
    """As :meth:`antpitta.review.store.Store.candidates`.

    Parameters
    ----------
    connection : to the queue
    species : of one alone

    Yields
    ------
    Candidates.
    """
    judged = set(connection.execute(select(_agreed.root, _agreed.species)))
    query = (
        select(
            *(_candidate.id.label("candidate"), _candidate.region, _candidate.species),
            *(_candidate.score, _candidate.source, _candidate.source_digest),
            *(_candidate.disagreement, *_PLACE),
        )
        .select_from(candidate_table)
        .join(region_table, _region.id == _candidate.region)
        .join(recording_table, _recording.digest == _region.recording_digest)
        .order_by(_candidate.id)
    )
    if species is not None:
        query = query.where(_candidate.species == species)
    for row in stream(connection, query):
        yield {**_with_place(row), "judged": (row["region"], row["species"]) in judged}
