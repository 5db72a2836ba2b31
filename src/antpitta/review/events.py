"""What reviewers do, as events that are only ever added.

A browser sends an event again until it is acknowledged, so that none is lost. Each carries a uuid
of its own: the second copy of an event changes nothing and is acknowledged as the first was. A list
of events is stored as a whole or not at all.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import Connection, Insert, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from antpitta.core.errors import UserError
from antpitta.core.identity import species_key
from antpitta.core.types import EVERY_CLASS
from antpitta.review.schema import event_table, region_table, species_list_table, species_table

MOST_EVENTS = 1000  # in one list
_CHUNK = 500  # values of one statement; SQLite takes 32766
Uuid = Annotated[str, Field(pattern=re.compile(r"[0-9a-fA-F-]{32,36}\Z"))]
NO_NUL = r"^[^\x00]*$"  # PostgreSQL has no such character
ShortText = Annotated[str, Field(max_length=500, pattern=NO_NUL)]


class ReviewEvent(BaseModel):
    """One act of a reviewer, as a browser sends it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uuid: Uuid
    kind: Literal["verdict", "listened", "retract", "resolve"]
    region: int | None = None
    species: ShortText | None = None
    verdict: Literal["present", "absent", "unsure"] | None = None
    reason: ShortText | None = None
    target_uuid: Uuid | None = None
    batch_uuid: Uuid | None = None
    species_list_digest: ShortText | None = None
    score_shown: float | None = Field(default=None, allow_inf_nan=False)
    ms: int | None = Field(default=None, ge=0, le=2**31 - 1)
    client_at: ShortText | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "ReviewEvent":
        judges = self.kind in ("verdict", "resolve")
        wanted = {
            "region": self.kind != "retract",
            "species": judges,
            "verdict": judges,
            "target_uuid": self.kind == "retract",
        }
        lacking = [name for name, needed in wanted.items() if needed and not getattr(self, name)]
        if lacking:
            raise ValueError(f"a {self.kind} without {' and '.join(lacking)}")
        if self.verdict and not judges:
            raise ValueError(f"a {self.kind} with a verdict")
        if self.species == EVERY_CLASS and self.verdict == "present":
            raise ValueError("every species present at once")
        return self


def parse_events(
    events: Sequence[Mapping[str, Any]], most: int | None = MOST_EVENTS
) -> list[ReviewEvent]:
    """Check a list of events.

    Parameters
    ----------
    events : as a browser sends them
    most : in one list

    Returns
    -------
    The events.

    Raises
    ------
    UserError
        E_REVIEW_EVENT.
    """
    if most is not None and len(events) > most:
        raise refused(f"{len(events)} events at once, more than {most}")
    parsed = []
    for i, each in enumerate(events):
        try:
            parsed.append(ReviewEvent.model_validate(dict(each)))
        except (ValidationError, TypeError, ValueError) as error:
            raise refused(f"event {i + 1}: {_reason(error)}") from None
    return parsed


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "this is no object"
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def refused(what: str) -> UserError:
    """The error of an event that cannot be stored.

    Parameters
    ----------
    what : is wrong with it

    Returns
    -------
    E_REVIEW_EVENT.
    """
    return UserError("E_REVIEW_EVENT", what, "reload the page; the event was not stored")


def store_events(
    connection: Connection,
    events: Sequence[ReviewEvent],
    reviewer: int,
    species_digest: str,
) -> list[str]:
    """Add the events that the queue does not have yet.

    Parameters
    ----------
    connection : with a transaction that writes
    events : of one reviewer, in the order in which they happened
    reviewer : id
    species_digest : of the present list of species, for verdicts that name none

    Returns
    -------
    The uuids of all events, which now are in the queue.

    Raises
    ------
    UserError
        E_REVIEW_EVENT.
    """
    _check_regions(connection, {each.region for each in events if each.region is not None})
    names = _species_names(connection, {each.species for each in events if each.species})
    digests = known_lists(connection)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    rows = []
    for each in events:
        digest = each.species_list_digest
        row = each.model_dump()
        row["species"] = names.get(each.species or "")
        row["species_list_digest"] = digest if digest in digests else species_digest
        rows.append({**row, "reviewer": reviewer, "server_at": now})
    _check_repeated(connection, rows)
    for row in rows:  # one by one: the order of seq is the order of the list
        connection.execute(insert_new(connection, event_table), row)
    return [each.uuid for each in events]


def _check_repeated(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an event under the uuid of another one: it would be acknowledged, and not stored."""
    known: dict[str, tuple[Any, ...]] = {}
    for part in chunks(row["uuid"] for row in rows):
        query = select(event_table).where(event_table.c.uuid.in_(part))
        known |= {row.uuid: _act(row._asdict()) for row in connection.execute(query)}
    for row in rows:
        if known.setdefault(row["uuid"], _act(row)) != _act(row):
            raise refused(f"another event has the uuid {row['uuid']}")


def _act(row: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("reviewer", "kind", "region", "species", "verdict", "target_uuid")
    return tuple(row[name] for name in names)


def _check_regions(connection: Connection, regions: Collection[int]) -> None:
    known: set[int] = set()
    for part in chunks(sorted(regions)):
        query = select(region_table.c.id).where(region_table.c.id.in_(part))
        known.update(connection.scalars(query))
    if unknown := set(regions) - known:
        raise refused(f"there is no region {min(unknown)}")


def _species_names(connection: Connection, names: Collection[str]) -> dict[str, str]:
    """The listed spelling of each species."""
    listed = dict(connection.execute(select(species_table.c.key, species_table.c.name)).all())
    spelling = {name: listed.get(species_key(name)) for name in names if name != EVERY_CLASS}
    if unknown := sorted(name for name, known in spelling.items() if known is None):
        raise refused(f"{unknown[0]!r} is not in the list of species")
    listed_names = {name: known for name, known in spelling.items() if known is not None}
    return {**listed_names, EVERY_CLASS: EVERY_CLASS}


def known_lists(connection: Connection) -> set[str]:
    """The digests of all lists of species that the queue has had.

    Parameters
    ----------
    connection : to the queue

    Returns
    -------
    The digests.
    """
    return set(connection.scalars(select(species_list_table.c.digest)))


def insert_new(connection: Connection, table: Table) -> Insert:
    """An INSERT that leaves out rows whose unique columns a row has already.

    Parameters
    ----------
    connection : to the queue
    table : that rows are added to

    Returns
    -------
    The statement.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement: Insert = dialect.insert(table).on_conflict_do_nothing()
    return statement


def chunks(values: Iterable[Any]) -> Iterable[list[Any]]:
    """The values in lists that one statement can take.

    Parameters
    ----------
    values : any number

    Yields
    ------
    Lists.
    """
    listed = list(values)
    for start in range(0, len(listed), _CHUNK):
        yield listed[start : start + _CHUNK]
