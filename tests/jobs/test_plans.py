"""What PostgreSQL does for the queue when it is long: plans, and that claims stay quick."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from app.auth.access import ALL_GRANTED, Access
from app.db.database import Connection, Database
from app.jobs import queue, reply_repository, repository
from app.jobs.queue import RetryPolicy
from app.jobs.record import NewJob, State
from app.namespaces import ALL_ROOTS, Range, Root, StoredNamespace, stored_range, to_stored
from app.providers.llm import Completion, TokenUsage
from tests.support.plans import ExplainingConnection

pytestmark = pytest.mark.slow

ROOTS, WAITING_EACH, ENDED_EACH, RUNNING = 1_000, 20, 40, 200
ONE = to_stored(["r0500"])


@pytest.fixture(scope="module")
async def filled(filled_url: str) -> AsyncIterator[Database]:
    """60,000 jobs of 1,000 roots, a third of them queued, 200 running, with events and calls."""
    database = await Database.open(filled_url, pool_size=2)
    async with database.connection(ALL_ROOTS) as connection:
        await connection.execute("SET statement_timeout = 0")
        await connection.execute(
            "INSERT INTO jobs (id, namespace, root, actor, grants, kind, state, request, "
            "concurrency_key, priority, attempt, max_attempts, events, run_at, "
            "created_at, finished_at) "
            "SELECT format('job_%s%s', to_char(n, 'FM000'), to_char(r, 'FM0000')), "
            "r.root || E'users\\x1f', r.root, 'mk', '[]', 'extract', "
            "CASE WHEN n <= $2 THEN 'queued' WHEN n % 20 = 0 THEN 'failed' ELSE 'succeeded' END, "
            "jsonb_build_object('messages', repeat(md5(r.root), 20)), r.root || n % 4, "
            "1, 0, 5, 2, now() - n * interval '1 second', now(), CASE WHEN n > $2 THEN now() END "
            "FROM (SELECT r, format(E'r%s\\x1f', to_char(r, 'FM0000')) AS root "
            "FROM generate_series(1, $1) AS r) AS r, generate_series(1, $3) AS n ORDER BY random()",
            ROOTS,
            WAITING_EACH,
            WAITING_EACH + ENDED_EACH,
        )
        await connection.execute(
            "UPDATE jobs SET state = 'running', attempt = 1, worker = 'w', "
            "lease_until = now() + interval '1 hour' "
            "WHERE id IN (SELECT max(id) FROM jobs WHERE state = 'queued' GROUP BY root LIMIT $1)",
            RUNNING,
        )
        await connection.execute(
            "INSERT INTO job_events SELECT id, n, namespace, 'step', '{}', now() "
            "FROM jobs, generate_series(1, 2) AS n"
        )
        await connection.execute(
            "INSERT INTO model_calls SELECT id, 1, namespace, 1, 'extract', 'm', 'end', 1, 1, 0, "
            "0.5, 1, now() FROM jobs WHERE state = 'succeeded'"
        )
        await connection.execute(
            "INSERT INTO job_replies SELECT id, n::text, namespace, 'null' "
            "FROM jobs, generate_series(1, 2) AS n WHERE state IN ('queued', 'running')"
        )
        await connection.execute("ANALYZE")
        await connection.execute("RESET statement_timeout")
    yield database
    await database.close()


@asynccontextmanager
async def explaining(database: Database, root: str) -> AsyncIterator[ExplainingConnection]:
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


async def claim(connection: Any) -> Any:
    return await queue.claim(connection, "w", lease_seconds=60, concurrency=99, max_per_root=16)


async def test_a_claim_reads_the_queue_by_its_index(filled: Database) -> None:
    async with explaining(filled, ALL_ROOTS) as connection:
        assert await claim(plain(connection)) is not None
    assert connection.scanned_tables == {"workers"}, "it has a few rows"
    assert connection.indexes == {"jobs_queue_index", "jobs_running_index", "jobs_pkey"}


async def test_claims_are_quick_while_a_thousand_roots_wait(filled: Database) -> None:
    async with filled.connection(ALL_ROOTS) as connection:
        transaction = connection.transaction()
        await transaction.start()
        began = time.monotonic()
        for _ in range(100):
            assert await claim(connection) is not None
        seconds = time.monotonic() - began
        await transaction.rollback()
    assert seconds < 10, "100 claims, on a machine that may be busy"


async def test_a_claim_passes_a_long_busy_concurrency_key(filled: Database) -> None:
    async with filled.connection(ALL_ROOTS) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE jobs SET state = 'cancelled' WHERE state = 'queued'")
        await connection.execute(
            "UPDATE jobs SET state = 'queued', root = $1, concurrency_key = 'busy' "
            "WHERE state = 'succeeded'",
            ONE,
        )
        await connection.execute("UPDATE jobs SET concurrency_key = 'busy' WHERE state = 'running'")
        began = time.monotonic()
        assert await claim(connection) is None
        seconds = time.monotonic() - began
        await transaction.rollback()
    assert seconds < 5, "38,000 jobs behind one that runs"


async def test_keeping_and_rescuing_touch_what_runs(filled: Database) -> None:
    async with explaining(filled, ALL_ROOTS) as connection:
        job = await claim(connection)
        connection.plans.clear()
        assert await queue.extend_leases(plain(connection), [job], 60) == {(job.id, 1)}
        assert await queue.requeue_lost(plain(connection), RetryPolicy(8, 1)) == []
        await queue.release(plain(connection), "nobody")
    assert connection.scanned_tables == set()
    assert connection.indexes <= {"jobs_pkey", "jobs_running_index", "job_replies_pkey"}


async def test_a_job_and_its_events_are_reached_by_their_keys(filled: Database) -> None:
    access = Access("mk", Root(ONE), ALL_GRANTED)
    async with explaining(filled, ONE) as connection:
        new = NewJob("extract", ONE, {})
        job_id = await repository.insert(plain(connection), access, new, priority=1, max_attempts=5)
        assert await repository.find(plain(connection), job_id)
        assert await repository.find_events(plain(connection), job_id, 0)
        await repository.request_cancel(plain(connection), job_id)
        assert await repository.requeue(plain(connection), job_id, 5)
        assert await repository.expedite(plain(connection), job_id)
    assert connection.scanned_tables == set()
    by_job = {"job_events_pkey", "model_calls_pkey", "job_replies_pkey"}
    assert connection.indexes == {"jobs_pkey", *by_job}


async def test_the_replies_kept_with_a_job_are_reached_by_its_key(filled: Database) -> None:
    async with explaining(filled, ALL_ROOTS) as connection:
        job = await claim(connection)
        connection.plans.clear()
        reply = Completion("Hello.", (), "end", TokenUsage(1, 1, 0, None), "m", digest="3")
        await reply_repository.add(plain(connection), job, reply)
        assert await reply_repository.find(plain(connection), job, "3") == reply
        await reply_repository.delete(plain(connection), job, ["3"])
    assert connection.scanned_tables == set()
    assert connection.indexes == {"jobs_pkey", "job_replies_pkey"}


@pytest.mark.parametrize("root", [ALL_ROOTS, ONE])
@pytest.mark.parametrize(
    "equal", [{}, {"state": "succeeded"}, {"state": "failed"}, {"kind": "none"}]
)
async def test_a_page_of_jobs_is_read_by_an_index(
    filled: Database, root: StoredNamespace, equal: dict[str, str]
) -> None:
    async with explaining(filled, root) as connection:
        page = await repository.find_page(
            plain(connection), _range(root), equal=equal, before=None, limit=50
        )
    ended = {"succeeded": ENDED_EACH - 2, "failed": 2}
    expected = 0 if "kind" in equal else 50 if not root else ended.get(equal.get("state", ""), 50)
    assert len(page.items) == min(50, expected)
    assert connection.scanned_tables <= ({"jobs"} if "kind" in equal and not root else set())


def _range(root: StoredNamespace) -> Range:
    return stored_range(root)


async def test_a_page_adds_up_what_it_shows_and_no_more(filled: Database) -> None:
    async with filled.connection(ALL_ROOTS) as connection:
        began = time.monotonic()
        page = await repository.find_page(
            connection, _range(ALL_ROOTS), equal={"state": State.SUCCEEDED}, before=None, limit=50
        )
        seconds = time.monotonic() - began
    assert [job.usage.model_calls for job in page.items] == [1] * 50
    assert seconds < 1


async def test_readiness_reads_what_has_not_ended(filled: Database) -> None:
    async with explaining(filled, ALL_ROOTS) as connection:
        found = await queue.read_state(plain(connection), 60)
    assert (found.pending, found.running) == (ROOTS * WAITING_EACH - RUNNING, RUNNING)
    assert "jobs" not in connection.scanned_tables
