"""Draws: what people are to listen to, in an order, and why these were chosen."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select

from antpitta.core.errors import UserError
from antpitta.review.schema import draw_item_table, draw_table


def list_draws() -> Select[Any]:
    """The query of all draws with the number of their items."""
    count = (
        select(func.count())
        .where(draw_item_table.c.draw == draw_table.c.id)
        .scalar_subquery()
        .label("items")
    )
    return select(draw_table, count).order_by(draw_table.c.id)


def insert_draw(
    connection: Connection, values: Mapping[str, Any], items: Sequence[Mapping[str, Any]]
) -> int:
    """Add a draw and its items, in their order.

    Parameters
    ----------
    connection : with a transaction that writes
    values : of the draw's columns
    items : ``candidate``, and where there are any ``stratum`` and ``inclusion_p``

    Returns
    -------
    The id of the draw.
    """
    row = {**values, "created_at": _now()}
    key = connection.execute(draw_table.insert(), row).inserted_primary_key
    draw = int(key[0]) if key else 0
    rows = [
        {
            "draw": draw,
            "position": position,
            "candidate": int(item["candidate"]),
            "stratum": str(item.get("stratum", "")),
            "inclusion_p": item.get("inclusion_p"),
        }
        for position, item in enumerate(items)
    ]
    if rows:
        connection.execute(draw_item_table.insert(), rows)
    return draw


def release_draw(connection: Connection, draw: int) -> None:
    """As :meth:`antpitta.review.store.Store.release_draw`.

    Parameters
    ----------
    connection : with a transaction that writes
    draw : id

    Raises
    ------
    UserError
        E_NO_DRAW.
    """
    released = draw_table.update().where(draw_table.c.id == draw).values(released_at=_now())
    if not connection.execute(released).rowcount:
        raise UserError("E_NO_DRAW", f"there is no draw {draw}", "see the list of draws")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
