"""The order of jobs: roots, keys, priorities, times; and how long they are kept."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.auth.access import ALL_GRANTED, Access
from app.db.database import ALL_ROOTS, Database
from app.jobs import queue, repository
from app.jobs.record import ClaimedJob, NewJob, State
from app.namespaces import to_root, to_stored
from tests.support.jobs import KIND, Jobs, job_row

pytestmark = pytest.mark.slow  # each waits for workers


def tenant(name: str) -> Access:
    return Access(f"mk_{name}", to_root([name]), ALL_GRANTED)


async def submit(
    database: Database,
    name: str,
    *,
    times: int = 1,
    key: str | None = None,
    urgent: bool = False,
    delay_seconds: float = 0,
) -> list[str]:
    """Submit jobs of a tenant, which are in order even if the clock stands still."""
    namespace, key = to_stored([name, "users"]), key and f"{name}/{key}"
    new = NewJob(KIND, namespace, {}, key, delay_seconds=delay_seconds)
    async with database.transaction(ALL_ROOTS) as connection:
        return [
            await repository.insert(
                connection, tenant(name), new, priority=0 if urgent else 1, max_attempts=5
            )
            for _ in range(times)
        ]


async def claim(database: Database, max_per_root: int = 99) -> ClaimedJob | None:
    async with database.transaction(ALL_ROOTS) as connection:
        await queue.lock_claims(connection)
        return await queue.claim(
            connection, "w", lease_seconds=60, concurrency=99, max_per_root=max_per_root
        )


async def claim_all(database: Database, max_per_root: int = 99) -> list[str]:
    """Claim all jobs that may run at the same time."""
    found = []
    while job := await claim(database, max_per_root):
        found.append(job.id)
    return found


async def end(database: Database, job_id: str) -> None:
    async with database.connection(ALL_ROOTS) as connection:
        await connection.execute("UPDATE jobs SET state = 'succeeded' WHERE id = $1", job_id)


async def test_jobs_of_one_root_start_in_order_and_urgent_ones_first(database: Database) -> None:
    background = await submit(database, "a", times=20)
    urgent = await submit(database, "a", times=2, urgent=True)
    assert await claim_all(database) == urgent + background
    assert await claim(database) is None


async def test_a_tenants_backlog_does_not_delay_another(database: Database) -> None:
    backlog = await submit(database, "a", times=1_000)
    assert [job.id for _ in range(3) if (job := await claim(database))] == backlog[:3]
    [lone] = await submit(database, "b")
    job = await claim(database)
    assert job is not None
    assert job.id == lone


async def test_jobs_of_one_key_run_one_at_a_time_and_block_no_others(database: Database) -> None:
    await submit(database, "a", key="x", delay_seconds=60)
    slow = await submit(database, "a", key="x", times=3)
    others = await submit(database, "a", times=2) + await submit(database, "a", key="y")
    elsewhere = await submit(database, "b", key="x")
    assert sorted(await claim_all(database)) == sorted([slow[0], *others, *elsewhere])
    await end(database, slow[0])
    assert await claim_all(database) == [slow[1]]


async def test_a_job_that_is_moved_while_it_is_claimed_is_left_alone(database: Database) -> None:
    [job_id] = await submit(database, "a")
    async with database.transaction(ALL_ROOTS) as connection:
        await connection.execute("UPDATE jobs SET run_at = run_at + interval '1 minute'")
        claiming = asyncio.create_task(claim(database))
        await asyncio.sleep(0.2)
    assert await claiming is None
    assert (await job_row(database, job_id))["state"] == "queued"


async def test_concurrent_claims_take_each_job_once(database: Database) -> None:
    submitted = []
    for name in ("a", "b", "c"):
        submitted += await submit(database, name, times=10)
    found = await asyncio.gather(*(claim_all(database) for _ in range(6)))
    assert sorted(job_id for job_ids in found for job_id in job_ids) == sorted(submitted)


keys = st.sampled_from([None, "x", "y"])


@hypothesis_settings(max_examples=40)
@given(
    jobs=st.lists(
        st.tuples(st.sampled_from("abc"), keys, st.booleans(), st.booleans()), max_size=14
    ),
    most=st.integers(1, 4),
)
async def test_the_rules_hold_for_any_queue_and_no_job_is_forgotten(
    database: Database, jobs: list[tuple[str, str | None, bool, bool]], most: int
) -> None:
    async with database.connection(ALL_ROOTS) as connection:
        await connection.execute("DELETE FROM jobs")
    for name, key, urgent, delayed in jobs:
        await submit(database, name, key=key, urgent=urgent, delay_seconds=3600 if delayed else 0)
    ready, done = sum(not delayed for *_, delayed in jobs), 0
    while claimed := await claim_all(database, most):
        rows = [await job_row(database, job_id) for job_id in claimed]
        running = Counter(row["root"] for row in rows)
        assert max(running.values()) <= most
        async with database.connection(ALL_ROOTS) as connection:
            overlapping = await connection.fetch(
                "SELECT concurrency_key FROM jobs WHERE state = 'running' "
                "AND concurrency_key IS NOT NULL GROUP BY concurrency_key HAVING count(*) > 1"
            )
        assert overlapping == []
        for job_id in claimed:
            await end(database, job_id)
        done += len(claimed)
    assert done == ready


async def test_old_jobs_are_deleted_in_portions_once_they_have_ended(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "DELETED_AT_ONCE", 4)
    for _ in range(6):
        await jobs.submit()
    recent = await jobs.submit()
    await jobs.run()
    waiting = await jobs.submit(delay_seconds=60)
    jobs.handler.act = lambda run: jobs.handler.succeed(run, State.AWAITING_REVIEW)
    review = (await jobs.done())["id"]
    await jobs.sql(
        "UPDATE jobs SET created_at = created_at - interval '31 days', "
        "finished_at = finished_at - interval '31 days' WHERE id <> $1",
        recent,
    )
    async with jobs.database.connection("") as connection:
        assert [await queue.delete_old(connection, 30) for _ in range(2)] == [True, False]
    for left in ("SELECT id FROM jobs", "SELECT DISTINCT job_id AS id FROM job_events"):
        assert {row["id"] for row in await jobs.sql(left)} == {recent, waiting, review}
