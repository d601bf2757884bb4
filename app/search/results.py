"""SQL that fetches what a search returns, once it is known which items those are."""

from collections.abc import Sequence

import numpy as np
from asyncpg import Record

from app.db.database import Connection
from app.db.pages import fetch_page
from app.db.sql import Parameters
from app.pagination import Page
from app.search.gathering import Asked
from app.search.pool import Floats
from app.search.scope import Scope
from app.store.repository import COLUMNS

_PASSAGES = """
SELECT p.{column}
FROM unnest($2::bigint[], $3::int[]) WITH ORDINALITY AS wanted (id, ordinal, place)
LEFT JOIN (items i JOIN passages p ON p.namespace = i.namespace AND p.key = i.key
    AND p.index_id = $1) ON i.id = wanted.id AND p.ordinal = wanted.ordinal
ORDER BY place
"""


async def fetch_items(
    connection: Connection, scope: Scope, item_ids: Sequence[int], max_bytes: int
) -> Page[Record]:
    """Return the first of these items that fit; an item that has ended since is missing."""
    parameters = Parameters()
    ids = parameters.add(list(item_ids), "bigint[]")
    return await fetch_page(
        connection,
        f"SELECT id, {COLUMNS}, value_bytes AS bytes "
        f"FROM unnest({ids}) WITH ORDINALITY AS wanted (id, place) JOIN items i USING (id) "
        f"WHERE {scope.namespace_in_range('i', parameters)} ORDER BY wanted.place",
        *parameters.values,
        limit=len(item_ids),
        max_bytes=max_bytes,
    )


async def count_items(connection: Connection, scope: Scope, having: Asked | None = None) -> int:
    """Return how many items a scope holds, or how many of them have a word of what is asked."""
    parameters = Parameters()
    condition = scope.holds_item(parameters)
    if having is not None:
        in_scope = scope.namespace_in_range("t", parameters)
        condition += (
            f" AND i.id IN (SELECT t.item_id FROM {having.terms(parameters)} JOIN terms t "
            f"ON t.term = q.term AND {in_scope} "
            f"AND t.index_id = {parameters.add(having.index_id, 'smallint')})"
        )
    counted = await connection.fetchval(
        f"SELECT count(*) FROM items i WHERE {condition}", *parameters.values
    )
    return int(counted)


async def fetch_texts(
    connection: Connection, index_id: int, passages: Sequence[tuple[int, int]]
) -> list[str | None]:
    """Return the texts of passages, given as item ids and ordinals."""
    return [row["text"] for row in await _fetch(connection, "text", index_id, passages)]


async def fetch_vectors(
    connection: Connection, index_id: int, passages: Sequence[tuple[int, int]]
) -> Floats:
    """Return the unit vectors of passages as rows; zeros where there is none."""
    rows = await _fetch(connection, "embedding", index_id, passages)
    vectors = [None if row["embedding"] is None else row["embedding"].to_numpy() for row in rows]
    width = max((len(vector) for vector in vectors if vector is not None), default=1)
    blank = np.zeros(width)
    return np.array([blank if vector is None else vector for vector in vectors], np.float64)


async def _fetch(
    connection: Connection, column: str, index_id: int, passages: Sequence[tuple[int, int]]
) -> list[Record]:
    item_ids, ordinals = zip(*passages, strict=True) if passages else ((), ())
    sql = _PASSAGES.format(column=column)
    return await connection.fetch(sql, index_id, list(item_ids), list(ordinals))
