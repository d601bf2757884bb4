"""Writing down how often and when items are used, away from the requests that use them.

Counts wait in memory for a few seconds (`app.usage_counter.Usage`) and are added to the table
`item_usage` many at a time. So a process that is killed loses the counts of its last seconds, and
one whose statement was cut off, so that nobody knows whether it was carried out, counts again.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial

import structlog

from app.background import attempt, background
from app.db.database import ALL_ROOTS, Database
from app.usage_counter import MANY_WAITING, Usage, Uses

FLUSH_SECONDS = 2.0
"""How long counts wait at most, while the database answers."""

RETRY_SECONDS = 10.0
"""How long counts wait after the database failed to take them."""

LAST_FLUSH_SECONDS = 5.0
"""How long a process that ends waits for its last counts to be written."""

# An item's row lock keeps its delete, whose trigger removes its usage, from slipping in between.
# Nobody is waited for who holds such a lock: a writer's items are busy, and are left for the next
# time. All that flushes wait for is one another's rows of item_usage, which they take in order.
_ADD = """
WITH noted AS (
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::timestamptz[])
        AS t (item_id, namespace, uses, last_used_at)
), held AS (
    SELECT noted.* FROM noted
    JOIN items ON items.id = noted.item_id AND items.namespace = noted.namespace
    FOR KEY SHARE OF items SKIP LOCKED
), added AS (
    INSERT INTO item_usage AS present (namespace, item_id, uses, last_used_at)
    SELECT namespace, item_id, uses, last_used_at FROM held ORDER BY item_id
    ON CONFLICT (namespace, item_id) DO UPDATE SET
        uses = present.uses + excluded.uses,
        last_used_at = greatest(present.last_used_at, excluded.last_used_at)
)
SELECT items.id FROM noted
JOIN items ON items.id = noted.item_id AND items.namespace = noted.namespace
WHERE noted.item_id NOT IN (SELECT item_id FROM held)
"""

_logger = structlog.get_logger("memoryd.usage")


@asynccontextmanager
async def recording(usage: Usage, database: Database) -> AsyncIterator[None]:
    """Write what is counted every few seconds, sooner where it is much, and at the end."""
    try:
        async with background(_record(usage, database)):
            yield
    finally:
        await _end(usage, database)


async def flush(usage: Usage, database: Database) -> None:
    """Write every count that waits; what cannot be written at this moment goes on waiting.

    Counts of items that ended are forgotten. Raises what the database raises.
    """
    kept: dict[int, Uses] = {}
    try:
        while taken := usage.take(MANY_WAITING):
            kept |= taken
            busy = await _add(database, taken)
            for item_id in taken.keys() - busy:
                del kept[item_id]
    finally:
        usage.put_back(kept)


async def _add(database: Database, counts: Mapping[int, Uses]) -> set[int]:
    """Add counts to the table; return the items that somebody else is changing meanwhile."""
    async with database.transaction(ALL_ROOTS) as connection:
        rows = await connection.fetch(
            _ADD,
            list(counts),
            [uses.namespace for uses in counts.values()],
            [uses.count for uses in counts.values()],
            [uses.last for uses in counts.values()],
        )
    return {row["id"] for row in rows}


async def _record(usage: Usage, database: Database) -> None:
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await usage.many()
        if not await attempt("writing usage", partial(flush, usage, database)):
            await asyncio.sleep(RETRY_SECONDS)
        elif dropped := usage.take_dropped():
            _logger.warning("usage lost", uses=dropped)


async def _end(usage: Usage, database: Database) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_FLUSH_SECONDS):
            await attempt("writing usage", partial(flush, usage, database))
    lost = usage.take_dropped() + sum(uses.count for uses in usage.take().values())
    if lost:
        _logger.warning("usage lost", uses=lost)
