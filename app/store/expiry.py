"""Removing what has expired, in small batches that never wait for a writer."""

from datetime import datetime

import asyncpg

from app.db.database import ALL_ROOTS, Database

BATCH = 500

SWEEPER = "memoryd"
"""The actor that an expiry is recorded under."""

# The end is recorded at the moment of expiry, so `as_of` reads do not depend on the sweeper.
_SWEEP = """
WITH expired AS (
    SELECT namespace, key, version, expires_at FROM items
    WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM items USING expired
    WHERE items.namespace = expired.namespace AND items.key = expired.key
), recorded AS (
    INSERT INTO item_versions (namespace, key, version, action, actor, recorded_at)
    SELECT namespace, key, version + 1, 'expire', $3, expires_at FROM expired
    RETURNING 1
)
SELECT count(*) FROM recorded
"""

_PRUNE = """
WITH emptied AS (
    SELECT namespace FROM namespaces
    WHERE NOT EXISTS (SELECT FROM items WHERE items.namespace = namespaces.namespace)
    LIMIT $1 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM namespaces USING emptied WHERE namespaces.namespace = emptied.namespace
    RETURNING 1
)
SELECT count(*) FROM gone
"""


async def sweep(database: Database, now: datetime) -> int:
    """Remove every item that has expired by `now`; return how many went."""
    removed = 0
    while True:
        async with database.transaction(ALL_ROOTS) as connection:
            batch: int = await connection.fetchval(_SWEEP, now, BATCH, SWEEPER)
        removed += batch
        if batch < BATCH:
            return removed


async def prune_namespaces(database: Database) -> int:
    """Forget namespaces that hold nothing any more; return how many went."""
    removed = 0
    while True:
        try:
            async with database.transaction(ALL_ROOTS) as connection:
                batch: int = await connection.fetchval(_PRUNE, BATCH)
        except asyncpg.ForeignKeyViolationError:
            return removed  # one was filled again meanwhile; the next round takes the others
        removed += batch
        if batch < BATCH:
            return removed
