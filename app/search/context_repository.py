"""SQL that finds the neighbors of items in their threads."""

from collections.abc import Sequence

from app.conversations.kinds import MESSAGE_KIND
from app.db.database import Connection, Parameters
from app.db.pages import fetch_page
from app.search.plan import Scope
from app.search.repository import is_alive
from app.store.repository import COLUMNS, read_item
from app.store.types import Item


async def fetch_context(
    connection: Connection, scope: Scope, item_ids: Sequence[int], reach: int, max_bytes: int
) -> dict[int, list[Item]]:
    """Return the messages around items in their threads, in order, as far as they fit.

    The neighbors of an item without a kind are other items without one.
    """
    parameters = Parameters()
    ids = parameters.add(list(item_ids), "bigint[]")
    most = parameters.add(reach, "bigint")
    alive = is_alive(scope, parameters)
    columns = ", ".join(f"i.{column}" for column in COLUMNS.split(", "))

    def neighbors(compares: str, order: str) -> str:
        return (
            f"(SELECT {columns}, i.value_bytes AS bytes, i.position FROM items i "
            "WHERE i.namespace = hit.namespace AND i.thread_id = hit.thread_id "
            f"AND i.position {compares} hit.position AND i.id <> hit.id AND {alive} "
            "AND coalesce(i.value ->> 'kind', '') = "
            f"CASE WHEN hit.value ? 'kind' THEN '{MESSAGE_KIND}' ELSE '' END "
            f"ORDER BY i.position {order} LIMIT {most})"
        )

    page = await fetch_page(
        connection,
        f"""
        SELECT hit.id AS hit, near.* FROM unnest({ids}) WITH ORDINALITY AS wanted (hit_id, place)
        JOIN items hit ON hit.id = wanted.hit_id CROSS JOIN LATERAL (
            {neighbors("<", "DESC")} UNION ALL {neighbors("=", "DESC")}
            UNION ALL {neighbors(">", "ASC")}
        ) AS near
        ORDER BY wanted.place, near.position, near.id
        """,
        *parameters.values,
        limit=len(item_ids) * 3 * reach,
        max_bytes=max_bytes,
    )
    found: dict[int, list[Item]] = {}
    for row in page.items:
        found.setdefault(row["hit"], []).append(read_item(row))
    return found
