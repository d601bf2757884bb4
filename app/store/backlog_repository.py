"""SQL of the items that wait for the vectors of their passages."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pgvector import HalfVector

from app.db.database import UNHURRIED_SECONDS, Connection
from app.namespaces import StoredNamespace
from app.providers.embedder import Vector
from app.store.types import Address

# The next attempt is as far away as the last change of the item is now, so the waits double.
_CLAIM = """
UPDATE items SET embed_after = $1::timestamptz
    + greatest('1 minute', least($1::timestamptz - updated_at, '6 hours'))
FROM (
    SELECT namespace, key FROM items
    WHERE embed_after <= $1 AND EXISTS (SELECT FROM passage_indexes WHERE id = $2 AND active)
    ORDER BY embed_after LIMIT $3 FOR UPDATE SKIP LOCKED
) AS due
WHERE items.namespace = due.namespace AND items.key = due.key
RETURNING items.namespace, items.key
"""

_LACKING = """
SELECT namespace, key, ordinal, text FROM passages
JOIN unnest($1::text[], $2::text[]) AS wanted (namespace, key) USING (namespace, key)
WHERE index_id = $3 AND embedding IS NULL
ORDER BY namespace, key, ordinal LIMIT $4
"""

_ADD = """
UPDATE passages SET embedding = made.embedding
FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::halfvec[])
    AS made (namespace, key, ordinal, text, embedding)
WHERE passages.namespace = made.namespace AND passages.key = made.key
    AND passages.index_id = $6 AND passages.ordinal = made.ordinal
    AND passages.text = made.text AND passages.embedding IS NULL
"""

_LACKS = """
EXISTS (
    SELECT FROM passages WHERE passages.namespace = items.namespace AND passages.key = items.key
        AND passages.index_id = $1 AND passages.embedding IS NULL
)
"""

_SETTLE = f"""
UPDATE items SET embed_after = CASE WHEN {_LACKS}
    THEN CASE WHEN due OR embed_after IS NULL THEN $5 ELSE embed_after END END
FROM unnest($2::text[], $3::text[], $4::bool[]) AS written (namespace, key, due)
WHERE items.namespace = written.namespace AND items.key = written.key
    AND EXISTS (SELECT FROM passage_indexes WHERE id = $1 AND active)
    AND (embed_after IS NOT NULL OR {_LACKS})
"""

# Rows are locked in the order in which every writer locks them.
_SETTLE_ALL = f"""
WITH touched AS (
    SELECT namespace, key FROM items
    WHERE embed_after IS NOT NULL OR $3 AND (namespace, key) IN (
        SELECT namespace, key FROM passages WHERE index_id = $1 AND embedding IS NULL
    )
    ORDER BY namespace, key FOR NO KEY UPDATE
)
UPDATE items SET embed_after = CASE WHEN $3 AND {_LACKS} THEN coalesce(embed_after, $2) END
FROM touched WHERE items.namespace = touched.namespace AND items.key = touched.key
"""


@dataclass(frozen=True, slots=True)
class LackingPassage:
    """A passage without a vector."""

    address: Address
    ordinal: int
    text: str


async def claim(connection: Connection, index_id: int, limit: int, now: datetime) -> list[Address]:
    """Return items that are due, if the index is active, and put off their next attempt."""
    rows = await connection.fetch(_CLAIM, now, index_id, limit)
    return [Address(StoredNamespace(row["namespace"]), row["key"]) for row in rows]


async def find_lacking(
    connection: Connection, addresses: Iterable[Address], index_id: int, limit: int
) -> list[LackingPassage]:
    """Return passages of items that have no vector."""
    rows = await connection.fetch(_LACKING, *_columns(addresses), index_id, limit)
    return [
        LackingPassage(
            Address(StoredNamespace(row["namespace"]), row["key"]), row["ordinal"], row["text"]
        )
        for row in rows
    ]


async def add_vectors(
    connection: Connection, made: Sequence[tuple[LackingPassage, Vector]], index_id: int
) -> None:
    """Store the vectors of passages that have not changed since they were read."""
    await connection.execute(
        _ADD,
        *_columns(passage.address for passage, _ in made),
        [passage.ordinal for passage, _ in made],
        [passage.text for passage, _ in made],
        [HalfVector(vector) for _, vector in made],
        index_id,
    )


async def settle(
    connection: Connection,
    addresses: Iterable[Address],
    index_id: int,
    now: datetime,
    *,
    due: Collection[Address] = (),
) -> None:
    """Record of items whether they wait; those in `due` are tried again at once.

    Only the active index counts.
    """
    listed = list(addresses)
    are_due = [address in due for address in listed]
    await connection.execute(_SETTLE, index_id, *_columns(listed), are_due, now)


async def settle_all(connection: Connection, index_id: int, now: datetime, *, embeds: bool) -> None:
    """Record of all items whether they wait for vectors in an index, if it has any."""
    await connection.execute(_SETTLE_ALL, index_id, now, embeds, timeout=UNHURRIED_SECONDS)


async def count_waiting(connection: Connection) -> int:
    """Return how many items wait for vectors."""
    query = "SELECT count(*) FROM items WHERE embed_after IS NOT NULL"
    return int(await connection.fetchval(query))


def _columns(addresses: Iterable[Address]) -> tuple[list[str], list[str]]:
    pairs = list(addresses)
    return [address.namespace for address in pairs], [address.key for address in pairs]
