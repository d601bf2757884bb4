import asyncio
import json
from datetime import timedelta

import pytest

from app.db.database import ALL_ROOTS, DatabaseUnavailableError
from app.errors import InvalidRequestError
from app.jobs import queue
from app.jobs.kind import JobConflictError, JobFailedError
from app.jobs.queue import RetryPolicy
from app.jobs.record import Failure
from app.providers.errors import BadRequestError, RateLimitedError, UnavailableError
from tests.support.jobs import Jobs, raises, until

pytestmark = pytest.mark.slow  # each waits for workers


@pytest.mark.parametrize(
    ("error", "code", "attempts"),
    [
        (UnavailableError("away"), "provider_unavailable", 5),
        (RateLimitedError("slowly"), "provider_rate_limited", 5),
        (DatabaseUnavailableError(OSError()), "database_unavailable", 5),
        (JobConflictError("changed"), "conflict", 5),
        (TimeoutError(), "timeout", 5),
        (ZeroDivisionError(), "internal_error", 5),
        (asyncio.CancelledError(), "internal_error", 5),
        (JobFailedError("no_kinds", "It cannot be."), "no_kinds", 1),
        (BadRequestError("refused"), "provider_refused", 1),
        (InvalidRequestError("no such thing"), "invalid_request", 1),
    ],
)
async def test_only_errors_that_may_pass_are_tried_again_five_times(
    jobs: Jobs, error: BaseException, code: str, attempts: int
) -> None:
    jobs.handler.act = raises(error)
    row = await jobs.done()
    assert (row["state"], row["attempt"], row["result"]) == ("failed", attempts, None)
    assert row["run_at"] < row["finished_at"]
    assert json.loads(row["error"])["code"] == code
    assert [attempt for _, attempt in jobs.handler.attempts] == list(range(1, attempts + 1))


async def test_a_job_that_awaits_another_attempt_shows_the_error(jobs: Jobs) -> None:
    async def is_paused() -> bool:
        return (await jobs.row(job_id))["error"] is not None

    jobs.handler.act = raises(RateLimitedError("Slowly.", retry_after=120))
    job_id = await jobs.submit()
    async with jobs.working():
        await until(is_paused)
    row, job = await jobs.row(job_id), await jobs.get(job_id)
    assert row["run_at"] - row["created_at"] > timedelta(seconds=110)
    assert (job["state"], job["attempt"], job["finished_at"]) == ("queued", 1, None)
    assert job["error"] == {"code": "provider_rate_limited", "detail": "Slowly."}


@pytest.mark.parametrize(
    ("made", "uncounted", "retry_after", "shortest", "longest"),
    [
        (0, 0, 0, 7, 12.6),
        (3, 0, 0, 56, 101),
        (90, 0, 0, 40 * 60, 75 * 60),
        (0, 5_000, 0, 7, 12.6),
        (0, 0, 120, 115, 120),
        (2, 0, 1, 27, 51),
    ],
)
async def test_the_pause_doubles_with_counted_attempts_up_to_a_limit(
    jobs: Jobs, made: int, uncounted: int, retry_after: float, shortest: float, longest: float
) -> None:
    await jobs.submit()
    numbers = made + uncounted, 100 + uncounted
    await jobs.sql("UPDATE jobs SET attempt = $1, max_attempts = $2", *numbers)
    async with jobs.database.transaction(ALL_ROOTS) as connection:
        job = await queue.claim(connection, "w", lease_seconds=60, concurrency=9, max_per_root=9)
        assert job is not None
        policy, failure = RetryPolicy(100, 10), Failure("x", "y")
        await queue.end_attempt(connection, job, failure, policy, retry_after=retry_after)
    [row] = await jobs.sql("SELECT run_at - clock_timestamp() AS pause FROM jobs")
    assert timedelta(seconds=shortest) < row["pause"] <= timedelta(seconds=longest)


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "x" * 100_000])
async def test_an_error_is_stored_whatever_its_text(jobs: Jobs, text: str) -> None:
    jobs.handler.act = raises(JobFailedError("odd", text))
    job = await jobs.get((await jobs.done())["id"])
    assert job["state"] == "failed"
    assert job["error"]["detail"] in {"a\ufffdb", "x" * 2_000}


async def test_an_attempt_has_a_time_limit(jobs: Jobs) -> None:
    jobs.handler.act = lambda _: asyncio.sleep(60)
    row = await jobs.done(job_timeout_seconds=0.1)
    assert (row["state"], row["attempt"]) == ("failed", 5)
    error = json.loads(row["error"])
    assert error["code"] == "timeout"
    assert "0.1 seconds" in error["detail"]
