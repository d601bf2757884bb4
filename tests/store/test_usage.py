"""Counting how often and when items are used, and what a search makes of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from app.clock import FrozenClock
from app.config import Settings
from app.db.database import ALL_ROOTS, Database, DatabaseUnavailableError
from app.main import create_app
from app.namespaces import StoredNamespace, to_stored
from app.providers.embedder import FakeEmbedder
from app.usage_counter import (
    FLUSH_SECONDS,
    MAX_ITEMS,
    URGENT_ITEMS,
    UsageCounter,
    flush,
    record_usage,
)
from tests.support.app import Store, running_with_resources
from tests.support.load import at_once

ALICE = ["users", "alice"]
STRENGTH = {"query": "ramen", "weights": {"relevance": 0, "strength": 1}, "explain": True}


@pytest.fixture
def usage(clock: FrozenClock) -> UsageCounter:
    return UsageCounter(clock)


async def rows(database: Database, sql: str, *arguments: object) -> list[asyncpg.Record]:
    async with database.connection(ALL_ROOTS) as connection:
        return await connection.fetch(sql, *arguments)


@dataclass(frozen=True)
class Counted:
    """An item to count."""

    id: int
    address: tuple[StoredNamespace, str] = (to_stored(["a"]), "k")


async def put_items(store: Store, database: Database, count: int = 1) -> list[Counted]:
    """Put items and return them in the order of their ids."""
    for number in range(count):
        await store.put([*ALICE, str(number % 3)], f"k{number}", {"n": number})
    found = await rows(database, "SELECT id, namespace, key FROM items ORDER BY id")
    return [Counted(row["id"], (row["namespace"], row["key"])) for row in found]


async def written(database: Database) -> dict[int, tuple[int, datetime]]:
    found = await rows(database, "SELECT item_id, uses, last_used_at FROM item_usage")
    return {row["item_id"]: (row["uses"], row["last_used_at"]) for row in found}


class Served:
    """The service, its store, and the uses that it counted."""

    def __init__(self, store: Store, usage: UsageCounter, database: Database) -> None:
        self.store = store
        self._usage = usage
        self._database = database

    async def uses_by(self, call: Awaitable[object]) -> int:
        """Return how many uses a request counts."""
        before = await self._uses()
        await call
        await flush(self._usage, self._database)
        return await self._uses() - before

    async def _uses(self) -> int:
        return sum(uses for uses, _ in (await written(self._database)).values())

    async def strengths(self) -> dict[str, float]:
        """Return each item's strength, the items in the order in which they are found."""
        found = await self.store.search(ALICE, **STRENGTH)
        return {item["key"]: item["explanation"]["strength"] for item in found}


@pytest.fixture
async def served(
    settings: Settings, clock: FrozenClock, database: Database
) -> AsyncIterator[Served]:
    app = create_app(settings, embedder=FakeEmbedder(), clock=clock)
    async with running_with_resources(app) as (client, resources):
        yield Served(Store(client), resources.usage, database)


async def test_what_was_read_ranks_first_and_one_use_is_worth_half_after_seven_days(
    served: Served, clock: FrozenClock
) -> None:
    for key in ("a", "b", "c"):
        await served.store.put(ALICE, key, {"text": "ramen"})
    assert await served.uses_by(served.store.get(ALICE, "b")) == 1
    clock.advance(timedelta(days=7))
    assert await served.strengths() == {"b": 0.5, "a": 0, "c": 0}


async def test_items_that_a_read_returns_are_used(
    served: Served, database: Database, clock: FrozenClock
) -> None:
    store, namespace = served.store, [*ALICE, "0"]
    [item] = await put_items(store, database)
    address: dict[str, Any] = {"namespace": namespace, "key": "k0"}
    assert await served.uses_by(store.get(namespace, "k0")) == 1
    assert await written(database) == {item.id: (1, clock.now())}
    assert await served.uses_by(store.batch({"op": "get", **address})) == 1
    assert await served.uses_by(store.batch({"op": "search", "namespace_prefix": ALICE})) == 1
    assert await served.uses_by(store.search(ALICE, query="ramen")) == 1
    assert await served.uses_by(store.search(ALICE)) == 1
    assert await served.uses_by(store.search(ALICE, offset=1)) == 0
    assert await served.uses_by(store.get(namespace, "k0", as_of=clock.now().isoformat())) == 0
    assert await served.uses_by(store.put(**address, value={"n": 2})) == 0
    assert await served.uses_by(store.versions(namespace, "k0")) == 0


async def test_an_item_that_is_deleted_and_put_again_starts_from_nothing(
    served: Served, database: Database
) -> None:
    async def read_and_replace() -> None:
        await served.store.get(ALICE, "k")
        await served.store.delete(ALICE, "k")
        await served.store.put(ALICE, "k", {"text": "ramen"})

    await served.store.put(ALICE, "k", {"text": "ramen"})
    assert await served.uses_by(served.store.get(ALICE, "k")) == 1
    assert await served.uses_by(read_and_replace()) == -1
    assert await written(database) == {}
    assert await served.strengths() == {"k": 0}


async def test_counters_add_up_and_keep_the_later_time(
    store: Store, database: Database, usage: UsageCounter, clock: FrozenClock
) -> None:
    [item] = await put_items(store, database)
    later = FrozenClock(clock.now() + timedelta(seconds=1))
    others = UsageCounter(later)
    usage.count([item, item])
    others.count([item])
    await flush(others, database)
    await flush(usage, database)
    assert await written(database) == {item.id: (3, later.now())}


async def test_no_use_is_lost_between_concurrent_flushes(
    store: Store, database: Database, clock: FrozenClock
) -> None:
    items = await put_items(store, database, 30)

    async def use_all(number: int) -> None:
        usage = UsageCounter(clock)
        for _ in range(10):
            usage.count(items if number % 2 else reversed(items))
            await flush(usage, database)

    await at_once(4, use_all)
    assert await written(database) == {item.id: (40, clock.now()) for item in items}


async def test_an_item_whose_delete_is_under_way_leaves_no_row_behind(
    store: Store, database: Database, usage: UsageCounter, clock: FrozenClock
) -> None:
    ended, present = await put_items(store, database, 2)
    usage.count([ended, present])
    async with database.transaction(ALL_ROOTS) as connection:
        await connection.execute("DELETE FROM items WHERE id = $1", ended.id)
        await connection.execute("UPDATE items SET importance = 1 WHERE id = $1", present.id)
        await flush(usage, database)  # waits for neither
        assert await written(database) == {present.id: (1, clock.now())}
    await flush(usage, database)
    assert await written(database) == {present.id: (1, clock.now())}
    assert usage.take() == {}


async def test_counts_of_a_failed_flush_wait_and_add_up(
    store: Store, database: Database, usage: UsageCounter, clock: FrozenClock, settings: Settings
) -> None:
    [item] = await put_items(store, database)
    usage.count([item])
    away = await Database.open(str(settings.database_url), pool_size=1)
    await away.close()
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError):
            await flush(usage, away)
    clock.advance(timedelta(days=1))
    usage.count([item])
    await flush(usage, database)
    assert await written(database) == {item.id: (2, clock.now())}


def test_what_waits_is_bounded_and_what_goes_uncounted_is_known(usage: UsageCounter) -> None:
    usage.count(Counted(number) for number in range(MAX_ITEMS + 5))
    usage.count([Counted(0)])
    assert usage.take_dropped() == 5
    assert usage.take_dropped() == 0
    waiting = usage.take()
    assert len(waiting) == MAX_ITEMS
    assert waiting[0].count == 2


@pytest.mark.slow
async def test_many_waiting_items_are_written_before_their_time(
    store: Store, database: Database, usage: UsageCounter
) -> None:
    [item] = await put_items(store, database)
    async with record_usage(usage, database):
        usage.count([item])
        usage.count(Counted(-number) for number in range(1, URGENT_ITEMS))
        await asyncio.sleep(FLUSH_SECONDS / 4)
        assert list(await written(database)) == [item.id]
