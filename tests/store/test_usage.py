"""Counting how often and when items are used, and what a search makes of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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
from tests.support.app import Store, running
from tests.support.load import at_once

ALICE = ["users", "alice"]
STRENGTH = {"query": "ramen", "weights": {"relevance": 0, "strength": 1}, "explain": True}
HALF_LIFE_DAYS = 7

Serving = Callable[[], AbstractAsyncContextManager[Store]]


@pytest.fixture
def serving(settings: Settings, clock: FrozenClock) -> Serving:
    """The service, started and stopped again; what was counted is written when it stops."""

    @asynccontextmanager
    async def started() -> AsyncIterator[Store]:
        app = create_app(settings, embedder=FakeEmbedder(), clock=clock)
        async with running(app) as client:
            yield Store(client)

    return started


@pytest.fixture
def usage(clock: FrozenClock) -> UsageCounter:
    return UsageCounter(clock)


async def closed(settings: Settings) -> Database:
    database = await Database.open(str(settings.database_url), pool_size=1)
    await database.close()
    return database


async def rows(database: Database, sql: str, *arguments: object) -> list[asyncpg.Record]:
    async with database.connection(ALL_ROOTS) as connection:
        return await connection.fetch(sql, *arguments)


@dataclass(frozen=True)
class Counted:
    """An item to count."""

    id: int
    address: tuple[StoredNamespace, str] = (to_stored(["a"]), "k")


async def counted(database: Database) -> list[Counted]:
    found = await rows(database, "SELECT id, namespace, key FROM items ORDER BY id")
    return [Counted(row["id"], (row["namespace"], row["key"])) for row in found]


async def put_items(store: Store, database: Database, count: int = 1) -> list[Counted]:
    """Put items and return them in the order of their ids."""
    for number in range(count):
        await store.put([*ALICE, str(number % 3)], f"k{number}", {"n": number})
    return await counted(database)


async def written(database: Database) -> dict[int, tuple[int, datetime]]:
    found = await rows(database, "SELECT item_id, uses, last_used_at FROM item_usage")
    return {row["item_id"]: (row["uses"], row["last_used_at"]) for row in found}


def strengths(found: list[dict[str, Any]]) -> dict[str, float]:
    """Return each item's strength, the items in the order in which they were found."""
    return {item["key"]: item["explanation"]["strength"] for item in found}


class TestWhatCounts:
    async def test_what_was_read_ranks_first_and_one_use_is_worth_half_after_seven_days(
        self, serving: Serving, clock: FrozenClock
    ) -> None:
        async with serving() as store:
            for key in ("a", "b", "c"):
                await store.put(ALICE, key, {"text": "ramen"})
            await store.get(ALICE, "b")
        clock.advance(timedelta(days=7))
        async with serving() as store:
            found = await store.search(ALICE, **STRENGTH)
        assert strengths(found) == {"b": 0.5, "a": 0, "c": 0}
        assert found[0]["score"] == 0.5

    @pytest.mark.parametrize(
        ("way", "uses"),
        [
            ("get", 1),
            ("get as of", 0),
            ("put", 0),
            ("versions", 0),
            ("batch get", 1),
            ("batch search", 1),
            ("search by meaning", 1),
            ("search without a query", 1),
            ("search behind the page", 0),
        ],
    )
    async def test_items_that_a_read_returns_are_used(
        self, serving: Serving, database: Database, clock: FrozenClock, way: str, uses: int
    ) -> None:
        async with serving() as store:
            [item] = await put_items(store, database)
            namespace = [*ALICE, "0"]
            address: dict[str, Any] = {"namespace": namespace, "key": "k0"}
            if way.startswith("get"):
                as_of = {"as_of": clock.now().isoformat()} if way == "get as of" else {}
                assert (await store.get(namespace, "k0", **as_of))["key"] == "k0"
            elif way == "put":
                await store.put(**address, value={"n": 2})
            elif way == "versions":
                assert len(await store.versions(namespace, "k0")) == 1
            elif way == "batch get":
                await store.batch({"op": "get", **address})
            elif way == "batch search":
                await store.batch({"op": "search", "namespace_prefix": ALICE})
            elif way == "search by meaning":
                await store.search(ALICE, query="ramen")
            else:
                offset = 1 if way == "search behind the page" else 0
                await store.search(ALICE, offset=offset)
        assert await written(database) == ({item.id: (uses, clock.now())} if uses else {})

    async def test_an_item_that_is_deleted_and_put_again_starts_from_nothing(
        self, serving: Serving, database: Database
    ) -> None:
        async with serving() as store:
            await store.put(ALICE, "k", {"text": "ramen"})
            await store.get(ALICE, "k")
        async with serving() as store:
            await store.get(ALICE, "k")
            await store.delete(ALICE, "k")
            await store.put(ALICE, "k", {"text": "ramen"})
        assert await written(database) == {}
        async with serving() as store:
            assert strengths(await store.search(ALICE, **STRENGTH)) == {"k": 0}


class TestSeveralAtOnce:
    async def test_recorders_add_up_and_keep_the_later_time(
        self, store: Store, database: Database, usage: UsageCounter, clock: FrozenClock
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
        self, store: Store, database: Database, clock: FrozenClock
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
        self, store: Store, database: Database, usage: UsageCounter, clock: FrozenClock
    ) -> None:
        ended, present = await put_items(store, database, 2)
        usage.count([ended, present])
        async with database.transaction(ALL_ROOTS) as connection:
            await connection.execute("DELETE FROM items WHERE id = $1", ended.id)
            await flush(usage, database)  # does not wait for the delete
            assert await written(database) == {present.id: (1, clock.now())}
        await flush(usage, database)
        assert await written(database) == {present.id: (1, clock.now())}
        assert usage.take() == {}


class TestAFailingDatabase:
    async def test_counts_of_a_failed_flush_wait_and_add_up(
        self,
        store: Store,
        settings: Settings,
        database: Database,
        usage: UsageCounter,
        clock: FrozenClock,
    ) -> None:
        [item] = await put_items(store, database)
        usage.count([item])
        away = await closed(settings)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailableError):
                await flush(usage, away)
        clock.advance(timedelta(days=1))
        usage.count([item])
        await flush(usage, database)
        assert await written(database) == {item.id: (2, clock.now())}

    def test_what_waits_is_bounded_and_what_goes_uncounted_is_known(
        self, usage: UsageCounter
    ) -> None:
        usage.count(Counted(number) for number in range(MAX_ITEMS + 5))
        usage.count([Counted(0)])
        assert usage.take_dropped() == 5
        assert usage.take_dropped() == 0
        waiting = usage.take()
        assert len(waiting) == MAX_ITEMS
        assert waiting[0].count == 2


async def test_many_waiting_items_are_written_before_their_time(
    store: Store, database: Database, usage: UsageCounter
) -> None:
    [item] = await put_items(store, database)
    async with record_usage(usage, database):
        usage.count([item])
        usage.count(Counted(-number) for number in range(1, URGENT_ITEMS))
        await asyncio.sleep(FLUSH_SECONDS / 4)
        assert list(await written(database)) == [item.id]
