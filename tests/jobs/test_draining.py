import asyncio

import pytest

from app.jobs.record import State
from app.jobs.run import JobRun
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
    run_jobs,
    worker_of,
    working,
)

pytestmark = pytest.mark.slow  # each waits for workers or models


async def test_a_draining_worker_finishes_what_it_can(resources: Resources, acting: Acting) -> None:
    async def act(run: JobRun) -> None:
        await asyncio.sleep(0.5)
        await acting.succeed(run)

    acting.act = act
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting})):
        await in_state(resources.database, job_id, State.RUNNING)
        waiting = await enqueue(resources)
        await in_state(resources.database, waiting, State.RUNNING)
    for done in (job_id, waiting):
        assert (await job_row(resources.database, done))["state"] == "succeeded"


async def test_a_draining_worker_takes_nothing_new(resources: Resources, acting: Acting) -> None:
    go_on = asyncio.Event()

    async def act(run: JobRun) -> None:
        await go_on.wait()
        await acting.succeed(run)

    acting.act = act
    running = await enqueue(resources)
    worker = asyncio.create_task(worker_of(resources, {KIND: acting}).run())
    await in_state(resources.database, running, State.RUNNING)
    worker.cancel()
    await asyncio.sleep(0.1)
    late = await enqueue(resources)
    await asyncio.sleep(0.3)
    go_on.set()
    await asyncio.gather(worker, return_exceptions=True)
    assert (await job_row(resources.database, running))["state"] == "succeeded"
    assert (await job_row(resources.database, late))["state"] == "queued"


@pytest.mark.parametrize("drain_seconds", [0.0, 0.2])
async def test_what_is_not_finished_in_time_is_handed_back_uncounted(
    resources: Resources, acting: Acting, drain_seconds: float
) -> None:
    acting.act = hang
    chosen = quick(resources.settings, drain_seconds=drain_seconds, job_lease_seconds=60)
    job_id = await enqueue(resources)
    for attempt in range(1, 8):
        async with working(worker_of(resources, {KIND: acting}, chosen)):
            row = await in_state(resources.database, job_id, State.RUNNING)
            assert row["attempt"] == attempt
        row = await job_row(resources.database, job_id)
        assert (row["state"], row["max_attempts"] - row["attempt"]) == ("queued", 5)
    acting.act = acting.succeed
    await run_jobs(resources, {KIND: acting})
    assert (await job_row(resources.database, job_id))["state"] == "succeeded"
    assert "failed" not in await events_of(resources.database, job_id)


async def test_a_claim_that_the_signal_interrupts_is_not_left_behind(
    resources: Resources, acting: Acting
) -> None:
    """Whenever the worker is stopped, no job stays with it."""
    acting.act = hang
    chosen = quick(resources.settings, drain_seconds=0.0, job_lease_seconds=60)
    job_id = await enqueue(resources)
    for turns in range(60):
        worker = asyncio.create_task(worker_of(resources, {KIND: acting}, chosen).run())
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.sleep(turns / 10_000)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        assert (await job_row(resources.database, job_id))["state"] == "queued"


async def test_a_job_to_be_cancelled_is_not_handed_back(
    resources: Resources, acting: Acting
) -> None:
    async def act(run: JobRun) -> None:
        async with resources.database.connection("") as connection:
            await connection.execute("UPDATE jobs SET cancel_requested = true")
        await hang(run)

    acting.act = act
    chosen = quick(resources.settings, drain_seconds=0.1, job_lease_seconds=60)
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting}, chosen)):
        await in_state(resources.database, job_id, State.RUNNING)
        await asyncio.sleep(0.2)
    assert (await job_row(resources.database, job_id))["state"] == "cancelled"
