"""The memory tool's queries are bounded, whatever the namespace holds."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import cast

import pytest

from app.db.database import Connection, Database
from app.namespaces import to_stored
from app.store.types import Address
from app.tools import file_repository
from app.tools.file_text import lineage
from tests.support.plans import ExplainingConnection

pytestmark = pytest.mark.slow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMESPACE = to_stored(["agents", "0500"])
FILES = 20_000


@pytest.fixture(scope="module")
async def filled(filled_url: str) -> AsyncIterator[Database]:
    """100 files in each of 1,000 namespaces, and in one of them 20,000 more."""
    database = await Database.open(filled_url, pool_size=1)
    async with database.connection("") as connection:
        await connection.execute(
            "INSERT INTO namespaces SELECT format(E'agents\\x1f%s\\x1f', to_char(n, 'FM0000')) "
            "FROM generate_series(1, 1000) AS n"
        )
        insert = (
            "INSERT INTO items (namespace, key, value, version, created_at, updated_at) "
            "SELECT namespace, {key}, jsonb_build_object('content', repeat('text ', 20)), 1, "
            "$1, $1 FROM namespaces, generate_series(1, {count}) AS n WHERE {where}"
        )
        each = insert.format(key="'a/' || n % 10 || '/' || n", count=100, where="true")
        many = insert.format(key="'many/' || n", count=FILES, where="namespace = $2")
        await connection.execute(each, NOW)
        await connection.execute(many, NOW, NAMESPACE)
        await connection.execute("ANALYZE")
    yield database
    await database.close()


@asynccontextmanager
async def explained(database: Database) -> AsyncIterator[tuple[ExplainingConnection, Connection]]:
    """Yield a connection that keeps plans, twice: as it is, and as the repository takes it."""
    async with database.connection(to_stored(["agents"])) as connection:
        explaining = ExplainingConnection(connection)
        yield explaining, cast(Connection, explaining)


@pytest.mark.parametrize("directory", ["", "many"])
async def test_a_directory_is_read_in_order_up_to_the_limit(
    filled: Database, directory: str
) -> None:
    address = Address(NAMESPACE, directory)
    async with explained(filled) as (explaining, connection):
        for read in (
            file_repository.sizes_below,
            file_repository.keys_below,
            file_repository.files_below,
        ):
            assert len(await read(connection, address, NOW, 1_001)) == 1_001
    assert explaining.indexes == {"items_pkey"}
    assert explaining.scanned_tables == set()
    for plan in explaining.plans:
        assert plan["Node Type"] == "Limit"
        assert '"Sort"' not in json.dumps(plan)


async def test_an_obstacle_is_found_by_key(filled: Database) -> None:
    new = [f"new/{number}" for number in range(1_000)]
    async with explained(filled) as (explaining, connection):

        async def obstacle(key: str) -> str | None:
            return await file_repository.find_obstacle(
                connection, NAMESPACE, lineage(key), NOW, besides=new
            )

        assert await obstacle("new/1") is None
        assert await obstacle("many/1/x/y") == "many/1"
        assert (await obstacle("many") or "").startswith("many/")
    assert explaining.indexes == {"items_pkey"}
    assert explaining.scanned_tables == set()
