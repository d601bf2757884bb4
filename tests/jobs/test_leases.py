import asyncio
import json
from typing import Any

import pytest

from app.config import Settings
from app.db.database import ALL_ROOTS, Database
from app.jobs import queue, repository
from app.jobs.queue import RetryPolicy
from app.jobs.record import ClaimedJob, Failure, State
from app.jobs.run import JobLostError, JobRun
from app.jobs.worker import JobWorker
from app.resources import Resources
from tests.support.jobs import (
    KIND,
    Acting,
    enqueue,
    events_of,
    hang,
    in_state,
    job_row,
    quick,
    settled,
    until,
    worker_of,
    working,
)

pytestmark = pytest.mark.slow  # each waits for workers or models


async def claimed(database: Database, worker: str = "dead", lease: float = 0.05) -> ClaimedJob:
    """Take a job as a worker does that then falls silent."""
    async with database.transaction(ALL_ROOTS) as connection:
        job = await queue.claim(
            connection, worker, lease_seconds=lease, concurrency=99, max_per_root=99
        )
    assert job is not None
    return job


async def rescued(database: Database) -> list[str]:
    async with database.transaction(ALL_ROOTS) as connection:
        return await queue.requeue_lost(connection, RetryPolicy(8, 0))


def deaf(worker: JobWorker, monkeypatch: pytest.MonkeyPatch) -> JobWorker:
    """Return a worker whose heart does not beat, as if its process were paused."""

    async def silence() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(worker, "_beat", silence)
    return worker


async def written(database: Database) -> list[str]:
    async with database.connection(ALL_ROOTS) as connection:
        return [row["namespace"] for row in await connection.fetch("SELECT * FROM namespaces")]


async def test_a_paused_worker_loses_its_job_and_writes_nothing_more(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, wakes = resources.database, asyncio.Event()
    refused: list[Exception] = []

    async def finish(run: JobRun, who: str) -> None:
        async with database.transaction("") as connection:
            await connection.execute("INSERT INTO namespaces VALUES ($1)", f"{who}\x1f")
            await run.finish(connection, {"by": who})

    async def slow(run: JobRun) -> None:
        await wakes.wait()
        try:
            await finish(run, "slow")
        except JobLostError as error:
            refused.append(error)
            raise

    async def fast(run: JobRun) -> None:
        await finish(run, "fast")

    paused, other = Acting(database, slow), Acting(database, fast)
    job_id = await enqueue(resources)
    full = quick(resources.settings, job_concurrency=1)
    async with working(deaf(worker_of(resources, {KIND: paused}, full), monkeypatch)):
        await in_state(database, job_id, State.RUNNING)
        async with working(worker_of(resources, {KIND: other})):
            row = await settled(database, job_id, seconds=10)
            wakes.set()
            await until(lambda: has(refused))
    assert (row["attempt"], json.loads(row["result"])) == (2, {"by": "fast"})
    assert await written(database) == ["fast\x1f"]
    row = await job_row(database, job_id)
    assert (row["state"], json.loads(row["result"])) == ("succeeded", {"by": "fast"})
    assert await events_of(database, job_id) == [
        "queued",
        "running",
        "queued",
        "running",
        "succeeded",
    ]


async def has(things: list[Any]) -> bool:
    return bool(things)


async def test_a_worker_that_beats_keeps_a_job_for_many_leases(
    resources: Resources, acting: Acting
) -> None:
    async def slow(run: JobRun) -> None:
        await asyncio.sleep(1.5)
        await acting.succeed(run)

    acting.act = slow
    chosen = quick(resources.settings, job_lease_seconds=0.3)
    job_ids = [await enqueue(resources) for _ in range(4)]
    workers = [worker_of(resources, {KIND: acting}, chosen) for _ in range(2)]
    async with working(*workers):
        rows = [await settled(resources.database, job_id) for job_id in job_ids]
    assert {(row["state"], row["attempt"]) for row in rows} == {("succeeded", 1)}


async def test_a_worker_that_woke_too_late_stops_what_it_lost(
    resources: Resources, acting: Acting
) -> None:
    interrupted: list[str] = []

    async def act(run: JobRun) -> None:
        try:
            await hang(run)
        except asyncio.CancelledError:
            interrupted.append(run.job.id)
            raise

    acting.act = act
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting})):
        await in_state(resources.database, job_id, State.RUNNING)
        async with resources.database.connection("") as connection:  # as if it had been rescued
            await connection.execute("UPDATE jobs SET attempt = 2, worker = 'another'")
        await until(lambda: has(interrupted))
        row = await job_row(resources.database, job_id)
        assert (row["state"], row["attempt"]) == ("running", 2)


async def test_a_worker_may_get_back_the_job_that_it_lost(
    resources: Resources, acting: Acting
) -> None:
    """Its first attempt goes on beside the second and must neither end nor shadow it."""
    go_on = asyncio.Event()

    async def act(run: JobRun) -> None:
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.3)  # takes its time to stop
            raise
        await acting.succeed(run, attempt=run.job.attempt)

    acting.act = act
    chosen = quick(resources.settings, job_lease_seconds=0.6)
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting}, chosen)):
        await in_state(resources.database, job_id, State.RUNNING)
        async with resources.database.connection("") as connection:
            await connection.execute(
                "UPDATE jobs SET state = 'queued', worker = NULL, lease_until = NULL"
            )
        await until(lambda: two(acting))
        await asyncio.sleep(2)  # several leases
        assert acting.attempts == [(job_id, 1), (job_id, 2)]
        go_on.set()
        row = await settled(resources.database, job_id)
    assert json.loads(row["result"]) == {"attempt": 2}


async def two(acting: Acting) -> bool:
    return len(acting.jobs) == 2


async def test_only_jobs_whose_lease_ran_out_are_rescued(resources: Resources) -> None:
    lost_id, held_id = await enqueue(resources), await enqueue(resources)
    lost = await claimed(resources.database, lease=0.0)
    held = await claimed(resources.database, "alive", lease=60)
    assert {lost.id, held.id} == {lost_id, held_id}
    assert await rescued(resources.database) == [lost.id]
    assert await rescued(resources.database) == []
    row = await job_row(resources.database, lost.id)
    assert (row["state"], row["attempt"]) == ("queued", 1)
    assert json.loads(row["error"])["code"] == "worker_lost"
    assert (await job_row(resources.database, held.id))["state"] == "running"


async def test_a_dead_worker_loses_all_its_jobs_at_once_and_only_the_attempts_that_count(
    resources: Resources,
) -> None:
    """They are lost when the first lease expires, since any of them may have ended the process."""
    for _ in range(3):
        await enqueue(resources)
    shared = [await claimed(resources.database, lease=lease) for lease in (0.0, 60, 60)]
    assert sorted(await rescued(resources.database)) == sorted(job.id for job in shared)
    for job in shared:
        row = await job_row(resources.database, job.id)
        assert (row["state"], row["isolated"], row["max_attempts"] - row["attempt"]) == (
            "queued",
            True,
            5,
        )
    async with resources.database.connection("") as connection:
        await connection.execute("DELETE FROM jobs")
    alone_id = await enqueue(resources)
    await claimed(resources.database, lease=0.0)
    assert await rescued(resources.database) == [alone_id]
    row = await job_row(resources.database, alone_id)
    assert (row["isolated"], row["max_attempts"] - row["attempt"]) == (True, 4)


async def test_a_worker_takes_up_what_its_predecessor_left_at_once(
    resources: Resources, acting: Acting
) -> None:
    job_id = await enqueue(resources)
    await claimed(resources.database, "the first one's", lease=60)
    successor = JobWorker.build(resources, {KIND: acting}, worker_id="the first one's")
    async with working(successor):
        row = await settled(resources.database, job_id)
    assert (row["state"], row["attempt"]) == ("succeeded", 2)


async def test_two_rescuers_take_each_job_up_once(resources: Resources) -> None:
    for _ in range(40):
        await enqueue(resources)
        await claimed(resources.database, lease=0.0)
    found = await asyncio.gather(*(rescued(resources.database) for _ in range(4)))
    everything = [job_id for job_ids in found for job_id in job_ids]
    assert len(everything) == len(set(everything)) == 40


async def test_a_job_that_kills_every_worker_ends_failed(resources: Resources) -> None:
    job_id = await enqueue(resources)
    for attempt in range(1, 6):
        job = await claimed(resources.database, f"worker {attempt}", lease=0.0)
        assert (job.id, job.attempt) == (job_id, attempt)
        assert await rescued(resources.database) == [job_id]
    row = await job_row(resources.database, job_id)
    assert (row["state"], row["attempt"]) == ("failed", 5)
    assert json.loads(row["error"]) == {
        "code": "worker_lost",
        "detail": "The worker stopped in the middle of the job.",
    }
    assert row["finished_at"] is not None


async def test_an_attempt_that_lost_its_job_reports_and_ends_nothing(resources: Resources) -> None:
    database = resources.database
    await enqueue(resources)
    old = await claimed(database, lease=0.0)
    await rescued(database)
    new = await claimed(database, lease=60)
    assert (old.id, new.attempt) == (new.id, 2)
    before = await job_row(database, old.id)
    async with database.transaction(ALL_ROOTS) as connection:
        assert not await repository.finish(connection, old, State.SUCCEEDED, {})
        assert not await repository.add_event(connection, old, "step", {})
        failure = Failure("x", "y")
        await queue.end_attempt(connection, old, failure, RetryPolicy(8, 1), retry_after=None)
        assert await queue.extend_leases(connection, [old, new], 60) == {(new.id, 2)}
    assert await job_row(database, old.id) == before
    with pytest.raises(JobLostError):
        await Acting(database).succeed(JobRun(old, database))


async def test_news_lost_and_found_again_interrupt_nothing(
    resources: Resources, acting: Acting
) -> None:
    """A notifier that reconnects wakes everybody, those who wait for a cancel too."""
    go_on = asyncio.Event()

    async def act(run: JobRun) -> None:
        await go_on.wait()
        await acting.succeed(run)

    acting.act = act
    job_ids = [await enqueue(resources) for _ in range(3)]
    async with working(worker_of(resources, {KIND: acting})):
        for job_id in job_ids:
            await in_state(resources.database, job_id, State.RUNNING)
        async with resources.database.connection("") as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'memoryd listening' AND datname = current_database()"
            )
        await asyncio.sleep(1.6)
        go_on.set()
        rows = [await settled(resources.database, job_id) for job_id in job_ids]
    assert {(row["state"], row["attempt"]) for row in rows} == {("succeeded", 1)}


async def test_workers_sign_in_and_out(resources: Resources, acting: Acting) -> None:
    async def seen() -> list[tuple[str, int]]:
        async with resources.database.connection("") as connection:
            rows = await connection.fetch("SELECT id, concurrency FROM workers ORDER BY id")
        return [(row["id"], row["concurrency"]) for row in rows]

    async def both() -> bool:
        return len(await seen()) == 2

    chosen: Settings = quick(resources.settings, job_concurrency=3)
    workers = [worker_of(resources, {KIND: acting}, chosen) for _ in range(2)]
    async with working(*workers):
        await until(both)
        assert await seen() == sorted((worker.id, 3) for worker in workers)
    assert await seen() == []
