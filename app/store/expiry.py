"""The sweeper: removes expired items in small batches that never wait for a writer."""

from datetime import datetime

from app.db.database import ALL_ROOTS, Database

BATCH = 500

SWEEPER = "memoryd"
"""Actor that the history names for expirations."""

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


async def sweep(database: Database, now: datetime) -> int:
    """Remove every item that has expired by `now`; return their number."""
    removed = 0
    while True:
        async with database.transaction(ALL_ROOTS) as connection:
            batch: int = await connection.fetchval(_SWEEP, now, BATCH, SWEEPER)
        removed += batch
        if batch < BATCH:
            return removed
