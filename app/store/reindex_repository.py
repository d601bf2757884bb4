"""SQL of a reindex and a backfill: walks all items in the order of their addresses."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from app.db.database import Connection
from app.indexing.formats import IndexFormat, read_format
from app.json_values import JsonText
from app.namespaces import StoredNamespace
from app.providers.embedder import Vector
from app.store.repository import read_questions
from app.store.types import Address

FIRST = Address(StoredNamespace(""), "")
"""Sorts before every address."""

_READ_ITEMS = 100
_DROPPED_ITEMS = 200

# Writing an item removes its passages in every index but the writer's own. So an item without
# passages is made again, and one whose text gives none is tried in every run. LATERAL with its
# limit keeps the planner from reading all passages of the index for each batch, as with EXISTS.
_NEXT = f"""
SELECT namespace, key, id, version, index_paths, questions,
    CASE WHEN present.ordinal IS NULL THEN value END AS value
FROM (
    SELECT * FROM items WHERE (namespace, key) > ($1, $2)
    ORDER BY namespace, key LIMIT {_READ_ITEMS}
) AS walked
LEFT JOIN LATERAL (
    SELECT ordinal FROM passages WHERE passages.namespace = walked.namespace
        AND passages.key = walked.key AND passages.index_id = $3 LIMIT 1
) AS present ON true
ORDER BY namespace, key
"""

_VECTORS_OF_SAME_MODEL = """
SELECT text, passages.embedding
FROM unnest($1::text[], $2::text[]) AS wanted (namespace, key)
JOIN passages USING (namespace, key)
JOIN passage_indexes same ON same.id = passages.index_id
JOIN passage_indexes mine ON mine.id = $3 AND mine.id <> same.id
    AND (mine.embedding, mine.dimensions) = (same.embedding, same.dimensions)
WHERE passages.embedding IS NOT NULL
"""

_MAY_LACK = """
SELECT active AND EXISTS (SELECT FROM passage_indexes other WHERE other.id <> mine.id)
FROM passage_indexes mine WHERE id = $1
"""

# Only a reindex makes an index whose vectors cannot be searched yet, and an emptied one is none.
_HALF_FILLED = """
SELECT embedding, dimensions, vocabulary FROM passage_indexes
WHERE NOT active AND dimensions > 0
    AND NOT EXISTS (
        SELECT FROM pg_index
        WHERE indexrelid = to_regclass('passages_embedding_' || id) AND indisvalid
    )
    AND EXISTS (SELECT FROM passages WHERE index_id = passage_indexes.id)
"""

_LOCK_NEXT = f"""
SELECT namespace, key, id FROM items WHERE (namespace, key) > ($1, $2)
ORDER BY namespace, key LIMIT {_DROPPED_ITEMS} FOR NO KEY UPDATE
"""

_EMPTY = """
WITH dropped AS (
    DELETE FROM passages USING unnest($1::text[], $2::text[]) AS walked (namespace, key)
    WHERE passages.namespace = walked.namespace AND passages.key = walked.key
        AND passages.index_id <> $4
    RETURNING 1
), forgotten AS (
    DELETE FROM terms WHERE item_id = ANY($3::bigint[]) AND index_id <> $4
)
SELECT count(*) FROM dropped
"""


@dataclass(frozen=True, slots=True)
class WalkedItem:
    """An item as it was read; `value` is None if it has passages in the index."""

    address: Address
    id: int
    version: int
    index_paths: list[str] | None
    value: JsonText | None
    questions: tuple[str, ...]


async def find_next(connection: Connection, after: Address, index_id: int) -> list[WalkedItem]:
    """Return the next items behind an address; none at the end."""
    return [
        WalkedItem(
            Address(row["namespace"], row["key"]),
            row["id"],
            row["version"],
            None if row["index_paths"] is None else json.loads(row["index_paths"]),
            row["value"],
            read_questions(row),
        )
        for row in await connection.fetch(_NEXT, *after, index_id)
    ]


async def find_vectors(
    connection: Connection, addresses: Iterable[Address], index_id: int
) -> dict[str, Vector]:
    """Return the vectors of items' texts in an index of the same model, by text."""
    namespaces, keys = zip(*addresses, strict=True)
    rows = await connection.fetch(_VECTORS_OF_SAME_MODEL, list(namespaces), list(keys), index_id)
    return {row["text"]: row["embedding"].to_numpy().astype(np.float32) for row in rows}


async def may_lack_passages(connection: Connection, index_id: int) -> bool:
    """Return whether items may lack passages: the index is active, and not the only one."""
    return bool(await connection.fetchval(_MAY_LACK, index_id))


async def find_unfinished(connection: Connection) -> list[IndexFormat]:
    """Return the formats of the indexes that an interrupted reindex left."""
    return [read_format(row) for row in await connection.fetch(_HALF_FILLED)]


async def find_other_indexes(connection: Connection, index_id: int) -> list[int]:
    """Return the numbers of all indexes but one."""
    rows = await connection.fetch("SELECT id FROM passage_indexes WHERE id <> $1", index_id)
    return [row["id"] for row in rows]


async def drop_other_passages(
    connection: Connection, after: Address, index_id: int
) -> tuple[Address | None, int]:
    """Delete the next items' passages in other indexes.

    Returns the last item's address, or None at the end, and the number of passages.
    """
    rows = await connection.fetch(_LOCK_NEXT, *after)
    if not rows:
        return None, 0
    columns = ([row[name] for row in rows] for name in ("namespace", "key", "id"))
    dropped: int = await connection.fetchval(_EMPTY, *columns, index_id)
    return Address(rows[-1]["namespace"], rows[-1]["key"]), dropped
