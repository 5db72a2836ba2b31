"""The queue: candidates, draws, reviewers and verdicts of any number of people at once.

Every method is one transaction: it is stored as a whole when the method returns, and any number of
threads and processes may use one queue. Nothing that a reviewer did is ever changed or deleted.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd
from sqlalchemy import Engine, inspect, select

from antpitta.core.errors import UserError
from antpitta.files.queue import connect, queue_engine
from antpitta.review import draws, results
from antpitta.review.candidates import (
    insert_candidates,
    insert_species,
    list_species,
    species_digest,
)
from antpitta.review.events import insert_new, parse_events, store_events
from antpitta.review.items import count_items, read_items
from antpitta.review.regions import checked_box, insert_child, read_region
from antpitta.review.schema import (
    LAYOUT,
    agreed_view,
    check_is_free,
    current_view,
    info_table,
    metadata,
    recording_table,
    reviewer_table,
)

Role = Literal["reviewer", "expert"]
Rows = Iterator[dict[str, Any]]


class Store:
    """The database of a queue.

    Parameters
    ----------
    engine : of a queue whose tables exist
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, queue: Path | str, *, create: bool = False) -> Self:
        """Open a queue.

        Parameters
        ----------
        queue : its folder, or the URL of a database
        create : whether to make it where it is missing

        Returns
        -------
        The open queue, to be closed with :meth:`close` or as a context manager.

        Raises
        ------
        UserError
            E_NO_QUEUE, E_QUEUE_DAMAGED, E_QUEUE_URL, E_QUEUE_UNREACHABLE, E_OUT_NOT_EMPTY,
            E_OUTPUT_NOT_WRITABLE, E_NEEDS_POSTGRES_EXTRA.
        """
        store = cls(queue_engine(queue, create=create))
        try:
            store._check_tables(create=create)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_tables(self, *, create: bool) -> None:
        with connect(self._engine, writes=create) as connection:
            if connection.dialect.name == "postgresql" and create:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7274110)")
            name = self._engine.url.render_as_string(hide_password=True)
            if not inspect(connection).has_table(info_table.name):
                if not create:
                    what = f"{name}: there is no queue in this database"
                    remedy = "make one with antpitta candidates OUT -o QUEUE"
                    raise UserError("E_NO_QUEUE", what, remedy)
                check_is_free(connection, name)
                metadata.create_all(connection)
                connection.execute(info_table.insert(), {"name": "layout", "value": str(LAYOUT)})
            layout = select(info_table.c.value).where(info_table.c.name == "layout")
            if connection.scalar(layout) != str(LAYOUT):
                what = f"{name}: another version of antpitta wrote this queue"
                raise UserError("E_QUEUE_DAMAGED", what, "install that version")

    # reviewers and species

    def add_reviewer(self, name: str, role: Role = "reviewer") -> int:
        """The id of a reviewer, who is added if new; an expert stays one.

        Parameters
        ----------
        name : unique
        role : ``expert`` may resolve conflicts

        Returns
        -------
        id
        """
        name = " ".join(name.split())
        if not name or len(name) > 100:
            raise UserError("E_NO_REVIEWER", f"{name[:40]!r} is no name", "give a name")
        row = {"name": name, "role": role}
        with connect(self._engine, writes=True) as connection:
            connection.execute(insert_new(connection, reviewer_table), row)
            if role == "expert":
                own = reviewer_table.c.name == name
                connection.execute(reviewer_table.update().where(own).values(role=role))
            query = select(reviewer_table.c.id).where(reviewer_table.c.name == name)
            return int(connection.scalars(query).one())

    def reviewers(self) -> list[dict[str, Any]]:
        """All reviewers: ``id``, ``name``, ``role``."""
        return self._all(select(reviewer_table).order_by(reviewer_table.c.id))

    def species(self) -> list[str]:
        """The names of all species, in the order of the columns of tables."""
        with connect(self._engine) as connection:
            return list_species(connection)

    def add_species(self, name: str) -> str:
        """Add a species to the list, unless it is there.

        Parameters
        ----------
        name : in any spelling

        Returns
        -------
        The spelling of the list.

        Raises
        ------
        UserError
            E_SPECIES_NAME.
        """
        with connect(self._engine, writes=True) as connection:
            return insert_species(connection, name)

    def species_list_digest(self) -> str:
        """The digest of the present list of species, which an event carries."""
        with connect(self._engine, writes=True) as connection:
            return species_digest(connection)

    # candidates and draws

    def add_candidates(self, table: pd.DataFrame, reviewer: int | None = None) -> dict[str, int]:
        """Add candidates; of those that the queue has already, only the disagreement is renewed.

        Parameters
        ----------
        table : ``recording_id``, ``recording_digest``, ``start_time``, ``end_time`` (s),
            ``low_freq``, ``high_freq`` (Hz, empty for no edge), ``species``, ``score``,
            ``source``, ``source_digest``, ``site``, ``recorded_at`` (local, ISO 8601); optionally
            ``disagreement`` (of a model's networks), ``detections`` (lists of start, end and
            score of what was merged), ``verdict`` (present, absent or empty) and ``path``
        reviewer : id of the reviewer who gave these verdicts, if any

        Returns
        -------
        Numbers of candidates ``added`` and ``known``, of ``recordings``, ``species`` and
        ``verdicts``.

        Raises
        ------
        UserError
            E_CANDIDATE_TABLE, E_BAD_BOX, E_SPECIES_NAME.
        """
        with connect(self._engine, writes=True) as connection:
            counts, verdicts = insert_candidates(connection, table)
            if reviewer is not None:
                events = parse_events(verdicts, most=None)
                store_events(connection, events, reviewer, species_digest(connection))
            return {**counts, "verdicts": len(verdicts)}

    def draws(self) -> list[dict[str, Any]]:
        """All draws, with the number of their ``items``; an audit has no ``released_at`` at first.

        Other keys are ``id``, ``species``, ``model_digest``, ``purpose``, ``design``, ``seed``,
        ``created_at``.
        """
        return self._all(draws.list_draws())

    def create_draw(
        self,
        purpose: Literal["teach", "audit"],
        design: str,
        seed: int,
        items: Sequence[Mapping[str, Any]],
        *,
        species: str | None = None,
        model_digest: str = "",
    ) -> int:
        """Store what people are to listen to, in this order.

        Parameters
        ----------
        purpose : ``teach`` trains the next model; ``audit`` estimates, and trains nothing until it
            is released
        design : how the items were drawn, in a word
        seed : of the random numbers
        items : ``candidate``, and where there are any ``stratum`` and ``inclusion_p``
        species : that all items are of; None for several
        model_digest : of the model whose scores the strata are of

        Returns
        -------
        The id of the draw.
        """
        row = {
            "species": species,
            "model_digest": model_digest,
            "purpose": purpose,
            "design": design,
            "seed": seed,
        }
        with connect(self._engine, writes=True) as connection:
            return draws.insert_draw(connection, row, items)

    def release_draw(self, draw: int) -> None:
        """Let the verdicts of an audit train models from now on.

        Parameters
        ----------
        draw : id

        Raises
        ------
        UserError
            E_NO_DRAW.
        """
        with connect(self._engine, writes=True) as connection:
            draws.release_draw(connection, draw)

    def draw_items(
        self,
        draw: int,
        after: int | None = None,
        limit: int = 48,
        filters: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """The next items of a draw, in its order.

        Parameters
        ----------
        draw : id
        after : ``position`` of the last item before them
        limit : most items
        filters : ``species``, ``site``, ``source``, ``date_from``, ``date_to`` (``YYYY-MM-DD``),
            ``hour_from``, ``hour_to`` (0 to 23, both inclusive), ``score_from``, ``score_to``,
            ``disagreement_from``, ``reviewer`` (an id) and ``state``: ``open`` for items without
            that reviewer's verdict, ``done`` for those with one, ``second`` for those that only
            others judged

        Returns
        -------
        For each: ``position``, ``candidate``, ``region``, ``species``, ``recording_id``,
        ``recording_digest``, ``site``, ``recorded_at``, ``start_time``, ``end_time``,
        ``low_freq``, ``high_freq`` (None for no edge), ``own_verdict`` (None, or ``uuid``,
        ``verdict``, ``reason`` and ``region`` of the filter's reviewer). Items of a draw that is no
        audit also have ``score``, ``source``, ``stratum``, ``inclusion_p``, ``disagreement``.

        Raises
        ------
        UserError
            E_NO_DRAW, E_OPTION.
        """
        with connect(self._engine) as connection:
            return read_items(connection, draw, after, limit, filters or {})

    def count_items(self, draw: int, filters: Mapping[str, Any]) -> int:
        """The number of items of a draw that pass filters.

        Parameters
        ----------
        draw : id
        filters : as in :meth:`draw_items`
        """
        with connect(self._engine) as connection:
            return count_items(connection, draw, filters)

    # regions

    def region(self, id: int) -> dict[str, Any]:
        """Where a region is.

        Parameters
        ----------
        id : of the region

        Returns
        -------
        ``id``, ``parent``, ``recording_id``, ``recording_digest``, ``site``, ``recorded_at``,
        ``start_time``, ``end_time``, ``low_freq``, ``high_freq`` (None for no upper edge).

        Raises
        ------
        UserError
            E_NO_REGION.
        """
        with connect(self._engine) as connection:
            return read_region(connection, id)

    def child_region(
        self, parent: int, start: float, end: float, low: float, high: float | None
    ) -> int:
        """The region of a sound whose edges a reviewer moved.

        Parameters
        ----------
        parent : the region whose edges were moved
        start, end : seconds
        low, high : Hz; None for no upper edge

        Returns
        -------
        The id of the region, the same for the same edges.

        Raises
        ------
        UserError
            E_NO_REGION, E_BAD_BOX.
        """
        box = checked_box(start, end, low, math.inf if high is None else high)
        with connect(self._engine, writes=True) as connection:
            return insert_child(connection, parent, box)

    # verdicts

    def append_events(self, events: Sequence[Mapping[str, Any]], reviewer: int) -> list[str]:
        """Store what a reviewer did: all of the events, or none.

        An event that the queue has already changes nothing and is acknowledged; another act under
        its ``uuid`` is refused. A
        ``verdict`` needs ``region``, ``species`` and ``verdict``; a ``listened`` needs ``region``;
        a ``retract`` needs ``target_uuid``, the ``uuid`` or the ``batch_uuid`` of the reviewer's
        own events; a ``resolve`` is an expert's verdict. Optional are ``reason``, ``batch_uuid``,
        ``species_list_digest``, ``score_shown``, ``ms`` and ``client_at``.

        Parameters
        ----------
        events : in the order in which they happened
        reviewer : id

        Returns
        -------
        The uuids of the events, which are on the disk now.

        Raises
        ------
        UserError
            E_REVIEW_EVENT, E_REVIEW_ROLE, E_NO_REVIEWER.
        """
        parsed = parse_events(events)
        with connect(self._engine, writes=True) as connection:
            query = select(reviewer_table.c.role).where(reviewer_table.c.id == reviewer)
            role = connection.scalar(query)
            if role is None:
                what = f"there is no reviewer {reviewer}"
                raise UserError("E_NO_REVIEWER", what, "open the page anew")
            if role != "expert" and any(each.kind == "resolve" for each in parsed):
                what = "a conflict was resolved by a reviewer"
                raise UserError("E_REVIEW_ROLE", what, "open the queue as an expert")
            return store_events(connection, parsed, reviewer, species_digest(connection))

    def current(self) -> Rows:
        """The verdicts that stand: the latest of each reviewer, sound and species.

        Yields
        ------
        Columns of the view ``current``; ``root`` is the region of the sound, ``region`` that of the
        edges as the reviewer left them.
        """
        yield from self._stream(select(current_view).order_by(current_view.c.seq))

    def agreed(self) -> Rows:
        """What the reviewers agree on, one row for each sound and species with a verdict.

        Yields
        ------
        ``root``, ``species``, ``region``, ``verdict`` (present, absent, or None for unknown),
        ``status`` (resolved, unanimous, unsure, conflict), ``reviewers`` (their number), ``seq``,
        ``species_list_digest``.
        """
        yield from self._stream(select(agreed_view).order_by(agreed_view.c.seq))

    def conflicts(self) -> Rows:
        """Sounds and species whose verdicts differ and that no expert has resolved.

        Yields
        ------
        ``region`` (the root), ``species``, the place as in :meth:`region`, and ``verdicts``: a list
        of ``reviewer``, ``verdict``, ``reason``, ``region``.
        """
        with connect(self._engine) as connection:
            yield from results.conflicts(connection)

    def progress(self) -> list[dict[str, Any]]:
        """How far the review is, one row for each species.

        Returns
        -------
        ``species``, ``candidates``, and by the status of their sounds ``present``, ``absent``,
        ``unsure``, ``conflict``; ``open`` candidates have no verdict.
        """
        with connect(self._engine) as connection:
            return results.progress(connection)

    def export_rows(self) -> Rows:
        """The verdicts as rows of a table of annotations, which ``train`` reads.

        "Nothing calls here" becomes one row for each species of the list of that moment. Verdicts
        of an audit that is not released are no labels yet: they are in ``held_verdict``.

        Yields
        ------
        ``recording``, ``start_time``, ``end_time``, ``low_freq``, ``high_freq`` (None for no upper
        edge), ``species``, ``verdict`` (empty for unknown), ``held_verdict``, ``status`` (as in
        :meth:`agreed`, or ``audit``), ``reviewers``, ``site``, ``recorded_at``,
        ``recording_digest``.
        """
        with connect(self._engine) as connection:
            yield from results.export_rows(connection)

    def recording_paths(self) -> dict[str, str]:
        """Where each recording lay when its candidates were added, by its digest."""
        query = select(recording_table.c.digest, recording_table.c.path)
        return {row["digest"]: row["path"] for row in self._all(query) if row["path"]}

    def audit_rows(self) -> Rows:
        """The items of all audits with what was agreed on them, for estimates.

        Yields
        ------
        ``draw``, ``model_digest``, ``released_at``, ``candidate``, ``species``, ``score``,
        ``stratum``, ``inclusion_p``, ``verdict`` (None without one, or for unknown), ``status``,
        ``recording_id``, ``recording_digest``, ``site``, ``recorded_at``, ``start_time``,
        ``end_time``, ``low_freq``, ``high_freq``.
        """
        with connect(self._engine) as connection:
            yield from results.audit_rows(connection)

    def candidates(self, species: str | None = None) -> Rows:
        """All candidates, for draws.

        Parameters
        ----------
        species : of one alone

        Yields
        ------
        ``candidate``, ``region``, ``species``, ``score``, ``source``, ``source_digest``,
        ``disagreement``, ``judged`` (whether there is a verdict), ``designs`` (of the draws that
        have it; ``held`` for an audit that is not released), and the place as in :meth:`region`.
        """
        with connect(self._engine) as connection:
            yield from results.candidates(connection, species)

    def _all(self, query: Any) -> list[dict[str, Any]]:
        return list(self._stream(query))

    def _stream(self, query: Any) -> Rows:
        with connect(self._engine) as connection:
            yield from results.stream(connection, query)
