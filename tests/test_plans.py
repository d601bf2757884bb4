"""Every statement a user waits on has the plan it was written for, at a realistic size."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import cast

import asyncpg
import numpy as np
import pytest

from app.db import Connection, Database
from app.embedding_model import register
from app.namespaces import stored_range, to_stored
from app.providers.embeddings.fake import FakeEmbedder
from app.search.candidates import (
    Page,
    Scope,
    Target,
    nearest_by_index,
    nearest_exactly,
    nearest_filtered,
    newest,
    share_of_all,
)
from app.store import repository
from app.store.filters import parse_filter
from app.store.listing import NamespaceQuery, list_namespaces
from app.store.writes import Put
from tests.support.databases import Cluster
from tests.support.plans import ExplainingConnection

pytestmark = pytest.mark.slow

NAMESPACES, ITEMS_EACH, DIMENSIONS = 1_000, 20, 16
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ONE = to_stored(["users", "u0500"])
ADDRESS = (ONE, "k01")
PAGE = Page(limit=10, offset=0)


@pytest.fixture(scope="module")
def filled_url(cluster: Cluster) -> Iterator[str]:
    with cluster.database() as url:
        yield url


@pytest.fixture(scope="module")
async def filled(filled_url: str) -> AsyncIterator[Database]:
    """20,000 items with a passage each, in 1,000 namespaces."""
    database = await Database.open(filled_url, pool_size=2)
    await register(database, FakeEmbedder(DIMENSIONS))
    async with database.connection("") as connection:
        await _fill(connection)
    yield database
    await database.close()


async def _fill(connection: Connection) -> None:
    await connection.execute("SET statement_timeout = 0")
    index = "SELECT indexdef FROM pg_indexes WHERE indexname = 'passages_embedding_1'"
    definition = await connection.fetchval(index)
    await connection.execute("DROP INDEX passages_embedding_1")
    await connection.execute(
        "INSERT INTO namespaces SELECT format(E'users\\x1fu%s\\x1f', to_char(n, 'FM0000')) "
        "FROM generate_series(1, $1::int) AS n",
        NAMESPACES,
    )
    await connection.execute(
        "INSERT INTO items (namespace, key, value, version, expires_at, created_at, updated_at) "
        "SELECT namespace, 'k' || to_char(k, 'FM00'), jsonb_build_object('n', k), 1, "
        "CASE WHEN k = 1 THEN $2::timestamptz + interval '1 day' END, $2, $2 "
        "FROM namespaces, generate_series(1, $1::int) AS k ORDER BY random()",
        ITEMS_EACH,
        NOW,
    )
    await connection.execute(
        "INSERT INTO item_versions (namespace, key, version, action, value, actor, recorded_at) "
        "SELECT namespace, key, 1, 'put', value, 'x', created_at FROM items"
    )
    await connection.execute(
        "INSERT INTO passages SELECT namespace, key, 1, 0, '$', key, "
        f"(SELECT array_agg(random() - 0.5) FROM generate_series(1, {DIMENSIONS}) "
        "WHERE namespace IS NOT NULL)::real[]::vector::halfvec FROM items"
    )
    await connection.execute(definition)
    await connection.execute("ANALYZE")
    await connection.execute("RESET statement_timeout")


@asynccontextmanager
async def explaining(database: Database) -> AsyncIterator[ExplainingConnection]:
    """Yield a connection confined as a tenant's would be; what it writes is undone."""
    async with database.connection(to_stored(["users"])) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield ExplainingConnection(connection)
        finally:
            await transaction.rollback()


def plain(connection: ExplainingConnection) -> Connection:
    return cast(Connection, connection)


async def test_items_and_versions_are_reached_by_their_keys(filled: Database) -> None:
    async with explaining(filled) as connection:
        await repository.find(plain(connection), ADDRESS, NOW)
        await repository.find_many(plain(connection), [ADDRESS, (ONE, "k02")], NOW)
        await repository.refresh(plain(connection), [ADDRESS], NOW)
        await repository.lock(plain(connection), [ADDRESS], NOW)
        await repository.find_versions(plain(connection), ADDRESS, before=None, limit=100)
        await repository.find_version(plain(connection), ADDRESS, 1)
        await repository.find_as_of(plain(connection), ADDRESS, NOW)
    assert connection.scanned_tables == set()
    assert connection.indexes == {"items_pkey", "item_versions_pkey"}


async def test_writes_touch_only_what_they_change(filled: Database) -> None:
    put = Put(address=ADDRESS, value='{"n": 2}', pieces=[])
    async with explaining(filled) as connection:
        await repository.upsert(plain(connection), [put], actor="x", now=NOW)
        await repository.replace_passages(plain(connection), [put], [[]], 1)
        await repository.delete(plain(connection), [ADDRESS], actor="x", now=NOW)
    assert connection.scanned_tables == set()


async def test_a_small_scope_is_compared_item_by_item(filled: Database) -> None:
    async with explaining(filled) as connection:
        rows = await nearest_exactly(
            plain(connection), _scope(["users", "u0500"]), _target(), PAGE, largest=20_000
        )
    assert rows is not None
    assert len(rows) == 10
    assert connection.scanned_tables == set()
    assert connection.indexes == {"items_pkey", "passages_pkey"}


@pytest.mark.parametrize("condition", [None, {"n": {"$lte": 5}}, {"n": 7}])
async def test_a_large_scope_is_searched_by_the_vector_index(
    filled: Database, condition: dict[str, object] | None
) -> None:
    async with explaining(filled) as connection:
        hits = await nearest_by_index(
            plain(connection), _scope(["users"], condition), _target(), passages=40
        )
    assert len(hits) == 40
    assert "passages_embedding_1" in connection.indexes
    assert connection.scanned_tables == set()


async def test_a_filter_that_keeps_little_is_applied_before_anything_is_compared(
    filled: Database,
) -> None:
    scope = _scope(["users"], {"$meta": {"key": "k07"}, "n": 7})
    async with explaining(filled) as connection:
        assert await share_of_all(plain(connection), scope) == pytest.approx(0.05, abs=0.04)
        rows = await nearest_filtered(plain(connection), scope, _target(), PAGE)
    assert {row["key"] for row in rows} == {"k07"}
    assert "passages" not in connection.scanned_tables
    assert "passages_pkey" in connection.indexes


async def test_a_large_scope_is_noticed_without_comparing_it(filled: Database) -> None:
    async with explaining(filled) as connection:
        rows = await nearest_exactly(
            plain(connection), _scope(["users"]), _target(), PAGE, largest=1_000
        )
    assert rows is None


async def test_the_newest_of_one_namespace_are_found_by_key_range(filled: Database) -> None:
    async with explaining(filled) as connection:
        await newest(plain(connection), _scope(["users", "u0500"]), PAGE)
    assert connection.scanned_tables == set()
    assert connection.indexes == {"items_pkey"}


async def test_namespaces_are_listed_without_scanning_items(filled: Database) -> None:
    query = NamespaceQuery(to_stored(["users"]), [], [], None, 100, 0)
    async with explaining(filled) as connection:
        assert len(await list_namespaces(plain(connection), query, NOW)) == 100
    assert "items" not in connection.scanned_tables
    assert "items_pkey" in connection.indexes


async def test_nobody_sees_another_root_even_in_plain_sql(filled: Database) -> None:
    async with filled.connection(to_stored(["users", "u0001"])) as connection:
        assert await connection.fetchval("SELECT count(*) FROM items") == ITEMS_EACH
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("INSERT INTO namespaces VALUES ($1)", ONE)


def _scope(labels: list[str], condition: dict[str, object] | None = None) -> Scope:
    parsed = parse_filter(condition) if condition else None
    return Scope(stored_range(to_stored(labels)), parsed, NOW, with_expired=False)


def _target() -> Target:
    vector = np.ones(DIMENSIONS, dtype=np.float32) / np.sqrt(DIMENSIONS, dtype=np.float32)
    return Target(vector, 1)
