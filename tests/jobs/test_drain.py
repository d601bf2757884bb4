"""A worker that is stopped finishes its jobs or hands them back."""

import asyncio

import pytest

from app.jobs.kind import JobRun
from app.jobs.record import State
from tests.support.jobs import Jobs, hang

pytestmark = pytest.mark.slow  # each waits for workers


async def test_a_stopped_worker_finishes_its_jobs_and_takes_no_new_one(jobs: Jobs) -> None:
    go_on = asyncio.Event()

    async def act(run: JobRun) -> None:
        await go_on.wait()
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    running = [await jobs.submit() for _ in range(2)]
    worker = asyncio.create_task(jobs.worker().run())
    await jobs.started(2)
    worker.cancel()
    await asyncio.sleep(0.1)
    late = await jobs.submit()
    await asyncio.sleep(0.3)
    go_on.set()
    await asyncio.gather(worker, return_exceptions=True)
    states = [(await jobs.row(job_id))["state"] for job_id in [*running, late]]
    assert states == ["succeeded", "succeeded", "queued"]


async def test_an_unfinished_job_is_handed_back_and_the_attempt_not_counted(jobs: Jobs) -> None:
    jobs.handler.act = hang
    job_id = await jobs.submit()
    for attempt in range(1, 7):
        async with jobs.working(drain_seconds=0.1, job_lease_seconds=60):
            assert (await jobs.in_state(job_id, State.RUNNING))["attempt"] == attempt
        row = await jobs.row(job_id)
        assert (row["state"], row["max_attempts"] - row["attempt"]) == ("queued", 5)
    jobs.handler.act = jobs.handler.succeed
    assert (await jobs.done(job_id))["state"] == "succeeded"
    assert "failed" not in await jobs.events(job_id)


async def test_a_worker_stopped_at_any_moment_keeps_no_job(jobs: Jobs) -> None:
    jobs.handler.act = hang
    job_id = await jobs.submit()
    for turns in range(40):
        worker = jobs.worker(drain_seconds=0.0, job_lease_seconds=60)
        working = asyncio.create_task(worker.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.sleep(turns / 10_000)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert (await jobs.row(job_id))["state"] == "queued"


async def test_a_canceled_job_is_not_handed_back(jobs: Jobs) -> None:
    async def act(run: JobRun) -> None:
        await jobs.sql("UPDATE jobs SET cancel_requested = true")
        await hang(run)

    jobs.handler.act = act
    job_id = await jobs.submit()
    async with jobs.working(drain_seconds=0.1, job_lease_seconds=60):
        await jobs.in_state(job_id, State.RUNNING)
        await asyncio.sleep(0.2)
    assert (await jobs.row(job_id))["state"] == "cancelled"
