"""Counts how often and when items are used, and writes that to the table `item_usage`.

Uses are counted in memory and written every few seconds, many at a time, outside the requests
that use items. A process that is killed loses the counts of its last seconds. If a statement is
cut off, it is unknown whether it was executed; its counts are then written again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Protocol

import structlog

from app.background import attempt, background
from app.clock import Clock
from app.db.database import Connection, Database
from app.namespaces import ALL_ROOTS, StoredNamespace

URGENT_ITEMS = 1_000
"""With this many items to write, they are written at once."""

MAX_ITEMS = 20_000
"""Maximum items to write, about 4 MB; beyond it, uses of further items are dropped."""

FLUSH_SECONDS = 2.0
"""Maximum time between two flushes, while the database answers."""

RETRY_SECONDS = 10.0
"""Time until the next flush after a failed one."""

LAST_FLUSH_SECONDS = 5.0
"""Maximum time that a process that ends waits for its last flush."""

# An item's row lock keeps its delete, whose trigger removes its usage, from slipping in between.
# Rows locked by a writer are skipped, and left for the next flush. Flushes wait only for one
# another's rows of item_usage, which they lock in order.
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

# The caller's transaction has changed or locked the items.
_ADD_OF_CHANGED = """
INSERT INTO item_usage AS present (namespace, item_id, uses, last_used_at)
SELECT namespace, item_id, sum(uses), max(last_used_at)
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::timestamptz[])
    AS more (namespace, item_id, uses, last_used_at)
GROUP BY namespace, item_id
ON CONFLICT (namespace, item_id) DO UPDATE SET uses = present.uses + excluded.uses,
    last_used_at = greatest(present.last_used_at, excluded.last_used_at)
"""

_logger = structlog.get_logger("memoryd.usage")


class UsedItem(Protocol):
    """An item to count."""

    @property
    def id(self) -> int:
        """The item's number."""
        ...

    @property
    def address(self) -> tuple[StoredNamespace, str]:
        """The item's stored namespace and key."""
        ...


@dataclass(slots=True)
class Uses:
    """Number and last time of an item's uses that are not written yet."""

    namespace: StoredNamespace
    count: int
    last: datetime


class UsageCounter:
    """Counts the uses of items in memory, until `flush` writes them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._uses: dict[int, Uses] = {}
        self._dropped = 0
        self._is_urgent = asyncio.Event()

    def count(self, items: Iterable[UsedItem]) -> None:
        """Count one use of each item, at this moment."""
        now, counted = self._clock.now(), self._uses
        for item in items:
            item_id = item.id
            if item_id in counted:
                uses = counted[item_id]
                uses.count += 1
                uses.last = now
            elif len(counted) < MAX_ITEMS:
                counted[item_id] = Uses(item.address[0], 1, now)
            else:
                self._dropped += 1
        if len(counted) >= URGENT_ITEMS:
            self._is_urgent.set()

    async def wait_until_urgent(self) -> None:
        """Wait until the number of items to write makes it urgent."""
        await self._is_urgent.wait()

    def take(self, most: int | None = None) -> dict[int, Uses]:
        """Remove and return the uses of up to `most` items, by item id."""
        taken = {item_id: self._uses[item_id] for item_id in islice(self._uses, most)}
        for item_id in taken:
            del self._uses[item_id]
        if len(self._uses) < URGENT_ITEMS:
            self._is_urgent.clear()
        return taken

    def put_back(self, taken: Mapping[int, Uses]) -> None:
        """Add uses that could not be written."""
        for item_id, uses in taken.items():
            later = self._uses.get(item_id)
            if later is None:
                self._uses[item_id] = uses
            else:
                later.count += uses.count

    def take_dropped(self) -> int:
        """Return how many uses were dropped since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped


@asynccontextmanager
async def record_usage(usage: UsageCounter, database: Database) -> AsyncIterator[None]:
    """Flush every few seconds, earlier if it is urgent, and at the end of the block."""
    try:
        async with background(_flush_forever(usage, database)):
            yield
    finally:
        await _flush_last(usage, database)


async def add_uses(connection: Connection, uses: Sequence[tuple[int, Uses]]) -> None:
    """Add uses to items, by their ids, in the transaction that changes them."""
    await connection.execute(
        _ADD_OF_CHANGED,
        [one.namespace for _, one in uses],
        [item_id for item_id, _ in uses],
        [one.count for _, one in uses],
        [one.last for _, one in uses],
    )


async def flush(usage: UsageCounter, database: Database) -> None:
    """Write all counts, and keep those that cannot be written at this moment.

    Counts of deleted items are discarded. Raises the database's errors.
    """
    kept: dict[int, Uses] = {}
    try:
        while taken := usage.take(URGENT_ITEMS):
            kept |= taken
            busy = await _add(database, taken)
            for item_id in taken.keys() - busy:
                del kept[item_id]
    finally:
        usage.put_back(kept)


async def _add(database: Database, counts: Mapping[int, Uses]) -> set[int]:
    """Add counts to the table; return the items that are locked by writers."""
    async with database.transaction(ALL_ROOTS) as connection:
        rows = await connection.fetch(
            _ADD,
            list(counts),
            [uses.namespace for uses in counts.values()],
            [uses.count for uses in counts.values()],
            [uses.last for uses in counts.values()],
        )
    return {row["id"] for row in rows}


async def _flush_forever(usage: UsageCounter, database: Database) -> None:
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await usage.wait_until_urgent()
        if not await attempt("writing usage", partial(flush, usage, database)):
            await asyncio.sleep(RETRY_SECONDS)
        elif dropped := usage.take_dropped():
            _logger.warning("usage lost", uses=dropped)


async def _flush_last(usage: UsageCounter, database: Database) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_FLUSH_SECONDS):
            await attempt("writing usage", partial(flush, usage, database))
    lost = usage.take_dropped() + sum(uses.count for uses in usage.take().values())
    if lost:
        _logger.warning("usage lost", uses=lost)
