import asyncio

import pytest

from app.auth.access import ANONYMOUS
from app.db.database import ALL_ROOTS
from app.jobs import queue
from app.jobs.kind import JobFailedError, JobRun
from app.jobs.record import State
from app.jobs.service import JobService, JobStateError
from tests.support.jobs import Jobs, hang, listening, raises

pytestmark = pytest.mark.slow  # each waits for workers

REQUEST_CANCEL = "UPDATE jobs SET cancel_requested = true"
"""Cancels without notifying the worker."""


@pytest.mark.parametrize("delay_seconds", [0, 3600])
async def test_a_queued_job_is_canceled_at_once_and_never_started(
    jobs: Jobs, delay_seconds: int
) -> None:
    job_id = await jobs.submit(delay_seconds=delay_seconds)
    job = await jobs.cancel(job_id)
    assert (job["state"], job["attempt"], job["error"]) == ("cancelled", 0, None)
    assert job["finished_at"] is not None
    assert await jobs.cancel(job_id) == job, "a second cancel changes nothing"
    await jobs.run()
    assert jobs.handler.jobs == []
    assert await jobs.events(job_id) == ["queued", "cancelled"]


async def test_a_running_job_stops_in_the_middle_and_writes_nothing(jobs: Jobs) -> None:
    steps: list[str] = []

    async def act(run: JobRun) -> None:
        try:
            steps.append("started")
            await hang(run)
        except asyncio.CancelledError:
            steps.append("interrupted")
            raise

    jobs.handler.act = act
    job_id = await jobs.submit()
    await listening(jobs.resources)
    async with jobs.working(job_lease_seconds=60):
        await jobs.started()
        job = await jobs.cancel(job_id)
        assert job["cancel_requested"]  # and perhaps it has stopped already
        row = await jobs.settled(job_id, seconds=5)
    assert steps == ["started", "interrupted"]
    assert row["run_at"] <= row["started_at"]
    assert (row["state"], row["attempt"], row["result"], row["error"]) == (
        ("cancelled", 1, None, None)
    )
    assert await jobs.events(job_id) == ["queued", "running", "cancelling", "cancelled"]


async def test_a_canceled_job_cannot_finish_whatever_its_handler_does(jobs: Jobs) -> None:
    async def act(run: JobRun) -> None:
        async with jobs.database.transaction("") as connection:
            await connection.execute("INSERT INTO namespaces VALUES (E'written\\x1f')")
            await asyncio.shield(asyncio.create_task(jobs.sql(REQUEST_CANCEL)))
            await run.finish(connection, {})

    jobs.handler.act = act
    assert (await jobs.done())["state"] == "cancelled"
    assert await jobs.sql("SELECT * FROM namespaces") == []


async def test_the_heartbeat_notices_a_cancel_whose_notification_was_lost(jobs: Jobs) -> None:
    jobs.handler.act = hang
    job_id = await jobs.submit()
    async with jobs.working():
        await jobs.started()
        await jobs.sql(REQUEST_CANCEL)
        assert (await jobs.settled(job_id, seconds=5))["state"] == "cancelled"


async def test_a_job_of_a_dead_worker_is_canceled_when_its_lease_expires(jobs: Jobs) -> None:
    job_id = await jobs.submit()
    async with jobs.database.transaction(ALL_ROOTS) as connection:
        assert await queue.claim(
            connection, "dead", lease_seconds=0.3, concurrency=99, max_per_root=16
        )
    assert (await jobs.cancel(job_id))["state"] == "running"
    row = await jobs.done(job_id)
    assert (row["state"], row["attempt"], row["error"]) == ("cancelled", 1, None)
    assert jobs.handler.jobs == []


async def test_a_canceled_job_that_fails_is_not_tried_again(jobs: Jobs) -> None:
    async def act(_run: JobRun) -> None:
        await jobs.sql(REQUEST_CANCEL)
        raise ConnectionError

    jobs.handler.act = act
    row = await jobs.done()
    assert (row["state"], row["attempt"], row["error"]) == ("cancelled", 1, None)


async def test_a_job_that_ended_cannot_be_canceled(jobs: Jobs) -> None:
    jobs.handler.script.append(raises(JobFailedError("x", "It cannot be.")))
    jobs.handler.script.append(jobs.handler.succeed)
    jobs.handler.act = lambda run: jobs.handler.succeed(run, State.AWAITING_REVIEW, proposed=3)
    for state in ("failed", "succeeded", "awaiting_review"):
        job_id = (await jobs.done())["id"]
        problem = await jobs.cancel(job_id, status=409)
        assert problem["code"] == "job_state"
        assert (await jobs.row(job_id))["state"] == state
    assert "discard" in problem["detail"], "what to do instead with a job that awaits review"


async def test_cancel_and_finish_at_once_agree_on_one_end(jobs: Jobs) -> None:
    service = JobService.build(jobs.resources)
    job_ids = [await jobs.submit() for _ in range(30)]

    async def cancel(job_id: str) -> bool:
        await jobs.in_state(job_id, *set(State) - {State.QUEUED})
        try:
            await service.cancel(ANONYMOUS, job_id)
        except JobStateError:
            return False
        return True

    async with jobs.working():
        answers = await asyncio.gather(*map(cancel, job_ids))
        rows = [await jobs.settled(job_id) for job_id in job_ids]
    for row, was_cancelled in zip(rows, answers, strict=True):
        assert row["state"] == ("cancelled" if was_cancelled else "succeeded")
        events = await jobs.events(row["id"])
        assert events[-1] == row["state"]
        assert events.count("succeeded") + events.count("cancelled") == 1
