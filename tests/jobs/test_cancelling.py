import asyncio
import json
from functools import partial

import httpx2
import pytest

from app.auth.access import ANONYMOUS
from app.db.database import ALL_ROOTS, Database
from app.jobs import queue, repository
from app.jobs.errors import JobStateError
from app.jobs.record import State
from app.jobs.run import JobFailedError, JobRun
from app.jobs.service import JobService
from app.resources import Resources
from tests.support.jobs import (
    KIND,
    Acting,
    enqueue,
    events_of,
    hang,
    in_state,
    job_row,
    listening,
    new_job,
    raises,
    run_jobs,
    settled,
    until,
    worker_of,
    working,
)

pytestmark = pytest.mark.slow  # each waits for workers or models


async def cancel(client: httpx2.AsyncClient, job_id: str, status: int = 200) -> httpx2.Response:
    response = await client.post(f"/v1/jobs/{job_id}/cancel")
    assert response.status_code == status, response.text
    return response


async def test_a_queued_job_is_cancelled_at_once_and_never_begun(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    job_id = await enqueue(resources)
    job = (await cancel(client, job_id)).json()
    assert (job["state"], job["attempt"], job["error"]) == ("cancelled", 0, None)
    assert job["finished_at"] is not None
    await run_jobs(resources, {KIND: acting})
    assert acting.jobs == []
    assert await events_of(resources.database, job_id) == ["queued", "cancelled"]


async def test_a_delayed_job_can_be_cancelled(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    job_id = await enqueue(resources, new_job(delay_seconds=3600))
    assert (await cancel(client, job_id)).json()["state"] == "cancelled"


async def test_a_running_job_stops_in_the_middle_and_writes_nothing(
    client: httpx2.AsyncClient,
    resources: Resources,
    acting: Acting,
) -> None:
    steps: list[str] = []

    async def act(run: JobRun) -> None:
        try:
            steps.append("begun")
            await hang(run)
        except asyncio.CancelledError:
            steps.append("interrupted")
            raise

    acting.act = act
    chosen = resources.settings.model_copy(update={"job_lease_seconds": 60.0})
    job_id = await enqueue(resources)
    await listening(resources)
    async with working(worker_of(resources, {KIND: acting}, chosen)):
        await until(lambda: begun(acting))
        job = (await cancel(client, job_id)).json()
        assert job["cancel_requested"]  # and perhaps it has stopped already
        row = await settled(resources.database, job_id, seconds=5)
    assert steps == ["begun", "interrupted"]
    assert row["run_at"] <= row["started_at"]
    assert (row["state"], row["attempt"], row["result"], row["error"]) == (
        "cancelled",
        1,
        None,
        None,
    )
    assert await events_of(resources.database, job_id) == [
        "queued",
        "running",
        "cancelling",
        "cancelled",
    ]


async def begun(acting: Acting) -> bool:
    return bool(acting.jobs)


async def test_a_handler_that_notices_nothing_cannot_finish_a_cancelled_job(
    resources: Resources, acting: Acting
) -> None:
    database = resources.database

    async def act(run: JobRun) -> None:
        async with database.transaction("") as connection:
            await connection.execute("INSERT INTO namespaces VALUES (E'written\\x1f')")
            await asyncio.shield(asyncio.create_task(request_cancel(database, run.job.id)))
            await run.finish(connection, {})

    acting.act = act
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    assert (await job_row(database, job_id))["state"] == "cancelled"
    async with database.connection("") as connection:
        assert await connection.fetchval("SELECT count(*) FROM namespaces") == 0


async def request_cancel(database: Database, job_id: str) -> None:
    """Ask for it without telling the worker."""
    async with database.connection("") as connection:
        await connection.execute("UPDATE jobs SET cancel_requested = true WHERE id = $1", job_id)


async def test_the_heartbeat_notices_a_cancel_whose_news_were_lost(
    resources: Resources, acting: Acting
) -> None:
    acting.act = hang
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting})):
        await until(lambda: begun(acting))
        await request_cancel(resources.database, job_id)
        row = await settled(resources.database, job_id, seconds=5)
    assert row["state"] == "cancelled"


async def test_cancelling_one_leaves_the_others_running(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    go_on = asyncio.Event()

    async def act(run: JobRun) -> None:
        await go_on.wait()
        await acting.succeed(run)

    acting.act = act
    job_ids = [await enqueue(resources) for _ in range(4)]
    async with working(worker_of(resources, {KIND: acting})):
        for job_id in job_ids:
            await in_state(resources.database, job_id, State.RUNNING)
        await cancel(client, job_ids[2])
        assert (await settled(resources.database, job_ids[2]))["state"] == "cancelled"
        go_on.set()
        for job_id in (job_ids[0], job_ids[1], job_ids[3]):
            assert (await settled(resources.database, job_id))["state"] == "succeeded"
    assert sorted(acting.attempts) == [(job_id, 1) for job_id in sorted(job_ids)]


async def test_a_job_whose_worker_died_is_cancelled_when_its_lease_runs_out(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    job_id = await enqueue(resources)
    async with resources.database.transaction(ALL_ROOTS) as connection:
        assert await queue.claim(
            connection, "dead", lease_seconds=0.3, concurrency=99, max_per_root=16
        )
    assert (await cancel(client, job_id)).json()["state"] == "running"
    async with working(worker_of(resources, {KIND: acting})):
        row = await settled(resources.database, job_id, seconds=5)
    assert (row["state"], row["attempt"], row["error"]) == ("cancelled", 1, None)
    assert acting.jobs == []


async def test_a_failing_attempt_of_a_job_to_be_cancelled_is_the_last(
    resources: Resources, acting: Acting
) -> None:
    async def act(run: JobRun) -> None:
        await request_cancel(resources.database, run.job.id)
        raise ConnectionError

    acting.act = act
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    row = await job_row(resources.database, job_id)
    assert (row["state"], row["attempt"], row["error"]) == ("cancelled", 1, None)


@pytest.mark.parametrize("state", ["succeeded", "failed"])
async def test_a_job_that_ended_cannot_be_cancelled(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting, state: str
) -> None:
    if state == "failed":
        acting.act = raises(JobFailedError("x", "It cannot be."))
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    problem = (await cancel(client, job_id, 409)).json()
    assert problem["code"] == "job_state"
    assert problem["detail"] == (
        f'The job "{job_id}" is {state}; only jobs that have not ended can be cancelled.'
    )
    assert (await job_row(resources.database, job_id))["state"] == state


async def test_cancelling_twice_is_cancelling_once(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    job_id = await enqueue(resources)
    first, second = await cancel(client, job_id), await cancel(client, job_id)
    assert first.json() == second.json()
    assert await events_of(resources.database, job_id) == ["queued", "cancelled"]


async def test_a_job_that_awaits_review_is_discarded_rather_than_cancelled(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    acting.act = lambda run: acting.succeed(run, State.AWAITING_REVIEW, proposed=3)
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    refused = await cancel(client, job_id, status=409)
    assert refused.json()["code"] == "job_state"
    assert "discard what it proposes" in refused.json()["detail"]


async def test_cancel_and_finish_at_once_agree_on_one_end(
    resources: Resources, acting: Acting
) -> None:
    jobs = JobService.build(resources)
    job_ids = [await enqueue(resources) for _ in range(60)]

    async def cancelled(job_id: str) -> bool:
        await in_state(resources.database, job_id, *set(State) - {State.QUEUED})
        try:
            await jobs.cancel(ANONYMOUS, job_id)
        except JobStateError:
            return False
        return True

    async with working(worker_of(resources, {KIND: acting})):
        answers = await asyncio.gather(*map(cancelled, job_ids))
        rows = [await settled(resources.database, job_id) for job_id in job_ids]
    for row, was_cancelled in zip(rows, answers, strict=True):
        assert row["state"] == ("cancelled" if was_cancelled else "succeeded")
        events = await events_of(resources.database, row["id"])
        assert events[-1] == row["state"]
        assert events.count("succeeded") + events.count("cancelled") == 1


async def test_a_cancelled_job_can_be_retried(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    job_id = await enqueue(resources)
    await cancel(client, job_id)
    job = (await client.post(f"/v1/jobs/{job_id}/retry")).json()
    assert (job["state"], job["cancel_requested"], job["finished_at"]) == ("queued", False, None)
    await run_jobs(resources, {KIND: acting})
    row = await job_row(resources.database, job_id)
    assert (row["state"], json.loads(row["result"])) == ("succeeded", {})


async def test_a_retried_job_shows_nothing_of_what_it_came_to_before(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    acting.act = partial(acting.succeed, state=State.AWAITING_REVIEW, n=1)
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    async with resources.database.transaction("") as connection:
        assert await repository.settle(
            connection, job_id, State.AWAITING_REVIEW, State.CANCELLED, {"n": 2}
        )
    job = (await client.post(f"/v1/jobs/{job_id}/retry")).json()
    assert (job["state"], job["result"]) == ("queued", None)
