"""A job belongs to a worker as long as its lease; then another worker takes it up."""

import asyncio
import json

import pytest

from app.db.database import ALL_ROOTS, Database
from app.jobs import queue, repository
from app.jobs.kind import JobLostError, JobRun
from app.jobs.queue import RetryPolicy
from app.jobs.record import ClaimedJob, Failure, State
from app.jobs.worker import JobWorker
from tests.support.jobs import KIND, Jobs, ScriptedHandler, until, worker_of, working

pytestmark = pytest.mark.slow  # each waits for workers


async def claim(database: Database, worker: str = "dead", lease: float = 0.05) -> ClaimedJob:
    """Claim a job as a worker does that then falls silent."""
    async with database.transaction(ALL_ROOTS) as connection:
        job = await queue.claim(
            connection, worker, lease_seconds=lease, concurrency=99, max_per_root=99
        )
    assert job is not None
    return job


async def requeue_lost(database: Database) -> list[str]:
    async with database.transaction(ALL_ROOTS) as connection:
        return await queue.requeue_lost(connection, RetryPolicy(8, 0))


async def holds(things: list[str]) -> bool:
    return bool(things)


async def test_a_paused_worker_loses_its_job_and_writes_nothing_more(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes = asyncio.Event()
    refused: list[str] = []

    async def finish(run: JobRun, who: str) -> None:
        async with jobs.database.transaction("") as connection:
            await connection.execute("INSERT INTO namespaces VALUES ($1)", f"{who}\x1f")
            await run.finish(connection, {"by": who})

    async def slow(run: JobRun) -> None:
        await wakes.wait()
        try:
            await finish(run, "slow")
        except JobLostError:
            refused.append(run.job.id)
            raise

    jobs.handler.act = slow
    paused = jobs.worker(job_concurrency=1)
    monkeypatch.setattr(paused, "_beat", asyncio.Event().wait)  # as if its process were paused
    other = ScriptedHandler(jobs.database, lambda run: finish(run, "fast"))
    job_id = await jobs.submit()
    async with working(paused):
        await jobs.in_state(job_id, State.RUNNING)
        async with working(worker_of(jobs.resources, {KIND: other})):
            await jobs.settled(job_id, seconds=10)
            wakes.set()
            await until(lambda: holds(refused))
    row = await jobs.row(job_id)
    assert (row["state"], row["attempt"]) == ("succeeded", 2)
    assert json.loads(row["result"]) == {"by": "fast"}
    written = await jobs.sql("SELECT namespace FROM namespaces")
    assert [row["namespace"] for row in written] == ["fast\x1f"]
    assert await jobs.events(job_id) == ["queued", "running"] * 2 + ["succeeded"]


async def test_a_worker_that_beats_keeps_a_job_for_many_leases(jobs: Jobs) -> None:
    async def slow(run: JobRun) -> None:
        await asyncio.sleep(1.5)
        await jobs.handler.succeed(run)

    jobs.handler.act = slow
    job_ids = [await jobs.submit() for _ in range(4)]
    async with jobs.working(workers=2, job_lease_seconds=0.5):
        rows = [await jobs.settled(job_id) for job_id in job_ids]
    assert {(row["state"], row["attempt"]) for row in rows} == {("succeeded", 1)}


async def test_a_worker_may_claim_again_the_job_that_it_lost(jobs: Jobs) -> None:
    """Its first attempt still runs and must neither end nor shadow the second."""
    go_on = asyncio.Event()

    async def act(run: JobRun) -> None:
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.3)  # takes its time to stop
            raise
        await jobs.handler.succeed(run, attempt=run.job.attempt)

    jobs.handler.act = act
    job_id = await jobs.submit()
    async with jobs.working(job_lease_seconds=0.6):
        await jobs.in_state(job_id, State.RUNNING)
        await jobs.sql("UPDATE jobs SET state = 'queued', worker = NULL, lease_until = NULL")
        await jobs.started(2)
        await asyncio.sleep(2)  # several leases
        assert jobs.handler.attempts == [(job_id, 1), (job_id, 2)]
        go_on.set()
        row = await jobs.settled(job_id)
    assert json.loads(row["result"]) == {"attempt": 2}


async def test_only_jobs_whose_lease_expired_are_queued_again(jobs: Jobs) -> None:
    await jobs.submit()
    lost = await claim(jobs.database, lease=0.0)
    await jobs.submit()
    held = await claim(jobs.database, "alive", lease=60)
    assert await requeue_lost(jobs.database) == [lost.id]
    assert await requeue_lost(jobs.database) == []
    row = await jobs.row(lost.id)
    assert (row["state"], row["attempt"]) == ("queued", 1)
    assert json.loads(row["error"])["code"] == "worker_lost"
    assert (await jobs.row(held.id))["state"] == "running"


async def test_a_dead_worker_loses_all_its_jobs_at_the_first_expired_lease(jobs: Jobs) -> None:
    """Any of them may have ended the process: only an attempt that ran alone counts."""
    for _ in range(3):
        await jobs.submit()
    shared = [await claim(jobs.database, lease=lease) for lease in (0.0, 60, 60)]
    assert sorted(await requeue_lost(jobs.database)) == sorted(job.id for job in shared)
    rows = [await jobs.row(job.id) for job in shared]
    assert {
        (row["state"], row["isolated"], row["max_attempts"] - row["attempt"]) for row in rows
    } == {("queued", True, 5)}
    await jobs.sql("DELETE FROM jobs")
    alone_id = await jobs.submit()
    await claim(jobs.database, lease=0.0)
    assert await requeue_lost(jobs.database) == [alone_id]
    row = await jobs.row(alone_id)
    assert (row["isolated"], row["max_attempts"] - row["attempt"]) == (True, 4)


async def test_a_worker_takes_up_the_jobs_of_its_predecessor_at_once(jobs: Jobs) -> None:
    job_id = await jobs.submit()
    await claim(jobs.database, "the first one's", lease=60)
    successor = JobWorker.build(jobs.resources, {KIND: jobs.handler}, worker_id="the first one's")
    async with working(successor):
        row = await jobs.settled(job_id)
    assert (row["state"], row["attempt"]) == ("succeeded", 2)


async def test_concurrent_rescues_take_each_job_up_once(jobs: Jobs) -> None:
    for _ in range(20):
        await jobs.submit()
        await claim(jobs.database, lease=0.0)
    found = await asyncio.gather(*(requeue_lost(jobs.database) for _ in range(4)))
    everything = [job_id for job_ids in found for job_id in job_ids]
    assert len(everything) == len(set(everything)) == 20


async def test_a_job_that_kills_every_worker_fails(jobs: Jobs) -> None:
    job_id = await jobs.submit()
    for attempt in range(1, 6):
        job = await claim(jobs.database, f"worker {attempt}", lease=0.0)
        assert (job.id, job.attempt) == (job_id, attempt)
        assert await requeue_lost(jobs.database) == [job_id]
    row = await jobs.row(job_id)
    assert (row["state"], row["attempt"]) == ("failed", 5)
    assert json.loads(row["error"])["code"] == "worker_lost"
    assert row["finished_at"] is not None


async def test_an_attempt_that_lost_its_job_reports_and_ends_nothing(jobs: Jobs) -> None:
    database = jobs.database
    await jobs.submit()
    old = await claim(database, lease=0.0)
    await requeue_lost(database)
    new = await claim(database, lease=60)
    assert (old.id, new.attempt) == (new.id, 2)
    before = await jobs.row(old.id)
    async with database.transaction(ALL_ROOTS) as connection:
        assert not await repository.finish(connection, old, State.SUCCEEDED, {})
        assert not await repository.add_event(connection, old, "step", {})
        failure = Failure("x", "y")
        await queue.end_attempt(connection, old, failure, RetryPolicy(8, 1), retry_after=None)
        assert await queue.extend_leases(connection, [old, new], 60) == {(new.id, 2)}
    assert await jobs.row(old.id) == before
    with pytest.raises(JobLostError):
        await jobs.handler.succeed(JobRun(old, database))


async def test_a_lost_listening_connection_interrupts_no_job(jobs: Jobs) -> None:
    """A notifier that reconnects wakes every subscriber, those that wait for a cancel too."""
    go_on = asyncio.Event()

    async def act(run: JobRun) -> None:
        await go_on.wait()
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    job_ids = [await jobs.submit() for _ in range(3)]
    async with jobs.working():
        await jobs.started(3)
        await jobs.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'memoryd listening' AND datname = current_database()"
        )
        await asyncio.sleep(1.6)
        go_on.set()
        rows = [await jobs.settled(job_id) for job_id in job_ids]
    assert {(row["state"], row["attempt"]) for row in rows} == {("succeeded", 1)}
