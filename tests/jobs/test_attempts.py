import asyncio
import json
from datetime import timedelta
from typing import Any, cast

import httpx2
import pytest
from asyncpg import Record

from app.auth.access import ANONYMOUS
from app.db.database import DatabaseUnavailableError
from app.errors import InvalidRequestError
from app.jobs.run import JobConflictError, JobFailedError, JobRun
from app.jobs.service import JobService
from app.providers.errors import (
    BadRequestError,
    RateLimitedError,
    UnavailableError,
)
from app.resources import Resources
from tests.support.jobs import (
    KIND,
    Acting,
    enqueue,
    events_of,
    job_row,
    new_job,
    quick,
    raises,
    run_jobs,
    settled,
    until,
    worker_of,
    working,
)

pytestmark = pytest.mark.slow  # each waits for workers or models


async def retry(client: httpx2.AsyncClient, job_id: str, status: int = 200) -> Any:
    response = await client.post(f"/v1/jobs/{job_id}/retry")
    assert response.status_code == status, response.text
    return response.json()


async def outcome(resources: Resources, acting: Acting, error: BaseException) -> tuple[str, int]:
    """Return how a job ends whose every attempt meets an error, and after how many."""
    acting.act = raises(error)
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting})):
        row = await settled(resources.database, job_id)
    assert row["result"] is None
    assert row["run_at"] < row["finished_at"]
    error_code = json.loads(row["error"])["code"]
    assert row["state"] == "failed"
    return error_code, row["attempt"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnavailableError("away"), "provider_unavailable"),
        (RateLimitedError("slowly"), "provider_rate_limited"),
        (DatabaseUnavailableError(OSError()), "database_unavailable"),
        (JobConflictError("changed meanwhile"), "conflict"),
        (TimeoutError(), "timeout"),
        (ZeroDivisionError(), "internal_error"),
        (asyncio.CancelledError(), "internal_error"),
    ],
)
async def test_what_may_pass_is_tried_again_a_bounded_number_of_times(
    resources: Resources, acting: Acting, error: BaseException, code: str
) -> None:
    assert await outcome(resources, acting, error) == (code, 5)
    assert [attempt for _, attempt in acting.attempts] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobFailedError("no_kinds", "It cannot be."), "no_kinds"),
        (BadRequestError("refused"), "provider_refused"),
        (InvalidRequestError("no such thing"), "invalid_request"),
    ],
)
async def test_what_cannot_pass_is_not_tried_again(
    resources: Resources, acting: Acting, error: Exception, code: str
) -> None:
    assert await outcome(resources, acting, error) == (code, 1)


async def test_a_job_that_succeeds_in_the_end_shows_no_error(
    resources: Resources, acting: Acting
) -> None:
    acting.script.extend([raises(UnavailableError("away"))] * 2)
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting})):
        row = await settled(resources.database, job_id)
    assert (row["state"], row["attempt"], row["error"]) == ("succeeded", 3, None)
    told = await events_of(resources.database, job_id)
    assert told == ["queued", "running"] * 3 + ["succeeded"]


async def test_while_it_waits_for_another_attempt_a_job_says_why(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    chosen = quick(resources.settings, job_backoff_seconds=3600)
    acting.act = raises(UnavailableError("The provider is away."))
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting}, chosen)):
        await paused(resources, job_id)
    job = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert (job["state"], job["attempt"], job["finished_at"]) == ("queued", 1, None)
    assert job["error"] == {"code": "provider_unavailable", "detail": "The provider is away."}


async def paused(resources: Resources, job_id: str) -> Record:
    """Return a job's row once it waits for another attempt."""

    async def is_paused() -> bool:
        row = await job_row(resources.database, job_id)
        return row["state"] == "queued" and row["error"] is not None

    await until(is_paused)
    return await job_row(resources.database, job_id)


async def pause_after(
    resources: Resources, acting: Acting, attempt: int, error: Exception
) -> timedelta:
    """Return how long a job waits after an attempt that met an error; the backoff is 10 s."""
    acting.script.append(raises(error))
    job_id = await enqueue(resources)
    async with resources.database.connection("") as connection:
        await connection.execute("UPDATE jobs SET attempt = $2 WHERE id = $1", job_id, attempt - 1)
    chosen = quick(resources.settings, job_backoff_seconds=10)
    async with working(worker_of(resources, {KIND: acting}, chosen)):
        row = await paused(resources, job_id)
    return await from_now(resources, row)


async def from_now(resources: Resources, row: Record) -> timedelta:
    """Return how long it is till a job is to start."""
    async with resources.database.connection("") as connection:
        now = await connection.fetchval("SELECT clock_timestamp()")
    return cast(timedelta, row["run_at"] - now)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 10), (2, 20), (4, 80)])
async def test_the_pause_doubles_and_is_spread(
    resources: Resources, acting: Acting, attempt: int, seconds: float
) -> None:
    pause = await pause_after(resources, acting, attempt, UnavailableError("away"))
    assert timedelta(seconds=seconds * 0.7) < pause < timedelta(seconds=seconds * 1.26)


async def test_the_pause_has_a_limit(resources: Resources, acting: Acting) -> None:
    acting.script.append(raises(UnavailableError("away")))
    job_id = await enqueue(resources)
    async with resources.database.connection("") as connection:
        await connection.execute("UPDATE jobs SET attempt = 90, max_attempts = 100")
    chosen = quick(resources.settings, job_attempts=100)
    async with working(worker_of(resources, {KIND: acting}, chosen)):
        row = await paused(resources, job_id)
    pause = await from_now(resources, row)
    assert timedelta(minutes=40) < pause <= timedelta(minutes=75)


@pytest.mark.parametrize("extra", [5, 5_000])
async def test_attempts_that_were_handed_back_make_no_pause_longer(
    resources: Resources, acting: Acting, extra: int
) -> None:
    acting.script.append(raises(UnavailableError("away")))
    job_id = await enqueue(resources)
    async with resources.database.connection("") as connection:
        await connection.execute(
            "UPDATE jobs SET attempt = attempt + $1, max_attempts = max_attempts + $1", extra
        )
    chosen = quick(resources.settings, job_backoff_seconds=10)
    async with working(worker_of(resources, {KIND: acting}, chosen)):
        row = await paused(resources, job_id)
    pause = await from_now(resources, row)
    assert timedelta(seconds=7) < pause < timedelta(seconds=12.6)


async def test_a_provider_that_says_how_long_to_wait_is_believed(
    resources: Resources, acting: Acting
) -> None:
    error = RateLimitedError("slowly", retry_after=120)
    pause = await pause_after(resources, acting, 1, error)
    assert timedelta(seconds=115) < pause <= timedelta(seconds=120)
    error = RateLimitedError("slowly", retry_after=1)
    pause = await pause_after(resources, acting, 3, error)
    assert pause > timedelta(seconds=29), "not sooner than without it"


async def test_a_handler_that_ends_without_a_result_has_failed(
    resources: Resources, acting: Acting
) -> None:
    async def act(_run: JobRun) -> None:
        return

    acting.act = act
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting})):
        row = await settled(resources.database, job_id)
    assert (row["state"], row["attempt"]) == ("failed", 5)
    assert json.loads(row["error"]) == {
        "code": "internal_error",
        "detail": "The worker failed; its log has the cause under the job's id.",
    }


async def test_a_poison_job_leaves_its_neighbours_alone(
    resources: Resources, acting: Acting
) -> None:
    poison = await enqueue(resources, new_job(request={"poison": True}, concurrency_key="x"))
    beside = [await enqueue(resources) for _ in range(10)]
    behind = await enqueue(resources, new_job(concurrency_key="x"))

    async def act(run: JobRun) -> None:
        if run.job.request.get("poison"):
            raise RuntimeError("a mistake in the handler")
        await acting.succeed(run)

    acting.act = act
    async with working(worker_of(resources, {KIND: acting})):
        rows = [await settled(resources.database, job_id) for job_id in [*beside, behind]]
        assert (await settled(resources.database, poison))["state"] == "failed"
    assert {(row["state"], row["attempt"]) for row in rows} == {("succeeded", 1)}


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "x" * 100_000])
async def test_whatever_an_error_says_the_job_ends_with_it(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting, text: str
) -> None:
    acting.act = raises(JobFailedError("odd", text))
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    job = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert job["state"] == "failed"
    assert job["error"]["detail"] in {"a\ufffdb", "x" * 2_000}


async def test_a_redriven_job_has_all_its_attempts_again(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    acting.act = raises(UnavailableError("away"))
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting})):
        await settled(resources.database, job_id)
    job = await retry(client, job_id)
    assert (job["state"], job["attempt"], job["max_attempts"]) == ("queued", 5, 10)
    assert (job["error"], job["finished_at"]) == (None, None)
    async with working(worker_of(resources, {KIND: acting})):
        row = await settled(resources.database, job_id)
    assert (row["state"], row["attempt"]) == ("failed", 10)
    acting.act = acting.succeed
    await retry(client, job_id)
    await run_jobs(resources, {KIND: acting})
    row = await job_row(resources.database, job_id)
    assert (row["state"], row["attempt"], row["error"]) == ("succeeded", 11, None)


async def test_only_what_failed_or_was_cancelled_can_be_retried(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    job_id = await enqueue(resources)
    problem = await retry(client, job_id, 409)
    assert problem["code"] == "job_state"
    assert problem["detail"] == (
        f'The job "{job_id}" is queued; only failed and cancelled jobs can be retried.'
    )
    await run_jobs(resources, {KIND: acting})
    assert "is succeeded;" in (await retry(client, job_id, 409))["detail"]
    assert (await job_row(resources.database, job_id))["attempt"] == 1


async def test_a_threads_job_is_not_retried_beside_one_that_waits(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    jobs = JobService.build(resources)
    new = new_job(kind="extract_thread", thread_id="t1", dedupe_key="t1", delay_seconds=60)
    async with resources.database.transaction("") as connection:
        first = await jobs.create_or_move(connection, ANONYMOUS, new)
    await client.post(f"/v1/jobs/{first}/cancel")
    async with resources.database.transaction("") as connection:
        second = await jobs.create_or_move(connection, ANONYMOUS, new)
    assert first != second
    problem = await retry(client, first, 409)
    assert problem["detail"].endswith("is cancelled; another job of its thread is queued.")


async def test_a_threads_job_is_moved_rather_than_doubled(resources: Resources) -> None:
    jobs = JobService.build(resources)
    ids = set()
    for seconds in (60.0, 5.0, 600.0):
        new = new_job(
            kind="extract_thread",
            thread_id="t1",
            dedupe_key="t1",
            delay_seconds=seconds,
            request={"s": seconds},
        )
        async with resources.database.transaction("") as connection:
            ids.add(await jobs.create_or_move(connection, ANONYMOUS, new))
    [job_id] = ids
    row = await job_row(resources.database, job_id)
    assert json.loads(row["request"]) == {"s": 600.0}
    assert timedelta(seconds=599) < row["run_at"] - row["created_at"] < timedelta(seconds=620)
