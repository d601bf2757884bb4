"""Whose turn it is: roots, keys, priorities, times."""

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.auth.access import ALL_GRANTED, Access
from app.db.database import ALL_ROOTS, Database
from app.jobs import queue, repository
from app.jobs.record import ClaimedJob, NewJob, State
from app.jobs.run import JobRun
from app.namespaces import to_root, to_stored
from app.resources import Resources
from tests.support.jobs import (
    KIND,
    Acting,
    enqueue,
    job_row,
    new_job,
    quick,
    run_jobs,
    settled,
    until,
    worker_of,
    working,
)

pytestmark = pytest.mark.slow  # each waits for workers or models


def tenant(name: str) -> Access:
    return Access(f"mk_{name}", to_root([name]), ALL_GRANTED)


def of_tenant(name: str, *, key: str | None = None, delay_seconds: float = 0) -> NewJob:
    return NewJob(
        KIND, to_stored([name, "users"]), {}, key and f"{name}/{key}", delay_seconds=delay_seconds
    )


async def submit(
    database: Database,
    name: str,
    *,
    times: int = 1,
    key: str | None = None,
    urgent: bool = False,
    delay_seconds: float = 0,
) -> list[str]:
    """Submit jobs of a tenant, which are in order also where the clock stands still."""
    new = of_tenant(name, key=key, delay_seconds=delay_seconds)
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
    """Take whatever may run at the same time."""
    found = []
    while job := await claim(database, max_per_root):
        found.append(job.id)
    return found


async def end(database: Database, job_id: str) -> None:
    async with database.connection(ALL_ROOTS) as connection:
        await connection.execute("UPDATE jobs SET state = 'succeeded' WHERE id = $1", job_id)


async def test_jobs_of_one_root_begin_in_the_order_they_came(database: Database) -> None:
    submitted = await submit(database, "a", times=20)
    assert await claim_all(database) == submitted
    assert await claim(database) is None


async def test_a_job_somebody_waits_for_goes_before_the_background(database: Database) -> None:
    background = await submit(database, "a", times=3)
    urgent = await submit(database, "a", times=2, urgent=True)
    assert await claim_all(database) == urgent + background


async def test_one_tenants_backlog_does_not_hold_up_another(database: Database) -> None:
    backlog = await submit(database, "a", times=1_000)
    assert [job.id for _ in range(3) if (job := await claim(database))] == backlog[:3]
    [lone] = await submit(database, "b")
    job = await claim(database)
    assert job is not None
    assert job.id == lone


async def test_the_root_with_fewest_running_jobs_has_its_turn(database: Database) -> None:
    of: dict[str, str] = {}
    for name in ("a", "b", "c"):
        of |= dict.fromkeys(await submit(database, name, times=6), name)
    for round_ in range(1, 7):
        turns = [job.id for _ in range(3) if (job := await claim(database))]
        assert sorted(of[job_id] for job_id in turns) == ["a", "b", "c"], round_


async def test_a_root_runs_no_more_than_its_share(database: Database) -> None:
    submitted = await submit(database, "a", times=10)
    other = await submit(database, "b", times=1)
    first = await claim_all(database, max_per_root=4)
    assert Counter(job_id in other for job_id in first) == {False: 4, True: 1}
    await end(database, submitted[0])
    assert await claim_all(database, max_per_root=4) == [submitted[4]]


async def test_jobs_of_one_key_run_one_at_a_time_and_block_no_others(
    database: Database,
) -> None:
    slow = await submit(database, "a", key="x", times=3)
    others = await submit(database, "a", times=2) + await submit(database, "a", key="y")
    elsewhere = await submit(database, "b", key="x")
    assert sorted(await claim_all(database)) == sorted([slow[0], *others, *elsewhere])
    await end(database, slow[0])
    assert await claim_all(database) == [slow[1]]


async def test_a_delayed_job_holds_up_neither_its_key_nor_its_root(
    database: Database,
) -> None:
    await submit(database, "a", key="x", delay_seconds=60)
    ready = await submit(database, "a", key="x")
    assert await claim_all(database) == ready


async def test_a_job_that_is_moved_while_it_is_claimed_is_left_alone(database: Database) -> None:
    [job_id] = await submit(database, "a")
    async with database.transaction(ALL_ROOTS) as connection:
        await connection.execute("UPDATE jobs SET run_at = run_at + interval '1 minute'")
        claiming = asyncio.create_task(claim(database))
        await asyncio.sleep(0.2)
    assert await claiming is None
    assert (await job_row(database, job_id))["state"] == "queued"


async def test_many_claims_at_once_take_each_job_once(database: Database) -> None:
    submitted = []
    for name in ("a", "b", "c"):
        submitted += await submit(database, name, times=10)
    found = await asyncio.gather(*(claim_all(database) for _ in range(6)))
    taken = [job_id for job_ids in found for job_id in job_ids]
    assert sorted(taken) == sorted(submitted)


keys = st.sampled_from([None, "x", "y"])


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    jobs=st.lists(
        st.tuples(st.sampled_from("abc"), keys, st.booleans(), st.booleans()), max_size=14
    ),
    most=st.integers(1, 4),
)
async def test_whatever_waits_the_rules_hold_and_nothing_is_forgotten(
    database: Database, jobs: list[tuple[str, str | None, bool, bool]], most: int
) -> None:
    async with database.connection(ALL_ROOTS) as connection:
        await connection.execute("DELETE FROM jobs")
    for name, key, urgent, delayed in jobs:
        await submit(database, name, key=key, urgent=urgent, delay_seconds=3600 if delayed else 0)
    ready, done = sum(not delayed for *_, delayed in jobs), 0
    while taken := await claim_all(database, most):
        rows = [await job_row(database, job_id) for job_id in taken]
        running = Counter(row["root"] for row in rows)
        assert max(running.values()) <= most
        async with database.connection(ALL_ROOTS) as connection:
            overlapping = await connection.fetch(
                "SELECT concurrency_key FROM jobs WHERE state = 'running' "
                "AND concurrency_key IS NOT NULL GROUP BY concurrency_key HAVING count(*) > 1"
            )
        assert overlapping == []
        for job_id in taken:
            await end(database, job_id)
        done += len(taken)
    assert done == ready


class Watching(Acting):
    """Notes which jobs run at the same time."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, self.watch)
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def watch(self, run: JobRun) -> None:
        key, root = str(run.job.request.get("key")), run.job.access.root
        for name in (key, root):
            self.running[name] += 1
            self.most[name] = max(self.most[name], self.running[name])
        await asyncio.sleep(0.01)
        for name in (key, root):
            self.running[name] -= 1
        await self.succeed(run)


async def test_several_workers_keep_keys_and_shares(resources: Resources) -> None:
    watching = Watching(resources.database)
    submitted = []
    for n in range(300):
        name, key = "ab"[n % 2], f"key {n % 2}{n % 14}"
        new = NewJob(KIND, to_stored([name]), {"key": key}, key)
        submitted.append(await enqueue(resources, new, tenant(name)))
    chosen = quick(resources.settings, jobs_per_root=3, job_concurrency=4)
    workers = [worker_of(resources, {KIND: watching}, chosen) for _ in range(4)]
    async with working(*workers):
        for job_id in submitted:
            assert (await settled(resources.database, job_id))["attempt"] == 1
    by_key = {name: most for name, most in watching.most.items() if name.startswith("key")}
    assert set(by_key.values()) == {1}
    assert watching.most[to_stored(["a"])] <= 3
    assert watching.most[to_stored(["b"])] <= 3
    assert sum(watching.running.values()) == 0


async def test_a_lone_job_waits_for_a_free_place_and_not_for_a_backlog(
    resources: Resources, acting: Acting
) -> None:
    async def act(run: JobRun) -> None:
        await asyncio.sleep(0.01)
        await acting.succeed(run)

    acting.act = act
    database = resources.database
    await submit(database, "a", times=1_000)
    async with working(worker_of(resources, {KIND: acting})):
        await until(lambda: _some(acting))
        lone = await enqueue(resources, of_tenant("b"), tenant("b"))
        await settled(database, lone)
        position = [job.id for job in acting.jobs].index(lone)
    assert position < 60, "jobs that ran before it, of 1,000"


async def _some(acting: Acting) -> bool:
    return len(acting.jobs) > 10


async def test_a_worker_does_no_more_at_once_than_it_may(resources: Resources) -> None:
    watching = Watching(resources.database)
    for _ in range(30):
        await enqueue(resources)
    chosen = quick(resources.settings, job_concurrency=3)
    await run_jobs(resources, {KIND: watching}, chosen)
    assert watching.most[""] == 2, "one slot is left to other roots"


async def test_old_jobs_are_pruned_and_those_that_have_not_ended_stay(
    resources: Resources, acting: Acting
) -> None:
    old, recent = await enqueue(resources), await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    waiting = await enqueue(resources, new_job(delay_seconds=60))
    acting.act = lambda run: acting.succeed(run, State.AWAITING_REVIEW)
    review = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    async with resources.database.connection("") as connection:
        await connection.execute(
            "UPDATE jobs SET created_at = created_at - interval '31 days', "
            "finished_at = finished_at - interval '31 days' WHERE id <> $1",
            recent,
        )
        assert not await queue.delete_old(connection, 30)
        left = {row["id"] for row in await connection.fetch("SELECT id FROM jobs")}
        events = await connection.fetch("SELECT DISTINCT job_id FROM job_events")
    assert left == {recent, waiting, review}
    assert {row["job_id"] for row in events} == left
    assert old not in left


async def test_a_great_many_old_jobs_are_pruned_by_and_by(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "DELETED_AT_ONCE", 4)
    for _ in range(10):
        await enqueue(resources)
    async with resources.database.connection("") as connection:
        await connection.execute("UPDATE jobs SET state = 'failed', finished_at = '2000-01-01'")
        assert [await queue.delete_old(connection, 30) for _ in range(3)] == [True, True, False]
        assert await connection.fetchval("SELECT count(*) FROM jobs") == 0


async def test_a_process_that_freezes_in_a_claim_loses_its_connection(database: Database) -> None:
    async with database.connection(ALL_ROOTS) as connection:
        assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "30s"
