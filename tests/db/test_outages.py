"""The database freezes, ends connections, or is away for a while."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest

from app.config import Settings
from app.db.database import ALL_ROOTS, Connection, Database, DatabaseUnavailableError
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from tests.support.app import Store, running
from tests.support.databases import Cluster
from tests.support.jobs import until
from tests.support.proxy import FreezableProxy

ITEM = {"namespace": "users", "key": "food"}
SEARCH = {"namespace_prefix": ["users"], "query": "ramen"}


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[FreezableProxy]:
    async with FreezableProxy.before(database_url) as started:
        yield started


async def timed(call: Awaitable[httpx2.Response]) -> tuple[httpx2.Response, float]:
    began = time.monotonic()
    response = await call
    return response, time.monotonic() - began


async def until_it_serves(client: httpx2.AsyncClient) -> None:
    async def serves() -> bool:
        return (await client.get("/readyz")).status_code == 200

    await until(serves)


def assert_unavailable(response: httpx2.Response) -> None:
    assert response.status_code == 503
    assert response.json()["code"] == "database_unavailable"
    assert response.headers["retry-after"] == "1"


@pytest.mark.slow
async def test_a_frozen_database_fails_requests_in_time_and_recovers(
    proxy: FreezableProxy, settings: Settings, embedder: FakeEmbedder
) -> None:
    chosen = settings.model_copy(update={"database_url": proxy.url})
    async with running(create_app(chosen, embedder=embedder), worker=True) as client:
        store = Store(client)
        await store.put(["users"], "food", {"text": "ramen"})
        proxy.freeze()
        (ready, ready_seconds), *answers = await asyncio.gather(
            timed(client.get("/readyz")),
            timed(client.get("/v1/store/items", params=ITEM)),
            timed(client.post("/v1/store/items/search", json=SEARCH)),
            timed(client.put("/v1/store/items", json={**ITEM, "namespace": ["a"], "value": {}})),
        )
        assert_unavailable(ready)
        assert ready_seconds < 4, "two seconds, on a machine that has nothing else to do"
        for response, seconds in answers:
            assert_unavailable(response)
            assert seconds < 12
        for path in ("/readyz", "/v1/store/items?namespace=users&key=food"):
            response, seconds = await timed(client.get(path))
            assert_unavailable(response)
            assert seconds < 1, "once it is known, nothing waits"
        proxy.thaw()
        await until_it_serves(client)
        assert (await store.get(["users"], "food"))["value"] == {"text": "ramen"}
        await store.put(["users"], "drink", {"text": "tea"})


@pytest.mark.slow
async def test_closing_does_not_wait_for_a_frozen_database(proxy: FreezableProxy) -> None:
    database = await Database.open(proxy.url, pool_size=2)
    proxy.freeze()
    began = time.monotonic()
    await database.close()
    assert time.monotonic() - began < 6


@asynccontextmanager
async def opened(url: str, pool_size: int = 1) -> AsyncIterator[Database]:
    database = await Database.open(url, pool_size=pool_size)
    try:
        yield database
    finally:
        await database.close()


@pytest.mark.slow
async def test_a_frozen_connection_is_not_used_again(proxy: FreezableProxy) -> None:
    async with opened(proxy.url) as database:
        before = await backend(database)
        proxy.freeze()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), database.transaction(ALL_ROOTS) as connection:
                await connection.execute("SELECT 1")
        assert time.monotonic() - began < 3
        proxy.thaw()
        assert await backend(database) != before


@pytest.mark.parametrize("use", [Database.connection, Database.transaction])
async def test_a_frozen_backend_is_waited_for_once(
    database_url: str, use: Callable[..., AbstractAsyncContextManager[Connection]]
) -> None:
    async with opened(database_url) as database:
        frozen = await backend(database)

        async def freeze_within() -> None:
            async with use(database, ALL_ROOTS) as connection:
                os.kill(frozen, signal.SIGSTOP)
                await connection.execute("SELECT 1", timeout=0.3)

        began = time.monotonic()
        try:
            with pytest.raises(DatabaseUnavailableError):
                await freeze_within()
            assert time.monotonic() - began < 5
            assert await backend(database) != frozen
        finally:
            os.kill(frozen, signal.SIGCONT)


async def test_a_statement_that_is_cancelled_in_time_leaves_its_connection_usable(
    database_url: str,
) -> None:
    async with opened(database_url) as database:
        before = await backend(database)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), database.connection(ALL_ROOTS) as connection:
                await connection.execute("SELECT pg_sleep(20)")
        assert await backend(database) == before


async def test_a_transaction_that_cannot_be_rolled_back_is_still_cancelled(
    database_url: str,
) -> None:
    async with opened(database_url) as database:
        frozen = await backend(database)

        async def work() -> None:
            async with database.transaction(ALL_ROOTS) as connection:
                os.kill(frozen, signal.SIGSTOP)
                await connection.execute("SELECT 1")

        task = asyncio.create_task(work())
        try:
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        finally:
            os.kill(frozen, signal.SIGCONT)


async def test_statements_end_while_the_database_is_suspended(database_url: str) -> None:
    async with opened(database_url, pool_size=2) as database:
        sleeping = asyncio.create_task(sleep_in(database))
        await asyncio.sleep(0.3)
        assert database.connections_in_use == 1
        await database.suspend()
        with pytest.raises(DatabaseUnavailableError):
            await sleeping
        with pytest.raises(DatabaseUnavailableError):
            await backend(database)
        assert database.resume()
        assert await backend(database)
        assert not database.resume()


@pytest.mark.slow
async def test_ended_connections_are_replaced(
    settings: Settings, embedder: FakeEmbedder, cluster: Cluster
) -> None:
    """A restart or failover ends every connection; notifications of jobs resume, too."""
    async with running(create_app(settings, embedder=embedder)) as client:
        store = Store(client)
        await store.put(["users"], "food", {"text": "ramen"})
        before = await end_backends(cluster, str(settings.database_url))
        assert before >= 2
        await until_it_serves(client)
        assert (await store.get(["users"], "food"))["value"] == {"text": "ramen"}
        await until(lambda: listening(cluster, str(settings.database_url)))


async def backend(database: Database) -> Any:
    async with database.connection(ALL_ROOTS) as connection:
        return await connection.fetchval("SELECT pg_backend_pid()")


async def sleep_in(database: Database) -> None:
    async with database.transaction(ALL_ROOTS) as connection:
        await connection.execute("SELECT pg_sleep(20)")


async def end_backends(cluster: Cluster, url: str) -> int:
    return await ask(
        cluster,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1",
        url,
    )


async def listening(cluster: Cluster, url: str) -> int:
    return await ask(
        cluster,
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = $1 AND application_name = 'memoryd listening'",
        url,
    )


async def ask(cluster: Cluster, question: str, url: str) -> int:
    connection = await asyncpg.connect(cluster.superuser_url)
    try:
        return int(await connection.fetchval(question, urlsplit(url).path.lstrip("/")))
    finally:
        await connection.close()
