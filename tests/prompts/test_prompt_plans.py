"""PostgreSQL's plans for prompts when there are many of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from app.auth.access import ALL_GRANTED, Access
from app.clock import FrozenClock
from app.db.database import ALL_ROOTS, Connection, Database
from app.namespaces import Root, to_root
from app.prompts import repository
from app.prompts.repository import Ref
from app.prompts.service import PromptService
from tests.support.plans import ExplainingConnection

pytestmark = pytest.mark.slow

ROOTS, PROMPTS_EACH, VERSIONS_EACH = 500, 20, 10
ONE = to_root(["r0250"])
ACME = Access("mk", ONE, ALL_GRANTED)
KEYS = {"prompts_pkey", "prompt_versions_pkey", "prompt_labels_pkey"}


@pytest.fixture(scope="module")
async def filled(filled_url: str) -> AsyncIterator[Database]:
    """10,000 prompts of 500 roots; of one prompt 5,000 versions, of the others ten each."""
    database = await Database.open(filled_url, pool_size=2)
    async with database.connection(ALL_ROOTS) as connection:
        await connection.execute("SET statement_timeout = 0")
        await connection.execute(
            "INSERT INTO prompts (namespace, name, revision, newest, created_at, updated_at) "
            "SELECT format(E'r%s\\x1f', to_char(r, 'FM0000')), format('p%s', n), 1, $3, now(), "
            "now() FROM generate_series(1, $1) AS r, generate_series(1, $2) AS n "
            "ORDER BY random()",
            ROOTS,
            PROMPTS_EACH,
            VERSIONS_EACH,
        )
        await connection.execute(
            "INSERT INTO prompt_versions (namespace, name, number, text, actor, created_at) "
            "SELECT namespace, name, number, repeat(md5(name), 40), 'mk', now() FROM prompts, "
            "generate_series(1, CASE WHEN namespace = $1 AND name = 'p1' THEN 5000 ELSE 10 END) "
            "AS number ORDER BY random()",
            ONE,
        )
        await connection.execute(
            "INSERT INTO prompt_labels "
            "(namespace, name, label, number, earlier, actor, moved_at) "
            "SELECT namespace, name, label, 7, '{1,2}', 'mk', now() "
            "FROM prompts, unnest('{production,candidate,eu}'::text[]) AS label ORDER BY random()"
        )
        await connection.execute("ANALYZE")
        await connection.execute("RESET statement_timeout")
    yield database
    await database.close()


@asynccontextmanager
async def explaining(database: Database, root: Root = ONE) -> AsyncIterator[ExplainingConnection]:
    """Yield a connection whose work is undone."""
    async with database.connection(root) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield ExplainingConnection(connection)
        finally:
            await transaction.rollback()


def plain(connection: ExplainingConnection) -> Connection:
    return cast(Connection, connection)


@pytest.mark.parametrize("root", [ONE, ALL_ROOTS])
async def test_a_prompt_is_read_by_its_keys_in_one_statement(filled: Database, root: Root) -> None:
    read: list[tuple[str | None, int | None]] = [("production", None), (None, 7), (None, None)]
    for label, version in read:
        async with explaining(filled, root) as connection:
            row = await repository.get(
                plain(connection), Ref(ONE, "p1"), label=label, version=version
            )
        assert row.version == (7 if label or version else VERSIONS_EACH)
        assert len(connection.plans) == 1
        assert connection.indexes == KEYS
        assert connection.scanned_tables == set()


async def test_a_generic_plan_reads_by_the_keys(filled: Database) -> None:
    async with filled.transaction(ONE) as connection:
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        explained = ExplainingConnection(connection)
        assert await repository.get(plain(explained), Ref(ONE, "p1"), label="eu")
    assert explained.indexes == KEYS
    assert explained.scanned_tables == set()


@pytest.mark.parametrize("root", [ONE, ALL_ROOTS])
async def test_pages_are_read_by_the_keys(filled: Database, root: Root) -> None:
    for before in (5_001, 11):
        async with explaining(filled, root) as connection:
            page = await repository.find_versions(
                plain(connection), Ref(ONE, "p1"), before=before, limit=10
            )
        assert [row.version for row in page.items] == list(range(before - 1, before - 11, -1))
        assert connection.indexes <= {"prompt_versions_pkey", "prompt_labels_pkey"}
        assert connection.scanned_tables == set()
    async with explaining(filled, root) as connection:
        prompts = await repository.find_page(plain(connection), ONE, after="p15", limit=5)
    assert [row.name for row in prompts.items] == ["p16", "p17", "p18", "p19", "p2"]
    assert connection.indexes == {"prompts_pkey", "prompt_labels_pkey"}
    assert connection.scanned_tables == set()


async def test_changes_touch_only_the_rows_of_one_prompt(
    filled: Database, clock: FrozenClock
) -> None:
    prompts = PromptService(filled, clock)
    async with explaining(filled) as connection:
        added = await prompts.add_version(
            plain(connection), ACME, "p2", "Be brief.", based_on=7, analysis=None
        )
        assert added == VERSIONS_EACH + 1
        await prompts.promote(plain(connection), ACME, "p2", version=added)
        ref, change = Ref(ONE, "p2"), repository.Stamp("mk", clock.now())
        assert await repository.roll_back_label(plain(connection), ref, "production", change)
        assert await repository.delete_label(plain(connection), ref, "eu")
        assert await repository.find_labels(plain(connection), ref) == {
            "candidate": added,
            "production": 7,
        }
        await repository.delete(plain(connection), ref)
    assert connection.scanned_tables == set()
    assert connection.indexes <= KEYS
