"""SQL that names candidates in a scope too large to read: nearest, beside others, pinned."""

from collections.abc import Iterable

from pgvector import HalfVector

from app.db.database import Connection
from app.db.sql import Parameters
from app.providers.embeddings.base import Vector
from app.search.gathering import Asked
from app.search.scope import Scope

_MIN_EF_SEARCH = 200
"""Candidates the index keeps in view; with 100, recall@10 over 100,000 passages was 0.950."""

_MAX_EF_SEARCH = 1000
"""pgvector's limit."""

_MOST_PINNED = 1000
"""As many as a page can hold."""

_NEIGHBOURS = 2
"""Turns before and after a candidate that are ranked with it, as far as `context` looks."""


async def nearest_by_index(
    connection: Connection, scope: Scope, asked: Asked, *, passages: int
) -> list[int]:
    """Return the items of the nearest passages, one as often as it matched.

    Fewer than `passages` means that the index gave up or the scope has no more.
    """
    if asked.vector is None:
        return []
    async with connection.transaction():
        return await _nearest_by_index(connection, scope, asked, asked.vector, passages)


async def _nearest_by_index(
    connection: Connection, scope: Scope, asked: Asked, to: Vector, passages: int
) -> list[int]:
    # A plan that sorts would read the whole scope; without sorting only the HNSW index delivers
    # the order, and it goes on (iterative scan) until enough rows have passed the conditions.
    await connection.execute(
        "SELECT set_config('enable_sort', 'off', true), "
        "set_config('hnsw.ef_search', $1::int::text, true)",
        min(max(passages, _MIN_EF_SEARCH), _MAX_EF_SEARCH),
    )
    parameters = Parameters()
    # The partial index is recognised by these two integers, so they stand in the text.
    index_id, dimensions = int(asked.index_id), len(to)
    vector = parameters.add(HalfVector(to), f"halfvec({dimensions})")
    rows = await connection.fetch(
        f"""
        SELECT p.item_id
        FROM passages p JOIN items i ON i.namespace = p.namespace AND i.key = p.key
        WHERE p.index_id = {index_id} AND {scope.holds_item(parameters)}
            AND {scope.namespace_in_range("p", parameters)}
        ORDER BY p.embedding::halfvec({dimensions}) <=> {vector}
        LIMIT {parameters.add(passages, "bigint")}
        """,
        *parameters.values,
    )
    return [row["item_id"] for row in rows]


async def neighbours(connection: Connection, item_ids: Iterable[int]) -> list[int]:
    """Return the items that stand beside some items in their threads."""
    rows = await connection.fetch(
        """
        SELECT DISTINCT beside.id FROM items i CROSS JOIN LATERAL (
            (SELECT n.id FROM items n
            WHERE n.namespace = i.namespace AND n.thread_id = i.thread_id
                AND n.position <= i.position
            ORDER BY n.position DESC LIMIT $2)
            UNION ALL
            (SELECT n.id FROM items n
            WHERE n.namespace = i.namespace AND n.thread_id = i.thread_id
                AND n.position >= i.position
            ORDER BY n.position LIMIT $2)
        ) AS beside
        WHERE i.id = ANY($1::bigint[]) AND i.thread_id IS NOT NULL AND i.position IS NOT NULL
        """,
        list(item_ids),
        _NEIGHBOURS + 1,
    )
    return [row["id"] for row in rows]


async def pinned_items(connection: Connection, scope: Scope) -> list[int]:
    """Return the pinned items of a scope, the last updated first."""
    parameters = Parameters()
    rows = await connection.fetch(
        f"SELECT i.id FROM items i WHERE i.pinned AND {scope.is_alive(parameters)} "
        f"ORDER BY i.updated_at DESC LIMIT {_MOST_PINNED}",
        *parameters.values,
    )
    return [row["id"] for row in rows]


async def passing(connection: Connection, scope: Scope, item_ids: list[int]) -> list[int]:
    """Return those of some items that a scope's filter keeps, in the given order."""
    if scope.keeps_all:
        return item_ids
    parameters = Parameters()
    rows = await connection.fetch(
        f"SELECT i.id FROM items i WHERE i.id = ANY({parameters.add(item_ids, 'bigint[]')}) "
        f"AND {scope.holds_item(parameters)}",
        *parameters.values,
    )
    kept = {row["id"] for row in rows}
    return [item_id for item_id in item_ids if item_id in kept]
