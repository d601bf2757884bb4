"""What PostgreSQL does for those who wait for threads, messages, managers and changes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import cast

import pytest

from app.changes import repository as changes
from app.db.database import ALL_ROOTS, Connection, Database
from app.jobs import repository as jobs
from app.managers import repository as managers
from app.namespaces import stored_range, to_root, to_stored
from app.threads import repository
from app.threads.repository import ThreadRef
from tests.support.plans import ExplainingConnection

pytestmark = pytest.mark.slow

THREADS, MESSAGES_EACH, JOBS_EACH, CHANGES_EACH = 2_000, 50, 20, 2
ROOT = to_root(["acme"])
THREAD = ThreadRef(ROOT, "t0700", to_stored(["acme", "users"]))

_FILL = (
    "INSERT INTO threads (root, id, namespace, next_position, created_at, updated_at) "
    f"SELECT $1, 't' || to_char(n, 'FM0000'), $1 || E'users\\x1f', {MESSAGES_EACH}, now(), now() "
    f"FROM generate_series(1, {THREADS}) AS n",
    "INSERT INTO thread_messages SELECT $1, id, n, namespace, 'position:' || n, "
    "jsonb_build_object('role', 'user', 'content', repeat('word ', 20)), now() "
    f"FROM threads, generate_series(0, {MESSAGES_EACH - 1}) AS n WHERE root = $1",
    "INSERT INTO jobs (id, namespace, root, actor, grants, kind, state, request, thread_id, "
    "priority, attempt, max_attempts, run_at, created_at, finished_at) "
    "SELECT format('job_%s%s', to_char(n, 'FM000'), id), namespace, $1, 'mk', '[]', "
    "'extract_thread', CASE WHEN n = 1 THEN 'queued' ELSE 'succeeded' END, '{}', id, 1, 0, 5, "
    "now(), now(), CASE WHEN n > 1 THEN now() END "
    f"FROM threads, generate_series(1, {JOBS_EACH}) AS n WHERE root = $1 ORDER BY random()",
    "INSERT INTO job_changes (job_id, number, namespace, key, action, state, value, details, "
    "version_before) SELECT id, n, namespace, id || n, 'update', 'applied', '{}', "
    "'{\"importance\": null}', 1 "
    f"FROM jobs, generate_series(1, {CHANGES_EACH}) AS n WHERE root = $1",
    "INSERT INTO item_versions (namespace, key, version, action, value, actor, recorded_at) "
    "SELECT namespace, key, 1, 'put', '{}', 'mk', now() FROM job_changes "
    "WHERE starts_with(namespace, $1)",
    "INSERT INTO namespaces VALUES ($1 || E'users\\x1f')",
    "INSERT INTO items (namespace, key, value, version, source, created_at, updated_at) "
    "SELECT namespace, id || n, '{}', 1, jsonb_build_object('thread_id', id, 'position', n, "
    "'message_ids', jsonb_build_array('position:' || n)), now(), now() "
    "FROM threads, generate_series(0, 9) AS n WHERE root = $1",
    "INSERT INTO managers SELECT r || E'\\x1f', 'm' || to_char(n, 'FM000'), '{}', 1, now(), now() "
    "FROM generate_series(1, 100) AS n, "
    "(SELECT 'root' || r AS r FROM generate_series(1, 200) AS r UNION SELECT 'acme') AS roots "
    "WHERE $1 <> ''",
)


@pytest.fixture(scope="module")
async def filled(filled_url: str) -> AsyncIterator[Database]:
    """100,000 messages in 2,000 threads of one root, 40,000 jobs with changes, and managers."""
    database = await Database.open(filled_url, pool_size=2)
    async with database.connection(ALL_ROOTS) as connection:
        await connection.execute("SET statement_timeout = 0")
        for statement in _FILL:
            await connection.execute(statement, ROOT)
        await connection.execute("ANALYZE")
        await connection.execute("RESET statement_timeout")
    yield database
    await database.close()


@asynccontextmanager
async def explaining(database: Database) -> AsyncIterator[ExplainingConnection]:
    """Yield a tenant's connection, whose work is undone."""
    async with database.connection(ROOT) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield ExplainingConnection(connection)
        finally:
            await transaction.rollback()


def plain(connection: ExplainingConnection) -> Connection:
    return cast(Connection, connection)


async def test_a_thread_and_its_messages_are_reached_by_their_keys(filled: Database) -> None:
    async with explaining(filled) as connection:
        thread = await repository.lock(plain(connection), THREAD)
        assert thread is not None
        page = await repository.find_messages(plain(connection), THREAD, 20, 30)
        assert (await repository.find_page(plain(connection), THREAD, 20, 5)).more
        assert await repository.find_known(plain(connection), THREAD, ["position:3", "x"])
        assert await repository.find_next(plain(connection), THREAD, 10, 20, 1_000)
        assert await repository.find_before(plain(connection), THREAD, 0, 10, 1_000)
        assert (
            len(await repository.find_unsummarized(plain(connection), THREAD, ["position:3"])) == 49
        )
        sources = await repository.find_sources(plain(connection), THREAD, "t07003", 0, 10)
        memories = await repository.find_memories(
            plain(connection), THREAD, "position:3", 0, datetime.now(UTC), 10
        )
        assert [message.position for message in sources.items] == [3]
        assert [item.address.key for item in memories.items] == ["t07003"]
        assert await repository.set_extracted(plain(connection), thread, 10) == MESSAGES_EACH
    assert [message.position for message in page] == list(range(20, 30))
    assert connection.scanned_tables == set()
    assert connection.indexes <= {
        "threads_pkey",
        "thread_messages_pkey",
        "thread_messages_message_id_key",
        "items_pkey",
        "items_thread_index",
    }


async def test_the_jobs_of_a_thread_are_found_by_an_index(filled: Database) -> None:
    async with explaining(filled) as connection:
        [queued] = await jobs.find_active(plain(connection), *THREAD, "extract_thread")
        page = await jobs.find_page(
            plain(connection),
            stored_range(ROOT),
            equal={"thread_id": "t0700"},
            before=None,
            limit=5,
        )
    assert queued.id == "job_001t0700"
    assert [job.id for job in page.items] == [f"job_{n:03}t0700" for n in range(20, 15, -1)]
    assert connection.indexes & {"jobs_thread_index"} == {"jobs_thread_index"}
    assert connection.indexes <= {"jobs_thread_index", "model_calls_pkey"}


async def test_changes_are_listed_by_their_job(filled: Database) -> None:
    async with explaining(filled) as connection:
        found = await changes.find_page(plain(connection), "job_002t0700", after=0, limit=100)
        await changes.find(plain(connection), "job_002t0700", changes.ChangeState.PROPOSED)
    listed = [(one.change.number, one.value_before) for one in found.items]
    assert listed == [(1, "{}"), (2, "{}")]
    assert connection.scanned_tables == set()
    assert connection.indexes == {"job_changes_pkey", "item_versions_pkey"}


async def test_managers_are_listed_by_their_root(filled: Database) -> None:
    async with explaining(filled) as connection:
        page = await managers.find_page(plain(connection), ROOT, after="m050", limit=5)
        assert await managers.find(plain(connection), ROOT, "m007")
    assert [manager.name for manager in page.items] == ["m051", "m052", "m053", "m054", "m055"]
    assert connection.scanned_tables == set()
    assert connection.indexes == {"managers_pkey"}
